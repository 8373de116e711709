package balance

import (
	"cmp"
	"slices"
)

// mostLeft replicas without a place end the search for room.
const mostLeft = 8

// evacuate moves everything off leaving brokers and lost log dirs that are to be emptied, the
// largest first, each copied once. What finds no place is returned.
func (s *state) evacuate() []int32 {
	slots := s.leaving()
	if len(slots) == 0 {
		return nil
	}
	slices.SortFunc(slots, func(a, b int32) int { return cmp.Or(cmp.Compare(s.bytes[b], s.bytes[a]), cmp.Compare(a, b)) })
	w, n := s.wantBytes(), s.wantCounts()
	var left []int32
	for _, slot := range slots {
		if s.settle(slot, w, n, ForEvacuation) {
			continue
		}
		// A search through all replicas: worth it for a few that do not fit, hopeless for many.
		if len(left) > mostLeft || !s.makeRoom(slot, w, n) {
			left = append(left, slot)
		}
	}
	return left
}

// leaving are the slots that must go elsewhere.
func (s *state) leaving() []int32 {
	var out []int32
	for i, at := range s.at {
		if at != none && s.must(int32(i)) && s.mayMove(s.part[i]) {
			out = append(out, int32(i))
		}
	}
	return out
}

// must says that a slot may not stay where it is, in the modes that empty brokers.
func (s *state) must(slot int32) bool {
	b := &s.brokers[s.at[slot]]
	if (s.req.Mode == Drain || s.req.Mode == Full) && b.leaving {
		return true
	}
	if len(s.req.Empty) == 0 || (s.req.Mode != Disks && s.req.Mode != Full) {
		return false
	}
	if d := s.dir[slot]; d != none {
		return s.dirs[d].empty && s.dirs[d].offline
	}
	was := s.original(s.part[slot], s.at[slot])
	lost := slices.ContainsFunc(b.dirs, func(d int16) bool { return s.dirs[d].empty && s.dirs[d].offline })
	return lost && was != nil && was.State.Has(Offline)
}

// settle moves a replica that must go, or makes a new one, where it is best: in the
// brokers that need bytes, to the one with the fewest replicas of the topic, then to the one
// that needs it most.
func (s *state) settle(slot int32, w, n *want, why Purpose) bool {
	to := s.best(slot, w, n, nil)
	if to == none {
		return false
	}
	p := s.part[slot]
	s.move(slot, to, s.place(p, to, s.size[p]), why)
	return true
}

// candidate is how good a broker is for a replica; less is better.
type candidate struct {
	over  int
	topic int32
	need  float64
}

func (c candidate) less(d candidate) bool {
	if c.over != d.over {
		return c.over < d.over
	}
	if c.topic != d.topic {
		return c.topic < d.topic
	}
	return c.need < d.need
}

// best is the broker that should have the replica of a slot, of those that suit; none when
// nobody may.
func (s *state) best(slot int32, w, n *want, suits func(int16) bool) int16 {
	p := s.part[slot]
	bytes := s.size[p]
	found, least := none, candidate{}
	for i := range s.brokers {
		b := int16(i)
		if !s.receives[b] || s.capped(b) || suits != nil && !suits(b) || !s.allowed(slot, b) {
			continue
		}
		disk := s.off(w, b) + float64(bytes)/w.unit[b]
		c := candidate{topic: s.topicCount(p, b), need: disk + (s.off(n, b)+1/n.unit[b])/2}
		if disk > w.goal[b] {
			c = candidate{over: 1, need: disk}
		}
		if (found == none || c.less(least)) && s.place(p, b, bytes) != none {
			found, least = b, c
		}
	}
	return found
}

// makeRoom moves one other replica out of the way of a slot that must go, the smallest that
// suffices.
func (s *state) makeRoom(slot int32, w, n *want) bool {
	p := s.part[slot]
	bytes := s.size[p]
	for i := range s.brokers {
		b := int16(i)
		if !s.receives[b] || s.capped(b) || !s.allowed(slot, b) {
			continue
		}
		for _, d := range s.brokers[b].dirs {
			dir := &s.dirs[d]
			if !dir.takes {
				continue
			}
			need := dir.load + dir.other + dir.extra + bytes - dir.limit
			if s.vacate(b, d, need, slot, w, n) {
				s.move(slot, b, d, ForEvacuation)
				return true
			}
		}
	}
	return false
}

// vacate frees so many bytes of a log dir by moving one replica to another broker.
func (s *state) vacate(b, d int16, need int64, except int32, w, n *want) bool {
	var fit []int32
	for i, at := range s.at {
		if at == b && s.dir[i] == d && s.bytes[i] >= need && s.part[i] != s.part[except] && s.optional(s.part[i]) {
			fit = append(fit, int32(i))
		}
	}
	slices.SortFunc(fit, func(x, y int32) int { return cmp.Or(cmp.Compare(s.bytes[x], s.bytes[y]), cmp.Compare(x, y)) })
	for _, i := range fit {
		if s.settle(i, w, n, ForEvacuation) {
			return true
		}
	}
	return false
}

// repairRacks moves replicas out of racks that hold more than their share of a partition.
func (s *state) repairRacks() int {
	var w, n *want
	changed := 0
	for p := range index(len(s.topic)) {
		if !s.optional(p) || s.crowded(p) == 0 {
			continue
		}
		if w == nil {
			w, n = s.wantBytes(), s.wantCounts()
		}
		for before := s.crowded(p); before > 0; {
			if !s.repair(p, w, n) {
				break
			}
			changed++
			now := s.crowded(p)
			if now >= before {
				break
			}
			before = now
		}
	}
	return changed
}

// repair moves one replica of a crowded rack, the one on the fullest broker that can go.
func (s *state) repair(p int32, w, n *want) bool {
	limit := share(s.replicas(p), s.rackCount)
	inRack := map[int16]int{}
	var slots []int32
	for i := s.first[p]; i < s.first[p+1]; i++ {
		if s.at[i] != none {
			inRack[s.brokers[s.at[i]].rack]++
			slots = append(slots, i)
		}
	}
	slices.SortStableFunc(slots, func(a, b int32) int { return cmp.Compare(s.off(w, s.at[b]), s.off(w, s.at[a])) })
	roomy := func(b int16) bool {
		was := s.original(p, b) // one that is behind would count for nothing
		return inRack[s.brokers[b].rack] < limit && (was == nil || was.State.Has(InSync))
	}
	for _, i := range slots {
		if inRack[s.brokers[s.at[i]].rack] <= limit {
			continue
		}
		if to := s.best(i, w, n, roomy); to != none {
			s.move(i, to, s.place(p, to, s.size[p]), ForRacks)
			return true
		}
	}
	return false
}
