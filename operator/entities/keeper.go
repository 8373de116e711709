package entities

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/kafka"
)

const (
	// atOnce is how many keys one turn takes, and so how long an edit waits behind others.
	atOnce = 200
	// writers is how many requests to the API server are under way at a time.
	writers = 16
	// readPause is how soon after one reading of Kafka another may begin.
	readPause = 5 * time.Second
	// verifyPause is how soon after one look at principals another may begin while more is to be done.
	verifyPause = 2 * time.Second
	// soon is when what failed at the API server is tried again.
	soon = time.Second
	// patience is how long a status stands while Kafka cannot be asked at all.
	patience = 2 * time.Minute
)

// key is what is planned at a time: a topic, or a principal.
type key struct {
	kind core.Kind
	name string
}

// keeper keeps the topics and users of one cluster.
type keeper struct {
	r   *Reconciler
	key types.NamespacedName
	log *slog.Logger

	mu      sync.Mutex
	marked  map[core.Ref]client.Object // the newest; nil is gone
	touched map[core.Ref]bool          // to be looked at though the object is the same
	look    bool                       // at the cluster
	read    bool                       // Kafka, soon
	trust   map[string]bool            // names of Secrets in its namespace
	wake    chan struct{}

	// What follows is the loop's alone.
	cluster *api.KafkaCluster // nil when there is none, or nothing is known of it yet
	absent  bool              // there is none
	setup   setup
	world   *core.World
	objects map[core.Ref]client.Object
	claims  map[core.Ref]key
	told    map[core.Ref]core.Verdict
	acted   map[core.Ref]bool           // changed in Kafka since its status was written
	faults  map[core.Ref]string         // why there is no Secret for a user
	fresh   map[core.Ref]*corev1.Secret // just written, of which the watch has not told
	renew   map[core.Ref]time.Time
	before  queue // changes of what was known
	after   queue // the rest
	later   map[key]time.Time
	rounds  map[key]int

	reading    chan reading // nil when nothing is read
	readMore   bool         // again, as soon as that has ended
	readBegan  time.Time
	readAt     time.Time
	verifyAt   time.Time
	againAt    time.Time // when All is due without a reading
	allAt      time.Time // when it was last
	unreadable time.Time // since when
	known      bool      // what Kafka has, since some time
	unmanaged  *api.EntityCounts
	own        *core.Verdict // of the cluster itself
}

// reading is what became of a reading of Kafka.
type reading struct {
	have *core.Snapshot
	err  error
}

func newKeeper(r *Reconciler, of types.NamespacedName) *keeper {
	k := &keeper{
		r: r, key: of, log: r.Log.With(slog.String("cluster", of.String())), look: true,
		marked: map[core.Ref]client.Object{}, touched: map[core.Ref]bool{}, trust: map[string]bool{}, wake: make(chan struct{}, 1),
		objects: map[core.Ref]client.Object{},
	}
	k.forget()
	return k
}

// forget begins anew with what the objects say.
func (k *keeper) forget() {
	k.cluster, k.world, k.setup = nil, nil, setup{}
	k.claims, k.told, k.acted = map[core.Ref]key{}, map[core.Ref]core.Verdict{}, map[core.Ref]bool{}
	k.faults, k.renew, k.later, k.rounds = map[core.Ref]string{}, map[core.Ref]time.Time{}, map[key]time.Time{}, map[key]int{}
	k.before, k.after, k.fresh = queue{}, queue{}, map[core.Ref]*corev1.Secret{}
	k.reading, k.readAt, k.againAt, k.unreadable = nil, time.Time{}, time.Time{}, time.Time{}
	k.unmanaged, k.own, k.known = nil, nil, false
}

func (k *keeper) mark(ref core.Ref, o client.Object) {
	k.set(func() { k.marked[ref] = o })
}

func (k *keeper) touch(ref core.Ref) { k.set(func() { k.touched[ref] = true }) }
func (k *keeper) markCluster()       { k.set(func() { k.look = true }) }
func (k *keeper) markRead()          { k.set(func() { k.read = true }) }

func (k *keeper) set(what func()) {
	k.mu.Lock()
	what()
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) marks() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.marked)+len(k.touched) > 0 || k.look
}

func (k *keeper) trusts(secret string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trust[secret]
}

// run takes turns until ctx ends, or until there is nothing left to keep.
func (k *keeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		next := k.turn(ctx)
		if k.absent && len(k.objects) == 0 && k.r.dismiss(k) {
			return
		}
		timer := time.NewTimer(next.Sub(k.r.Now()))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-k.wake:
		case got := <-k.reading:
			k.hasRead(got)
		}
		timer.Stop()
	}
	if k.reading != nil {
		<-k.reading // whoever reads ends with ctx, and before us
	}
}

// turn does what is due and says when more will be.
func (k *keeper) turn(ctx context.Context) time.Time {
	k.intake(ctx)
	now := k.r.Now()
	switch {
	case k.absent:
		return k.alone(ctx)
	case k.cluster == nil:
		return now.Add(soon) // the log says why
	}
	k.due(now)
	k.readIfDue(ctx, now)
	if !k.againAt.IsZero() && !now.Before(k.againAt) && !now.Before(k.allAt.Add(soon)) {
		k.all(ctx, now)
	}
	if !k.asked() {
		return k.next()
	}
	if keys := k.take(); len(keys) > 0 {
		k.batch(ctx, keys)
	}
	k.verify(ctx)
	return k.next()
}

// asked says whether Kafka has answered once, or failed to: before that there is nothing to say of any object, and after
// a start of the operator every status would be written twice for nothing.
func (k *keeper) asked() bool { return k.known || !k.unreadable.IsZero() }

func (k *keeper) next() time.Time {
	now := k.r.Now()
	if k.asked() && k.before.len()+k.after.len() > 0 {
		return now
	}
	next := now.Add(k.r.ReadEvery)
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if k.reading == nil {
		earlier(k.readAt)
		if k.readAt.IsZero() {
			next = now
		}
	}
	if !k.againAt.IsZero() {
		again := k.againAt
		if least := k.allAt.Add(soon); again.Before(least) {
			again = least
		}
		earlier(again)
	}
	if k.world != nil && len(k.world.Unread()) > 0 {
		earlier(k.verifyAt)
	}
	for _, at := range k.later {
		earlier(at)
	}
	return next
}

// due moves what waited long enough into the queues.
func (k *keeper) due(now time.Time) {
	for one, at := range k.later {
		if !now.Before(at) {
			delete(k.later, one)
			k.before.add(one)
		}
	}
	for ref, at := range k.renew {
		if !now.Before(at) {
			delete(k.renew, ref)
			k.after.add(k.claims[ref])
		}
	}
}

// intake takes what the watches have marked.
func (k *keeper) intake(ctx context.Context) {
	k.mu.Lock()
	marked, touched, look, read := k.marked, k.touched, k.look, k.read
	k.marked, k.touched, k.look, k.read = map[core.Ref]client.Object{}, map[core.Ref]bool{}, false, false
	k.mu.Unlock()
	if look {
		k.lookAtCluster(ctx)
	}
	for _, ref := range slices.SortedFunc(maps.Keys(marked), byAge(marked)) {
		k.put(ctx, ref, marked[ref])
	}
	for ref := range touched {
		if o := k.objects[ref]; o != nil && k.world != nil {
			k.claim(ctx, ref, o)
			k.after.add(k.claims[ref])
		}
	}
	if read {
		k.readSoon(k.r.Now())
	}
}

func byAge(of map[core.Ref]client.Object) func(a, b core.Ref) int {
	return func(a, b core.Ref) int {
		x, y := of[a], of[b]
		switch {
		case x == nil && y == nil:
			return 0
		case x == nil:
			return -1
		case y == nil:
			return 1
		}
		tx, ty := x.GetCreationTimestamp(), y.GetCreationTimestamp()
		return tx.Compare(ty.Time)
	}
}

// put takes an object as it is now; nil is gone.
func (k *keeper) put(ctx context.Context, ref core.Ref, o client.Object) {
	old := k.objects[ref]
	if o == nil {
		k.drop(ref)
		return
	}
	if old != nil && old.GetUID() == o.GetUID() && older(o, old) {
		return // what we wrote is newer
	}
	k.objects[ref] = o
	if k.world == nil {
		return
	}
	was := k.claims[ref]
	k.claim(ctx, ref, o)
	if was != k.claims[ref] {
		k.before.add(was)
	}
	switch {
	case old == nil:
		k.after.add(k.claims[ref])
	case asks(old, o):
		delete(k.rounds, k.claims[ref])
		k.before.add(k.claims[ref])
	}
}

func (k *keeper) drop(ref core.Ref) {
	delete(k.objects, ref)
	if k.world != nil {
		if ref.Kind == core.KindTopic {
			k.world.DropTopic(ref.NamespacedName)
		} else {
			k.world.DropUser(ref.NamespacedName)
		}
	}
	if was, ok := k.claims[ref]; ok {
		k.before.add(was) // another object may be in force now
	}
	delete(k.claims, ref)
	delete(k.told, ref)
	delete(k.acted, ref)
	delete(k.faults, ref)
	delete(k.renew, ref)
	delete(k.fresh, ref)
}

// older says whether a is of an earlier time than b; what cannot be compared is not.
func older(a, b client.Object) bool {
	order, err := resourceversion.CompareResourceVersion(a.GetResourceVersion(), b.GetResourceVersion())
	return err == nil && order < 0
}

// asks says whether an object asks for something else than before; our own writes do not.
func asks(old, o client.Object) bool {
	return old.GetUID() != o.GetUID() || old.GetGeneration() != o.GetGeneration() ||
		(old.GetDeletionTimestamp() == nil) != (o.GetDeletionTimestamp() == nil) ||
		old.GetAnnotations()[api.HoldAnnotation] != o.GetAnnotations()[api.HoldAnnotation] ||
		slices.Contains(old.GetFinalizers(), api.HoldFinalizer) != slices.Contains(o.GetFinalizers(), api.HoldFinalizer)
}

// claim gives an object to the world.
func (k *keeper) claim(ctx context.Context, ref core.Ref, o client.Object) {
	allowed := k.setup.allows(o.GetNamespace())
	switch o := o.(type) {
	case *api.KafkaTopic:
		k.claims[ref] = key{core.KindTopic, k.world.PutTopic(core.DesiredTopic{Object: o, Allowed: allowed})}
	case *api.KafkaUser:
		d := core.DesiredUser{Object: o, Allowed: allowed}
		if o.Spec.Authentication.Type == api.UserScramSha512 {
			d.Credential = k.credential(ctx, ref, o)
		}
		k.claims[ref] = key{core.KindUser, k.world.PutUser(d)}
	}
}

func (k *keeper) take() []key {
	keys := k.before.take(atOnce)
	return append(keys, k.after.take(atOnce-len(keys))...)
}

// reach is the way to Kafka.
func (k *keeper) reach(ctx context.Context) (*kafka.Cluster, error) { return k.r.Reach(ctx, k.cluster) }

// queue is a set in the order in which it grew.
type queue struct {
	order []key
	has   map[key]bool
}

func (q *queue) add(one key) {
	if one == (key{}) || q.has[one] {
		return
	}
	if q.has == nil {
		q.has = map[key]bool{}
	}
	q.has[one] = true
	q.order = append(q.order, one)
}

func (q *queue) len() int { return len(q.order) }

func (q *queue) take(most int) []key {
	n := min(most, len(q.order))
	out := slices.Clone(q.order[:n])
	q.order = q.order[n:]
	for _, one := range out {
		delete(q.has, one)
	}
	return out
}
