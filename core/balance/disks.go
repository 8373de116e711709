package balance

import (
	"cmp"
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
		moved += s.evenBroker(int16(i), held[i]) //nolint:gosec // G115: an index of brokers
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
		n, stay := s.emptyDirs(int16(i), held) //nolint:gosec // G115: an index of brokers
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

// dirWant are what the log dirs of one broker should hold, and how far they may be off.
type dirWant struct {
	dirs   []int16
	target map[int16]float64
	band   map[int16]float64
}

// wantDirs is the same fraction of each log dir, as far as what is there beside replicas, and
// what cannot be moved, allows.
func (s *state) wantDirs(b int16) dirWant {
	w := dirWant{target: map[int16]float64{}, band: map[int16]float64{}}
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
	low, high := 0.0, 1.0
	sum := func(level float64) float64 {
		var all float64
		for _, d := range w.dirs {
			all += room(d, level)
		}
		return all
	}
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
		w.band[d] = s.req.Tolerance * load / max(capacity, 1) * s.dirs[d].capacity
	}
	return w
}

// evenBroker moves replicas from the log dir that is most above its target to the one most
// below it, what is copied anyway before what lies there.
func (s *state) evenBroker(b int16, held []int32) int {
	w := s.wantDirs(b)
	if len(w.dirs) < 2 {
		return 0
	}
	lists := map[int16][]int32{}
	for _, i := range held {
		if d := s.dir[i]; s.at[i] == b && d != none && s.optional(s.part[i]) && s.bytes[i] > 0 {
			lists[d] = append(lists[d], i)
		}
	}
	for _, d := range w.dirs {
		slices.SortFunc(lists[d], func(x, y int32) int {
			fresh := func(i int32) int {
				if s.original(s.part[i], b) == nil {
					return 0
				}
				return 1
			}
			return cmp.Or(cmp.Compare(fresh(x), fresh(y)), cmp.Compare(s.bytes[y], s.bytes[x]), cmp.Compare(x, y))
		})
	}
	moved := 0
	for s.evenPair(&w, lists) {
		moved++
	}
	return moved
}

// evenPair does one step between the fullest and the emptiest log dir, if one of them is out
// of its band and a replica fits between.
func (s *state) evenPair(w *dirWant, lists map[int16][]int32) bool {
	off := func(d int16) float64 { return float64(s.dirs[d].load) - w.target[d] }
	rel := func(d int16) float64 { return off(d) / s.dirs[d].capacity }
	order := slices.Clone(w.dirs)
	slices.SortStableFunc(order, func(x, y int16) int { return cmp.Compare(rel(y), rel(x)) })
	from, to := order[0], order[len(order)-1]
	if off(from) <= w.band[from] && -off(to) <= w.band[to] {
		return false
	}
	for _, i := range lists[from] {
		bytes := float64(s.bytes[i])
		if s.dir[i] != from || max(0, off(from)-bytes) < 0 || !s.dirs[to].fits(s.bytes[i]) {
			continue
		}
		before := max(rel(from), -rel(to))
		after := max(abs(off(from)-bytes)/s.dirs[from].capacity, abs(off(to)+bytes)/s.dirs[to].capacity)
		if after < before*(1-1e-6) {
			s.shift(i, to, ForLogDirs)
			lists[from] = slices.DeleteFunc(lists[from], func(x int32) bool { return x == i })
			at, _ := slices.BinarySearchFunc(lists[to], i, func(x, y int32) int {
				return cmp.Or(cmp.Compare(s.bytes[y], s.bytes[x]), cmp.Compare(x, y))
			})
			lists[to] = slices.Insert(lists[to], min(at, len(lists[to])), i)
			return true
		}
	}
	return false
}

func abs(x float64) float64 { return max(x, -x) }
