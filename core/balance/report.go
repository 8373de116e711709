package balance

import (
	"fmt"
	"math"
)

// report compares what was with what will be.
type report struct {
	s                               *state
	ledger                          *ledger
	brokers, racks, dirs            []Use
	leadersNow                      []int
	bytes, counts, leaders, logDirs float64
	crowded, leaving, topics        int
	least                           int64
}

// newReport looks at the state before anything is planned.
func newReport(s *state) *report {
	r := &report{s: s, ledger: s.ledger(), leadersNow: make([]int, len(s.brokers))}
	for t := range s.c.Topics {
		for i := range s.c.Topics[t].Partitions {
			if b, ok := s.index[s.c.Topics[t].Partitions[i].Leader]; ok {
				r.leadersNow[b]++
			}
		}
	}
	r.brokers, r.racks, r.dirs = s.uses(func(b int) int { return r.leadersNow[b] })
	w := s.wantBytes()
	r.bytes, _ = s.furthest(w)
	r.counts, _ = s.furthest(s.wantCounts())
	r.leaders, _ = s.leadersOff()
	r.logDirs, _ = s.dirsOff()
	r.crowded, r.leaving = s.crowdedPartitions(), len(s.leaving())
	r.topics, _ = s.topicsOff()
	r.least = s.least(w)
	return r
}

// uses sums up brokers, racks and log dirs.
func (s *state) uses(leaders func(int) int) (brokers, racks, dirs []Use) {
	brokers, racks = make([]Use, len(s.brokers)), make([]Use, len(s.racks))
	capacity, used := make([]float64, len(s.racks)), make([]float64, len(s.racks))
	for i := range s.brokers {
		b := &s.brokers[i]
		u := Use{Replicas: int(b.count), Leaders: leaders(i), Bytes: b.load}
		if b.capacity > 0 {
			u.Fraction = float64(b.load+b.other) / b.capacity
		}
		brokers[i] = u
		rack := &racks[b.rack]
		rack.Replicas += u.Replicas
		rack.Leaders += u.Leaders
		rack.Bytes += u.Bytes
		capacity[b.rack] += b.capacity
		used[b.rack] += float64(b.load + b.other)
	}
	for i := range racks {
		if capacity[i] > 0 {
			racks[i].Fraction = used[i] / capacity[i]
		}
	}
	for i := range s.dirs {
		d := &s.dirs[i]
		dirs = append(dirs, Use{Replicas: int(d.count), Bytes: d.load, Fraction: float64(d.load+d.other) / d.capacity})
	}
	return brokers, racks, dirs
}

// least is what any plan must copy between brokers.
func (s *state) least(w *want) int64 {
	switch s.req.Mode {
	case Drain, Disks:
		return s.total(s.leaving())
	case Fill, Full:
		return max(s.leastEven(w), s.total(s.leaving()))
	case ReplicationFactor:
		var sum int64
		for p := range index(len(s.topic)) {
			if wish, ok := s.req.Factors[s.c.Topics[s.topic[p]].Name]; ok && s.mayMove(p) {
				sum += int64(max(0, wish-s.replicas(p))) * s.size[p]
			}
		}
		return sum
	case Leaders:
	}
	return 0
}

// leastEven is what is above the bands of brokers, or missing below them, whichever is more.
// Where every rack must hold the same replicas whatever the plan, racks cannot help each
// other, and each counts for itself.
func (s *state) leastEven(w *want) int64 {
	rigid := len(s.racks) > 1
	for p := range index(len(s.topic)) {
		if s.replicas(p)%s.rackCount != 0 || s.crowded(p) > 0 {
			rigid = false
			break
		}
	}
	over, under := make([]float64, len(s.racks)), make([]float64, len(s.racks))
	for i := range s.brokers {
		b := int16(i)
		rack := int16(0)
		if rigid {
			rack = s.brokers[i].rack
		}
		switch off := s.off(w, b); {
		case s.req.Mode == Full && s.brokers[i].leaving:
			over[rack] += s.now(w, b)
		case s.req.Mode == Full && off > w.band[i]:
			over[rack] += (off - w.band[i]) * w.unit[i]
		case s.receives[b] && off < -w.band[i]:
			under[rack] += (-off - w.band[i]) * w.unit[i]
		}
	}
	var sum float64
	for r := range over {
		sum += max(over[r], under[r])
	}
	return int64(sum)
}

// furthest is the largest distance of a broker that could be helped, in units, and which.
func (s *state) furthest(w *want) (float64, int16) {
	most, where := 0.0, none
	for i := range s.brokers {
		b := int16(i)
		if off := math.Abs(s.off(w, b)); s.brokers[i].dest && off > most {
			most, where = off, b
		}
	}
	return most, where
}

func (s *state) leadersOff() (float64, int16) {
	mean := s.meanLeaders()
	most, where := 0.0, none
	for i := range s.brokers {
		if b := &s.brokers[i]; b.couldLead() {
			if off := math.Abs(float64(b.lead) - mean); off > most {
				most, where = off, int16(i)
			}
		}
	}
	return most, where
}

// dirsOff is the largest distance of a log dir from what its broker's log dirs should hold,
// of their mean use, and which.
func (s *state) dirsOff() (float64, int16) {
	most, where := 0.0, none
	for i := range s.brokers {
		if len(s.brokers[i].dirs) < 2 || !s.brokers[i].alive {
			continue
		}
		w := s.wantDirs(int16(i))
		for _, d := range w.dirs {
			if w.unit[d] <= 0 {
				continue
			}
			if off := math.Abs(w.off(s, d)) / w.unit[d]; off > most {
				most, where = off, d
			}
		}
	}
	return most, where
}

func (s *state) crowdedPartitions() int {
	n := 0
	for p := range index(len(s.topic)) {
		if s.flags[p]&excluded == 0 && s.crowded(p) > 0 {
			n++
		}
	}
	return n
}

// topicsOff is how many replicas more than its limit a broker has of some topic.
func (s *state) topicsOff() (int, string) {
	most, where := 0, ""
	for t := range s.c.Topics {
		row := s.perTopic[t*len(s.brokers):][:len(s.brokers)]
		limits := s.limits.of(int32(t))
		for b, n := range row {
			if n < 2 || !s.brokers[b].dest {
				continue
			}
			if over := int(n - limits[b]); over > most {
				most, where = over, fmt.Sprintf("broker %d has %d replicas of topic %s", s.brokers[b].id, n, s.c.Topics[t].Name)
			}
		}
	}
	return most, where
}

// proposal is the outcome: the moves in an order that space allows, and the tables.
func (r *report) proposal() Proposal {
	s := r.s
	fit, rest := r.ledger.order()
	var must []int32
	for _, p := range rest {
		if s.why[p] == ForEvacuation || s.why[p] == ForFactor {
			must = append(must, s.first[p])
		}
	}
	if len(must) > 0 {
		return Proposal{Problems: []Problem{s.explain(MissingSpace, must)}}
	}
	for _, p := range rest {
		s.restore(p)
	}
	out := Proposal{Deferred: s.deferred, LeastBytes: r.least, LeftOut: len(rest), Moves: make([]Move, 0, len(fit))}
	for _, p := range fit {
		if m, ok := s.moveOf(p); ok {
			out.Bytes += m.Bytes
			out.LocalBytes += m.LocalBytes
			out.Moves = append(out.Moves, m)
		}
	}
	out.Elections = s.elections()
	r.tables(&out)
	return out
}

// elections are partitions that somebody other than the preferred replica leads.
func (s *state) elections() []Election {
	if s.req.Mode == Disks {
		return nil
	}
	var out []Election
	for p := range index(len(s.topic)) {
		first := s.first[p]
		if !s.mayMove(p) || first == s.first[p+1] || !s.leads(first) {
			continue
		}
		if s.flags[p]&touched == 0 && s.req.Mode != Full && s.req.Mode != Leaders {
			continue
		}
		was := s.original(p, s.at[first])
		part := &s.c.Topics[s.topic[p]].Partitions[s.number(p)]
		to := s.brokers[s.at[first]].id
		if part.Leader == to || was != nil && !was.State.Has(InSync) {
			continue
		}
		out = append(out, Election{PartitionRef: PartitionRef{Topic: s.c.Topics[s.topic[p]].Name, Partition: s.number(p)}, From: part.Leader, To: to})
	}
	return out
}

func (r *report) tables(out *Proposal) {
	s := r.s
	w, n := s.wantBytes(), s.wantCounts()
	brokers, racks, dirs := s.uses(func(b int) int { return int(s.brokers[b].lead) })
	for i := range s.brokers {
		b := &s.brokers[i]
		row := BrokerRow{Broker: b.id, Rack: s.racks[b.rack], Before: r.brokers[i], After: brokers[i]}
		if b.capacity > 0 {
			row.Bound = (w.target[i] + float64(b.other)) / b.capacity
		}
		out.Brokers = append(out.Brokers, row)
	}
	for i, name := range s.racks {
		out.Racks = append(out.Racks, RackRow{Rack: name, Before: r.racks[i], After: racks[i]})
	}
	for i := range s.dirs {
		d := &s.dirs[i]
		out.LogDirs = append(out.LogDirs, LogDirRow{DirRef: DirRef{Broker: s.brokers[d.broker].id, Path: d.path}, Before: r.dirs[i], After: dirs[i]})
	}
	r.objectives(out, w, n)
}

// objectives in the order of their weight.
func (r *report) objectives(out *Proposal, w, n *want) {
	s := r.s
	on := func(b int16) string {
		if b == none {
			return ""
		}
		return fmt.Sprintf("broker %d", s.brokers[b].id)
	}
	add := func(o Objective) {
		o.Met = o.Met || o.After <= o.Limit*(1+1e-9)
		if o.After == 0 {
			o.Where = ""
		}
		out.Objectives = append(out.Objectives, o)
	}
	add(Objective{Name: "evacuation", Before: float64(r.leaving), After: float64(len(s.leaving())), Unit: "replicas"})
	add(Objective{Name: "racks", Before: float64(r.crowded), After: float64(s.crowdedPartitions()), Unit: "partitions"})
	bytes, b := s.furthest(w)
	add(Objective{Name: "disks", Before: r.bytes, After: bytes, Limit: s.req.Tolerance, Unit: "of the mean", Where: on(b)})
	dirs, d := s.dirsOff()
	in := ""
	if d != none {
		in = fmt.Sprintf("%s of broker %d", s.dirs[d].path, s.brokers[s.dirs[d].broker].id)
	}
	add(Objective{Name: "log dirs", Before: r.logDirs, After: dirs, Limit: s.req.Tolerance, Unit: "of the mean", Where: in})
	leaders, b := s.leadersOff()
	add(Objective{Name: "leaders", Met: s.levelled, Before: r.leaders, After: leaders, Limit: max(1, s.req.CountTolerance*s.meanLeaders()), Unit: "leaders", Where: on(b)})
	counts, b := s.furthest(n)
	add(Objective{Name: "replicas", Before: r.counts, After: counts, Limit: n.band[0], Unit: "of the mean", Where: on(b)})
	topics, where := s.topicsOff()
	add(Objective{Name: "topics", Before: float64(r.topics), After: float64(topics), Unit: "replicas", Where: where})
}
