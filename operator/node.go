package operator

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "castellan.dev/castellan/api/v1alpha1"
	corehost "castellan.dev/castellan/core/host"
	hostsub "castellan.dev/castellan/substrate/host"
)

// nodeReconciler realizes KafkaNodes and reports what they are. It asks nobody: what the
// spec says is made so at once.
type nodeReconciler struct {
	client client.Client
	hosts  *hostsub.Realizer
	log    *slog.Logger
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
	if err := r.hosts.Apply(ctx, *node); err != nil {
		return reconcile.Result{}, err
	}
	status, err := r.hosts.Status(ctx, *node)
	if err != nil {
		return reconcile.Result{}, err
	}
	if err := r.report(ctx, node, status); err != nil {
		return reconcile.Result{}, err
	}
	_, until, err := r.hosts.Alive(ctx, node.Spec.Host)
	if err != nil {
		return reconcile.Result{}, err
	}
	// A silent host makes no event; look when its Lease would have ended.
	again := max(time.Until(until)+time.Second, 5*time.Second)
	return reconcile.Result{RequeueAfter: again}, nil
}

func (r *nodeReconciler) remove(ctx context.Context, node *api.KafkaNode) (reconcile.Result, error) {
	if !controllerutil.ContainsFinalizer(node, nodeFinalizer) {
		return reconcile.Result{}, nil
	}
	data := api.DeletionRetain
	if node.Annotations[removeData] == "true" {
		data = api.DeletionDelete
	}
	gone, err := r.hosts.Remove(ctx, *node, data)
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
	return ctrl.NewControllerManagedBy(mgr).
		Named("kafkanode").
		For(&api.KafkaNode{}).
		Watches(&api.HostProcess{}, handler.EnqueueRequestsFromMapFunc(nodeOfProcess)).
		Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.nodeOfSecret)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
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
	var nodes api.KafkaNodeList
	if err := r.client.List(ctx, &nodes, client.InNamespace(o.GetNamespace())); err != nil {
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
