package authority_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/pki/authority"
)

// town is a cluster CA in its Secret and parties that take up at once what they are given; they speak real TLS.
type town struct {
	t       *testing.T
	now     time.Time
	data    map[string][]byte // the CA's Secret
	wish    certificates.Wish
	own     *authority.CA
	parties map[string]*party
	history []string
}

type party struct {
	request pki.Request
	pair    pki.Pair
	bundle  []byte
}

func newTown(t *testing.T) *town {
	t.Helper()
	w := &town{t: t, now: began, parties: map[string]*party{
		"operator": {request: pki.OperatorRequest()},
		"node 0":   {request: pki.NodeRequest(pki.Node{ID: 0, Address: "10.0.0.1"})},
		"node 1":   {request: pki.NodeRequest(pki.Node{ID: 1, Address: "10.0.0.2"})},
	}}
	ca, err := pki.NewCA("castellan kafka/orders", began)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	w.data = map[string][]byte{pki.KeyCACert: ca.TrustPEM(), pki.KeyCAKey: key}
	for _, p := range w.parties {
		if p.pair, err = ca.Issue(p.request, began); err != nil {
			t.Fatal(err)
		}
		p.bundle = ca.TrustPEM()
	}
	return w
}

func (w *town) read() authority.Authority {
	w.t.Helper()
	a, err := authority.Read("orders-ca", w.data)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *town) bundles() [][]byte {
	var all [][]byte
	for _, name := range w.names() {
		all = append(all, w.parties[name].bundle)
	}
	return all
}

func (w *town) names() []string { return []string{"operator", "node 0", "node 1"} }

func (w *town) input(a authority.Authority) certificates.Input {
	in := certificates.Input{Now: w.now, Since: w.now, LeafLifetime: pki.LeafLifetime, Authorities: []certificates.Authority{{
		Role: certificates.Cluster, Secret: "orders-ca", CAs: a.Facts(), Signs: a.Signs, Wish: w.wish,
	}}}
	found := a.Found(w.bundles()...)
	known := authority.Authority{CAs: slices.Concat(a.CAs, found)}
	for _, ca := range found {
		in.Authorities[0].Found = append(in.Authorities[0].Found, ca.Facts())
	}
	for _, name := range w.names() {
		p := w.parties[name]
		fact := certificates.Party{
			Name: name, Kind: certificates.Node, Presents: certificates.Cluster, Leaf: known.Leaf(p.pair, p.request), LeafAt: began,
			Trust: map[certificates.Role]certificates.Trust{certificates.Cluster: {Anchors: authority.Anchors(p.bundle), At: began}},
		}
		trusts := map[string]bool{}
		for _, ca := range a.Facts() {
			trusts[ca.Anchor] = slices.Contains(authority.Anchors(p.bundle), ca.Anchor)
		}
		fact.Seen = certificates.Seen{
			At: w.now, By: "the test", Trusts: map[certificates.Role]map[string]bool{certificates.Cluster: trusts},
			Presents: []certificates.Presented{{Endpoint: "INTERNAL", Digest: fact.Leaf.Digest, Issuer: fact.Leaf.Issuer, NotAfter: fact.Leaf.NotAfter}},
		}
		in.Parties = append(in.Parties, fact)
	}
	return in
}

// pass does what is decided, and says whether that was anything.
func (w *town) pass() bool {
	w.t.Helper()
	a := w.read()
	plan := certificates.Compute(w.input(a))
	for _, s := range plan.Steps {
		w.history = append(w.history, string(s.Action))
		w.do(a, s)
		w.shakeHands(s)
	}
	return len(plan.Steps) > 0
}

func (w *town) do(a authority.Authority, s certificates.Step) {
	w.t.Helper()
	switch s.Action {
	case certificates.Issue:
		ca, _ := a.CA(s.CA)
		pair, err := ca.Issue(w.parties[s.Party].request, pki.LeafLifetime, w.now)
		if err != nil {
			w.t.Fatal(err)
		}
		w.parties[s.Party].pair = pair
	case certificates.GiveTrust:
		bundle, err := a.Bundle(s.Anchors)
		if err != nil {
			w.t.Fatal(err)
		}
		w.parties[s.Party].bundle = bundle
	default:
		next, err := a.Apply(s, authority.Material{Name: "castellan kafka/orders", Own: w.own, Found: a.Found(w.bundles()...), Now: w.now})
		if err != nil {
			w.t.Fatal(err)
		}
		if w.data, err = next.Data(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// shakeHands lets everybody call every node.
func (w *town) shakeHands(after certificates.Step) {
	w.t.Helper()
	for _, to := range w.names()[1:] {
		for _, from := range w.names() {
			if err := w.call(from, to); err != nil {
				w.t.Fatalf("%s calls %s after %s: %v", from, to, after.Reason, err)
			}
		}
	}
}

func (w *town) call(from, to string) error {
	server, client := w.config(to), w.config(from)
	server.ClientAuth = tls.RequireAndVerifyClientCert
	client.ServerName = "localhost"
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	served := make(chan error, 1)
	go func() { served <- tls.Server(a, server).Handshake() }()
	conn := tls.Client(b, client)
	if err := conn.Handshake(); err != nil {
		_ = b.Close()
		return fmt.Errorf("%w; %w", err, <-served)
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	return <-served
}

func (w *town) config(of string) *tls.Config {
	w.t.Helper()
	p := w.parties[of]
	cert, err := tls.X509KeyPair(p.pair.Chain, p.pair.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(p.bundle)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool, MinVersion: tls.VersionTLS12, Time: func() time.Time { return w.now }}
}

func (w *town) settle() {
	w.t.Helper()
	for range 20 {
		if !w.pass() {
			return
		}
		w.now = w.now.Add(time.Hour)
	}
	w.t.Fatalf("not done: %v", w.history)
}

// A cluster that exists is left alone, byte for byte.
func TestExistingClusterIsInOrder(t *testing.T) {
	w := newTown(t)
	if w.pass() {
		t.Errorf("something to do: %v", w.history)
	}
	again, err := w.read().Data()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w.data, again); diff != "" {
		t.Errorf("the Secret would change:\n%s", diff)
	}
}

// The built-in CA, one's own of three levels, another intermediate, and back: every call succeeds after every step, and
// whoever reads only ca.crt and ca.key understands the Secret all the time.
func TestReplacementWithRealTLS(t *testing.T) {
	w := newTown(t)
	first := w.read().Signs
	w.wish.Generation = 1
	w.settle()
	if a := w.read(); len(a.CAs) != 1 || a.Signs == first {
		t.Errorf("left: %+v", a.Facts())
	}
	if _, err := pki.ParseCA(w.data[pki.KeyCACert], w.data[pki.KeyCAKey]); err != nil {
		t.Error(err)
	}

	root := mint(t, "root", nil, nil)
	for i := range 2 {
		issuing := mint(t, fmt.Sprint("issuing ", i), root, nil)
		w.give(secret(t, issuing, issuing, root))
		w.history = nil
		w.settle()
		if signs, _ := w.read().CA(w.read().Signs); !signs.Chain[0].Equal(issuing.cert) {
			t.Errorf("%q signs", signs.Chain[0].Subject)
		}
		if moved := slices.Contains(w.history, string(certificates.GiveTrust)); moved != (i == 0) {
			t.Errorf("intermediate %d: %v", i, w.history)
		}
		if got := authority.Anchors(w.parties["node 0"].bundle); len(got) != 1 || got[0] != pki.Digest(root.cert) {
			t.Errorf("trusted: %v", got)
		}
	}
	w.wish.Own, w.own = nil, nil
	w.settle()
}

func (w *town) give(data map[string][]byte) {
	w.t.Helper()
	own, faults := authority.Judge("mine", data, w.now)
	w.own, w.wish.Own = &own, &certificates.Given{Secret: "mine", Faults: faults}
	if len(faults) == 0 {
		w.wish.Own.CA = own.Facts()
	}
}

func TestLostSecretIsRepaired(t *testing.T) {
	for _, own := range []bool{false, true} {
		w := newTown(t)
		if own {
			root := mint(t, "root", nil, nil)
			middle := mint(t, "middle", root, nil)
			issuing := mint(t, "issuing", middle, nil)
			w.give(secret(t, issuing, issuing, middle, root))
			w.settle()
			w.wish.Own, w.own = nil, nil
		}
		w.data, w.history = nil, nil
		w.settle()
		if w.history[0] != string(certificates.AdoptCAs) || len(w.read().CAs) != 1 {
			t.Errorf("own %v: %v", own, w.history)
		}
	}
}

// What does not fit together is not read at all, and the error names the key.
func TestBrokenSecretIsNotRead(t *testing.T) {
	w := newTown(t)
	w.wish.Generation = 1
	for range 3 {
		w.pass()
	}
	a := w.read()
	if len(a.CAs) != 2 {
		t.Fatalf("in the midst of a replacement: %v", a.Facts())
	}
	other := mint(t, "other", nil, nil)
	old := a.CAs[slices.IndexFunc(a.CAs, func(ca authority.CA) bool { return ca.ID() != a.Signs })].ID()[len("sha256:"):][:16]
	for key, value := range map[string][]byte{
		pki.KeyCACert: chainPEM(other), pki.KeyCAKey: keyPEM(t, other), old + ".crt": chainPEM(other), old + ".key": []byte("x"), authority.KeyState: []byte("{"),
	} {
		broken := maps.Clone(w.data)
		broken[key] = value
		if _, err := authority.Read("orders-ca", broken); err == nil || !strings.HasPrefix(err.Error(), "Secret orders-ca, key "+key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
	if _, err := authority.Read("orders-ca", map[string][]byte{pki.KeyCACert: chainPEM(other)}); err == nil || !strings.Contains(err.Error(), pki.KeyCAKey) {
		t.Errorf("no key: %v", err)
	}
}

func TestStepsOnOtherFactsFail(t *testing.T) {
	a := newTown(t).read()
	for _, s := range []certificates.Step{
		{Action: certificates.SignWith, CA: "sha256:gone"},
		{Action: certificates.RetireCA},
		{Action: certificates.ForgetCA},
		{Action: certificates.TrustCA},
		{Action: certificates.AddCA, CA: "sha256:gone", Own: "mine"},
		{Action: certificates.AdoptCAs, Adopt: []certificates.CA{{ID: "sha256:gone"}}},
		{Action: certificates.AdoptCAs, CA: "sha256:gone"},
		{Action: certificates.Issue},
		{Action: "Dance"},
	} {
		if _, err := a.Apply(s, authority.Material{Now: began}); err == nil {
			t.Errorf("%s was done", s.Action)
		}
	}
}
