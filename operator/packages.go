package operator

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/packages"
)

// fetchRetry is how long a package that no source gave is left before the next try.
const fetchRetry = 30 * time.Second

// packageReconciler brings the packages that a cluster needs into the store.
type packageReconciler struct {
	client client.Client
	store  *packages.Store
	log    *slog.Logger
}

// Reconcile fetches one package if somebody needs it.
func (r *packageReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	pkg := &api.Package{}
	if err := r.client.Get(ctx, req.NamespacedName, pkg); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	needed, err := r.needed(ctx, pkg)
	if err != nil {
		return reconcile.Result{}, err
	}
	status := api.PackageStatus{ObservedGeneration: pkg.Generation, Digest: pkg.Status.Digest, State: api.PackageUnused}
	switch {
	case status.Digest != "" && r.held(status.Digest):
		status.State = api.PackageReady
	case needed:
		return r.fetch(ctx, pkg)
	case status.Digest != "":
		status.Message = "the archive is no longer in the store; it is fetched again when a cluster needs it"
	}
	return reconcile.Result{}, r.report(ctx, pkg, status)
}

func (r *packageReconciler) held(digest string) bool {
	_, err := r.store.Artifact(packages.Digest(digest))
	return err == nil
}

// needed says whether a cluster names the package's version, in its newest spec or in one
// that is still in force.
func (r *packageReconciler) needed(ctx context.Context, pkg *api.Package) (bool, error) {
	var clusters api.KafkaClusterList
	if err := r.client.List(ctx, &clusters); err != nil {
		return false, err
	}
	for i := range clusters.Items {
		if spec := &clusters.Items[i].Spec; spec.Version == pkg.Spec.Version && (spec.Package == "" || spec.Package == pkg.Name) {
			return true, nil
		}
	}
	var nodes api.KafkaNodeList
	if err := r.client.List(ctx, &nodes); err != nil {
		return false, err
	}
	for i := range nodes.Items {
		if nodes.Items[i].Spec.Process.Package == pkg.Status.Digest && pkg.Status.Digest != "" {
			return true, nil
		}
	}
	return false, nil
}

func (r *packageReconciler) fetch(ctx context.Context, pkg *api.Package) (reconcile.Result, error) {
	fetching := api.PackageStatus{ObservedGeneration: pkg.Generation, State: api.PackageFetching, Digest: pkg.Status.Digest, Message: "fetching"}
	if err := r.report(ctx, pkg, fetching); err != nil {
		return reconcile.Result{}, err
	}
	told := &progressTeller{tell: func(text string) {
		fetching.Message = text
		if err := r.report(ctx, pkg, fetching); err != nil {
			r.log.WarnContext(ctx, "progress not reported", slog.String("package", pkg.Name), slog.Any("error", err))
		}
	}}
	artifact, err := r.store.Fetch(ctx, specOf(pkg), told.update)
	if err != nil {
		failed := api.PackageStatus{ObservedGeneration: pkg.Generation, State: api.PackageFailed, Digest: pkg.Status.Digest, Message: truncate(err.Error(), 4000)}
		r.log.WarnContext(ctx, "package not fetched", slog.String("package", pkg.Name), slog.Any("error", err))
		return reconcile.Result{RequeueAfter: fetchRetry}, r.report(ctx, pkg, failed)
	}
	ready := api.PackageStatus{ObservedGeneration: pkg.Generation, State: api.PackageReady, Digest: string(artifact.Digest)}
	return reconcile.Result{}, r.report(ctx, pkg, ready)
}

// progressTeller passes on what goes on, at most every few seconds, because each word is a
// write to the API server.
type progressTeller struct {
	mu   sync.Mutex
	last time.Time
	tell func(string)
}

func (p *progressTeller) update(u packages.Update) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) < 3*time.Second {
		return
	}
	p.last = time.Now()
	p.tell(u.Text)
}

func specOf(pkg *api.Package) packages.Spec {
	spec := packages.Spec{Product: string(pkg.Spec.Product), Version: pkg.Spec.Version, Digest: packages.Digest(pkg.Status.Digest)}
	for _, s := range pkg.Spec.Sources {
		source := packages.Source{URL: s.URL, SHA512: s.SHA512, Cache: s.Cache}
		if s.Maven != nil {
			source.Maven = s.Maven.Lock
		}
		spec.Sources = append(spec.Sources, source)
	}
	return spec
}

func (r *packageReconciler) report(ctx context.Context, pkg *api.Package, status api.PackageStatus) error {
	if equality.Semantic.DeepEqual(pkg.Status, status) {
		return nil
	}
	before := pkg.DeepCopy()
	pkg.Status = status
	return client.IgnoreNotFound(r.client.Status().Patch(ctx, pkg, client.MergeFrom(before), fieldOwner))
}

func (r *packageReconciler) setup(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("package").
		For(&api.Package{}).
		Watches(&api.KafkaCluster{}, handler.EnqueueRequestsFromMapFunc(r.packagesOf)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 2}).
		Complete(r)
}

func (r *packageReconciler) packagesOf(ctx context.Context, o client.Object) []reconcile.Request {
	kc, ok := o.(*api.KafkaCluster)
	if !ok {
		return nil
	}
	var list api.PackageList
	if err := r.client.List(ctx, &list); err != nil {
		r.log.WarnContext(ctx, "packages not listed", slog.Any("error", err))
		return nil
	}
	var requests []reconcile.Request
	for i := range list.Items {
		if list.Items[i].Spec.Version == kc.Spec.Version {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}
