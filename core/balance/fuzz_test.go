package balance_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"castellan.dev/castellan/core/balance"
)

// FuzzPlan makes up small clusters in any state and any request, and holds what comes out
// against every hard rule, against a second run, and against a run on the outcome.
func FuzzPlan(f *testing.F) {
	for seed := range uint64(600) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := wild(r)
		req := wish(r, c)
		p := balance.Plan(c, req)
		hold(t, c, req, p)
		if again := balance.Plan(c, req); again.Digest() != p.Digest() {
			t.Fatalf("the same facts gave two plans for %+v", req)
		}
		if len(p.Problems) > 0 {
			return
		}
		if murky(c) {
			return // what leaves an unknown log dir cannot be told from what stays
		}
		after := apply(c, p)
		for rounds := 0; ; rounds++ {
			again := balance.Plan(after, req)
			hold(t, after, req, again)
			if again.Empty() || len(again.Problems) > 0 {
				return
			}
			if p.LeftOut == 0 || rounds > 8 {
				t.Fatalf("after all moves there are more for %+v:\n%+v\n%+v\nfirst: %d moves", req, again.Moves, again.Elections, len(p.Moves))
			}
			after, p = apply(after, again), again
		}
	})
}

// murky says that a broker with several log dirs has a replica whose log dir is not known.
func murky(c *balance.Cluster) bool {
	w := look(c)
	for _, t := range c.Topics {
		for _, p := range t.Partitions {
			for _, r := range p.Replicas {
				if _, ok := w.where(r); !ok && r.Bytes > 0 && w.brokers[r.Broker].Alive {
					return true
				}
			}
		}
	}
	return false
}

// wild is a small cluster in any state: dead, cordoned and leaving brokers, lost and cordoned
// log dirs, unknown sizes, replicas behind, reassignments and copies in flight.
func wild(r *rand.Rand) *balance.Cluster {
	h := shape{
		seed: r.Uint64(), brokers: 2 + r.IntN(12), racks: r.IntN(5), replicas: 10 + r.IntN(300), topics: 1 + r.IntN(12),
		factors: []int{1, 2, 3, 3}, dirs: 1 + r.IntN(3), used: .1 + .7*r.Float64(), skew: 2 * r.Float64(), uneven: 3 * r.Float64(), minISR: 1 + r.IntN(3), mixed: r.IntN(3) == 0,
	}
	h.fresh = r.IntN(h.brokers/2 + 1)
	c := h.cluster()
	if r.IntN(3) == 0 {
		return c
	}
	for i := range c.Brokers {
		b := &c.Brokers[i]
		b.Alive = r.IntN(12) > 0
		b.Cordoned = r.IntN(10) == 0
		b.Leaving = r.IntN(12) == 0
		if r.IntN(15) == 0 && !b.Alive {
			b.LogDirs = nil
		}
		for d := range b.LogDirs {
			b.LogDirs[d].Cordoned = r.IntN(20) == 0
			if r.IntN(20) == 0 {
				b.LogDirs[d].Total, b.LogDirs[d].Usable = 0, 0
			}
		}
	}
	for t := range c.Topics {
		for p := range c.Topics[t].Partitions {
			disturb(r, c, &c.Topics[t].Partitions[p])
		}
	}
	for range r.IntN(3) {
		copying(r, c)
	}
	return c
}

// disturb puts a partition into a state that the brokers' allow.
func disturb(r *rand.Rand, c *balance.Cluster, p *balance.Partition) {
	w := look(c)
	for j := range p.Replicas {
		x := &p.Replicas[j]
		b := w.brokers[x.Broker]
		if !b.Alive || r.IntN(15) == 0 {
			x.State = 0
		}
		if int(x.Dir) >= len(b.LogDirs) || r.IntN(40) == 0 {
			x.Dir = balance.NoDir
		}
	}
	if r.IntN(25) == 0 {
		to := c.Brokers[r.IntN(len(c.Brokers))]
		if to.Alive && !slices.Contains(ids(*p), to.ID) {
			p.Replicas[0].State |= balance.Removing
			added := balance.Replica{Broker: to.ID, Dir: balance.NoDir, State: balance.Adding}
			p.Replicas = append([]balance.Replica{added}, p.Replicas...)
		}
	}
	p.Leader = -1
	for _, x := range p.Replicas {
		if x.State.Has(balance.InSync) && (p.Leader < 0 || r.IntN(3) == 0) {
			p.Leader = x.Broker
		}
	}
}

// copying begins a copy between log dirs.
func copying(r *rand.Rand, c *balance.Cluster) {
	w := look(c)
	topic := &c.Topics[r.IntN(len(c.Topics))]
	i := r.IntN(len(topic.Partitions))
	for _, x := range topic.Partitions[i].Replicas {
		n := len(w.brokers[x.Broker].LogDirs)
		if d := r.IntN(n + 1); d < n && x.Dir >= 0 && d != int(x.Dir) && !slices.ContainsFunc(c.Copies, func(f balance.Copy) bool { return f.Topic == topic.Name && f.Partition == int32(i) }) {
			c.Copies = append(c.Copies, balance.Copy{Topic: topic.Name, Partition: int32(i), Broker: x.Broker, Dir: int16(d)})
			return
		}
	}
}

// wish is any request.
func wish(r *rand.Rand, c *balance.Cluster) balance.Request {
	modes := []balance.Mode{balance.Drain, balance.Fill, balance.Full, balance.Full, balance.Disks, balance.Leaders, balance.ReplicationFactor}
	req := balance.Request{Mode: modes[r.IntN(len(modes))], Headroom: []float64{0, .01, .2}[r.IntN(3)], Tolerance: []float64{0, .01, .3}[r.IntN(3)]}
	for range 1 + r.IntN(2) {
		b := c.Brokers[r.IntN(len(c.Brokers))]
		req.Brokers = append(req.Brokers, b.ID)
		if len(b.LogDirs) > 1 && r.IntN(4) == 0 && (req.Mode == balance.Disks || req.Mode == balance.Full) {
			req.Empty = append(req.Empty, balance.DirRef{Broker: b.ID, Path: b.LogDirs[0].Path})
		}
	}
	req.Brokers = slices.Compact(slices.Sorted(slices.Values(req.Brokers)))
	if req.Mode == balance.Full || r.IntN(2) == 0 && req.Mode == balance.Disks {
		req.Brokers = nil
	}
	if r.IntN(4) == 0 {
		req.Topics = []string{c.Topics[r.IntN(len(c.Topics))].Name}
	}
	if r.IntN(6) == 0 {
		req.ReplicaCap = 1 + r.IntN(120)
	}
	if req.Mode == balance.ReplicationFactor {
		req.Topics = nil
		req.Factors = map[string]int{}
		for range 1 + r.IntN(3) {
			req.Factors[fmt.Sprintf("topic-%d", r.IntN(len(c.Topics)))] = 1 + r.IntN(4)
		}
	}
	return req
}
