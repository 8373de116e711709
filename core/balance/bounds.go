package balance

// fluid is the question what brokers would hold if replicas could be cut at will, and only
// racks, distinct brokers and capacities stood in the way. Its answer is what a plan strives
// for and is measured by: a lone broker of a rack that must hold a replica of everything is
// then no violation.
type fluid struct {
	racks []int16 // of each broker
	// weight of each broker: what it shall hold is proportional to it.
	weight []float64
	// other is what a broker holds that cannot move; it counts towards its level.
	other []float64
	// most that a broker may get of what moves; negative is no limit.
	most   []float64
	groups []group
}

// group is everything with the same replication factor.
type group struct {
	factor int
	total  float64
	// broker and rack are the most that each may hold of it.
	broker, rack []float64
}

// levels answers: the highest fraction is as low as can be, then the second highest, and so
// on. It is false when the replicas find no place at all.
func (f *fluid) levels() ([]float64, bool) {
	out := make([]float64, len(f.weight))
	var total float64
	for _, g := range f.groups {
		total += g.total
	}
	if total <= 0 {
		return out, true
	}
	settled := make([]bool, len(f.weight))
	for rest := len(f.weight); rest > 0; {
		tight, level, ok := f.highest(out, settled, total)
		if !ok {
			return nil, false
		}
		for _, b := range tight {
			out[b], settled[b] = f.room(b, level), true
		}
		rest -= len(tight)
	}
	return out, true
}

// room is what broker b takes at a level.
func (f *fluid) room(b int, level float64) float64 {
	r := max(0, level*f.weight[b]-f.other[b])
	if f.most[b] >= 0 {
		r = min(r, f.most[b])
	}
	return r
}

// highest finds the lowest level at which everything finds a place, and the brokers that no
// plan can bring below it. Each try raises the level to what the cut of the last one needs.
func (f *fluid) highest(out []float64, settled []bool, total float64) ([]int, float64, bool) {
	var open []int
	need := total
	for b := range settled {
		if settled[b] {
			need -= out[b]
		} else {
			open = append(open, b)
		}
	}
	for range 4 * len(settled) {
		level, ok := f.reach(open, need)
		if !ok {
			return nil, 0, false
		}
		caps := make([]float64, len(settled))
		for b := range caps {
			caps[b] = f.room(b, level)
			if settled[b] {
				caps[b] = out[b]
			}
		}
		n, edges := f.network(caps, total)
		if n.flow() >= 1-1e-7 {
			return open, level, true
		}
		cut, beyond := f.cut(n, edges, caps, settled, total)
		if len(cut) == 0 {
			return nil, 0, false
		}
		open, need = cut, beyond
	}
	return nil, 0, false
}

// reach is the level at which those brokers take that much together.
func (f *fluid) reach(open []int, need float64) (float64, bool) {
	sum := func(level float64) float64 {
		var s float64
		for _, b := range open {
			s += f.room(b, level)
		}
		return s
	}
	low, high := 0.0, 1.0
	if need <= 0 {
		return 0, true
	}
	for sum(high) < need*(1-1e-9) {
		if high *= 2; high > 1e30 {
			return 0, false
		}
	}
	for range 100 {
		mid := (low + high) / 2
		if sum(mid) < need {
			low = mid
		} else {
			high = mid
		}
	}
	return high, true
}

// network is source → group → group in rack → broker → sink. It returns the brokers' edges.
func (f *fluid) network(caps []float64, total float64) (*network, []int) {
	racks := 0
	for _, r := range f.racks {
		racks = max(racks, int(r)+1)
	}
	firstGroup, firstRack := 2, 2+len(f.groups)
	firstBroker := firstRack + len(f.groups)*racks
	n := newNetwork(firstBroker + len(caps))
	for g, group := range f.groups {
		n.edge(source, firstGroup+g, group.total/total)
		for r := range racks {
			n.edge(firstGroup+g, firstRack+g*racks+r, group.rack[r]/total)
		}
		for b, r := range f.racks {
			n.edge(firstRack+g*racks+int(r), firstBroker+b, group.broker[b]/total)
		}
	}
	edges := make([]int, len(caps))
	for b := range caps {
		edges[b] = n.edge(firstBroker+b, sink, caps[b]/total)
	}
	return n, edges
}

// cut is the brokers that hold the flow back, and how much they must take for the rest of the
// cut to suffice.
func (f *fluid) cut(n *network, edges []int, caps []float64, settled []bool, total float64) ([]int, float64) {
	var tight []int
	need := total
	for v := range n.head {
		if n.level[v] < 0 {
			continue
		}
		for e := n.head[v]; e >= 0; e = n.next[e] {
			if e%2 == 0 && n.level[n.to[e]] < 0 {
				need -= (n.room[e] + n.room[e^1]) * total
			}
		}
	}
	for b, e := range edges {
		if settled[b] || n.level[n.to[e^1]] < 0 {
			continue
		}
		tight = append(tight, b)
		need += caps[b]
	}
	return tight, min(need, total)
}

// share is how many of that many replicas one of so many racks gets at most.
func share(replicas, racks int) int {
	racks = max(racks, 1)
	return (replicas + racks - 1) / racks
}
