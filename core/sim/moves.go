package sim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/plan"
)

// What replicas hold and how fast they are copied where nothing else is said, and the log dirs
// of brokers. A tick is a second.
const (
	PartitionBytes = 60 << 20
	copyBytes      = 20 << 20 // a tick, for each copy
	dirBytes       = 100 << 30
)

// moves is where replicas lie and what is on its way.
type moves struct {
	// flying are the reassignments by partition name, dirs the log dirs of replicas by
	// partition name and broker.
	flying map[string]*flight
	dirs   map[string]map[int32]string
	copies []copying
	// throttles of topics in Kafka, and those and the keys of brokers that a user set.
	throttles map[string]plan.TopicThrottle
	users     map[string]plan.TopicThrottle
	userKeys  map[int32]map[string]string
	sizes     map[string]int64
	capacity  map[int32]int64
}

// flight is a reassignment under way.
type flight struct {
	name, topic              string
	partition                int
	target, adding, removing []int32
	copied                   map[int32]int64
	foreign                  bool
}

// copying is a replica on its way to another log dir of its broker.
type copying struct {
	ref    balance.PartitionRef
	broker int32
	path   string
	bytes  int64
}

func newMoves() moves {
	return moves{
		flying: map[string]*flight{}, dirs: map[string]map[int32]string{}, throttles: map[string]plan.TopicThrottle{}, users: map[string]plan.TopicThrottle{},
		userKeys: map[int32]map[string]string{}, sizes: map[string]int64{}, capacity: map[int32]int64{},
	}
}

func nameOf(ref balance.PartitionRef) string { return partitionName(ref.Topic, int(ref.Partition)) }

func (w *World) partition(topic string, partition int) (*plan.Topic, *plan.Partition) {
	i := slices.IndexFunc(w.topics, func(t plan.Topic) bool { return t.Name == topic })
	if i < 0 || partition >= len(w.topics[i].Partitions) {
		return nil, nil
	}
	return &w.topics[i], &w.topics[i].Partitions[partition]
}

func (w *World) sizeOf(topic string) int64 {
	if size, ok := w.moves.sizes[topic]; ok {
		return size
	}
	return PartitionBytes
}

// reassign begins a reassignment (AlterPartitionReassignments): Kafka lists the target first and
// what goes behind it (KRaft's PartitionReassignmentReplicas).
func (w *World) reassign(topic string, partition int, to []int32, foreign bool) {
	_, p := w.partition(topic, partition)
	f := &flight{
		name: partitionName(topic, partition), topic: topic, partition: partition, target: slices.Clone(to),
		copied: map[int32]int64{}, foreign: foreign,
	}
	for _, id := range to {
		if !slices.Contains(p.Replicas, id) {
			f.adding = append(f.adding, id)
		}
	}
	for _, id := range p.Replicas {
		if !slices.Contains(to, id) {
			f.removing = append(f.removing, id)
		}
	}
	p.Replicas = slices.Concat(to, f.removing)
	w.moves.flying[f.name] = f
	w.complete(f)
}

// complete ends a reassignment once every replica of its target is in sync.
func (w *World) complete(f *flight) {
	t, p := w.partition(f.topic, f.partition)
	for _, id := range f.target {
		if !slices.Contains(p.ISR, id) {
			return
		}
	}
	isr := slices.DeleteFunc(slices.Clone(p.ISR), func(id int32) bool { return !slices.Contains(f.target, id) })
	if !f.foreign {
		w.judgeISR(t, f.name, len(p.ISR), len(isr), "the end of a move of ours")
	}
	w.settlePartition(p, f, f.target, isr)
}

// settlePartition ends a reassignment with these replicas: whoever else had one has it no more.
func (w *World) settlePartition(p *plan.Partition, f *flight, replicas, isr []int32) {
	for _, id := range p.Replicas {
		if !slices.Contains(replicas, id) {
			delete(w.moves.dirs[f.name], id)
		}
	}
	p.Replicas, p.ISR = slices.Clone(replicas), isr
	w.lead(p)
	w.holders[f.name] = slices.Clone(isr)
	delete(w.moves.flying, f.name)
}

// judgeISR holds a step of ours against what it takes from an ISR.
func (w *World) judgeISR(t *plan.Topic, name string, before, after int, what string) {
	floor := max(1, t.MinISR)
	if after == 0 || before >= floor && after < floor {
		w.violate("%s takes %s from %d to %d in-sync replicas, min ISR is %d", what, name, before, after, t.MinISR)
	}
}

// revert takes a reassignment back: the new replicas leave at once (PartitionReassignmentRevert).
func (w *World) revert(f *flight) {
	t, p := w.partition(f.topic, f.partition)
	old := func(ids []int32) []int32 {
		return slices.DeleteFunc(slices.Clone(ids), func(id int32) bool { return slices.Contains(f.adding, id) })
	}
	isr := old(p.ISR)
	w.judgeISR(t, f.name, len(p.ISR), len(isr), "a move that is taken back")
	w.settlePartition(p, f, old(p.Replicas), isr)
}

func (w *World) flights() []*flight {
	var out []*flight
	for _, name := range slices.Sorted(maps.Keys(w.moves.flying)) {
		out = append(out, w.moves.flying[name])
	}
	return out
}

// replicate copies for a tick.
func (w *World) replicate() {
	for _, f := range w.flights() {
		_, p := w.partition(f.topic, f.partition)
		for _, id := range f.adding {
			if p.Leader < 0 || !w.Serving(id) || !w.stillCopies(f.name, id) {
				continue
			}
			speed, throttled := w.speed(f, p.Leader, id)
			if !throttled && !f.foreign {
				w.Unthrottled++
			}
			f.copied[id] += speed
		}
	}
	for i := range w.moves.copies {
		if c := &w.moves.copies[i]; w.Serving(c.broker) {
			c.bytes += copyBytes
		}
	}
	w.moves.copies = slices.DeleteFunc(w.moves.copies, func(c copying) bool {
		_, p := w.partition(c.ref.Topic, int(c.ref.Partition))
		if !slices.Contains(p.Replicas, c.broker) {
			return true
		}
		if c.bytes < w.sizeOf(c.ref.Topic) {
			return false
		}
		w.moves.dirs[nameOf(c.ref)][c.broker] = c.path
		return true
	})
}

// stillCopies says whether a new replica has not all of its partition yet.
func (w *World) stillCopies(name string, id int32) bool {
	f := w.moves.flying[name]
	return f != nil && slices.Contains(f.adding, id) && f.copied[id] < w.sizeOf(f.topic)
}

// speed of a copy in bytes a tick, and whether both ends are throttled (KIP-73).
func (w *World) speed(f *flight, leader, follower int32) (bytes int64, throttled bool) {
	t := w.moves.throttles[f.topic]
	in, out := w.throttle(t.Follower, f.partition, follower, followerRate), w.throttle(t.Leader, f.partition, leader, leaderRate)
	bytes = copyBytes
	for _, rate := range []int64{in, out} {
		if rate > 0 {
			bytes = min(bytes, rate)
		}
	}
	return bytes, in > 0 && out > 0
}

const (
	leaderRate   = "leader.replication.throttled.rate"
	followerRate = "follower.replication.throttled.rate"
	logDirRate   = "replica.alter.log.dirs.io.max.bytes.per.second"
	cordonedDirs = "cordoned.log.dirs"
)

// throttle is the rate of a replica, zero without one.
func (w *World) throttle(list string, partition int, broker int32, key string) int64 {
	pair := strconv.Itoa(partition) + ":" + strconv.Itoa(int(broker))
	if list != "*" && !slices.Contains(strings.Split(list, ","), pair) {
		return 0
	}
	rate, err := strconv.ParseInt(w.broker[broker][key], 10, 64)
	if err != nil {
		return 0
	}
	return rate
}

// land ends what has arrived.
func (w *World) land() {
	for _, f := range w.flights() {
		w.complete(f)
	}
}

// Size says how much each replica of a topic holds, Capacity how much each log dir of a broker.
func (w *World) Size(topic string, bytes int64) { w.moves.sizes[topic] = bytes }

// Capacity says how much each log dir of a broker holds.
func (w *World) Capacity(broker int32, bytes int64) { w.moves.capacity[broker] = bytes }

// Reassign moves a partition as somebody else does, not through a plan.
func (w *World) Reassign(topic string, partition int, to ...int32) {
	if _, p := w.partition(topic, partition); p == nil || w.moves.flying[partitionName(topic, partition)] != nil {
		return
	}
	w.reassign(topic, partition, to, true)
}

// UserThrottle throttles replicas of a topic as somebody else does.
func (w *World) UserThrottle(topic string, t plan.TopicThrottle) {
	w.moves.throttles[topic], w.moves.users[topic] = t, t
}

// UserKey sets a key of a broker as somebody else does.
func (w *World) UserKey(broker int32, key, value string) {
	for _, of := range []map[int32]map[string]string{w.broker, w.moves.userKeys} {
		if of[broker] == nil {
			of[broker] = map[string]string{}
		}
		of[broker][key] = value
	}
}

// InFlight counts the reassignments and copies between log dirs that are under way.
func (w *World) InFlight() int { return len(w.moves.flying) + len(w.moves.copies) }

// Throttles of topics that are in force.
func (w *World) Throttles() map[string]plan.TopicThrottle { return w.moves.throttles }

// BrokerConfig is the dynamic configuration of a broker.
func (w *World) BrokerConfig(id int32) map[string]string { return w.broker[id] }

// Replicas are the replica lists of a topic's partitions.
func (w *World) Replicas(topic string) [][]int32 {
	var out [][]int32
	for i := range w.topics {
		for _, p := range w.topics[i].Partitions {
			if w.topics[i].Name == topic {
				out = append(out, p.Replicas)
			}
		}
	}
	return out
}

// On counts the replicas on a broker.
func (w *World) On(broker int32) int {
	n := 0
	for i := range w.topics {
		for _, p := range w.topics[i].Partitions {
			if slices.Contains(p.Replicas, broker) {
				n++
			}
		}
	}
	return n
}

// Flights are the reassignments under way, for failures.
func (w *World) Flights() []string {
	var out []string
	for _, f := range w.flights() {
		out = append(out, fmt.Sprintf("%s adding %v removing %v copied %v", f.name, f.adding, f.removing, f.copied))
	}
	return out
}
