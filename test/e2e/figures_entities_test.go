package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
	"castellan.dev/castellan/test/e2e/stand"
)

// envEntities is how many objects are applied, in place of 10,000 topics and 20,000 users.
const envEntities = "CASTELLAN_BENCH_ENTITIES"

// Bounds of the figures of topics and users.
const (
	entitiesBound    = 1.2 // times objects in the API alone plus plain batched requests to Kafka
	topicsMemory     = 400 // MiB, the operator
	usersMemory      = 512 // MiB
	topicEditBound   = 75 * time.Millisecond
	userEditBound    = 80 * time.Millisecond
	entityEdits      = 100
	entitiesAtRest   = 70 * time.Second
	benchmarkClients = 16
)

// BenchmarkTopics applies many KafkaTopics by 16 clients until all are Ready on one broker, and then edits some.
func BenchmarkTopics(b *testing.B) {
	for b.Loop() {
		entities{
			n: sizeOf(b, 10_000), memory: topicsMemory, edit99: topicEditBound, list: &api.KafkaTopic{},
			object: func(name string) client.Object {
				return &api.KafkaTopic{
					ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
					Spec:       api.KafkaTopicSpec{ClusterRef: api.EntityClusterRef{Name: "kafka"}, Partitions: new(int32(1))},
				}
			},
			plain: func(ctx context.Context, admin *kadm.Client, _ *kgo.Client, names []string) error {
				made, err := admin.CreateTopics(ctx, 1, 1, nil, names...)
				if err != nil {
					return err
				}
				return made.Error()
			},
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
	for b.Loop() {
		entities{
			n: sizeOf(b, 20_000), memory: usersMemory, edit99: userEditBound, list: &api.KafkaUser{},
			object: func(name string) client.Object {
				return &api.KafkaUser{
					ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
					Spec: api.KafkaUserSpec{
						ClusterRef: api.EntityClusterRef{Name: "kafka"}, Authentication: api.UserAuthentication{Type: api.UserScramSha512},
						ACLs: []api.ACL{{Resource: api.ACLResource{Type: api.ACLTopic, Name: name}, Operations: []api.ACLOperation{api.ACLRead, api.ACLWrite, api.ACLDescribe}}},
					},
				}
			},
			plain: plainUsers,
			edit: func(o client.Object, i int) {
				if u, ok := o.(*api.KafkaUser); ok {
					u.Spec.ACLs[0].Operations = [][]api.ACLOperation{{api.ACLRead}, {api.ACLWrite}}[i%2]
				}
			},
		}.run(b)
	}
}

// plainUsers makes them with as few requests as can be: kadm's CreateACLs would take one for each name.
func plainUsers(ctx context.Context, admin *kadm.Client, kafka *kgo.Client, names []string) error {
	credentials := make([]kadm.UpsertSCRAM, 0, len(names))
	acls := kmsg.NewPtrCreateACLsRequest()
	for _, name := range names {
		credentials = append(credentials, kadm.UpsertSCRAM{User: name, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "password"})
		for _, op := range []kmsg.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe} {
			one := kmsg.NewCreateACLsRequestCreation()
			one.ResourceType, one.ResourceName, one.ResourcePatternType = kmsg.ACLResourceTypeTopic, name, kmsg.ACLResourcePatternTypeLiteral
			one.Principal, one.Host, one.Operation, one.PermissionType = "User:"+name, "*", op, kmsg.ACLPermissionTypeAllow
			acls.Creations = append(acls.Creations, one)
		}
	}
	altered, err := admin.AlterUserSCRAMs(ctx, nil, credentials)
	if err := errors.Join(err, altered.Error()); err != nil {
		return err
	}
	made, err := acls.RequestWith(ctx, kafka)
	if err != nil {
		return err
	}
	for _, r := range made.Results {
		err = errors.Join(err, kerr.ErrorForCode(r.ErrorCode))
	}
	return err
}

func sizeOf(b *testing.B, all int) int {
	b.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(envEntities), strconv.Itoa(all)))
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// entities is one kind of object, many times.
type entities struct {
	n      int
	memory float64
	edit99 time.Duration
	list   client.Object
	object func(name string) client.Object
	plain  func(ctx context.Context, admin *kadm.Client, kafka *kgo.Client, names []string) error
	edit   func(o client.Object, i int)
}

// oneBroker is a cluster that can hold so many; it knows its clients, so that there are ACLs.
func oneBroker() string {
	return strings.NewReplacer("heap: 256Mi", "heap: 1536Mi", "    port: 9092", `    port: 9092
  - {name: scram, port: 9093, tls: {}, authentication: {type: ScramSha512}}
  authorization: {type: ACL}`).Replace(stand.Combined(version, 1))
}

func (e entities) run(b *testing.B) {
	b.Helper()
	alone := e.apply(b, controlplanetest.Client(b, unlimited(controlplanetest.Start(b))))
	plain := e.inKafka(b)
	b.Logf("%d objects: %.1f s in the API alone, %.1f s in plain requests to Kafka, 100 at a time", e.n, alone.Seconds(), plain.Seconds())

	s := stand.New(b, stand.Options{Cluster: oneBroker()})
	c, config := connect(b, s)
	ready := e.watch(b, config, c.Scheme())
	operator := s.MustPID(stand.Operator)
	before := residentMiB(b, operator)
	used := e.processorTime(b, s)
	began := time.Now()
	created := e.apply(b, c)
	ready.wait(b, 20*time.Minute, func() string {
		if n := ready.count(); n < e.n {
			return fmt.Sprintf("%d of %d are Ready", n, e.n)
		}
		return ""
	})
	took := time.Since(began)
	ratio, memory := took.Seconds()/(alone+plain).Seconds(), peakMiB(b, operator)
	b.ReportMetric(ratio, "times-the-bound")
	b.ReportMetric(memory, "operator-MiB")
	b.Logf("processor time: %s", e.processorTime(b, s).minus(used))
	b.Logf("all created after %.1f s, all Ready after %.1f s: %.2f times the sum (bound %.1f); operator %.0f MiB before, %.0f at most (bound %.0f)",
		created.Seconds(), took.Seconds(), ratio, entitiesBound, before, memory, e.memory)
	e.edits(b, c, ready)
	b.Logf("operator after %d edits: %.0f MiB, at most %.0f", entityEdits, residentMiB(b, operator), peakMiB(b, operator))
	atRest(b, s, operator)
}

// processorTime is what each process has used, in seconds.
type processorTime struct{ operator, controlPlane, kafka, test float64 }

func (e entities) processorTime(b *testing.B, s *stand.Stand) processorTime {
	b.Helper()
	return processorTime{
		cpuSeconds(b, s.MustPID(stand.Operator)), cpuSeconds(b, s.MustPID(stand.ControlPlane)), cpuSeconds(b, s.JVMPIDs()[0]), cpuSeconds(b, os.Getpid()),
	}
}

func (p processorTime) minus(q processorTime) string {
	return fmt.Sprintf("operator %.1f s, control plane %.1f s, Kafka %.1f s, this benchmark %.1f s",
		p.operator-q.operator, p.controlPlane-q.controlPlane, p.kafka-q.kafka, p.test-q.test)
}

// atRest looks whether anything is written while nothing changes.
func atRest(b *testing.B, s *stand.Stand, operator int) {
	b.Helper()
	settle(b, s)
	began, cpu := time.Now(), cpuSeconds(b, operator)
	<-time.After(entitiesAtRest)
	ended := time.Now()
	b.Logf("at rest: %.2f %% of a core", 100*(cpuSeconds(b, operator)-cpu)/ended.Sub(began).Seconds())
	judgeWrites(b, audited(b, s, began, ended))
}

// edits changes objects one after the other, and measures until each is Ready in its new version.
func (e entities) edits(b *testing.B, c client.Client, ready *readiness) {
	b.Helper()
	took := make([]time.Duration, 0, entityEdits)
	for i := range entityEdits {
		o := e.object(nameOf(i * e.n / entityEdits))
		if err := c.Get(b.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			b.Fatal(err)
		}
		e.edit(o, i)
		began := time.Now()
		if err := c.Update(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		ready.wait(b, time.Minute, func() string {
			if at := ready.of(o.GetName()); at != o.GetGeneration() {
				return fmt.Sprintf("%s is Ready in generation %d, not %d", o.GetName(), at, o.GetGeneration())
			}
			return ""
		})
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)*99/100-1]
	b.ReportMetric(float64(p99.Milliseconds()), "ms-p99-edit")
	b.Logf("one edit is in force after %d ms (p50), %d ms (p99; bound %d)", p50.Milliseconds(), p99.Milliseconds(), e.edit99.Milliseconds())
}

func nameOf(i int) string { return fmt.Sprintf("entity-%05d", i) }

// apply creates all by 16 clients, and says how long that took.
func (e entities) apply(b *testing.B, c client.Client) time.Duration {
	b.Helper()
	began := time.Now()
	group, ctx := errgroup.WithContext(b.Context())
	var next atomic.Int64
	for range benchmarkClients {
		group.Go(func() error {
			for i := int(next.Add(1)) - 1; i < e.n; i = int(next.Add(1)) - 1 {
				if err := c.Create(ctx, e.object(nameOf(i))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// inKafka makes the same with plain requests, on a broker of its own.
func (e entities) inKafka(b *testing.B) time.Duration {
	b.Helper()
	s := stand.New(b, stand.Options{Cluster: oneBroker()})
	at := s.BrokerTarget()
	kafka, err := kgo.NewClient(kgo.SeedBrokers(at.Brokers...), kgo.DialTLSConfig(at.TLS))
	if err != nil {
		b.Fatal(err)
	}
	defer kafka.Close()
	admin := kadm.NewClient(kafka)
	admin.SetTimeoutMillis(60_000)
	began := time.Now()
	names := make([]string, 0, 100)
	for i := range e.n {
		if names = append(names, nameOf(i)); len(names) < 100 && i < e.n-1 {
			continue
		}
		if err := e.plain(b.Context(), admin, kafka, names); err != nil {
			b.Fatal(err)
		}
		names = names[:0]
	}
	took := time.Since(began)
	s.Must("down")
	return took
}

// readiness knows the generation of each object for which it is Ready.
type readiness struct {
	mu   sync.Mutex
	at   map[string]int64
	wake chan struct{}
}

func (r *readiness) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.at)
}

func (r *readiness) of(name string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at[name]
}

func (r *readiness) see(o any) {
	var conditions []metav1.Condition
	var name string
	switch o := o.(type) {
	case *api.KafkaTopic:
		name, conditions = o.Name, o.Status.Conditions
	case *api.KafkaUser:
		name, conditions = o.Name, o.Status.Conditions
	}
	is := meta.FindStatusCondition(conditions, api.ConditionReady)
	if is == nil || is.Status != metav1.ConditionTrue {
		return
	}
	r.mu.Lock()
	r.at[name] = is.ObservedGeneration
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// wait waits for a fact of what is watched; missing says what is not so yet.
func (r *readiness) wait(b *testing.B, most time.Duration, missing func() string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), most)
	defer cancel()
	for missing() != "" {
		select {
		case <-ctx.Done():
			b.Fatalf("not within %s: %s", most, missing())
		case <-r.wake:
		}
	}
}

func (e entities) watch(b *testing.B, config *rest.Config, scheme *runtime.Scheme) *readiness {
	b.Helper()
	r := &readiness{at: map[string]int64{}, wake: make(chan struct{}, 1)}
	seen, err := cache.New(config, cache.Options{Scheme: scheme, DefaultTransform: cache.TransformStripManagedFields()})
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = seen.Start(b.Context()) }() // it ends with the benchmark
	informer, err := seen.GetInformer(b.Context(), e.list)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: r.see, UpdateFunc: func(_, o any) { r.see(o) }}); err != nil {
		b.Fatal(err)
	}
	return r
}

// connect is a client without a limit of its own.
func connect(b *testing.B, s *stand.Stand) (client.Client, *rest.Config) { //nolint:ireturn // client-go gives only the interface
	b.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.Dir().Kubeconfig())
	if err != nil {
		b.Fatal(err)
	}
	config = unlimited(config)
	c, err := client.New(config, client.Options{Scheme: s.Client().Scheme()})
	if err != nil {
		b.Fatal(err)
	}
	return c, config
}

func unlimited(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.QPS = -1
	return config
}

// peakMiB is the most memory that a process has had (proc(5), VmHWM).
func peakMiB(b *testing.B, pid int) float64 {
	b.Helper()
	return memoryMiB(b, pid, "VmHWM:")
}
