package balance_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"castellan.dev/castellan/core/balance"
)

// move of partition p of topic t; new replicas go to /data/0.
func move(p int32, size int64, from, to []int32) balance.Move {
	m := balance.Move{Topic: "t", Partition: p, From: from, To: to, Size: size, Leader: from[0]}
	for _, b := range to {
		if !slices.Contains(from, b) {
			m.Dirs = append(m.Dirs, balance.DirRef{Broker: b, Path: "/data/0"})
			m.Bytes += size
		}
	}
	return m
}

// started are the partitions that start, with the lists asked for.
func started(s balance.Step) map[int32][]int32 {
	out := map[int32][]int32{}
	for _, m := range s.Start {
		out[m.Partition] = m.To
	}
	return out
}

func says(t *testing.T, s balance.Step, words string) {
	t.Helper()
	if !strings.Contains(strings.Join(s.Waiting, "\n"), words) {
		t.Errorf("nothing says %q: %q", words, s.Waiting)
	}
}

// four is four brokers and a topic with min ISR 2 and four partitions on 1, 2, 3.
func four() *balance.Cluster {
	c := brokers("a", "b", "c", "a")
	topic(c, "t", 2, gib, repeat(4, 3, 1, 2, 3)...)
	return c
}

func TestNextKeepsToLimits(t *testing.T) {
	p := &balance.Proposal{Moves: []balance.Move{
		move(0, gib, []int32{1, 2, 3}, []int32{4, 2, 3}),
		move(1, gib, []int32{2, 3, 1}, []int32{2, 3, 4}),
		move(2, gib, []int32{3, 1, 2}, []int32{3, 4, 2}),
		move(3, gib, []int32{1, 2, 3}, []int32{2, 1, 3}),
	}}
	for _, x := range []struct {
		name   string
		limits balance.Limits
		want   []int32
		says   string
	}{
		{name: "none", want: []int32{0, 1, 2, 3}},
		{name: "in", limits: balance.Limits{In: 2}, want: []int32{0, 1, 3}, says: "1 moves wait: their brokers receive 2 copies each"},
		{name: "cluster", limits: balance.Limits{Cluster: 1}, want: []int32{0}, says: "3 moves wait: 1 copies run in the cluster, and 1 may"},
		{name: "bytes", limits: balance.Limits{Bytes: 2*gib + 1}, want: []int32{0, 1, 3}, says: "2.0 GiB are being copied"},
		{name: "one copy larger than all bytes runs alone", limits: balance.Limits{Bytes: 1}, want: []int32{0}, says: "1.0 GiB are being copied"},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := balance.Next(p, four(), x.limits)
			var got []int32
			for _, m := range s.Start {
				got = append(got, m.Partition)
			}
			if diff := cmp.Diff(x.want, got); diff != "" {
				t.Errorf("started (-want +got):\n%s", diff)
			}
			if x.says != "" {
				says(t, s, x.says)
			}
		})
	}
}

func TestNextCountsForeignReassignmentsAndLeavesThemAlone(t *testing.T) {
	k := simulate(four(), 1)
	if err := k.reassign(move(3, gib, []int32{1, 2, 3}, []int32{4, 2, 3})); err != nil {
		t.Fatal(err)
	}
	p := &balance.Proposal{Moves: []balance.Move{move(0, gib, []int32{1, 2, 3}, []int32{4, 2, 3}), move(3, gib, []int32{1, 2, 3}, []int32{1, 4, 3})}}
	s := balance.Next(p, k.c, balance.Limits{In: 1})
	if len(s.Start) > 0 || s.Foreign != 1 || s.Left != 2 || s.Running != 0 || s.Stuck || s.Finished {
		t.Errorf("got %+v", s)
	}
	says(t, s, "somebody else reassigns it")
}

func TestNextSeesFromFactsWhatIsDone(t *testing.T) {
	k := simulate(four(), gib)
	p := &balance.Proposal{
		Moves:     []balance.Move{move(0, gib, []int32{1, 2, 3}, []int32{4, 2, 3}), move(1, gib, []int32{2, 3, 1}, []int32{2, 3, 4})},
		Elections: []balance.Election{{PartitionRef: balance.PartitionRef{Topic: "t"}, From: 1, To: 4}},
	}
	if err := k.reassign(p.Moves[0]); err != nil {
		t.Fatal(err)
	}
	if s := balance.Next(p, k.c, balance.Limits{}); s.Running != 1 || s.Left != 1 || s.LeftBytes != 2*gib || len(started(s)) != 1 || len(s.Elect) > 0 {
		t.Errorf("one runs: %+v", s)
	}
	k.step()
	if s := balance.Next(p, k.c, balance.Limits{}); s.Done != 1 || s.Left != 1 || s.LeftBytes != gib {
		t.Errorf("one is done: %+v", s)
	}
	if err := k.reassign(p.Moves[1]); err != nil {
		t.Fatal(err)
	}
	k.step()
	k.part(balance.PartitionRef{Topic: "t"}).Leader = 2
	s := balance.Next(p, k.c, balance.Limits{})
	want := []balance.Election{{PartitionRef: balance.PartitionRef{Topic: "t"}, From: 2, To: 4}}
	if diff := cmp.Diff(want, s.Elect); diff != "" || s.Finished {
		t.Errorf("elections (-want +got):\n%s", diff)
	}
	k.part(balance.PartitionRef{Topic: "t"}).Leader = 4
	if s := balance.Next(p, k.c, balance.Limits{}); !s.Finished || s.Done != 2 {
		t.Errorf("all is done: %+v", s)
	}
	k.c.Topics = nil
	if s := balance.Next(p, k.c, balance.Limits{}); !s.Finished {
		t.Errorf("a deleted topic needs nothing: %+v", s)
	}
}

func TestNextDoesInPartsWhatIsTooMuchAtOnce(t *testing.T) {
	c := brokers("a", "b", "c", "a", "b")
	topic(c, "t", 2, gib, []int32{1, 2, 3})
	p := &balance.Proposal{Moves: []balance.Move{move(0, gib, []int32{1, 2, 3}, []int32{5, 4, 3})}}
	k := simulate(c, gib)
	var asked [][]int32
	for range 5 {
		s := balance.Next(p, k.c, balance.Limits{Out: 1})
		for _, m := range s.Start {
			asked = append(asked, m.To)
			if err := k.reassign(m); err != nil {
				t.Fatal(err)
			}
		}
		k.step()
	}
	// 5 comes for 2, of the same rack, then 4 for 1; last comes the order.
	want := [][]int32{{1, 5, 3}, {5, 4, 3}}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	if s := balance.Next(p, k.c, balance.Limits{Out: 1}); !s.Finished {
		t.Errorf("not finished: %+v", s)
	}
}

func TestNextHaltsWhenMorePartitionsAreUnderMinISR(t *testing.T) {
	c := four()
	c.Topics[0].Partitions[3].Replicas[0].State = 0
	c.Topics[0].Partitions[3].Replicas[1].State = 0
	p := &balance.Proposal{Moves: []balance.Move{move(0, gib, []int32{1, 2, 3}, []int32{4, 2, 3})}}
	s := balance.Next(p, c, balance.Limits{})
	if !s.Halted || len(s.Start) > 0 || s.Stuck {
		t.Errorf("got %+v", s)
	}
	says(t, s, "1 partitions are under min.insync.replicas and 0 were")
	if s := balance.Next(p, c, balance.Limits{UnderMinISR: 1}); s.Halted || len(s.Start) != 1 {
		t.Errorf("it was so when the work began: %+v", s)
	}
}

func TestNextWaits(t *testing.T) {
	m := move(0, gib, []int32{1, 2, 3}, []int32{4, 2, 3})
	for _, x := range []struct {
		name string
		do   func(c *balance.Cluster)
		m    balance.Move
		says string
	}{
		{"for a broker that is down", func(c *balance.Cluster) { c.Brokers[3].Alive = false }, m, "broker 4 is down"},
		{"for a broker that is down and stays", func(c *balance.Cluster) { c.Brokers[1].Alive = false }, m, "broker 2 is down"},
		{"at a cordoned broker", func(c *balance.Cluster) { c.Brokers[3].Cordoned = true }, m, "broker 4 takes no new replicas"},
		{"at a lost log dir", func(c *balance.Cluster) { c.Brokers[3].LogDirs[0].Offline = true }, m, "log dir /data/0 of broker 4"},
		{"for room", func(c *balance.Cluster) { c.Brokers[3].LogDirs[0].Usable = 103 * gib }, m, "no room for 1.0 GiB"},
		{"for a leader", func(c *balance.Cluster) { c.Topics[0].Partitions[0].Leader = -1 }, m, "no leader to copy from"},
		{"for replicas in sync", func(c *balance.Cluster) { c.Topics[0].Partitions[0].Replicas[1].State = 0 }, move(0, gib, []int32{1, 2, 3}, []int32{1, 2}), "too few of the replicas"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := four()
			x.do(c)
			s := balance.Next(&balance.Proposal{Moves: []balance.Move{x.m}}, c, balance.Limits{UnderMinISR: 4})
			if len(s.Start) > 0 || !s.Stuck || s.Finished {
				t.Errorf("got %+v", s)
			}
			says(t, s, x.says)
		})
	}
}

func TestNextKeepsTheOrderWhereRoomIsScarce(t *testing.T) {
	c := brokers("", "", "")
	topic(c, "t", 1, 400*gib, []int32{1}, []int32{2})
	topic(c, "u", 1, 500*gib, []int32{3})
	topic(c, "v", 1, 50*gib, []int32{2})
	first := move(0, 400*gib, []int32{1}, []int32{2})
	out := move(1, 400*gib, []int32{2}, []int32{3})
	late := move(0, 50*gib, []int32{2}, []int32{3})
	late.Topic = "v"
	// Broker 3 has room for only one of the two moves to it: the one that comes first.
	c.Brokers[2].LogDirs[0].Usable = 545 * gib
	s := balance.Next(&balance.Proposal{Moves: []balance.Move{out, late, first}}, c, balance.Limits{Cluster: 1})
	if diff := cmp.Diff(map[int32][]int32{1: {3}}, started(s)); diff != "" {
		t.Errorf("started (-want +got):\n%s", diff)
	}
	c.Brokers[2].LogDirs[0].Usable = 200 * gib
	s = balance.Next(&balance.Proposal{Moves: []balance.Move{out, late}}, c, balance.Limits{})
	if len(s.Start) > 0 {
		t.Errorf("a later move takes the room: %+v", s.Start)
	}
	says(t, s, "moves before them need the room")
}

func TestNextNamesWhatSomebodyElseChanged(t *testing.T) {
	c := four()
	c.Topics[0].Partitions[0].Replicas[0].Broker = 4
	p := &balance.Proposal{Moves: []balance.Move{move(0, gib, []int32{1, 2, 3}, []int32{1, 3})}}
	s := balance.Next(p, c, balance.Limits{})
	if diff := cmp.Diff([]balance.PartitionRef{{Topic: "t"}}, s.Stale); diff != "" || s.Finished || len(s.Start) > 0 {
		t.Errorf("stale (-want +got):\n%s%+v", diff, s)
	}
	says(t, s, "plan again")
}

func TestNextSpreadsChangesOfOrder(t *testing.T) {
	p := &balance.Proposal{}
	for i, from := range repeat(4, 3, 1, 2, 3) {
		p.Moves = append(p.Moves, move(int32(i), gib, from, []int32{from[1], from[0], from[2]}))
	}
	if s := balance.Next(p, four(), balance.Limits{Orders: 3}); len(s.Start) != 3 || s.Left != 4 {
		t.Errorf("%d start of %d", len(s.Start), s.Left)
	}
}

func TestRevert(t *testing.T) {
	c := four()
	k := simulate(c, gib/2)
	for i, to := range [][]int32{{4, 2, 3}, {2, 3, 4}, {3, 4, 2}} {
		if err := k.reassign(move(int32(i), gib, ids(c.Topics[0].Partitions[i]), to)); err != nil {
			t.Fatal(err)
		}
	}
	k.step()
	// Of partition 1 only the new replica and one old are in sync; of partition 2 nothing is ours.
	for j := range k.c.Topics[0].Partitions[1].Replicas {
		r := &k.c.Topics[0].Partitions[1].Replicas[j]
		r.State &^= balance.InSync
		if r.Broker == 4 || r.Broker == 2 {
			r.State |= balance.InSync
		}
	}
	back := balance.Revert(k.c, func(ref balance.PartitionRef) bool { return ref.Partition != 2 })
	want := balance.Takeback{
		Cancel: []balance.Cancel{{PartitionRef: balance.PartitionRef{Topic: "t", Partition: 0}, To: []int32{2, 3, 1}}},
		Keep:   []balance.Keep{{PartitionRef: balance.PartitionRef{Topic: "t", Partition: 1}}},
	}
	if diff := cmp.Diff(want, back, cmpopts.IgnoreFields(balance.Keep{}, "Why")); diff != "" {
		t.Errorf("taken back (-want +got):\n%s", diff)
	}
	if len(back.Keep) == 1 && !strings.Contains(back.Keep[0].Why, "min.insync.replicas is 2") {
		t.Errorf("why: %s", back.Keep[0].Why)
	}
}

func TestRevertOfACopyBetweenLogDirs(t *testing.T) {
	c := jbod(2)
	c.Copies = []balance.Copy{{Topic: "t", Partition: 0, Broker: 1, Dir: 1}, {Topic: "t", Partition: 2, Broker: 3, Dir: 1}}
	back := balance.Revert(c, func(ref balance.PartitionRef) bool { return ref.Partition == 0 })
	want := []balance.Return{{PartitionRef: balance.PartitionRef{Topic: "t"}, DirRef: balance.DirRef{Broker: 1, Path: "/data/0"}}}
	if diff := cmp.Diff(want, back.Return); diff != "" {
		t.Errorf("returned (-want +got):\n%s", diff)
	}
}
