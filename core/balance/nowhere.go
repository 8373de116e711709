package balance

import "strings"

// nowhere says why replicas that must go find no broker, one Problem for each reason.
func (s *state) nowhere(slots []int32) []Problem {
	by := map[Reason][]int32{}
	for _, i := range slots {
		r := s.obstacle(i)
		by[r] = append(by[r], i)
	}
	var out []Problem
	for _, r := range []Reason{TooFewBrokers, MissingRacks, ReplicaCap, MissingSpace} {
		if len(by[r]) > 0 {
			out = append(out, s.explain(r, by[r]))
		}
	}
	return out
}

// obstacle is the first rule that leaves no broker for a slot.
func (s *state) obstacle(slot int32) Reason {
	var distinct, racks, cap bool
	p := s.part[slot]
	for b := range s.brokers {
		if !s.receives[b] {
			continue
		}
		b := int16(b)
		if !s.has(p, b) {
			distinct = true
		}
		if s.allowed(slot, b) {
			racks = true
			cap = cap || !s.capped(b)
		}
	}
	switch {
	case !distinct:
		return TooFewBrokers
	case !racks:
		return MissingRacks
	case !cap:
		return ReplicaCap
	}
	return MissingSpace
}

func (s *state) has(p int32, b int16) bool {
	for i := s.first[p]; i < s.first[p+1]; i++ {
		if s.at[i] == b {
			return true
		}
	}
	return false
}

func (s *state) explain(r Reason, slots []int32) Problem {
	names := make([]string, 0, len(slots))
	factor := 0
	for _, i := range slots {
		names = append(names, s.name(s.part[i]))
		n := s.replicas(s.part[i])
		if s.at[i] == none {
			n++
		}
		factor = max(factor, n)
	}
	what := listed(names, "partition", "partitions")
	switch r {
	case TooFewBrokers:
		return problem(r, "%s: every broker that may take a replica has one already, and %d replicas need %d brokers that are up, not cordoned and not leaving; add brokers, or lower the replication factor",
			what, factor, factor)
	case MissingRacks:
		return problem(r, "%s: a rack may hold at most %d of %d replicas while there are %d racks, and only in %s is there room, where no broker may take one; add a broker there or uncordon one",
			what, share(factor, s.rackCount), factor, s.rackCount, s.roomyRacks(slots[0]))
	case ReplicaCap:
		return problem(r, "%s: every broker in question has %d replicas, which is the cap; raise it, or add brokers", what, s.req.ReplicaCap)
	default:
		missing, where := s.missing(slots)
		p := problem(MissingSpace, "%s of replicas (%s) fit on no log dir with %s of each left free: %s are missing%s; add brokers or disks there, shorten retention, or lower the headroom",
			Bytes(s.total(slots)), what, percent(s.req.Headroom), Bytes(missing), where)
		p.Missing = missing
		return p
	}
}

// roomyRacks names the racks that could take one more replica of a partition.
func (s *state) roomyRacks(slot int32) string {
	p := s.part[slot]
	in := make([]int, len(s.racks))
	total := 1
	for i := s.first[p]; i < s.first[p+1]; i++ {
		if s.at[i] != none && i != slot {
			in[s.brokers[s.at[i]].rack]++
			total++
		}
	}
	var out []string
	for r, n := range in {
		if n < share(total, s.rackCount) {
			out = append(out, "rack "+s.racks[r])
		}
	}
	if len(out) == 0 {
		return "no rack"
	}
	return strings.Join(out, " and ")
}

func (s *state) total(slots []int32) int64 {
	var sum int64
	for _, i := range slots {
		sum += s.size[s.part[i]]
	}
	return sum
}

// missing is how many bytes more there would have to be, and in which racks: what is left
// over beyond what is free, or, where it is only scattered, what the largest lacks.
func (s *state) missing(slots []int32) (int64, string) {
	may := make([]bool, len(s.brokers))
	var largest int64
	for _, i := range slots {
		largest = max(largest, s.size[s.part[i]])
		for b := range s.brokers {
			may[b] = may[b] || s.receives[b] && s.allowed(i, int16(b))
		}
	}
	var free, most int64
	racks := map[int16]bool{}
	var where []string
	for b := range s.brokers {
		if !may[b] {
			continue
		}
		free += s.free(int16(b))
		for _, d := range s.brokers[b].dirs {
			if dir := &s.dirs[d]; dir.takes {
				most = max(most, dir.limit-dir.load-dir.other-dir.extra)
			}
		}
		if r := s.brokers[b].rack; !racks[r] && s.racks[r] != "" {
			racks[r] = true
			where = append(where, "rack "+s.racks[r])
		}
	}
	in := ""
	if len(where) > 0 {
		in = " in " + strings.Join(where, " and ")
	}
	return max(s.total(slots)-free, largest-most, 1), in
}
