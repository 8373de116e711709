package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/core/sim"
)

// rolling is a settled cluster of three controllers and five brokers under revision r1, and what it is asked.
type rolling struct {
	t *testing.T
	w *sim.World
	m cluster.Model
}

func newRolling(t *testing.T, policy api.Rollout) *rolling {
	t.Helper()
	return newRollingOf(t, policy, 2)
}

func newRollingOf(t *testing.T, policy api.Rollout, minISR int) *rolling {
	t.Helper()
	m := model(controllers(3), brokers(5))
	m.Rollout = policy
	r := &rolling{t: t, m: m, w: born(t, m, "a", "b", "c")}
	r.w.Accept("r1", m)
	spread(r.w, "t", minISR, 10, idsOf(m, api.RoleBroker))
	return r
}

// accept makes a new revision in which brokers have another number of threads.
func (r *rolling) accept(revision, threads string) {
	setConfig(&r.m, "brokers", "num.io.threads", threads)
	r.w.Accept(revision, r.m)
}

func (r *rolling) pass() plan.Plan { return pass(r.w, r.m) }

// until plays passes until something is so.
func (r *rolling) until(what string, so func() bool) {
	r.t.Helper()
	var p plan.Plan
	for range 300 {
		if so() {
			return
		}
		p = r.pass()
		clean(r.t, r.w)
	}
	r.t.Fatalf("never: %s; restarts %v, blocked %+v, operations %s", what, r.w.Restarts, p.Blocked, r.said())
}

// rest plays so many passes and returns the last plan.
func (r *rolling) rest(passes int) plan.Plan {
	r.t.Helper()
	var p plan.Plan
	for range passes {
		p = r.pass()
		clean(r.t, r.w)
	}
	return p
}

func (r *rolling) op(name string) *api.Operation {
	r.t.Helper()
	op := r.w.Operation(name)
	if op == nil {
		r.t.Fatalf("there is no operation %s: %s", name, r.said())
	}
	return op
}

func (r *rolling) said() string {
	var out []string
	for _, op := range r.w.Operations() {
		out = append(out, fmt.Sprintf("%s %s (%s) %+v", op.Name, op.Status.Phase, op.Status.Message, op.Status.Nodes))
	}
	return strings.Join(out, "\n")
}

func (r *rolling) phase(name string, want api.OperationPhase, word string) {
	r.t.Helper()
	if op := r.op(name); op.Status.Phase != want || !strings.Contains(op.Status.Message, word) {
		r.t.Errorf("operation %s is %s (%s), want %s (%s)", name, op.Status.Phase, op.Status.Message, want, word)
	}
}

func (r *rolling) states(name string) map[int32]api.OperationNodeState {
	r.t.Helper()
	out := map[int32]api.OperationNodeState{}
	for _, n := range r.op(name).Status.Nodes {
		out[n.ID] = n.State
	}
	return out
}

// restarted compares the restarts of brokers 100 to 104.
func (r *rolling) restarted(want ...int) {
	r.t.Helper()
	var got []int
	for id := range int32(5) {
		got = append(got, r.w.Restarts[100+id])
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("brokers were restarted %v times, want %v", got, want)
	}
}

func (r *rolling) begun(id int32) func() bool { return func() bool { return r.w.Restarts[id] > 0 } }

func (r *rolling) is(name string, phase api.OperationPhase) func() bool {
	return func() bool { op := r.w.Operation(name); return op != nil && op.Status.Phase == phase }
}

func blockFor(p plan.Plan, reason string) *plan.Block {
	i := slices.IndexFunc(p.Blocked, func(b plan.Block) bool { return b.Reason == reason })
	if i < 0 {
		return nil
	}
	return &p.Blocked[i]
}

const rollout2 = "orders-rollout-r2"

func TestRolloutIsRecorded(t *testing.T) {
	r := newRolling(t, api.Rollout{})
	if len(r.w.Operations()) > 0 {
		t.Errorf("a birth is an operation: %s", r.said())
	}
	r.accept("r2", "16")
	r.until("the second broker is changed", r.begun(101))
	r.phase(rollout2, api.OperationRunning, "node 101")
	op := r.op(rollout2)
	if s := op.Status; s.Steps.Done != 1 || s.Steps.Total != 5 || s.Steps.Percent != 20 || s.EstimatedEnd == nil || s.StartedAt == nil {
		t.Errorf("status %+v", s)
	}
	for _, from := range op.Spec.From {
		if from.Revision != "r1" {
			t.Errorf("node %d came from %s", from.ID, from.Revision)
		}
	}
	for _, n := range r.w.See().Nodes {
		if c := n.Spec.Change; c != nil && c.Operation != rollout2 {
			t.Errorf("node %d was changed by %q", n.Spec.NodeID, c.Operation)
		}
	}
	estimate := op.Status.EstimatedEnd.Time
	r.until("it is over", r.is(rollout2, api.OperationSucceeded))
	r.restarted(1, 1, 1, 1, 1)
	if late := r.w.Now.Sub(estimate); late > 20*time.Second || late < -20*time.Second {
		t.Errorf("the estimate was %s off", late)
	}
	if op := r.op(rollout2); op.Status.Steps.Percent != 100 || op.Status.FinishedAt == nil || len(op.Finalizers) > 0 {
		t.Errorf("at its end: %+v", op)
	}
	if p := r.rest(3); !p.Done() || len(r.w.Operations()) != 1 {
		t.Errorf("afterwards: %v, %s", kinds(p), r.said())
	}
}

func TestPauseAndResume(t *testing.T) {
	r := newRolling(t, api.Rollout{})
	r.accept("r2", "16")
	r.until("the first broker is changed", r.begun(100))
	r.op(rollout2).Spec.Paused = true
	p := r.rest(40)
	r.restarted(1, 0, 0, 0, 0)
	r.phase(rollout2, api.OperationPaused, "castellan resume")
	if b := blockFor(p, "OperationPaused"); b == nil || len(p.Upcoming) != 4 {
		t.Errorf("blocked %+v, upcoming %d", p.Blocked, len(p.Upcoming))
	}
	r.op(rollout2).Spec.Paused = false
	r.until("it is over", r.is(rollout2, api.OperationSucceeded))
	r.restarted(1, 1, 1, 1, 1)
}

func TestCancelHoldsTheRevision(t *testing.T) {
	for name, end := range map[string]func(*rolling){
		"cancelled": func(r *rolling) { r.op(rollout2).Spec.Cancelled = true },
		"deleted":   func(r *rolling) { r.w.DeleteOperation(rollout2) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRolling(t, api.Rollout{})
			r.accept("r2", "16")
			r.until("the second broker is changed", r.begun(101))
			end(r)
			p := r.rest(40)
			r.restarted(1, 1, 0, 0, 0)
			if b := blockFor(p, "Held"); b == nil || !b.Stalled || !strings.Contains(b.Message, "castellan rollback orders") {
				t.Errorf("blocked %+v", p.Blocked)
			}
			if name == "deleted" {
				if r.w.Operation(rollout2) != nil {
					t.Errorf("its finalizer keeps it: %s", r.said())
				}
			} else {
				r.phase(rollout2, api.OperationCancelled, "cancelled")
				if s := r.states(rollout2); s[100] != api.OperationNodeSucceeded || s[102] != api.OperationNodeCancelled {
					t.Errorf("states %v", s)
				}
			}
			// Somebody decides to go on.
			r.w.AddOperation(api.Operation{ObjectMeta: metav1.ObjectMeta{Name: "again"}, Spec: api.OperationSpec{ClusterRef: api.ClusterRef{Name: "orders"}, Type: api.OperationRollout, ToRevision: "r2"}})
			r.until("it is over", r.is("again", api.OperationSucceeded))
			r.restarted(1, 1, 1, 1, 1)
			if r.w.Held("r2") != nil {
				t.Error("the revision is still held")
			}
		})
	}
}

func TestIgnoredNodeStaysAsItIs(t *testing.T) {
	r := newRolling(t, api.Rollout{})
	r.accept("r2", "16")
	r.until("the first broker is changed", r.begun(100))
	r.op(rollout2).Spec.IgnoredNodes = []int32{102}
	r.until("it is over", r.is(rollout2, api.OperationSucceeded))
	p := r.rest(20)
	r.restarted(1, 1, 0, 1, 1)
	if b := blockFor(p, "Ignored"); b == nil || b.Node != 102 || len(r.w.Operations()) != 1 {
		t.Errorf("blocked %+v, %s", p.Blocked, r.said())
	}
}

func TestFailedNodeIsRetried(t *testing.T) {
	r := newRolling(t, api.Rollout{})
	r.accept("r2", "16")
	r.until("the second broker is changed", r.begun(101))
	r.w.Break(101, true)
	r.rest(30)
	r.restarted(1, 1, 0, 0, 0)
	r.phase(rollout2, api.OperationPaused, "castellan retry "+rollout2)
	if s := r.states(rollout2); s[101] != api.OperationNodeFailed || s[102] != api.OperationNodeWaiting {
		t.Errorf("states %v", s)
	}
	r.w.Break(101, false)
	r.op(rollout2).Spec.Retry = []api.OperationRetry{{ID: 101, Attempt: 1}}
	r.until("it is over", r.is(rollout2, api.OperationSucceeded))
	r.restarted(1, 2, 1, 1, 1)
	if got := r.w.See().Nodes[4].Spec.Change; got.Attempt != 1 || got.FromRevision != "r1" {
		t.Errorf("node 101 was changed %+v", got)
	}
	if p := r.rest(5); !p.Done() {
		t.Errorf("afterwards %v %+v", kinds(p), p.Blocked)
	}
}

func TestNoNodeIsBegunBesideOneThatIsTriedAgain(t *testing.T) {
	r := newRollingOf(t, api.Rollout{}, 1)
	r.accept("r2", "16")
	r.until("the second broker is changed", r.begun(101))
	r.w.Break(101, true)
	for attempt := range int32(2) {
		r.rest(30)
		r.phase(rollout2, api.OperationPaused, "castellan retry "+rollout2)
		r.op(rollout2).Spec.Retry = []api.OperationRetry{{ID: 101, Attempt: attempt + 1}}
		r.until("it was tried again", func() bool { return r.w.Restarts[101] == int(attempt)+2 })
	}
	r.rest(30)
	r.restarted(1, 3, 0, 0, 0)
}

func TestToleratedFailure(t *testing.T) {
	r := newRollingOf(t, api.Rollout{MaxFailures: 1}, 1)
	r.accept("r2", "16")
	r.until("the first broker is changed", r.begun(100))
	r.w.Break(100, true)
	r.until("others are changed all the same", func() bool { return r.w.Restarts[104] > 0 || r.w.Restarts[102] > 0 })
}

func TestTimeout(t *testing.T) {
	r := newRolling(t, api.Rollout{NodeTimeout: &metav1.Duration{Duration: time.Minute}})
	r.accept("r2", "16")
	r.until("the first broker is changed", r.begun(100))
	r.w.Silence(100, true)
	r.rest(90)
	if s := r.states(rollout2); s[100] != api.OperationNodeTimedOut {
		t.Errorf("states %v", s)
	}
	r.phase(rollout2, api.OperationPaused, "castellan ignore "+rollout2+" --node 100")
	r.w.Silence(100, false)
	r.until("it goes on when the node is heard again", r.is(rollout2, api.OperationSucceeded))
}

func TestFailedNodeIsGivenBack(t *testing.T) {
	r := newRolling(t, api.Rollout{OnFailure: api.OnFailureRollback})
	good := layout.ProcessHash(r.m.Nodes[3].Process)
	r.accept("r2", "16")
	bad := layout.ProcessHash(r.m.Nodes[3].Process)
	r.w.Spoil(bad) // no node starts with it
	r.until("it is over", r.is(rollout2, api.OperationFailed))
	p := r.rest(20)
	r.restarted(2, 0, 0, 0, 0)
	back := r.w.See().Nodes[3]
	process := back.Spec.Process
	process.Restart = ""
	if layout.ProcessHash(process) != good || !back.Status.Ready || back.Spec.Revision != "r1" {
		t.Errorf("node 100 is at %s: %+v", back.Spec.Revision, back.Status)
	}
	r.phase(rollout2, api.OperationFailed, "node 100")
	if s := r.op(rollout2).Status.Nodes[0]; s.State != api.OperationNodeFailed || !strings.Contains(s.Reason, "given back revision r1") {
		t.Errorf("node 100: %+v", s)
	}
	if b := blockFor(p, "Held"); b == nil || !b.Stalled {
		t.Errorf("blocked %+v", p.Blocked)
	}
	r.accept("r3", "12")
	r.until("the mended spec is rolled out", r.is("orders-rollout-r3", api.OperationSucceeded))
	if p := r.rest(5); !p.Done() {
		t.Errorf("afterwards %v %+v", kinds(p), p.Blocked)
	}
}

func TestCanaryPoints(t *testing.T) {
	t.Run("first node", func(t *testing.T) {
		r := newRolling(t, api.Rollout{PauseAfter: []string{"FirstNode"}})
		r.accept("r2", "16")
		r.rest(40)
		r.restarted(1, 0, 0, 0, 0)
		r.phase(rollout2, api.OperationPaused, "after its first node, 100")
		op := r.op(rollout2)
		op.Spec.Passed = append(op.Spec.Passed, op.Status.Point)
		r.until("it is over", r.is(rollout2, api.OperationSucceeded))
		r.restarted(1, 1, 1, 1, 1)
	})
	t.Run("each rack", func(t *testing.T) {
		r := newRolling(t, api.Rollout{PauseAfter: []string{"EachRack"}})
		r.accept("r2", "16")
		var points []string
		for range 2 {
			r.until("it waits", func() bool { op := r.w.Operation(rollout2); return op != nil && op.Status.Point != "" })
			op := r.op(rollout2)
			before := fmt.Sprint(r.w.Restarts)
			r.rest(20)
			if now := fmt.Sprint(r.w.Restarts); now != before {
				t.Errorf("changed while it waits: %s, was %s", now, before)
			}
			points = append(points, op.Status.Point)
			op.Spec.Passed = append(op.Spec.Passed, op.Status.Point)
			r.pass()
		}
		r.until("it is over", r.is(rollout2, api.OperationSucceeded))
		if points[0] == points[1] || !strings.HasPrefix(points[0], "EachRack/") {
			t.Errorf("it waited at %v", points)
		}
		r.restarted(1, 1, 1, 1, 1)
	})
	t.Run("a node", func(t *testing.T) {
		r := newRolling(t, api.Rollout{PauseAfter: []string{"102"}})
		r.accept("r2", "16")
		r.rest(60)
		r.restarted(1, 1, 1, 0, 0)
		r.phase(rollout2, api.OperationPaused, "after node 102")
	})
}

func TestApproval(t *testing.T) {
	r := newRolling(t, api.Rollout{Approval: api.ApprovalManual})
	r.accept("r2", "16")
	p := r.rest(20)
	r.restarted(0, 0, 0, 0, 0)
	r.phase(rollout2, api.OperationPending, "castellan approve")
	op := r.op(rollout2)
	if b := blockFor(p, "WaitingForApproval"); b == nil || len(op.Status.Plan) != 5 || !strings.Contains(op.Status.Plan[0], "node 100: config num.io.threads") {
		t.Errorf("blocked %+v, plan %q", p.Blocked, op.Status.Plan)
	}
	op.Spec.ApprovedPlan = "another"
	r.rest(5)
	r.restarted(0, 0, 0, 0, 0)
	op = r.op(rollout2)
	op.Spec.ApprovedPlan = op.Status.PlanDigest
	r.until("it is over", r.is(rollout2, api.OperationSucceeded))
	r.restarted(1, 1, 1, 1, 1)
}

func TestWindows(t *testing.T) {
	// The world begins at midnight.
	r := newRolling(t, api.Rollout{Windows: []api.Window{{Schedule: "10 0 * * *", Duration: metav1.Duration{Duration: time.Hour}}}})
	r.w.Break(103, true)
	r.rest(5)
	r.accept("r2", "16")
	r.rest(10)
	r.restarted(0, 0, 0, 1, 0) // a repair waits for no window
	r.phase(rollout2, api.OperationPending, "2026-01-01T00:10:00Z")
	r.w.Break(103, false)
	r.w.Now = r.w.Now.Truncate(time.Hour).Add(10 * time.Minute)
	r.until("it is over", r.is(rollout2, api.OperationSucceeded))
	r.restarted(1, 1, 1, 1, 1)
}

func TestRestartAndQueue(t *testing.T) {
	r := newRolling(t, api.Rollout{})
	restart := func(name string, nodes ...int32) {
		r.w.AddOperation(api.Operation{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.OperationSpec{ClusterRef: api.ClusterRef{Name: "orders"}, Type: api.OperationRestart, Nodes: nodes}})
	}
	restart("some", 103, 101)
	restart("all")
	r.until("one node is restarted", r.begun(101))
	r.phase("all", api.OperationPending, "waits until operation some is over")
	r.accept("r2", "16")
	r.until("the first is over", r.is("some", api.OperationSucceeded))
	r.restarted(0, 1, 0, 1, 0)
	r.until("the second is over", r.is("all", api.OperationSucceeded))
	r.until("the rollout is over", r.is(rollout2, api.OperationSucceeded))
	r.restarted(2, 3, 2, 3, 2)
	for id := range int32(3) {
		if r.w.Restarts[id] != 1 {
			t.Errorf("controller %d was restarted %d times", id, r.w.Restarts[id])
		}
	}
	if p := r.rest(5); !p.Done() {
		t.Errorf("afterwards %v %+v", kinds(p), p.Blocked)
	}
}

func TestOrderThatWasAskedFor(t *testing.T) {
	r := newRolling(t, api.Rollout{})
	r.w.AddOperation(api.Operation{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: api.OperationSpec{ClusterRef: api.ClusterRef{Name: "orders"}, Type: api.OperationRestart, Order: []int32{104, 102}}})
	r.until("the first is restarted", r.begun(104))
	r.restarted(0, 0, 0, 0, 1)
	r.until("the second is restarted", r.begun(102))
	r.restarted(0, 0, 1, 0, 1)
}

// TestRollback takes a rollout back after two of five nodes, one of which was retried: those two return to what they
// first came from, in reverse order, and the others are never touched.
func TestRollback(t *testing.T) {
	r := newRolling(t, api.Rollout{})
	good := r.m
	good.Nodes = slices.Clone(r.m.Nodes)
	r.accept("r2", "16")
	r.until("the second broker is changed", r.begun(101))
	r.w.Break(101, true)
	r.rest(10)
	r.op(rollout2).Spec.Retry = []api.OperationRetry{{ID: 101, Attempt: 1}}
	r.rest(10)
	r.w.Break(101, false)
	r.m = good
	r.w.Accept("r3", good)
	r.w.Restores = "r1"
	var order []int32
	for range 100 {
		p := r.pass()
		for _, s := range p.Steps {
			if s.Kind == plan.UpdateProcess {
				order = append(order, s.Node)
			}
		}
	}
	clean(t, r.w)
	r.restarted(2, 3, 0, 0, 0)
	if !slices.Equal(order, []int32{101, 100}) {
		t.Errorf("they went back in the order %v", order)
	}
	r.phase("orders-rollback-r3", api.OperationSucceeded, "")
	r.phase(rollout2, api.OperationCancelled, "superseded by revision r3")
	if op := r.op(rollout2); op.Status.Steps.Done != 1 || r.states(rollout2)[100] != api.OperationNodeSucceeded || r.states(rollout2)[102] != api.OperationNodeCancelled {
		t.Errorf("of the first one is said %+v", op.Status)
	}
	for _, from := range r.op("orders-rollback-r3").Spec.From {
		if want := map[int32]string{100: "r2", 101: "r1"}[from.ID]; from.Revision != want {
			t.Errorf("node %d is recorded as from %s, want %s", from.ID, from.Revision, want)
		}
	}
}

// With metadata.version go the features that came with the release, at its levels and no higher than brokers support; who
// lowers one of them later has a reason.
// A spec that changes nothing of nodes ends an upgrade that soaks; another one finalizes it.
// TestStatusIsOutput: whatever becomes of what was said, nothing is done twice.
func TestStatusIsOutput(t *testing.T) {
	r := newRolling(t, api.Rollout{})
	r.accept("r2", "16")
	for range 120 {
		r.pass()
		clean(t, r.w)
		if op := r.w.Operation(rollout2); op != nil {
			op.Status = api.OperationStatus{}
		}
	}
	r.rest(2)
	r.restarted(1, 1, 1, 1, 1)
	r.phase(rollout2, api.OperationSucceeded, "")
}

// TestDowngradeBeforeFinalization: brokers go back first; what is finalized keeps them from it.
// TestCancelWaitsForNoOther: what was never begun goes at once, though nodes are starting for other reasons.
func TestCancelWaitsForNoOther(t *testing.T) {
	r := newRolling(t, api.Rollout{})
	r.w.AddOperation(api.Operation{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: api.OperationSpec{ClusterRef: api.ClusterRef{Name: "orders"}, Type: api.OperationRestart, Paused: true}})
	r.w.Break(103, true)
	r.rest(5)
	r.w.DeleteOperation("x")
	r.rest(2)
	if r.w.Operation("x") != nil {
		t.Errorf("it is still there: %s", r.said())
	}
}

// TestPausedCluster: nothing is begun, and what is deleted goes and is not begun again later.
func TestPausedCluster(t *testing.T) {
	r := newRolling(t, api.Rollout{})
	r.accept("r2", "16")
	r.until("the first broker is changed", r.begun(100))
	r.m.Paused = true
	r.rest(20)
	r.restarted(1, 0, 0, 0, 0)
	r.phase(rollout2, api.OperationPaused, "spec.paused")
	r.w.DeleteOperation(rollout2)
	r.rest(3)
	if r.w.Operation(rollout2) != nil {
		t.Errorf("it is still there: %s", r.said())
	}
	r.m.Paused = false
	if p := r.rest(20); blockFor(p, "Held") == nil {
		t.Errorf("blocked %+v", p.Blocked)
	}
	r.restarted(1, 0, 0, 0, 0)
}

// TestWindowHoldsBesideCanaryPoints: a canary point lets nothing begin that a window keeps, nor does a repair pass by one.
func TestWindowHoldsBesideCanaryPoints(t *testing.T) {
	for _, point := range []string{"FirstNode", "EachRack"} {
		r := newRolling(t, api.Rollout{
			PauseAfter: []string{point},
			Windows:    []api.Window{{Schedule: "10 0 * * *", Duration: metav1.Duration{Duration: time.Hour}}},
		})
		r.accept("r2", "16")
		r.rest(20)
		r.restarted(0, 0, 0, 0, 0)
		r.phase(rollout2, api.OperationPending, "2026-01-01T00:10:00Z")
		r.w.Now = r.w.Now.Truncate(time.Hour).Add(10 * time.Minute)
		r.until("it waits at its point in the window", func() bool { return r.op(rollout2).Status.Point != "" })
		r.w.Now = r.w.Now.Truncate(time.Hour).Add(2 * time.Hour)
		before := fmt.Sprint(r.w.Restarts)
		r.w.Break(104, true)
		r.rest(20)
		if now := fmt.Sprint(r.w.Restarts); now != before {
			t.Errorf("%s: a repair passes by the point: %s, was %s", point, now, before)
		}
	}
}

// TestLastNodeIsGivenBack: also where no other node is left to be changed.
func TestLastNodeIsGivenBack(t *testing.T) {
	r := newRolling(t, api.Rollout{OnFailure: api.OnFailureRollback})
	r.m.Nodes = slices.Clone(r.m.Nodes)
	last := &r.m.Nodes[len(r.m.Nodes)-1]
	last.Process.Config = map[string]string{"num.io.threads": "99"}
	r.w.Accept("r2", r.m)
	r.w.Spoil(layout.ProcessHash(last.Process))
	r.until("it is over", r.is(rollout2, api.OperationFailed))
	r.rest(10)
	r.restarted(0, 0, 0, 0, 2)
	if back := r.w.See().Nodes[7]; !back.Status.Ready || back.Spec.Revision != "r1" {
		t.Errorf("node %d is %s at %s", back.Spec.NodeID, back.Status.State, back.Spec.Revision)
	}
}
