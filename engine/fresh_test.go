package engine_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/engine"
)

// atRest is a settled cluster with a topic, whose next pass has nothing to do.
func atRest(t *testing.T) (*world, *api.KafkaCluster) {
	t.Helper()
	w, kc := newWorld(), newCluster()
	w.settle(t, kc, 60)
	replicate(w, 0, 1, 2)
	w.settle(t, kc, 20)
	w.writes, w.reads = nil, nil
	return w, kc
}

// freeze keeps what caches show as it is now.
func (w *world) freeze() {
	w.stale = &stale{nodes: w.sim.See().Nodes, revisions: slices.Clone(w.revisions)}
	for i := range w.operations {
		w.stale.operations = append(w.stale.operations, *w.operations[i].DeepCopy())
	}
}

func written(w *world, prefix string) bool {
	return slices.ContainsFunc(w.writes, func(call string) bool { return strings.HasPrefix(call, prefix) })
}

func TestAtRestOnlyCachesAreRead(t *testing.T) {
	w, kc := atRest(t)
	r := w.pass(t, kc)
	if diff := cmp.Diff([]string{"cached revisions", "cached operations", "cached shared", "cached nodes"}, w.reads); diff != "" || len(w.writes) > 0 || r.Again != 0 {
		t.Errorf("reads (-want +got):\n%swrites %v, again %s", diff, w.writes, r.Again)
	}
	if !w.spare {
		t.Error("the budget allows nothing, although any node could be spared")
	}
}

// What caches do not know yet, no step rests on.
func TestStepsRestOnFreshFacts(t *testing.T) {
	w, kc := atRest(t)
	kc.Spec.Config["replica.fetch.max.bytes"] = "9000"
	w.freeze()           // caches say that all nodes are ready
	w.sim.Break(2, true) // Kafka has not noticed either
	w.pass(t, kc)
	if w.sim.Restarts[0]+w.sim.Restarts[1] > 0 {
		t.Errorf("a healthy node is restarted beside one that is down: %v", w.sim.Restarts)
	}
	w.clean(t)
	if w.sim.Restarts[2] != 1 {
		t.Errorf("restarts %v, want that of the node that is down", w.sim.Restarts)
	}
	if !slices.Contains(w.reads, "fresh nodes") || !slices.Contains(w.reads, "fresh revisions") || !slices.Contains(w.reads, "fresh shared") {
		t.Errorf("reads %v", w.reads)
	}
	w.stale = nil
	w.sim.Break(2, false)
	w.settle(t, kc, 80)
}

// A cache that shows a node as it was before its restart asks for nothing twice.
func TestCachesThatLagRestartNothingTwice(t *testing.T) {
	w, kc := atRest(t)
	kc.Spec.Config["replica.fetch.max.bytes"] = "9000"
	for range 40 {
		w.pass(t, kc)
		if len(w.sim.Restarts) > 0 && w.stale == nil {
			w.freeze()
		}
	}
	w.stale = nil
	w.settle(t, kc, 80)
	if diff := cmp.Diff(map[int32]int{0: 1, 1: 1, 2: 1}, w.sim.Restarts); diff != "" {
		t.Errorf("restarts (-want +got):\n%s", diff)
	}
}

func TestASpecThatWasTakenBackRestartsNothing(t *testing.T) {
	w, kc := atRest(t)
	w.current = kc.DeepCopy()
	kc.Spec.Config["replica.fetch.max.bytes"], kc.Generation = "9000", 2 // what the cache still shows
	w.current.Generation = 3
	r := w.pass(t, kc)
	if len(w.sim.Restarts) > 0 || len(w.writes) > 0 || len(w.revisions) != 1 || r.Status.ObservedGeneration != 3 {
		t.Errorf("restarts %v, writes %v, %d revisions, generation %d", w.sim.Restarts, w.writes, len(w.revisions), r.Status.ObservedGeneration)
	}
}

func TestAClusterThatIsAnotherOneNowIsLeftAlone(t *testing.T) {
	w, kc := atRest(t)
	w.current = kc.DeepCopy()
	w.current.UID = "another"
	kc.Spec.Config["replica.fetch.max.bytes"] = "9000"
	if _, err := w.engine().Pass(t.Context(), kc); err == nil || len(w.writes) > 0 {
		t.Errorf("error %v, writes %v", err, w.writes)
	}
}

func TestACachedDeletionIsReadAgain(t *testing.T) {
	w, kc := atRest(t)
	w.current = kc.DeepCopy()
	kc.DeletionTimestamp = &metav1.Time{Time: w.sim.Now} // of an earlier cluster of this name
	w.current.UID = "another"
	if _, err := w.engine().Pass(t.Context(), kc); err == nil || len(w.writes) > 0 {
		t.Errorf("error %v, writes %v", err, w.writes)
	}
}

// The budget says no before a node is told to stop, and yes when all are back.
func TestTheBudgetComesBeforeTheStep(t *testing.T) {
	w, kc := atRest(t)
	kc.Spec.Config["replica.fetch.max.bytes"] = "9000"
	w.settle(t, kc, 80)
	spare := true
	for _, call := range w.writes {
		switch {
		case strings.HasPrefix(call, "spare "):
			spare = call == "spare true"
		case strings.HasPrefix(call, "write node") && spare:
			t.Fatalf("a node is changed while the budget allows another one: %v", w.writes)
		}
	}
	if !written(w, "spare false") || !spare {
		t.Errorf("writes %v", w.writes)
	}
}

// What the budget allowed until it was closed is seen before anything is done.
func TestAnEvictionBeforeTheBudgetClosesIsSeen(t *testing.T) {
	w, kc := atRest(t)
	kc.Spec.Config["replica.fetch.max.bytes"] = "9000"
	w.evict = func() { w.sim.Break(2, true) } // a drain, which asks nobody but the budget
	w.pass(t, kc)
	if w.sim.Restarts[0]+w.sim.Restarts[1] > 0 {
		t.Errorf("a healthy node is restarted beside one that is being evicted: %v", w.sim.Restarts)
	}
	w.clean(t)
	w.evict = nil
	w.sim.Break(2, false)
	w.settle(t, kc, 80)
}

// An operator whose caches lag, as a leader that was held up, opens no budget.
func TestCachesOpenNoBudget(t *testing.T) {
	w, kc := atRest(t)
	w.freeze()           // caches say that all nodes are ready
	w.sim.Break(2, true) // Kafka has not noticed either
	w.spare = false      // by another leader
	w.pass(t, kc)
	if w.spare {
		t.Error("the budget is open while a node is down")
	}
	w.stale = nil
	w.sim.Break(2, false)
	w.settle(t, kc, 80)
}

// Where Services and budget cannot be written, no healthy node is touched; one that is down
// still gets what may be its fix.
func TestAFailingBudgetHoldsAllButFixes(t *testing.T) {
	w, kc := atRest(t)
	w.sim.Break(1, true)
	w.pass(t, kc)
	kc.Spec.Config["replica.fetch.max.bytes"], kc.Generation = "9000", 2
	w.fail = func(call string) (bool, bool) { return call == "apply what is shared", false }
	var r engine.Result
	for range 5 {
		r = w.pass(t, kc)
	}
	if diff := cmp.Diff(map[int32]int{1: 1}, w.sim.Restarts); diff != "" {
		t.Errorf("restarts (-want +got):\n%s", diff)
	}
	if c := condition(t, r.Status, api.ConditionStalled); c.Reason != "StepFailed" || c.Message != "write Services and PodDisruptionBudget: injected" || r.Again == 0 {
		t.Errorf("%+v, again %s", c, r.Again)
	}
	if meta.IsStatusConditionTrue(r.Status.Conditions, api.ConditionReady) {
		t.Error("it is Ready")
	}
	w.fail = nil
	w.sim.Break(1, false)
	w.settle(t, kc, 80)
}
