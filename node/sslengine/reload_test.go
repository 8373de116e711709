package sslengine

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What these tests claim holds on the oldest and the newest Kafka that Castellan runs.
var kafkaVersions = []string{"3.9.2", "4.3.1"}

func TestNewConnectionsUseTheFilesOfTheMoment(t *testing.T) {
	t.Parallel()
	oldCA, newCA := newAuthority(t, "old"), newAuthority(t, "new")
	for _, version := range kafkaVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			node := startProbe(t, version, oldCA.leaf(t, 1), oldCA.pem)
			peer := listen(t, oldCA.leaf(t, 90), oldCA, newCA)
			node.wantAccepted("before", oldCA, 1)
			node.wantDials("before", peer, 1, 90)

			node.trust(oldCA.pem + newCA.pem)
			node.wantAccepted("both trusted, old client", oldCA, 1)
			node.wantAccepted("both trusted, new client", newCA, 1)

			node.keyPair(newCA.leaf(t, 2))
			node.wantAccepted("new certificate", newCA, 2)
			node.wantDials("new certificate", peer, 2, 90)
			node.wantAnswer("stores", "2 2")

			node.trust(newCA.pem)
			node.wantRefused("old CA gone", oldCA)
			node.wantAccepted("old CA gone", newCA, 2)
			if got := node.ask(fmt.Sprint("dial ", peer.port)); !strings.HasPrefix(got, "refused") {
				t.Errorf("dialling a peer with a certificate of the removed CA: %s", got)
			}
			renewed := listen(t, newCA.leaf(t, 91), newCA)
			node.wantDials("old CA gone", renewed, 2, 91)
			node.wantLogged("TLS files changed, new connections use", 3)
		})
	}
}

func TestUnusableFilesKeepTheLastGoodOnes(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	other := ca.leaf(t, 7)
	good := ca.leaf(t, 1)
	key, chain, _ := strings.Cut(other, "-----BEGIN CERTIFICATE")
	for _, version := range kafkaVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			node := startProbe(t, version, good, ca.pem)
			for i, bad := range []struct {
				reason string
				spoil  func()
			}{
				{"half a certificate", func() { node.keyPair(other[:len(other)-100]) }},
				{"a key only", func() { node.keyPair(key) }},
				{"another key's certificate", func() { node.keyPair(key + good[strings.Index(good, "-----BEGIN CERTIFICATE"):]) }},
				{"a certificate only", func() { node.keyPair("-----BEGIN CERTIFICATE" + chain) }},
				{"no trusted CA", func() { node.keyPair(other); node.trust("") }},
				{"no file", func() { node.remove(node.trustFile) }},
			} {
				bad.spoil()
				for range 3 {
					node.wantAccepted(bad.reason, ca, 1)
				}
				node.wantAnswer("rebuild", "true")
				node.wantLogged("TLS files changed but cannot be used", i+1)
			}
			node.trust(ca.pem)
			node.wantAccepted("repaired", ca, 7)
			node.wantAnswer("rebuild", "false")
		})
	}
}

// A change must be seen also when time and size do not tell, and none be seen where there is none.
func TestWhatCountsAsChanged(t *testing.T) {
	ca := newAuthority(t, "ca")
	first, second := ca.leaf(t, 1), ca.leaf(t, 2)
	for len(first) != len(second) { // signatures differ in length by a byte or two
		second = ca.leaf(t, 2)
	}
	node := startProbe(t, kafkaVersions[0], first, ca.pem)
	long := time.Now().Add(-time.Hour)
	node.age(long)
	node.wantAccepted("aged", ca, 1)

	node.keyPair(second)
	node.age(long)
	node.wantAccepted("another file of the same time and size", ca, 2)

	node.keyPair(second)
	node.wantAccepted("rewritten with the same content", ca, 2)
	node.wantLogged("TLS files changed", 1)

	node.overwrite(first)
	node.wantAccepted("overwritten in place", ca, 1)
	node.overwrite(second)
	node.wantAccepted("overwritten again at once", ca, 2)

	node.wantAnswer("rebuild", "false")
	node.wantAnswer("rebuild-other", "true")
}

func TestUnusableFilesFailTheStart(t *testing.T) {
	ca := newAuthority(t, "ca")
	dir := t.TempDir()
	keyFile, trustFile := filepath.Join(dir, "node.pem"), filepath.Join(dir, "trust.pem")
	write(t, trustFile, ca.pem)
	out, err := probeCommand(t, kafkaVersions[1], keyFile, trustFile).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "load TLS files "+keyFile) {
		t.Errorf("started without a key file: %v\n%s", err, out)
	}
}

// BenchmarkEngine measures what a connection pays for looking at its files, beside Kafka's own factory.
func BenchmarkEngine(b *testing.B) {
	ca := newAuthority(b, "ca")
	for _, class := range []string{Class, "org.apache.kafka.common.security.ssl.DefaultSslEngineFactory"} {
		b.Run(class, func(b *testing.B) {
			node := startProbeOf(b, class, kafkaVersions[1], ca.leaf(b, 1), ca.pem)
			node.age(time.Now().Add(-time.Hour))
			node.ask("cost 20000")
			b.ReportMetric(0, "ns/op")
			b.Logf("ns per engine: %s", node.ask("cost 20000"))
		})
	}
}

// probe is a JVM with one engine factory: it accepts TLS connections, and dials when told.
type probe struct {
	t         testing.TB
	keyFile   string
	trustFile string
	logFile   string
	port      string
	in        io.Writer
	out       *bufio.Scanner
}

func startProbe(tb testing.TB, version, pair, trusted string) *probe {
	tb.Helper()
	return startProbeOf(tb, Class, version, pair, trusted)
}

func startProbeOf(tb testing.TB, class, version, pair, trusted string) *probe {
	tb.Helper()
	dir := tb.TempDir()
	p := &probe{
		t:         tb,
		keyFile:   filepath.Join(dir, "node.pem"),
		trustFile: filepath.Join(dir, "trust.pem"),
		logFile:   filepath.Join(dir, "log"),
	}
	p.keyPair(pair)
	p.trust(trusted)
	cmd := probeCommand(tb, version, p.keyFile, p.trustFile)
	cmd.Args[len(cmd.Args)-3] = class
	log, err := os.Create(p.logFile)
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close() // it ends at the end of its input
		if err := cmd.Wait(); err != nil {
			tb.Errorf("the probe ended with %v\n%s", err, p.log())
		}
		_ = log.Close()
	})
	p.in, p.out = in, bufio.NewScanner(out)
	p.port = strings.TrimPrefix(p.line(), "port ")
	return p
}

func probeCommand(tb testing.TB, version, keyFile, trustFile string) *exec.Cmd {
	tb.Helper()
	deps := exec.Command("./deps.sh", version)
	deps.Stderr = os.Stderr
	folder, err := deps.Output()
	if err != nil {
		tb.Fatalf("fetch kafka-clients %s through Maven: %v", version, err)
	}
	jarFile := filepath.Join(tb.TempDir(), Name)
	if err := os.WriteFile(jarFile, Jar(), 0o600); err != nil {
		tb.Fatal(err)
	}
	classPath := strings.TrimSpace(string(folder)) + "/*:" + jarFile
	return exec.Command("java", "-Xmx64m", "-XX:TieredStopAtLevel=1", "-cp", classPath,
		"testdata/EngineProbe.java", Class, keyFile, trustFile)
}

func (p *probe) line() string {
	p.t.Helper()
	if !p.out.Scan() {
		p.t.Fatalf("the probe ended early: %v\n%s", p.out.Err(), p.log())
	}
	return p.out.Text()
}

func (p *probe) ask(command string) string {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		p.t.Fatal(err)
	}
	return p.line()
}

func (p *probe) wantAnswer(command, want string) {
	p.t.Helper()
	if got := p.ask(command); got != want {
		p.t.Errorf("%s: %s, want %s", command, got, want)
	}
}

func (p *probe) log() string {
	text, err := os.ReadFile(p.logFile)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

func (p *probe) wantLogged(message string, times int) {
	p.t.Helper()
	if got := strings.Count(p.log(), message); got != times {
		p.t.Errorf("%q logged %d times, want %d:\n%s", message, got, times, p.log())
	}
}

func (p *probe) keyPair(text string) { p.t.Helper(); replace(p.t, p.keyFile, text) }
func (p *probe) trust(text string)   { p.t.Helper(); replace(p.t, p.trustFile, text) }

func (p *probe) overwrite(pair string) { p.t.Helper(); write(p.t, p.keyFile, pair) }

func (p *probe) remove(path string) {
	p.t.Helper()
	if err := os.Remove(path); err != nil {
		p.t.Fatal(err)
	}
}

func (p *probe) age(to time.Time) {
	p.t.Helper()
	for _, path := range []string{p.keyFile, p.trustFile} {
		if err := os.Chtimes(path, to, to); err != nil {
			p.t.Fatal(err)
		}
	}
}

// connect dials the probe with a fresh certificate of ca and returns the serial number it was served.
func (p *probe) connect(ca *authority) (int64, error) {
	conn, err := tls.Dial("tcp", "127.0.0.1:"+p.port, &tls.Config{
		Certificates:       []tls.Certificate{keyPairOf(p.t, ca.leaf(p.t, 500))},
		InsecureSkipVerify: true, // the serial number tells who answered
	})
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	// In TLS 1.3 the client learns only by reading whether it was accepted.
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		return 0, err
	}
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

func (p *probe) wantAccepted(when string, ca *authority, serial int64) {
	p.t.Helper()
	got, err := p.connect(ca)
	if err != nil || got != serial {
		p.t.Errorf("%s: a client of CA %s got certificate %d, error %v; want %d\n%s", when, ca.name, got, err, serial, p.log())
	}
}

func (p *probe) wantRefused(when string, ca *authority) {
	p.t.Helper()
	if got, err := p.connect(ca); err == nil {
		p.t.Errorf("%s: a client of CA %s was accepted (certificate %d)", when, ca.name, got)
	}
}

func (p *probe) wantDials(when string, to *listener, serial, theirs int64) {
	p.t.Helper()
	if got, want := p.ask(fmt.Sprint("dial ", to.port)), fmt.Sprint("ok ", theirs); got != want {
		p.t.Errorf("%s: dialling says %q, want %q", when, got, want)
	}
	if got := <-to.seen; got != serial {
		p.t.Errorf("%s: the peer saw certificate %d, want %d", when, got, serial)
	}
}

// listener is a TLS server that reports the serial numbers of its clients.
type listener struct {
	port int
	seen chan int64
}

func listen(t testing.TB, pair string, trusted ...*authority) *listener {
	t.Helper()
	pool := x509.NewCertPool()
	for _, ca := range trusted {
		pool.AppendCertsFromPEM([]byte(ca.pem))
	}
	server, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{keyPairOf(t, pair)},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
	})
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{port: server.Addr().(*net.TCPAddr).Port, seen: make(chan int64, 16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			secured := conn.(*tls.Conn)
			if secured.Handshake() == nil {
				l.seen <- secured.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
			}
			_ = secured.Close()
		}
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return l
}

type authority struct {
	name string
	pem  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key := newKey(t)
	cert := &x509.Certificate{
		SerialNumber:          big.NewInt(1000),
		Subject:               pkix.Name{CommonName: name},
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{name: name, pem: block("CERTIFICATE", der), cert: cert, key: key}
}

// leaf is a new key with its certificate, in one PEM text.
func (a *authority) leaf(t testing.TB, serial int64) string {
	t.Helper()
	key := newKey(t)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: "node"},
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", encoded) + block("CERTIFICATE", der)
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyPairOf(t testing.TB, text string) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(text), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func replace(t testing.TB, path, text string) {
	t.Helper()
	write(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
