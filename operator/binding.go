package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
)

const (
	// ClustersBinding is the RoleBinding, in each namespace that is served, through which an
	// operator that does not serve all has its rights there. It must refer to a ClusterRole:
	// a Role would go with its namespace.
	ClustersBinding = "castellan-operator-clusters"
	// bindingFinalizer keeps that RoleBinding while clusters are there. The end of a namespace
	// would else take our rights away before our finalizers, and never come to its end.
	bindingFinalizer = "castellan.dev/clusters"
	// heldAnnotation of the operator's Lease names the namespaces with that finalizer, so that
	// an operator that serves others from now on takes it off.
	heldAnnotation = "castellan.dev/held-namespaces"
	// bindingRecheck is how long a RoleBinding that carries the finalizer is not read again.
	bindingRecheck = 5 * time.Minute
)

// bindings hold the operator's rights in the namespaces that it serves for as long as it
// needs them. It is safe for concurrent use; nil holds none.
type bindings struct {
	client client.Client // only writes: it may read from a cache
	live   client.Reader
	own    string   // namespace of the operator
	serves []string // none is all, in which its rights are its own
	log    *slog.Logger
	now    func() time.Time

	mu   sync.Mutex
	seen map[string]time.Time // by namespace
}

func newBindings(c client.Client, live client.Reader, config Config) *bindings {
	return &bindings{client: c, live: live, own: config.LeaseNamespace, serves: config.WatchNamespaces, log: config.Log, now: config.now, seen: map[string]time.Time{}}
}

// hold keeps the rights in a namespace. Whoever gave them by another binding than
// [ClustersBinding] keeps them himself.
func (b *bindings) hold(ctx context.Context, namespace string) error {
	if b == nil || !slices.Contains(b.serves, namespace) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, ok := b.seen[namespace]; ok && b.now().Before(at.Add(bindingRecheck)) {
		return nil
	}
	err := b.note(ctx, func(held map[string]bool) { held[namespace] = true })
	if err == nil {
		err = b.change(ctx, namespace, func(o client.Object) bool {
			return o.GetDeletionTimestamp() == nil && controllerutil.AddFinalizer(o, bindingFinalizer)
		})
	}
	if err != nil {
		return fmt.Errorf("keep RoleBinding %s in namespace %s while there are clusters: %w", ClustersBinding, namespace, err)
	}
	b.seen[namespace] = b.now()
	return nil
}

// release gives the rights up once nothing in the namespace carries a finalizer of ours.
func (b *bindings) release(ctx context.Context, namespace string) error {
	if b == nil || !slices.Contains(b.serves, namespace) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, kind := range []string{"KafkaClusterList", "KafkaNodeList", "OperationList", "KafkaTopicList", "KafkaUserList"} {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(api.GroupVersion.WithKind(kind))
		if err := b.live.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return fmt.Errorf("look whether namespace %s still has clusters: %w", namespace, err)
		}
		// An Operation that names no cluster is only a user's, and so is what holds nothing in Kafka.
		ours := map[string]string{"OperationList": plan.OperationFinalizer, "KafkaTopicList": api.HoldFinalizer, "KafkaUserList": api.HoldFinalizer}
		if finalizer, ok := ours[kind]; ok {
			list.Items = slices.DeleteFunc(list.Items, func(o metav1.PartialObjectMetadata) bool {
				return !slices.Contains(o.Finalizers, finalizer)
			})
		}
		if len(list.Items) > 0 {
			return nil
		}
	}
	return b.drop(ctx, namespace)
}

func (b *bindings) drop(ctx context.Context, namespace string) error {
	delete(b.seen, namespace)
	err := b.change(ctx, namespace, func(o client.Object) bool { return controllerutil.RemoveFinalizer(o, bindingFinalizer) })
	if err == nil {
		err = b.note(ctx, func(held map[string]bool) { delete(held, namespace) })
	}
	if err != nil {
		return fmt.Errorf("let RoleBinding %s of namespace %s go: %w", ClustersBinding, namespace, err)
	}
	return nil
}

// Start, on the leading replica, gives up what an earlier one left; it implements
// manager.Runnable.
func (b *bindings) Start(ctx context.Context) error {
	held, err := b.held(ctx)
	errs := []error{err}
	for _, namespace := range held {
		if slices.Contains(b.serves, namespace) {
			errs = append(errs, b.release(ctx, namespace))
			continue
		}
		b.mu.Lock()
		errs = append(errs, b.drop(ctx, namespace))
		b.mu.Unlock()
	}
	if err := errors.Join(errs...); err != nil {
		b.log.WarnContext(ctx, "a RoleBinding that is not needed any more keeps our finalizer "+bindingFinalizer+" until the operator starts again", slog.Any("error", err))
	}
	return nil
}

// held are the namespaces in which a RoleBinding may carry our finalizer.
func (b *bindings) held(ctx context.Context) ([]string, error) {
	var held []string
	err := b.lease(ctx, func(o client.Object) bool {
		held = heldBy(o)
		return false
	})
	return held, err
}

// note changes the record of them.
func (b *bindings) note(ctx context.Context, change func(map[string]bool)) error {
	return b.lease(ctx, func(o client.Object) bool {
		held := map[string]bool{}
		for _, n := range heldBy(o) {
			held[n] = true
		}
		change(held)
		now := slices.Sorted(maps.Keys(held))
		if slices.Equal(now, heldBy(o)) {
			return false
		}
		annotations := maps.Clone(o.GetAnnotations())
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[heldAnnotation] = strings.Join(now, ",")
		o.SetAnnotations(annotations)
		return true
	})
}

func heldBy(lease client.Object) []string {
	return strings.FieldsFunc(lease.GetAnnotations()[heldAnnotation], func(r rune) bool { return r == ',' })
}

func (b *bindings) lease(ctx context.Context, change func(client.Object) bool) error {
	return b.edit(ctx, coordinationv1.SchemeGroupVersion.WithKind("Lease"), client.ObjectKey{Namespace: b.own, Name: LeaseName}, change)
}

func (b *bindings) change(ctx context.Context, namespace string, change func(client.Object) bool) error {
	return b.edit(ctx, rbacv1.SchemeGroupVersion.WithKind("RoleBinding"), client.ObjectKey{Namespace: namespace, Name: ClustersBinding}, change)
}

// edit changes the metadata of an object that may not be there.
func (b *bindings) edit(ctx context.Context, kind schema.GroupVersionKind, key client.ObjectKey, change func(client.Object) bool) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		object := &metav1.PartialObjectMetadata{}
		object.SetGroupVersionKind(kind)
		if err := b.live.Get(ctx, key, object); err != nil {
			return client.IgnoreNotFound(err)
		}
		before := object.DeepCopy()
		if !change(object) {
			return nil
		}
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		return client.IgnoreNotFound(b.client.Patch(ctx, object, patch, fieldOwner))
	})
}
