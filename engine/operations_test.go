package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
)

// phases of an Operation as its changes are told.
func phases(changed []engine.OperationChange) []string {
	var out []string
	for _, c := range changed {
		out = append(out, fmt.Sprintf("%s: %s, then %s", c.Operation.Name, c.Before, c.Operation.Status.Phase))
	}
	return out
}

// No node is touched before its Operation exists, and the cluster names the one that is active.
func TestAChangeHasItsOperation(t *testing.T) {
	w, kc := atRest(t)
	kc.Spec.Config["replica.fetch.max.bytes"], kc.Generation = "9000", 2
	r := w.pass(t, kc)
	const name = "orders-rollout-2"
	create := slices.Index(w.writes, "create operation "+name)
	touch := slices.IndexFunc(w.writes, func(call string) bool { return strings.HasPrefix(call, "write node") })
	if create < 0 || touch < create || r.Status.Operation != name {
		t.Fatalf("writes %v, active %q", w.writes, r.Status.Operation)
	}
	var told []string
	for range 40 {
		r = w.pass(t, kc)
		told = append(told, phases(r.Changed)...)
		if op := w.operation(name); !op.Status.Phase.Final() && r.Status.Operation != name {
			t.Fatalf("%s is %s, and active is %q", name, op.Status.Phase, r.Status.Operation)
		}
	}
	if diff := cmp.Diff([]string{name + ": , then Running", name + ": Running, then Succeeded"}, told); diff != "" {
		t.Errorf("phases (-want +got):\n%s", diff)
	}
	op := w.operation(name)
	if op == nil || op.Status.Steps.Done != 3 || len(op.Finalizers) > 0 || r.Status.Operation != "" {
		t.Errorf("%+v; active %q", op, r.Status.Operation)
	}
	w.writes = nil
	w.pass(t, kc)
	if len(w.writes) > 0 {
		t.Errorf("written at rest: %v", w.writes)
	}
}

// Without its record no node changes, not even one that is down.
func TestNoChangeWithoutARecord(t *testing.T) {
	w, kc := atRest(t)
	w.sim.Break(1, true)
	w.pass(t, kc)
	kc.Spec.Config["replica.fetch.max.bytes"], kc.Generation = "9000", 2
	w.fail = func(call string) (bool, bool) { return strings.HasPrefix(call, "create operation"), false }
	r := w.pass(t, kc)
	if len(w.sim.Restarts) > 0 || written(w, "write node") {
		t.Errorf("restarts %v, writes %v", w.sim.Restarts, w.writes)
	}
	if c := condition(t, r.Status, api.ConditionStalled); c.Reason != "StepFailed" || !strings.HasPrefix(c.Message, "CreateOperation (") || r.Status.Operation != "" {
		t.Errorf("%+v, active %q", c, r.Status.Operation)
	}
	w.fail = nil
	w.pass(t, kc)
	if w.sim.Restarts[1] != 1 {
		t.Errorf("restarts %v, want the broken node's", w.sim.Restarts)
	}
}

// The record is made though another step failed before, since the fix of a node that is down needs it.
func TestTheRecordOfAFixIsMade(t *testing.T) {
	w, kc := atRest(t)
	w.sim.Break(1, true)
	w.pass(t, kc)
	kc.Spec.Config["replica.fetch.max.bytes"], kc.Generation = "9000", 2
	w.fail = func(call string) (bool, bool) { return call == "apply what is shared", false }
	w.pass(t, kc)
	if w.operation("orders-rollout-2") == nil || w.sim.Restarts[1] != 1 {
		t.Errorf("restarts %v, writes %v", w.sim.Restarts, w.writes)
	}
}

// How an Operation is, is written on cached facts: nothing else follows from it.
func TestAReportAloneReadsNothingAgain(t *testing.T) {
	w, kc := atRest(t)
	kc.Spec.Paused, kc.Generation = true, 2
	w.pass(t, kc)
	w.pass(t, kc)
	w.ask("again", api.OperationSpec{Type: api.OperationRestart})
	w.reads, w.writes = nil, nil
	r := w.pass(t, kc)
	if diff := cmp.Diff([]string{"report operation again Paused", "keep operation again"}, w.writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	if slices.ContainsFunc(w.reads, func(call string) bool { return strings.HasPrefix(call, "fresh") }) || r.Status.Operation != "again" {
		t.Errorf("reads %v, active %q", w.reads, r.Status.Operation)
	}
	w.fail = func(call string) (bool, bool) { return call == "report operation again", false }
	w.decide("again", func(spec *api.OperationSpec) { spec.Paused = true })
	r = w.pass(t, kc)
	if c := condition(t, r.Status, api.ConditionStalled); c.Message != "report operation again: injected" || r.Again == 0 {
		t.Errorf("%+v, again %s", c, r.Again)
	}
}

func TestARestartThatAUserAskedFor(t *testing.T) {
	w, kc := atRest(t)
	w.ask("again", api.OperationSpec{Type: api.OperationRestart})
	w.settle(t, kc, 80)
	if diff := cmp.Diff(map[int32]int{0: 1, 1: 1, 2: 1}, w.sim.Restarts); diff != "" {
		t.Errorf("restarts (-want +got):\n%s", diff)
	}
	if op := w.operation("again"); op.Status.Phase != api.OperationSucceeded {
		t.Errorf("%+v", op.Status)
	}
}

// A deletion cancels: nodes under way come to their end, and the object goes on fresh facts only.
func TestADeletedOperationIsCancelled(t *testing.T) {
	w, kc := atRest(t)
	w.ask("again", api.OperationSpec{Type: api.OperationRestart})
	for len(w.sim.Restarts) == 0 {
		w.pass(t, kc)
	}
	w.dismiss("again")
	if w.operation("again") == nil {
		t.Fatal("nothing kept it")
	}
	w.reads = nil
	for range 20 {
		w.pass(t, kc)
	}
	if w.operation("again") != nil || len(w.sim.Restarts) != 1 {
		t.Errorf("%+v; restarts %v", w.operation("again"), w.sim.Restarts)
	}
	if free := slices.Index(w.writes, "free operation again"); free < 0 || !slices.Contains(w.reads, "fresh operations") {
		t.Errorf("writes %v, reads %v", w.writes, w.reads)
	}
	w.settle(t, kc, 40)
}

// That an Operation may go rests on fresh facts, also where nothing else is to be done.
func TestAnOperationIsFreedOnFreshFacts(t *testing.T) {
	w, kc := atRest(t)
	w.ask("again", api.OperationSpec{Type: api.OperationRestart, Paused: true})
	w.pass(t, kc)
	w.decide("again", func(spec *api.OperationSpec) { spec.IgnoredNodes = []int32{0, 1, 2} })
	w.reads, w.writes = nil, nil
	w.pass(t, kc)
	if !written(w, "free operation again") || !slices.Contains(w.reads, "fresh operations") {
		t.Errorf("writes %v, reads %v", w.writes, w.reads)
	}
	// An engine that ended between the two writes left it with its last status.
	w.operation("again").Finalizers = []string{plan.OperationFinalizer}
	w.pass(t, kc)
	if op := w.operation("again"); len(op.Finalizers) > 0 || op.Status.Phase != api.OperationSucceeded {
		t.Errorf("%+v", op)
	}
}

func TestOldOperationsAreForgotten(t *testing.T) {
	w, kc := atRest(t)
	kc.Spec.Config["replica.fetch.max.bytes"], kc.Generation = "9000", 2
	w.settle(t, kc, 80) // nodes, and the revision in force, name orders-rollout-2
	for i := range 30 {
		w.ask(fmt.Sprintf("restart-%d", i), api.OperationSpec{Type: api.OperationRestart, Nodes: []int32{0}, IgnoredNodes: []int32{0}})
		w.settle(t, kc, 20)
	}
	var left []string
	for i := range w.operations {
		left = append(left, w.operations[i].Name)
	}
	if len(left) != 21 || left[0] != "orders-rollout-2" || left[1] != "restart-10" {
		t.Errorf("left %v", left)
	}
}

// A removed cluster takes its Operations along, also such as are not over.
func TestRemovalTakesOperationsAlong(t *testing.T) {
	w, kc := atRest(t)
	w.ask("again", api.OperationSpec{Type: api.OperationRestart, Paused: true})
	w.pass(t, kc)
	w.pass(t, kc)
	kc.DeletionTimestamp = &w.operations[0].CreationTimestamp
	for range 60 {
		if w.pass(t, kc).Gone {
			break
		}
	}
	if len(w.operations) > 0 || !written(w, "delete operation again") {
		t.Errorf("left %+v; writes %v", w.operations, w.writes)
	}
}

// A node that failed is given back what the revision that it came from says.
func TestAFailedNodeIsGivenBack(t *testing.T) {
	w, kc := atRest(t)
	kc.Spec.Rollout.OnFailure = api.OnFailureRollback
	kc.Spec.Config["replica.fetch.max.bytes"], kc.Generation = "9000", 2
	for len(w.sim.Restarts) == 0 {
		w.pass(t, kc)
	}
	failing := int32(slices.IndexFunc([]int32{0, 1, 2}, func(id int32) bool { return w.sim.Restarts[id] > 0 }))
	w.sim.Break(failing, true)
	back := func() bool {
		n := w.sim.See().Nodes[failing]
		return n.Spec.Change != nil && n.Spec.Change.RolledBack && n.Spec.Revision == "orders-1"
	}
	for range 30 {
		if w.pass(t, kc); back() {
			break
		}
	}
	if !back() || w.revisions[1].Spec.Held == nil {
		t.Fatalf("%+v, held %+v", w.sim.See().Nodes[failing].Spec, w.revisions[1].Spec.Held)
	}
	w.sim.Break(failing, false)
	for range 30 {
		w.pass(t, kc)
	}
	if op := w.operation("orders-rollout-2"); op.Status.Phase != api.OperationFailed || w.sim.Restarts[failing] != 2 || len(w.sim.Restarts) != 1 {
		t.Errorf("%s, restarts %v", op.Status.Phase, w.sim.Restarts)
	}
	// To pause and to go on is no decision about it.
	for _, paused := range []bool{true, false} {
		kc.Spec.Paused = paused
		kc.Generation++
		for range 10 {
			w.pass(t, kc)
		}
	}
	if latest := w.revisions[len(w.revisions)-1]; latest.Spec.Number != 4 || latest.Spec.Held == nil || len(w.sim.Restarts) != 1 {
		t.Errorf("%+v, restarts %v", latest.Spec, w.sim.Restarts)
	}
}

func TestASpecThatIsTakenBackNamesWhatItRestores(t *testing.T) {
	w, kc := atRest(t)
	restores := func(values ...api.ConfigValue) string {
		for _, value := range values {
			kc.Spec.Config["log.retention.ms"] = value
			kc.Generation++
			w.pass(t, kc)
		}
		return w.revisions[len(w.revisions)-1].Spec.Restores
	}
	if got := restores("1000", "2000"); got != "" {
		t.Errorf("a new spec restores %q", got)
	}
	if got := restores("1000"); got != "orders-2" {
		t.Errorf("the spec of revision 2 restores %q", got)
	}
	kc.Spec.Paused = true
	if got := restores("1000"); got != "orders-2" || len(w.revisions) != 5 {
		t.Errorf("the same, paused, restores %q of %v", got, numbers(w))
	}
}
