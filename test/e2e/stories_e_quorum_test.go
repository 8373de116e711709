package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/test/e2e/stand"
)

const (
	// votersEvery is how often the quorum is looked at.
	votersEvery = 200 * time.Millisecond
	// behind is how long a voter that is up may have been without the leader's whole log: it fetches twice a second.
	behind = 3 * time.Second
)

// voterWatch records who votes, throughout a story (DescribeQuorum).
type voterWatch struct {
	stop  context.CancelFunc
	ended sync.WaitGroup

	mu       sync.Mutex
	samples  int
	unknown  int
	why      string
	longest  time.Duration // between two answers
	heard    time.Time     // when a leader last knew what a majority has
	fewest   int           // caught-up voters more than a majority needs
	wrong    []string
	sets     []voterSet
	observed map[int32]bool
}

// voterSet is who votes from a moment on, and who led right before.
type voterSet struct {
	voters []int32
	leader int32
}

// watchVoters begins to look. A cluster's first controllers must stay reachable at the addresses they have now.
func watchVoters(s *stand.Stand) *voterWatch {
	ctx, stop := context.WithCancel(context.Background())
	w := &voterWatch{stop: stop, fewest: 99, observed: map[int32]bool{}, heard: time.Now()}
	clients := kafka.NewClients(kafka.Options{Timeout: 5 * time.Second})
	cluster := clients.Cluster("voters", s.BrokerTarget())
	w.ended.Go(func() {
		defer clients.Close()
		tick := time.NewTicker(votersEvery)
		defer tick.Stop()
		var before plan.Quorum
		answered := time.Now()
		for ctx.Err() == nil {
			seen, err := cluster.Observe(ctx, plan.Ask{})
			switch {
			case ctx.Err() != nil:
			case err != nil || !seen.Known:
				w.miss(fmt.Sprint(err, seen.Why))
			default:
				w.take(before, seen.Quorum, time.Since(answered))
				before, answered = seen.Quorum, time.Now()
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return w
}

func (w *voterWatch) miss(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unknown, w.why = w.unknown+1, why
}

// take judges one sample: a majority of the voters is caught up. A leader of a new epoch has heard of nobody yet, and knows
// no high watermark until it has heard of a majority.
func (w *voterWatch) take(before, now plan.Quorum, since time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.samples++
	w.longest = max(w.longest, since)
	var voters []int32
	caughtUp := 0
	for _, v := range now.Voters {
		voters = append(voters, v.ID)
		if v.ID == now.Leader || v.LastCaughtUp >= 0 && v.LastCaughtUp < behind {
			caughtUp++
		}
	}
	for _, o := range now.Observers {
		w.observed[o.ID] = true
	}
	if now.HighWater >= 0 || before.LeaderEpoch != now.LeaderEpoch {
		w.heard = time.Now()
	} else if silent := time.Since(w.heard); silent > behind {
		w.wrong = append(w.wrong, fmt.Sprintf("the leader has heard of no majority for %s: %+v", silent, now))
	}
	if before.LeaderEpoch == now.LeaderEpoch && now.HighWater >= 0 {
		spare := caughtUp - (len(now.Voters)/2 + 1)
		w.fewest = min(w.fewest, spare)
		if spare < 0 {
			w.wrong = append(w.wrong, fmt.Sprintf("%d of %d voters were caught up: %+v", caughtUp, len(voters), now))
		}
	}
	slices.Sort(voters)
	if n := len(w.sets); n == 0 || !slices.Equal(w.sets[n-1].voters, voters) {
		w.sets = append(w.sets, voterSet{voters, before.Leader})
	}
}

// since forgets who voted and observed until now, and goes on.
func (w *voterWatch) since() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.sets); n > 1 {
		w.sets = w.sets[n-1:]
	}
	w.observed = map[int32]bool{}
}

// changes are the sets of voters since [voterWatch.since], the one before them first, and who observed.
func (w *voterWatch) changes() ([]voterSet, []int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sets), slices.Sorted(maps.Keys(w.observed))
}

// end judges the whole story.
func (w *voterWatch) end(t *testing.T) {
	t.Helper()
	w.stop()
	w.ended.Wait()
	t.Logf("quorum: %d samples, %d not answered (%s), %s between two answers at most, %d more voters caught up than a majority at least; voters %v",
		w.samples, w.unknown, w.why, w.longest.Round(time.Millisecond), w.fewest, w.sets)
	if w.samples < 100 {
		t.Errorf("the quorum was seen %d times only", w.samples)
	}
	for _, wrong := range w.wrong[:min(len(w.wrong), 5)] {
		t.Error(wrong)
	}
	if len(w.wrong) > 5 {
		t.Errorf("and %d samples more without a majority that was caught up", len(w.wrong)-5)
	}
}

// oneByOne fails the test if two voters came or went at once.
func oneByOne(t *testing.T, sets []voterSet) {
	t.Helper()
	for i := 1; i < len(sets); i++ {
		changed := 0
		for _, id := range sets[i].voters {
			if !slices.Contains(sets[i-1].voters, id) {
				changed++
			}
		}
		for _, id := range sets[i-1].voters {
			if !slices.Contains(sets[i].voters, id) {
				changed++
			}
		}
		if changed != 1 {
			t.Errorf("voters %v became %v", sets[i-1].voters, sets[i].voters)
		}
	}
}
