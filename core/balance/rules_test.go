package balance_test

import (
	"fmt"
	"slices"
	"testing"

	"castellan.dev/castellan/core/balance"
)

// world answers questions about a Cluster, in the plainest way: it is what plans are judged by.
type world struct {
	c       *balance.Cluster
	brokers map[int32]*balance.Broker
	topics  map[string]*balance.Topic
	racks   int
}

func look(c *balance.Cluster, drained ...int32) world {
	w := world{c: c, brokers: map[int32]*balance.Broker{}, topics: map[string]*balance.Topic{}}
	racks := map[string]bool{}
	for i := range c.Brokers {
		b := &c.Brokers[i]
		w.brokers[b.ID] = b
		if !b.Leaving && !slices.Contains(drained, b.ID) {
			racks[b.Rack] = true
		}
	}
	w.racks = max(1, len(racks))
	for i := range c.Topics {
		w.topics[c.Topics[i].Name] = &c.Topics[i]
	}
	return w
}

func ids(p balance.Partition) []int32 {
	var out []int32
	for _, r := range p.Replicas {
		out = append(out, r.Broker)
	}
	return out
}

// ends is what a replica will hold once it is in sync.
func ends(p balance.Partition, i int) int64 {
	if p.Replicas[i].State.Has(balance.InSync) {
		return p.Replicas[i].Bytes
	}
	return largest(p)
}

func flying(p balance.Partition) bool {
	return slices.ContainsFunc(p.Replicas, func(r balance.Replica) bool { return r.State&(balance.Adding|balance.Removing) != 0 })
}

func largest(p balance.Partition) int64 {
	var most int64
	for _, r := range p.Replicas {
		most = max(most, r.Bytes)
	}
	return most
}

func (w world) rack(id int32) string {
	if b := w.brokers[id]; b != nil {
		return b.Rack
	}
	return ""
}

// crowd is by how much racks hold more than their share of a replica list.
func (w world) crowd(list []int32) int {
	in := map[string]int{}
	for _, b := range list {
		in[w.rack(b)]++
	}
	over := 0
	for _, n := range in {
		over += max(0, n-(len(list)+w.racks-1)/w.racks)
	}
	return over
}

func (w world) dir(d balance.DirRef) *balance.LogDir {
	b := w.brokers[d.Broker]
	if b == nil {
		return nil
	}
	for i := range b.LogDirs {
		if b.LogDirs[i].Path == d.Path {
			return &b.LogDirs[i]
		}
	}
	return nil
}

// where is the log dir of a replica, as far as it is known.
func (w world) where(r balance.Replica) (balance.DirRef, bool) {
	b := w.brokers[r.Broker]
	if b == nil {
		return balance.DirRef{}, false
	}
	d := int(r.Dir)
	if d < 0 && len(b.LogDirs) == 1 {
		d = 0
	}
	if d < 0 || d >= len(b.LogDirs) {
		return balance.DirRef{}, false
	}
	return balance.DirRef{Broker: r.Broker, Path: b.LogDirs[d].Path}, true
}

// spaces is how many bytes each log dir holds, what is still to arrive counted.
func (w world) spaces() map[balance.DirRef]int64 {
	used := map[balance.DirRef]int64{}
	for _, b := range w.c.Brokers {
		for _, d := range b.LogDirs {
			if d.Total > 0 {
				used[balance.DirRef{Broker: b.ID, Path: d.Path}] = d.Total - d.Usable
			}
		}
	}
	for _, t := range w.c.Topics {
		for _, p := range t.Partitions {
			for _, r := range p.Replicas {
				if d, ok := w.where(r); ok && !r.State.Has(balance.InSync) && !r.State.Has(balance.Removing) {
					used[d] += largest(p) - r.Bytes
				}
			}
		}
	}
	for _, f := range w.c.Copies {
		p := w.topics[f.Topic].Partitions[f.Partition]
		for _, r := range p.Replicas {
			if r.Broker == f.Broker {
				used[balance.DirRef{Broker: f.Broker, Path: w.brokers[f.Broker].LogDirs[f.Dir].Path}] += r.Bytes - f.Bytes
			}
		}
	}
	return used
}

// hold judges a proposal by every hard rule.
func hold(t *testing.T, c *balance.Cluster, req balance.Request, p balance.Proposal) {
	t.Helper()
	var drained []int32
	if req.Mode == balance.Drain {
		drained = req.Brokers
	}
	w := look(c, drained...)
	if len(p.Problems) > 0 {
		if len(p.Moves)+len(p.Elections) > 0 {
			t.Fatalf("refused, and still %d moves", len(p.Moves))
		}
		for _, x := range p.Problems {
			if x.Message == "" || x.Reason == "" {
				t.Fatalf("a refusal says nothing: %+v", x)
			}
		}
		return
	}
	replay := w.replay(req)
	var bytes int64
	for _, m := range p.Moves {
		if err := w.judge(req, drained, m); err != nil {
			t.Fatalf("%v\n%+v", err, m)
		}
		if err := replay(m); err != nil {
			t.Fatalf("%v\n%+v", err, m)
		}
		bytes += m.Bytes
	}
	if bytes != p.Bytes {
		t.Fatalf("moves copy %d bytes, the proposal says %d", bytes, p.Bytes)
	}
	after := apply(c, p)
	reached(t, w, after, req, p)
	tables(t, after, p)
}

// tables says that the table of after is what comes out.
func tables(t *testing.T, after *balance.Cluster, p balance.Proposal) {
	t.Helper()
	count := map[int32]int{}
	for _, topic := range after.Topics {
		for _, part := range topic.Partitions {
			for _, r := range part.Replicas {
				if !r.State.Has(balance.Removing) {
					count[r.Broker]++
				}
			}
		}
	}
	for _, row := range p.Brokers {
		if row.After.Replicas != count[row.Broker] {
			t.Fatalf("the table gives broker %d %d replicas, it has %d in the end", row.Broker, row.After.Replicas, count[row.Broker])
		}
	}
}

// judge holds one move against the rules that need no order.
func (w world) judge(req balance.Request, drained []int32, m balance.Move) error {
	topic := w.topics[m.Topic]
	part := topic.Partitions[m.Partition]
	switch {
	case flying(part):
		return fmt.Errorf("a partition in flight is moved")
	case len(req.Topics) > 0 && !slices.Contains(req.Topics, m.Topic):
		return fmt.Errorf("a topic nobody asked for is moved")
	case !slices.Equal(ids(part), m.From):
		return fmt.Errorf("from is not what is there: %v", ids(part))
	case len(m.To) == 0 || len(slices.Compact(slices.Sorted(slices.Values(m.To)))) != len(m.To):
		return fmt.Errorf("empty or duplicate replicas")
	case w.crowd(m.To) > w.crowd(m.From) && len(m.To) <= len(m.From) || w.crowd(m.To) > 0 && w.crowd(m.From) == 0:
		return fmt.Errorf("racks get worse: %d from %d", w.crowd(m.To), w.crowd(m.From))
	}
	for _, b := range m.To {
		if slices.Contains(m.From, b) {
			continue
		}
		node := w.brokers[b]
		if node == nil || !node.Alive || node.Cordoned || node.Leaving || slices.Contains(drained, b) {
			return fmt.Errorf("broker %d takes no replicas", b)
		}
		if req.Mode == balance.Fill && !slices.Contains(req.Brokers, b) {
			return fmt.Errorf("broker %d is not to be filled", b)
		}
		if !slices.ContainsFunc(m.Dirs, func(d balance.DirRef) bool { return d.Broker == b }) {
			return fmt.Errorf("no log dir on broker %d", b)
		}
	}
	for _, d := range m.Dirs {
		if dir := w.dir(d); dir == nil || dir.Offline || dir.Cordoned || slices.Contains(req.Empty, d) {
			return fmt.Errorf("log dir %v takes no replicas", d)
		}
	}
	if len(req.Empty) == 0 && (req.Mode == balance.Disks || req.Mode == balance.Leaders) && m.Bytes > 0 {
		return fmt.Errorf("%s copies between brokers", req.Mode)
	}
	return w.inSync(topic, part, m)
}

func (w world) inSync(topic *balance.Topic, part balance.Partition, m balance.Move) error {
	now, then := 0, 0
	for _, r := range part.Replicas {
		if r.State.Has(balance.InSync) {
			now++
			if slices.Contains(m.To, r.Broker) {
				then++
			}
		}
	}
	for _, b := range m.To {
		if !slices.Contains(m.From, b) {
			then++
		}
	}
	if then < min(now, topic.MinISR) {
		return fmt.Errorf("%d of %d replicas in sync would be left, min.insync.replicas is %d", then, now, topic.MinISR)
	}
	return nil
}

// replay does moves one after the other: the new replica fills its log dir before the old one
// leaves, and no headroom or cap is broken on the way.
func (w world) replay(req balance.Request) func(balance.Move) error {
	used := w.spaces()
	count := map[int32]int{}
	for _, t := range w.c.Topics {
		for _, p := range t.Partitions {
			for _, r := range p.Replicas {
				if !r.State.Has(balance.Removing) {
					count[r.Broker]++
				}
			}
		}
	}
	headroom := req.Headroom
	if headroom == 0 {
		headroom = balance.DefaultHeadroom
	}
	return func(m balance.Move) error {
		part := w.topics[m.Topic].Partitions[m.Partition]
		for _, d := range m.Dirs {
			dir := w.dir(d)
			bytes := m.Size
			if slices.Contains(m.From, d.Broker) {
				bytes = ends(part, slices.Index(m.From, d.Broker))
			}
			used[d] += bytes
			if limit := int64(float64(dir.Total) * (1 - headroom)); dir.Total > 0 && used[d] > limit {
				return fmt.Errorf("log dir %v would hold %d, at most %d may", d, used[d], limit)
			}
		}
		for i, b := range m.From {
			moved := slices.ContainsFunc(m.Dirs, func(d balance.DirRef) bool { return d.Broker == b })
			if d, ok := w.where(part.Replicas[i]); ok && (moved || !slices.Contains(m.To, b)) {
				used[d] -= ends(part, i)
			}
			if !slices.Contains(m.To, b) {
				count[b]--
			}
		}
		for _, b := range m.To {
			if slices.Contains(m.From, b) {
				continue
			}
			if count[b]++; req.ReplicaCap > 0 && count[b] > req.ReplicaCap {
				return fmt.Errorf("broker %d has %d replicas, at most %d may", b, count[b], req.ReplicaCap)
			}
		}
		return nil
	}
}

// reached says that the outcome is what was asked for.
func reached(t *testing.T, w world, after *balance.Cluster, req balance.Request, p balance.Proposal) {
	t.Helper()
	for _, topic := range after.Topics {
		for i, part := range topic.Partitions {
			if flying(part) || slices.Contains(p.Deferred, balance.PartitionRef{Topic: topic.Name, Partition: int32(i)}) ||
				len(req.Topics) > 0 && !slices.Contains(req.Topics, topic.Name) {
				continue
			}
			if n, ok := req.Factors[topic.Name]; ok && req.Mode == balance.ReplicationFactor && part.Leader >= 0 && len(part.Replicas) != n {
				t.Fatalf("%s-%d has %d replicas, not %d", topic.Name, i, len(part.Replicas), n)
			}
			for _, r := range part.Replicas {
				leaving := w.brokers[r.Broker] != nil && w.brokers[r.Broker].Leaving
				if req.Mode == balance.Drain && (leaving || slices.Contains(req.Brokers, r.Broker)) || req.Mode == balance.Full && leaving {
					t.Fatalf("%s-%d is still on broker %d", topic.Name, i, r.Broker)
				}
				if d, ok := w.where(r); ok && slices.Contains(req.Empty, d) && (req.Mode == balance.Disks || req.Mode == balance.Full) && w.brokers[r.Broker].Alive && part.Leader >= 0 {
					t.Fatalf("%s-%d is still in %v", topic.Name, i, d)
				}
			}
		}
	}
}

// apply is the Cluster once a proposal is done.
func apply(c *balance.Cluster, p balance.Proposal) *balance.Cluster {
	out := clone(c)
	w := look(out)
	for _, m := range p.Moves {
		part := &w.topics[m.Topic].Partitions[m.Partition]
		size := largest(*part)
		var next []balance.Replica
		for _, b := range m.To {
			r := balance.Replica{Broker: b, Dir: balance.NoDir, State: balance.InSync, Bytes: size}
			i := slices.Index(m.From, b)
			if i >= 0 {
				r = part.Replicas[i]
			}
			for _, d := range m.Dirs {
				if d.Broker == b {
					if i >= 0 {
						w.use(r, -r.Bytes)
					}
					r.Dir = int16(slices.IndexFunc(w.brokers[b].LogDirs, func(l balance.LogDir) bool { return l.Path == d.Path }))
					w.use(r, r.Bytes)
				}
			}
			next = append(next, r)
		}
		for i, b := range m.From {
			if !slices.Contains(m.To, b) {
				w.use(part.Replicas[i], -part.Replicas[i].Bytes)
			}
		}
		part.Replicas = next
		if !slices.Contains(m.To, part.Leader) && part.Leader >= 0 {
			part.Leader = m.To[0]
		}
	}
	for _, e := range p.Elections {
		w.topics[e.Topic].Partitions[e.Partition].Leader = e.To
	}
	return out
}

// use takes that much of a replica's log dir.
func (w world) use(r balance.Replica, bytes int64) {
	if d, ok := w.where(r); ok && w.dir(d).Total > 0 {
		w.dir(d).Usable -= bytes
	}
}

func clone(c *balance.Cluster) *balance.Cluster {
	out := &balance.Cluster{Brokers: slices.Clone(c.Brokers), Topics: slices.Clone(c.Topics), Copies: slices.Clone(c.Copies)}
	for i := range out.Brokers {
		out.Brokers[i].LogDirs = slices.Clone(out.Brokers[i].LogDirs)
	}
	for i := range out.Topics {
		out.Topics[i].Partitions = slices.Clone(out.Topics[i].Partitions)
		for j := range out.Topics[i].Partitions {
			out.Topics[i].Partitions[j].Replicas = slices.Clone(out.Topics[i].Partitions[j].Replicas)
		}
	}
	return out
}
