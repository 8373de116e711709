package balance

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// mostPasses is how often the target is looked at afresh. A later pass finds what an earlier
// one made possible; it ends when there is nothing, so that planning again after the moves
// are done gives none.
const mostPasses = 32

// Plan decides what is to be done for a request. It reads the Cluster and keeps nothing of it.
func Plan(c *Cluster, req Request) Proposal {
	req = req.settled()
	if problems := append(req.limits(), req.names(c)...); len(problems) > 0 {
		return Proposal{Problems: problems}
	}
	if n := c.size(); n > mostSmall {
		return Proposal{Problems: []Problem{problem(InvalidRequest, "%d brokers and log dirs are more than a plan can number (%d)", n, mostSmall)}}
	}
	s := newState(c, req)
	if len(s.brokers) == 0 {
		return Proposal{}
	}
	s.receives = make([]bool, len(s.brokers))
	for b := range s.brokers {
		s.receives[b] = s.brokers[b].dest
		if req.Mode == Fill {
			s.receives[b] = s.brokers[b].dest && slices.Contains(req.Brokers, s.brokers[b].id)
		}
	}
	if problems := s.refused(); len(problems) > 0 {
		return Proposal{Problems: problems}
	}
	r := newReport(s)
	for range mostPasses {
		changed, problems := s.pass()
		if len(problems) > 0 {
			return Proposal{Problems: problems}
		}
		if changed == 0 {
			break
		}
	}
	return r.proposal()
}

// pass does every stage of a mode once and counts what it changed.
func (s *state) pass() (int, []Problem) {
	switch s.req.Mode {
	case Drain:
		return s.drain()
	case ReplicationFactor:
		return s.factor()
	case Disks:
		return s.disks()
	case Leaders:
		return s.leaders(s.optional, true), nil
	case Fill:
		w, n := s.bytesAndCounts()
		changed := w + n
		return changed + s.leaders(s.changed, false), nil
	case Full:
		return s.full()
	}
	return 0, nil
}

func (s *state) changed(p int32) bool { return s.flags[p]&touched != 0 && s.mayMove(p) }

// drain empties brokers; who leads is evened out among the partitions that move.
func (s *state) drain() (int, []Problem) {
	changed, problems := s.clear()
	if len(problems) > 0 {
		return 0, problems
	}
	return changed + s.leaders(s.changed, false), nil
}

func (s *state) factor() (int, []Problem) {
	left, bare := s.refactor()
	if len(bare) > 0 {
		return 0, []Problem{s.tooBare(bare)}
	}
	if len(left) > 0 {
		return 0, s.nowhere(left)
	}
	return s.leaders(s.changed, false), nil
}

// disks evens out log dirs; what was on a lost one is restored on other brokers.
func (s *state) disks() (int, []Problem) {
	changed, problems := s.clear()
	if len(problems) > 0 {
		return 0, problems
	}
	return changed + s.evenDirs(), nil
}

// clear empties what is to be emptied.
func (s *state) clear() (int, []Problem) {
	todo := len(s.leaving())
	if left := s.evacuate(); len(left) > 0 {
		return 0, s.nowhere(left)
	}
	moved, left := s.clearDirs()
	if len(left) > 0 {
		return 0, []Problem{s.tooFull(left)}
	}
	return todo + moved, nil
}

func (s *state) full() (int, []Problem) {
	changed, problems := s.clear()
	if len(problems) > 0 {
		return 0, problems
	}
	changed += s.repairRacks()
	w, n := s.bytesAndCounts()
	changed += w + n
	changed += s.spread(s.wantBytes(), s.wantCounts())
	changed += s.evenDirs()
	return changed + s.leaders(s.optional, false), nil
}

// bytesAndCounts evens out disks, then numbers of replicas as far as disks stay even.
func (s *state) bytesAndCounts() (int, int) {
	w := s.wantBytes()
	bytes := (&leveler{s: s, w: w, why: ForDisks}).even()
	n := s.wantCounts()
	counts := (&leveler{s: s, w: n, guard: []*want{w}, why: ForReplicas}).even()
	return bytes, counts
}

// names finds brokers, topics and log dirs that do not exist.
func (r Request) names(c *Cluster) []Problem {
	var out []Problem
	ids, dirs := map[int32]bool{}, map[DirRef]bool{}
	for i := range c.Brokers {
		ids[c.Brokers[i].ID] = true
		for _, d := range c.Brokers[i].LogDirs {
			dirs[DirRef{Broker: c.Brokers[i].ID, Path: d.Path}] = true
		}
	}
	topics := make(map[string]int, len(c.Topics))
	for t := range c.Topics {
		topics[c.Topics[t].Name] = t
		for i := range c.Topics[t].Partitions {
			for j := range c.Topics[t].Partitions[i].Replicas {
				ids[c.Topics[t].Partitions[i].Replicas[j].Broker] = true
			}
		}
	}
	for _, b := range r.Brokers {
		if !ids[b] {
			out = append(out, problem(UnknownBroker, "broker %d is not registered and holds no replica; name brokers of this cluster", b))
		}
	}
	for _, d := range r.Empty {
		if !dirs[d] {
			out = append(out, problem(UnknownLogDir, "broker %d has no log dir %s; name one that DescribeLogDirs shows", d.Broker, d.Path))
		}
	}
	for _, t := range append(slices.Clone(r.Topics), factored(r.Factors)...) {
		if _, ok := topics[t]; !ok {
			out = append(out, problem(UnknownTopic, "topic %s does not exist; name topics of this cluster", t))
		}
	}
	for _, t := range factored(r.Factors) {
		if i, ok := topics[t]; ok && r.Factors[t] < max(1, c.Topics[i].MinISR) {
			out = append(out, problem(BelowMinISR, "topic %s would have %d replicas with min.insync.replicas %d, and no acks=all write would succeed; lower min.insync.replicas first",
				t, r.Factors[t], max(1, c.Topics[i].MinISR)))
		}
	}
	return out
}

func factored(factors map[string]int) []string {
	out := make([]string, 0, len(factors))
	for t := range factors {
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}

// refused is what makes a request impossible whatever the plan.
func (s *state) refused() []Problem {
	var out []Problem
	if s.req.Mode == Fill {
		for _, id := range s.req.Brokers {
			if b, ok := s.index[id]; !ok || !s.brokers[b].dest {
				out = append(out, problem(NotADestination, "broker %d cannot be filled: it is down, cordoned, leaving, or shows no log dir that takes replicas; bring it up or uncordon it", id))
			}
		}
	}
	var stranded []string
	for i, at := range s.at {
		p := s.part[i]
		if at != none && s.flags[p]&(leaderless|inFlight|excluded) == leaderless && s.must(int32(i)) {
			stranded = append(stranded, s.name(p))
		}
	}
	if len(stranded) > 0 {
		out = append(out, problem(NoLeader, "%s no leader, so there is nothing to copy from; bring back a broker that has the data",
			listed(stranded, "partition has", "partitions have")))
	}
	return out
}

func (s *state) name(p int32) string {
	return fmt.Sprintf("%s-%d", s.c.Topics[s.topic[p]].Name, s.number(p))
}

// listed is a number of things with the first few names.
func listed(names []string, one, many string) string {
	names = slices.Compact(names)
	word := many
	if len(names) == 1 {
		word = one
	}
	shown := names[:min(3, len(names))]
	more := ""
	if len(names) > len(shown) {
		more = ", …"
	}
	return fmt.Sprintf("%d %s (%s%s)", len(names), word, strings.Join(shown, ", "), more)
}

// tooBare says which partitions cannot give up a replica.
func (s *state) tooBare(parts []int32) Problem {
	var names []string
	for _, p := range parts {
		names = append(names, s.name(p))
	}
	return problem(BelowMinISR, "%s too few replicas in sync to give one up; wait until they are, see `castellan status`",
		listed(names, "partition has", "partitions have"))
}

// tooFull says what a log dir that is to be emptied cannot pass on to its neighbours.
func (s *state) tooFull(slots []int32) Problem {
	var bytes, free int64
	seen := map[int16]bool{}
	var names []string
	for _, i := range slots {
		bytes += s.bytes[i]
		names = append(names, s.name(s.part[i]))
		if b := s.at[i]; !seen[b] {
			seen[b] = true
			free += s.free(b)
		}
	}
	missing := max(bytes-free, 1)
	p := problem(MissingSpace, "%s that must leave a log dir fit on no other one of the broker with %s of each left free: %s are missing; add a log dir, or drain the broker",
		listed(names, "replica", "replicas"), percent(s.req.Headroom), Bytes(missing))
	p.Missing = missing
	return p
}

func percent(f float64) string { return fmt.Sprintf("%g%%", math.Round(f*1000)/10) }

// Bytes writes a number of bytes for people, in binary units.
func Bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, u := float64(n), 0
	for f >= 1024 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[u])
}
