package plan_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/core/sim"
)

// The bounds that a pass over a large cluster must keep on one core.
const (
	mostTime  = 500 * time.Millisecond
	mostBytes = 500 << 20
)

// BenchmarkCompute is one pass over 1,000 nodes and 300,000 partitions of RF 3 at the
// dearest moment of a rollout: the first round is over, and for every broker that is left
// it is judged what stopping it would do to its partitions. It fails when a bound is missed;
// what a pass allocates is the most that it can hold.
func BenchmarkCompute(b *testing.B) {
	m, w := large(b)
	m.MaxUnavailable = intstr.FromString(cluster.WholeRack)
	setConfig(&m, "brokers", "num.io.threads", "16")
	play(b, w, m, restarts) // the first round begins; then on to just before the second
	play(b, w, m, func(plan.Plan) bool { return restarts(plan.Compute(m, w.See(), w.Now)) })
	have := w.See()
	b.Run("MidRoll", func(b *testing.B) { measure(b, m, have, w.Now) })
	play(b, w, m, plan.Plan.Done)
	have = w.See()
	b.Run("AtRest", func(b *testing.B) { measure(b, m, have, w.Now) })
}

// measure holds one Compute against the bounds.
func measure(b *testing.B, m cluster.Model, have plan.World, now time.Time) {
	b.Helper()
	b.ReportAllocs()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b.Loop() {
		plan.Compute(m, have, now)
	}
	runtime.ReadMemStats(&after)
	if took := b.Elapsed() / time.Duration(b.N); took > mostTime {
		b.Errorf("a pass took %v, want at most %v", took, mostTime)
	}
	if bytes := (after.TotalAlloc - before.TotalAlloc) / uint64(b.N); bytes > mostBytes {
		b.Errorf("a pass allocated %d bytes, want at most %d", bytes, mostBytes)
	}
}

// large is a settled cluster of 1,000 nodes with 3,000 topics of 100 partitions.
func large(b *testing.B) (cluster.Model, *sim.World) {
	b.Helper()
	m := model(controllers(1), brokers(999))
	w := sim.New(hosts(3, "a", "b", "c"))
	play(b, w, m, plan.Plan.Done)
	ids := idsOf(m, api.RoleBroker)
	for t := range 3000 {
		var replicas [][]int32
		for p := range 100 {
			first := 100*t + p
			replicas = append(replicas, []int32{ids[first%999], ids[(first+1)%999], ids[(first+2)%999]})
		}
		w.AddTopic(fmt.Sprintf("topic-%04d", t), 2, replicas...)
	}
	return m, w
}

// BenchmarkRoll plays a rollout of 300 brokers in 3 racks to its end.
func BenchmarkRoll(b *testing.B) {
	for _, bench := range []struct {
		name string
		most intstr.IntOrString
		want int
	}{
		{"Rack", intstr.FromString(cluster.WholeRack), 5},
		{"One", intstr.FromInt32(1), 300},
	} {
		b.Run(bench.name, func(b *testing.B) {
			rounds := 0
			for b.Loop() {
				m := model(controllers(3), brokers(300))
				w := sim.New(hosts(3, "a", "b", "c"))
				play(b, w, m, plan.Plan.Done)
				spread(w, "t", 2, 3000, idsOf(m, api.RoleBroker))
				m.MaxUnavailable = bench.most
				setConfig(&m, "brokers", "num.io.threads", "16")
				rounds = play(b, w, m, plan.Plan.Done)
			}
			b.ReportMetric(float64(rounds), "rounds")
			if rounds > bench.want {
				b.Errorf("rolled in %d rounds, want at most %d", rounds, bench.want)
			}
		})
	}
}

// play makes passes until a plan is as asked for, and counts those that restarted nodes.
func play(b *testing.B, w *sim.World, m cluster.Model, until func(plan.Plan) bool) int {
	b.Helper()
	rounds := 0
	for range 20000 {
		p := pass(w, m)
		if restarts(p) {
			rounds++
		}
		if len(w.Violations) > 0 {
			b.Fatalf("the plan broke what it must keep: %s", w.Violations[0])
		}
		if until(p) {
			return rounds
		}
	}
	b.Fatal("never came to rest")
	return 0
}

func restarts(p plan.Plan) bool {
	return slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Kind == plan.UpdateProcess })
}
