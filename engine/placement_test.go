package engine_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
)

// moving is a cluster at rest whose newest revision says that a topic is on its way, and that
// node 3 has left.
func moving(t *testing.T) (*world, *api.KafkaCluster) {
	t.Helper()
	w, kc := atRest(t)
	spec := &w.revisions[0].Spec
	spec.Moving, spec.Throttled = []string{"t"}, []string{"t"}
	spec.NodeIDs[0].IDs, spec.NodeIDs[0].Removed = append(spec.NodeIDs[0].IDs, 3), []int32{3}
	w.asked = nil
	return w, kc
}

// To ask every broker where its replicas are is dear: not at rest, and not twice in a pass.
func TestWhereReplicasAreIsAskedOnce(t *testing.T) {
	w, kc := atRest(t)
	w.asked = nil
	w.pass(t, kc)
	if diff := cmp.Diff([]plan.Ask{{}}, w.asked); diff != "" {
		t.Errorf("asked at rest (-want +got):\n%s", diff)
	}
	w, kc = moving(t)
	w.pass(t, kc)
	if diff := cmp.Diff([]plan.Ask{{PerBroker: []int32{0, 1, 2}, Placement: true, Throttles: []string{"t"}}}, w.asked); diff != "" {
		t.Errorf("asked on the way (-want +got):\n%s", diff)
	}
	if fresh := slices.Index(w.reads, "fresh nodes"); fresh < 0 || strings.HasPrefix(w.reads[len(w.reads)-1], "cached") {
		t.Errorf("reads %v", w.reads)
	}
}

func TestAnOperationThatMovesAsksWhereReplicasAre(t *testing.T) {
	w, kc := atRest(t)
	w.ask("drain", api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{1}})
	w.asked = nil
	w.pass(t, kc)
	if diff := cmp.Diff([]plan.Ask{{PerBroker: []int32{0, 1, 2}, Placement: true}}, w.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// A bad spec ends nothing that is on its way.
func TestWhatMovesIsKnownUnderABadSpec(t *testing.T) {
	w, kc := moving(t)
	kc.Spec.Version, kc.Generation = "no version at all", 2
	w.pass(t, kc)
	if diff := cmp.Diff([]plan.Ask{{PerBroker: []int32{0, 1, 2}, Placement: true, Throttles: []string{"t"}}}, w.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// A preview sees what moves as the next pass would.
func TestAPreviewSeesWhatMoves(t *testing.T) {
	w, kc := moving(t)
	kc.Spec.Config["replica.fetch.max.bytes"] = "9000"
	if _, _, err := w.engine().Preview(t.Context(), kc); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]plan.Ask{{PerBroker: []int32{0, 1, 2}, Placement: true, Throttles: []string{"t"}}}, w.asked); diff != "" || len(w.writes) > 0 {
		t.Errorf("asked (-want +got):\n%s, writes %v", diff, w.writes)
	}
}

// What moves, and who has left, is remembered by the revision that comes next; a node id that
// was retired is not given again.
func TestARevisionTakesOverWhatMovesAndWhoHasLeft(t *testing.T) {
	w, kc := moving(t)
	kc.Spec.Paused, kc.Generation = true, 2 // so that nothing of it is done
	kc.Spec.Pools[0].Replicas = 4
	w.pass(t, kc)
	if len(w.revisions) != 2 {
		t.Fatalf("revisions %v", numbers(w))
	}
	got := w.revisions[1].Spec
	want := api.ClusterRevisionSpec{
		Moving: []string{"t"}, Throttled: []string{"t"},
		NodeIDs: []api.PoolNodeIDs{{Pool: "nodes", IDs: []int32{0, 1, 2, 3, 4}, Removed: []int32{3}}},
	}
	if diff := cmp.Diff(want, api.ClusterRevisionSpec{Moving: got.Moving, Throttled: got.Throttled, NodeIDs: got.NodeIDs}); diff != "" {
		t.Errorf("revision 2 (-want +got):\n%s", diff)
	}
}

// crowded is a cluster with a topic of which broker 0 holds everything.
func crowded(t *testing.T) (*world, *api.KafkaCluster) {
	t.Helper()
	w, kc := atRest(t)
	const gigabyte = 1 << 30
	where, topic := &balance.Cluster{}, balance.Topic{Name: "u", MinISR: 1}
	for id := range int32(3) {
		where.Brokers = append(where.Brokers, balance.Broker{ID: id, Alive: true, LogDirs: []balance.LogDir{{Path: "/data", Total: 10 * gigabyte, Usable: 10 * gigabyte}}})
	}
	where.Brokers[0].LogDirs[0].Usable = 4 * gigabyte
	for range 6 {
		topic.Partitions = append(topic.Partitions, balance.Partition{Replicas: []balance.Replica{{State: balance.InSync, Bytes: gigabyte}}})
	}
	where.Topics, w.placement = []balance.Topic{topic}, where
	w.sim.AddTopic("u", 1, []int32{0}, []int32{0}, []int32{0}, []int32{0}, []int32{0}, []int32{0})
	// Paused it shows what it would do, and does nothing.
	w.ask("even", api.OperationSpec{Type: api.OperationRebalance, Paused: true, Rebalance: &api.Rebalance{Mode: api.RebalanceFull}})
	return w, kc
}

// What one pass planned the next one need not plan again; a new engine plans the same once more.
func TestAPlanIsKeptFromPassToPass(t *testing.T) {
	w, kc := crowded(t)
	e := w.engine()
	pass := func(e *engine.Engine) *plan.Memo {
		t.Helper()
		r, err := e.Pass(t.Context(), kc)
		if err != nil {
			t.Fatal(err)
		}
		w.sim.Tick()
		return r.Plan.Memo
	}
	first := pass(e)
	if first == nil || len(first.Proposal.Moves) == 0 || !first.Planned.Before(w.sim.Now) {
		t.Fatalf("memo %+v", first)
	}
	second := pass(e)
	if second == nil || !second.Planned.Equal(first.Planned) || engine.Memos(e) != 1 {
		t.Errorf("planned at %v, and again %+v; of %d clusters", first.Planned, second, engine.Memos(e))
	}
	third := pass(w.engine())
	if third == nil || !third.Planned.After(first.Planned) || !slices.EqualFunc(third.Proposal.Moves, first.Proposal.Moves, func(a, b balance.Move) bool { return cmp.Equal(a, b) }) {
		t.Errorf("a new engine: %+v", third)
	}
	w.decide("even", func(spec *api.OperationSpec) { spec.Cancelled = true })
	for range 3 {
		pass(e)
	}
	if op := w.operation("even"); engine.Memos(e) != 0 || op.Status.Phase != api.OperationCancelled {
		t.Errorf("kept of %d clusters, operation %+v", engine.Memos(e), op.Status)
	}
}

// Of a cluster that is at rest, going, another one or not to be read nothing is kept.
func TestNothingIsKeptForNothing(t *testing.T) {
	for what, change := range map[string]func(*world, *api.KafkaCluster){
		"deleted":    func(w *world, kc *api.KafkaCluster) { kc.DeletionTimestamp = &metav1.Time{Time: w.sim.Now} },
		"another":    func(w *world, kc *api.KafkaCluster) { w.current = kc.DeepCopy(); w.current.UID = "another" },
		"at rest":    func(w *world, _ *api.KafkaCluster) { w.operations = nil },
		"unresolved": func(w *world, _ *api.KafkaCluster) { w.packages, w.revisions = nil, nil },
	} {
		w, kc := crowded(t)
		w.current = kc.DeepCopy()
		e := w.engine()
		if _, err := e.Pass(t.Context(), kc); err != nil || engine.Memos(e) != 1 {
			t.Fatalf("%s: kept of %d clusters, %v", what, engine.Memos(e), err)
		}
		change(w, w.current)
		if what != "another" {
			kc = w.current
		}
		_, _ = e.Pass(t.Context(), kc) // that of another cluster fails
		if engine.Memos(e) != 0 {
			t.Errorf("%s: kept of %d clusters", what, engine.Memos(e))
		}
	}
}
