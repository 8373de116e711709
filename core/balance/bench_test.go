package balance_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"castellan.dev/castellan/core/balance"
)

// BenchmarkFull is a full balance of clusters with topics of very different sizes, a tenth of
// the brokers new and empty, and racks of different sizes. It holds time and memory against
// their bounds, and reports how good the outcome is:
//
//	deviation  the largest distance of a disk from what racks allow at best, of the mean
//	moved/least  bytes moved over what any plan must move to bring all disks within the tolerance
//	heap-MB  the most that was live, facts included
func BenchmarkFull(b *testing.B) {
	for _, x := range []struct {
		name  string
		shape shape
		most  time.Duration
		heap  uint64
	}{
		{"40/50k", shape{seed: 1, brokers: 40, racks: 3, fresh: 4, replicas: 50_000, topics: 800, factors: []int{3}, dirs: 1, used: .5, skew: .8, uneven: .5, minISR: 2}, 500 * time.Millisecond, 1 << 30},
		{"40/50k/flexible", shape{seed: 2, brokers: 40, racks: 5, fresh: 4, replicas: 50_000, topics: 800, factors: []int{2, 3, 3, 3}, dirs: 1, used: .5, skew: .8, uneven: .5, minISR: 2}, 500 * time.Millisecond, 1 << 30},
		{"40/50k/jbod", shape{seed: 3, brokers: 40, racks: 3, fresh: 4, replicas: 50_000, topics: 800, factors: []int{3}, dirs: 6, used: .5, skew: .8, uneven: .5, minISR: 2, mixed: true}, 500 * time.Millisecond, 1 << 30},
		{"100/300k", shape{seed: 4, brokers: 100, racks: 3, fresh: 10, replicas: 300_000, topics: 3_000, factors: []int{3}, dirs: 1, used: .5, skew: .8, uneven: .5, minISR: 2}, 2 * time.Second, 1 << 30},
		{"215/2.8M", shape{seed: 5, brokers: 215, racks: 3, fresh: 20, replicas: 2_800_000, topics: 10_000, factors: []int{3}, dirs: 1, used: .5, skew: .8, uneven: .5, minISR: 2}, time.Minute, 1 << 30},
	} {
		b.Run(x.name, func(b *testing.B) {
			c := x.shape.cluster()
			var p balance.Proposal
			var heap uint64
			for b.Loop() {
				heap = max(heap, peak(func() { p = balance.Plan(c, balance.Request{Mode: balance.Full}) }))
			}
			if took := b.Elapsed() / time.Duration(b.N); took > x.most {
				b.Errorf("a plan took %v, want at most %v", took, x.most)
			}
			if heap > x.heap {
				b.Errorf("%d bytes were live, want at most %d", heap, x.heap)
			}
			quality(b, p)
			b.ReportMetric(float64(heap)/(1<<20), "heap-MB")
			runtime.KeepAlive(c)
		})
	}
}

func quality(b *testing.B, p balance.Proposal) {
	b.Helper()
	if len(p.Problems) > 0 {
		b.Fatal(p.Problems)
	}
	by := map[balance.Purpose]string{}
	for why := balance.ForEvacuation; why <= balance.ForLeaders; why++ {
		n, bytes := 0, int64(0)
		for _, m := range p.Moves {
			if m.Why == why {
				n, bytes = n+1, bytes+m.Bytes
			}
		}
		by[why] = fmt.Sprintf("%d moves %.3f", n, float64(bytes)/float64(max(1, p.LeastBytes)))
	}
	b.Log(by)
	for _, o := range p.Objectives {
		if testing.Verbose() {
			b.Log(fmt.Sprintf("%+v", o))
		}
		if o.Name == "disks" {
			b.ReportMetric(o.After, "deviation")
		}
		if !o.Met {
			b.Errorf("%s: %v %s left at %s, want at most %v", o.Name, o.After, o.Unit, o.Where, o.Limit)
		}
	}
	b.ReportMetric(float64(p.Bytes)/float64(max(1, p.LeastBytes)), "moved/least")
	b.ReportMetric(float64(len(p.Moves)), "moves")
}

// peak is the most heap that was in use while f ran: what was there before, and what the
// collector let it grow to.
func peak(f func()) uint64 {
	runtime.GC()
	done, most := make(chan struct{}), make(chan uint64)
	go func() {
		var m runtime.MemStats
		var top uint64
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			runtime.ReadMemStats(&m)
			top = max(top, m.HeapInuse)
			select {
			case <-done:
				runtime.ReadMemStats(&m)
				most <- max(top, m.HeapInuse)
				return
			case <-tick.C:
			}
		}
	}()
	f()
	close(done)
	return <-most
}
