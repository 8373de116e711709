package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/test/e2e/stand"
)

// moreListeners are those of the story, beside "plain" of every stand.
const moreListeners = `
  - {name: certs, port: 9093, tls: {}, authentication: {type: MutualTLS}}
  - {name: legacy, port: 9094, tls: {secretRef: {name: mine}}, authentication: {type: Plain, plain: {usersSecretRef: {name: users}}}}
  authorization: {type: ACL, superUsers: ["User:admin"]}`

// TestListenersOfEveryKind tells how a cluster that runs is given listeners that know their clients: nothing happens to it
// until the Secrets are there, and what changes in them later restarts nothing.
func TestListenersOfEveryKind(t *testing.T) {
	s := stand.New(t, stand.Options{Cluster: stand.Combined(version, 1)})
	first := s.JVMPIDs()
	s.Apply(strings.Replace(stand.Combined(version, 1), "    port: 9092", "    port: 9092"+moreListeners, 1))
	s.Eventually("the cluster says which Secrets are missing", time.Minute, func(context.Context) error {
		kc := s.Cluster()
		for _, cond := range kc.Status.Conditions {
			if cond.Type == "Stalled" && strings.Contains(cond.Message, "no Secret default/mine") {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", kc.Status.Conditions)
	})
	if now := s.JVMPIDs(); now[0] != first[0] {
		t.Fatal("Kafka was restarted for listeners that cannot be")
	}

	own, users := ownSecret(t), secret("users", map[string][]byte{"legacy": []byte("old-Pa55word")})
	for _, o := range []*corev1.Secret{own.secret, users} {
		if err := s.Client().Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	s.WaitReady()
	rolled := s.JVMPIDs()
	if rolled[0] == first[0] {
		t.Fatal("ready without the new listeners")
	}
	trusts(t, s)

	admin, alice := clientOf(t, s, "admin"), clientOf(t, s, "alice")
	legacy := func(password string) []kgo.Opt {
		return []kgo.Opt{kgo.SeedBrokers(s.Bootstrap("legacy")), kgo.DialTLSConfig(&tls.Config{RootCAs: own.trust, ServerName: "kafka.example", MinVersion: tls.VersionTLS12}), kgo.SASL(plain.Auth{User: "legacy", Pass: password}.AsMechanism())}
	}
	for reason, tt := range map[string]struct {
		opts []kgo.Opt
		want error
	}{
		"a super user":            {admin, nil},
		"a user without ACL":      {alice, kerr.TopicAuthorizationFailed},
		"a legacy user":           {legacy("old-Pa55word"), kerr.TopicAuthorizationFailed},
		"a client without a name": {[]kgo.Opt{kgo.SeedBrokers(s.Bootstrap("plain"))}, kerr.TopicAuthorizationFailed},
	} {
		if err := writeOne(t, tt.opts); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", reason, err, tt.want)
		}
	}

	users.Data["legacy"] = []byte("new-Pa55word")
	if err := s.Client().Update(t.Context(), users); err != nil {
		t.Fatal(err)
	}
	s.Eventually("the new password is in force", 2*time.Minute, func(context.Context) error {
		if err := writeOne(t, legacy("new-Pa55word")); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			return err
		}
		return nil
	})
	if err := writeOne(t, legacy("old-Pa55word")); err == nil || errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("the old password still works: %v", err)
	}
	if now := s.JVMPIDs(); now[0] != rolled[0] {
		t.Error("another password restarted Kafka")
	}
}

// trusts looks at what clients are told to trust.
func trusts(t *testing.T, s *stand.Stand) {
	t.Helper()
	want := map[string]string{"plain": "", "certs": "kafka-ca-cert", "legacy": "mine"}
	for _, l := range s.Cluster().Status.Listeners {
		got := ""
		if l.CASecretRef != nil {
			got = l.CASecretRef.Name
		}
		if got != want[l.Name] {
			t.Errorf("listener %s: CA in Secret %q, want %q", l.Name, got, want[l.Name])
		}
		delete(want, l.Name)
	}
	if len(want) > 0 {
		t.Errorf("the status does not show listeners %v", want)
	}
}

// ownCertificate is a Secret with a certificate of one's own.
type ownCertificate struct {
	secret *corev1.Secret
	trust  *x509.CertPool
}

func secret(name string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: data}
}

func ownSecret(t *testing.T) ownCertificate {
	t.Helper()
	ca, err := pki.NewCA("corporate", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Request{CommonName: "kafka.example", DNSNames: []string{"kafka.example"}, Usage: pki.UsageServer}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(ca.TrustPEM())
	return ownCertificate{secret("mine", map[string][]byte{"tls.crt": pair.Chain, "tls.key": pair.Key, "ca.crt": ca.TrustPEM()}), trust}
}

// clientOf is a client of the listener "certs" with a certificate of the clients CA.
func clientOf(t *testing.T, s *stand.Stand, name string) []kgo.Opt {
	t.Helper()
	read := func(name string) map[string][]byte {
		var secret corev1.Secret
		if err := s.Client().Get(t.Context(), types.NamespacedName{Namespace: "default", Name: name}, &secret); err != nil {
			t.Fatal(err)
		}
		return secret.Data
	}
	authority := read("kafka-clients-ca")
	ca, err := pki.ParseCA(authority["ca.crt"], authority["ca.key"])
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.ClientRequest(name)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Current(request, pki.Pair{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(pair.PEM(), pair.PEM())
	if err != nil {
		t.Fatal(err)
	}
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(read("kafka-ca-cert")["ca.crt"])
	return []kgo.Opt{kgo.SeedBrokers(s.Bootstrap("certs")), kgo.DialTLSConfig(&tls.Config{RootCAs: trust, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})}
}

// writeOne tries to write a record, to a topic that is made when it may be.
func writeOne(t *testing.T, opts []kgo.Opt) error {
	t.Helper()
	opts = append(opts, kgo.AllowAutoTopicCreation(), kgo.DisableIdempotentWrite(), kgo.RecordDeliveryTimeout(20*time.Second), kgo.RecordRetries(5), kgo.DisableClientMetrics())
	c, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return c.ProduceSync(ctx, &kgo.Record{Topic: "orders", Value: []byte("x")}).FirstErr()
}
