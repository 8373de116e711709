package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"castellan.dev/castellan/pki"
)

func day(n int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, n)
}

func newCA(t *testing.T, now time.Time) pki.CA {
	t.Helper()
	ca, err := pki.NewCA("test", now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca pki.CA, req pki.Request, now time.Time) (pki.Pair, *x509.Certificate) {
	t.Helper()
	pair, err := ca.Issue(req, now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := pair.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	return pair, leaf
}

func TestNodeAndOperatorTrustEachOther(t *testing.T) {
	now := time.Now()
	ca := newCA(t, now)
	node, leaf := issue(t, ca, pki.NodeRequest(pki.Node{ID: 7, Address: "10.0.0.7", HostName: "h7.example"}), now)
	operator, _ := issue(t, ca, pki.OperatorRequest(), now)

	if got, want := leaf.Subject.String(), "CN=castellan-node-7,O=castellan"; got != want {
		t.Errorf("subject of the node: got %s, want %s", got, want)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.TrustPEM())
	serverCert, err := tls.X509KeyPair(node.PEM(), node.PEM())
	if err != nil {
		t.Fatalf("node.pem is not a key and chain: %v", err)
	}
	clientCert, err := tls.X509KeyPair(operator.Chain, operator.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"10.0.0.7", "localhost", "127.0.0.1", "h7.example"} {
		err := handshake(
			&tls.Config{Certificates: []tls.Certificate{serverCert}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert},
			&tls.Config{Certificates: []tls.Certificate{clientCert}, RootCAs: roots, ServerName: name})
		if err != nil {
			t.Errorf("connect to the node as %s: %v", name, err)
		}
	}
}

func handshake(server, client *tls.Config) error {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	served := make(chan error, 1)
	go func() { served <- tls.Server(a, server).Handshake() }()
	if err := tls.Client(b, client).Handshake(); err != nil {
		return err
	}
	return <-served
}

func TestLeafNeverOutlivesItsCA(t *testing.T) {
	ca := newCA(t, day(0))
	_, leaf := issue(t, ca, pki.OperatorRequest(), ca.NotAfter().AddDate(0, 0, -10))
	if !leaf.NotAfter.Equal(ca.NotAfter()) {
		t.Errorf("leaf ends at %s, the CA at %s", leaf.NotAfter, ca.NotAfter())
	}
	if _, err := ca.Issue(pki.OperatorRequest(), ca.NotAfter()); err == nil {
		t.Error("a CA that has ended issued a certificate")
	}
}

func TestNeedsRenewalInTheLastThird(t *testing.T) {
	pair, _ := issue(t, newCA(t, day(0)), pki.OperatorRequest(), day(0))
	for _, c := range []struct {
		reason string
		at     time.Time
		want   bool
	}{
		{"new", day(0), false},
		{"in the second third", day(243), false},
		{"in the last third", day(244), true},
		{"ended", day(366), true},
	} {
		if got := pki.NeedsRenewal(pair, c.at); got != c.want {
			t.Errorf("%s: got %v, want %v", c.reason, got, c.want)
		}
	}
	if !pki.NeedsRenewal(pki.Pair{}, day(0)) {
		t.Error("a missing pair needs no renewal")
	}
}

func TestPairAndCASurviveTheirPEMForm(t *testing.T) {
	ca := newCA(t, day(0))
	pair, leaf := issue(t, ca, pki.OperatorRequest(), day(0))
	read, err := pki.ParsePair(pair.PEM())
	if err != nil {
		t.Fatal(err)
	}
	if string(read.PEM()) != string(pair.PEM()) {
		t.Error("a pair changed by writing and reading it")
	}
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.ParseCA(ca.TrustPEM(), keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Signed(leaf) {
		t.Error("the CA as read again does not know its own leaf")
	}
}

func TestWhatIsNotAPairIsRefused(t *testing.T) {
	ca := newCA(t, day(0))
	one, _ := issue(t, ca, pki.OperatorRequest(), day(0))
	other, _ := issue(t, ca, pki.OperatorRequest(), day(0))
	for _, c := range []struct {
		reason string
		pem    []byte
		want   string
	}{
		{"nothing", nil, "no private key"},
		{"no key", one.Chain, "no private key"},
		{"no certificate", one.Key, "no certificate"},
		{"two keys", append(append([]byte{}, one.Key...), one.PEM()...), "more than one private key"},
		{"a key of another certificate", pki.Pair{Key: other.Key, Chain: one.Chain}.PEM(), "does not belong"},
	} {
		if _, err := pki.ParsePair(c.pem); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", c.reason, err, c.want)
		}
	}
	if _, err := pki.ParseCA(one.Chain, one.Key); err == nil {
		t.Error("a leaf was accepted as a CA")
	}
}
