package balance

import (
	"cmp"
	"slices"
)

// refactor gives partitions the number of replicas asked for. It returns the slots that find
// no broker, and the partitions that would lose too many replicas in sync.
func (s *state) refactor() (left []int32, bare []int32) {
	var w, n *want
	for p := range index(len(s.topic)) {
		wish, ok := s.req.Factors[s.c.Topics[s.topic[p]].Name]
		if !ok || !s.mayMove(p) || s.replicas(p) == wish {
			continue
		}
		if w == nil {
			w, n = s.wantBytes(), s.wantCounts()
		}
		for s.replicas(p) > wish {
			if !s.drop(p, w) {
				bare = append(bare, p)
				break
			}
		}
		left = append(left, s.grow(p, wish, w, n)...)
		for range s.replicas(p) { // what was lost may have been all there was in a rack
			if s.crowded(p) == 0 || s.flags[p]&touched == 0 || !s.repair(p, w, n) {
				break
			}
		}
	}
	s.limits = s.newTopicLimits()
	return left, bare
}

// grow adds replicas up to the number wished.
func (s *state) grow(p int32, wish int, w, n *want) []int32 {
	var left []int32
	for i := s.first[p]; i < s.first[p+1] && s.replicas(p)+len(left) < wish; i++ {
		if s.at[i] == none && !s.settle(i, w, n, ForFactor) {
			left = append(left, i)
		}
	}
	return left
}

// drop removes the replica that is worth least: on a broker or log dir that is gone or
// leaving, in a crowded rack, out of sync, on the fullest broker. It never leaves fewer
// replicas in sync than min.insync.replicas, or than there are.
func (s *state) drop(p int32, w *want) bool {
	t := &s.c.Topics[s.topic[p]]
	inSync := t.Partitions[s.number(p)].inSync()
	type worth struct {
		slot                      int32
		lost, crowd, behind, lead int
		off                       float64
	}
	var all []worth
	kept := 0
	for i := s.first[p]; i < s.first[p+1]; i++ {
		at := s.at[i]
		if at == none {
			continue
		}
		x := worth{slot: i, off: s.off(w, at)}
		was := s.original(p, at)
		if was == nil || was.State.Has(InSync) {
			x.behind = 1
			kept++
		}
		if s.leads(i) {
			x.lost = 1
		}
		if i == s.first[p] {
			x.lead = 1
		}
		s.at[i] = none // look at the racks without it
		x.crowd = s.crowded(p)
		s.at[i] = at
		all = append(all, x)
	}
	slices.SortStableFunc(all, func(a, b worth) int {
		return cmp.Or(cmp.Compare(a.lost, b.lost), cmp.Compare(a.crowd, b.crowd), cmp.Compare(a.behind, b.behind), cmp.Compare(a.lead, b.lead), cmp.Compare(b.off, a.off))
	})
	for _, x := range all {
		if x.behind == 1 && kept-1 < min(t.MinISR, inSync) {
			continue
		}
		s.remove(x.slot)
		return true
	}
	return false
}

// remove takes a replica away and keeps the order of the others.
func (s *state) remove(slot int32) {
	p := s.part[slot]
	for i := slot; i+1 < s.first[p+1]; i++ {
		s.swapSlots(i, i+1)
	}
	last := s.first[p+1] - 1
	s.count(last, -1)
	s.at[last], s.dir[last], s.bytes[last] = none, none, 0
	s.touch(p, ForFactor)
}
