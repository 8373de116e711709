package node

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/packages/packagestest"
)

// A pod on a real Kafka: its name is known to DNS only after its start, clients are told the
// machine's address, its log is the container's, and it is ready when it is in sync.
func TestPodRunsKafka(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"4.3.1", "3.9.2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			const name = "orders-1-0.orders-nodes.kafka.svc"
			b := newBench(t, packagestest.RealKafka(t, version).Dir).podded()
			names := filepath.Join(t.TempDir(), "hosts")
			replace(t, names, "127.0.0.1 another\n")
			b.static.Process.Version = version
			b.static.Process.JVMOptions = []string{"-Djdk.net.hosts.file=" + names}
			b.static.Address = name
			b.ca.names = []string{name}
			b.certify(1)
			b.live.BootstrapControllers = []string{layout.HostPort(name, b.static.Ports[layout.ControllerListener])}
			b.live.Advertised = []layout.Advertised{{Listener: "PLAIN", AddressType: "InternalIP", Port: 31092}}
			b.pod.tell(t, &api.NodePlacement{Node: "machine-1", Zone: "zone-1", Addresses: map[string]string{"InternalIP": "192.0.2.1"}}, "")
			b.start()
			b.live.ClusterID = thisCluster
			b.live.Storage = &api.StorageAnswer{
				Nonce: b.untilAsking().Nonce, Answer: api.StorageBootstrap,
				InitialControllers: []string{"1@" + b.live.BootstrapControllers[0] + ":" + directoryID},
			}
			b.write(layout.LiveFile, b.live)
			b.until("search for its own name", 2*time.Minute, func(layout.Report) bool { return strings.Contains(b.pod.stdout.String(), "UnknownHostException") })
			replace(t, names, "127.0.0.1 "+name+"\n")
			b.untilReady()
			if got := b.until("replicas in sync", 20*time.Second, func(r layout.Report) bool { return r.InSync }); got.Rack != "zone-1" {
				t.Errorf("in sync with %+v", got)
			}
			if code, text := b.probe("/readyz"); code != http.StatusOK {
				t.Errorf("readyz says %d %s", code, text)
			}
			b.wantAdvertised("192.0.2.1", 31092, "zone-1")
			b.wantServed(b.certify(2))
			b.wantLogOnStdout()
			b.stop()
			if code := b.code(90 * time.Second); code != 143 {
				t.Errorf("stopped with %d: %+v", code, b.termination())
			}
		})
	}
}

// wantAdvertised looks at what clients of the PLAIN listener are told.
func (b *bench) wantAdvertised(host string, port int32, rack string) {
	b.t.Helper()
	metadata, err := ask[*kmsg.MetadataResponse](b, b.clientOf("PLAIN", nil), kmsg.NewPtrMetadataRequest())
	if err != nil || len(metadata.Brokers) != 1 {
		b.t.Fatalf("%+v, error %v", metadata, err)
	}
	if got := metadata.Brokers[0]; got.Host != host || got.Port != port || got.Rack == nil || *got.Rack != rack {
		b.t.Errorf("clients are told %+v", got)
	}
}

func (b *bench) wantLogOnStdout() {
	b.t.Helper()
	const line = "Kafka Server started"
	log, err := os.ReadFile(filepath.Join(b.dir, layout.LogDir, layout.ServerLog))
	if err != nil {
		b.t.Fatal(err)
	}
	console, err := os.ReadFile(filepath.Join(b.dir, layout.LogDir, layout.ConsoleLog))
	if err != nil {
		b.t.Fatal(err)
	}
	if shown := b.pod.stdout.String(); !strings.Contains(shown, line) || !strings.Contains(string(log), line) || strings.Contains(string(console), line) {
		b.t.Errorf("%q should be in the log and on standard output, and not among what the virtual machine says (%s):\n%s", line, console, shown)
	}
}
