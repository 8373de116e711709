package entities

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/pki/secrets"
)

const fieldOwner = client.FieldOwner("castellan-operator")

// Config is what the package needs of the operator that it is part of.
type Config struct {
	// Client reads from Cache and finds more than that has, Live reads past it.
	Client client.Reader
	Live   client.Reader
	Cache  cache.Cache
	// Writer writes. It needs no limit of its own: a loop has a bounded number of requests under way.
	Writer client.Client
	// Foreign has the metadata of every Secret, where Cache has only Castellan's own; else nil.
	Foreign cache.Cache
	// Reach is the way to a cluster, or why there is none now.
	Reach func(context.Context, *api.KafkaCluster) (*kafka.Cluster, error)
	// Certificates issues those of users.
	Certificates secrets.Store
	// Hold keeps the operator's rights in a namespace while something there needs it, Release
	// gives them up where nothing does. nil keeps nothing.
	Hold, Release func(ctx context.Context, namespace string) error
	Events        events.EventRecorder
	Log           *slog.Logger
	// Now is the clock; nil is the real one.
	Now func() time.Time
	// ReadEvery is how often Kafka is read as a whole; 0 is once a minute.
	ReadEvery time.Duration
}

// Reconciler runs a loop for each KafkaCluster. It is a manager.Runnable that wants to lead.
type Reconciler struct {
	Config

	mu      sync.Mutex
	keepers map[types.NamespacedName]*keeper
	run     func(*keeper) // nil before the watches have said everything
	// bound says to which cluster an object was bound when it was last seen.
	bound map[core.Ref]types.NamespacedName
	// given are the users that name a Secret with their password.
	given map[types.NamespacedName]map[core.Ref]bool
	names map[core.Ref]types.NamespacedName // the same by user
	// selects is true once a cluster selects namespaces by label.
	selects bool
}

// New is a Reconciler that knows nothing yet.
func New(c Config) *Reconciler {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.ReadEvery == 0 {
		c.ReadEvery = time.Minute
	}
	none := func(context.Context, string) error { return nil }
	if c.Hold == nil {
		c.Hold = none
	}
	if c.Release == nil {
		c.Release = none
	}
	return &Reconciler{
		Config: c, keepers: map[types.NamespacedName]*keeper{}, bound: map[core.Ref]types.NamespacedName{},
		given: map[types.NamespacedName]map[core.Ref]bool{}, names: map[core.Ref]types.NamespacedName{},
	}
}

// NeedLeaderElection says that only one operator at a time may do this.
func (r *Reconciler) NeedLeaderElection() bool { return true }

// Start runs until ctx ends.
func (r *Reconciler) Start(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	synced, stop, err := r.watch(ctx)
	defer stop()
	if err != nil {
		return err
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil // ended before it began
	}
	r.mu.Lock()
	r.run = func(k *keeper) { all.Go(func() { k.run(ctx) }) }
	for _, k := range r.keepers {
		r.run(k)
	}
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	r.run = func(*keeper) {}
	r.mu.Unlock()
	return nil
}

// watch marks what changes from now on, and everything that is there.
func (r *Reconciler) watch(ctx context.Context) (synced []toolscache.InformerSynced, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, one := range stops {
			one()
		}
	}
	add := func(c cache.Cache, kind client.Object, seen func(o client.Object, gone bool)) error {
		informer, err := c.GetInformer(ctx, kind)
		if err != nil {
			return fmt.Errorf("watch %T: %w", kind, err)
		}
		at, err := informer.AddEventHandler(handler(seen))
		if err != nil {
			return fmt.Errorf("watch %T: %w", kind, err)
		}
		stops = append(stops, func() { _ = informer.RemoveEventHandler(at) }) // it ends with us either way
		synced = append(synced, at.HasSynced)
		return nil
	}
	secrets, kind := r.Cache, client.Object(&corev1.Secret{})
	if r.Foreign != nil {
		if err := add(r.Cache, &corev1.Secret{}, r.secret); err != nil {
			return synced, stop, err
		}
		secrets, kind = r.Foreign, secretMetadata()
	}
	for _, one := range []struct {
		from cache.Cache
		kind client.Object
		seen func(client.Object, bool)
	}{
		{secrets, kind, r.secret},
		{r.Cache, &api.KafkaCluster{}, r.cluster},
		{r.Cache, &api.Operation{}, r.operation},
		{r.Cache, &api.KafkaTopic{}, r.topic},
		{r.Cache, &api.KafkaUser{}, r.user},
	} {
		if err := add(one.from, one.kind, one.seen); err != nil {
			return synced, stop, err
		}
	}
	return synced, stop, nil
}

func secretMetadata() *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return o
}

func handler(seen func(o client.Object, gone bool)) toolscache.ResourceEventHandler { //nolint:ireturn // what informers take
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			if one, ok := o.(client.Object); ok {
				seen(one, false)
			}
		},
		UpdateFunc: func(_, o any) {
			if one, ok := o.(client.Object); ok {
				seen(one, false)
			}
		},
		DeleteFunc: func(o any) {
			if last, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			if one, ok := o.(client.Object); ok {
				seen(one, true)
			}
		},
	}
}

// keeper of a cluster; r.mu is held.
func (r *Reconciler) keeper(of types.NamespacedName) *keeper {
	k := r.keepers[of]
	if k == nil {
		k = newKeeper(r, of)
		r.keepers[of] = k
		if r.run != nil {
			r.run(k)
		}
	}
	return k
}

// dismiss forgets a keeper that has nothing to do.
func (r *Reconciler) dismiss(k *keeper) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k.marks() {
		return false
	}
	delete(r.keepers, k.key)
	return true
}

func (r *Reconciler) cluster(o client.Object, _ bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keeper(client.ObjectKeyFromObject(o)).markCluster()
}

func (r *Reconciler) topic(o client.Object, gone bool) {
	t, ok := o.(*api.KafkaTopic)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bind(core.Ref{Kind: core.KindTopic, NamespacedName: client.ObjectKeyFromObject(o)}, ClusterOf(t.Namespace, t.Spec.ClusterRef), t, gone)
}

func (r *Reconciler) user(o client.Object, gone bool) {
	u, ok := o.(*api.KafkaUser)
	if !ok {
		return
	}
	ref := core.Ref{Kind: core.KindUser, NamespacedName: client.ObjectKeyFromObject(o)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nameGiven(ref, u, gone)
	r.bind(ref, ClusterOf(u.Namespace, u.Spec.ClusterRef), u, gone)
}

// nameGiven keeps which Secret a user takes the password from.
func (r *Reconciler) nameGiven(ref core.Ref, u *api.KafkaUser, gone bool) {
	if old, ok := r.names[ref]; ok {
		delete(r.given[old], ref)
		if len(r.given[old]) == 0 {
			delete(r.given, old)
		}
		delete(r.names, ref)
	}
	from := passwordOf(u)
	if gone || from == nil {
		return
	}
	at := types.NamespacedName{Namespace: u.Namespace, Name: from.Name}
	if r.given[at] == nil {
		r.given[at] = map[core.Ref]bool{}
	}
	r.given[at][ref], r.names[ref] = true, at
}

// ClusterOf is the KafkaCluster that an object of a namespace names.
func ClusterOf(namespace string, ref api.EntityClusterRef) types.NamespacedName {
	if ref.Namespace != "" {
		namespace = ref.Namespace
	}
	return types.NamespacedName{Namespace: namespace, Name: ref.Name}
}

// bind marks an object at the cluster that it names, and at the one that an earlier object of
// that name was bound to.
func (r *Reconciler) bind(ref core.Ref, to types.NamespacedName, o client.Object, gone bool) {
	if old, ok := r.bound[ref]; ok && (old != to || gone) {
		r.keeper(old).mark(ref, nil)
		delete(r.bound, ref)
	}
	if !gone {
		r.bound[ref] = to
		r.keeper(to).mark(ref, o)
	}
}

// operation has Kafka looked at when one has ended that may have changed replicas.
func (r *Reconciler) operation(o client.Object, _ bool) {
	op, ok := o.(*api.Operation)
	if !ok || !asksForReplicas(op) || !op.Status.Phase.Final() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.keepers[types.NamespacedName{Namespace: op.Namespace, Name: op.Spec.ClusterRef.Name}]; k != nil {
		k.markRead()
	}
}

func (r *Reconciler) secret(o client.Object, _ bool) {
	name := client.ObjectKeyFromObject(o)
	r.mu.Lock()
	defer r.mu.Unlock()
	if owner := metav1.GetControllerOf(o); owner != nil && owner.Kind == "KafkaUser" {
		r.touch(core.Ref{Kind: core.KindUser, NamespacedName: types.NamespacedName{Namespace: name.Namespace, Name: owner.Name}})
	}
	for ref := range r.given[name] {
		r.touch(ref)
	}
	// What clients trust, and what issues their certificates.
	for of, k := range r.keepers {
		if of.Namespace == name.Namespace && k.trusts(name.Name) {
			k.markCluster()
		}
	}
}

func (r *Reconciler) touch(ref core.Ref) {
	if of, ok := r.bound[ref]; ok {
		r.keeper(of).touch(ref)
	}
}
