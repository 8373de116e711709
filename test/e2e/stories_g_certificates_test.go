package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/kafka/endpoint"
	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/test/e2e/stand"
)

// certificatesCluster is the cluster of the story; under says what stands under spec.certificates.
func certificatesCluster(under string) string {
	return strings.Replace(stand.Combined(version, 3), "    port: 9092", `    port: 9092
  - {name: certs, port: 9093, tls: {}, authentication: {type: MutualTLS}}
  - {name: scram, port: 9094, tls: {}, authentication: {type: ScramSha512}}
  certificates: {clientGrace: 5s`+under+`}`, 1)
}

const certificatesUsers = `
---
apiVersion: castellan.dev/v1alpha1
kind: KafkaUser
metadata: {name: %s, namespace: default}
spec: {clusterRef: {name: kafka}, authentication: {type: %s}}
`

// TestCertificates tells how both CAs of a running cluster get new keys, a certificate is renewed, a lost CA is repaired and
// a bad one is refused: nothing restarts, and no request fails. Then one node alone is restarted, and joins.
func TestCertificates(t *testing.T) {
	s := stand.New(t, stand.Options{Cluster: certificatesCluster("")})
	s.Apply(fmt.Sprintf(certificatesUsers, "alice", "MutualTLS") + fmt.Sprintf(certificatesUsers, "bob", "ScramSha512"))
	flows := []*flow{startFlow(t, s, "certs", "alice"), startFlow(t, s, "scram", "bob")}
	first := s.JVMPIDs()
	same := func(when string) {
		t.Helper()
		for _, f := range flows {
			f.unharmed(when)
		}
		if now := s.JVMPIDs(); !maps.Equal(now, first) {
			t.Fatalf("%s: JVMs are %v, they were %v", when, now, first)
		}
	}

	old := []lookedWith{withCA(t, s, certificates.Cluster), withCA(t, s, certificates.Clients)}
	bothReplaced(t, s, old)
	same("both CAs were replaced")
	oldIsRefused(t, s, old)
	for f, key := range map[*flow]string{flows[0]: "user.crt", flows[1]: "ca.crt"} {
		if moved, err := f.moved(t.Context(), key); !moved || err != nil {
			t.Errorf("%s of %s is as it was, %v", key, f.user, err)
		}
	}

	leafIsRenewed(t, s)
	same("a certificate was renewed")
	badCAIsNamed(t, s)
	same("bad CAs were given")
	lostCAIsRepaired(t, s)
	same("a lost CA was repaired")

	// Its Raft client and those of the others were made before any of this.
	leader := s.Cluster().Status.Quorum.Leader
	s.Kill(first[leader])
	s.Eventually("the node that was restarted follows the quorum", 2*time.Minute, func(ctx context.Context) error {
		seen, err := s.Observe(ctx)
		if err != nil {
			return err
		}
		for _, v := range seen.Quorum.Voters {
			if v.ID == leader && s.JVMPIDs()[leader] != first[leader] && seen.Quorum.Leader >= 0 && v.ID != seen.Quorum.Leader && len(seen.Quorum.Voters) == 3 {
				return nil
			}
		}
		return fmt.Errorf("quorum %+v", seen.Quorum)
	})
	s.Eventually("every replica is in sync again", time.Minute, s.InSync())
	for _, f := range flows {
		f.forget() // a broker was killed
		f.goesOn()
	}
}

// lookedWith is a client certificate of a CA of that time.
type lookedWith struct {
	role     certificates.Role
	secret   string
	identity endpoint.Identity
	ca       []byte
}

func authorityOf(t *testing.T, s *stand.Stand, name string) (pki.CA, map[string][]byte) {
	t.Helper()
	var secret corev1.Secret
	if err := s.Client().Get(t.Context(), types.NamespacedName{Namespace: "default", Name: name}, &secret); err != nil {
		t.Fatal(err)
	}
	ca, err := pki.ParseCA(secret.Data["ca.crt"], secret.Data["ca.key"])
	if err != nil {
		t.Fatal(err)
	}
	return ca, secret.Data
}

func withCA(t *testing.T, s *stand.Stand, role certificates.Role) lookedWith {
	t.Helper()
	l := lookedWith{role: role, secret: "kafka-ca"}
	request := pki.OperatorRequest()
	if role == certificates.Clients {
		l.secret, request = "kafka-clients-ca", pki.Request{CommonName: "alice", Usage: pki.UsageClient}
	}
	ca, data := authorityOf(t, s, l.secret)
	l.ca = data["ca.crt"]
	pair, err := ca.Issue(request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Chain, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	l.identity = endpoint.Identity{Role: role, Anchor: ca.ID(), Certificate: cert}
	return l
}

func looker(identities ...endpoint.Identity) endpoint.Looker {
	return endpoint.Looker{
		Identities: identities, IssuerOf: func([]*x509.Certificate) string { return "" }, Digest: pki.Digest, By: "the story",
		Timeout: 10 * time.Second, Connections: 2, Now: time.Now,
	}
}

// endpoints are those of every node that ask for a certificate.
func endpoints(s *stand.Stand) []endpoint.Endpoint {
	var out []endpoint.Endpoint
	for _, n := range s.Nodes() {
		for listener, role := range map[string]certificates.Role{"CONTROLLER": certificates.Cluster, "INTERNAL": certificates.Cluster, "certs": certificates.Clients} {
			out = append(out, endpoint.Endpoint{
				Party: "node " + strconv.Itoa(int(n.Spec.NodeID)), Listener: listener, Clients: role,
				Address: net.JoinHostPort(n.Spec.Address, strconv.Itoa(int(n.Spec.Ports[listener]))),
			})
		}
	}
	return out
}

// condition is the fact that the condition Certificates says something.
func condition(s *stand.Stand, status metav1.ConditionStatus, says ...string) stand.Fact {
	return func(context.Context) error {
		kc := s.Cluster()
		c := meta.FindStatusCondition(kc.Status.Conditions, api.ConditionCertificates)
		if c == nil || c.Status != status || c.ObservedGeneration != kc.Generation || slices.ContainsFunc(says, func(text string) bool { return !strings.Contains(c.Message, text) }) {
			return fmt.Errorf("generation %d, condition %+v", kc.Generation, c)
		}
		return nil
	}
}

// mostKills lets a busy machine come to an end.
const mostKills = 6

// bothReplaced asks for new keys of both CAs, and kills the operator again and again meanwhile.
func bothReplaced(t *testing.T, s *stand.Stand, old []lookedWith) {
	t.Helper()
	s.Apply(certificatesCluster(", clusterCA: {generation: 1}, clientsCA: {generation: 1}"))
	done := condition(s, metav1.ConditionTrue)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	kills, began := 0, time.Now()
	for done(ctx) != nil {
		wait := time.NewTimer(time.Duration(500+rand.IntN(3500)) * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Fatalf("the CAs are not replaced: %v", done(t.Context()))
		case <-wait.C:
		}
		if pid := s.PID(stand.Operator); pid != 0 && kills < mostKills && done(ctx) != nil {
			s.Kill(pid)
			kills++
		}
	}
	t.Logf("both CAs were replaced within %s, the operator was killed %d times", time.Since(began).Round(time.Second), kills)
	for _, o := range old {
		if ca, data := authorityOf(t, s, o.secret); ca.ID() == o.identity.Anchor || len(data["authority.json"]) == 0 {
			t.Errorf("Secret %s has the CA of before", o.secret)
		}
	}
	if kills == 0 {
		t.Error("the operator was never killed")
	}
}

// oldIsRefused: by every endpoint of every node; and what nodes present is not of it.
func oldIsRefused(t *testing.T, s *stand.Stand, old []lookedWith) {
	t.Helper()
	now := []lookedWith{withCA(t, s, certificates.Cluster), withCA(t, s, certificates.Clients)}
	l := looker(old[0].identity, old[1].identity, now[0].identity, now[1].identity)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(old[0].ca)
	l.IssuerOf = func(chain []*x509.Certificate) string {
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots}); err == nil {
			return "old"
		}
		return "new"
	}
	for node, seen := range l.Look(t.Context(), endpoints(s)) {
		for i := range old {
			role := old[i].role
			before, tried := seen.Trusts[role][old[i].identity.Anchor]
			if after := seen.Trusts[role][now[i].identity.Anchor]; seen.Fault != "" || !tried || before || !after {
				t.Errorf("%s, %s CA: the old one is accepted: %t (tried: %t), the new one: %t; %s", node, role, before, tried, after, seen.Fault)
			}
		}
		if slices.ContainsFunc(seen.Presents, func(p certificates.Presented) bool { return p.Issuer != "new" }) {
			t.Errorf("%s presents %+v", node, seen.Presents)
		}
	}
}

// poke makes the operator look now: nothing tells it of what is changed in Castellan's own Secrets.
func poke(t *testing.T, s *stand.Stand) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"example.com/look":"%d"}}}`, time.Now().UnixNano())
	if err := s.Client().Patch(t.Context(), s.Cluster(), client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
}

// leafIsRenewed gives a node a certificate that is near its end.
func leafIsRenewed(t *testing.T, s *stand.Stand) {
	t.Helper()
	ca, _ := authorityOf(t, s, "kafka-ca")
	n := s.Node(1)
	pair, err := ca.IssueFor(pki.NodeRequest(pki.Node{ID: 1, Address: n.Spec.Address}), 2*time.Minute, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	short, err := pair.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	var secret corev1.Secret
	if err := s.Client().Get(t.Context(), types.NamespacedName{Namespace: "default", Name: "kafka-1-tls"}, &secret); err != nil {
		t.Fatal(err)
	}
	secret.Data["node.pem"] = pair.PEM()
	if err := s.Client().Update(t.Context(), &secret); err != nil {
		t.Fatal(err)
	}
	poke(t, s)
	at := slices.DeleteFunc(endpoints(s), func(e endpoint.Endpoint) bool { return e.Party != "node 1" || e.Listener == "certs" })
	s.Eventually("node 1 presents a renewed certificate", time.Minute, func(ctx context.Context) error {
		node := s.Node(1)
		for _, p := range looker().Look(ctx, at)["node 1"].Presents {
			if p.Digest == pki.Digest(short) || p.Digest != node.Spec.Certificates.Digest || p.NotAfter.Before(time.Now().Add(time.Hour)) {
				return fmt.Errorf("it presents %+v and has %+v", p, node.Spec.Certificates)
			}
		}
		return nil
	})
}

// badCAIsNamed: by Secret, key and fault; what ran goes on.
func badCAIsNamed(t *testing.T, s *stand.Stand) {
	t.Helper()
	before, _ := authorityOf(t, s, "kafka-ca")
	ca, err := pki.NewCA("corporate", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(pki.Request{CommonName: "no CA", Usage: pki.UsageServer}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ended, err := pki.NewCA("long ago", time.Now().Add(-pki.CALifetime-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	endedKey, err := ended.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	s.Apply(certificatesCluster(", clusterCA: {generation: 1, secretRef: {name: corporate}}, clientsCA: {generation: 1}"))
	s.Eventually("a missing Secret is named", time.Minute, condition(s, metav1.ConditionFalse, "Secret default/corporate, ", "there is no such Secret"))
	given := secret("corporate", map[string][]byte{"tls.crt": ca.TrustPEM()})
	if err := s.Client().Create(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	s.Eventually("a missing key is named", time.Minute, condition(s, metav1.ConditionFalse, "Secret default/corporate, key tls.key: the Secret has no such key"))
	for _, bad := range []struct {
		says     string
		crt, key []byte
	}{
		{"key tls.key: it does not belong to the certificate", ca.TrustPEM(), leaf.Key},
		{"key tls.crt: the chain is in the wrong order", slices.Concat(leaf.Chain, ca.TrustPEM()), key},
		{"is not that of a CA", leaf.Chain, leaf.Key},
		{"ended at", ended.TrustPEM(), endedKey},
	} {
		given.Data = map[string][]byte{"tls.crt": bad.crt, "tls.key": bad.key}
		if err := s.Client().Update(t.Context(), given); err != nil {
			t.Fatal(err)
		}
		s.Eventually("it is said that "+bad.says, time.Minute, condition(s, metav1.ConditionFalse, "Secret default/corporate, ", bad.says))
	}
	s.Apply(certificatesCluster(", clusterCA: {generation: 1}, clientsCA: {generation: 1}"))
	s.Eventually("all is in order", time.Minute, condition(s, metav1.ConditionTrue))
	if after, _ := authorityOf(t, s, "kafka-ca"); after.ID() != before.ID() {
		t.Error("a bad CA has led to another one")
	}
}

// lostCAIsRepaired deletes the Secret of the CA, with its key.
func lostCAIsRepaired(t *testing.T, s *stand.Stand) {
	t.Helper()
	lost, data := authorityOf(t, s, "kafka-ca")
	if err := s.Client().Delete(t.Context(), secret("kafka-ca", nil)); err != nil {
		t.Fatal(err)
	}
	poke(t, s)
	s.Eventually("there is another CA with its key, and the old one is gone", 2*time.Minute, func(ctx context.Context) error {
		var secret corev1.Secret
		if err := s.Client().Get(ctx, types.NamespacedName{Namespace: "default", Name: "kafka-ca"}, &secret); err != nil {
			return err
		}
		ca, err := pki.ParseCA(secret.Data["ca.crt"], secret.Data["ca.key"])
		if err == nil && ca.ID() == lost.ID() {
			err = errors.New("it is the same one")
		}
		if err == nil && strings.Contains(string(secret.Data["ca.crt"]), strings.TrimSpace(string(data["ca.crt"]))) {
			err = errors.New("the old one is still trusted")
		}
		return errors.Join(err, condition(s, metav1.ConditionTrue)(ctx))
	})
}
