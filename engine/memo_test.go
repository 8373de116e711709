package engine

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
)

func TestMemosAreOfOneVeryCluster(t *testing.T) {
	cluster := func(name, uid string) *api.KafkaCluster {
		return &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: name, UID: types.UID(uid)}}
	}
	orders, payments, later := cluster("orders", "1"), cluster("payments", "2"), cluster("orders", "3")
	var e Engine
	kept := func(when string, want map[*api.KafkaCluster]*plan.Memo) {
		t.Helper()
		for _, kc := range []*api.KafkaCluster{orders, payments, later} {
			if got := e.memos.recall(kc); got != want[kc] {
				t.Errorf("%s: of %s %s %p, want %p", when, kc.Name, kc.UID, got, want[kc])
			}
		}
	}
	a, b, c := &plan.Memo{}, &plan.Memo{}, &plan.Memo{}
	kept("from the start", nil)
	e.memos.keep(orders, a)
	e.memos.keep(payments, b)
	kept("each its own", map[*api.KafkaCluster]*plan.Memo{orders: a, payments: b})
	e.memos.keep(orders, c)
	kept("the newest", map[*api.KafkaCluster]*plan.Memo{orders: c, payments: b})
	e.memos.keep(later, a)
	kept("another one of the name", map[*api.KafkaCluster]*plan.Memo{later: a, payments: b})
	e.memos.keep(later, nil)
	kept("none", map[*api.KafkaCluster]*plan.Memo{payments: b})
	e.Forget(types.NamespacedName{Namespace: "kafka", Name: "payments"})
	if kept("gone", nil); len(e.memos.of) > 0 {
		t.Errorf("left behind: %v", e.memos.of)
	}
}

// A node that is on its way out for good gets no id again, and one whose revision was lost does.
func TestIDsOfNodesThatNoRevisionKnows(t *testing.T) {
	node := func(pool string, id int32) plan.Node {
		return plan.Node{Spec: api.KafkaNodeSpec{Pool: pool, NodeID: id}}
	}
	given := []api.PoolNodeIDs{{Pool: "a", IDs: []int32{0, 1}, Removed: []int32{1, 2}}}
	got := withNodes(given, []plan.Node{node("a", 0), node("a", 1), node("a", 2), node("a", 3), node("b", 100)})
	want := []api.PoolNodeIDs{{Pool: "a", IDs: []int32{0, 1, 3}, Removed: []int32{1, 2}}, {Pool: "b", IDs: []int32{100}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
	got[0].IDs[0], got[0].Removed[0] = 9, 9
	if given[0].IDs[0] != 0 || given[0].Removed[0] != 1 {
		t.Error("what was read has changed")
	}
}

func TestRetired(t *testing.T) {
	given := []api.PoolNodeIDs{{Pool: "a", IDs: []int32{0, 1}, Removed: []int32{0}}, {Pool: "b", IDs: []int32{100}}}
	before := []api.PoolNodeIDs{*given[0].DeepCopy(), *given[1].DeepCopy()}
	got := given
	for range 2 {
		got = Retired(Retired(Retired(got, "a", 1), "b", 101), "c", 200)
	}
	want := []api.PoolNodeIDs{{Pool: "a", IDs: []int32{0, 1}, Removed: []int32{0, 1}}, {Pool: "b", IDs: []int32{100, 101}, Removed: []int32{101}}, {Pool: "c", IDs: []int32{200}, Removed: []int32{200}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, given); diff != "" {
		t.Errorf("what was read has changed: %s", diff)
	}
}
