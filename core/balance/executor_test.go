package balance_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"castellan.dev/castellan/core/balance"
)

// executor is what an engine would do: it keeps nothing but the request.
type executor struct {
	k        *kafka
	req      balance.Request
	limits   balance.Limits
	p        balance.Proposal
	begun    bool
	plans    int
	problems []balance.Problem
	patience int  // ticks with stalled moves
	forget   bool // a restart: the proposal is lost
}

// turn is one look at the facts. It returns whether all is done.
func (e *executor) turn(t *testing.T) bool {
	t.Helper()
	if !e.begun || e.forget {
		e.plan()
		e.forget = false
	}
	step := balance.Next(&e.p, e.k.c, e.limits)
	if e.patience++; len(step.Stalled) == 0 {
		e.patience = 0
	}
	if e.patience > 40 {
		e.takeBack(t, step.Stalled)
		e.plan()
		step = balance.Next(&e.p, e.k.c, e.limits)
	}
	if (step.Stuck || len(step.Stale) > 0) && len(step.Start) == 0 {
		if step.Running > 0 {
			return false
		}
		e.plan()
		step = balance.Next(&e.p, e.k.c, e.limits)
	}
	before := e.k.load()
	for _, m := range step.Start {
		e.check(t, m)
		if err := e.k.reassign(m); err != nil {
			t.Fatalf("tick %d: %v", e.k.tick, err)
		}
	}
	e.within(t, before, len(step.Start))
	for _, x := range step.Elect {
		if !slices.Contains(inSync(*e.k.part(x.PartitionRef)), x.To) {
			t.Fatalf("%v: %d is elected out of sync", x.PartitionRef, x.To)
		}
		e.k.part(x.PartitionRef).Leader = x.To
	}
	if len(step.Start) == 0 && !step.Finished && len(step.Waiting) == 0 && step.Running == 0 && len(step.Elect) == 0 && len(e.p.Problems) == 0 {
		t.Fatalf("tick %d: nothing happens and nobody says why: %+v", e.k.tick, step)
	}
	if !step.Finished || step.Foreign > 0 {
		return false
	}
	// What was in flight, or came meanwhile, is planned now.
	again := balance.Plan(e.k.c, e.req)
	e.problems = again.Problems
	if again.Empty() && len(again.Deferred) == 0 {
		return true
	}
	e.plan()
	return false
}

func (e *executor) plan() {
	e.p, e.begun = balance.Plan(e.k.c, e.req), true
	e.plans++
}

// takeBack reverts moves as Kafka does.
func (e *executor) takeBack(t *testing.T, refs []balance.PartitionRef) {
	t.Helper()
	back := balance.Revert(e.k.c, func(ref balance.PartitionRef) bool { return slices.Contains(refs, ref) })
	if len(back.Cancel)+len(back.Return)+len(back.Keep) == 0 {
		t.Fatalf("%v: neither taken back nor kept", refs)
	}
	for _, x := range back.Cancel {
		p := e.k.part(x.PartitionRef)
		var next []balance.Replica
		for _, r := range p.Replicas {
			if r.State.Has(balance.Adding) {
				e.k.w.use(r, -r.Bytes)
				continue
			}
			r.State &^= balance.Removing
			next = append(next, r)
		}
		p.Replicas = next
		if now := inSync(*p); len(now) == 0 || !slices.Equal(slices.Sorted(slices.Values(ids(*p))), slices.Sorted(slices.Values(x.To))) {
			t.Fatalf("%+v leaves %v in sync", x, now)
		} else if !slices.Contains(now, p.Leader) {
			p.Leader = now[0]
		}
	}
	for _, x := range back.Return {
		e.k.c.Copies = slices.DeleteFunc(e.k.c.Copies, func(f balance.Copy) bool { return f.Topic == x.Topic && f.Partition == x.Partition })
	}
}

// check holds a move about to start against the facts.
func (e *executor) check(t *testing.T, m balance.Move) {
	t.Helper()
	w := look(e.k.c)
	part := w.topics[m.Topic].Partitions[m.Partition]
	if err := w.inSync(w.topics[m.Topic], part, m); err != nil {
		t.Fatalf("tick %d: %v: %+v", e.k.tick, err, m)
	}
	for _, b := range m.To {
		if !slices.Contains(ids(part), b) && !w.brokers[b].Alive {
			t.Fatalf("tick %d: broker %d is down: %+v", e.k.tick, b, m)
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(m.To)))) != len(m.To) {
		t.Fatalf("tick %d: duplicate: %+v", e.k.tick, m)
	}
	used := w.spaces()
	for _, d := range m.Dirs {
		if dir := w.dir(d); used[d]+largest(part) > int64(float64(dir.Total)*(1-balance.DefaultHeadroom)) {
			t.Fatalf("tick %d: log dir %v would hold %d of %d: %+v", e.k.tick, d, used[d]+largest(part), dir.Total, m)
		}
	}
}

// within says that what is in flight after a start keeps to the limits, unless it was beyond
// them before, or is one single copy.
func (e *executor) within(t *testing.T, before load, started int) {
	t.Helper()
	now := e.k.load()
	if now.all > e.limits.Cluster && now.all > before.all || e.limits.Bytes > 0 && now.bytes > e.limits.Bytes && now.bytes > before.bytes && now.all > 1 {
		t.Fatalf("tick %d: %d copies of %d bytes in flight after %d starts, limits %+v", e.k.tick, now.all, now.bytes, started, e.limits)
	}
	for b := range e.k.w.brokers {
		if now.in[b] > max(e.limits.In, before.in[b]) || now.out[b] > max(e.limits.Out, before.out[b]) {
			t.Fatalf("tick %d: broker %d receives %d and sends %d, limits %+v", e.k.tick, b, now.in[b], now.out[b], e.limits)
		}
	}
}

// large is the cluster of 300 brokers that is drained of two and filled with new ones.
func large(seed uint64) *balance.Cluster {
	return shape{seed: seed, brokers: 300, racks: 3, fresh: 10, replicas: 3_600, topics: 60, factors: []int{3}, dirs: 1, used: .4, skew: .5, uneven: .3, minISR: 2}.cluster()
}

// TestThreeHundredBrokers plays drains, fills and full balances to their ends with one failure
// at a random step: never more in flight than asked, nothing under min ISR by our hand, and an end.
func TestThreeHundredBrokers(t *testing.T) {
	failures := []string{"none", "broker", "broker for good", "full", "foreign", "restarts"}
	for i, failure := range failures {
		for j, mode := range []balance.Mode{balance.Drain, balance.Fill, balance.Full} {
			t.Run(fmt.Sprintf("%s/%s", failure, mode), func(t *testing.T) {
				seed := uint64(i*3 + j)
				req := balance.Request{Mode: mode}
				if mode == balance.Drain {
					req.Brokers = []int32{7, 8}
				}
				if mode == balance.Fill {
					for b := int32(291); b <= 300; b++ {
						req.Brokers = append(req.Brokers, b)
					}
				}
				play(t, large(seed), req, failure, rand.New(rand.NewPCG(seed, 3)), 40)
			})
		}
	}
}

// play runs an executor to its end; the failure comes at a step of up to last.
func play(t *testing.T, c *balance.Cluster, req balance.Request, failure string, r *rand.Rand, last int) {
	t.Helper()
	k := simulate(c, dirBytes/100)
	e := &executor{k: k, req: req, limits: balance.Limits{In: 2, Out: 2, Cluster: 60, Bytes: dirBytes / 4}}
	first := balance.Plan(c, req)
	moves := len(first.Moves)
	at, victim := r.IntN(last), c.Brokers[r.IntN(len(c.Brokers))].ID
	bound := 400 + 10*moves + 3*int((first.Bytes+first.LocalBytes)/k.rate)
	for idle := 0; k.tick < bound; {
		if k.tick == at {
			strike(k, failure, victim, r)
		}
		if k.tick == at+30 && failure == "broker" {
			k.begin(victim)
		}
		if k.tick == at+30 && failure == "full" {
			clear(k.full)
		}
		e.forget = failure == "restarts" && k.tick >= at && k.tick < at+50 && (k.tick-at)%7 == 0
		before, running := k.under(), k.load().all
		if e.turn(t) {
			if len(e.problems) == 0 {
				settled(t, k, req)
			}
			return
		}
		if idle++; running+k.load().all > 0 || k.tick <= at {
			idle = 0
		}
		if idle > 5 && failure == "broker for good" {
			return // it waits for the broker, and says so: see turn
		}
		k.step()
		if k.under() > before {
			t.Fatalf("tick %d: %d partitions are under min ISR, %d were", k.tick, k.under(), before)
		}
	}
	t.Fatalf("no end after %d ticks for %d moves and %d plans: %+v", bound, moves, e.plans, fmt.Sprintf("%s %s at %d %+v load %+v", req.Mode, failure, at, balance.Next(&e.p, k.c, e.limits), k.load()))
}

// strike lets one thing go wrong.
func strike(k *kafka, failure string, victim int32, r *rand.Rand) {
	switch failure {
	case "broker", "broker for good":
		k.stop(victim)
	case "full":
		for _, t := range k.c.Topics {
			for _, p := range t.Partitions {
				for _, x := range p.Replicas {
					if d, ok := k.w.where(x); ok && x.State.Has(balance.Adding) {
						k.full[d] = true
						return
					}
				}
			}
		}
	case "foreign":
		for range 5 {
			topic := &k.c.Topics[r.IntN(len(k.c.Topics))]
			i := r.IntN(len(topic.Partitions))
			p := topic.Partitions[i]
			to := k.c.Brokers[r.IntN(len(k.c.Brokers))].ID
			if flying(p) || slices.Contains(ids(p), to) {
				continue
			}
			list := append([]int32{to}, ids(p)[1:]...)
			_ = k.reassign(balance.Move{Topic: topic.Name, Partition: int32(i), From: ids(p), To: list})
		}
	}
}

// settled says that the end is what was asked for.
func settled(t *testing.T, k *kafka, req balance.Request) {
	t.Helper()
	for _, topic := range k.c.Topics {
		for i, p := range topic.Partitions {
			if flying(p) {
				t.Fatalf("%s-%d is in flight at the end", topic.Name, i)
			}
			for _, b := range ids(p) {
				if req.Mode == balance.Drain && slices.Contains(req.Brokers, b) {
					t.Fatalf("%s-%d is still on broker %d", topic.Name, i, b)
				}
			}
		}
	}
}

// FuzzExecution is the same with small clusters, any failure at any step, and any limits.
func FuzzExecution(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed)
	}
	f.Fuzz(execution)
}

func execution(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 5))
	h := shape{
		seed: seed, brokers: 4 + r.IntN(10), racks: []int{0, 3}[r.IntN(2)], replicas: 30 + r.IntN(200), topics: 1 + r.IntN(8),
		factors: []int{2, 3, 3}, dirs: 1 + r.IntN(3), used: .1 + .4*r.Float64(), skew: r.Float64(), uneven: r.Float64(), minISR: 1 + r.IntN(2),
	}
	h.fresh = r.IntN(h.brokers/3 + 1)
	c := h.cluster()
	mode := []balance.Mode{balance.Drain, balance.Full, balance.Disks}[r.IntN(3)]
	req := balance.Request{Mode: mode}
	if mode == balance.Drain {
		req.Brokers = []int32{c.Brokers[r.IntN(len(c.Brokers))].ID}
	}
	failure := []string{"none", "broker", "broker for good", "full", "foreign", "restarts"}[r.IntN(6)]
	play(t, c, req, failure, r, 1+r.IntN(60))
}
