package balance

import (
	"cmp"
	"math"
	"slices"
)

// leveler evens out one metric without spoiling those that were evened out before.
type leveler struct {
	s     *state
	w     *want
	guard []*want // metrics that must stay in their bands, or get no worse
	why   Purpose
	moved int
	// What is left to give and to take, by broker.
	give, take []float64
	strict     bool   // crowd no topic
	ranks      *ranks // while finishing
}

// even brings every broker that is outside its band back to its goal: first what racks must
// pass to each other, then within each rack, which no rule of racks forbids, then one by one.
func (l *leveler) even() int {
	s := l.s
	if !l.outside() {
		return 0
	}
	byRack := make([][]int16, len(s.racks))
	var all []int16
	for b := range s.brokers {
		byRack[s.brokers[b].rack] = append(byRack[s.brokers[b].rack], int16(b))
		all = append(all, int16(b))
	}
	l.give, l.take = make([]float64, len(all)), make([]float64, len(all))
	if len(byRack) > 1 {
		l.acrossRacks(byRack)
	}
	for _, group := range byRack {
		l.pass(group)
	}
	if l.outside() && len(byRack) > 1 {
		l.pass(all)
	}
	l.finish()
	return l.moved
}

// outside says that some broker is out of its band and could be helped.
func (l *leveler) outside() bool {
	for b := range l.s.brokers {
		off := l.s.off(l.w, int16(b))
		if off > l.w.band[b] || off < -l.w.band[b] && l.s.receives[b] {
			return true
		}
	}
	return false
}

// acrossRacks moves what racks as a whole have too much of to those with too little.
func (l *leveler) acrossRacks(byRack [][]int16) {
	s, w := l.s, l.w
	var givers, takers []int16
	for _, group := range byRack {
		var off, unit float64
		for _, b := range group {
			off += s.now(w, b) - w.target[b]
			unit += w.unit[b]
		}
		switch goal := w.goal[group0(group)] * unit / 2; {
		case off > goal:
			givers = append(givers, group...)
			l.water(group, off, 0)
		case off < -goal:
			takers = append(takers, group...)
			l.water(group, 0, -off)
		}
	}
	if len(givers) > 0 && len(takers) > 0 {
		l.transfer(givers, takers)
	}
}

func group0(group []int16) int16 {
	if len(group) == 0 {
		return 0
	}
	return group[0]
}

// pass evens out within a group of brokers: as much as those outside their bands need, from
// the fullest, to the emptiest.
func (l *leveler) pass(group []int16) {
	s, w := l.s, l.w
	var over, under float64
	for _, b := range group {
		switch off := s.off(w, b); {
		case off > w.band[b]:
			over += (off - w.goal[b]) * w.unit[b]
		case off < -w.band[b] && s.receives[b]:
			under += (-off - w.goal[b]) * w.unit[b]
		}
	}
	if amount := max(over, under); amount > 0 {
		l.water(group, amount, amount)
		l.transfer(group, group)
	}
}

// water spreads amounts to give over the fullest brokers of a group, and amounts to take over
// the emptiest, so that they end level.
func (l *leveler) water(group []int16, give, take float64) {
	s, w := l.s, l.w
	above := func(level float64, sign float64, set []float64) float64 {
		var sum float64
		for _, b := range group {
			amount := max(0, sign*s.off(w, b)-level) * w.unit[b]
			if sign < 0 && !s.receives[b] {
				amount = 0
			}
			if set != nil {
				set[b] = amount
			}
			sum += amount
		}
		return sum
	}
	for _, side := range []struct {
		amount, sign float64
		set          []float64
	}{{give, 1, l.give}, {take, -1, l.take}} {
		low, high := 0.0, 1.0
		for above(high, side.sign, nil) > side.amount && high < 1e12 {
			high *= 2
		}
		for range 60 {
			mid := (low + high) / 2
			if above(mid, side.sign, nil) > side.amount {
				low = mid
			} else {
				high = mid
			}
		}
		if side.amount <= 0 {
			low = math.Inf(1)
		}
		above(low, side.sign, side.set)
	}
}

// transfer moves from givers to takers. It goes through what a giver holds in the order of
// topics and takes every so many-th replica, so that each topic and each size gives its part:
// one move sets right bytes, replicas and topics alike. Topics that crowd go first; later
// walks take what is still needed, and only the last one lets a topic crowd.
func (l *leveler) transfer(givers, takers []int16) {
	s, w := l.s, l.w
	takers = slices.DeleteFunc(slices.Clone(takers), func(b int16) bool { return l.take[b] <= 0 || !s.receives[b] })
	order := slices.DeleteFunc(slices.Clone(givers), func(b int16) bool { return l.give[b] <= 0 })
	slices.SortStableFunc(order, func(a, b int16) int {
		return cmp.Or(cmp.Compare(l.give[b]/w.unit[b], l.give[a]/w.unit[a]), cmp.Compare(a, b))
	})
	held := s.held()
	for _, a := range order {
		slots := held[a]
		if !w.bytes {
			s.byBytes(slots)
			slices.Reverse(slots)
		}
		l.strict = true
		l.walk(a, slots, takers, 1, true)
		for range 2 {
			if w.bytes && s.now(w, a) > 0 {
				l.walk(a, slots, takers, min(1, l.give[a]/s.now(w, a)), false)
			}
		}
		l.walk(a, slots, takers, 1, false)
	}
	l.strict = false
	for _, a := range order {
		l.walk(a, held[a], takers, 1, false)
	}
}

// walk offers that fraction of the slots of a to the takers; or only those of topics that
// crowd there.
func (l *leveler) walk(a int16, slots []int32, takers []int16, fraction float64, crowding bool) {
	s, w := l.s, l.w
	due := 0.5
	for _, i := range slots {
		if l.give[a] <= l.slack(a) {
			return
		}
		p := s.part[i]
		if s.at[i] != a || !s.optional(p) || crowding && s.topicRoom(p, a) >= 0 {
			continue
		}
		if due += fraction; due < 1 {
			continue
		}
		weight := s.weigh(w, i)
		if weight == 0 && w.bytes || weight > l.give[a]+l.slack(a) {
			continue
		}
		if to := l.taker(i, weight, takers); to != none {
			due = min(due-1, 1)
			l.do(i, to)
		}
	}
}

// slack is how much more or less than asked is near enough.
func (l *leveler) slack(b int16) float64 { return l.w.band[b] * l.w.unit[b] / 8 }

// taker is who should have a replica: with the fewest of its topic, then with the most to take.
func (l *leveler) taker(slot int32, weight float64, takers []int16) int16 {
	s, w := l.s, l.w
	p := s.part[slot]
	best, topic, need := none, int32(0), 0.0
	for _, b := range takers {
		room := l.take[b]
		if weight > room+l.slack(b) || s.capped(b) {
			continue
		}
		t, n := s.topicCount(p, b), room/w.unit[b]
		if best != none && (t > topic || t == topic && n <= need) {
			continue
		}
		if l.strict && s.topicRoom(p, b) <= 0 {
			continue
		}
		if s.allowed(slot, b) && l.guarded(slot, b) && s.place(p, b, s.size[p]) != none {
			best, topic, need = b, t, n
		}
	}
	return best
}

// guarded says that the move leaves the guarded metrics in their bands, or no further off.
func (l *leveler) guarded(slot int32, to int16) bool {
	for _, g := range l.guard {
		if !l.s.harmless(g, l.s.at[slot], to, l.s.weigh(g, slot)) {
			return false
		}
	}
	return true
}

// harmless says that passing on that much leaves both brokers in their bands, or one that is
// outside no further off.
func (s *state) harmless(w *want, from, to int16, amount float64) bool {
	for _, side := range []struct {
		b    int16
		sign float64
	}{{from, -1}, {to, 1}} {
		off := s.off(w, side.b)
		then := off + side.sign*amount/w.unit[side.b]
		if math.Abs(then) > max(w.band[side.b], math.Abs(off)) {
			return false
		}
	}
	return true
}

func (l *leveler) do(slot int32, to int16) {
	s := l.s
	from, p := s.at[slot], s.part[slot]
	weight := s.weigh(l.w, slot)
	s.move(slot, to, s.place(p, to, s.size[p]), l.why)
	l.give[from] -= weight
	l.take[to] -= weight
	l.moved++
}
