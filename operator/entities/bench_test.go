package entities_test

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	kafkaentities "castellan.dev/castellan/kafka/entities"
)

// benchSize is how many objects are applied, in place of 10,000 topics or 20,000 users.
const benchSize = "CASTELLAN_BENCH_ENTITIES"

// BenchmarkTopics applies many KafkaTopics by 16 clients until all are Ready, and then edits some.
func BenchmarkTopics(b *testing.B) {
	for b.Loop() {
		bench{
			n: sizeOf(b, 10_000),
			object: func(name string) client.Object {
				t := topic(home, name)
				t.Spec.Partitions = new(int32(1))
				return t
			},
			plain: func(name string) []core.Action {
				return []core.Action{core.CreateTopic{Name: name, Partitions: 1, Replicas: 1}}
			},
			list: &api.KafkaTopic{},
			edit: func(o client.Object, i int) {
				if t, ok := o.(*api.KafkaTopic); ok {
					t.Spec.Config = api.Config{"retention.ms": api.ConfigValue(strconv.Itoa(1000 + i))}
				}
			},
		}.run(b)
	}
}

// BenchmarkUsers is the same of KafkaUsers with SCRAM and 3 ACLs.
func BenchmarkUsers(b *testing.B) {
	acl := func(name string, op ...api.ACLOperation) api.ACL {
		return api.ACL{Resource: api.ACLResource{Type: api.ACLTopic, Name: name}, Operations: op}
	}
	for b.Loop() {
		bench{
			n: sizeOf(b, 20_000),
			object: func(name string) client.Object {
				u := user(home, name, api.UserScramSha512)
				u.Spec.Presets, u.Spec.ACLs = nil, []api.ACL{acl(name, api.ACLRead, api.ACLWrite, api.ACLDescribe)}
				return u
			},
			plain: func(name string) []core.Action {
				do := []core.Action{core.UpsertCredential{Principal: name, Iterations: 4097}}
				for _, op := range []api.ACLOperation{api.ACLRead, api.ACLWrite, api.ACLDescribe} {
					do = append(do, core.CreateGrant{Principal: name, Grant: core.Grant{Type: api.ACLTopic, Name: name, Pattern: api.ACLLiteral, Operation: op, Effect: api.ACLAllow, Host: "*"}})
				}
				return do
			},
			list: &api.KafkaUser{},
			edit: func(o client.Object, i int) {
				if u, ok := o.(*api.KafkaUser); ok {
					u.Spec.ACLs[0].Operations = [][]api.ACLOperation{{api.ACLRead}, {api.ACLWrite}}[i%2]
				}
			},
		}.run(b)
	}
}

func sizeOf(b *testing.B, all int) int {
	b.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(benchSize), strconv.Itoa(all)))
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// bench is one kind of object, many times.
type bench struct {
	n      int
	object func(name string) client.Object
	plain  func(name string) []core.Action
	list   client.Object
	edit   func(o client.Object, i int)
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (s bench) run(b *testing.B) {
	b.Helper()
	y := newYard(b)
	y.every = time.Minute
	y.orders()
	alone := s.create(y, "alone")
	plain := s.direct(y)
	say("%d objects: %s in the API alone, %s in plain batched requests to Kafka", s.n, alone.Round(time.Millisecond), plain.Round(time.Millisecond))
	if err := y.c.DeleteAllOf(b.Context(), s.list, client.InNamespace(home)); err != nil {
		b.Fatal(err)
	}
	ready := s.watch(y)
	heap := heapMiB()
	y.start()
	began := time.Now()
	s.create(y, "t")
	created := time.Since(began)
	y.wait(15*time.Minute, func() bool { return ready.all(0) >= s.n })
	took := time.Since(began)
	ratio := took.Seconds() / (alone + plain).Seconds()
	say("created after %s, all Ready after %s: %.2f times the sum; heap from %d to %d MiB with everything of the test and the fake Kafka in it; %d writes",
		created.Round(time.Millisecond), took.Round(time.Millisecond), ratio, heap, heapMiB(), len(y.written()))
	b.ReportMetric(ratio, "times-the-bound")
	s.edits(b, y, ready)
}

// edits changes objects one after the other, and measures until each is Ready in its new version.
func (s bench) edits(b *testing.B, y *yard, ready *readiness) {
	b.Helper()
	const edits = 100
	var took []time.Duration
	for i := range edits {
		o := s.object(nameOf("t", i*s.n/edits))
		y.get(o)
		s.edit(o, i)
		before := time.Now()
		if err := y.c.Update(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		y.wait(time.Minute, func() bool { return ready.of(o.GetName()) == o.GetGeneration() })
		took = append(took, time.Since(before))
	}
	slices.Sort(took)
	say("an edit is Ready after %s (p50), %s (p99)", took[len(took)/2].Round(time.Millisecond), took[len(took)*99/100].Round(time.Millisecond))
	b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "ms-p99-edit")
}

func nameOf(prefix string, i int) string { return fmt.Sprintf("%s-%05d", prefix, i) }

// create creates all by 16 clients, and says how long that took.
func (s bench) create(y *yard, prefix string) time.Duration {
	y.t.Helper()
	config := rest.CopyConfig(y.config)
	config.QPS = -1
	c, err := client.New(config, client.Options{Scheme: y.c.Scheme()})
	if err != nil {
		y.t.Fatal(err)
	}
	began := time.Now()
	group, ctx := errgroup.WithContext(y.t.Context())
	var next atomic.Int64
	for range 16 {
		group.Go(func() error {
			for i := int(next.Add(1)) - 1; i < s.n; i = int(next.Add(1)) - 1 {
				if err := c.Create(ctx, s.object(nameOf(prefix, i))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		y.t.Fatal(err)
	}
	return time.Since(began)
}

// direct does in Kafka what the objects ask for, 100 at a time.
func (s bench) direct(y *yard) time.Duration {
	y.t.Helper()
	began := time.Now()
	for from := 0; from < s.n; from += 100 {
		var changes []core.Change
		for i := from; i < min(from+100, s.n); i++ {
			for _, do := range s.plain(nameOf("plain", i)) {
				changes = append(changes, core.Change{Do: do})
			}
		}
		password := func(context.Context, core.SecretRef) ([]byte, error) { return []byte("password"), nil }
		for _, r := range kafkaentities.Apply(y.t.Context(), y.kafka, changes, password) {
			if r.Outcome != core.Done {
				y.t.Fatalf("%+v", r)
			}
		}
	}
	return time.Since(began)
}

// readiness knows the generation of each object for which it is Ready.
type readiness struct {
	mu   sync.Mutex
	at   map[string]int64
	wake chan struct{}
}

func (r *readiness) all(int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.at)
}

func (r *readiness) of(name string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at[name]
}

func (s bench) watch(y *yard) *readiness {
	y.t.Helper()
	r := &readiness{at: map[string]int64{}, wake: make(chan struct{}, 1)}
	y.woken = r.wake
	c, err := ctrlcache.New(y.config, ctrlcache.Options{Scheme: y.c.Scheme(), DefaultTransform: ctrlcache.TransformStripManagedFields()})
	if err != nil {
		y.t.Fatal(err)
	}
	go func() { _ = c.Start(y.t.Context()) }() // it ends with the test
	informer, err := c.GetInformer(y.t.Context(), s.list)
	if err != nil {
		y.t.Fatal(err)
	}
	see := func(o any) {
		one, conditions := readyOf(o)
		if one == nil || !meta.IsStatusConditionTrue(conditions, api.ConditionReady) {
			return
		}
		r.mu.Lock()
		r.at[one.GetName()] = meta.FindStatusCondition(conditions, api.ConditionReady).ObservedGeneration
		r.mu.Unlock()
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, o any) { see(o) }}); err != nil {
		y.t.Fatal(err)
	}
	return r
}

func readyOf(o any) (client.Object, []metav1.Condition) { //nolint:ireturn // either kind
	switch o := o.(type) {
	case *api.KafkaTopic:
		return o, o.Status.Conditions
	case *api.KafkaUser:
		return o, o.Status.Conditions
	}
	return nil, nil
}

// wait waits for a fact of what is watched.
func (y *yard) wait(most time.Duration, fact func() bool) {
	y.t.Helper()
	ctx, cancel := context.WithTimeout(y.t.Context(), most)
	defer cancel()
	for !fact() {
		select {
		case <-ctx.Done():
			y.t.Fatalf("not within %s", most)
		case <-y.woken:
		}
	}
}

func heapMiB() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc >> 20
}
