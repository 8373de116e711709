package balance

import (
	"math"
	"slices"
)

// state is a Cluster in flat arrays, changed step by step into the target. A slot is one
// replica of one partition; partition p owns the slots first[p] up to first[p+1], in the
// order of preference.
type state struct {
	c       *Cluster
	req     Request
	brokers []broker
	dirs    []dir
	racks   []string
	index   map[int32]int16 // broker id → brokers
	// rackCount is how many racks the replicas of a partition can spread over.
	rackCount int

	// Of each partition.
	first      []int32
	topic      []int32
	topicFirst []int32 // of each topic: its first partition
	size       []int64
	flags      []partitionFlags
	why        []Purpose
	// Of each slot: broker and log dir (-1 none), bytes, partition.
	at    []int16
	dir   []int16
	bytes []int64
	part  []int32

	// perTopic counts replicas by topic and broker.
	perTopic []int32
	// receives says which brokers may get replicas in this mode.
	receives []bool
	deferred []PartitionRef
	slots    [][]int32 // see held
	limits   *topicLimits
	// levelled says that who leads is as even as the replicas allow.
	levelled bool
}

// partitionFlags say what may be done to a partition.
type partitionFlags uint8

const (
	inFlight partitionFlags = 1 << iota // somebody reassigns it
	leaderless
	excluded // not among the topics of the request
	stuck    // a replica that stays is on a dead broker or log dir: it moves only when it must
	touched  // changed by this plan
)

type broker struct {
	id       int32
	facts    *Broker
	rack     int16
	alive    bool
	leaving  bool
	dest     bool // may get new replicas at all
	dirs     []int16
	capacity float64
	other    int64 // bytes that are no replicas
	load     int64 // bytes of replicas in the end
	count    int32
	lead     int32
}

type dir struct {
	broker   int16
	path     string
	capacity float64
	limit    int64 // most that may ever lie there
	other    int64 // bytes that are no replicas
	extra    int64 // bytes there now that will go once what is in flight is done
	load     int64 // bytes of replicas in the end
	count    int32
	takes    bool
	empty    bool // asked to be emptied
	offline  bool
	cordoned bool
}

const none = int16(-1)

func newState(c *Cluster, req Request) *state {
	s := &state{c: c, req: req, index: make(map[int32]int16, len(c.Brokers))}
	s.addBrokers()
	s.addPartitions()
	s.addCopies()
	s.measureOther()
	s.limits = s.newTopicLimits()
	return s
}

func (s *state) addBrokers() {
	order := make([]int, len(s.c.Brokers))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return int(s.c.Brokers[a].ID) - int(s.c.Brokers[b].ID) })
	for _, i := range order {
		s.addBroker(&s.c.Brokers[i])
	}
	used := map[int16]bool{}
	for _, b := range s.brokers {
		if !b.leaving {
			used[b.rack] = true
		}
	}
	s.rackCount = max(1, len(used))
}

func (s *state) addBroker(in *Broker) {
	b := broker{id: in.ID, facts: in, rack: s.rackOf(in.Rack), alive: in.Alive, leaving: in.Leaving}
	if s.req.Mode == Drain && slices.Contains(s.req.Brokers, in.ID) {
		b.leaving = true
	}
	for i := range in.LogDirs {
		d := &in.LogDirs[i]
		asked := slices.Contains(s.req.Empty, DirRef{Broker: in.ID, Path: d.Path})
		out := dir{broker: small(len(s.brokers)), path: d.Path, empty: asked, offline: d.Offline, cordoned: d.Cordoned, limit: math.MaxInt64 / 4}
		if d.Total > 0 {
			out.capacity = float64(d.Total)
			out.limit = int64(float64(d.Total) * (1 - s.req.Headroom))
		}
		out.takes = !d.Offline && !d.Cordoned && !asked
		b.dest = b.dest || out.takes
		b.dirs = append(b.dirs, small(len(s.dirs)))
		s.dirs = append(s.dirs, out)
	}
	b.dest = b.dest && b.alive && !b.leaving && !in.Cordoned
	s.index[in.ID] = small(len(s.brokers))
	s.brokers = append(s.brokers, b)
}

func (s *state) rackOf(name string) int16 {
	i := slices.Index(s.racks, name)
	if i < 0 {
		i = len(s.racks)
		s.racks = append(s.racks, name)
	}
	return small(i)
}

// brokerOf makes up a dead broker for an id that is not registered.
func (s *state) brokerOf(id int32) int16 {
	b, ok := s.index[id]
	if !ok {
		s.addBroker(&Broker{ID: id, Leaving: s.req.Mode == Drain && slices.Contains(s.req.Brokers, id)})
		b = s.index[id]
	}
	return b
}

func (s *state) addPartitions() {
	s.reserve()
	wanted := map[string]bool{}
	for _, t := range s.req.Topics {
		wanted[t] = true
	}
	for t := range s.c.Topics {
		topic := &s.c.Topics[t]
		s.topicFirst = append(s.topicFirst, index(len(s.topic)))
		for i := range topic.Partitions {
			p := len(s.topic)
			s.topic = append(s.topic, int32(t))
			s.addPartition(p, topic, i)
			if len(wanted) > 0 && !wanted[topic.Name] {
				s.flags[p] |= excluded
			}
		}
	}
	s.perTopic = make([]int32, len(s.c.Topics)*len(s.brokers))
	for p := range s.topic {
		for i := s.first[p]; i < s.first[p+1]; i++ {
			s.count(i, 1)
		}
	}
}

// reserve makes room for all slots at once: the arrays are most of the memory of a plan.
func (s *state) reserve() {
	parts, slots := 0, 0
	for t := range s.c.Topics {
		topic := &s.c.Topics[t]
		for i := range topic.Partitions {
			parts++
			slots += s.slotsOf(topic, &topic.Partitions[i])
		}
	}
	s.first = make([]int32, 1, parts+1)
	s.topic = make([]int32, 0, parts)
	s.size = make([]int64, 0, parts)
	s.flags = make([]partitionFlags, 0, parts)
	s.why = make([]Purpose, parts)
	s.at = make([]int16, 0, slots)
	s.dir = make([]int16, 0, slots)
	s.bytes = make([]int64, 0, slots)
	s.part = make([]int32, 0, slots)
}

// slotsOf is how many replicas a partition has or shall have.
func (s *state) slotsOf(t *Topic, p *Partition) int {
	n := len(p.Replicas)
	if s.req.Mode == ReplicationFactor {
		n = max(n, s.req.Factors[t.Name])
	}
	return n
}

func (s *state) addPartition(p int, t *Topic, i int) {
	in := &t.Partitions[i]
	size := in.bytes()
	var flags partitionFlags
	if in.inFlight() {
		flags |= inFlight
		s.deferred = append(s.deferred, PartitionRef{Topic: t.Name, Partition: index(i)})
	}
	if in.Leader < 0 {
		flags |= leaderless
	}
	for j := range in.Replicas {
		r := &in.Replicas[j]
		at := s.brokerOf(r.Broker)
		b := &s.brokers[at]
		d := s.dirOf(b, r)
		if !b.leaving && (!b.alive || r.State.Has(Offline)) {
			flags |= stuck
		}
		bytes := in.held(*r)
		if r.State.Has(Removing) {
			s.remain(b, d, r.Bytes)
			at, bytes = none, 0
		}
		s.slot(p, at, d, bytes)
	}
	for range s.slotsOf(t, in) - len(in.Replicas) {
		s.slot(p, none, none, 0)
	}
	s.first = append(s.first, index(len(s.at)))
	s.size = append(s.size, size)
	s.flags = append(s.flags, flags)
}

func (s *state) slot(p int, at, d int16, bytes int64) {
	s.at = append(s.at, at)
	s.dir = append(s.dir, d)
	s.bytes = append(s.bytes, bytes)
	s.part = append(s.part, index(p))
}

// dirOf is the log dir of a replica; with only one there is no doubt.
func (s *state) dirOf(b *broker, r *Replica) int16 {
	switch {
	case r.Dir >= 0 && int(r.Dir) < len(b.dirs):
		return b.dirs[r.Dir]
	case len(b.dirs) == 1:
		return b.dirs[0]
	}
	return none
}

// remain counts bytes that lie on a broker until a reassignment in flight is done.
func (s *state) remain(b *broker, d int16, bytes int64) {
	for _, i := range b.dirs {
		if d == none || d == i {
			s.dirs[i].extra += bytes
		}
	}
}

// count adds a slot to what its broker and log dir hold, or takes it away.
func (s *state) count(slot int32, by int32) {
	at := s.at[slot]
	if at == none {
		return
	}
	p := s.part[slot]
	b := &s.brokers[at]
	b.load += int64(by) * s.bytes[slot]
	b.count += by
	if slot == s.first[p] {
		b.lead += by
	}
	s.perTopic[int(s.topic[p])*len(s.brokers)+int(at)] += by
	if d := s.dir[slot]; d != none {
		s.dirs[d].load += int64(by) * s.bytes[slot]
		s.dirs[d].count += by
		return
	}
	for _, d := range b.dirs { // it lies in one of them
		s.dirs[d].extra += int64(by) * s.bytes[slot]
	}
}

// addCopies counts copies between log dirs in flight: they end where they go to.
func (s *state) addCopies() {
	if len(s.c.Copies) == 0 {
		return
	}
	topics := make(map[string]int, len(s.c.Topics))
	for t := range s.c.Topics {
		topics[s.c.Topics[t].Name] = t
	}
	for _, c := range s.c.Copies {
		t, ok := topics[c.Topic]
		if !ok || c.Partition < 0 || int(c.Partition) >= len(s.c.Topics[t].Partitions) {
			continue
		}
		s.addCopy(s.topicFirst[t]+c.Partition, c)
	}
}

func (s *state) addCopy(p int32, c Copy) {
	at, ok := s.index[c.Broker]
	if !ok || c.Dir < 0 || int(c.Dir) >= len(s.brokers[at].dirs) {
		return
	}
	to := s.brokers[at].dirs[c.Dir]
	if was := s.original(p, at); was != nil && was.State.Has(Removing) {
		s.dirs[to].extra += was.Bytes // it is copied all the same before it goes
	}
	for i := s.first[p]; i < s.first[p+1]; i++ {
		if s.at[i] != at {
			continue
		}
		if from := s.dir[i]; from != none {
			s.dirs[from].extra += s.bytes[i]
		}
		s.count(i, -1)
		s.dir[i] = to
		s.count(i, 1)
	}
	if s.flags[p]&inFlight == 0 {
		s.flags[p] |= inFlight
		s.deferred = append(s.deferred, PartitionRef{Topic: c.Topic, Partition: c.Partition})
	}
}

// measureOther finds what fills the volumes beside replicas, and what capacity stands for a
// log dir that does not say its own.
func (s *state) measureOther() {
	there := s.present()
	shared := map[string]int64{} // what replicas take of volumes that several log dirs share
	for b := range s.brokers {
		for i, d := range s.brokers[b].dirs {
			if v := s.brokers[b].facts.LogDirs[i].Volume; v != "" {
				shared[v] += there[d]
			}
		}
	}
	usual := s.usualCapacity()
	for b := range s.brokers {
		for i, d := range s.brokers[b].dirs {
			dir := &s.dirs[d]
			if dir.capacity > 0 {
				in := s.brokers[b].facts.LogDirs[i]
				replicas := there[d]
				if in.Volume != "" {
					replicas = shared[in.Volume]
				}
				dir.other = max(0, in.Total-in.Usable-replicas)
			} else {
				dir.capacity = usual
			}
			if dir.offline || dir.empty || dir.cordoned && s.brokers[b].dest {
				continue // the broker is as large as what takes replicas
			}
			s.brokers[b].capacity += dir.capacity
			s.brokers[b].other += dir.other
		}
	}
}

// present is what replicas, and copies under way, take of each log dir now.
func (s *state) present() []int64 {
	there := make([]int64, len(s.dirs))
	for t := range s.c.Topics {
		for i := range s.c.Topics[t].Partitions {
			for j := range s.c.Topics[t].Partitions[i].Replicas {
				r := &s.c.Topics[t].Partitions[i].Replicas[j]
				if d := s.dirOf(&s.brokers[s.index[r.Broker]], r); d != none {
					there[d] += r.Bytes
				}
			}
		}
	}
	for _, c := range s.c.Copies {
		if at, ok := s.index[c.Broker]; ok && c.Dir >= 0 && int(c.Dir) < len(s.brokers[at].dirs) {
			there[s.brokers[at].dirs[c.Dir]] += c.Bytes
		}
	}
	return there
}

// usualCapacity is the mean of the log dirs that say theirs.
func (s *state) usualCapacity() float64 {
	var sum float64
	n := 0
	for i := range s.dirs {
		if s.dirs[i].capacity > 0 {
			sum += s.dirs[i].capacity
			n++
		}
	}
	if n == 0 {
		return 1 << 40
	}
	return sum / float64(n)
}

// mostSmall is how many brokers, racks or log dirs a plan can number.
const mostSmall = math.MaxInt16

// small is the number of a broker, a rack or a log dir. Plan refuses more than mostSmall.
func small(n int) int16 { return int16(n) } //nolint:gosec // G115: see mostSmall

// index is the number of a topic, a partition or a slot: Kafka counts those in 32 bits too.
func index(n int) int32 { return int32(n) } //nolint:gosec // G115: 2^31 replicas fit into no memory
