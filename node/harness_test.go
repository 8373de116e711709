package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// bench is a process's folder on a throwaway host, and a supervisor in it.
type bench struct {
	t      *testing.T
	dir    string
	static layout.Static
	live   layout.Live
	ca     *authority
	config Config
	pod    *mounts // nil on a host

	stop   context.CancelFunc
	exited chan int
	client *http.Client
}

const directoryID = "aBcDeFgHiJkLmNoPqRsTuQ"

// newBench prepares a combined node with one volume and one plaintext listener.
func newBench(t *testing.T, archive string) *bench {
	t.Helper()
	// Longer than a socket's path may be, and with what must be escaped somewhere.
	root := filepath.Join(t.TempDir(), "with blanks $x & %d "+strings.Repeat("x", 90))
	b := &bench{t: t, dir: filepath.Join(root, "process"), ca: newAuthority(t)}
	ports := freePorts(t, 3)
	b.static = layout.Static{
		Namespace: "kafka", ClusterName: "orders", NodeID: 1,
		Roles: []api.Role{api.RoleBroker, api.RoleController},
		Process: api.ProcessSpec{
			Version: "4.3.1", Layout: 1, HeapBytes: 256 << 20, Volumes: []string{"data"},
			Listeners: []api.NodeListener{{Name: "PLAIN", Protocol: "PLAINTEXT"}},
			Config: map[string]string{
				"allow.everyone.if.no.acl.found": "true", "offsets.topic.replication.factor": "1", "num.io.threads": "2",
				"num.network.threads": "1", "log.cleaner.dedupe.buffer.size": "2097152",
			},
		},
		Volumes: []layout.Volume{{Name: "data", Path: filepath.Join(root, "data")}},
		Address: "127.0.0.1",
		Ports:   map[string]int32{layout.ControllerListener: ports[0], layout.InternalListener: ports[1], "PLAIN": ports[2]},
	}
	b.live.BootstrapControllers = []string{fmt.Sprintf("127.0.0.1:%d", ports[0])}
	b.config = Config{
		Dir: b.dir, Archive: archive, StopGrace: time.Minute, Env: os.Environ(),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	mkdir(t, filepath.Join(b.dir, layout.TLSDir))
	b.certify(1)
	return b
}

func (b *bench) certify(serial int64) string {
	b.t.Helper()
	text, leaf := b.ca.leaf(b.t, fmt.Sprintf("%s-%d", layout.NodePrincipal, b.static.NodeID), serial)
	if b.pod != nil {
		b.pod.tls.publish(b.t, map[string]string{layout.KeyNodePEM: text, layout.KeyCAPEM: b.ca.pem})
		return digest(leaf)
	}
	replace(b.t, filepath.Join(b.dir, layout.TLSDir, layout.KeyNodePEM), text)
	replace(b.t, filepath.Join(b.dir, layout.TLSDir, layout.KeyCAPEM), b.ca.pem)
	return digest(leaf)
}

// start runs the supervisor in the background.
func (b *bench) start() {
	b.t.Helper()
	b.write(layout.StaticFile, b.static)
	b.write(layout.LiveFile, b.live)
	ctx, cancel := context.WithCancel(b.t.Context())
	b.stop, b.exited = cancel, make(chan int, 1)
	b.connect()
	exited := b.exited
	done := make(chan struct{})
	go func() {
		defer close(done)
		exited <- Run(ctx, b.config)
	}()
	b.t.Cleanup(func() {
		cancel()
		<-done
	})
}

// connect prepares the client of the supervisor's socket.
func (b *bench) connect() {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		folder, err := os.Open(b.dir)
		if err != nil {
			return nil, err
		}
		defer folder.Close() //nolint:errcheck // of no consequence in a test
		var d net.Dialer
		return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), layout.Socket))
	}}
	b.client = &http.Client{Transport: transport, Timeout: 5 * time.Second}
	b.t.Cleanup(transport.CloseIdleConnections)
}

func (b *bench) write(name string, content any) {
	b.t.Helper()
	data, err := json.Marshal(content)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.pod != nil {
		b.pod.of(name).publish(b.t, map[string]string{name: string(data)})
		return
	}
	replace(b.t, filepath.Join(b.dir, name), string(data))
}

func (b *bench) get(path string) (int, string, error) {
	response, err := b.client.Get("http://node" + path)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close() //nolint:errcheck // of no consequence in a test
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

func (b *bench) report() layout.Report {
	_, text, err := b.get("/report")
	var r layout.Report
	if err == nil {
		err = json.Unmarshal([]byte(text), &r)
	}
	if err != nil {
		return layout.Report{Reason: "unreachable", Message: err.Error()}
	}
	return r
}

// until waits for a fact in the report.
func (b *bench) until(what string, within time.Duration, fact func(layout.Report) bool) layout.Report {
	b.t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var r layout.Report
	for {
		if r = b.report(); fact(r) {
			return r
		}
		select {
		case code := <-b.exited:
			b.exited <- code
			b.t.Fatalf("waiting for %s: the supervisor ended with %d: %+v", what, code, b.termination())
		case <-deadline.C:
			b.t.Fatalf("no %s within %s: %+v", what, within, r)
		case <-tick.C:
		}
	}
}

// eventually waits for a fact, at most 20 seconds.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !fact() {
		select {
		case <-deadline.C:
			t.Fatalf("no %s", what)
		case <-tick.C:
		}
	}
}

func (b *bench) untilAsking() layout.Report {
	b.t.Helper()
	return b.until("question", 30*time.Second, func(r layout.Report) bool { return r.Nonce != "" })
}

func (b *bench) untilReady() layout.Report {
	b.t.Helper()
	return b.until("readiness", time.Minute, func(r layout.Report) bool { return r.Ready })
}

// answer lets a new cluster be born.
func (b *bench) answer(nonce string) {
	b.t.Helper()
	b.live.ClusterID = "MkU3OEVBNTcwNTJENDM2Qg"
	b.live.Storage = &api.StorageAnswer{
		Nonce: nonce, Answer: api.StorageBootstrap,
		InitialControllers: []string{fmt.Sprintf("1@127.0.0.1:%d:%s", b.static.Ports[layout.ControllerListener], directoryID)},
	}
	b.write(layout.LiveFile, b.live)
}

func (b *bench) code(within time.Duration) int {
	b.t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case code := <-b.exited:
		b.exited <- code
		return code
	case <-timer.C:
		b.t.Fatalf("the supervisor still runs after %s: %+v", within, b.report())
		return 0
	}
}

func (b *bench) termination() api.ExitStatus {
	b.t.Helper()
	var status api.ExitStatus
	if err := readJSON(filepath.Join(b.dir, layout.TerminationMessageFile), &status); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.t.Error(err)
	}
	return status
}

// wantFailure expects an end within seconds, with a message that holds every one of says.
func (b *bench) wantFailure(code int, reason string, says ...string) {
	b.t.Helper()
	got := b.code(30 * time.Second)
	status := b.termination()
	if got != code || int(status.Code) != code || status.Reason != reason {
		b.t.Errorf("ended with %d, left %+v; want code %d, reason %s", got, status, code, reason)
	}
	for _, text := range says {
		if !strings.Contains(status.Message, text) {
			b.t.Errorf("the message does not say %q: %s", text, status.Message)
		}
	}
}

// fakeArchive is a package without Kafka in it, for tests with a fake java.
func fakeArchive(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "libs"))
	replace(t, filepath.Join(dir, "libs", "kafka-clients-4.3.1.jar"), "")
	return dir
}

// fakeJava makes a host whose java is a script; it gets the arguments of the real one.
func (b *bench) fakeJava(version, script string) {
	b.t.Helper()
	bin := b.t.TempDir()
	text := "#!/bin/sh\nif [ \"$1\" = -version ]; then echo 'openjdk version \"" + version + "\"' >&2; exit 0; fi\n" + script
	if err := os.WriteFile(filepath.Join(bin, "java"), []byte(text), 0o700); err != nil {
		b.t.Fatal(err)
	}
	b.config.Env = []string{"PATH=" + bin + ":/usr/bin:/bin"}
}

// formatted puts a meta.properties on the volume.
func (b *bench) formatted(clusterID string, nodeID int) {
	b.t.Helper()
	dir := layout.DataDir(b.static.Volumes[0])
	mkdir(b.t, dir)
	replace(b.t, filepath.Join(dir, metaProperties), fmt.Sprintf("version=1\ncluster.id=%s\nnode.id=%d\ndirectory.id=%s\n", clusterID, nodeID, directoryID))
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, file, content string) {
	t.Helper()
	if err := replaceFile(file, []byte(content)); err != nil {
		t.Fatal(err)
	}
}

// freePorts are free now, all different, and not of those that the kernel gives to clients.
func freePorts(t *testing.T, n int) []int32 {
	t.Helper()
	var ports []int32
	for tries := 0; len(ports) < n; tries++ {
		port := 15000 + mathrand.Int32N(15000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			if tries > 1000 {
				t.Fatal(err)
			}
			continue
		}
		defer l.Close() //nolint:errcheck // of no consequence in a test
		ports = append(ports, port)
	}
	return ports
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
	// names of its leaves beside localhost.
	names []string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key, pem: block("CERTIFICATE", der)}
}

// leaf is a new key with its certificate in one PEM text, and the certificate's DER.
func (a *authority) leaf(t *testing.T, name string, serial int64) (text string, der []byte) {
	t.Helper()
	return a.leafOf(t, pkix.Name{CommonName: name, Organization: []string{"castellan"}}, serial)
}

func (a *authority) leafOf(t *testing.T, subject pkix.Name, serial int64) (text string, der []byte) {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: subject,
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: append([]string{"localhost"}, a.names...),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", encoded) + block("CERTIFICATE", der), der
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
