package balance_test

import (
	"fmt"
	"slices"

	"castellan.dev/castellan/core/balance"
)

// kafka is a simulated cluster that does what it is asked, a tick at a time: copies advance
// by a rate, a reassignment completes when all its replicas are in sync, brokers go and come.
type kafka struct {
	c    *balance.Cluster
	rate int64
	w    world
	// full are log dirs that take no more bytes, whatever they say.
	full map[balance.DirRef]bool
	// asked are the log dirs that new replicas were asked to go to.
	asked map[balance.PartitionRef][]balance.DirRef
	tick  int
}

func simulate(c *balance.Cluster, rate int64) *kafka {
	c = clone(c)
	return &kafka{c: c, rate: rate, w: look(c), full: map[balance.DirRef]bool{}, asked: map[balance.PartitionRef][]balance.DirRef{}}
}

func (k *kafka) part(ref balance.PartitionRef) *balance.Partition {
	return &k.w.topics[ref.Topic].Partitions[ref.Partition]
}

// reassign is AlterPartitionReassignments after AlterReplicaLogDirs.
func (k *kafka) reassign(m balance.Move) error {
	ref := balance.PartitionRef{Topic: m.Topic, Partition: m.Partition}
	p := k.part(ref)
	if flying(*p) {
		return fmt.Errorf("%v is in flight already", ref)
	}
	for _, d := range m.Dirs {
		if i := slices.IndexFunc(p.Replicas, func(r balance.Replica) bool { return r.Broker == d.Broker }); i >= 0 {
			to := int16(slices.IndexFunc(k.w.brokers[d.Broker].LogDirs, func(l balance.LogDir) bool { return l.Path == d.Path }))
			k.c.Copies = append(k.c.Copies, balance.Copy{Topic: m.Topic, Partition: m.Partition, Broker: d.Broker, Dir: to})
		}
	}
	k.asked[ref] = m.Dirs
	var next []balance.Replica
	for _, b := range m.To {
		if i := slices.Index(ids(*p), b); i >= 0 {
			next = append(next, p.Replicas[i])
			continue
		}
		if node := k.w.brokers[b]; node == nil {
			return fmt.Errorf("broker %d is not there", b)
		}
		r := balance.Replica{Broker: b, State: balance.Adding}
		for d, dir := range k.w.brokers[b].LogDirs { // the broker's own choice
			if dir.Usable > k.w.brokers[b].LogDirs[r.Dir].Usable {
				r.Dir = int16(d)
			}
		}
		for _, d := range m.Dirs {
			if d.Broker == b {
				r.Dir = int16(slices.IndexFunc(k.w.brokers[b].LogDirs, func(l balance.LogDir) bool { return l.Path == d.Path }))
			}
		}
		next = append(next, r)
	}
	for _, r := range p.Replicas {
		if !slices.Contains(m.To, r.Broker) {
			r.State |= balance.Removing
			next = append(next, r)
		}
	}
	p.Replicas = next
	return nil
}

// step lets time go on.
func (k *kafka) step() {
	k.tick++
	for t := range k.c.Topics {
		topic := &k.c.Topics[t]
		for i := range topic.Partitions {
			k.replicate(&topic.Partitions[i])
			k.complete(&topic.Partitions[i])
		}
	}
	k.copyDirs()
}

// replicate brings replicas closer to their leader, and into the ISR.
func (k *kafka) replicate(p *balance.Partition) {
	if p.Leader < 0 {
		return
	}
	size := largest(*p)
	for j := range p.Replicas {
		r := &p.Replicas[j]
		if r.State.Has(balance.InSync) || !k.w.brokers[r.Broker].Alive {
			continue
		}
		d, _ := k.w.where(*r)
		more := min(k.rate, size-r.Bytes)
		if k.full[d] || more > k.w.dir(d).Usable {
			continue
		}
		r.Bytes += more
		k.w.dir(d).Usable -= more
		if r.Bytes >= size {
			r.State |= balance.InSync
		}
	}
}

// complete ends a reassignment once every replica that stays is in sync (KRaft's
// PartitionReassignmentReplicas).
func (k *kafka) complete(p *balance.Partition) {
	if !flying(*p) {
		return
	}
	for _, r := range p.Replicas {
		if !r.State.Has(balance.Removing) && !r.State.Has(balance.InSync) {
			return
		}
	}
	var next []balance.Replica
	for _, r := range p.Replicas {
		if r.State.Has(balance.Removing) {
			k.w.use(r, -r.Bytes)
			continue
		}
		r.State = balance.InSync
		next = append(next, r)
	}
	p.Replicas = next
	if !slices.Contains(ids(*p), p.Leader) {
		p.Leader = p.Replicas[0].Broker
	}
}

func (k *kafka) copyDirs() {
	k.c.Copies = slices.DeleteFunc(k.c.Copies, func(f balance.Copy) bool {
		p := k.part(balance.PartitionRef{Topic: f.Topic, Partition: f.Partition})
		for j := range p.Replicas {
			if r := &p.Replicas[j]; r.Broker == f.Broker && k.w.brokers[f.Broker].Alive {
				k.w.use(*r, -r.Bytes)
				r.Dir = f.Dir
				k.w.use(*r, r.Bytes)
				return true
			}
		}
		return !k.w.brokers[f.Broker].Alive // the copy begins anew
	})
}

// stop takes a broker down: its replicas leave the ISR, others lead.
func (k *kafka) stop(id int32) {
	k.w.brokers[id].Alive = false
	for t := range k.c.Topics {
		for i := range k.c.Topics[t].Partitions {
			p := &k.c.Topics[t].Partitions[i]
			for j := range p.Replicas {
				if p.Replicas[j].Broker == id && len(inSync(*p)) > 1 {
					p.Replicas[j].State &^= balance.InSync
				}
			}
			if p.Leader == id {
				p.Leader = -1
				for _, b := range inSync(*p) {
					if b != id {
						p.Leader = b
						break
					}
				}
			}
		}
	}
}

// begin brings it back.
func (k *kafka) begin(id int32) {
	k.w.brokers[id].Alive = true
	for t := range k.c.Topics {
		for i := range k.c.Topics[t].Partitions {
			p := &k.c.Topics[t].Partitions[i]
			if p.Leader < 0 && slices.Contains(inSync(*p), id) {
				p.Leader = id
			}
		}
	}
}

func inSync(p balance.Partition) []int32 {
	var out []int32
	for _, r := range p.Replicas {
		if r.State.Has(balance.InSync) {
			out = append(out, r.Broker)
		}
	}
	return out
}

// load is what is in flight: copies by broker, in all, and their bytes.
type load struct {
	in, out map[int32]int
	all     int
	bytes   int64
}

func (k *kafka) load() load {
	l := load{in: map[int32]int{}, out: map[int32]int{}}
	for _, t := range k.c.Topics {
		for _, p := range t.Partitions {
			for _, r := range p.Replicas {
				if r.State.Has(balance.Adding) && !r.State.Has(balance.InSync) {
					l.in[r.Broker]++
					l.out[p.Leader]++
					l.all++
					l.bytes += largest(p)
				}
			}
		}
	}
	for _, f := range k.c.Copies {
		l.in[f.Broker]++
		l.out[f.Broker]++
		l.all++
		for _, r := range k.part(balance.PartitionRef{Topic: f.Topic, Partition: f.Partition}).Replicas {
			if r.Broker == f.Broker {
				l.bytes += r.Bytes
			}
		}
	}
	return l
}

// under counts partitions under min ISR, but for those that have a replica on a broker that
// is down, or have had no more replicas in sync before: what only our moves can bring about.
func (k *kafka) under() int {
	n := 0
	for _, t := range k.c.Topics {
		for _, p := range t.Partitions {
			if len(inSync(p)) < t.MinISR {
				n++
			}
		}
	}
	return n
}
