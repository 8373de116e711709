package balance

import "slices"

// optional says that a partition may be moved though nothing demands it.
func (s *state) optional(p int32) bool {
	return s.flags[p]&(inFlight|leaderless|excluded|stuck) == 0
}

// mayMove says that a partition can be moved when it must.
func (s *state) mayMove(p int32) bool {
	return s.flags[p]&(inFlight|leaderless|excluded) == 0
}

// replicas counts the replicas of a partition.
func (s *state) replicas(p int32) int {
	n := 0
	for i := s.first[p]; i < s.first[p+1]; i++ {
		if s.at[i] != none {
			n++
		}
	}
	return n
}

// allowed says that the replica in that slot (an empty slot is a new replica) may be on that
// broker: no duplicate, and racks no worse than they are.
func (s *state) allowed(slot int32, to int16) bool {
	p := s.part[slot]
	rack := s.brokers[to].rack
	from := s.at[slot]
	fromRack := none
	if from != none {
		fromRack = s.brokers[from].rack
	}
	there, left, total := 1, 1, 1
	for i := s.first[p]; i < s.first[p+1]; i++ {
		at := s.at[i]
		if i == slot || at == none {
			continue
		}
		if at == to {
			return false
		}
		total++
		switch s.brokers[at].rack {
		case rack:
			there++
		case fromRack:
			left++
		}
	}
	if from == to {
		return false
	}
	if rack == fromRack || there <= share(total, s.rackCount) {
		return true
	}
	return from != none && there <= left // the rack it leaves was at least as crowded
}

// crowded is how many replicas of a partition are in racks that hold more than their share.
func (s *state) crowded(p int32) int {
	limit := share(s.replicas(p), s.rackCount)
	over := 0
	for i := s.first[p]; i < s.first[p+1]; i++ {
		if s.at[i] == none {
			continue
		}
		rack, before := s.brokers[s.at[i]].rack, 0
		for j := s.first[p]; j < i; j++ {
			if s.at[j] != none && s.brokers[s.at[j]].rack == rack {
				before++
			}
		}
		if before >= limit {
			over++
		}
	}
	return over
}

// original is where a partition's replica on that broker was in the beginning.
func (s *state) original(p int32, at int16) *Replica {
	t := s.topic[p]
	part := &s.c.Topics[t].Partitions[s.number(p)]
	for j := range part.Replicas {
		if part.Replicas[j].Broker == s.brokers[at].id {
			return &part.Replicas[j]
		}
	}
	return nil
}

// number of the partition within its topic.
func (s *state) number(p int32) int32 { return p - s.topicFirst[s.topic[p]] }

// place finds the log dir of a broker for a replica of that many bytes: one that it lies in
// already, else the one that stays emptiest; none when it fits nowhere.
func (s *state) place(p int32, to int16, bytes int64) int16 {
	b := &s.brokers[to]
	best, least := none, 0.0
	for _, d := range b.dirs {
		dir := &s.dirs[d]
		if !dir.takes || !dir.fits(bytes) {
			continue
		}
		if use := float64(dir.load+dir.other+bytes) / dir.capacity; best == none || use < least {
			best, least = d, use
		}
	}
	if len(b.dirs) > 1 && best != none {
		if was := s.original(p, to); was != nil {
			if d := s.dirOf(b, was); d != none && s.dirs[d].takes && s.dirs[d].fits(bytes) {
				return d
			}
		}
	}
	return best
}

// fits says that so many more bytes leave the headroom free, whatever is in flight.
func (d *dir) fits(bytes int64) bool {
	return d.load+d.other+d.extra+bytes <= d.limit
}

// free is what a broker can still take.
func (s *state) free(b int16) int64 {
	var sum int64
	for _, d := range s.brokers[b].dirs {
		if dir := &s.dirs[d]; dir.takes {
			sum += max(0, dir.limit-dir.load-dir.other-dir.extra)
		}
	}
	return sum
}

// capped says that a broker has all the replicas it may have.
func (s *state) capped(b int16) bool {
	return s.req.ReplicaCap > 0 && int(s.brokers[b].count) >= s.req.ReplicaCap
}

// move puts the replica of a slot on a broker, into that log dir.
func (s *state) move(slot int32, to, d int16, why Purpose) {
	p := s.part[slot]
	bytes := s.arrives(p, to)
	s.count(slot, -1)
	s.at[slot], s.dir[slot], s.bytes[slot] = to, d, bytes
	s.count(slot, 1)
	s.touch(p, why)
}

// arrives is what a replica of a partition will hold on a broker: the copy, or what was there
// from the beginning.
func (s *state) arrives(p int32, to int16) int64 {
	if was := s.original(p, to); was != nil {
		return s.c.Topics[s.topic[p]].Partitions[s.number(p)].held(*was)
	}
	return s.size[p]
}

// touch notes that a partition changes, and what for.
func (s *state) touch(p int32, why Purpose) {
	if s.flags[p]&touched == 0 || why < s.why[p] {
		s.why[p] = why
	}
	s.flags[p] |= touched
}

// swapSlots changes the order of two replicas of one partition.
func (s *state) swapSlots(a, b int32) {
	if a == b {
		return
	}
	s.count(a, -1)
	s.count(b, -1)
	s.at[a], s.at[b] = s.at[b], s.at[a]
	s.dir[a], s.dir[b] = s.dir[b], s.dir[a]
	s.bytes[a], s.bytes[b] = s.bytes[b], s.bytes[a]
	s.count(a, 1)
	s.count(b, 1)
}

// held lists the slots of each broker, in the order of topics. It is not kept up to date:
// who reads it looks whether the slot is still there.
func (s *state) held() [][]int32 {
	if s.slots == nil {
		s.slots = make([][]int32, len(s.brokers))
	}
	for b := range s.slots {
		s.slots[b] = slices.Grow(s.slots[b][:0], int(s.brokers[b].count))
	}
	for i, at := range s.at {
		if at != none {
			s.slots[at] = append(s.slots[at], int32(i))
		}
	}
	return s.slots
}

// topicCount is how many replicas of the partition's topic a broker has.
func (s *state) topicCount(p int32, b int16) int32 {
	return s.perTopic[int(s.topic[p])*len(s.brokers)+int(b)]
}
