package engine_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
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
	if diff := cmp.Diff([]plan.Ask{{Placement: true, Throttles: []string{"t"}}}, w.asked); diff != "" {
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
	if diff := cmp.Diff([]plan.Ask{{Placement: true}}, w.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

// A bad spec ends nothing that is on its way.
func TestWhatMovesIsKnownUnderABadSpec(t *testing.T) {
	w, kc := moving(t)
	kc.Spec.Version, kc.Generation = "no version at all", 2
	w.pass(t, kc)
	if diff := cmp.Diff([]plan.Ask{{Placement: true, Throttles: []string{"t"}}}, w.asked); diff != "" {
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
	if diff := cmp.Diff([]plan.Ask{{Placement: true, Throttles: []string{"t"}}}, w.asked); diff != "" || len(w.writes) > 0 {
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
