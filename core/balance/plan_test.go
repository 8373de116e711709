package balance_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/core/balance"
)

const gib = int64(1) << 30

// brokers makes brokers 1, 2, … with one log dir of 1 TiB each, in the given racks.
func brokers(racks ...string) *balance.Cluster {
	c := &balance.Cluster{}
	for i, rack := range racks {
		c.Brokers = append(c.Brokers, balance.Broker{
			ID: int32(i + 1), Rack: rack, Alive: true,
			LogDirs: []balance.LogDir{{Path: "/data/0", Total: 1024 * gib, Usable: 1024 * gib}},
		})
	}
	return c
}

// topic adds a topic of partitions that large with those replicas, all in sync.
func topic(c *balance.Cluster, name string, minISR int, size int64, lists ...[]int32) {
	t := balance.Topic{Name: name, MinISR: minISR}
	w := look(c)
	for _, list := range lists {
		p := balance.Partition{Leader: list[0]}
		for _, b := range list {
			r := balance.Replica{Broker: b, State: balance.InSync, Bytes: size}
			p.Replicas = append(p.Replicas, r)
			w.use(r, size)
		}
		t.Partitions = append(t.Partitions, p)
	}
	c.Topics = append(c.Topics, t)
}

// repeat gives partition i the brokers of the ring that follow broker i.
func repeat(n, factor int, ring ...int32) [][]int32 {
	var out [][]int32
	for i := range n {
		var list []int32
		for j := range factor {
			list = append(list, ring[(i+j)%len(ring)])
		}
		out = append(out, list)
	}
	return out
}

// planned plans, judges, and returns the outcome with the plan.
func planned(t *testing.T, c *balance.Cluster, req balance.Request) (balance.Proposal, *balance.Cluster) {
	t.Helper()
	p := balance.Plan(c, req)
	hold(t, c, req, p)
	if len(p.Problems) > 0 {
		t.Fatalf("refused: %+v", p.Problems)
	}
	return p, apply(c, p)
}

// on counts replicas, leaders and bytes by broker.
func on(c *balance.Cluster) (replicas, leaders map[int32]int, bytes map[int32]int64) {
	replicas, leaders, bytes = map[int32]int{}, map[int32]int{}, map[int32]int64{}
	for _, t := range c.Topics {
		for _, p := range t.Partitions {
			leaders[p.Leader]++
			for _, r := range p.Replicas {
				replicas[r.Broker]++
				bytes[r.Broker] += r.Bytes
			}
		}
	}
	return replicas, leaders, bytes
}

func unmet(p balance.Proposal) []string {
	var out []string
	for _, o := range p.Objectives {
		if !o.Met {
			out = append(out, o.Name)
		}
	}
	return out
}

func TestDrainTheMiddleBroker(t *testing.T) {
	c := brokers("a", "b", "c", "a", "b")
	topic(c, "t", 2, gib, repeat(30, 3, 1, 2, 3, 4, 5)...)
	topic(c, "small", 2, gib/100, repeat(30, 3, 5, 4, 3, 2, 1)...)
	before, _, _ := on(c)
	p, after := planned(t, c, balance.Request{Mode: balance.Drain, Brokers: []int32{3}})
	replicas, leaders, _ := on(after)
	if replicas[3] != 0 || leaders[3] != 0 {
		t.Errorf("broker 3 still has %d replicas and leads %d", replicas[3], leaders[3])
	}
	if len(p.Moves) != before[3] || p.Bytes != p.LeastBytes {
		t.Errorf("%d moves of %d bytes for %d replicas, at least %d", len(p.Moves), p.Bytes, before[3], p.LeastBytes)
	}
	for _, m := range p.Moves {
		if !slices.Contains(m.From, 3) {
			t.Errorf("%s-%d moves though it was not on broker 3", m.Topic, m.Partition)
		}
	}
}

func TestDrainTwoBrokersAtOnce(t *testing.T) {
	c := brokers("a", "b", "c", "a", "b", "c", "a", "b", "c")
	topic(c, "t", 2, gib, repeat(60, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9)...)
	p, after := planned(t, c, balance.Request{Mode: balance.Drain, Brokers: []int32{2, 3}})
	replicas, _, _ := on(after)
	if replicas[2]+replicas[3] != 0 {
		t.Errorf("left: %v", replicas)
	}
	seen := map[string]bool{}
	for _, m := range p.Moves {
		if name := fmt.Sprint(m.Topic, m.Partition); seen[name] {
			t.Errorf("%s moves twice", name)
		} else {
			seen[name] = true
		}
	}
	for b, n := range replicas {
		if n < 24 || n > 28 { // 180 over 7 brokers; racks b and c have two each for a third of them
			if rack := look(c).rack(b); rack == "a" && n < 18 || rack != "a" && (n < 28 || n > 32) {
				t.Errorf("broker %d of rack %s has %d replicas", b, rack, n)
			}
		}
	}
}

func TestDrainRefuses(t *testing.T) {
	for _, x := range []struct {
		name    string
		c       func() *balance.Cluster
		req     balance.Request
		reason  balance.Reason
		missing int64
		says    []string
	}{
		{
			name: "with as many brokers as replicas",
			c: func() *balance.Cluster {
				c := brokers("a", "b", "c")
				topic(c, "t", 2, gib, repeat(3, 3, 1, 2, 3)...)
				return c
			},
			req: balance.Request{Mode: balance.Drain, Brokers: []int32{2}}, reason: balance.TooFewBrokers,
			says: []string{"3 partitions (t-0, t-1, t-2)", "3 replicas need 3 brokers"},
		},
		{
			name: "when the only other broker of the rack is cordoned",
			c: func() *balance.Cluster {
				c := brokers("a", "b", "c", "a", "c")
				c.Brokers[4].Cordoned = true
				topic(c, "t", 2, gib, []int32{1, 2, 3})
				return c
			},
			req: balance.Request{Mode: balance.Drain, Brokers: []int32{3}}, reason: balance.MissingRacks,
			says: []string{"at most 1 of 3 replicas", "only in rack c", "uncordon"},
		},
		{
			name: "without space",
			c: func() *balance.Cluster {
				c := brokers("", "", "")
				topic(c, "t", 1, 400*gib, []int32{1}, []int32{2}, []int32{3})
				topic(c, "u", 1, 300*gib, []int32{1}, []int32{2}, []int32{3})
				return c
			},
			// Each of the two others has 1024 - 700 - 102.4 = 221.6 GiB left; 700 have to go there.
			req: balance.Request{Mode: balance.Drain, Brokers: []int32{3}}, reason: balance.MissingSpace, missing: 700*gib - 2*221*gib,
			says: []string{"700.0 GiB of replicas", "10% of each left free", "256.8 GiB are missing"},
		},
		{
			name: "at the replica cap",
			c: func() *balance.Cluster {
				c := brokers("", "", "")
				topic(c, "t", 1, gib, repeat(6, 1, 1, 2, 3)...)
				return c
			},
			req: balance.Request{Mode: balance.Drain, Brokers: []int32{3}, ReplicaCap: 2}, reason: balance.ReplicaCap,
			says: []string{"2 replicas, which is the cap"},
		},
		{
			name: "without a leader to copy from",
			c: func() *balance.Cluster {
				c := brokers("", "", "")
				topic(c, "t", 1, gib, []int32{3})
				c.Topics[0].Partitions[0].Leader = -1
				return c
			},
			req: balance.Request{Mode: balance.Drain, Brokers: []int32{3}}, reason: balance.NoLeader,
			says: []string{"t-0"},
		},
		{
			name: "an unknown broker",
			c:    func() *balance.Cluster { return brokers("", "") },
			req:  balance.Request{Mode: balance.Drain, Brokers: []int32{9}}, reason: balance.UnknownBroker,
			says: []string{"broker 9"},
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := balance.Plan(x.c(), x.req)
			if len(p.Problems) != 1 || p.Problems[0].Reason != x.reason || len(p.Moves) > 0 {
				t.Fatalf("got %+v and %d moves, want %s", p.Problems, len(p.Moves), x.reason)
			}
			for _, says := range x.says {
				if !strings.Contains(p.Problems[0].Message, says) {
					t.Errorf("the message does not say %q:\n%s", says, p.Problems[0].Message)
				}
			}
			if got := p.Problems[0].Missing; x.missing > 0 && (got > x.missing || got < x.missing-2*gib) {
				t.Errorf("%d bytes are missing, want about %d", got, x.missing)
			}
		})
	}
}

func TestDrainMakesRoomWhereItMust(t *testing.T) {
	c := brokers("", "", "")
	topic(c, "large", 1, 800*gib, []int32{3})
	topic(c, "medium", 1, 300*gib, []int32{1}, []int32{2})
	topic(c, "small", 1, 10*gib, []int32{1})
	// 800 fit on 1 or 2 only once the 300 there have gone to the other one.
	p, after := planned(t, c, balance.Request{Mode: balance.Drain, Brokers: []int32{3}})
	if replicas, _, _ := on(after); replicas[3] != 0 {
		t.Errorf("left on broker 3: %v", p.Moves)
	}
}

func TestFillMovesOnlyTowardsNewBrokers(t *testing.T) {
	c := brokers("a", "b", "c", "a", "b", "c")
	topic(c, "t", 2, gib, repeat(60, 3, 1, 2, 3)...)
	p, after := planned(t, c, balance.Request{Mode: balance.Fill, Brokers: []int32{4, 5, 6}})
	replicas, leaders, bytes := on(after)
	for b := int32(1); b <= 6; b++ {
		if replicas[b] < 29 || replicas[b] > 31 || leaders[b] < 9 || leaders[b] > 11 || bytes[b] != int64(replicas[b])*gib {
			t.Errorf("broker %d has %d replicas, leads %d", b, replicas[b], leaders[b])
		}
	}
	if got := unmet(p); len(got) > 0 {
		t.Errorf("not met: %v", got)
	}
	if most := p.LeastBytes + p.LeastBytes/10; p.Bytes > most {
		t.Errorf("%d bytes are moved, %d would do", p.Bytes, p.LeastBytes)
	}
}

func TestLoneBrokerOfARackIsNoViolation(t *testing.T) {
	c := brokers("a", "b", "b", "b", "c", "c", "c")
	var lists [][]int32
	for i := range 63 {
		lists = append(lists, []int32{1, int32(2 + i%3), int32(5 + (i/3)%3)})
	}
	topic(c, "t", 2, gib, lists...)
	p, _ := planned(t, c, balance.Request{Mode: balance.Full})
	if got := unmet(p); len(got) > 0 {
		t.Errorf("not met: %v: %+v", got, p.Objectives)
	}
	if p.Bytes > 0 {
		t.Errorf("%d bytes are moved for nothing: %+v %+v", p.Bytes, p.Moves, p.Objectives)
	}
	if got := p.Brokers[0]; got.Broker != 1 || got.Bound < got.After.Fraction-1e-9 {
		t.Errorf("broker 1 must hold everything, its bound is %v: %+v", got.Bound, got)
	}
}

func TestBoundsComeFromRacks(t *testing.T) {
	// Racks a and b have one broker, c has four. A rack may have one of two replicas, so c
	// takes half of all bytes and a and b the rest, however large c is.
	c := brokers("a", "b", "c", "c", "c", "c")
	topic(c, "t", 1, gib, repeat(64, 2, 1, 3, 2, 4)...)
	p, _ := planned(t, c, balance.Request{Mode: balance.Full})
	for i, want := range []float64{32, 32, 16, 16, 16, 16} {
		if got := p.Brokers[i].Bound * 1024; got < want-1e-3 || got > want+1e-3 {
			t.Errorf("broker %d should hold %v GiB at best, the bound says %v", i+1, want, got)
		}
	}
	if got := unmet(p); len(got) > 0 {
		t.Errorf("not met: %v: %+v", got, p.Objectives)
	}
}

func TestTopicsAreSpread(t *testing.T) {
	c := brokers("", "", "", "", "", "")
	topic(c, "one", 1, gib, repeat(30, 2, 1, 2, 3)...)
	topic(c, "two", 1, gib, repeat(30, 2, 4, 5, 6)...)
	p, after := planned(t, c, balance.Request{Mode: balance.Full})
	if got := unmet(p); len(got) > 0 {
		t.Errorf("not met: %v: %+v", got, p.Objectives)
	}
	for _, topic := range after.Topics {
		count := map[int32]int{}
		for _, part := range topic.Partitions {
			for _, b := range ids(part) {
				count[b]++
			}
		}
		for b := int32(1); b <= 6; b++ {
			if count[b] > 11 || count[b] < 1 {
				t.Errorf("broker %d has %d replicas of %s", b, count[b], topic.Name)
			}
		}
	}
}

func TestNoSwapForNextToNothing(t *testing.T) {
	c := brokers("", "")
	topic(c, "t", 1, 101*gib, []int32{1}, []int32{1})
	topic(c, "u", 1, 100*gib, []int32{2}, []int32{2})
	if p, _ := planned(t, c, balance.Request{Mode: balance.Full, Tolerance: .001}); p.Bytes > 0 {
		t.Errorf("%s are copied to shift 1 GiB", balance.Bytes(p.Bytes))
	}
}

func TestFullRepairsRacksAndEmptiesWhatIsLeaving(t *testing.T) {
	c := brokers("a", "a", "b", "b", "c", "c")
	topic(c, "crowded", 2, gib, []int32{1, 2, 3}, []int32{3, 4, 5}, []int32{5, 6, 1})
	topic(c, "fine", 2, gib, repeat(12, 3, 1, 3, 5)...)
	c.Brokers[5].Leaving = true
	p, after := planned(t, c, balance.Request{Mode: balance.Full})
	w := look(after)
	for _, topic := range after.Topics {
		for i, part := range topic.Partitions {
			if w.crowd(ids(part)) > 0 || slices.Contains(ids(part), 6) {
				t.Errorf("%s-%d is on %v", topic.Name, i, ids(part))
			}
		}
	}
	if p.Moves[0].Why != balance.ForEvacuation {
		t.Errorf("the first move is for %v", p.Moves[0].Why)
	}
}

func TestNothingMovesToOrForTheDead(t *testing.T) {
	c := brokers("", "", "", "")
	topic(c, "t", 1, gib, repeat(30, 2, 1, 2)...)
	topic(c, "dead", 1, gib, repeat(10, 2, 1, 3)...)
	c.Brokers[2].Alive = false
	for i := range c.Topics[1].Partitions {
		for j := range c.Topics[1].Partitions[i].Replicas {
			if r := &c.Topics[1].Partitions[i].Replicas[j]; r.Broker == 3 {
				r.State = 0
			}
		}
		c.Topics[1].Partitions[i].Leader = 1
	}
	p, _ := planned(t, c, balance.Request{Mode: balance.Full})
	for _, m := range p.Moves {
		if m.Topic == "dead" {
			t.Errorf("%s-%d moves, though its reassignment cannot end before broker 3 is back", m.Topic, m.Partition)
		}
	}
	if p.Bytes == 0 {
		t.Error("broker 4 got nothing")
	}
}

func TestReassignmentsInFlightAreLeftAlone(t *testing.T) {
	c := brokers("", "", "", "")
	topic(c, "t", 1, gib, repeat(9, 2, 1, 2, 3)...)
	part := &c.Topics[0].Partitions[0]
	part.Replicas[0].State |= balance.Removing
	part.Replicas = append([]balance.Replica{{Broker: 4, Dir: balance.NoDir, State: balance.Adding}}, part.Replicas...)
	p, _ := planned(t, c, balance.Request{Mode: balance.Drain, Brokers: []int32{1}})
	want := []balance.PartitionRef{{Topic: "t", Partition: 0}}
	if diff := cmp.Diff(want, p.Deferred); diff != "" {
		t.Errorf("deferred (-want +got):\n%s", diff)
	}
	for _, m := range p.Moves {
		if m.Partition == 0 {
			t.Errorf("a partition in flight is moved: %+v", m)
		}
	}
}

func TestByTopic(t *testing.T) {
	c := brokers("", "", "", "")
	topic(c, "mine", 1, gib, repeat(12, 2, 1, 2, 3)...)
	topic(c, "other", 1, gib, repeat(12, 2, 1, 2, 3)...)
	p, after := planned(t, c, balance.Request{Mode: balance.Fill, Brokers: []int32{4}, Topics: []string{"mine"}})
	if len(p.Moves) == 0 {
		t.Error("nothing moves")
	}
	if diff := cmp.Diff(c.Topics[1], after.Topics[1]); diff != "" {
		t.Errorf("a topic nobody asked for changed:\n%s", diff)
	}
}

func TestLeadersOnly(t *testing.T) {
	c := brokers("a", "b", "c", "a", "b", "c")
	var lists [][]int32
	for i := range 60 {
		lists = append(lists, []int32{1, int32(2 + 3*(i%2)), int32(3 + 3*(i/2%2))})
	}
	topic(c, "t", 2, gib, lists...)
	p, after := planned(t, c, balance.Request{Mode: balance.Leaders})
	_, leaders, _ := on(after)
	// Broker 4 holds nothing, so the five others lead twelve each.
	if diff := cmp.Diff(map[int32]int{1: 12, 2: 12, 3: 12, 5: 12, 6: 12}, leaders); diff != "" {
		t.Errorf("leaders (-want +got):\n%s", diff)
	}
	if p.Bytes+p.LocalBytes > 0 || len(p.Elections) != 48 || len(p.Moves) != 48 {
		t.Errorf("%d bytes, %d elections, %d moves", p.Bytes, len(p.Elections), len(p.Moves))
	}
}

func TestReplicationFactor(t *testing.T) {
	c := brokers("a", "b", "c", "a", "b", "c")
	topic(c, "up", 1, gib, repeat(12, 1, 1, 2, 3, 4, 5, 6)...)
	topic(c, "down", 1, gib, repeat(12, 3, 1, 2, 3, 4, 5, 6)...)
	topic(c, "other", 1, gib, repeat(12, 2, 1, 2, 3, 4, 5, 6)...)
	c.Topics[1].Partitions[0].Replicas[1].State = 0 // out of sync: this one goes
	p, after := planned(t, c, balance.Request{Mode: balance.ReplicationFactor, Factors: map[string]int{"up": 3, "down": 2}})
	w := look(after)
	for _, part := range after.Topics[0].Partitions {
		if len(part.Replicas) != 3 || w.crowd(ids(part)) > 0 {
			t.Errorf("up: %v", ids(part))
		}
	}
	for i, part := range after.Topics[1].Partitions {
		if len(part.Replicas) != 2 || w.crowd(ids(part)) > 0 {
			t.Errorf("down: %v", ids(part))
		}
		if i == 0 && slices.Contains(ids(part), 2) {
			t.Errorf("the replica in sync was dropped instead of the other one: %v", ids(part))
		}
	}
	if want := 24 * gib; p.Bytes != want || p.LeastBytes != want {
		t.Errorf("%d bytes are copied, at least %d, want %d", p.Bytes, p.LeastBytes, want)
	}
	if diff := cmp.Diff(c.Topics[2], after.Topics[2]); diff != "" {
		t.Errorf("a topic nobody asked for changed:\n%s", diff)
	}
	// Broker 1 is leaving, so its replica would go first; but 3 is out of sync, and two must be in sync.
	needed := brokers("", "", "")
	topic(needed, "t", 2, gib, []int32{1, 2, 3})
	needed.Brokers[0].Leaving = true
	needed.Topics[0].Partitions[0].Replicas[2].State = 0
	_, after = planned(t, needed, balance.Request{Mode: balance.ReplicationFactor, Factors: map[string]int{"t": 2}})
	if got := ids(after.Topics[0].Partitions[0]); !slices.Contains(got, 1) || !slices.Contains(got, 2) {
		t.Errorf("left on %v", got)
	}
	// The dead replica is worth least, but it was all there was in rack b.
	lost := brokers("a", "a", "b", "b", "a")
	topic(lost, "t", 1, gib, []int32{1, 2, 3})
	lost.Brokers[2].Alive = false
	lost.Topics[0].Partitions[0].Replicas[2].State = 0
	down := balance.Request{Mode: balance.ReplicationFactor, Factors: map[string]int{"t": 2}}
	_, after = planned(t, lost, down)
	if got := ids(after.Topics[0].Partitions[0]); !slices.Contains(got, 4) || slices.Contains(got, 3) {
		t.Errorf("left on %v", got)
	}
	lost.Brokers[3].Cordoned = true
	if p := balance.Plan(lost, down); len(p.Problems) != 1 || p.Problems[0].Reason != balance.MissingRacks || !strings.Contains(p.Problems[0].Message, "only in rack b") {
		t.Errorf("got %+v", p.Problems)
	}
	bad := balance.Plan(c, balance.Request{Mode: balance.ReplicationFactor, Factors: map[string]int{"up": 7, "nope": 1}})
	if len(bad.Problems) != 1 || bad.Problems[0].Reason != balance.UnknownTopic {
		t.Errorf("got %+v", bad.Problems)
	}
	bad = balance.Plan(c, balance.Request{Mode: balance.ReplicationFactor, Factors: map[string]int{"up": 7}})
	if len(bad.Problems) != 1 || bad.Problems[0].Reason != balance.TooFewBrokers {
		t.Errorf("got %+v", bad.Problems)
	}
}

// jbod is three brokers with that many log dirs; everything is in the first two.
func jbod(dirs int) *balance.Cluster {
	c := brokers("", "", "")
	for b := range c.Brokers {
		for d := 1; d < dirs; d++ {
			c.Brokers[b].LogDirs = append(c.Brokers[b].LogDirs, balance.LogDir{Path: fmt.Sprintf("/data/%d", d), Total: 1024 * gib, Usable: 1024 * gib})
		}
	}
	topic(c, "t", 1, 10*gib, repeat(60, 2, 1, 2, 3)...)
	w := look(c)
	for i := range c.Topics[0].Partitions {
		for j := range c.Topics[0].Partitions[i].Replicas {
			r := &c.Topics[0].Partitions[i].Replicas[j]
			w.use(*r, -r.Bytes)
			r.Dir = int16(i % 2)
			w.use(*r, r.Bytes)
		}
	}
	return c
}

func inDirs(c *balance.Cluster, broker int32) []int {
	out := make([]int, len(look(c).brokers[broker].LogDirs))
	for _, t := range c.Topics {
		for _, p := range t.Partitions {
			for _, r := range p.Replicas {
				if r.Broker == broker {
					out[r.Dir]++
				}
			}
		}
	}
	return out
}

func TestLogDirAdded(t *testing.T) {
	c := jbod(4)
	p, after := planned(t, c, balance.Request{Mode: balance.Disks})
	for b := int32(1); b <= 3; b++ {
		if got := inDirs(after, b); slices.Min(got) < 9 || slices.Max(got) > 11 {
			t.Errorf("broker %d has %v replicas in its log dirs", b, got)
		}
	}
	if p.Bytes > 0 || p.LocalBytes == 0 {
		t.Errorf("%d bytes between brokers, %d within", p.Bytes, p.LocalBytes)
	}
}

func TestLogDirRemoved(t *testing.T) {
	c := jbod(3)
	p, after := planned(t, c, balance.Request{Mode: balance.Disks, Brokers: []int32{2}, Empty: []balance.DirRef{{Broker: 2, Path: "/data/0"}}})
	if got := inDirs(after, 2); got[0] != 0 || got[1] < 19 || got[1] > 21 {
		t.Errorf("broker 2 has %v replicas in its log dirs", got)
	}
	for _, m := range p.Moves {
		for _, d := range m.Dirs {
			if d.Broker != 2 {
				t.Errorf("broker %d was not asked about: %+v", d.Broker, m)
			}
		}
	}
	full := brokers("")
	full.Brokers[0].LogDirs = append(full.Brokers[0].LogDirs, balance.LogDir{Path: "/data/1", Total: 10 * gib, Usable: 10 * gib})
	topic(full, "t", 1, 100*gib, []int32{1})
	refused := balance.Plan(full, balance.Request{Mode: balance.Disks, Empty: []balance.DirRef{{Broker: 1, Path: "/data/0"}}})
	if len(refused.Problems) != 1 || refused.Problems[0].Missing != 91*gib {
		t.Errorf("got %+v", refused.Problems)
	}
}

func TestLostLogDirIsRestoredElsewhere(t *testing.T) {
	c := jbod(2)
	c.Brokers[1].LogDirs[0].Offline = true
	lost := 0
	for i := range c.Topics[0].Partitions {
		part := &c.Topics[0].Partitions[i]
		for j := range part.Replicas {
			if r := &part.Replicas[j]; r.Broker == 2 && r.Dir == 0 {
				r.State, r.Dir, r.Bytes = balance.Offline, balance.NoDir, 0
				lost++
				if part.Leader == 2 {
					part.Leader = part.Replicas[1-j].Broker
				}
			}
		}
	}
	req := balance.Request{Mode: balance.Disks, Brokers: []int32{2}, Empty: []balance.DirRef{{Broker: 2, Path: "/data/0"}}}
	p, after := planned(t, c, req)
	for i, part := range after.Topics[0].Partitions {
		for _, r := range part.Replicas {
			if r.State.Has(balance.Offline) {
				t.Errorf("t-%d is still lost on broker %d", i, r.Broker)
			}
		}
	}
	if want := int64(lost) * 10 * gib; p.Bytes != want || lost == 0 {
		t.Errorf("%d bytes are copied for %d lost replicas", p.Bytes, lost)
	}
}

func TestEstimateAndDigest(t *testing.T) {
	p := balance.Proposal{Moves: []balance.Move{
		{Topic: "t", Partition: 0, From: []int32{1, 2}, To: []int32{3, 2}, Size: 600, Leader: 1, Dirs: []balance.DirRef{{Broker: 3, Path: "/d"}}},
		{Topic: "t", Partition: 1, From: []int32{2, 1}, To: []int32{3, 1}, Size: 300, Leader: 2, Dirs: []balance.DirRef{{Broker: 3, Path: "/d"}}},
	}, Elections: []balance.Election{{PartitionRef: balance.PartitionRef{Topic: "t", Partition: 1}, To: 3}}}
	if got := p.Estimate(100); got != 9*time.Second { // broker 3 receives both
		t.Errorf("estimate is %v", got)
	}
	// printf 'move t-0 [1 2] [3 2] 3:"/d"\nmove t-1 [2 1] [3 1] 3:"/d"\nelect t-1 3\n' | sha256sum
	const want = "1e86a7efe9fddfeb1371697ad8f8884f2696a26607a483f38c446533149cc262"
	if got := p.Digest(); got != want {
		t.Errorf("digest is %s", got)
	}
	other := p
	other.Moves = slices.Clone(p.Moves)
	other.Moves[0], other.Moves[1] = other.Moves[1], other.Moves[0]
	if other.Digest() == p.Digest() {
		t.Error("another order has the same digest")
	}
}

// Brokers of one machine share its volume: what the others hold is no reason to give a new one nothing.
func TestFillOnASharedVolume(t *testing.T) {
	for _, volume := range []string{"", "disk"} {
		c := brokers("", "", "", "")
		topic(c, "t", 1, 10<<20, repeat(12, 2, 1, 2, 3)...)
		for b := range c.Brokers {
			d := &c.Brokers[b].LogDirs[0]
			d.Usable, d.Volume = d.Total/5, volume
		}
		p := balance.Plan(c, balance.Request{Mode: balance.Fill, Brokers: []int32{4}})
		if shared := volume != ""; (len(p.Moves) >= 4) != shared {
			t.Errorf("volume %q: %d moves", volume, len(p.Moves))
		}
	}
}
