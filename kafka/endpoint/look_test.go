package endpoint_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/kafka/endpoint"
	"castellan.dev/castellan/pki" //nolint:depguard // makes the certificates of these tests
)

// authority is a CA, and a client certificate of it.
type authority struct {
	ca     pki.CA
	anchor string
	client endpoint.Identity
}

func newAuthority(t *testing.T, role certificates.Role) authority {
	t.Helper()
	ca, err := pki.NewCA("castellan kafka/orders", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	chain, err := (pki.Pair{Chain: ca.TrustPEM()}).Leaf()
	if err != nil {
		t.Fatal(err)
	}
	a := authority{ca: ca, anchor: pki.Digest(chain)}
	a.client = endpoint.Identity{Role: role, Anchor: a.anchor, Certificate: a.issue(t, pki.OperatorRequest())}
	return a
}

func (a authority) issue(t *testing.T, request pki.Request) tls.Certificate {
	t.Helper()
	pair, err := a.ca.Issue(request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Chain, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (a authority) node(t *testing.T) tls.Certificate {
	t.Helper()
	return a.issue(t, pki.NodeRequest(pki.Node{ID: 1, Address: "127.0.0.1"}))
}

// serve is a listener that answers as Kafka does, with the length and the number of the request.
func serve(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			answer(raw, config)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

func answer(raw net.Conn, config *tls.Config) {
	defer raw.Close() //nolint:errcheck // the client tells what it saw
	_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
	conn := tls.Server(raw, config)
	if conn.Handshake() != nil {
		_, _ = io.Copy(io.Discard, raw)
		return
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return
	}
	request := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(conn, request); err != nil {
		return
	}
	_, _ = conn.Write(append([]byte{0, 0, 0, 4}, request[4:8]...))
}

func config(cert tls.Certificate, versions [2]uint16, trusts ...authority) *tls.Config {
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: versions[0], MaxVersion: versions[1]}
	if len(trusts) > 0 {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		for _, a := range trusts {
			c.ClientCAs.AppendCertsFromPEM(a.ca.TrustPEM())
		}
	}
	return c
}

func looker(known ...authority) endpoint.Looker {
	l := endpoint.Looker{
		By: "the test", Timeout: 5 * time.Second, Connections: 4, Now: time.Now, Digest: pki.Digest,
		IssuerOf: func(chain []*x509.Certificate) string {
			for _, a := range known {
				if a.ca.Signed(chain[0]) {
					return a.anchor
				}
			}
			return ""
		},
	}
	for _, a := range known {
		l.Identities = append(l.Identities, a.client)
	}
	return l
}

var (
	both  = [2]uint16{tls.VersionTLS12, tls.VersionTLS13}
	only3 = [2]uint16{tls.VersionTLS13, tls.VersionTLS13}
)

func TestWhatIsPresentedAndTrusted(t *testing.T) {
	before, after := newAuthority(t, certificates.Cluster), newAuthority(t, certificates.Cluster)
	for name, versions := range map[string][2]uint16{"TLS 1.2 and 1.3": both, "TLS 1.3 alone": only3} {
		for _, c := range []struct {
			reason string
			cert   authority
			trusts []authority
			want   map[string]bool
		}{
			{"before", before, []authority{before}, map[string]bool{before.anchor: true, after.anchor: false}},
			{"both trusted", before, []authority{before, after}, map[string]bool{before.anchor: true, after.anchor: true}},
			{"reissued", after, []authority{before, after}, map[string]bool{before.anchor: true, after.anchor: true}},
			{"the old one is gone", after, []authority{after}, map[string]bool{before.anchor: false, after.anchor: true}},
		} {
			t.Run(name+", "+c.reason, func(t *testing.T) {
				cert := c.cert.node(t)
				address := serve(t, config(cert, versions, c.trusts...))
				start := time.Now()
				seen := looker(before, after).Look(t.Context(), []endpoint.Endpoint{{Party: "node 1", Listener: "INTERNAL", Address: address, Clients: certificates.Cluster}})["node 1"]
				want := certificates.Seen{
					By: "the test", Trusts: map[certificates.Role]map[string]bool{certificates.Cluster: c.want},
					Presents: []certificates.Presented{{Endpoint: "INTERNAL", Digest: pki.Digest(cert.Leaf), Issuer: c.cert.anchor, NotAfter: cert.Leaf.NotAfter}},
				}
				if seen.At.Before(start) {
					t.Errorf("seen at %s, looked at %s", seen.At, start)
				}
				seen.At = time.Time{}
				if diff := cmp.Diff(want, seen); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		}
	}
}

func TestSilenceIsNoAnswer(t *testing.T) {
	ca := newAuthority(t, certificates.Cluster)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	hangsUp := config(ca.node(t), both, ca)
	hangsUp.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return errors.New("out of order") }
	hangsUp.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { return nil, h.Conn.Close() }
	for name, c := range map[string]struct{ address, want string }{
		"nobody listens":      {closed.Addr().String(), "connection refused"},
		"nobody answers":      {silent.Addr().String(), "deadline exceeded"},
		"the connection ends": {serve(t, hangsUp), "TLS: "},
		"no certificate":      {serve(t, config(ca.node(t), both)), "asks for no certificate"},
		"no TLS version":      {serve(t, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errors.New("no") }}), "TLS: "},
	} {
		t.Run(name, func(t *testing.T) {
			l := looker(ca)
			if c.address == silent.Addr().String() {
				l.Timeout = 50 * time.Millisecond
			}
			seen := l.Look(t.Context(), []endpoint.Endpoint{{Party: "node 1", Listener: "INTERNAL", Address: c.address, Clients: certificates.Cluster}})["node 1"]
			if !strings.HasPrefix(seen.Fault, "INTERNAL at "+c.address+": ") || !strings.Contains(seen.Fault, c.want) {
				t.Errorf("fault: %q, want one with %q", seen.Fault, c.want)
			}
			if _, told := seen.Trusts[certificates.Cluster][ca.anchor]; told {
				t.Errorf("it was believed: %v", seen.Trusts)
			}
		})
	}
}

// All endpoints of a node count, each for the CA that it asks for.
func TestSeveralEndpoints(t *testing.T) {
	before, after, clients := newAuthority(t, certificates.Cluster), newAuthority(t, certificates.Cluster), newAuthority(t, certificates.Clients)
	old, reissued := before.node(t), after.node(t)
	seen := looker(before, after, clients).Look(t.Context(), []endpoint.Endpoint{
		{Party: "node 1", Listener: "CONTROLLER", Address: serve(t, config(old, both, before, after)), Clients: certificates.Cluster},
		{Party: "node 1", Listener: "INTERNAL", Address: serve(t, config(reissued, both, before)), Clients: certificates.Cluster},
		{Party: "node 1", Listener: "external", Address: serve(t, config(reissued, both, clients)), Clients: certificates.Clients},
		{Party: "node 1", Listener: "scram", Address: serve(t, config(reissued, only3))},
		{Party: "node 2", Listener: "INTERNAL", Address: serve(t, config(old, both, after)), Clients: certificates.Cluster},
	})
	one := seen["node 1"]
	want := map[certificates.Role]map[string]bool{certificates.Cluster: {before.anchor: true}, certificates.Clients: {clients.anchor: true}}
	if diff := cmp.Diff(want, one.Trusts); diff != "" || one.Fault != "" {
		t.Errorf("node 1 disagrees with itself about one CA (-want +got), %s:\n%s", one.Fault, diff)
	}
	var presented []string
	for _, p := range one.Presents {
		presented = append(presented, p.Endpoint+" "+map[string]string{before.anchor: "before", after.anchor: "after"}[p.Issuer])
	}
	if diff := cmp.Diff([]string{"CONTROLLER before", "INTERNAL after", "external after", "scram after"}, presented); diff != "" {
		t.Errorf("presented (-want +got):\n%s", diff)
	}
	if two := seen["node 2"]; two.Trusts[certificates.Cluster][before.anchor] || !two.Trusts[certificates.Cluster][after.anchor] {
		t.Errorf("node 2: %v", two.Trusts)
	}
}

// However many endpoints there are, only so many connections are open at a time, and none beyond its time.
func TestLooksAreBounded(t *testing.T) {
	ca := newAuthority(t, certificates.Cluster)
	var open, most atomic.Int32
	l := looker(ca)
	l.Timeout, l.Connections = 30*time.Millisecond, 3
	l.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		n := open.Add(1)
		defer open.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	endpoints := make([]endpoint.Endpoint, 20)
	for i := range endpoints {
		endpoints[i] = endpoint.Endpoint{Party: "node", Listener: "INTERNAL", Address: "nowhere", Clients: certificates.Cluster}
	}
	seen := l.Look(t.Context(), endpoints)
	if got := most.Load(); got != 3 {
		t.Errorf("%d connections at a time, 3 are allowed", got)
	}
	if n := strings.Count(seen["node"].Fault, "deadline exceeded"); n != 20 {
		t.Errorf("%d faults of 20: %s", n, seen["node"].Fault)
	}
}
