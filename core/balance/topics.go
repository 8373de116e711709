package balance

import (
	"cmp"
	"math"
	"slices"
)

// Bounds of the search for an exchange.
const (
	mostTries  = 48 // replicas tried in return for one
	mostBack   = 4  // replicas that return for one
	mostFailed = 3  // replicas of a topic without a way off a broker
)

// topicLimits are how many replicas of one topic each broker should have at most: its share
// of what racks allow, rounded up, and one more or the tolerance.
type topicLimits struct {
	s      *state
	shares map[int][]float64 // by replication factor: replicas of each partition, by broker
	alike  map[[2]int][]int32
	rows   [][]int32 // by topic
}

func (s *state) newTopicLimits() *topicLimits {
	return &topicLimits{s: s, shares: map[int][]float64{}, alike: map[[2]int][]int32{}, rows: make([][]int32, len(s.c.Topics))}
}

// share of each broker in one replica set of that factor, if brokers are to have numbers in
// proportion to their disks.
func (t *topicLimits) share(factor int) []float64 {
	if have, ok := t.shares[factor]; ok {
		return have
	}
	s := t.s
	f := &fluid{weight: s.sizes(), other: make([]float64, len(s.brokers)), most: make([]float64, len(s.brokers))}
	g := group{factor: factor, total: float64(factor), broker: make([]float64, len(s.brokers)), rack: make([]float64, len(s.racks))}
	for b := range s.brokers {
		f.racks = append(f.racks, s.brokers[b].rack)
		g.broker[b] = 1
		if s.brokers[b].dest {
			f.most[b] = -1
		}
	}
	for r := range g.rack {
		g.rack[r] = float64(share(factor, s.rackCount))
	}
	f.groups = []group{g}
	levels, ok := f.levels()
	if !ok { // more replicas than places: no limit can be held
		levels = slices.Repeat([]float64{1}, len(s.brokers))
	}
	t.shares[factor] = levels
	return levels
}

// of a topic, by broker.
func (t *topicLimits) of(topic int32) []int32 {
	if row := t.rows[topic]; row != nil {
		return row
	}
	s := t.s
	key := [2]int{len(s.c.Topics[topic].Partitions), 0}
	if key[0] > 0 {
		key[1] = s.replicas(s.topicFirst[topic])
	}
	row, ok := t.alike[key]
	if !ok {
		row = make([]int32, len(s.brokers))
		for b, one := range t.share(max(1, key[1])) {
			even := float64(key[0]) * one
			row[b] = int32(math.Ceil(even-1e-6) + max(1, math.Floor(s.req.CountTolerance*even)))
		}
		t.alike[key] = row
	}
	t.rows[topic] = row
	return row
}

// topicRoom says how many more replicas of a partition's topic a broker may have; negative
// where it has too many.
func (s *state) topicRoom(p int32, b int16) int32 {
	return s.limits.of(s.topic[p])[b] - s.topicCount(p, b)
}

// spreading moves replicas of topics that crowd on a broker.
type spreading struct {
	s     *state
	w, n  *want
	ranks *ranks
	moved int
	queue []int64
}

// spread brings topics down to their limits as far as disks and numbers of replicas stay in
// their bands: by single moves, else in exchange for replicas of other topics.
func (s *state) spread(w, n *want) int {
	x := &spreading{s: s, w: w, n: n, ranks: s.ranks()}
	for t := range index(len(s.c.Topics)) {
		limits := s.limits.of(t)
		for b := range s.brokers {
			if s.perTopic[int(t)*len(s.brokers)+b] > limits[b] {
				x.uncrowd(t, int16(b), limits)
			}
		}
	}
	return x.moved
}

// uncrowd moves replicas of a topic off a broker, the smallest first, down to its limit.
// Those of one topic are much alike: when a few cannot go, none can.
func (x *spreading) uncrowd(topic int32, b int16, limits []int32) {
	s := x.s
	var slots []int32
	for p := s.topicFirst[topic]; int(p) < len(s.topic) && s.topic[p] == topic; p++ {
		for i := s.first[p]; i < s.first[p+1]; i++ {
			if s.at[i] == b && s.optional(p) {
				slots = append(slots, i)
			}
		}
	}
	slices.SortFunc(slots, func(a, b int32) int { return cmp.Or(cmp.Compare(s.bytes[a], s.bytes[b]), cmp.Compare(a, b)) })
	failed := 0
	for _, i := range slots {
		if s.topicCount(s.part[i], b) <= limits[b] || failed > mostFailed {
			return
		}
		if !x.relieve(i, topic, b, limits) {
			failed++
		}
	}
}

// relieve finds a broker with less of the topic for one replica.
func (x *spreading) relieve(slot, topic int32, b int16, limits []int32) bool {
	s := x.s
	row := s.perTopic[int(topic)*len(s.brokers):][:len(s.brokers)]
	x.queue = x.queue[:0]
	for i := range s.brokers {
		to := int16(i)
		if s.receives[i] && row[i]+1 < row[b] && row[i] < limits[i] && s.allowed(slot, to) {
			need := int64(max(0, min(4, 2+s.off(x.w, to))) * 1e6)
			x.queue = append(x.queue, int64(row[i])<<40|need<<16|int64(i))
		}
	}
	slices.Sort(x.queue)
	for _, key := range x.queue[:min(len(x.queue), mostPartners)] {
		to := small(int(key & 0xffff))
		if x.alone(slot, to) || s.receives[b] && x.exchange(slot, to) {
			return true
		}
	}
	return false
}

// alone moves a replica if that harms nothing.
func (x *spreading) alone(slot int32, to int16) bool {
	s := x.s
	p, from := s.part[slot], s.at[slot]
	d := s.place(p, to, s.size[p])
	if d == none || s.capped(to) || !s.harmless(x.w, from, to, float64(s.size[p])) || !s.harmless(x.n, from, to, 1) {
		return false
	}
	x.move(slot, to, d)
	return true
}

// exchange moves a replica in return for others of about as many bytes together, the largest
// first, of topics that crowd where they are or do not where they go.
func (x *spreading) exchange(slot int32, to int16) bool {
	s := x.s
	p, from := s.part[slot], s.at[slot]
	d := s.place(p, to, s.size[p])
	if d == none || s.capped(to) {
		return false
	}
	var back []int32
	rest := s.size[p]
	list := x.ranks.of(to)
	start, _ := slices.BinarySearchFunc(list, rest, func(i int32, want int64) int { return cmp.Compare(want, s.bytes[i]) })
	var free int64
	for tries := 0; tries < mostTries && start < len(list) && len(back) < mostBack; tries++ {
		i := list[start]
		start++
		if s.size[s.part[i]] > rest || !x.returns(i, slot, from) || s.free(from) < free+s.size[s.part[i]] {
			continue
		}
		back = append(back, i)
		free += s.size[s.part[i]]
		rest -= s.size[s.part[i]]
		if s.harmless(x.w, from, to, float64(rest)) {
			break
		}
		// The next one fits into what is left.
		next, _ := slices.BinarySearchFunc(list, rest, func(i int32, want int64) int { return cmp.Compare(want, s.bytes[i]) })
		start = max(start, next)
	}
	if len(back) == 0 || !s.harmless(x.w, from, to, float64(rest)) || !s.harmless(x.n, from, to, float64(1-len(back))) {
		return false
	}
	x.move(slot, to, d)
	for _, i := range back {
		if d := s.place(s.part[i], from, s.size[s.part[i]]); d != none {
			x.move(i, from, d)
		}
	}
	return true
}

// returns says that a replica may come back for the one in the other slot.
func (x *spreading) returns(i, slot int32, to int16) bool {
	s := x.s
	q := s.part[i]
	return s.optional(q) && s.topic[q] != s.topic[s.part[slot]] && s.bytes[i] > 0 && !s.capped(to) && s.topicRoom(q, to) > 0 &&
		s.allowed(i, to) && s.place(q, to, s.size[q]) != none
}

func (x *spreading) move(slot int32, to, d int16) {
	x.ranks.move(slot, to, func() { x.s.move(slot, to, d, ForTopics) })
	x.moved++
}
