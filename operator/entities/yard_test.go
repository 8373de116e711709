package entities_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/kafka"
	kafkaentities "castellan.dev/castellan/kafka/entities"
	"castellan.dev/castellan/kafka/kafkatest"
	"castellan.dev/castellan/operator/entities"
	"castellan.dev/castellan/pki/secrets"
)

const (
	home     = "kafka"
	patience = time.Minute // on a busy machine
)

// yard is a real API server, a fake Kafka, and the loop between them.
type yard struct {
	t      testing.TB
	config *rest.Config
	c      client.Client
	fake   *kafkatest.Fake
	kafka  *kafka.Cluster
	// every is how often Kafka is read.
	every time.Duration
	// unreachable is why there is no way to Kafka.
	unreachable error

	stop func()

	mu     sync.Mutex
	writes []string // requests of the loop that write
	fail   func(method, path string) bool
}

func newYard(t testing.TB) *yard {
	t.Helper()
	y := &yard{t: t, config: controlplanetest.Start(t), fake: kafkatest.NewFake(t, kafkatest.Config{Brokers: 3}), every: time.Second}
	y.c = controlplanetest.Client(t, y.config)
	quorum := y.fake.Quorum()
	quorum.Leader = 2 // the broker that takes changes in kfake
	y.fake.SetQuorum(quorum)
	all := kafka.NewClients(kafka.Options{Timeout: 5 * time.Second})
	t.Cleanup(all.Close)
	y.kafka = all.Cluster("kafka/orders", y.fake.Target())
	y.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: home}})
	y.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team", Labels: map[string]string{"kafka": "yes"}}})
	return y
}

// orders is a cluster with a listener for each way to come in; nobody but these tests looks at it.
func (y *yard) orders() *api.KafkaCluster {
	y.t.Helper()
	kc := &api.KafkaCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "orders"},
		Spec: api.KafkaClusterSpec{
			Version: "4.3.1",
			Pools:   []api.Pool{{Name: "nodes", Roles: []api.Role{api.RoleBroker, api.RoleController}, Replicas: 3, Placement: api.Placement{Hosts: &api.HostPlacement{}}}},
			Listeners: []api.Listener{
				{Name: "scram", Port: 9094, TLS: &api.ListenerTLS{}, Authentication: api.Authentication{Type: api.AuthenticationScramSha512}},
				{Name: "tls", Port: 9095, TLS: &api.ListenerTLS{}, Authentication: api.Authentication{Type: api.AuthenticationMutualTLS}},
			},
		},
	}
	y.create(kc)
	y.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "orders-ca-cert"}, Data: map[string][]byte{"ca.crt": []byte("the CA")}})
	before := kc.DeepCopy()
	ca := &corev1.LocalObjectReference{Name: "orders-ca-cert"}
	kc.Status.Listeners = []api.ListenerStatus{
		{Name: "scram", BootstrapServers: "a.example:9094", CASecretRef: ca}, {Name: "tls", BootstrapServers: "a.example:9095", CASecretRef: ca},
	}
	if err := y.c.Status().Patch(y.t.Context(), kc, client.MergeFrom(before)); err != nil {
		y.t.Fatal(err)
	}
	return kc
}

// RoundTrip notes what the loop writes, and fails what a test wants to fail.
func (y *yard) wrap(next http.RoundTripper) http.RoundTripper { return tripper{y, next} }

type tripper struct {
	y    *yard
	next http.RoundTripper
}

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) {
	t.y.mu.Lock()
	lease := strings.Contains(r.URL.Path, "/leases") || strings.Contains(r.URL.Path, "/events")
	if r.Method != http.MethodGet && !lease {
		t.y.writes = append(t.y.writes, r.Method+" "+r.URL.Path)
	}
	fail := t.y.fail != nil && t.y.fail(r.Method, r.URL.Path)
	t.y.mu.Unlock()
	if fail {
		return nil, errors.New("the test cut the line")
	}
	return t.next.RoundTrip(r)
}

func (y *yard) written() []string {
	y.mu.Lock()
	defer y.mu.Unlock()
	return append([]string(nil), y.writes...)
}

func (y *yard) start() {
	y.t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), api.AddToScheme(scheme)); err != nil {
		y.t.Fatal(err)
	}
	config := rest.CopyConfig(y.config)
	config.QPS, config.Burst = 2000, 4000
	config.Wrap(y.wrap)
	ctrl.SetLogger(logr.Discard())
	mgr, err := ctrl.NewManager(config, ctrl.Options{Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, Logger: logr.Discard()})
	if err != nil {
		y.t.Fatal(err)
	}
	r := entities.New(entities.Config{
		Client: mgr.GetClient(), Writer: mgr.GetClient(), Live: mgr.GetAPIReader(), Cache: mgr.GetCache(), ReadEvery: y.every,
		Reach: func(context.Context, *api.KafkaCluster) (*kafka.Cluster, error) {
			y.mu.Lock()
			defer y.mu.Unlock()
			return y.kafka, y.unreachable
		},
		Certificates: secrets.Store{Client: mgr.GetClient()}, Events: mgr.GetEventRecorder("castellan-operator"),
		Log: slog.New(slog.NewTextHandler(y.t.Output(), &slog.HandlerOptions{Level: level()})),
	})
	if err := mgr.Add(r); err != nil {
		y.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	y.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			y.t.Errorf("the loop ended with %v", err)
		}
	})
	y.t.Cleanup(y.stop)
}

func (y *yard) create(o client.Object) {
	y.t.Helper()
	if err := y.c.Create(y.t.Context(), o); err != nil {
		y.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

func (y *yard) get(o client.Object) {
	y.t.Helper()
	if err := y.c.Get(y.t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		y.t.Fatalf("get %T %s: %v", o, o.GetName(), err)
	}
}

// change changes an object as it is now.
func change[O client.Object](y *yard, o O, change func(O)) {
	y.t.Helper()
	y.get(o)
	before, ok := o.DeepCopyObject().(O)
	if !ok {
		y.t.Fatal("no copy")
	}
	change(o)
	if err := y.c.Patch(y.t.Context(), o, client.MergeFrom(before)); err != nil {
		y.t.Fatalf("change %s: %v", o.GetName(), err)
	}
}

func (y *yard) remove(o client.Object) {
	y.t.Helper()
	if err := y.c.Delete(y.t.Context(), o); err != nil {
		y.t.Fatalf("delete %s: %v", o.GetName(), err)
	}
}

func (y *yard) eventually(what string, fact func() error) {
	y.t.Helper()
	ctx, cancel := context.WithTimeout(y.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := fact()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			y.t.Fatalf("%s: not within %s: %v", what, patience, err)
		case <-tick.C:
		}
	}
}

// is waits for Ready with this status and reason, and text in the message.
func (y *yard) is(o client.Object, status metav1.ConditionStatus, reason, text string) {
	y.t.Helper()
	y.eventually(fmt.Sprintf("%s is %s %s", o.GetName(), status, reason), func() error {
		y.get(o)
		var all []metav1.Condition
		switch o := o.(type) {
		case *api.KafkaTopic:
			all = o.Status.Conditions
		case *api.KafkaUser:
			all = o.Status.Conditions
		}
		c := meta.FindStatusCondition(all, api.ConditionReady)
		if c == nil || c.Status != status || c.Reason != reason || !strings.Contains(c.Message, text) || c.ObservedGeneration != o.GetGeneration() {
			return fmt.Errorf("generation %d: %+v", o.GetGeneration(), c)
		}
		return nil
	})
}

// has is what Kafka has, with these keys of topics.
func (y *yard) has(keys ...string) *core.Snapshot {
	y.t.Helper()
	s, err := kafkaentities.Read(y.t.Context(), y.kafka, kafkaentities.Ask{Keys: func(string) []string { return keys }})
	if err != nil {
		y.t.Fatal(err)
	}
	return s
}

// outside changes Kafka as somebody else does.
func (y *yard) outside(do ...core.Action) {
	y.t.Helper()
	var changes []core.Change
	for _, one := range do {
		changes = append(changes, core.Change{Do: one})
	}
	for _, r := range kafkaentities.Apply(y.t.Context(), y.kafka, changes, nil) {
		if r.Outcome != core.Done {
			y.t.Fatalf("%+v", r)
		}
	}
}

func topic(namespace, name string) *api.KafkaTopic {
	return &api.KafkaTopic{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       api.KafkaTopicSpec{ClusterRef: api.EntityClusterRef{Name: "orders", Namespace: home}, Partitions: new(int32(2)), Replicas: new(int32(1))},
	}
}

func user(namespace, name string, how api.UserAuthenticationType) *api.KafkaUser {
	return &api.KafkaUser{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: api.KafkaUserSpec{
			ClusterRef: api.EntityClusterRef{Name: "orders", Namespace: home}, Authentication: api.UserAuthentication{Type: how},
			Presets: &api.ACLPresets{Consumer: []api.ConsumerPreset{{
				Topic: api.ACLPattern{Name: "orders-", PatternType: api.ACLPrefixed}, Group: api.ACLPattern{Name: "g"},
			}}},
		},
	}
}

func level() slog.Level {
	if testing.Verbose() {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}
