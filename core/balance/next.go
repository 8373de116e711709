package balance

import (
	"fmt"
	"slices"
)

// Limits hold back how much is copied at once. A zero is no limit.
type Limits struct {
	// In and Out are copies that a broker receives and sends at once; a copy between its log
	// dirs counts as both.
	In, Out int
	// Cluster is copies at once in all.
	Cluster int
	// Bytes of all copies at once. A single copy that is larger runs alone.
	Bytes int64
	// Orders are moves without any copy that start in one step: they are done at once, but
	// the controller has work with each.
	Orders int
	// Headroom as in Request.
	Headroom float64
	// UnderMinISR is how many partitions under min.insync.replicas are bearable, which is
	// how many there were when the work began. Nothing starts while there are more.
	UnderMinISR int
}

// Step is what to do now.
type Step struct {
	// Start are the reassignments to ask for now: To is the list to ask for, which for a
	// move that must go in parts is not the Proposal's, and Dirs the log dirs to ask for first.
	Start []Move
	// Elect are the elections to ask for: only once nothing is left to move.
	Elect []Election
	// Done, Running and Left count the Proposal's moves; Foreign are reassignments in flight
	// that are not the Proposal's: they count towards the limits and are left alone.
	Done, Running, Left, Foreign int
	// LeftBytes is what is left to copy between brokers, what is running included.
	LeftBytes int64
	// Stale are moves whose partition is neither as it was nor as it should be: somebody
	// else changed it. Plan again when nothing runs.
	Stale []PartitionRef
	// Stalled are moves that run and cannot end as things are, because a broker or log dir
	// they need is gone. They hold up others: when it does not come back, take them back
	// with Revert and plan again.
	Stalled []PartitionRef
	// Waiting says in sentences why nothing more starts, the weightiest first.
	Waiting []string
	// Halted says that it is more than a matter of turns: UnderMinISR was exceeded.
	Halted bool
	// Stuck says that moves are left and nothing in flight will make them possible: plan
	// again, or do what Waiting says.
	Stuck bool
	// Finished says that nothing is left to do or to wait for.
	Finished bool
	// Ahead are the topics of moves that have not begun, in their order.
	Ahead []string
}

// Next says which moves of a Proposal may start now. Everything that was done or begun is
// seen from the facts, so nothing has to be remembered between calls but the Proposal.
func Next(p *Proposal, c *Cluster, limits Limits) Step {
	x := newExecution(p, c, limits)
	x.look()
	if under := UnderMinISR(c); under > limits.UnderMinISR {
		x.step.Halted = true
		x.wait(fmt.Sprintf("%d partitions are under min.insync.replicas and %d were when this began; nothing more starts until they recover: see which broker is down or behind", under, limits.UnderMinISR))
	} else {
		x.start()
	}
	return x.finish()
}

// UnderMinISR counts partitions with fewer replicas in sync than min.insync.replicas.
func UnderMinISR(c *Cluster) int {
	n := 0
	for t := range c.Topics {
		for i := range c.Topics[t].Partitions {
			if c.Topics[t].Partitions[i].inSync() < c.Topics[t].MinISR {
				n++
			}
		}
	}
	return n
}

// execution is one call of Next: what is in flight, and what it takes up.
type execution struct {
	p      *Proposal
	c      *Cluster
	limits Limits
	topics map[string]int
	nodes  map[int32]*Broker
	copies map[PartitionRef]Copy
	flying map[PartitionRef]bool
	// What is in flight: copies by broker, in all, and their bytes.
	in, out map[int32]int
	running int
	bytes   int64
	weight  struct {
		bytes int64
		text  string
	}
	// reserved is what copies in flight will still fill of log dirs.
	reserved map[DirRef]int64
	// tight are log dirs that cannot take all that the Proposal brings before something
	// leaves them: moves to those keep their order. held are those whose turn has not come.
	tight, held map[DirRef]bool
	todo        []todo
	step        Step
	why         map[string]int
	reasons     []string
}

// todo is a move that can start, and its partition as it is now.
type todo struct {
	m    *Move
	part *Partition
}

func newExecution(p *Proposal, c *Cluster, limits Limits) *execution {
	x := &execution{
		p: p, c: c, limits: limits,
		topics: make(map[string]int, len(c.Topics)), nodes: make(map[int32]*Broker, len(c.Brokers)), copies: map[PartitionRef]Copy{}, flying: map[PartitionRef]bool{},
		in: map[int32]int{}, out: map[int32]int{}, reserved: map[DirRef]int64{},
		tight: map[DirRef]bool{}, held: map[DirRef]bool{}, why: map[string]int{},
	}
	for t := range c.Topics {
		x.topics[c.Topics[t].Name] = t
	}
	for b := range c.Brokers {
		x.nodes[c.Brokers[b].ID] = &c.Brokers[b]
	}
	for _, f := range c.Copies {
		x.copies[PartitionRef{Topic: f.Topic, Partition: f.Partition}] = f
	}
	x.flights()
	return x
}

func (x *execution) partition(topic string, i int32) *Partition {
	t, ok := x.topics[topic]
	if !ok || i < 0 || int(i) >= len(x.c.Topics[t].Partitions) {
		return nil
	}
	return &x.c.Topics[t].Partitions[i]
}

// look sorts the moves into done, running, stale and left.
func (x *execution) look() {
	inbound := map[DirRef]int64{}
	for i := range x.p.Moves {
		m := &x.p.Moves[i]
		part := x.partition(m.Topic, m.Partition)
		ref := PartitionRef{Topic: m.Topic, Partition: m.Partition}
		switch x.progress(m, part) {
		case done:
			x.step.Done++
		case running:
			x.step.Running++
			x.stalled(ref, part)
			x.step.LeftBytes += x.left(m, part)
		case foreign:
			x.step.Left++
			x.step.LeftBytes += x.left(m, part)
			x.because("somebody else reassigns it")
		case stale:
			x.step.Stale = append(x.step.Stale, ref)
		case pending:
			x.step.Left++
			x.step.LeftBytes += x.left(m, part)
			x.todo = append(x.todo, todo{m: m, part: part})
			if len(x.step.Ahead) == 0 || x.step.Ahead[len(x.step.Ahead)-1] != m.Topic {
				x.step.Ahead = append(x.step.Ahead, m.Topic)
			}
			for _, d := range x.missing(m, part) {
				inbound[d] += m.Size
			}
		}
	}
	for d, bytes := range inbound {
		x.tight[d] = x.room(d) < bytes
	}
}

// progress of a move, as seen from the facts.
type progress int8

const (
	done progress = iota
	running
	foreign // somebody else moves the partition
	stale
	pending
)

func (x *execution) progress(m *Move, part *Partition) progress {
	if part == nil {
		return done // the topic is gone
	}
	if part.inFlight() {
		if x.ours(m, part) {
			return running
		}
		return foreign
	}
	if f, ok := x.copies[PartitionRef{Topic: m.Topic, Partition: m.Partition}]; ok {
		if b := x.nodes[f.Broker]; b != nil && int(f.Dir) < len(b.LogDirs) && slices.Contains(m.Dirs, DirRef{Broker: f.Broker, Path: b.LogDirs[f.Dir].Path}) {
			return running
		}
		return foreign
	}
	now := part.ids()
	if slices.Equal(now, m.To) && len(x.missing(m, part)) == 0 {
		return done
	}
	// It may be on its way: whoever holds it now held it before or shall hold it.
	for _, b := range now {
		if !slices.Contains(m.From, b) && !slices.Contains(m.To, b) {
			return stale
		}
	}
	return pending
}

// ours says that a reassignment in flight leads from the move's From towards its To.
func (x *execution) ours(m *Move, part *Partition) bool {
	for _, r := range part.Replicas {
		if r.State.Has(Adding) && !slices.Contains(m.To, r.Broker) || r.State.Has(Removing) && slices.Contains(m.To, r.Broker) {
			return false
		}
		if !slices.Contains(m.From, r.Broker) && !slices.Contains(m.To, r.Broker) {
			return false
		}
	}
	return true
}

// stalled notes a running move that needs what is gone.
func (x *execution) stalled(ref PartitionRef, part *Partition) {
	for _, r := range part.Replicas {
		if r.State.Has(Removing) {
			continue
		}
		b := x.nodes[r.Broker]
		gone := b == nil || !b.Alive || r.State.Has(Offline)
		if !gone && r.State.Has(Adding) && r.Dir >= 0 && int(r.Dir) < len(b.LogDirs) {
			gone = b.LogDirs[r.Dir].Offline
		}
		if gone {
			x.step.Stalled = append(x.step.Stalled, ref)
			return
		}
	}
}

// ids are the brokers of the replicas in their order.
func (p Partition) ids() []int32 {
	out := make([]int32, 0, len(p.Replicas))
	for _, r := range p.Replicas {
		out = append(out, r.Broker)
	}
	return out
}

// missing are the log dirs that still have to get their replica.
func (x *execution) missing(m *Move, part *Partition) []DirRef {
	var out []DirRef
	for _, d := range m.Dirs {
		there := slices.IndexFunc(part.Replicas, func(r Replica) bool { return r.Broker == d.Broker })
		if there < 0 || slices.Contains(m.From, d.Broker) && x.elsewhere(part.Replicas[there], d) {
			out = append(out, d)
		}
	}
	return out
}

// elsewhere says that a replica is known to be in another log dir of its broker.
func (x *execution) elsewhere(r Replica, d DirRef) bool {
	b := x.nodes[r.Broker]
	return b != nil && r.Dir >= 0 && int(r.Dir) < len(b.LogDirs) && b.LogDirs[r.Dir].Path != d.Path
}

// left is what a move has still to copy between brokers.
func (x *execution) left(m *Move, part *Partition) int64 {
	var sum int64
	for _, b := range m.To {
		there := slices.IndexFunc(part.Replicas, func(r Replica) bool { return r.Broker == b })
		switch {
		case there < 0:
			sum += m.Size
		case part.Replicas[there].State.Has(Adding) && !part.Replicas[there].State.Has(InSync):
			sum += max(0, m.Size-part.Replicas[there].Bytes)
		}
	}
	return sum
}

// because counts a reason why a move does not start.
func (x *execution) because(reason string) {
	if x.why[reason] == 0 {
		x.reasons = append(x.reasons, reason)
	}
	x.why[reason]++
}

func (x *execution) wait(sentence string) { x.step.Waiting = append(x.step.Waiting, sentence) }

// finish adds up, and asks for elections once nothing is left to move.
func (x *execution) finish() Step {
	slices.SortStableFunc(x.reasons, func(a, b string) int { return x.why[b] - x.why[a] })
	for _, r := range x.reasons {
		x.wait(fmt.Sprintf("%d moves wait: %s", x.why[r], r))
	}
	if len(x.step.Stalled) > 0 {
		x.wait(fmt.Sprintf("%d running moves cannot end while a broker or log dir they need is gone; bring it back, or take them back and plan again", len(x.step.Stalled)))
	}
	if len(x.step.Stale) > 0 {
		x.wait(fmt.Sprintf("%d moves no longer fit what is there, somebody else moved %s-%d and others; plan again when nothing runs", len(x.step.Stale), x.step.Stale[0].Topic, x.step.Stale[0].Partition))
	}
	s := &x.step
	s.Foreign = len(x.flying) - s.Running
	s.Stuck = s.Left > 0 && len(x.flying) == 0 && len(s.Start) == 0 && !s.Halted
	if s.Left+s.Running > 0 || s.Halted {
		return *s
	}
	s.Elect = x.elect()
	s.Finished = len(s.Elect) == 0 && len(s.Stale) == 0
	return *s
}

// elect are the elections that are still needed and can be had.
func (x *execution) elect() []Election {
	var out []Election
	for _, e := range x.p.Elections {
		part := x.partition(e.Topic, e.Partition)
		if part == nil || part.inFlight() || len(part.Replicas) == 0 {
			continue
		}
		if first := part.Replicas[0]; first.Broker == e.To && part.Leader != e.To && first.State.Has(InSync) {
			out = append(out, Election{PartitionRef: e.PartitionRef, From: part.Leader, To: e.To})
		}
	}
	return out
}
