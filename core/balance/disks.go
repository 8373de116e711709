package balance

import (
	"cmp"
	"math"
	"slices"
)

// evenDirs evens out the log dirs of each broker and returns how many replicas changed theirs.
func (s *state) evenDirs() int {
	moved := 0
	held := s.held()
	for i := range s.brokers {
		b := &s.brokers[i]
		if len(b.dirs) < 2 || !b.alive || b.leaving || s.req.Mode == Disks && len(s.req.Brokers) > 0 && !slices.Contains(s.req.Brokers, b.id) {
			continue
		}
		moved += s.evenBroker(int16(i), held[i])
	}
	return moved
}

// clearDirs empties the log dirs that are to be emptied and can still be read. It returns
// how many replicas it moved, and those that have to move and cannot.
func (s *state) clearDirs() (int, []int32) {
	if len(s.req.Empty) == 0 {
		return 0, nil
	}
	moved := 0
	var left []int32
	for i, held := range s.held() {
		if !s.brokers[i].alive {
			continue
		}
		n, stay := s.emptyDirs(int16(i), held)
		moved += n
		left = append(left, stay...)
	}
	return moved, left
}

// byBytes sorts slots, the largest first.
func (s *state) byBytes(slots []int32) {
	slices.SortFunc(slots, func(x, y int32) int { return cmp.Or(cmp.Compare(s.bytes[y], s.bytes[x]), cmp.Compare(x, y)) })
}

// emptyDirs moves everything out of log dirs that are to be emptied and still can be read.
func (s *state) emptyDirs(b int16, held []int32) (int, []int32) {
	var slots, left []int32
	for _, i := range held {
		if d := s.dir[i]; s.at[i] == b && d != none && s.dirs[d].empty && !s.dirs[d].offline && s.mayMove(s.part[i]) {
			slots = append(slots, i)
		}
	}
	s.byBytes(slots)
	for _, i := range slots {
		if d := s.place(s.part[i], b, s.bytes[i]); d != none {
			s.shift(i, d, ForEvacuation)
		} else {
			left = append(left, i)
		}
	}
	return len(slots) - len(left), left
}

// shift moves a replica to another log dir of its broker.
func (s *state) shift(slot int32, d int16, why Purpose) {
	s.count(slot, -1)
	s.dir[slot] = d
	s.count(slot, 1)
	s.touch(s.part[slot], why)
}

// dirWant are what the log dirs of one broker should hold, and the unit of a distance from it.
type dirWant struct {
	dirs         []int16
	target, unit map[int16]float64
	band         float64
}

// off is how many bytes more than it should a log dir holds.
func (w *dirWant) off(s *state, d int16) float64 { return float64(s.dirs[d].load) - w.target[d] }

// over is by how much a distance leaves the band.
func (w *dirWant) over(d int16, off float64) float64 {
	return math.Abs(off)/max(w.unit[d], 1) - w.band
}

// wantDirs is the same fraction of each log dir, as far as what is there beside replicas allows.
func (s *state) wantDirs(b int16) dirWant {
	w := dirWant{target: map[int16]float64{}, unit: map[int16]float64{}, band: s.req.Tolerance}
	var load, capacity float64
	for _, d := range s.brokers[b].dirs {
		if dir := &s.dirs[d]; dir.takes {
			w.dirs = append(w.dirs, d)
			load += float64(dir.load)
			capacity += dir.capacity
		}
	}
	room := func(d int16, level float64) float64 {
		return max(0, level*s.dirs[d].capacity-float64(s.dirs[d].other))
	}
	sum := func(level float64) float64 {
		var all float64
		for _, d := range w.dirs {
			all += room(d, level)
		}
		return all
	}
	low, high := 0.0, 1.0
	for sum(high) < load && high < 1e9 {
		high *= 2
	}
	for range 60 {
		if mid := (low + high) / 2; sum(mid) < load {
			low = mid
		} else {
			high = mid
		}
	}
	for _, d := range w.dirs {
		w.target[d] = room(d, high)
		w.unit[d] = load / max(capacity, 1) * s.dirs[d].capacity
	}
	return w
}

// dirLeveler evens out the log dirs of one broker.
type dirLeveler struct {
	s     *state
	w     dirWant
	lists map[int16][]int32 // replicas of each log dir, see order
	b     int16
}

// evenBroker moves replicas between log dirs that are outside their band and others, what is
// copied anyway before what lies there.
func (s *state) evenBroker(b int16, held []int32) int {
	l := &dirLeveler{s: s, w: s.wantDirs(b), lists: map[int16][]int32{}, b: b}
	if len(l.w.dirs) < 2 || !l.outside() {
		return 0
	}
	for _, i := range held {
		if d := s.dir[i]; s.at[i] == b && d != none && s.optional(s.part[i]) && s.bytes[i] > 0 {
			l.lists[d] = append(l.lists[d], i)
		}
	}
	for _, d := range l.w.dirs {
		slices.SortFunc(l.lists[d], l.order)
	}
	moved := 0
	for moved < mostRounds && l.step() {
		moved++
	}
	return moved
}

func (l *dirLeveler) outside() bool {
	return slices.ContainsFunc(l.w.dirs, func(d int16) bool { return l.w.over(d, l.w.off(l.s, d)) > 0 })
}

// order puts what is new on the broker first, then the largest.
func (l *dirLeveler) order(x, y int32) int {
	return cmp.Or(cmp.Compare(l.lies(x), l.lies(y)), cmp.Compare(l.s.bytes[y], l.s.bytes[x]), cmp.Compare(x, y))
}

// lies is 1 for a replica that the broker has already, so that another log dir means a copy.
func (l *dirLeveler) lies(i int32) int {
	if l.s.original(l.s.part[i], l.b) == nil {
		return 0
	}
	return 1
}

// step does one move between two log dirs of which at least one is outside its band: the
// fullest with the emptiest first.
func (l *dirLeveler) step() bool {
	use := func(d int16) float64 { return l.w.off(l.s, d) / l.s.dirs[d].capacity }
	order := slices.Clone(l.w.dirs)
	slices.SortStableFunc(order, func(x, y int16) int { return cmp.Compare(use(y), use(x)) })
	for i, from := range order {
		for j := len(order) - 1; j > i; j-- {
			to := order[j]
			if max(l.w.over(from, l.w.off(l.s, from)), l.w.over(to, l.w.off(l.s, to))) <= 0 {
				continue
			}
			if l.single(from, to) || l.swap(from, to) {
				return true
			}
		}
	}
	return false
}

// gain says how much better the worse of two log dirs is off when so much moves.
func (l *dirLeveler) gain(from, to int16, bytes float64) float64 {
	a, b := l.w.off(l.s, from), l.w.off(l.s, to)
	before := max(l.w.over(from, a), l.w.over(to, b), 0)
	return before - max(l.w.over(from, a-bytes), l.w.over(to, b+bytes), 0) - 1e-6
}

func (l *dirLeveler) single(from, to int16) bool {
	for _, i := range l.lists[from] {
		if l.gain(from, to, float64(l.s.bytes[i])) > 0 && l.s.dirs[to].fits(l.s.bytes[i]) {
			l.shift(i, to)
			return true
		}
	}
	return false
}

// swap exchanges two replicas whose difference helps; each must fit beside the other.
func (l *dirLeveler) swap(from, to int16) bool {
	s := l.s
	for _, x := range l.lists[from][:min(len(l.lists[from]), mostSwapped)] {
		for _, y := range l.lists[to][:min(len(l.lists[to]), mostSwapped)] {
			net := float64(s.bytes[x] - s.bytes[y])
			if net >= leastNet*float64(s.bytes[x]+s.bytes[y]) && l.gain(from, to, net) > 0 && s.dirs[to].fits(s.bytes[x]) && s.dirs[from].fits(s.bytes[y]) {
				l.shift(x, to)
				l.shift(y, from)
				return true
			}
		}
	}
	return false
}

// shift moves a replica and keeps the lists.
func (l *dirLeveler) shift(i int32, to int16) {
	from := l.s.dir[i]
	l.lists[from] = slices.DeleteFunc(l.lists[from], func(x int32) bool { return x == i })
	l.s.shift(i, to, ForLogDirs)
	at, _ := slices.BinarySearchFunc(l.lists[to], i, l.order)
	l.lists[to] = slices.Insert(l.lists[to], at, i)
}
