package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Finalizer keeps a HostProcess until its process and what belongs to it are gone.
const Finalizer = "castellan.dev/host-process"

// fieldOwner of what the agent writes.
const fieldOwner = client.FieldOwner("castellan-agent")

// callTimeout bounds every call, so that a hung API server holds nothing up.
const callTimeout = 10 * time.Second

// upstream is the API server as the agent sees it: its own namespace, and its own Host.
type upstream struct {
	host, namespace, version string
	log                      *slog.Logger
	writes                   client.Client
	reads                    cache.Cache
	orders                   workqueue.TypedRateLimitingInterface[string]
	reports                  workqueue.TypedRateLimitingInterface[string]

	mu     sync.Mutex
	latest map[string]report // to write
	last   map[string]report // written
}

type report struct {
	uid    types.UID
	status api.HostProcessStatus
	known  api.HostProcessStatus // as the API showed it before
}

func newUpstream(c Config) (*upstream, error) {
	scheme, mapper, err := kinds()
	if err != nil {
		return nil, err
	}
	reads, err := cache.New(c.API, cache.Options{
		Scheme: scheme, Mapper: mapper,
		ByObject: map[client.Object]cache.ByObject{
			&api.HostProcess{}: {Namespaces: map[string]cache.Config{c.Namespace: {}}},
			&corev1.Secret{}:   {Namespaces: map[string]cache.Config{c.Namespace: {}}},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("prepare to watch the host's namespace: %w", err)
	}
	writes, err := client.New(c.API, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("prepare to write to the API server: %w", err)
	}
	return &upstream{
		host: c.Host, namespace: c.Namespace, version: c.Version, log: c.Log, writes: writes, reads: reads,
		orders: newQueue(), reports: newQueue(),
		latest: make(map[string]report), last: make(map[string]report),
	}, nil
}

func newQueue() workqueue.TypedRateLimitingInterface[string] {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, 15*time.Second)
	return workqueue.NewTypedRateLimitingQueue(limiter)
}

// kinds are known without discovery: the agent must start with no API server in sight.
func kinds() (*runtime.Scheme, *meta.DefaultRESTMapper, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{api.AddToScheme, corev1.AddToScheme, coordinationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, nil, fmt.Errorf("register API kinds: %w", err)
		}
	}
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(api.GroupVersion.WithKind("HostProcess"), meta.RESTScopeNamespace)
	mapper.Add(api.GroupVersion.WithKind("HostProcessList"), meta.RESTScopeNamespace) // what a cache of one namespace asks for
	mapper.Add(api.GroupVersion.WithKind("Host"), meta.RESTScopeRoot)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	mapper.Add(coordinationv1.SchemeGroupVersion.WithKind("Lease"), meta.RESTScopeNamespace)
	return scheme, mapper, nil
}

// run brings orders down and reports up until ctx ends.
func (u *upstream) run(ctx context.Context, crew *crew) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	failed := make(chan error, 1)
	parts.Go(func() {
		if err := u.reads.Start(ctx); err != nil {
			failed <- fmt.Errorf("watch the host's namespace: %w", err)
		}
	})
	defer u.orders.ShutDown()
	defer u.reports.ShutDown()
	parts.Go(func() { drain(ctx, u.reports, u.log, u.send) })
	parts.Go(func() { u.beat(ctx) })
	parts.Go(func() { u.introduce(ctx) })
	parts.Go(func() {
		if err := u.watch(ctx); err != nil {
			failed <- err
			return
		}
		drain(ctx, u.orders, u.log, func(ctx context.Context, name string) error { return u.bring(ctx, crew, name) })
	})
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// drain handles the names of a queue one by one until it is shut down.
func drain(ctx context.Context, q workqueue.TypedRateLimitingInterface[string], log *slog.Logger, handle func(context.Context, string) error) {
	for {
		name, down := q.Get()
		if down {
			return
		}
		err := handle(ctx, name)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			log.WarnContext(ctx, "will try again", slog.String("process", name), slog.Any("error", err))
			q.AddRateLimited(name)
		default:
			q.Forget(name)
		}
		q.Done(name)
	}
}

// watch fills the queue of orders; it returns once all that the API server has is known.
func (u *upstream) watch(ctx context.Context) error {
	for _, w := range []struct {
		kind   client.Object
		handle func(any)
	}{
		{&api.HostProcess{}, u.enqueueProcess},
		{&corev1.Secret{}, func(o any) { u.enqueueUsers(ctx, o) }},
	} {
		informer, err := u.reads.GetInformer(ctx, w.kind, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %T: %w", w.kind, err)
		}
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    w.handle,
			UpdateFunc: func(_, o any) { w.handle(o) },
			DeleteFunc: w.handle,
		}); err != nil {
			return fmt.Errorf("watch %T: %w", w.kind, err)
		}
	}
	u.reads.WaitForCacheSync(ctx)
	return nil
}

func (u *upstream) enqueueProcess(o any) {
	if key, err := toolscache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
		if _, name, err := toolscache.SplitMetaNamespaceKey(key); err == nil {
			u.orders.Add(name)
		}
	}
}

// enqueueUsers enqueues the processes that use a Secret.
func (u *upstream) enqueueUsers(ctx context.Context, o any) {
	key, err := toolscache.DeletionHandlingMetaNamespaceKeyFunc(o)
	if err != nil {
		return
	}
	_, secret, err := toolscache.SplitMetaNamespaceKey(key)
	if err != nil {
		return
	}
	var all api.HostProcessList
	if err := u.reads.List(ctx, &all, client.InNamespace(u.namespace)); err != nil {
		u.log.ErrorContext(ctx, "could not list the processes that use a Secret", slog.String("secret", secret), slog.Any("error", err))
		return
	}
	for i := range all.Items {
		for _, used := range secretNames(all.Items[i].Spec) {
			if used == secret {
				u.orders.Add(all.Items[i].Name)
			}
		}
	}
}

// bring makes an order of what the API server says and gives it to the crew.
func (u *upstream) bring(ctx context.Context, crew *crew, name string) error {
	var hp api.HostProcess
	err := u.reads.Get(ctx, types.NamespacedName{Namespace: u.namespace, Name: name}, &hp)
	if apierrors.IsNotFound(err) {
		crew.orphan(name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read HostProcess: %w", err)
	}
	if !hp.DeletionTimestamp.IsZero() && !controllerutil.ContainsFinalizer(&hp, Finalizer) {
		return nil // done already; another's finalizer holds it
	}
	secrets, err := u.secrets(ctx, hp.Spec)
	if err != nil {
		return err
	}
	return crew.give(ctx, order{
		Name: hp.Name, UID: hp.UID, Generation: hp.Generation, Deleting: !hp.DeletionTimestamp.IsZero(),
		Spec: hp.Spec, Status: hp.Status, Secrets: secrets,
	})
}

func (u *upstream) secrets(ctx context.Context, spec api.HostProcessSpec) (map[string]map[string][]byte, error) {
	found := make(map[string]map[string][]byte)
	for _, name := range secretNames(spec) {
		var secret corev1.Secret
		err := u.reads.Get(ctx, types.NamespacedName{Namespace: u.namespace, Name: name}, &secret)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, fmt.Errorf("read Secret %s: %w", name, err)
		default:
			found[name] = secret.Data
			if found[name] == nil {
				found[name] = map[string][]byte{}
			}
		}
	}
	return found, nil
}

// publish keeps the newest status of each process until it is written.
func (u *upstream) publish(o order, s api.HostProcessStatus) {
	if o.UID == "" {
		return
	}
	u.mu.Lock()
	u.latest[o.Name] = report{uid: o.UID, status: s, known: o.Status}
	u.mu.Unlock()
	u.reports.Add(o.Name)
}

// send writes a status that is news to the API server.
func (u *upstream) send(ctx context.Context, name string) error {
	u.mu.Lock()
	now, pending := u.latest[name]
	last, written := u.last[name]
	u.mu.Unlock()
	if !pending {
		return nil
	}
	if !written || last.uid != now.uid {
		last = report{uid: now.uid, status: now.known}
	}
	if !equality.Semantic.DeepEqual(last.status, now.status) {
		if err := u.write(ctx, name, now); err != nil {
			return err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last[name] = now
	return nil
}

func (u *upstream) write(ctx context.Context, name string, now report) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	applied := &api.HostProcess{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.GroupVersion.String(), Kind: "HostProcess"},
		ObjectMeta: metav1.ObjectMeta{Namespace: u.namespace, Name: name, UID: now.uid},
		Status:     now.status,
	}
	err := u.applyStatus(ctx, applied)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another one of the same name: an order for it will come
	}
	if err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

// applyStatus applies only the status of an object, as a whole.
func (u *upstream) applyStatus(ctx context.Context, o client.Object) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	delete(content, "spec")
	applied := &unstructured.Unstructured{Object: content}
	unstructured.RemoveNestedField(applied.Object, "metadata", "creationTimestamp")
	return u.writes.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(applied), fieldOwner, client.ForceOwnership)
}

// removed takes the finalizer off a HostProcess of which nothing is left.
func (u *upstream) removed(ctx context.Context, o order) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var hp api.HostProcess
	err := u.writes.Get(ctx, types.NamespacedName{Namespace: u.namespace, Name: o.Name}, &hp)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read the HostProcess: %w", err)
	case hp.UID != o.UID || hp.DeletionTimestamp.IsZero():
		return nil // another one of the same name
	}
	before := hp.DeepCopy()
	if !controllerutil.RemoveFinalizer(&hp, Finalizer) {
		return nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := u.writes.Patch(ctx, &hp, patch, fieldOwner); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("take the finalizer off the HostProcess: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.latest, o.Name)
	delete(u.last, o.Name)
	return nil
}

// introduce says once, as soon as it can, that the host has an agent.
func (u *upstream) introduce(ctx context.Context) {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := u.writeHost(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		u.log.WarnContext(ctx, "could not write the status of the Host; will try again", slog.String("host", u.host), slog.Any("error", err))
		if !pause(ctx, wait) {
			return
		}
	}
}

func (u *upstream) writeHost(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var host api.Host
	if err := u.writes.Get(ctx, types.NamespacedName{Name: u.host}, &host); err != nil {
		return fmt.Errorf("read the Host: %w", err)
	}
	status := *host.Status.DeepCopy()
	status.Namespace, status.AgentVersion = u.namespace, u.version
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: "Ready", Status: metav1.ConditionTrue, Reason: "AgentRuns", ObservedGeneration: host.Generation,
		Message: "an agent serves the host; whether it is alive says the Lease in the host's namespace",
	})
	if equality.Semantic.DeepEqual(status, host.Status) {
		return nil
	}
	err := u.applyStatus(ctx, &api.Host{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.GroupVersion.String(), Kind: "Host"},
		ObjectMeta: metav1.ObjectMeta{Name: u.host},
		Status:     status,
	})
	if err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

const (
	leaseName     = "agent"
	leaseRenewal  = 5 * time.Second
	leaseDuration = 20 * time.Second
)

// beat renews the Lease by which others see that the agent is alive.
func (u *upstream) beat(ctx context.Context) {
	lease := &coordinationv1.Lease{}
	quiet := false
	for {
		err := u.renew(ctx, lease)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !quiet {
			u.log.WarnContext(ctx, "could not renew the Lease; will go on trying", slog.Any("error", err))
		}
		quiet = err != nil
		if err != nil {
			lease = &coordinationv1.Lease{} // read it anew
		}
		if !pause(ctx, leaseRenewal) {
			return
		}
	}
}

func (u *upstream) renew(ctx context.Context, lease *coordinationv1.Lease) error {
	ctx, cancel := context.WithTimeout(ctx, leaseRenewal)
	defer cancel()
	if lease.ResourceVersion == "" {
		err := u.writes.Get(ctx, types.NamespacedName{Namespace: u.namespace, Name: leaseName}, lease)
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("read the Lease: %w", err)
		}
	}
	seconds, now := int32(leaseDuration/time.Second), metav1.NowMicro()
	lease.Namespace, lease.Name = u.namespace, leaseName
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &u.host, &seconds, &now
	var err error
	if lease.ResourceVersion == "" {
		err = u.writes.Create(ctx, lease, fieldOwner)
	} else {
		err = u.writes.Update(ctx, lease, fieldOwner)
	}
	if err != nil {
		return errors.Join(errors.New("renew the Lease"), err)
	}
	return nil
}
