package endpoint_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/kafka/endpoint"
	"castellan.dev/castellan/node/sslengine"        //nolint:depguard // only to get a real Kafka as nodes run it
	"castellan.dev/castellan/packages/packagestest" //nolint:depguard // only to get a real Kafka
	"castellan.dev/castellan/pki"                   //nolint:depguard // makes the certificates of this test
)

// broker is a real node whose listeners, INTERNAL and CONTROLLER, want certificates.
type broker struct {
	t         *testing.T
	dir       string
	endpoints []endpoint.Endpoint
	cmd       *exec.Cmd
}

// A CA is replaced under one real Kafka, and each step is seen at its endpoints, without a restart.
func TestRealKafkaTakesUpACA(t *testing.T) {
	before, after := newAuthority(t, certificates.Cluster), newAuthority(t, certificates.Cluster)
	b := newBroker(t)
	b.write("node.pem", b.nodePEM(before))
	b.write("ca.pem", before.ca.TrustPEM())
	b.start()
	l := looker(before, after)
	l.Timeout = 20 * time.Second
	trusts := func(one, two bool) map[string]bool { return map[string]bool{before.anchor: one, after.anchor: two} }
	b.shows(l, "at first", before, trusts(true, false))

	b.write("ca.pem", append(before.ca.TrustPEM(), after.ca.TrustPEM()...))
	b.shows(l, "trust both", before, trusts(true, true))
	b.write("node.pem", b.nodePEM(after))
	b.shows(l, "reissued", after, trusts(true, true))
	b.write("ca.pem", after.ca.TrustPEM())
	b.shows(l, "trust the new one", after, trusts(false, true))
	if err := b.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the process that was started is gone: %v", err)
	}
}

func newBroker(t *testing.T) *broker {
	t.Helper()
	b := &broker{t: t, dir: t.TempDir()}
	for _, name := range []string{"CONTROLLER", "INTERNAL"} {
		b.endpoints = append(b.endpoints, endpoint.Endpoint{Party: "node 1", Listener: name, Address: freeAddress(t), Clients: certificates.Cluster})
	}
	b.write("engine.jar", sslengine.Jar())
	b.write("server.properties", fmt.Appendf(nil, `process.roles=broker,controller
node.id=1
listeners=CONTROLLER://%s,INTERNAL://%s
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listener.security.protocol.map=CONTROLLER:SSL,INTERNAL:SSL
controller.quorum.bootstrap.servers=%[1]s
log.dirs=%[3]s/data
ssl.keystore.type=PEM
ssl.keystore.location=%[3]s/node.pem
ssl.truststore.type=PEM
ssl.truststore.location=%[3]s/ca.pem
ssl.engine.factory.class=%[4]s
ssl.client.auth=required
num.network.threads=1
num.io.threads=2
`, b.endpoints[0].Address, b.endpoints[1].Address, b.dir, sslengine.Class))
	return b
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // only its address counts
	return l.Addr().String()
}

func (b *broker) nodePEM(a authority) []byte {
	b.t.Helper()
	pair, err := a.ca.Issue(pki.NodeRequest(pki.Node{ID: 1, Address: "127.0.0.1"}), time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	return pair.PEM()
}

// write replaces a file as a whole.
func (b *broker) write(name string, data []byte) {
	b.t.Helper()
	file := filepath.Join(b.dir, name)
	if err := os.WriteFile(file+".new", data, 0o600); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		b.t.Fatal(err)
	}
}

func (b *broker) java(args ...string) *exec.Cmd {
	classPath := filepath.Join(packagestest.RealKafka(b.t, "4.3.1").Libs(), "*") + ":" + filepath.Join(b.dir, "engine.jar")
	cmd := exec.Command("nice", append([]string{"-n", "19", "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", classPath}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (b *broker) start() {
	b.t.Helper()
	properties := filepath.Join(b.dir, "server.properties")
	format := b.java("kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", properties, "--standalone")
	if out, err := format.CombinedOutput(); err != nil {
		b.t.Fatalf("format: %v\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(b.dir, "log"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.cmd = b.java("kafka.Kafka", properties)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && b.t.Failed() {
			b.t.Log(string(text[max(0, len(text)-4000):]))
		}
	})
}

// shows waits until every endpoint was seen to be as wanted.
func (b *broker) shows(l endpoint.Looker, when string, issuer authority, trusts map[string]bool) {
	b.t.Helper()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	want := []string{"CONTROLLER " + issuer.anchor, "INTERNAL " + issuer.anchor}
	for deadline := time.Now().Add(4 * time.Minute); ; <-tick.C {
		seen := l.Look(b.t.Context(), b.endpoints)["node 1"]
		var presents []string
		for _, p := range seen.Presents {
			presents = append(presents, p.Endpoint+" "+p.Issuer)
		}
		diff := cmp.Diff(trusts, seen.Trusts[certificates.Cluster]) + cmp.Diff(want, presents)
		if diff == "" && seen.Fault == "" {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: pid %s, fault %q (-want +got):\n%s", when, strconv.Itoa(b.cmd.Process.Pid), seen.Fault, strings.TrimSpace(diff))
		}
	}
}
