package secrets_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/pki/secrets"
)

// listeners name three Secrets: mine, users and id-ca; and one needs the clients CA.
func listeners() []api.Listener {
	return []api.Listener{
		{Name: "own", TLS: &api.ListenerTLS{SecretRef: &api.SecretRef{Name: "mine"}}},
		{Name: "legacy", Authentication: api.Authentication{Type: api.AuthenticationPlain, Plain: &api.PlainAuthentication{UsersSecretRef: api.SecretRef{Name: "users"}}}},
		{Name: "idp", Authentication: api.Authentication{Type: api.AuthenticationOAuth, OAuth: &api.OAuthAuthentication{CASecretRef: &api.SecretRef{Name: "id-ca"}}}},
		{Name: "certs", TLS: &api.ListenerTLS{}, Authentication: api.Authentication{Type: api.AuthenticationMutualTLS}},
	}
}

// provided is a CA of the user's and a chain of it.
type provided struct {
	ca   pki.CA
	pair pki.Pair
}

func provide(t *testing.T, now time.Time) provided {
	t.Helper()
	ca, err := pki.NewCA("corporate", now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Request{CommonName: "kafka.example", DNSNames: []string{"kafka.example"}, Usage: pki.UsageServer}, now)
	if err != nil {
		t.Fatal(err)
	}
	return provided{ca, pair}
}

func (p provided) mine() map[string][]byte {
	return map[string][]byte{"tls.crt": p.pair.Chain, "tls.key": p.pair.Key, "ca.crt": p.ca.TrustPEM()}
}

func (w *world) give(name string, data map[string][]byte) {
	w.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: name}, Data: data}
	err := w.client.Create(w.t.Context(), s)
	if apierrors.IsAlreadyExists(err) {
		old := w.secret(name)
		old.Data = data
		err = w.client.Update(w.t.Context(), &old)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.wrote()
}

func (w *world) issue(nodes ...pki.Node) secrets.Issued {
	w.t.Helper()
	issued, err := w.store.Ensure(w.t.Context(), cluster("1"), secrets.Wanted{Listeners: listeners(), Nodes: nodes})
	if err != nil {
		w.t.Fatal(err)
	}
	return issued
}

var (
	broker     = pki.Node{ID: 1, Address: "10.0.0.1", Broker: true}
	controller = pki.Node{ID: 0, Address: "10.0.0.1"}
)

func TestBrokersGetTheFilesOfListeners(t *testing.T) {
	w := newWorld(t)
	p := provide(t, w.now)
	w.give("mine", p.mine())
	w.give("users", map[string][]byte{"alice": []byte("p=w: \\ü"), "bob": []byte("b")})
	w.give("id-ca", map[string][]byte{"ca.crt": p.ca.TrustPEM()})
	issued := w.issue(controller, broker)
	if len(issued.Faults) > 0 || !issued.OwnTrust["own"] {
		t.Errorf("faults %v, trust %v", issued.Faults, issued.OwnTrust)
	}
	if n := len(w.secret("orders-0-tls").Data); n != 2 {
		t.Errorf("a controller gets %d files, want its own 2", n)
	}
	data := w.secret("orders-1-tls").Data
	if _, err := tls.X509KeyPair(data["listener.own.pem"], data["listener.own.pem"]); err != nil {
		t.Error(err)
	}
	users, err := kconf.Parse(data["listener.legacy.users"])
	if diff := cmp.Diff(map[string]string{"alice": "p=w: \\ü", "bob": "b"}, users); diff != "" || err != nil {
		t.Errorf("users, error %v: %s", err, diff)
	}
	if !bytes.Equal(data["listener.idp.oauth-ca.pem"], p.ca.TrustPEM()) {
		t.Error("the provider's CA is not there")
	}
	clients := w.secret("orders-clients-ca")
	if !bytes.Equal(data["clients-ca.pem"], clients.Data["ca.crt"]) || bytes.Contains(data["clients-ca.pem"], w.secret("orders-ca").Data["ca.crt"]) {
		t.Error("clients are not trusted by their own CA alone")
	}
	if len(clients.OwnerReferences) > 0 || len(w.secret("orders-clients-ca-cert").OwnerReferences) != 1 {
		t.Error("the CA must outlive the cluster, its public half need not")
	}
	w.wrote()
	w.issue(controller, broker)
	if n := w.wrote(); n != 0 {
		t.Errorf("%d writes though nothing has changed", n)
	}
}

// TestBadSecretsAreNamed: the Secret, its key and the fault; what was good goes on.
func TestBadSecretsAreNamed(t *testing.T) {
	now := day(0)
	p, other := provide(t, now), provide(t, now)
	with := func(key string, value []byte) map[string][]byte {
		data := p.mine()
		data[key] = value
		return data
	}
	chain := slices.Concat(p.ca.TrustPEM(), p.pair.Chain)
	client, err := p.ca.Issue(pki.Request{CommonName: "x", Usage: pki.UsageClient}, now)
	if err != nil {
		t.Fatal(err)
	}
	for reason, tt := range map[string]struct {
		secret string
		data   map[string][]byte // nil removes it
		path   string
		says   []string
	}{
		"gone":                 {"mine", nil, "spec.listeners[0].tls.secretRef", []string{"no Secret kafka/mine"}},
		"no certificate":       {"mine", with("tls.crt", nil), "spec.listeners[0].tls.secretRef", []string{"kafka/mine", "no key tls.crt"}},
		"no key":               {"mine", with("tls.key", nil), "spec.listeners[0].tls.secretRef", []string{"no key tls.key"}},
		"rubbish":              {"mine", with("tls.key", []byte("x")), "spec.listeners[0].tls.secretRef", []string{"tls.key", "no private key"}},
		"another's key":        {"mine", with("tls.key", other.pair.Key), "spec.listeners[0].tls.secretRef", []string{"tls.key does not belong to the certificate of \"CN=kafka.example\""}},
		"chain in wrong order": {"mine", with("tls.crt", chain), "spec.listeners[0].tls.secretRef", []string{"wrong order", "number 2"}},
		"a foreign CA behind":  {"mine", with("tls.crt", slices.Concat(p.pair.Chain, other.ca.TrustPEM())), "spec.listeners[0].tls.secretRef", []string{"was not signed by the next one"}},
		"for clients only":     {"mine", map[string][]byte{"tls.crt": client.Chain, "tls.key": client.Key}, "spec.listeners[0].tls.secretRef", []string{"serverAuth"}},
		"encrypted":            {"mine", with("tls.key", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})), "spec.listeners[0].tls.secretRef", []string{"encrypted"}},
		"no users":             {"users", map[string][]byte{}, "spec.listeners[1].authentication.plain.usersSecretRef", []string{"kafka/users", "no key"}},
		"a line break":         {"users", map[string][]byte{"alice": []byte("secret\n")}, "spec.listeners[1].authentication.plain.usersSecretRef", []string{"key alice", "one line"}},
		"an empty password":    {"users", map[string][]byte{"alice": nil}, "spec.listeners[1].authentication.plain.usersSecretRef", []string{"key alice", "empty"}},
		"our own name":         {"users", map[string][]byte{"castellan-operator": []byte("x")}, "spec.listeners[1].authentication.plain.usersSecretRef", []string{"super user"}},
		"no CA":                {"id-ca", map[string][]byte{"tls.crt": []byte("x")}, "spec.listeners[2].authentication.oauth.caSecretRef", []string{"kafka/id-ca", "no key ca.crt"}},
	} {
		t.Run(reason, func(t *testing.T) {
			w := newWorld(t)
			w.give("mine", p.mine())
			w.give("users", map[string][]byte{"alice": []byte("secret")})
			w.give("id-ca", map[string][]byte{"ca.crt": p.ca.TrustPEM()})
			w.issue(broker)
			before := w.secret("orders-1-tls").Data
			if tt.data == nil {
				s := w.secret(tt.secret)
				if err := w.client.Delete(t.Context(), &s); err != nil {
					t.Fatal(err)
				}
			} else {
				w.give(tt.secret, tt.data)
			}
			issued := w.issue(broker, pki.Node{ID: 2, Address: "10.0.0.2", Broker: true})
			if len(issued.Faults) != 1 || issued.Faults[0].Path != tt.path || issued.Faults[0].Remedy == "" {
				t.Fatalf("faults: %+v", issued.Faults)
			}
			f := issued.Faults[0]
			for _, text := range tt.says {
				if !strings.Contains(f.Reason, text) {
					t.Errorf("does not say %q: %s", text, f.Reason)
				}
			}
			if strings.Contains(f.Reason, "secret\n") {
				t.Error("it tells a password")
			}
			if diff := cmp.Diff(before, w.secret("orders-1-tls").Data); diff != "" {
				t.Errorf("what ran does not go on: %s", diff)
			}
			if _, has := w.secret("orders-2-tls").Data[f.Key]; has || !f.Held[1] || f.Held[2] {
				t.Errorf("key %s, held by %v", f.Key, f.Held)
			}
		})
	}
}

func TestExpiredCertificateIsNamed(t *testing.T) {
	w := newWorld(t)
	w.give("mine", provide(t, w.now.Add(-2*pki.LeafLifetime)).mine())
	for _, f := range w.issue(broker).Faults {
		if f.Key == "listener.own.pem" && strings.Contains(f.Reason, "ended at") {
			return
		}
	}
	t.Error("nothing says that it ended")
}

// TestKeysOfOtherForms: Kafka reads PKCS #8 alone.
func TestKeysOfOtherForms(t *testing.T) {
	w := newWorld(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: w.now, NotAfter: w.now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	w.give("mine", map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	})
	issued := w.issue(broker)
	block, _ := pem.Decode(w.secret("orders-1-tls").Data["listener.own.pem"])
	if block == nil || block.Type != "PRIVATE KEY" || issued.OwnTrust["own"] {
		t.Errorf("got %v, trust %v", block, issued.OwnTrust)
	}
}

// TestFilesOfARunningProcessStay: a listener that the spec has no more is still served by those
// that have not restarted.
func TestFilesOfARunningProcessStay(t *testing.T) {
	w := newWorld(t)
	w.give("users", map[string][]byte{"alice": []byte("secret")})
	w.issue(broker)
	running := broker
	running.Needs = []string{layout.UsersKey("legacy")}
	ensure := func(n pki.Node) map[string][]byte {
		if _, err := w.store.Ensure(t.Context(), cluster("1"), secrets.Wanted{Nodes: []pki.Node{n}}); err != nil {
			t.Fatal(err)
		}
		return w.secret("orders-1-tls").Data
	}
	if data := ensure(running); len(data) != 3 || data[layout.UsersKey("legacy")] == nil {
		t.Errorf("while it runs: %d files", len(data))
	}
	if data := ensure(broker); len(data) != 2 {
		t.Errorf("afterwards: %d files", len(data))
	}
}

func TestClientsCAIsNeverReplacedUnnoticed(t *testing.T) {
	w := newWorld(t)
	first, err := w.store.ClientsCA(t.Context(), cluster("1"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.store.ClientsCA(t.Context(), cluster("1")); err != nil || !bytes.Equal(first.TrustPEM(), again.TrustPEM()) {
		t.Errorf("another CA the second time, error %v", err)
	}
	s := w.secret("orders-clients-ca")
	if err := w.client.Delete(t.Context(), &s); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.ClientsCA(t.Context(), cluster("1")); err == nil || !strings.Contains(err.Error(), "orders-clients-ca-cert") {
		t.Errorf("error %v, want what to do", err)
	}
}

// TestCAOfAnotherClusterIsRefused: the names of two clusters may meet.
func TestCAOfAnotherClusterIsRefused(t *testing.T) {
	w := newWorld(t)
	other := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-clients", UID: types.UID("2")}}
	if _, err := w.store.Ensure(t.Context(), other, secrets.Wanted{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.ClientsCA(t.Context(), cluster("1")); err == nil || !strings.Contains(err.Error(), "one of cluster orders-clients") {
		t.Errorf("error %v", err)
	}
}

func TestClientRequests(t *testing.T) {
	for _, name := range []string{"alice", "a=b", "späti@example.com", strings.Repeat("x", 64)} {
		if req, err := pki.ClientRequest(name); err != nil || req.CommonName != name || req.Organization != "" {
			t.Errorf("%s: %+v, %v", name, req, err)
		}
	}
	for name, says := range map[string]string{
		"": "needs a name", "castellan-operator": "super user", strings.Repeat("x", 65): "65 characters",
		"a,b": "RFC 2253", `a\b`: "RFC 2253", "a+b": "RFC 2253", `a"b`: "RFC 2253", " a": "RFC 2253", "#a": "RFC 2253",
	} {
		if _, err := pki.ClientRequest(name); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v, want %q", name, err, says)
		}
	}
	ca, err := pki.NewCA("clients", day(0))
	if err != nil {
		t.Fatal(err)
	}
	req, _ := pki.ClientRequest("alice")
	first, err := ca.Current(req, pki.Pair{}, day(0))
	if err != nil {
		t.Fatal(err)
	}
	if held, err := ca.Current(req, first, day(1)); err != nil || !bytes.Equal(held.Chain, first.Chain) {
		t.Errorf("issued anew after a day, %v", err)
	}
	if renewed, err := ca.Current(req, first, day(300)); err != nil || bytes.Equal(renewed.Chain, first.Chain) {
		t.Errorf("not renewed in the last third of its life, %v", err)
	}
}
