package balance

import (
	"math"
	"slices"
)

// score is how far a state is from what is wanted, the weightiest first: replicas that must
// go, crowded racks, then by how much brokers, log dirs, leaders, numbers and topics are out of
// their bands. Less is better.
type score [7]float64

// better says that a score is less than another by more than next to nothing, in the first
// place where they differ.
func (a score) better(b score) bool {
	for i := range a {
		if least := 1e-9 + b[i]*.01; math.Abs(a[i]-b[i]) > least {
			return a[i] < b[i]
		}
	}
	return false
}

func (s *state) score() score {
	var out score
	out[0] = float64(len(s.leaving()))
	for i := range s.dirs {
		if d := &s.dirs[i]; d.empty {
			out[0] += float64(d.count)
		}
	}
	out[1] = float64(s.crowdedPartitions())
	w, n := s.wantBytes(), s.wantCounts()
	mean := s.meanLeaders()
	band := max(1, s.req.CountTolerance*mean)
	for i := range s.brokers {
		b := &s.brokers[i]
		out[2] += max(0, math.Abs(s.off(w, int16(i)))-w.band[i])
		out[5] += max(0, math.Abs(s.off(n, int16(i)))-n.band[i])
		if b.couldLead() {
			out[4] += max(0, math.Abs(float64(b.lead)-mean)-band)
		}
		if len(b.dirs) > 1 && b.alive {
			dw := s.wantDirs(int16(i))
			for _, d := range dw.dirs {
				out[3] += max(0, dw.over(d, dw.off(s, d)))
			}
		}
	}
	out[6] = s.topicsOver()
	return out
}

// topicsOver is how many replicas are above the limits of their topics.
func (s *state) topicsOver() float64 {
	var sum int32
	for t := range s.c.Topics {
		limits := s.limits.of(int32(t))
		for b, n := range s.perTopic[t*len(s.brokers):][:len(s.brokers)] {
			sum += max(0, n-limits[b])
		}
	}
	return float64(sum)
}

// snapshot is all of a state that moves change.
type snapshot struct {
	at, dir  []int16
	bytes    []int64
	flags    []partitionFlags
	why      []Purpose
	brokers  []broker
	dirs     []dir
	perTopic []int32
	levelled bool
}

func (s *state) snapshot() snapshot {
	return snapshot{
		at: slices.Clone(s.at), dir: slices.Clone(s.dir), bytes: slices.Clone(s.bytes), flags: slices.Clone(s.flags), why: slices.Clone(s.why),
		brokers: slices.Clone(s.brokers), dirs: slices.Clone(s.dirs), perTopic: slices.Clone(s.perTopic), levelled: s.levelled,
	}
}

func (s *state) goBack(to snapshot) {
	s.at, s.dir, s.bytes, s.flags, s.why = to.at, to.dir, to.bytes, to.flags, to.why
	s.brokers, s.dirs, s.perTopic, s.levelled = to.brokers, to.dirs, to.perTopic, to.levelled
}
