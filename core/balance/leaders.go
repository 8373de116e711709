package balance

import (
	"math"
	"slices"
)

// leading evens out who is preferred as leader. A partition can pass from its first replica
// to any other, so the question is one of flow between brokers, and it is answered exactly:
// where no chain of exchanges leads from a broker with too many to one with too few, the
// replicas allow no better.
type leading struct {
	s *state
	// may says which partitions may change.
	may func(p int32) bool
	// pairs holds, for each pair of brokers, partitions that the first is preferred for and
	// the second could be. Entries that are no longer so are dropped when met.
	pairs [][]int32
	upper int32
	lower int32
	moved int
}

// leads says that a replica can be preferred as leader.
func (s *state) leads(slot int32) bool {
	at := s.at[slot]
	if at == none || !s.brokers[at].alive || s.brokers[at].leaving {
		return false
	}
	was := s.original(s.part[slot], at)
	return was == nil || !was.State.Has(Offline)
}

// leaders evens out leadership among the partitions that may change; exact makes it as even as
// the replicas allow, else only those outside the tolerance are helped.
func (s *state) leaders(may func(int32) bool, exact bool) int {
	l := &leading{s: s, may: may}
	l.leave()
	mean := s.meanLeaders()
	band := max(1, s.req.CountTolerance*mean)
	l.upper, l.lower = ceil(mean+band), int32(mean-band)
	if !exact && !l.outside() {
		return l.moved
	}
	l.upper, l.lower = ceil(mean+band/2), int32(mean-band/2)
	if exact {
		l.upper, l.lower = 0, 0
	}
	l.index()
	for {
		before := l.moved
		l.lowerAll()
		l.raiseAll()
		if l.moved == before {
			s.levelled = true
			return l.moved
		}
	}
}

func ceil(x float64) int32 { return int32(math.Ceil(x - 1e-9)) }

// couldLead says that a broker could lead something.
func (b *broker) couldLead() bool { return b.alive && !b.leaving && b.count > 0 }

// meanLeaders is how many leaders the brokers that could lead have on average.
func (s *state) meanLeaders() float64 {
	var led, can int32
	for b := range s.brokers {
		led += s.brokers[b].lead
		if s.brokers[b].couldLead() {
			can++
		}
	}
	return float64(led) / float64(max(can, 1))
}

// lowerAll takes leaders from the brokers with the most, above the upper bound, to any that
// will still have fewer.
func (l *leading) lowerAll() {
	s := l.s
	hopeless := make([]bool, len(s.brokers))
	for {
		most := none
		for i := range s.brokers {
			if b := &s.brokers[i]; !hopeless[i] && b.lead > l.upper && (most == none || b.lead > s.brokers[most].lead) {
				most = int16(i)
			}
		}
		if most == none {
			return
		}
		lead := s.brokers[most].lead
		path := l.search(func(b int16) bool { return b == most }, func(b *broker) bool { return b.lead <= lead-2 })
		if path == nil {
			hopeless[most] = true
			continue
		}
		l.pass(path)
	}
}

// raiseAll brings leaders to the brokers with the fewest, below the lower bound.
func (l *leading) raiseAll() {
	s := l.s
	for i := range s.brokers {
		to := &s.brokers[i]
		for to.couldLead() && to.lead < l.lower {
			path := l.search(func(b int16) bool { return s.brokers[b].lead >= to.lead+2 }, func(b *broker) bool { return b == to })
			if path == nil {
				break
			}
			l.pass(path)
		}
	}
}

// leave takes the preference from brokers that cannot lead or are on their way out.
func (l *leading) leave() {
	s := l.s
	for p := range index(len(s.topic)) {
		first := s.first[p]
		if first == s.first[p+1] || s.at[first] == none || !l.may(p) || !s.brokers[s.at[first]].leaving {
			continue
		}
		best := first
		for i := first + 1; i < s.first[p+1]; i++ {
			if s.leads(i) && (best == first || s.brokers[s.at[i]].lead < s.brokers[s.at[best]].lead) {
				best = i
			}
		}
		if best != first {
			s.swapSlots(first, best)
			s.touch(p, ForLeaders)
			l.moved++
		}
	}
}

func (l *leading) outside() bool {
	return slices.ContainsFunc(l.s.brokers, func(b broker) bool {
		return b.lead > l.upper || b.couldLead() && b.lead < l.lower
	})
}

func (l *leading) index() {
	s := l.s
	n := len(s.brokers)
	l.pairs = make([][]int32, n*n)
	for p := range index(len(s.topic)) {
		if l.may(p) {
			l.enter(p)
		}
	}
}

// enter notes whom a partition can pass to.
func (l *leading) enter(p int32) {
	s := l.s
	first := s.first[p]
	if first == s.first[p+1] || s.at[first] == none {
		return
	}
	for i := first + 1; i < s.first[p+1]; i++ {
		if s.leads(i) {
			pair := int(s.at[first])*len(s.brokers) + int(s.at[i])
			l.pairs[pair] = append(l.pairs[pair], p)
		}
	}
}

// search is the shortest chain of brokers from one that suits to one that does, the one with
// the fewest leaders among those equally near.
func (l *leading) search(from func(int16) bool, to func(*broker) bool) []int16 {
	s := l.s
	before := make([]int16, len(s.brokers))
	var queue []int16
	for i := range s.brokers {
		before[i] = none - 1
		if b := int16(i); from(b) {
			before[i] = none
			queue = append(queue, b)
		}
	}
	slices.SortStableFunc(queue, func(x, y int16) int { return int(s.brokers[y].lead) - int(s.brokers[x].lead) })
	for len(queue) > 0 {
		x := queue[0]
		queue = queue[1:]
		best := none
		for i := range s.brokers {
			if before[i] != none-1 || l.next(x, int16(i)) < 0 {
				continue
			}
			before[i] = x
			queue = append(queue, int16(i))
			b := &s.brokers[i]
			if b.couldLead() && to(b) && (best == none || b.lead < s.brokers[best].lead) {
				best = int16(i)
			}
		}
		if best != none {
			return chain(before, best)
		}
	}
	return nil
}

// chain follows the way back to its beginning.
func chain(before []int16, end int16) []int16 {
	var out []int16
	for b := end; b != none; b = before[b] {
		out = append(out, b)
	}
	slices.Reverse(out)
	return out
}

// next is a partition that can pass from one broker to the other; -1 when there is none.
func (l *leading) next(from, to int16) int32 {
	s := l.s
	pair := int(from)*len(s.brokers) + int(to)
	for list := l.pairs[pair]; len(list) > 0; {
		p := list[len(list)-1]
		if s.at[s.first[p]] == from && l.slotOn(p, to) >= 0 {
			return p
		}
		list = list[:len(list)-1]
		l.pairs[pair] = list
	}
	return -1
}

func (l *leading) slotOn(p int32, b int16) int32 {
	for i := l.s.first[p]; i < l.s.first[p+1]; i++ {
		if l.s.at[i] == b {
			return i
		}
	}
	return -1
}

// pass sends one partition along each step of the chain.
func (l *leading) pass(path []int16) {
	s := l.s
	for k := len(path) - 1; k > 0; k-- {
		p := l.next(path[k-1], path[k])
		s.swapSlots(s.first[p], l.slotOn(p, path[k]))
		s.touch(p, ForLeaders)
		pair := int(path[k-1])*len(s.brokers) + int(path[k])
		l.pairs[pair] = l.pairs[pair][:len(l.pairs[pair])-1]
		l.enter(p)
		l.moved++
	}
}
