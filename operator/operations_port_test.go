package operator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
)

// operated is the port on a real API server, with the rights of an installation.
type operated struct {
	boundOperator
	port operationsPort
	kc   *api.KafkaCluster
}

// TestOperationsPort is one story, since a control plane takes seconds to start.
func TestOperationsPort(t *testing.T) {
	o := operated{boundOperator: newBoundOperator(t), kc: &api.KafkaCluster{}}
	if err := o.admin.Get(t.Context(), client.ObjectKey{Namespace: "kafka", Name: "orders"}, o.kc); err != nil {
		t.Fatal(err)
	}
	o.port = operationsPort{client: o.client, live: o.client}
	o.made()
	o.recorded()
	o.reported()
	o.dismissed()
	o.ofAnother()
	o.held()
	o.moves()
	o.moved()
	o.schema()
	o.leftBehind()
}

func (o operated) get(name string) *api.Operation {
	o.t.Helper()
	op := &api.Operation{}
	if err := o.admin.Get(o.t.Context(), client.ObjectKey{Namespace: "kafka", Name: name}, op); err != nil {
		o.t.Fatal(err)
	}
	return op
}

func (o operated) list() []string {
	o.t.Helper()
	list, err := o.port.List(o.t.Context(), o.kc, engine.Fresh)
	if err != nil {
		o.t.Fatal(err)
	}
	var names []string
	for i := range list {
		names = append(names, list[i].Name)
	}
	return names
}

func rollout(name string) *api.Operation {
	return &api.Operation{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: name},
		Spec: api.OperationSpec{
			ClusterRef: api.ClusterRef{Name: "orders"}, Type: api.OperationRollout, ToRevision: "orders-2",
			From: []api.OperationOrigin{{ID: 0, Revision: "orders-1"}},
		},
	}
}

// made: to make it again is a success, also after a user has decided something.
func (o operated) made() {
	o.t.Helper()
	ctx := o.t.Context()
	create := func(change func(*api.Operation)) error {
		op := rollout("orders-rollout-2")
		change(op)
		return o.port.Create(ctx, o.kc, op)
	}
	if err := create(func(*api.Operation) {}); err != nil {
		o.t.Fatal(err)
	}
	op := o.get("orders-rollout-2")
	if !slices.Contains(op.Finalizers, plan.OperationFinalizer) || op.Labels[LabelCluster] != "orders" || len(op.OwnerReferences) != 1 || op.OwnerReferences[0].UID != o.kc.UID {
		o.t.Errorf("%+v", op.ObjectMeta)
	}
	op.Spec.Paused = true
	if err := o.admin.Update(ctx, op); err != nil {
		o.t.Fatal(err)
	}
	if err := create(func(*api.Operation) {}); err != nil || !o.get(op.Name).Spec.Paused {
		o.t.Errorf("the same once more: %v", err)
	}
	err := create(func(op *api.Operation) { op.Spec.ToRevision = "orders-3" })
	if err == nil || !strings.Contains(err.Error(), "exists already and is about something else; delete it if nobody needs it: kubectl delete operation orders-rollout-2 -n kafka") {
		o.t.Errorf("another one of that name: %v", err)
	}
}

// recorded: what a user decided since the pass read it stands.
func (o operated) recorded() {
	o.t.Helper()
	seen := o.get("orders-rollout-2")
	now := seen.DeepCopy()
	now.Spec.IgnoredNodes, now.Spec.Paused = []int32{2}, false
	if err := o.admin.Update(o.t.Context(), now); err != nil {
		o.t.Fatal(err)
	}
	seen.Spec.SoakSince = &metav1.Time{Time: time.Unix(1700000000, 0)}
	for range 2 {
		if err := o.port.Record(o.t.Context(), seen); err != nil {
			o.t.Fatal(err)
		}
	}
	op := o.get(seen.Name)
	if op.Spec.SoakSince == nil || op.Spec.SoakSince.Unix() != 1700000000 || op.Spec.Paused || len(op.Spec.IgnoredNodes) != 1 || len(op.Spec.From) != 1 {
		o.t.Errorf("%+v", op.Spec)
	}
}

// reported: only what is new is written, and a user's Operation is kept from then on.
func (o operated) reported() {
	o.t.Helper()
	ctx := o.t.Context()
	asked := &api.Operation{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "again"},
		Spec:       api.OperationSpec{ClusterRef: api.ClusterRef{Name: "orders"}, Type: api.OperationRestart},
	}
	o.create(asked)
	status := api.OperationStatus{
		Phase: api.OperationRunning, Message: "changing node 0", StartedAt: &metav1.Time{Time: time.Unix(1700000000, 999)},
		Nodes: []api.OperationNode{{ID: 0, State: api.OperationNodeRunning}},
	}
	was, err := o.port.Report(ctx, o.kc, asked, status, false)
	if err != nil || was == nil || was.Phase != "" {
		o.t.Fatalf("%+v, %v", was, err)
	}
	op := o.get("again")
	if op.Status.Message != status.Message || len(op.Status.Nodes) != 1 || !slices.Contains(op.Finalizers, plan.OperationFinalizer) || len(op.OwnerReferences) != 1 || op.Labels[LabelCluster] != "orders" {
		o.t.Errorf("%+v", op)
	}
	was, err = o.port.Report(ctx, o.kc, asked, status, false) // as seen before the first report
	if again := o.get("again"); err != nil || was != nil || again.ResourceVersion != op.ResourceVersion {
		o.t.Errorf("written twice: %+v, %v", was, err)
	}
	if got := o.list(); !slices.Equal(got, []string{"again", "orders-rollout-2"}) && !slices.Equal(got, []string{"orders-rollout-2", "again"}) {
		o.t.Errorf("listed %v", got)
	}
}

// dismissed: a deletion waits until the operation is free.
func (o operated) dismissed() {
	o.t.Helper()
	ctx := o.t.Context()
	op := o.get("again")
	if err := o.admin.Delete(ctx, op); err != nil {
		o.t.Fatal(err)
	}
	if op = o.get("again"); op.DeletionTimestamp == nil || op.Generation != 2 {
		o.t.Errorf("a deletion is no new generation, so nobody is told: %+v", op.ObjectMeta)
	}
	over := api.OperationStatus{Phase: api.OperationCancelled, Message: "it was deleted"}
	was, err := o.port.Report(ctx, o.kc, op, over, true)
	if err != nil || was == nil || was.Phase != api.OperationRunning {
		o.t.Errorf("%+v, %v", was, err)
	}
	if err := o.admin.Get(ctx, client.ObjectKeyFromObject(op), &api.Operation{}); !apierrors.IsNotFound(err) {
		o.t.Errorf("still there: %v", err)
	}
	if was, err := o.port.Report(ctx, o.kc, op, over, true); was != nil || err != nil {
		o.t.Errorf("one that is gone: %+v, %v", was, err)
	}
	for range 2 { // to repeat it is a success
		if err := o.port.Delete(ctx, rolloutSeen(o)); err != nil {
			o.t.Fatal(err)
		}
	}
	if got := o.list(); len(got) > 0 {
		o.t.Errorf("left %v", got)
	}
}

// rolloutSeen is the first Operation as a pass saw it, which may be gone.
func rolloutSeen(o operated) *api.Operation {
	op := rollout("orders-rollout-2")
	_ = o.admin.Get(o.t.Context(), client.ObjectKeyFromObject(op), op) // gone the second time
	return op
}

// ofAnother: those of an earlier cluster of the same name are no part of this one, and go.
func (o operated) ofAnother() {
	o.t.Helper()
	ctx := o.t.Context()
	earlier := o.kc.DeepCopy()
	earlier.UID = "11111111-1111-1111-1111-111111111111"
	if err := o.port.Create(ctx, earlier, rollout("orders-rollout-2")); err != nil {
		o.t.Fatal(err)
	}
	if got := o.list(); len(got) > 0 {
		o.t.Errorf("another cluster's are listed: %v", got)
	}
	if err := o.port.Create(ctx, o.kc, rollout("orders-rollout-2")); err == nil {
		o.t.Error("another cluster's counts as made")
	}
	op := o.get("orders-rollout-2")
	if err := client.IgnoreNotFound(o.admin.Delete(ctx, op)); err != nil {
		o.t.Fatal(err)
	}
	name := types.NamespacedName{Namespace: "kafka", Name: "orders"}
	if err := o.port.strays(ctx, name, o.kc); err != nil {
		o.t.Fatal(err)
	}
	if err := o.admin.Get(ctx, client.ObjectKeyFromObject(op), op); !apierrors.IsNotFound(err) {
		o.t.Errorf("nobody frees it: %v", err)
	}
}

// held: a revision is held, and let go on.
func (o operated) held() {
	o.t.Helper()
	ctx := o.t.Context()
	port := revisionsPort{client: o.client, live: o.client}
	rev := &api.ClusterRevision{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-2"},
		Spec:       api.ClusterRevisionSpec{ClusterName: "orders", Number: 2, Generation: 2, Digest: "sha256:0", Cluster: o.kc.Spec},
	}
	if err := port.Create(ctx, o.kc, rev); err != nil {
		o.t.Fatal(err)
	}
	for _, hold := range []*api.RevisionHold{{Operation: "orders-rollout-2", Reason: "it was cancelled", Since: metav1.Unix(1700000000, 0)}, nil} {
		if err := port.SetHeld(ctx, rev, hold); err != nil {
			o.t.Fatal(err)
		}
		is := &api.ClusterRevision{}
		if err := o.admin.Get(ctx, client.ObjectKeyFromObject(rev), is); err != nil {
			o.t.Fatal(err)
		}
		if (hold == nil) != (is.Spec.Held == nil) || hold != nil && is.Spec.Held.Reason != hold.Reason {
			o.t.Errorf("held %+v, want %+v", is.Spec.Held, hold)
		}
	}
}

// leftBehind: a cluster that went by force leaves an Operation, which is freed, and the operator
// has its rights until then.
func (o operated) leftBehind() {
	o.t.Helper()
	ctx := o.t.Context()
	b := o.serving("kafka")
	o.eventually("rights are in force", func(ctx context.Context) error { return b.hold(ctx, "kafka") })
	if err := o.port.Create(ctx, o.kc, rollout("left")); err != nil {
		o.t.Fatal(err)
	}
	before := o.kc.DeepCopy()
	o.kc.Finalizers = nil
	if err := errors.Join(o.admin.Patch(ctx, o.kc, client.MergeFrom(before)), o.admin.Delete(ctx, o.kc)); err != nil {
		o.t.Fatal(err)
	}
	if err := b.release(ctx, "kafka"); err != nil || !o.boundOperator.held() {
		o.t.Fatalf("rights are given up while an Operation is kept: %v", err)
	}
	o.eventually("the Operation is collected and freed", func(ctx context.Context) error {
		if err := o.port.strays(ctx, client.ObjectKeyFromObject(o.kc), nil); err != nil {
			return err
		}
		left, err := o.port.List(ctx, o.kc, engine.Fresh)
		if err == nil && len(left) > 0 {
			return errors.New("still there")
		}
		return err
	})
	if err := b.release(ctx, "kafka"); err != nil || o.boundOperator.held() {
		o.t.Errorf("rights are kept for nothing: %v", err)
	}
}

func TestEventTypeOfOperations(t *testing.T) {
	failed := []api.OperationNode{{ID: 1, State: api.OperationNodeTimedOut}}
	for _, c := range []struct {
		reason string
		phase  api.OperationPhase
		nodes  []api.OperationNode
		want   string
	}{
		{"it goes on in spite of a failure that is tolerated", api.OperationRunning, failed, corev1.EventTypeNormal},
		{"somebody paused it", api.OperationPaused, nil, corev1.EventTypeNormal},
		{"it waits since a node failed", api.OperationPaused, failed, corev1.EventTypeWarning},
		{"it failed", api.OperationFailed, nil, corev1.EventTypeWarning},
		{"somebody cancelled it", api.OperationCancelled, failed, corev1.EventTypeNormal},
	} {
		if got := eventType(&api.Operation{Status: api.OperationStatus{Phase: c.phase, Nodes: c.nodes}}); got != c.want {
			t.Errorf("%s: %s, want %s", c.reason, got, c.want)
		}
	}
}
