package plan_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/core/sim"
)

// FuzzOperations plays what users do to operations, beside faults and passes that are cut off
// anywhere: nothing may ever be lost, and once somebody decides, everything comes to rest.
func FuzzOperations(f *testing.F) {
	f.Add([]byte("pause, resume, cancel, and all of it again"))
	f.Add([]byte("a retry of what was deleted while it failed"))
	f.Add([]byte{0x00, 0x10, 0x21, 0x32, 0x43, 0x54, 0x65, 0x76, 0x87, 0x98, 0xa9, 0xba, 0xcb, 0xdc, 0xed, 0xfe})
	f.Add([]byte{0x10, 0x02, 0xa4, 0x15, 0x27, 0x31, 0x49, 0x5b, 0x6d, 0x7f, 0x81, 0x93})
	f.Fuzz(func(t *testing.T, events []byte) {
		if len(events) > 120 {
			events = events[:120]
		}
		o := newOperated(t, events)
		for _, e := range events {
			o.event(e)
			o.cut(int(e>>5) % 4)
		}
		o.rest()
	})
}

type operated struct {
	*rolling
	good      cluster.Model
	revisions int
	asked     int
	broken    int32
}

func newOperated(t *testing.T, events []byte) *operated {
	t.Helper()
	policies := []api.Rollout{
		{},
		{OnFailure: api.OnFailureRollback},
		{PauseAfter: []string{"FirstNode", "EachRack"}},
		{Approval: api.ApprovalManual},
		{MaxFailures: 1, NodeTimeout: &metav1.Duration{Duration: 20 * time.Second}},
		{Windows: []api.Window{{Schedule: "*/2 * * * *", Duration: metav1.Duration{Duration: time.Minute}}}},
	}
	r := newRolling(t, policies[len(events)%len(policies)])
	return &operated{rolling: r, good: r.m, revisions: 1, broken: -1}
}

// newest Operation that is not over, or the newest of all.
func (o *operated) newest() *api.Operation {
	for _, op := range slices.Backward(o.w.Operations()) {
		if !op.Status.Phase.Final() {
			return o.w.Operation(op.Name)
		}
	}
	return nil
}

func (o *operated) event(e byte) {
	id := o.m.Nodes[int(e>>4)%len(o.m.Nodes)].ID
	op := o.newest()
	switch e % 16 {
	case 0, 1, 2:
		o.next(fmt.Sprint(8 + int(e>>4)%3))
	case 3:
		o.ask(api.OperationSpec{Type: api.OperationRestart, Nodes: []int32{id}})
	case 4:
		o.ask(api.OperationSpec{Type: api.OperationRollout, ToRevision: o.w.Revision})
	case 5:
		if o.broken < 0 {
			o.broken = id
			o.w.Break(id, true)
		}
	case 6:
		o.w.Spoil(layout.ProcessHash(o.m.Nodes[3].Process))
	case 7:
		o.w.Silence(id, e&16 != 0)
	case 8:
		o.w.Crash(id)
	default:
		if op != nil {
			o.touch(op, e, id)
		}
	}
}

func (o *operated) touch(op *api.Operation, e byte, id int32) {
	switch e % 16 {
	case 9:
		op.Spec.Paused = !op.Spec.Paused
	case 10:
		op.Spec.Cancelled = true
	case 11:
		o.w.DeleteOperation(op.Name)
	case 12:
		op.Spec.IgnoredNodes = []int32{id}
	case 13:
		o.retry(op)
	case 14:
		op.Spec.ApprovedPlan = op.Status.PlanDigest
	case 15:
		o.resume(op)
	}
}

func (o *operated) resume(op *api.Operation) {
	op.Spec.Paused = false
	if p := op.Status.Point; p != "" && !slices.Contains(op.Spec.Passed, p) {
		op.Spec.Passed = append(op.Spec.Passed, p)
	}
}

func (o *operated) retry(op *api.Operation) {
	for _, n := range op.Status.Nodes {
		if n.State != api.OperationNodeFailed && n.State != api.OperationNodeTimedOut {
			continue
		}
		i := slices.IndexFunc(op.Spec.Retry, func(r api.OperationRetry) bool { return r.ID == n.ID })
		if i < 0 {
			op.Spec.Retry = append(op.Spec.Retry, api.OperationRetry{ID: n.ID, Attempt: 1})
		} else if op.Spec.Retry[i].Attempt == n.Attempt {
			op.Spec.Retry[i].Attempt++
		}
	}
}

func (o *operated) ask(spec api.OperationSpec) {
	o.asked++
	spec.ClusterRef.Name = "orders"
	o.w.AddOperation(api.Operation{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("asked-%d", o.asked)}, Spec: spec})
}

func (o *operated) next(threads string) {
	o.revisions++
	o.accept(fmt.Sprintf("r%d", o.revisions), threads)
}

func (o *operated) cut(steps int) {
	p := plan.Compute(o.m, o.w.See(), o.w.Now)
	for i, s := range p.Steps {
		if steps > 0 && i >= steps {
			break
		}
		o.w.Do(s)
	}
	if steps != 1 {
		o.w.Report(p.Operations)
	}
	o.w.Tick()
	clean(o.t, o.w)
}

// rest mends what is broken and lets a user who wants the newest spec in force decide what he is asked.
func (o *operated) rest() {
	o.w.Mend()
	for _, n := range o.m.Nodes {
		o.w.Silence(n.ID, false)
	}
	o.next("77")
	for range 2500 {
		if p := o.pass(); p.Done() {
			break
		}
		open := false
		for _, listed := range o.w.Operations() {
			op := o.w.Operation(listed.Name)
			if op.Status.Phase.Final() {
				continue
			}
			open = true
			o.resume(op)
			o.retry(op)
			if op.Status.PlanDigest != "" {
				op.Spec.ApprovedPlan = op.Status.PlanDigest
			}
		}
		if !open && o.w.Held(o.w.Revision) != nil {
			o.ask(api.OperationSpec{Type: api.OperationRollout, ToRevision: o.w.Revision})
		}
	}
	clean(o.t, o.w)
	settleOperated(o.t, o.w, o.m)
	for _, op := range o.w.Operations() {
		if !op.Status.Phase.Final() {
			o.t.Errorf("operation %s is %s: %s", op.Name, op.Status.Phase, op.Status.Message)
		}
		if op.DeletionTimestamp != nil {
			o.t.Errorf("operation %s was deleted and is still there", op.Name)
		}
	}
}

func settleOperated(t *testing.T, w *sim.World, m cluster.Model) {
	t.Helper()
	settle(t, w, m, 5)
	for _, n := range m.Nodes {
		process := n.Process
		for _, is := range w.See().Nodes {
			if is.Spec.NodeID == n.ID {
				process.Restart = is.Spec.Process.Restart
			}
		}
		if !w.Serving(n.ID) || w.Process(n.ID) != layout.ProcessHash(process) {
			t.Errorf("node %d does not run what is wanted", n.ID)
		}
	}
}
