package operator

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
)

// operationsPort keeps the Operations of clusters.
type operationsPort struct {
	client client.Client
	live   client.Reader
}

// List implements engine.Operations. A user's Operation has no label: its spec says whose it is.
func (o operationsPort) List(ctx context.Context, of *api.KafkaCluster, how engine.Freshness) ([]api.Operation, error) {
	from := client.Reader(o.client)
	if how == engine.Fresh {
		from = o.live
	}
	var list api.OperationList
	if err := from.List(ctx, &list, client.InNamespace(of.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	var ours []api.Operation
	for i := range list.Items {
		if op := &list.Items[i]; op.Spec.ClusterRef.Name == of.Name && !ownedByAnother(op, of.UID) {
			ours = append(ours, *op.DeepCopy())
		}
	}
	slices.SortFunc(ours, func(a, b api.Operation) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return ours, nil
}

// ownedByAnother says whether an Operation belongs to an earlier cluster of the same name,
// with which it is being collected.
func ownedByAnother(op *api.Operation, cluster types.UID) bool {
	return slices.ContainsFunc(op.OwnerReferences, func(r metav1.OwnerReference) bool {
		return r.Kind == clusterKind && r.UID != cluster
	})
}

const clusterKind = "KafkaCluster"

// adopt lets an Operation go with its cluster, and not without us.
func adopt(op *api.Operation, of *api.KafkaCluster) {
	if op.Labels == nil {
		op.Labels = map[string]string{}
	}
	op.Labels[LabelCluster] = of.Name
	controllerutil.AddFinalizer(op, plan.OperationFinalizer)
	if !slices.ContainsFunc(op.OwnerReferences, func(r metav1.OwnerReference) bool { return r.UID == of.UID }) {
		// It does not block the deletion of the cluster, so that it needs no right on that one's finalizers.
		op.OwnerReferences = append(op.OwnerReferences, metav1.OwnerReference{
			APIVersion: api.GroupVersion.String(), Kind: clusterKind, Name: of.Name, UID: of.UID,
		})
	}
}

// Create implements engine.Operations.
func (o operationsPort) Create(ctx context.Context, of *api.KafkaCluster, op *api.Operation) error {
	op = op.DeepCopy()
	op.Namespace = of.Namespace
	adopt(op, of)
	err := o.client.Create(ctx, op, fieldOwner)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	is := &api.Operation{}
	if err := o.live.Get(ctx, client.ObjectKeyFromObject(op), is); err != nil {
		return fmt.Errorf("read Operation %s, which exists: %w", op.Name, err)
	}
	if is.DeletionTimestamp != nil || ownedByAnother(is, of.UID) || !sameTask(is.Spec, op.Spec) {
		return fmt.Errorf("an Operation %s exists already and is about something else; delete it if nobody needs it: kubectl delete operation %s -n %s", op.Name, op.Name, op.Namespace)
	}
	return nil
}

// sameTask compares what an Operation is about; the rest of its spec is a user's to change.
func sameTask(a, b api.OperationSpec) bool {
	return a.ClusterRef == b.ClusterRef && a.Type == b.Type && a.ToRevision == b.ToRevision &&
		equality.Semantic.DeepEqual(a.Nodes, b.Nodes) && equality.Semantic.DeepEqual(a.From, b.From) &&
		equality.Semantic.DeepEqual(a.Rebalance, b.Rebalance)
}

// Record implements engine.Operations.
func (o operationsPort) Record(ctx context.Context, op *api.Operation) error {
	_, err := o.change(ctx, op, func(now *api.Operation) {
		now.Spec.From, now.Spec.SoakSince, now.Spec.Begun, now.Spec.HeldUp = op.Spec.From, op.Spec.SoakSince, op.Spec.Begun, op.Spec.HeldUp
	})
	return err
}

// Report implements engine.Operations.
func (o operationsPort) Report(ctx context.Context, of *api.KafkaCluster, op *api.Operation, status api.OperationStatus, free bool) (was *api.OperationStatus, err error) {
	now, err := o.change(ctx, op, func(now *api.Operation) {
		if !free && now.DeletionTimestamp == nil {
			adopt(now, of)
		}
	})
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // nobody is left to tell
	}
	if err != nil {
		return nil, err
	}
	if !engine.SameReport(now.Status, status) {
		before := now.DeepCopy()
		now.Status = status
		if err := o.client.Status().Patch(ctx, now, client.MergeFrom(before), fieldOwner); err != nil {
			return nil, client.IgnoreNotFound(err)
		}
		was = &before.Status
	}
	if !free {
		return was, nil
	}
	return was, o.free(ctx, now)
}

// free takes the finalizer off.
func (o operationsPort) free(ctx context.Context, op *api.Operation) error {
	_, err := o.change(ctx, op, func(now *api.Operation) { controllerutil.RemoveFinalizer(now, plan.OperationFinalizer) })
	return client.IgnoreNotFound(err)
}

// change changes an Operation as it is now, if it still is the same one, and returns it. What
// is so already is not written.
func (o operationsPort) change(ctx context.Context, op *api.Operation, change func(*api.Operation)) (*api.Operation, error) {
	now := &api.Operation{}
	// A user may decide something between our read and our write.
	return now, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := o.live.Get(ctx, client.ObjectKeyFromObject(op), now); err != nil {
			return err
		}
		if op.UID != "" && now.UID != op.UID {
			return apierrors.NewNotFound(api.GroupVersion.WithResource("operations").GroupResource(), op.Name)
		}
		before := now.DeepCopy()
		if change(now); same(before, now) {
			return nil
		}
		return o.client.Patch(ctx, now, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), fieldOwner)
	})
}

// Delete implements engine.Operations.
func (o operationsPort) Delete(ctx context.Context, op *api.Operation) error {
	err := o.client.Delete(ctx, op, client.Preconditions{UID: &op.UID})
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	return o.free(ctx, op)
}

// clusterOfOperation finds the cluster that an Operation is about, whether it exists or not.
func clusterOfOperation(_ context.Context, o client.Object) []reconcile.Request {
	op, ok := o.(*api.Operation)
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: op.Namespace, Name: op.Spec.ClusterRef.Name}}}
}

// strays sees to the Operations that name a cluster and belong to none: those that an earlier
// one left go, and others are told that there is none. kc is nil when there is none of that name.
func (o operationsPort) strays(ctx context.Context, cluster types.NamespacedName, kc *api.KafkaCluster) error {
	var list api.OperationList
	if err := o.client.List(ctx, &list, client.InNamespace(cluster.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list the Operations of namespace %s: %w", cluster.Namespace, err)
	}
	for i := range list.Items {
		op := &list.Items[i]
		if op.Spec.ClusterRef.Name != cluster.Name || kc != nil && !ownedByAnother(op, kc.UID) {
			continue
		}
		if err := o.stray(ctx, op.DeepCopy(), kc == nil); err != nil {
			return fmt.Errorf("see to Operation %s, whose cluster is gone: %w", op.Name, err)
		}
	}
	return nil
}

func (o operationsPort) stray(ctx context.Context, op *api.Operation, alone bool) error {
	if op.DeletionTimestamp != nil {
		if controllerutil.ContainsFinalizer(op, plan.OperationFinalizer) {
			return o.free(ctx, op)
		}
		return nil
	}
	if !alone || op.Status.Phase.Final() {
		return nil // garbage collection deletes what was owned
	}
	before := op.DeepCopy()
	op.Status.Phase, op.Status.ObservedGeneration = api.OperationPending, op.Generation
	op.Status.Message = fmt.Sprintf("there is no KafkaCluster %s in namespace %s: create it, or delete this Operation", op.Spec.ClusterRef.Name, op.Namespace)
	if engine.SameReport(before.Status, op.Status) {
		return nil
	}
	return client.IgnoreNotFound(o.client.Status().Patch(ctx, op, client.MergeFrom(before), fieldOwner))
}

// tellOperations records how Operations went on as events, on them and on the cluster.
func (r *clusterReconciler) tellOperations(ctx context.Context, kc *api.KafkaCluster, changed []engine.OperationChange) {
	for i := range changed {
		op := &changed[i].Operation
		r.log.InfoContext(ctx, "operation", slog.String("cluster", kc.Namespace+"/"+kc.Name), slog.String("operation", op.Name),
			slog.String("phase", string(op.Status.Phase)), slog.String("message", op.Status.Message))
		kind, reason := eventType(op), "Operation"+string(op.Status.Phase)
		note := truncate(op.Status.Message, 900)
		r.events.Eventf(op, kc, kind, reason, reason, "%s", note)
		r.events.Eventf(kc, op, kind, reason, reason, "%s: %s", op.Name, note)
	}
}

// eventType is a warning where a node or the whole failed.
func eventType(op *api.Operation) string {
	failed := slices.ContainsFunc(op.Status.Nodes, func(n api.OperationNode) bool {
		return n.State == api.OperationNodeFailed || n.State == api.OperationNodeTimedOut
	})
	if op.Status.Phase == api.OperationFailed || op.Status.Phase == api.OperationPaused && failed {
		return corev1.EventTypeWarning
	}
	return corev1.EventTypeNormal
}
