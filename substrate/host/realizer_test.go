package host_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
	corehost "castellan.dev/castellan/core/host"
	"castellan.dev/castellan/substrate/host"
)

const namespace = "castellan-host-h1"

// yard is a realizer on a real API server, whose agent is played by the test.
type yard struct {
	t      *testing.T
	c      client.Client
	r      *host.Realizer
	writes atomic.Int64
}

func newYard(t *testing.T) *yard {
	t.Helper()
	config := controlplanetest.Start(t)
	y := &yard{t: t, c: controlplanetest.Client(t, config)}
	counted := rest.CopyConfig(config)
	counted.Wrap(func(next http.RoundTripper) http.RoundTripper { return roundTripper{next: next, writes: &y.writes} })
	c := controlplanetest.Client(t, counted)
	y.r = host.New(c, c)
	for _, o := range host.Enrolment("h1", rbacv1.Subject{Kind: "User", Name: "agent", APIGroup: rbacv1.GroupName}) {
		y.create(o)
	}
	y.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kafka"}})
	y.create(&api.Host{ObjectMeta: metav1.ObjectMeta{Name: "h1"}, Spec: api.HostSpec{Address: "127.0.0.1", DataRoots: []string{"/data"}}})
	return y
}

type roundTripper struct {
	next   http.RoundTripper
	writes *atomic.Int64
}

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method != http.MethodGet {
		r.writes.Add(1)
	}
	return r.next.RoundTrip(request)
}

func (y *yard) create(o client.Object) {
	y.t.Helper()
	if err := y.c.Create(y.t.Context(), o); err != nil {
		y.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

func (y *yard) apply(node api.KafkaNode) {
	y.t.Helper()
	if err := y.r.Apply(y.t.Context(), node); err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) get(o client.Object, name string) {
	y.t.Helper()
	if err := y.c.Get(y.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, o); err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) status(node api.KafkaNode) api.KafkaNodeStatus {
	y.t.Helper()
	s, err := y.r.Status(y.t.Context(), node)
	if err != nil {
		y.t.Fatal(err)
	}
	return s
}

// wantWrites says how many requests to write an act took.
func (y *yard) wantWrites(what string, want int64, act func()) {
	y.t.Helper()
	before := y.writes.Load()
	act()
	if got := y.writes.Load() - before; got != want {
		y.t.Errorf("%s: %d writes, want %d", what, got, want)
	}
}

func testNode() api.KafkaNode {
	return api.KafkaNode{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-1", UID: "u", Generation: 3},
		Spec: api.KafkaNodeSpec{
			ClusterName: "orders", NodeID: 1, Pool: "nodes", Roles: []api.Role{api.RoleBroker}, Revision: "orders-1",
			Process: api.ProcessSpec{Version: "4.3.1", Layout: 1, HeapBytes: 1 << 28, Volumes: []string{"data"}},
			Volumes: []api.NodeVolume{{Name: "data", Path: "/data/kafka/orders/1/data"}},
			Host:    "h1", Address: "127.0.0.1", Ports: map[string]int32{"INTERNAL": 9091}, State: api.StateRunning,
		},
		Status: api.KafkaNodeStatus{ObservedGeneration: 2},
	}
}

// TestRealizer is one story, since a control plane takes seconds to start.
func TestRealizer(t *testing.T) {
	y := newYard(t)
	node := testNode()

	if s := y.status(node); s.State != api.NodeUnknown || s.Reason != corehost.ReasonHostSilent {
		t.Errorf("a host without an agent gives %s, %s", s.State, s.Reason)
	}
	y.renew(time.Now())
	if s := y.status(node); s.State != api.NodePending || s.Reason != corehost.ReasonNoProcess {
		t.Errorf("a node that was not applied is %s, %s", s.State, s.Reason)
	}

	y.wantWrites("apply without a secret", 1, func() { y.apply(node) })
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: corehost.SecretName("orders", 1)},
		Data:       map[string][]byte{"node.pem": []byte("1"), "old": []byte("x")},
	}
	y.create(secret)
	y.wantWrites("apply with its secret", 1, func() { y.apply(node) })
	y.wantWrites("apply again", 0, func() { y.apply(node) })

	secret.Data = map[string][]byte{"node.pem": []byte("2")}
	if err := y.c.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	y.wantWrites("apply a new certificate", 1, func() { y.apply(node) })
	var copied corev1.Secret
	y.get(&copied, "kafka.orders-1")
	if diff := cmp.Diff(secret.Data, copied.Data); diff != "" {
		t.Errorf("copy of the secret: %s", diff)
	}

	y.playAgent(func(hp *api.HostProcess) {
		hp.Status = api.HostProcessStatus{
			ObservedGeneration: hp.Generation, State: api.ProcessRunning, Ready: true,
			Report: `{"processHash":"sha256:1","state":"Running","ready":true,"version":"4.3.1"}`,
		}
	})
	if s := y.status(node); s.State != api.NodeRunning || !s.Ready || s.ObservedGeneration != 3 {
		t.Errorf("a running node is %+v", s)
	}
	later := node
	later.Generation, later.Spec.ClusterID = 4, "MkU3OEVBNTcwNTJENDM2Qg"
	if s := y.status(later); s.ObservedGeneration != 2 {
		t.Errorf("a generation that was not applied counts as observed: %d", s.ObservedGeneration)
	}
	y.wantWrites("apply a live change", 1, func() { y.apply(later) })
	y.wantWrites("apply a live change again", 0, func() { y.apply(later) })

	y.remove(later)
}

func (y *yard) renew(at time.Time) {
	y.t.Helper()
	seconds, renewed := int32(20), metav1.NewMicroTime(at)
	y.create(&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: corehost.LeaseName},
		Spec:       coordinationv1.LeaseSpec{LeaseDurationSeconds: &seconds, RenewTime: &renewed},
	})
}

func (y *yard) playAgent(change func(*api.HostProcess)) {
	y.t.Helper()
	var hp api.HostProcess
	y.get(&hp, "kafka.orders-1")
	change(&hp)
	if err := y.c.Status().Update(y.t.Context(), &hp); err != nil {
		y.t.Fatal(err)
	}
}

// remove deletes a node and its data step by step.
func (y *yard) remove(node api.KafkaNode) {
	y.t.Helper()
	ctx, owner := y.t.Context(), host.Owner(node)
	if err := y.r.Claim(ctx, "h1", []int32{9091}, owner); err != nil {
		y.t.Fatal(err)
	}
	for range 2 {
		if gone, err := y.r.Remove(ctx, node, api.DeletionDelete); gone || err != nil {
			y.t.Fatalf("gone %t, %v before the agent was done", gone, err)
		}
	}
	var hp api.HostProcess
	y.get(&hp, "kafka.orders-1")
	if hp.DeletionTimestamp.IsZero() || hp.Spec.RemoveDirectories != api.DeletionDelete {
		y.t.Errorf("deleted at %v, directories %s", hp.DeletionTimestamp, hp.Spec.RemoveDirectories)
	}
	hp.Finalizers = nil // the agent is done
	if err := y.c.Update(ctx, &hp); err != nil {
		y.t.Fatal(err)
	}
	if gone, err := y.r.Remove(ctx, node, api.DeletionDelete); !gone || err != nil {
		y.t.Fatalf("gone %t, %v after the agent was done", gone, err)
	}
	var secret corev1.Secret
	if err := y.c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "kafka.orders-1"}, &secret); !apierrors.IsNotFound(err) {
		y.t.Errorf("the copy of the secret is still there: %v", err)
	}
	claimed, err := y.r.Claimed(ctx, "h1")
	if err != nil || len(claimed) != 0 {
		y.t.Errorf("ports are still claimed: %v, %v", claimed, err)
	}
}

func TestTwoOwnersCannotBothWin(t *testing.T) {
	y := newYard(t)
	ctx := t.Context()
	a := api.OwnerRef{Kind: "KafkaNode", Namespace: "kafka", Name: "a-1", UID: "1"}
	b := api.OwnerRef{Kind: "KafkaNode", Namespace: "kafka", Name: "b-1", UID: "2"}
	if err := y.r.Claim(ctx, "h1", []int32{9091, 9090}, a); err != nil {
		t.Fatal(err)
	}
	a.UID = "3" // created again
	y.wantWrites("claim again", 0, func() {
		if err := y.r.Claim(ctx, "h1", []int32{9090, 9091}, a); err != nil {
			t.Error(err)
		}
	})
	err := y.r.Claim(ctx, "h1", []int32{9089, 9091}, b)
	var taken *host.ClaimedError
	if !errors.As(err, &taken) || taken.Port != 9091 || !strings.Contains(err.Error(), "KafkaNode kafka/a-1") {
		t.Errorf("claiming a taken port gives %v", err)
	}
	claimed, err := y.r.Claimed(ctx, "h1")
	if err != nil {
		t.Fatal(err)
	}
	if _, half := claimed[9089]; half || len(claimed) != 2 {
		t.Errorf("after a claim that failed these are claimed: %v", claimed)
	}
	y.race(9100)
	if err := y.r.Release(ctx, "h1", a); err != nil {
		t.Fatal(err)
	}
	if err := y.r.Claim(ctx, "h1", []int32{9091}, b); err != nil {
		t.Errorf("a released port is not free: %v", err)
	}
}

// race has many owners claim one port at once.
func (y *yard) race(port int32) {
	y.t.Helper()
	won := make(chan error, 8)
	for n := range cap(won) {
		go func() {
			won <- y.r.Claim(context.WithoutCancel(y.t.Context()), "h1", []int32{port}, api.OwnerRef{Kind: "KafkaNode", Namespace: "kafka", Name: string(rune('a' + n))})
		}()
	}
	wins := 0
	for range cap(won) {
		if <-won == nil {
			wins++
		}
	}
	if wins != 1 {
		y.t.Errorf("%d owners won port %d", wins, port)
	}
}
