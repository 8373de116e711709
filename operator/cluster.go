package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/health"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/pki"
	kubesub "castellan.dev/castellan/substrate/kube"
)

const (
	// clusterFinalizer keeps a KafkaCluster until its nodes have stopped in order.
	clusterFinalizer = "castellan.dev/cluster"
	// resync is how often a cluster at rest is looked at; only reads, while nothing changes.
	resync = 30 * time.Second
	// failedRetry is how soon a pass that could not be made is tried again.
	failedRetry = 5 * time.Second
	// workers is how many clusters are looked at side by side.
	workers = 4
)

// clusterReconciler calls a pass of the engine for a KafkaCluster.
type clusterReconciler struct {
	client  client.Client
	engine  *engine.Engine
	ops     operationsPort
	clients *kafka.Clients
	events  events.EventRecorder
	rights  *RightsCheck
	held    *bindings
	on      substrates
	log     *slog.Logger
}

// Reconcile makes one pass and reports it.
func (r *clusterReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	kc := &api.KafkaCluster{}
	// The engine reads it again past the cache before it does anything.
	if err := r.client.Get(ctx, req.NamespacedName, kc); apierrors.IsNotFound(err) {
		r.engine.Forget(req.NamespacedName)
		return reconcile.Result{}, errors.Join(r.ops.strays(ctx, req.NamespacedName, nil), r.held.release(ctx, req.Namespace))
	} else if err != nil {
		return reconcile.Result{}, err
	}
	if err := r.ops.strays(ctx, req.NamespacedName, kc); err != nil {
		return r.failed(ctx, kc, err)
	}
	if kc.DeletionTimestamp == nil {
		if err := r.held.hold(ctx, req.Namespace); err != nil {
			return r.failed(ctx, kc, err)
		}
		if err := r.patchFinalizer(ctx, kc, controllerutil.AddFinalizer); err != nil {
			return reconcile.Result{}, fmt.Errorf("add the finalizer to KafkaCluster %s: %w", req.NamespacedName, err)
		}
	}
	result, err := r.engine.Pass(ctx, kc)
	r.tellCertificates(ctx, kc, result.Certificates)
	if err != nil {
		return r.failed(ctx, kc, err)
	}
	if result.Gone {
		r.clients.Forget(req.String())
		return reconcile.Result{}, client.IgnoreNotFound(r.patchFinalizer(ctx, kc, controllerutil.RemoveFinalizer))
	}
	r.tell(ctx, kc, result.Done)
	r.tellOperations(ctx, kc, result.Changed)
	if err := r.report(ctx, kc, result.Status); err != nil {
		return reconcile.Result{}, err
	}
	again := result.Again
	if again == 0 {
		again = resync
	}
	return reconcile.Result{RequeueAfter: again}, nil
}

// patchFinalizer changes nothing but the finalizers: an update of the whole object would
// write a number of the user's spec back as text, and make it ours.
func (r *clusterReconciler) patchFinalizer(ctx context.Context, kc *api.KafkaCluster, change func(client.Object, string) bool) error {
	before := kc.DeepCopy()
	if !change(kc, clusterFinalizer) {
		return nil
	}
	return r.client.Patch(ctx, kc, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), fieldOwner)
}

// failed says in the status why no pass could be made; the next try comes soon.
func (r *clusterReconciler) failed(ctx context.Context, kc *api.KafkaCluster, err error) (reconcile.Result, error) {
	r.log.WarnContext(ctx, "pass failed", slog.String("cluster", kc.Namespace+"/"+kc.Name), slog.Any("error", err))
	r.rights.Note(err)
	why := append(r.rights.Missing(ctx, kc.Namespace), err.Error())
	status := *kc.Status.DeepCopy()
	health.PassFailed(&status, kc.Generation, strings.Join(why, "; "))
	if err := r.report(ctx, kc, status); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: failedRetry}, nil
}

// tell records what was done as events and in the log.
func (r *clusterReconciler) tell(ctx context.Context, kc *api.KafkaCluster, steps []plan.Step) {
	for _, s := range steps {
		r.log.InfoContext(ctx, "step", slog.String("cluster", kc.Namespace+"/"+kc.Name), slog.String("kind", string(s.Kind)), slog.Int("node", int(s.Node)), slog.String("reason", s.Reason))
		if s.Kind == plan.UpdateLive {
			continue
		}
		note := s.Reason
		if s.Node >= 0 {
			note = fmt.Sprintf("node %d: %s", s.Node, s.Reason)
		}
		r.events.Eventf(kc, nil, corev1.EventTypeNormal, string(s.Kind), string(s.Kind), "%s", truncate(note, 1000))
	}
}

// tellCertificates records what was done to the certificates.
func (r *clusterReconciler) tellCertificates(ctx context.Context, kc *api.KafkaCluster, steps []engine.CertificateStep) {
	for _, s := range steps {
		r.log.InfoContext(ctx, "certificates", slog.String("cluster", kc.Namespace+"/"+kc.Name), slog.String("kind", s.Action), slog.String("reason", s.Reason))
		r.events.Eventf(kc, nil, corev1.EventTypeNormal, s.Action, s.Action, "%s", truncate(s.Reason, 1000))
	}
}

func truncate(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most]
}

// report writes the status if it says something new.
func (r *clusterReconciler) report(ctx context.Context, kc *api.KafkaCluster, status api.KafkaClusterStatus) error {
	before := kc.DeepCopy()
	conditions := kc.Status.Conditions
	for _, c := range status.Conditions {
		meta.SetStatusCondition(&conditions, c)
	}
	kc.Status = status
	kc.Status.Conditions = conditions
	kc.Status.Unmanaged = before.Status.Unmanaged // it is written with topics and users
	if equality.Semantic.DeepEqual(before.Status, kc.Status) {
		return nil
	}
	if err := r.client.Status().Patch(ctx, kc, client.MergeFrom(before), fieldOwner); err != nil {
		return client.IgnoreNotFound(err)
	}
	return nil
}

func (r *clusterReconciler) setup(mgr ctrl.Manager) error {
	b := ctrl.NewControllerManagedBy(mgr).
		Named("kafkacluster").
		For(&api.KafkaCluster{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Watches(&api.KafkaNode{}, handler.EnqueueRequestsFromMapFunc(clusterOfNode)).
		// A deletion with a finalizer is a new generation too; a status is only ours.
		Watches(&api.Operation{}, handler.EnqueueRequestsFromMapFunc(clusterOfOperation), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers})
	// Where pods alone are served the cache holds only Secrets of ours: there the resync
	// finds what the user's hold.
	b.Watches(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.clustersOfSecret))
	if r.on.hosts != nil {
		b.Watches(&api.Package{}, handler.EnqueueRequestsFromMapFunc(r.everyCluster)).
			Watches(&api.Host{}, handler.EnqueueRequestsFromMapFunc(r.everyCluster), builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.LabelChangedPredicate{})))
	}
	if r.on.pods != nil {
		for _, kind := range kubesub.WatchedByCluster() {
			b.Watches(kind, handler.EnqueueRequestsFromMapFunc(kubesub.ClusterRequests))
		}
	}
	return b.Complete(r)
}

func clusterOfNode(_ context.Context, o client.Object) []reconcile.Request {
	name := o.GetLabels()[LabelCluster]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

// clustersOfSecret finds the clusters that name a Secret of the user's.
func (r *clusterReconciler) clustersOfSecret(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetLabels()[pki.LabelManagedBy] == pki.ManagedBy {
		return nil // written by a pass
	}
	var list api.KafkaClusterList
	// They are only read here: no copies.
	if err := r.client.List(ctx, &list, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy); err != nil {
		r.log.WarnContext(ctx, "clusters not listed; they are looked at with the next resync", slog.Any("error", err))
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		spec := &list.Items[i].Spec
		if slices.Contains(slices.Concat(cluster.SecretsOf(spec.Listeners), cluster.SecretsOfCAs(spec.Certificates)), o.GetName()) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

func (r *clusterReconciler) everyCluster(ctx context.Context, _ client.Object) []reconcile.Request {
	var list api.KafkaClusterList
	if err := r.client.List(ctx, &list); err != nil {
		r.log.WarnContext(ctx, "clusters not listed; they are looked at with the next resync", slog.Any("error", err))
		return nil
	}
	requests := make([]reconcile.Request, 0, len(list.Items))
	for i := range list.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return requests
}
