package balance_test

import (
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"castellan.dev/castellan/core/balance"
)

const mostHeap = 1 << 30

// BenchmarkPlan plans for clusters with topics of very different sizes, a tenth of the brokers
// new and empty, and racks of different sizes. It holds time and memory against their bounds,
// and every objective against its limit, and reports how good the outcome is:
//
//	deviation    the largest distance of a disk from what racks allow at best, of the mean
//	moved/least  bytes moved over what any plan must move
//	cpu-s/op     processor time, all that the collector needs included
//	heap-MB      the most that the heap needed, the facts included
func BenchmarkPlan(b *testing.B) {
	full := func(*balance.Cluster) balance.Request { return balance.Request{Mode: balance.Full} }
	drain := func(c *balance.Cluster) balance.Request {
		return balance.Request{Mode: balance.Drain, Brokers: []int32{c.Brokers[4].ID, c.Brokers[5].ID}}
	}
	fill := func(c *balance.Cluster) balance.Request {
		req := balance.Request{Mode: balance.Fill}
		for _, b := range c.Brokers[len(c.Brokers)*9/10:] {
			req.Brokers = append(req.Brokers, b.ID)
		}
		return req
	}
	small := shape{seed: 1, brokers: 40, racks: 3, fresh: 4, replicas: 50_000, topics: 800, factors: []int{3}, dirs: 1, used: .5, skew: .8, uneven: .5, minISR: 2}
	medium := shape{seed: 4, brokers: 100, racks: 3, fresh: 10, replicas: 300_000, topics: 3_000, factors: []int{3}, dirs: 1, used: .5, skew: .8, uneven: .5, minISR: 2}
	huge := shape{seed: 5, brokers: 215, racks: 3, fresh: 21, replicas: 2_800_000, topics: 10_000, factors: []int{3}, dirs: 1, used: .5, skew: .8, uneven: .5, minISR: 2}
	flexible, disks := small, small
	flexible.seed, flexible.racks, flexible.factors = 2, 5, []int{2, 3, 3, 3}
	disks.seed, disks.dirs, disks.mixed = 3, 6, true
	for _, x := range []struct {
		name    string
		shape   shape
		request func(*balance.Cluster) balance.Request
		most    time.Duration
	}{
		{"full/40/50k", small, full, 500 * time.Millisecond},
		{"full/40/50k/five-racks", flexible, full, 500 * time.Millisecond},
		{"full/40/50k/six-disks", disks, full, 500 * time.Millisecond},
		{"drain/40/50k", small, drain, 500 * time.Millisecond},
		{"fill/40/50k", small, fill, 500 * time.Millisecond},
		{"full/100/300k", medium, full, 2 * time.Second},
		{"full/215/2800k", huge, full, time.Minute},
	} {
		b.Run(x.name, func(b *testing.B) {
			c := x.shape.cluster()
			var p balance.Proposal
			var heap uint64
			before := processor()
			for b.Loop() {
				heap = max(heap, peak(func() { p = balance.Plan(c, x.request(c)) }))
			}
			took := (processor() - before) / time.Duration(b.N)
			if took > x.most {
				b.Errorf("a plan took %v, want at most %v", took, x.most)
			}
			b.ReportMetric(took.Seconds(), "cpu-s/op")
			if heap > mostHeap {
				b.Errorf("%d bytes of heap were in use, want at most %d", heap, mostHeap)
			}
			quality(b, p, x.request(c).Mode)
			b.ReportMetric(float64(heap)/(1<<20), "heap-MB")
			runtime.KeepAlive(c)
		})
	}
}

func quality(b *testing.B, p balance.Proposal, mode balance.Mode) {
	b.Helper()
	if len(p.Problems) > 0 {
		b.Fatal(p.Problems)
	}
	for _, o := range p.Objectives {
		if o.Name == "disks" {
			b.ReportMetric(o.After, "deviation")
		}
		if !o.Met && (mode == balance.Full || o.Name == "evacuation") {
			b.Errorf("%s: %v %s left at %s, want at most %v", o.Name, o.After, o.Unit, o.Where, o.Limit)
		}
	}
	b.ReportMetric(float64(p.Bytes)/float64(max(1, p.LeastBytes)), "moved/least")
	b.ReportMetric(float64(len(p.Moves)), "moves")
}

// processor is the processor time of this process so far: what else runs on the machine is not
// the planner's.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak is the memory that the heap has after f, before any is given back: the most it needed.
func peak(f func()) uint64 {
	debug.FreeOSMemory()
	f()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys - m.HeapReleased
}
