package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
)

func condition(t *testing.T, st api.KafkaClusterStatus, kind string) metav1.Condition {
	t.Helper()
	c := meta.FindStatusCondition(st.Conditions, kind)
	if c == nil {
		t.Fatalf("no condition %s in %+v", kind, st.Conditions)
	}
	return *c
}

func kinds(steps []plan.Step) []string {
	var out []string
	for _, s := range steps {
		out = append(out, fmt.Sprintf("%s %d: %s", s.Kind, s.Node, s.Reason))
	}
	return out
}

func numbers(w *world) []int64 {
	var out []int64
	for _, r := range w.revisions {
		out = append(out, r.Spec.Number)
	}
	return out
}

func TestBirth(t *testing.T) {
	w, kc := newWorld(), newCluster()
	w.settle(t, kc, 60)
	r := w.pass(t, kc)
	st := r.Status
	if st.Nodes != (api.NodeCounts{Desired: 3, Ready: 3, Updated: 3}) || st.ClusterID == "" || st.Revision != "orders-1" || r.Again != 0 {
		t.Errorf("status %+v, again %s", st, r.Again)
	}
	rev := w.revisions[0]
	if rev.Spec.ClusterID != st.ClusterID || !slices.Contains(rev.Spec.OwnedKeys, "min.insync.replicas") || rev.Spec.ClusterName != "orders" {
		t.Errorf("revision %+v", rev.Spec)
	}
	if diff := cmp.Diff([]api.PoolNodeIDs{{Pool: "nodes", IDs: []int32{0, 1, 2}}}, rev.Spec.NodeIDs); diff != "" {
		t.Errorf("ids: %s", diff)
	}
}

func TestANewRevisionOnlyForAnotherSpec(t *testing.T) {
	w, kc := newWorld(), newCluster()
	w.settle(t, kc, 60)
	kc.Labels, kc.Generation = map[string]string{"a": "b"}, 2 // a generation alone is no other spec
	w.settle(t, kc, 20)
	if diff := cmp.Diff([]int64{1}, numbers(w)); diff != "" {
		t.Fatalf("revisions: %s", diff)
	}
	kc.Spec.Config["log.retention.ms"] = "1000"
	w.settle(t, kc, 60)
	delete(kc.Spec.Config, "log.retention.ms")
	w.settle(t, kc, 60)
	if diff := cmp.Diff([]int64{1, 2, 3}, numbers(w)); diff != "" {
		t.Fatalf("revisions: %s", diff)
	}
	if last := w.revisions[2].Spec; !slices.Contains(last.OwnedKeys, "log.retention.ms") || last.ClusterID != w.revisions[0].Spec.ClusterID {
		t.Errorf("the last revision forgot what was owned or which cluster it is: %+v", last)
	}
	if len(w.sim.Restarts) > 0 {
		t.Errorf("live keys restarted nodes: %v", w.sim.Restarts)
	}
	if _, ok := w.sim.Config()["log.retention.ms"]; ok {
		t.Error("a key that the spec no longer has stayed in Kafka")
	}
}

// A bad spec changes nothing, and what the good one before it asked for goes on.
func TestTheLastGoodSpecStaysInForce(t *testing.T) {
	w, kc := newWorld(), newCluster()
	w.settle(t, kc, 60)
	replicate(w, 0, 1, 2)
	kc.Spec.Config["replica.fetch.max.bytes"], kc.Generation = "9000", 2
	w.pass(t, kc)
	kc.Spec.Config["no.such.key"], kc.Generation = "x", 3
	kc.Spec.Pools[0].Replicas = 9
	var r engine.Result
	for range 60 {
		r = w.pass(t, kc)
	}
	w.clean(t)
	if diff := cmp.Diff(map[int32]int{0: 1, 1: 1, 2: 1}, w.sim.Restarts); diff != "" {
		t.Errorf("restarts for the good spec (-want +got):\n%s", diff)
	}
	accepted, ready := condition(t, r.Status, api.ConditionAccepted), condition(t, r.Status, api.ConditionReady)
	if accepted.Status != metav1.ConditionFalse || !strings.Contains(accepted.Message, "the last good spec stays in force") || !strings.Contains(accepted.Message, "spec.config[no.such.key]") || ready.Status != metav1.ConditionFalse {
		t.Errorf("%+v\n%+v", accepted, ready)
	}
	if r.Status.Nodes.Desired != 3 || r.Status.Revision != "orders-2" || len(w.revisions) != 2 {
		t.Errorf("status %+v, revisions %v", r.Status, numbers(w))
	}
}

// A pool that comes back while its nodes are still there is the pool that it was.
func TestAPoolThatComesBackIsWhatItWas(t *testing.T) {
	brokers := api.Pool{Name: "brokers", Roles: []api.Role{api.RoleBroker}, Replicas: 1}
	w, kc := newWorld(), newCluster(api.Pool{Name: "nodes", Roles: []api.Role{api.RoleBroker, api.RoleController}, Replicas: 3}, brokers)
	w.settle(t, kc, 60)
	both := kc.Spec.Pools
	kc.Spec.Paused, kc.Generation, kc.Spec.Pools = true, 2, both[:1]
	if c := condition(t, w.pass(t, kc).Status, api.ConditionAccepted); c.Status != metav1.ConditionTrue {
		t.Fatalf("a pool leaves: %+v", c)
	}
	kc.Generation, kc.Spec.Pools = 3, slices.Clone(both)
	kc.Spec.Pools[1].Roles = []api.Role{api.RoleController}
	if c := condition(t, w.pass(t, kc).Status, api.ConditionAccepted); c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "the roles of pool brokers cannot change from") {
		t.Errorf("it comes back as another one: %+v", c)
	}
	kc.Generation, kc.Spec.Pools = 4, both
	if c := condition(t, w.pass(t, kc).Status, api.ConditionAccepted); c.Status != metav1.ConditionTrue {
		t.Errorf("it comes back: %+v", c)
	}
	if got := w.revisions[len(w.revisions)-1].Spec.NodeIDs[1].IDs; !slices.Equal(got, []int32{100}) {
		t.Errorf("its nodes are %v", got)
	}
}

func TestABadSpecFromTheStart(t *testing.T) {
	w, kc := newWorld(), newCluster()
	kc.Spec.Version = "4.3.0"
	r := w.pass(t, kc)
	if c := condition(t, r.Status, api.ConditionAccepted); c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "Packages exist for 4.3.1") {
		t.Errorf("%+v", c)
	}
	if len(w.writes) > 0 {
		t.Errorf("written: %v", w.writes)
	}
}

func TestAFailedStepIsToldAndLaterOnesAreNotDone(t *testing.T) {
	w, kc := newWorld(), newCluster()
	w.fail = func(call string) (bool, bool) { return call == "write node 1", false }
	r := w.pass(t, kc)
	if diff := cmp.Diff([]string{"create revision", "write node 0"}, w.writes); diff != "" {
		t.Errorf("done: %s", diff)
	}
	if diff := cmp.Diff([]string{"CreateNode 0: pool nodes wants node 0"}, kinds(r.Done)); diff != "" {
		t.Errorf("told as done: %s", diff)
	}
	stalled := condition(t, r.Status, api.ConditionStalled)
	if stalled.Reason != "StepFailed" || stalled.Message != "CreateNode (pool nodes wants node 1): injected" || r.Again == 0 {
		t.Errorf("%+v, again %s", stalled, r.Again)
	}
	w.fail = nil
	w.settle(t, kc, 60)
}

// What cannot be read is an error of the pass: nothing is decided on half the facts.
func TestNothingIsDoneOnHalfTheFacts(t *testing.T) {
	for _, call := range []string{"list packages", "list hosts", "list revisions", "list operations", "list nodes", "create revision", "ensure certificates"} {
		w := newWorld()
		w.fail = func(c string) (bool, bool) { return c == call, false }
		if _, err := w.engine().Pass(t.Context(), newCluster()); err == nil {
			t.Errorf("%s fails, and the pass does not", call)
		}
		for _, done := range w.writes {
			if strings.HasPrefix(done, "write node") {
				t.Errorf("%s fails, and nodes are written: %v", call, w.writes)
			}
		}
	}
}

func TestDeletionStopsInOrderAndKeepsData(t *testing.T) {
	for policy, withData := range map[api.DeletionPolicy]bool{"": false, api.DeletionRetain: false, api.DeletionDelete: true} {
		t.Run(string(policy), func(t *testing.T) { deletion(t, policy, withData) })
	}
}

func deletion(t *testing.T, policy api.DeletionPolicy, withData bool) {
	t.Helper()
	w := newWorld()
	kc := newCluster(
		api.Pool{Name: "controllers", Roles: []api.Role{api.RoleController}, Replicas: 1},
		api.Pool{Name: "brokers", Roles: []api.Role{api.RoleBroker}, Replicas: 2},
	)
	w.settle(t, kc, 60)
	kc.Spec.DeletionPolicy, kc.DeletionTimestamp = policy, &metav1.Time{Time: w.sim.Now}
	kc.Spec.Version = "no version at all" // a deletion needs no valid spec
	w.writes = nil
	var r engine.Result
	for range 60 {
		before := len(w.deleted)
		if r = w.pass(t, kc); r.Gone {
			break
		}
		if len(w.deleted) > before && slices.ContainsFunc([]int32{0, 100, 101}, w.sim.Serving) {
			t.Error("nodes are deleted before all have stopped")
		}
		if !strings.HasPrefix(r.Status.Doing, "being deleted") || strings.Contains(r.Status.Doing, "with its data") != withData {
			t.Errorf("doing %q", r.Status.Doing)
		}
	}
	if !r.Gone {
		t.Fatalf("not gone: %+v", r)
	}
	want := []string{"write node 100", "write node 101", "write node 0", "delete node 0", "delete node 100", "delete node 101", "delete orders-1", "delete what is shared"}
	if withData {
		want = append(want, "delete certificates")
	}
	if diff := cmp.Diff(want, w.writes); diff != "" {
		t.Errorf("deletion (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[int32]bool{0: withData, 100: withData, 101: withData}, w.deleted); diff != "" {
		t.Errorf("nodes and whether their data goes: %s", diff)
	}
}

func TestADeletionThatFailsGoesOn(t *testing.T) {
	w, kc := newWorld(), newCluster()
	w.settle(t, kc, 60)
	kc.DeletionTimestamp = &metav1.Time{Time: w.sim.Now}
	w.fail = func(call string) (bool, bool) { return call == "delete node 1", false }
	var r engine.Result
	for range 20 {
		r = w.pass(t, kc)
	}
	if c := condition(t, r.Status, api.ConditionStalled); c.Message != "delete node 1: injected" || r.Gone {
		t.Errorf("gone %t, %+v", r.Gone, c)
	}
	w.fail = nil
	for range 5 {
		r = w.pass(t, kc)
	}
	if !r.Gone {
		t.Errorf("not gone: %+v", r.Status)
	}
}

func TestPruneKeepsWhatNodesName(t *testing.T) {
	w, kc := newWorld(), newCluster()
	w.settle(t, kc, 60)
	w.sim.Break(1, true) // its change is never done, so it keeps the name of an old revision
	kc.Spec.Config["replica.fetch.max.bytes"] = "9000"
	for range 10 {
		w.pass(t, kc)
	}
	named := map[string]bool{}
	for _, n := range w.sim.See().Nodes {
		named[n.Spec.Revision] = true
	}
	for i := range 30 {
		kc.Spec.Config["log.retention.ms"] = api.ConfigValue(fmt.Sprint(i + 1))
		w.pass(t, kc)
	}
	got := numbers(w)
	for _, r := range w.revisions {
		delete(named, r.Name)
	}
	if len(named) > 0 {
		t.Errorf("pruned although a node names it: %v; left %v", named, got)
	}
	if newest := got[len(got)-1]; newest != 32 || !slices.Contains(got, 13) || len(got) > 24 || slices.Contains(got, 5) {
		t.Errorf("left %v", got)
	}
}

// A preview is the plan of the next pass, and leaves everything as it is.
func TestPreviewIsWhatAPassWouldDoAndWritesNothing(t *testing.T) {
	w, kc := newWorld(), newCluster()
	same := func(what string) {
		t.Helper()
		w.writes = nil
		p, problems, err := w.engine().Preview(t.Context(), kc)
		if err != nil || cluster.HasErrors(problems) || len(w.writes) > 0 {
			t.Fatalf("%s: %v, %v, written %v", what, err, problems, w.writes)
		}
		r := w.pass(t, kc)
		if diff := cmp.Diff(kinds(p.Steps), kinds(r.Plan.Steps)); diff != "" || len(p.Steps) == 0 {
			t.Errorf("%s: (-preview +pass)\n%s", what, diff)
		}
	}
	same("birth")
	w.settle(t, kc, 60)
	kc.Spec.Config["replica.fetch.max.bytes"], kc.Spec.Config["log.retention.ms"] = "9000", "1000"
	same("change")
	kc.Spec.Version = "1.0.0"
	_, problems, err := w.engine().Preview(t.Context(), kc)
	if err != nil || !cluster.HasErrors(problems) {
		t.Errorf("a bad spec: %v, %v", problems, err)
	}
}

func TestEndpoints(t *testing.T) {
	node := func(id int32, state api.NodeState, ready bool, address string, ports map[string]int32) plan.Node {
		return plan.Node{
			Spec:   api.KafkaNodeSpec{NodeID: id, ClusterID: "c", Address: address, Ports: ports},
			Status: api.KafkaNodeStatus{State: state, Ready: ready},
		}
	}
	both := map[string]int32{"INTERNAL": 1, "CONTROLLER": 2}
	at := engine.EndpointsOf([]plan.Node{
		node(1, api.NodeStarting, false, "a", both), node(2, api.NodeRunning, true, "::1", map[string]int32{"INTERNAL": 3}),
		node(3, api.NodeAsking, false, "b", both), node(4, api.NodeFailed, false, "c", both), node(5, api.NodeUnknown, false, "d", map[string]int32{"CONTROLLER": 4}),
	})
	want := engine.Endpoints{Brokers: []string{"[::1]:3", "a:1"}, Controllers: []string{"a:2", "d:4"}, ClusterID: "c"}
	if diff := cmp.Diff(want, at); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
}

// A refused configuration must not keep its own correction from a node that it broke.
func TestAFixReachesADownNodeThoughAnotherStepFails(t *testing.T) {
	w, kc := newWorld(), newCluster()
	w.settle(t, kc, 60)
	w.sim.Break(1, true)
	w.pass(t, kc)
	kc.Generation++
	kc.Spec.Config = api.Config{"log.retention.ms": "1000", "num.partitions": "7"}
	w.fail = func(call string) (bool, bool) { return call == "SetConfig", false }
	r := w.pass(t, kc)
	if w.sim.Restarts[1] != 1 || w.sim.Restarts[0]+w.sim.Restarts[2] != 0 {
		t.Errorf("restarts %v, want the broken node's alone; done %v", w.sim.Restarts, kinds(r.Done))
	}
	if c := condition(t, r.Status, api.ConditionStalled); c.Reason != "StepFailed" {
		t.Errorf("%+v", c)
	}
}
