package secrets_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/pki/secrets"
)

// world is a fake API server that counts writes, and a clock.
type world struct {
	t      *testing.T
	store  secrets.Store
	client client.Client
	writes int
	now    time.Time
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	w := &world{t: t, now: day(0)}
	w.client = fake.NewClientBuilder().WithObjects(objects...).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			w.writes++
			return c.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			w.writes++
			return c.Update(ctx, o, opts...)
		},
	}).Build()
	w.store = secrets.Store{Client: w.client, Now: func() time.Time { return w.now }}
	return w
}

func cluster(uid string) *api.KafkaCluster {
	return &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders", UID: types.UID(uid)}}
}

func (w *world) ensure(nodes ...pki.Node) map[int32]secrets.Certificate {
	w.t.Helper()
	issued, err := w.store.Ensure(w.t.Context(), cluster("1"), secrets.Wanted{Nodes: nodes})
	if err != nil {
		w.t.Fatal(err)
	}
	return issued.Nodes
}

// wrote returns how many writes there were since it was last asked.
func (w *world) wrote() int {
	n := w.writes
	w.writes = 0
	return n
}

func (w *world) secret(name string) corev1.Secret {
	w.t.Helper()
	var s corev1.Secret
	if err := w.client.Get(w.t.Context(), types.NamespacedName{Namespace: "kafka", Name: name}, &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestEnsureWritesOnceAndThenNothing(t *testing.T) {
	w := newWorld(t)
	nodes := []pki.Node{{ID: 0, Address: "127.0.0.1"}, {ID: 1, Address: "127.0.0.1"}}
	first := w.ensure(nodes...)
	if got := w.wrote(); got != 5 {
		t.Errorf("writes for a new cluster of two nodes: got %d, want 5", got)
	}
	if diff := cmp.Diff(first, w.ensure(nodes...)); diff != "" {
		t.Errorf("the second pass gave other certificates (-first +second):\n%s", diff)
	}
	if got := w.wrote(); got != 0 {
		t.Errorf("writes of the second pass: got %d, want 0", got)
	}

	pair, err := pki.ParsePair(w.secret("orders-1-tls").Data[layout.KeyNodePEM])
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := pair.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	if got := pki.Digest(leaf); got != first[1].Digest {
		t.Errorf("digest of node 1: got %s in its Secret, %s was returned", got, first[1].Digest)
	}
	if _, err := w.store.OperatorConfig(t.Context(), types.NamespacedName{Namespace: "kafka", Name: "orders"}); err != nil {
		t.Error(err)
	}
	if owners := w.secret("orders-ca").OwnerReferences; len(owners) != 0 {
		t.Errorf("the CA would be deleted with the cluster: %v", owners)
	}
}

func TestEnsureRenewsWhatEndsSoonUnderTheSameCA(t *testing.T) {
	w := newWorld(t)
	node := pki.Node{ID: 0, Address: "127.0.0.1"}
	first := w.ensure(node)
	ca := w.secret("orders-ca").Data
	w.wrote()

	w.now = day(257)
	second := w.ensure(node)
	if got := w.wrote(); got != 2 {
		t.Errorf("writes when operator and node certificate end soon: got %d, want 2", got)
	}
	if first[0].Digest == second[0].Digest || !second[0].NotAfter.After(first[0].NotAfter) {
		t.Errorf("not renewed: %v then %v", first[0], second[0])
	}
	if diff := cmp.Diff(ca, w.secret("orders-ca").Data); diff != "" {
		t.Error("the CA changed")
	}
}

func TestEnsureFollowsTheAddressOfANode(t *testing.T) {
	w := newWorld(t)
	first := w.ensure(pki.Node{ID: 0, Address: "10.0.0.1"}, pki.Node{ID: 1, Address: "10.0.0.2"})
	w.wrote()
	second := w.ensure(pki.Node{ID: 0, Address: "10.0.0.9"}, pki.Node{ID: 1, Address: "10.0.0.2"})
	if first[0].Digest == second[0].Digest {
		t.Error("node 0 kept a certificate for its old address")
	}
	if first[1].Digest != second[1].Digest {
		t.Error("node 1 got another certificate for no reason")
	}
	if got := w.wrote(); got != 1 {
		t.Errorf("writes: got %d, want 1", got)
	}
}

// While a pod restarts, the address of its machine is not known. Clients begin at that machine
// all the same, and the other nodes must not get certificates anew with each restart.
func TestEnsureKeepsACertificateThatNamesMore(t *testing.T) {
	w := newWorld(t)
	node := func(names ...string) pki.Node { return pki.Node{ID: 0, Address: "orders-0-0", Names: names} }
	first := w.ensure(node("10.0.0.1", "10.0.0.2", "kafka.example"))
	w.wrote()
	if got := w.ensure(node("10.0.0.1")); got[0].Digest != first[0].Digest || w.wrote() != 0 {
		t.Error("another certificate because an address is not known for a moment")
	}
	if got := w.ensure(node("10.0.0.1", "10.0.0.3")); got[0].Digest == first[0].Digest {
		t.Error("a certificate that does not name an address is kept")
	}
}

// Somebody may hold the right content: nothing is written, and what runs goes on.
func TestBrokenCAIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	node := pki.Node{ID: 0, Address: "10.0.0.1"}
	before := w.ensure(node)
	ca := w.secret("orders-ca")
	ca.Data["ca.crt"] = []byte("lost")
	if err := w.client.Update(t.Context(), &ca); err != nil {
		t.Fatal(err)
	}
	w.wrote()
	issued, err := w.store.Ensure(t.Context(), cluster("1"), secrets.Wanted{Nodes: []pki.Node{node, {ID: 1, Address: "10.0.0.2"}}})
	if err != nil || issued.Nodes[0] != before[0] || len(issued.Nodes) != 1 {
		t.Errorf("got %v, error %v", issued.Nodes, err)
	}
	if st := issued.State; st.Settled || !strings.Contains(st.Message, "Secret kafka/orders-ca, key ca.crt: ") {
		t.Errorf("state %+v", st)
	}
	if got := w.wrote(); got != 0 {
		t.Errorf("writes: got %d, want 0", got)
	}
}

func TestSecretOfSomebodyElseIsNotTouched(t *testing.T) {
	w := newWorld(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-operator"},
		Data:       map[string][]byte{"password": []byte("x")},
	})
	_, err := w.store.Ensure(t.Context(), cluster("1"), secrets.Wanted{})
	if err == nil || !strings.Contains(err.Error(), "orders-operator") {
		t.Errorf("got error %v", err)
	}
	if _, ok := w.secret("orders-operator").Data["password"]; !ok {
		t.Error("the Secret was overwritten")
	}
}

func TestClusterAppliedAgainKeepsItsCertificates(t *testing.T) {
	w := newWorld(t)
	node := pki.Node{ID: 0, Address: "127.0.0.1"}
	first := w.ensure(node)
	again, err := w.store.Ensure(t.Context(), cluster("2"), secrets.Wanted{Nodes: []pki.Node{node}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again.Nodes); diff != "" {
		t.Errorf("certificates changed (-before +after):\n%s", diff)
	}
	s := w.secret("orders-0-tls")
	if owner := metav1.GetControllerOf(&s); owner == nil || owner.UID != "2" {
		t.Errorf("owner of the node's Secret: got %v, want the new cluster", owner)
	}
}

func TestDeleteRemovesOnlyItsOwn(t *testing.T) {
	w := newWorld(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-backup"}})
	w.ensure(pki.Node{ID: 0, Address: "127.0.0.1"})
	if err := w.store.Delete(t.Context(), cluster("1")); err != nil {
		t.Fatal(err)
	}
	var left corev1.SecretList
	if err := w.client.List(t.Context(), &left); err != nil {
		t.Fatal(err)
	}
	if len(left.Items) != 1 || left.Items[0].Name != "orders-backup" {
		t.Errorf("left: %v, want orders-backup alone", left.Items)
	}
}

func day(n int) time.Time { return time.Date(2026, 7, 31, 12, 0, 0, 0, time.UTC).AddDate(0, 0, n) }
