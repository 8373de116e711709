package balance

import (
	"cmp"
	"math"
	"slices"
	"sort"
)

// Bounds of the last, exact steps: they matter in small clusters and for large replicas, and
// must not cost minutes in large ones.
const (
	mostRounds   = 4000 // single steps in one run
	mostSwapped  = 256  // replicas of a broker tried for a swap
	mostPartners = 24   // brokers tried for a swap
	mostNear     = 6    // replicas of about the right size tried with each
	leastNet     = .05  // what a swap must shift, of what it copies
)

// finish takes the broker furthest outside its band, again and again, and does the one move
// or swap that helps it most, until none does: first such that crowd no topic, then any.
func (l *leveler) finish() {
	if !l.outside() {
		return
	}
	l.ranks = l.s.ranks()
	for _, l.strict = range []bool{true, false} {
		for rounds := mostRounds; rounds > 0; {
			n := l.sweep(rounds)
			if rounds -= n; n == 0 {
				break
			}
		}
	}
}

// sweep helps brokers until those left outside their bands were all tried in vain, and
// returns how many steps that took.
func (l *leveler) sweep(most int) int {
	hopeless := map[int16]bool{}
	for n := 0; n < most; {
		b := l.worst(hopeless)
		switch {
		case b == none:
			return n
		case l.single(b) || l.swap(b):
			n++
		default:
			hopeless[b] = true
		}
	}
	return most
}

// worst is the broker furthest outside its band.
func (l *leveler) worst(except map[int16]bool) int16 {
	found, most := none, 0.0
	for i := range l.s.brokers {
		b := int16(i)
		if except[b] {
			continue
		}
		off := l.s.off(l.w, b)
		if off < 0 && !l.s.receives[b] {
			continue
		}
		if over := math.Abs(off) - l.w.band[b]; over > most {
			found, most = b, over
		}
	}
	return found
}

// gain says how much better the worse of two brokers is off when so much leaves the one and
// arrives at the other; at zero or below it is not worth it. What is worth it here can
// not go round in circles, since the worst of all only ever gets better.
func (l *leveler) gain(from, to int16, leaves, arrives float64) float64 {
	s, w := l.s, l.w
	a, b := s.off(w, from), s.off(w, to)
	before := max(math.Abs(a)-w.band[from], math.Abs(b)-w.band[to], 0)
	after := max(math.Abs(a-leaves/w.unit[from])-w.band[from], math.Abs(b+arrives/w.unit[to])-w.band[to], 0)
	return before - after - 1e-6
}

// arrives is what a replica will count on another broker.
func (l *leveler) arrives(slot int32, to int16) float64 {
	if l.w.bytes {
		return float64(l.s.arrives(l.s.part[slot], to))
	}
	return 1
}

// ranks are the replicas of brokers, the largest first, for as many brokers as were asked for.
type ranks struct {
	s      *state
	held   [][]int32
	sorted [][]int32
}

func (s *state) ranks() *ranks {
	return &ranks{s: s, held: s.held(), sorted: make([][]int32, len(s.brokers))}
}

func (r *ranks) order(x, y int32) int {
	return cmp.Or(cmp.Compare(r.s.bytes[y], r.s.bytes[x]), cmp.Compare(x, y))
}

func (r *ranks) of(b int16) []int32 {
	if r.sorted[b] == nil {
		r.sorted[b] = make([]int32, 0, len(r.held[b])+1)
		for _, i := range r.held[b] {
			if r.s.at[i] == b && r.s.optional(r.s.part[i]) {
				r.sorted[b] = append(r.sorted[b], i)
			}
		}
		slices.SortFunc(r.sorted[b], r.order)
	}
	return r.sorted[b]
}

// move does a move and keeps the lists of both brokers.
func (r *ranks) move(slot int32, to int16, do func()) {
	from := r.s.at[slot]
	list := r.of(from)
	if i := slices.Index(list, slot); i >= 0 {
		r.sorted[from] = slices.Delete(list, i, i+1)
	}
	list = r.of(to)
	do()
	i, _ := slices.BinarySearchFunc(list, slot, r.order)
	r.sorted[to] = slices.Insert(list, i, slot)
}

func (l *leveler) move(slot int32, to int16) {
	l.ranks.move(slot, to, func() { l.do(slot, to) })
}

// single does the best move of one replica from or to a broker.
func (l *leveler) single(b int16) bool {
	over := l.s.off(l.w, b) > 0
	for _, other := range l.partners(b, over) {
		from, to := b, other
		if !over {
			from, to = other, b
		}
		best, gain := int32(-1), 0.0
		for _, i := range l.window(from, to) {
			if g := l.gain(from, to, l.s.weigh(l.w, i), l.arrives(i, to)); g > gain && l.may(i, to) {
				best, gain = i, g
			}
		}
		if best >= 0 {
			l.move(best, to)
			return true
		}
	}
	return false
}

// window are the replicas of a broker worth trying: from the largest that does not overshoot.
func (l *leveler) window(from, to int16) []int32 {
	s, w := l.s, l.w
	list := l.ranks.of(from)
	if w.bytes {
		most := max(s.off(w, from)*w.unit[from]+w.band[from]*w.unit[from], w.band[to]*w.unit[to]-s.off(w, to)*w.unit[to])
		i := sort.Search(len(list), func(i int) bool { return float64(s.bytes[list[i]]) <= most })
		return list[i:min(len(list), i+mostSwapped)]
	}
	list = slices.Clone(list[max(0, len(list)-mostSwapped):])
	slices.Reverse(list)
	return list
}

// may holds all rules against one move.
func (l *leveler) may(slot int32, to int16) bool {
	s := l.s
	p := s.part[slot]
	return s.receives[to] && !s.capped(to) && (!l.strict || s.topicRoom(p, to) > 0) && s.allowed(slot, to) && l.guarded(slot, to) && s.place(p, to, s.size[p]) != none
}

// partners are the brokers to exchange with, the most different first.
func (l *leveler) partners(b int16, over bool) []int16 {
	s, w := l.s, l.w
	var out []int16
	for i := range s.brokers {
		if o := int16(i); o != b && (!over || s.receives[o]) {
			out = append(out, o)
		}
	}
	slices.SortStableFunc(out, func(x, y int16) int {
		if over {
			return cmp.Compare(s.off(w, x), s.off(w, y))
		}
		return cmp.Compare(s.off(w, y), s.off(w, x))
	})
	return out[:min(len(out), mostPartners)]
}

// swap exchanges two replicas of different size between a broker and another one.
func (l *leveler) swap(b int16) bool {
	if !l.w.bytes || !l.s.receives[b] {
		return false
	}
	over := l.s.off(l.w, b) > 0
	for _, other := range l.partners(b, over) {
		from, to := b, other
		if !over {
			from, to = other, b
		}
		if l.s.receives[other] && l.exchange(from, to) {
			return true
		}
	}
	return false
}

// exchange finds a larger replica on from and a smaller one on to whose difference helps.
func (l *leveler) exchange(from, to int16) bool {
	s, w := l.s, l.w
	large, small := l.ranks.of(from), l.ranks.of(to)
	ideal := (s.off(w, from) - s.off(w, to)) / (1/w.unit[from] + 1/w.unit[to])
	for _, x := range large[:min(len(large), mostSwapped)] {
		aim := float64(s.bytes[x]) - ideal
		at := sort.Search(len(small), func(i int) bool { return float64(s.bytes[small[i]]) <= aim })
		for j := max(0, at-mostNear/2); j < min(len(small), at+mostNear/2); j++ {
			y := small[j]
			leaves, arrives := float64(s.bytes[x])-l.arrives(y, from), l.arrives(x, to)-float64(s.bytes[y])
			copied := float64(s.size[s.part[x]] + s.size[s.part[y]])
			if leaves < copied*leastNet || l.gain(from, to, leaves, arrives) <= 0 || !l.swappable(x, y) {
				continue
			}
			l.move(x, to)
			l.move(y, from)
			return true
		}
	}
	return false
}

// swappable holds the rules against a swap; each replica must find its place before the other
// leaves.
func (l *leveler) swappable(x, y int32) bool {
	s := l.s
	from, to := s.at[x], s.at[y]
	if s.capped(from) || s.capped(to) || s.part[x] == s.part[y] || !s.allowed(x, to) || !s.allowed(y, from) {
		return false
	}
	px, py := s.part[x], s.part[y]
	if s.place(px, to, s.size[px]) == none || s.place(py, from, s.size[py]) == none {
		return false
	}
	for _, g := range l.guard {
		if !s.harmless(g, from, to, s.weigh(g, x)-s.weigh(g, y)) {
			return false
		}
	}
	return true
}
