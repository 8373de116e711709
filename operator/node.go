package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	api "castellan.dev/castellan/api/v1alpha1"
	corehost "castellan.dev/castellan/core/host"
	"castellan.dev/castellan/engine"
	"castellan.dev/castellan/pki"
	kubesub "castellan.dev/castellan/substrate/kube"
)

// nodeReconciler realizes KafkaNodes and reports what they are. It asks nobody: what the
// spec says is made so at once.
type nodeReconciler struct {
	client client.Client
	on     substrates
	// reports are nodes of which a supervisor said something new.
	reports chan event.TypedGenericEvent[types.NamespacedName]
	log     *slog.Logger
}

// Reconcile realizes one node.
func (r *nodeReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	node := &api.KafkaNode{}
	if err := r.client.Get(ctx, req.NamespacedName, node); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if node.DeletionTimestamp != nil {
		return r.remove(ctx, node)
	}
	on := r.on.of(node)
	applied := on.Apply(ctx, *node)
	status, err := on.Status(ctx, *node, engine.Cached)
	if err != nil {
		return reconcile.Result{}, errors.Join(applied, err)
	}
	if applied != nil && !status.Ready {
		// What keeps a node from being made is what it waits for.
		status.Reason, status.Message = reasonNotApplied, applied.Error()
	}
	if err := errors.Join(r.report(ctx, node, status), applied); err != nil {
		return reconcile.Result{}, err
	}
	again, err := r.again(ctx, node, status.Ready)
	return reconcile.Result{RequeueAfter: again}, err
}

// reasonNotApplied is why a node waits whose objects the API server does not take.
const reasonNotApplied = "NotApplied"

// again is when to look without an event. A silent host makes none: look when its Lease
// would have ended. Pods make them; only why one does not start stands in Events of
// Kubernetes, which nobody watches.
func (r *nodeReconciler) again(ctx context.Context, node *api.KafkaNode, ready bool) (time.Duration, error) {
	switch {
	case isPod(node) && ready:
		return resync, nil
	case isPod(node):
		return resync / 2, nil
	}
	_, until, err := r.on.hosts.Alive(ctx, node.Spec.Host)
	return max(time.Until(until)+time.Second, 5*time.Second), err
}

func (r *nodeReconciler) remove(ctx context.Context, node *api.KafkaNode) (reconcile.Result, error) {
	if !controllerutil.ContainsFinalizer(node, nodeFinalizer) {
		return reconcile.Result{}, nil
	}
	data := api.DeletionRetain
	if node.Annotations[removeData] == "true" {
		data = api.DeletionDelete
	}
	gone, err := r.on.of(node).Remove(ctx, *node, data)
	if err != nil {
		return reconcile.Result{}, err
	}
	if !gone {
		return reconcile.Result{RequeueAfter: 2 * time.Second}, nil
	}
	before := node.DeepCopy()
	controllerutil.RemoveFinalizer(node, nodeFinalizer)
	if err := r.client.Patch(ctx, node, client.MergeFrom(before), fieldOwner); client.IgnoreNotFound(err) != nil {
		return reconcile.Result{}, fmt.Errorf("let KafkaNode %s go: %w", node.Name, err)
	}
	r.log.InfoContext(ctx, "node removed", slog.String("node", node.Namespace+"/"+node.Name), slog.String("data", string(data)))
	return reconcile.Result{}, nil
}

func (r *nodeReconciler) report(ctx context.Context, node *api.KafkaNode, status api.KafkaNodeStatus) error {
	if equality.Semantic.DeepEqual(node.Status, status) {
		return nil
	}
	before := node.DeepCopy()
	node.Status = status
	err := r.client.Status().Patch(ctx, node, client.MergeFrom(before), fieldOwner)
	return client.IgnoreNotFound(err)
}

func (r *nodeReconciler) setup(mgr ctrl.Manager) error {
	b := ctrl.NewControllerManagedBy(mgr).
		Named("kafkanode").
		For(&api.KafkaNode{}).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.nodeOfSecret)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers})
	if r.on.hosts != nil {
		b.Watches(&api.HostProcess{}, handler.EnqueueRequestsFromMapFunc(nodeOfProcess))
	}
	if r.on.pods != nil {
		for _, kind := range kubesub.WatchedByNode() {
			b.Watches(kind, handler.EnqueueRequestsFromMapFunc(kubesub.NodeRequests))
		}
		if r.on.pods.Sees().Machines {
			b.Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.on.pods.MachineRequests), builder.WithPredicates(kubesub.MachineChanged()))
		}
		b.WatchesRawSource(source.TypedChannel(r.reports, reportedNode{}))
	}
	return b.Complete(r)
}

// reported is told of nodes of which a supervisor says something new.
func (r *nodeReconciler) reported(node types.NamespacedName) {
	r.reports <- event.TypedGenericEvent[types.NamespacedName]{Object: node}
}

// reportedNode asks to look at the node that a report is about.
type reportedNode struct {
	handler.TypedFuncs[types.NamespacedName, reconcile.Request]
}

// Generic implements handler.TypedEventHandler.
func (reportedNode) Generic(_ context.Context, e event.TypedGenericEvent[types.NamespacedName], queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	queue.Add(reconcile.Request{NamespacedName: e.Object})
}

func nodeOfProcess(_ context.Context, o client.Object) []reconcile.Request {
	process, ok := o.(*api.HostProcess)
	if !ok || process.Spec.Owner.Kind != "KafkaNode" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: process.Spec.Owner.Namespace, Name: process.Spec.Owner.Name}}}
}

// nodeOfSecret finds the node whose certificate a Secret holds; a renewed one must reach
// the host at once.
func (r *nodeReconciler) nodeOfSecret(ctx context.Context, o client.Object) []reconcile.Request {
	cluster := o.GetLabels()[pki.LabelCluster]
	if cluster == "" {
		return nil
	}
	var nodes api.KafkaNodeList
	// They are only read here: no copies.
	if err := r.client.List(ctx, &nodes, client.InNamespace(o.GetNamespace()), client.MatchingLabels{LabelCluster: cluster}, client.UnsafeDisableDeepCopy); err != nil {
		return nil
	}
	var requests []reconcile.Request
	for i := range nodes.Items {
		n := &nodes.Items[i]
		if corehost.SecretName(n.Spec.ClusterName, n.Spec.NodeID) == o.GetName() {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(n)})
		}
	}
	return requests
}
