package secrets_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/pki/authority"
	"castellan.dev/castellan/pki/secrets"
)

// live are nodes that take up at once what their Secrets hold, but for those that are asleep.
type live struct {
	*world
	want   secrets.Wanted
	asleep map[int32]bool
	looks  int
	told   []string
}

func newLive(t *testing.T) *live {
	t.Helper()
	l := &live{world: newWorld(t), asleep: map[int32]bool{}}
	l.want = secrets.Wanted{
		Listeners: []api.Listener{{Name: "certs", TLS: &api.ListenerTLS{}, Authentication: api.Authentication{Type: api.AuthenticationMutualTLS}}},
		Nodes:     []pki.Node{{ID: 0, Address: "10.0.0.1", Broker: true, Had: true}, {ID: 1, Address: "10.0.0.2", Had: true}},
	}
	l.want.Certificates.ClientGrace = &metav1.Duration{Duration: time.Hour + 30*time.Second} // between two looks
	l.store.Sight = &secrets.Sight{}
	l.store.Look = l.look
	l.pass()
	return l
}

func (l *live) look(_ context.Context, probe secrets.Probe) map[string]certificates.Seen {
	l.looks++
	out := map[string]certificates.Seen{}
	for _, n := range l.want.Nodes {
		seen := certificates.Seen{At: l.now, By: "the test", Trusts: map[certificates.Role]map[string]bool{}}
		if l.asleep[n.ID] {
			seen.Fault = "does not answer"
		}
		data := l.secret(pki.NodeSecretName("orders", n.ID)).Data //nolint:contextcheck // the test's own is as good
		pair, err := pki.ParsePair(data[layout.KeyNodePEM])
		if err != nil {
			l.t.Fatal(err)
		}
		leaf, _ := pair.Leaf()
		seen.Presents = []certificates.Presented{{Endpoint: "INTERNAL", Digest: pki.Digest(leaf), Issuer: probe.IssuerOf([]*x509.Certificate{leaf}), NotAfter: leaf.NotAfter}}
		for role, key := range map[certificates.Role]string{certificates.Cluster: layout.KeyCAPEM, certificates.Clients: layout.KeyClientsCAPEM} {
			if data[key] == nil {
				continue
			}
			seen.Trusts[role] = map[string]bool{}
			for _, id := range probe.Identities {
				if id.Role == role {
					seen.Trusts[role][id.Anchor] = slices.Contains(authority.Anchors(data[key]), id.Anchor)
				}
			}
		}
		out[secrets.NodeName(n.ID)] = seen
	}
	return out
}

func (l *live) pass() secrets.Issued {
	l.t.Helper()
	looks := l.looks
	issued, err := l.store.Ensure(l.t.Context(), cluster("1"), l.want)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, s := range issued.Done {
		switch s.Action {
		case certificates.SignWith, certificates.RetireCA, certificates.ForgetCA:
			users := s.Role == certificates.Clients && s.Action == certificates.RetireCA // no node presents one of these
			if l.looks == looks && !users && !strings.Contains(s.Reason, "ended at") {
				l.t.Errorf("nobody looked in the pass that did: %s", s.Reason)
			}
		default:
		}
		l.told = append(l.told, string(s.Role)+" "+string(s.Action))
	}
	return issued
}

// until makes passes, each when it was asked for, by an operator that may be a new one each time.
func (l *live) until(what string, done func(secrets.Issued) bool) secrets.Issued {
	l.t.Helper()
	var issued secrets.Issued
	for range 200 {
		if issued = l.pass(); done(issued) {
			return issued
		}
		if issued.Again.After(l.now) {
			l.now = issued.Again
		}
	}
	l.t.Fatalf("%s: never; %+v\n%s", what, issued.State, strings.Join(l.told, "\n"))
	return issued
}

func settled(i secrets.Issued) bool { return i.State.Settled && len(i.Done) == 0 }

func reason(r string) func(secrets.Issued) bool {
	return func(i secrets.Issued) bool { return i.State.Reason == r && len(i.Done) == 0 }
}

func (l *live) cas(name string) authority.Authority {
	l.t.Helper()
	a, err := authority.Read(name, l.secret(name).Data)
	if err != nil {
		l.t.Fatal(err)
	}
	return a
}

// A raised generation replaces a CA in the order in which nobody refuses anybody, across operators that remember nothing;
// it waits for nodes that do not answer and for clients, and says so.
func TestCAIsReplaced(t *testing.T) {
	for _, name := range []string{"orders-ca", "orders-clients-ca"} {
		t.Run(name, func(t *testing.T) {
			l := newLive(t)
			l.until("new", settled)
			old := l.cas(name).Signs
			if name == "orders-ca" {
				l.want.Certificates.ClusterCA.Generation = 1
			} else {
				l.want.Certificates.ClientsCA.Generation = 1
			}
			l.asleep[0] = true
			st := l.until("it waits for a node", reason("TrustBoth")).State
			if strings.HasSuffix(st.Message, "the old one") {
				l.now = l.now.Add(time.Minute)
				st = l.pass().State
			}
			if !strings.Contains(st.Message, "node 0 does not answer") || l.cas(name).Signs != old {
				t.Errorf("does not wait: %+v", st)
			}
			l.asleep[0] = false
			began := l.now
			l.store.Sight = &secrets.Sight{} // another operator
			l.until("done", settled)
			if a := l.cas(name); a.Signs == old || len(a.CAs) != 1 {
				t.Errorf("left: %+v", a.Facts())
			}
			if took := l.now.Sub(began); name == "orders-ca" && took < 59*time.Minute {
				t.Errorf("clients had %s", took)
			}
			if bundle := l.secret("orders-0-tls").Data; bytes.Contains(slices.Concat(bundle["ca.pem"], bundle["clients-ca.pem"]), []byte(old)) {
				t.Error("the old one is still trusted")
			}
			l.wrote()
			looks := l.looks
			for range 10 {
				l.pass()
			}
			if n := l.wrote(); n != 0 || l.looks > looks+1 {
				t.Errorf("at rest: %d writes, %d looks", n, l.looks-looks)
			}
		})
	}
}

// A user counts as using its new certificate the grace after it was given.
func TestUsersAreWaitedFor(t *testing.T) {
	l := newLive(t)
	l.until("new", settled)
	user := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{UID: "u", ResourceVersion: "1"}, Data: map[string][]byte{"ca.crt": l.secret("orders-ca-cert").Data["ca.crt"]}}
	l.store.Users = func(context.Context) ([]secrets.User, error) {
		return []secrets.User{{Name: "user shop/alice", Secret: user, Certificate: "user.crt"}}, nil
	}
	give := func(version string) {
		ca, err := l.store.ClientsCA(t.Context(), cluster("1"))
		if err != nil {
			t.Fatal(err)
		}
		pair, err := ca.Issue(pki.Request{CommonName: "alice", Usage: pki.UsageClient}, l.now)
		if err != nil {
			t.Fatal(err)
		}
		user.Data["user.crt"], user.ResourceVersion = pair.Chain, version
		user.Annotations = map[string]string{pki.CertificateGiven: l.now.Format(time.RFC3339Nano)}
	}
	give("1")
	old := l.cas("orders-clients-ca").Signs
	l.want.Certificates.ClientsCA.Generation = 1
	st := l.until("the user has the old one", func(i secrets.Issued) bool {
		return i.State.Reason == "Reissue" && strings.Contains(i.State.Message, "user shop/alice has a certificate of it")
	}).State
	give("2")
	given := l.now
	if next := l.pass().State; next == st || !strings.Contains(next.Message, "user shop/alice was given another certificate") {
		l.now = l.now.Add(time.Minute)
		if next = l.pass().State; !strings.Contains(next.Message, "user shop/alice was given another certificate") {
			t.Errorf("state %+v", next)
		}
	}
	l.until("done", settled)
	if _, there := l.cas("orders-clients-ca").CA(old); there || l.now.Sub(given) < time.Hour {
		t.Errorf("the user had %s", l.now.Sub(given))
	}
}

// What was deleted, or put back from a backup of before, is repaired from what the nodes hold.
func TestLostCAIsRepaired(t *testing.T) {
	l := newLive(t)
	l.until("new", settled)
	before := l.secret("orders-0-tls").Data
	old := l.cas("orders-ca").Signs
	gone := l.secret("orders-ca")
	if err := l.client.Delete(t.Context(), &gone); err != nil {
		t.Fatal(err)
	}
	l.asleep[1] = true
	l.told = nil
	l.until("it waits for everybody", reason("TrustBoth"))
	if l.told[0] != "cluster AdoptCAs" || l.cas("orders-ca").Signs != old || !bytes.Equal(l.secret("orders-0-tls").Data["node.pem"], before["node.pem"]) {
		t.Errorf("%v", l.told)
	}
	l.asleep[1] = false
	l.until("done", settled)
	if a := l.cas("orders-ca"); len(a.CAs) != 1 || a.Signs == old || a.CAs[0].Key == nil {
		t.Errorf("left: %+v", a.Facts())
	}
}

// A CA that has ended can serve nobody: everybody is given another one at once, whoever answers.
func TestEndedCAIsReplacedAtOnce(t *testing.T) {
	l := newLive(t)
	l.until("new", settled)
	old := l.cas("orders-ca").Signs
	l.now = l.now.Add(pki.CALifetime + time.Hour)
	l.asleep[0], l.asleep[1] = true, true
	if l.until("another one signs", func(secrets.Issued) bool { return l.cas("orders-ca").Signs != old }); !slices.Contains(l.told, "cluster Issue") {
		t.Errorf("%v", l.told)
	}
}

// One's own CA is named with Secret, key and fault while it cannot be used, and what ran goes on.
func TestOwnCA(t *testing.T) {
	l := newLive(t)
	l.until("new", settled)
	l.want.Certificates.ClusterCA.SecretRef = &api.SecretRef{Name: "mine"}
	before := l.secret("orders-0-tls").Data
	root := provide(t, l.now)
	key, err := root.ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	for says, data := range map[string]map[string][]byte{
		"key tls.crt: there is no such Secret":          nil,
		"key tls.key: the Secret has no such key":       {"tls.crt": root.ca.TrustPEM()},
		"is not that of a CA":                           {"tls.crt": root.pair.Chain, "tls.key": root.pair.Key},
		"key tls.key: it does not belong":               {"tls.crt": root.ca.TrustPEM(), "tls.key": root.pair.Key},
		"key tls.crt: the chain is in the wrong order:": {"tls.crt": slices.Concat(root.pair.Chain, root.ca.TrustPEM()), "tls.key": key},
	} {
		if data != nil {
			l.give("mine", data)
		}
		st := l.pass().State
		if st.Reason != secrets.ReasonFault || !strings.Contains(st.Message, "Secret kafka/mine, ") || !strings.Contains(st.Message, says) {
			t.Errorf("%s: %+v", says, st)
		}
		if !bytes.Equal(before["node.pem"], l.secret("orders-0-tls").Data["node.pem"]) {
			t.Errorf("%s: what ran does not go on", says)
		}
		if data == nil {
			continue
		}
		mine := l.secret("mine")
		if err := l.client.Delete(t.Context(), &mine); err != nil {
			t.Fatal(err)
		}
	}
	l.give("mine", map[string][]byte{"tls.crt": root.ca.TrustPEM(), "tls.key": key})
	st := l.until("taken up", settled).State
	if !strings.Contains(st.Message, "(Secret kafka/mine)") || !bytes.Equal(l.secret("orders-ca-cert").Data["ca.crt"], root.ca.TrustPEM()) {
		t.Errorf("%+v", st)
	}
}

// Each write rests on what was read: where another one came first, it is decided anew.
func TestWritesRestOnWhatWasRead(t *testing.T) {
	l := newLive(t)
	l.until("new", settled)
	failed := 0
	l.store.Client = interceptor.NewClient(l.watching(), interceptor.Funcs{Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
		if failed++; failed == 1 {
			return apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, o.GetName(), fmt.Errorf("it is another one"))
		}
		return c.Update(ctx, o, opts...)
	}})
	l.store.Named = l.client
	l.want.Certificates.ClusterCA.Generation = 1
	if done := l.pass().Done; len(done) == 0 || len(l.cas("orders-ca").CAs) != 2 {
		t.Errorf("done %v", done)
	}
	stale := l.secret("orders-ca")
	again := l.secret("orders-ca")
	again.Annotations = map[string]string{"x": "y"}
	if err := l.client.Update(t.Context(), &again); err != nil {
		t.Fatal(err)
	}
	if err := l.client.Update(t.Context(), &stale); !apierrors.IsConflict(err) {
		t.Errorf("this API server keeps no versions: %v", err)
	}
}

func (w *world) watching() client.WithWatch { //nolint:ireturn // it is what the interceptor takes
	w.t.Helper()
	c, ok := w.client.(client.WithWatch)
	if !ok {
		w.t.Fatal("the fake does not watch")
	}
	return c
}
