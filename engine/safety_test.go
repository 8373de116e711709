package engine_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
)

func TestRevisionsDeletedByHandChangeNoNode(t *testing.T) {
	controllers := api.Pool{Name: "controllers", Roles: []api.Role{api.RoleController}, Replicas: 3}
	brokers := api.Pool{Name: "brokers", Roles: []api.Role{api.RoleBroker}, Replicas: 3}
	w, kc := newWorld(), newCluster(controllers, brokers)
	w.settle(t, kc, 80)
	replicate(w, 100, 101, 102)
	kc.Spec.Pools[0], kc.Spec.Pools[1] = kc.Spec.Pools[1], kc.Spec.Pools[0] // another order of pools
	kc.Generation++
	w.revisions, w.sim.ClusterID = nil, ""
	w.settle(t, kc, 80)
	if n := len(w.sim.See().Nodes); n != 6 || len(w.sim.Restarts) > 0 {
		t.Errorf("%d nodes, restarts %v: want the same six, untouched", n, w.sim.Restarts)
	}
}

func TestPauseAndStopAreObeyedBesideABadSpec(t *testing.T) {
	w, kc := newWorld(), newCluster()
	w.settle(t, kc, 60)
	kc.Spec.Config["replica.fetch.max.bytes"] = "5000"
	kc.Generation++
	w.pass(t, kc)
	kc.Spec.Config["num.io.threads"] = "none"
	kc.Spec.Paused = true
	kc.Generation++
	for range 20 {
		if r := w.pass(t, kc); len(r.Plan.Steps) > 0 {
			t.Fatalf("paused, but %v", kinds(r.Plan.Steps))
		}
	}
	kc.Spec.Paused, kc.Spec.State = false, api.StateStopped
	stopped(t, w, kc)
}

func TestStopIsObeyedWithoutAnySpecInForce(t *testing.T) {
	w, kc := newWorld(), newCluster()
	w.settle(t, kc, 60)
	w.packages = nil
	kc.Spec.State = api.StateStopped
	kc.Generation++
	stopped(t, w, kc)
}

func stopped(t *testing.T, w *world, kc *api.KafkaCluster) {
	t.Helper()
	var p plan.Plan
	for range 40 {
		p = w.pass(t, kc).Plan
	}
	w.clean(t)
	for _, n := range w.sim.See().Nodes {
		if n.Status.State != api.NodeStopped {
			t.Errorf("node %d is %s; blocked: %+v", n.Spec.NodeID, n.Status.State, p.Blocked)
		}
	}
}

func TestAcceptedLossIsWarnedOfWhileItStands(t *testing.T) {
	w, kc := newWorld(), newCluster()
	kc.Annotations = map[string]string{engine.AcceptDataLoss: "2"}
	w.settle(t, kc, 60)
	if c := condition(t, w.pass(t, kc).Status, api.ConditionAccepted); !strings.Contains(c.Message, "remove the annotation") {
		t.Errorf("Accepted says %q", c.Message)
	}
	kc.Annotations = nil
	if c := condition(t, w.pass(t, kc).Status, api.ConditionAccepted); c.Reason != "Accepted" {
		t.Errorf("Accepted is still %s", c.Reason)
	}
}

// TestNothingIsDoneOnOldFacts: an operator that was frozen between what it saw and what it does decides anew.
func TestNothingIsDoneOnOldFacts(t *testing.T) {
	w, kc := newWorld(), newCluster()
	w.settle(t, kc, 60)
	kc.Spec.Config["replica.fetch.max.bytes"] = "5000"
	kc.Generation++
	w.writes = nil
	w.fail = func(name string) (bool, bool) {
		if strings.HasPrefix(name, "apply") {
			w.sim.Now = w.sim.Now.Add(11 * time.Second)
		}
		return false, false
	}
	r, err := w.engine().Pass(t.Context(), kc)
	if err != nil || len(r.Plan.Steps) == 0 || len(r.Done) > 0 || !slices.Equal(w.writes, []string{"create revision", "spare false"}) {
		t.Errorf("planned %v, done %v, written %v, %v: nothing may be done any more", kinds(r.Plan.Steps), kinds(r.Done), w.writes, err)
	}
	w.fail = nil
	w.settle(t, kc, 60)
	if len(w.sim.Restarts) != 3 {
		t.Errorf("restarts %v, want each node once", w.sim.Restarts)
	}
}
