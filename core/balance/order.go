package balance

import (
	"cmp"
	"slices"
)

// ledger is what lies where while moves are done one after the other.
type ledger struct {
	s *state
	// used is what lies in each log dir, count what each broker holds.
	used    []int64
	count   []int32
	waiting map[int16][]int32 // partitions that wait for a broker to have room
	out     []int32
}

// ledger of the state as it is: taken before anything is planned.
func (s *state) ledger() *ledger {
	l := &ledger{s: s, waiting: map[int16][]int32{}}
	for i := range s.dirs {
		l.used = append(l.used, s.dirs[i].load+s.dirs[i].other+s.dirs[i].extra)
	}
	for i := range s.brokers {
		l.count = append(l.count, s.brokers[i].count)
	}
	return l
}

// order puts changed partitions into an order in which each finds its space before it frees
// what it leaves: by purpose, the largest first, and one that has to wait right after it can.
// What never fits is returned apart.
func (l *ledger) order() (fit, rest []int32) {
	s := l.s
	var parts []int32
	for p := range index(len(s.topic)) {
		if s.flags[p]&touched != 0 {
			parts = append(parts, p)
		}
	}
	slices.SortFunc(parts, func(a, b int32) int {
		return cmp.Or(cmp.Compare(s.why[a], s.why[b]), cmp.Compare(s.size[b], s.size[a]), cmp.Compare(a, b))
	})
	for _, p := range parts {
		l.try(p)
	}
	done := make(map[int32]bool, len(l.out))
	for _, p := range l.out {
		done[p] = true
	}
	return l.out, slices.DeleteFunc(parts, func(p int32) bool { return done[p] })
}

// try does the move of a partition if there is room, and what waited for the room it frees.
func (l *ledger) try(p int32) {
	for todo := []int32{p}; len(todo) > 0; {
		p, todo = todo[0], todo[1:]
		if b := l.obstacle(p); b != none {
			l.waiting[b] = append(l.waiting[b], p)
			continue
		}
		l.out = append(l.out, p)
		for _, b := range l.do(p) {
			todo = append(todo, l.waiting[b]...)
			delete(l.waiting, b)
		}
	}
}

// obstacle is a broker that has no room for the partition yet; none when there is room.
func (l *ledger) obstacle(p int32) int16 {
	s := l.s
	for i := s.first[p]; i < s.first[p+1]; i++ {
		at := s.at[i]
		if at == none {
			continue
		}
		was := s.original(p, at)
		if was == nil && s.req.ReplicaCap > 0 && int(l.count[at]) >= s.req.ReplicaCap {
			return at
		}
		if d := s.dir[i]; s.copied(i, was) && d != none && l.used[d]+s.bytes[i] > s.dirs[d].limit {
			return at
		}
	}
	return none
}

// copied says that the slot's replica is copied to where it is.
func (s *state) copied(slot int32, was *Replica) bool {
	if was == nil {
		return true
	}
	from := s.dirOf(&s.brokers[s.at[slot]], was)
	return from != none && s.dir[slot] != none && from != s.dir[slot]
}

// do books a move and returns the brokers where something was freed.
func (l *ledger) do(p int32) []int16 {
	s := l.s
	var freed []int16
	for i := s.first[p]; i < s.first[p+1]; i++ {
		at := s.at[i]
		if at == none {
			continue
		}
		was := s.original(p, at)
		if was == nil {
			l.count[at]++
		}
		if s.copied(i, was) {
			if d := s.dir[i]; d != none {
				l.used[d] += s.bytes[i]
			}
			if was != nil {
				freed = append(freed, at)
				l.free(p, at, was)
			}
		}
	}
	t := s.topic[p]
	part := &s.c.Topics[t].Partitions[s.number(p)]
	for j := range part.Replicas {
		at := s.index[part.Replicas[j].Broker]
		if !s.has(p, at) {
			l.count[at]--
			freed = append(freed, at)
			l.free(p, at, &part.Replicas[j])
		}
	}
	return freed
}

// free takes what a replica held off the log dir it was in.
func (l *ledger) free(p int32, at int16, was *Replica) {
	s := l.s
	part := &s.c.Topics[s.topic[p]].Partitions[s.number(p)]
	if d := s.dirOf(&s.brokers[at], was); d != none {
		l.used[d] -= part.held(*was)
		return
	}
	for _, d := range s.brokers[at].dirs {
		l.used[d] -= part.held(*was)
	}
}

// restore puts a partition back to where it was.
func (s *state) restore(p int32) {
	part := &s.c.Topics[s.topic[p]].Partitions[s.number(p)]
	for i := s.first[p]; i < s.first[p+1]; i++ {
		s.count(i, -1)
		s.at[i], s.dir[i], s.bytes[i] = none, none, 0
		if j := int(i - s.first[p]); j < len(part.Replicas) {
			r := part.Replicas[j]
			s.at[i] = s.index[r.Broker]
			s.dir[i] = s.dirOf(&s.brokers[s.at[i]], &r)
			s.bytes[i] = part.held(r)
		}
		s.count(i, 1)
	}
	s.flags[p] &^= touched
}

// moveOf describes the change of a partition; false when nothing is different in the end.
func (s *state) moveOf(p int32) (Move, bool) {
	t := &s.c.Topics[s.topic[p]]
	part := &t.Partitions[s.number(p)]
	m := Move{Topic: t.Name, Partition: s.number(p), Size: s.size[p], Leader: part.Leader, Why: s.why[p]}
	lists := make([]int32, 0, len(part.Replicas)+int(s.first[p+1]-s.first[p]))
	for j := range part.Replicas {
		lists = append(lists, part.Replicas[j].Broker)
	}
	m.From = lists[:len(part.Replicas):len(part.Replicas)]
	for i := s.first[p]; i < s.first[p+1]; i++ {
		if s.at[i] == none {
			continue
		}
		b := &s.brokers[s.at[i]]
		lists = append(lists, b.id)
		was := s.original(p, s.at[i])
		switch {
		case was == nil:
			m.Bytes += s.size[p]
		case s.copied(i, was):
			m.LocalBytes += s.bytes[i]
		default:
			continue
		}
		if s.dir[i] != none {
			m.Dirs = append(m.Dirs, DirRef{Broker: b.id, Path: s.dirs[s.dir[i]].path})
		}
	}
	m.To = lists[len(part.Replicas):]
	return m, len(m.Dirs) > 0 || !slices.Equal(m.From, m.To)
}
