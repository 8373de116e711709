package balance

// want is what one metric (bytes or replicas) should be on each broker, and how far each may
// stay from it.
type want struct {
	target []float64
	// unit is a broker's mean: a deviation is counted in units.
	unit []float64
	// band is the tolerance in units, goal what is gone for once a broker is outside it.
	band, goal []float64
	bytes      bool
	// level is the highest fraction (or number of replicas) that cannot be avoided.
	level float64
}

// now is what the metric says of a broker.
func (s *state) now(w *want, b int16) float64 {
	if w.bytes {
		return float64(s.brokers[b].load)
	}
	return float64(s.brokers[b].count)
}

// off is a broker's distance from its target, in units.
func (s *state) off(w *want, b int16) float64 {
	return (s.now(w, b) - w.target[b]) / w.unit[b]
}

// weigh is what a slot counts.
func (s *state) weigh(w *want, slot int32) float64 {
	if w.bytes {
		return float64(s.bytes[slot])
	}
	return 1
}

// wantBytes asks the fluid what disks should hold: the same fraction of each, as far as racks
// allow.
func (s *state) wantBytes() *want {
	w := &want{bytes: true}
	weight, other := make([]float64, len(s.brokers)), make([]float64, len(s.brokers))
	var used, capacity float64
	for b := range s.brokers {
		weight[b] = max(s.brokers[b].capacity, 1)
		other[b] = float64(s.brokers[b].other)
		if s.brokers[b].dest {
			capacity += weight[b]
		}
		used += float64(s.brokers[b].load)
	}
	s.solve(w, weight, other)
	mean := max(used/max(capacity, 1), 1e-12)
	for b := range s.brokers {
		w.unit = append(w.unit, mean*weight[b])
		w.band = append(w.band, s.req.Tolerance)
		w.goal = append(w.goal, s.req.Tolerance*0.8)
	}
	return w
}

// wantCounts asks the same for numbers of replicas: in proportion to disks as well, so that
// the two do not contradict each other.
func (s *state) wantCounts() *want {
	w := &want{}
	weight := s.sizes()
	var count, dest, all float64
	for b := range s.brokers {
		if s.brokers[b].dest {
			dest++
			all += weight[b]
		}
		count += float64(s.brokers[b].count)
	}
	s.solve(w, weight, make([]float64, len(s.brokers)))
	mean := max(count/max(dest, 1), 1)
	for b := range s.brokers {
		unit := max(mean*weight[b]*dest/max(all, 1e-9), 1)
		band := max(s.req.CountTolerance, 1/unit)
		w.unit = append(w.unit, unit)
		w.band = append(w.band, band)
		w.goal = append(w.goal, max(band*0.8, 1/unit))
	}
	return w
}

// sizes are the brokers' capacities, the mean being 1.
func (s *state) sizes() []float64 {
	var sum float64
	for b := range s.brokers {
		sum += s.brokers[b].capacity / float64(len(s.brokers))
	}
	out := make([]float64, len(s.brokers))
	for b := range s.brokers {
		out[b] = max(s.brokers[b].capacity/max(sum, 1), 1e-6)
	}
	return out
}

// solve fills in the targets. Where the fluid has no answer (more replicas than places), all
// is well as it is.
func (s *state) solve(w *want, weight, other []float64) {
	f := s.fluid(w, weight, other, s.req.Mode == Full)
	levels, ok := f.levels()
	if !ok { // a rule that the present state breaks and no move can mend
		f = s.fluid(w, weight, other, false)
		levels, ok = f.levels()
	}
	w.target = make([]float64, len(s.brokers))
	for b := range s.brokers {
		now := s.now(w, int16(b))
		w.target[b] = now
		if ok {
			w.target[b] = levels[b] + f.other[b] - other[b]
		}
		w.level = max(w.level, (w.target[b]+other[b])/weight[b])
	}
}

// fluid is the present problem: what moves, by replication factor, and where it may go. Strict
// is by the rules alone; else what is there now is allowed too.
func (s *state) fluid(w *want, weight, other []float64, strict bool) *fluid {
	f := &fluid{weight: weight, other: append([]float64(nil), other...), most: make([]float64, len(s.brokers))}
	for b := range s.brokers {
		f.racks = append(f.racks, s.brokers[b].rack)
	}
	index := map[int]int{}
	movable := make([]float64, len(s.brokers))
	for p := range s.topic {
		s.addToFluid(w, f, index, movable, int32(p))
	}
	for b := range s.brokers {
		f.most[b] = -1
		switch {
		case s.brokers[b].leaving && (s.req.Mode == Drain || s.req.Mode == Full):
			f.most[b] = 0
		case !s.receives[b]:
			f.most[b] = movable[b]
		}
	}
	for g := range f.groups {
		s.widen(&f.groups[g], strict)
	}
	return f
}

func (s *state) addToFluid(w *want, f *fluid, index map[int]int, movable []float64, p int32) {
	moves := s.optional(p)
	factor := s.replicas(p)
	for i := s.first[p]; i < s.first[p+1]; i++ {
		at := s.at[i]
		if at == none {
			continue
		}
		weight := s.weigh(w, i)
		if !moves {
			f.other[at] += weight
			continue
		}
		g, ok := index[factor]
		if !ok {
			g = len(f.groups)
			index[factor] = g
			f.groups = append(f.groups, group{factor: factor, broker: make([]float64, len(s.brokers)), rack: make([]float64, len(s.racks))})
		}
		group := &f.groups[g]
		group.total += weight
		group.broker[at] += weight
		group.rack[s.brokers[at].rack] += weight
		movable[at] += weight
	}
}

// widen turns what is where into the most that may be.
func (s *state) widen(g *group, strict bool) {
	one := g.total / float64(g.factor)
	full := float64(share(g.factor, s.rackCount)) * one
	for r := range g.rack {
		if g.rack[r] = max(g.rack[r], full); strict {
			g.rack[r] = full
		}
	}
	for b := range g.broker {
		g.broker[b] = max(g.broker[b], one)
	}
}
