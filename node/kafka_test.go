package node

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/packages/packagestest"
)

// A node's life on a real Kafka: it asks, is born, becomes ready, renews its certificate,
// stops, comes back without being asked about its disks.
func TestNodeRunsKafka(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"4.3.1", "3.9.2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, packagestest.RealKafka(t, version).Dir)
			b.static.Process.Version = version
			b.static.Process.Listeners = append(b.static.Process.Listeners, api.NodeListener{Name: "SECURE", Protocol: "SSL"})
			b.static.Ports["SECURE"] = freePorts(t, 1)[0]
			b.start()
			asked := b.untilAsking()
			if asked.State != api.NodeAsking || len(asked.Volumes) != 1 || asked.Volumes[0].State != api.VolumeEmpty {
				t.Fatalf("asks %+v, want one empty volume", asked)
			}
			b.answer(asked.Nonce)
			ready := b.untilReady()
			if ready.State != api.NodeRunning || ready.Volumes[0].DirectoryID != directoryID || ready.Nonce != "" || ready.PID == 0 {
				t.Errorf("ready with %+v", ready)
			}
			b.wantServed(b.certify(2))
			if code, text, err := b.get("/readyz"); code != http.StatusOK || err != nil {
				t.Errorf("readyz says %d %s, error %v", code, text, err)
			}
			if _, text, err := b.get("/metrics"); err != nil || !strings.Contains(text, "castellan_node_ready 1") {
				t.Errorf("metrics say %s, error %v", text, err)
			}
			b.stop()
			if code := b.code(90 * time.Second); code != 143 {
				t.Errorf("stopped with %d: %+v", code, b.termination())
			}
			if got := b.termination(); got.Reason != ReasonStopped || got.LogTail == "" {
				t.Errorf("left %+v", got)
			}

			b.start()
			if again := b.untilReady(); again.PID == ready.PID || again.Volumes[0].DirectoryID != directoryID {
				t.Errorf("came back with %+v", again)
			}
			b.stop()
			b.code(90 * time.Second)
		})
	}
}

func (b *bench) wantServed(digest string) {
	b.t.Helper()
	b.until("certificate "+digest, 30*time.Second, func(r layout.Report) bool { return r.CertificateDigest == digest })
}

// Kafka's own words about a bad configuration reach the termination message.
func TestBadConfigIsNamed(t *testing.T) {
	t.Parallel()
	b := newBench(t, packagestest.RealKafka(t, "4.3.1").Dir)
	b.static.Process.Config["num.io.threads"] = "none"
	b.formatted("MkU3OEVBNTcwNTJENDM2Qg", 1)
	b.live.ClusterID = "MkU3OEVBNTcwNTJENDM2Qg"
	b.start()
	b.wantFailure(1, ReasonBadConfig, "num.io.threads", "none")
	if tail := b.termination().LogTail; !strings.Contains(tail, "num.io.threads") {
		t.Errorf("the log tail says %q", tail)
	}
}

// Dedicated roles: a controller and a broker with two disks are born together; the broker's
// second disk is lost and comes back; both Kafka lines take the same files.
func TestDedicatedRoles(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"4.3.1", "3.9.2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			archive := packagestest.RealKafka(t, version).Dir
			controller := newBench(t, archive)
			controller.static.Process.Version = version
			controller.static.Roles = []api.Role{api.RoleController}
			controller.start()

			broker := newBench(t, archive)
			broker.ca = controller.ca
			broker.static.NodeID = 101
			broker.certify(1)
			broker.static.Process.Version = version
			broker.static.Roles = []api.Role{api.RoleBroker}
			broker.static.Volumes = append(broker.static.Volumes, layout.Volume{Name: "more", Path: filepath.Join(t.TempDir(), "more")})
			broker.live.BootstrapControllers = controller.live.BootstrapControllers
			broker.live.Rack = "a"
			broker.start()

			controller.answer(controller.untilAsking().Nonce)
			broker.live.ClusterID = controller.live.ClusterID
			broker.live.Storage = &api.StorageAnswer{Nonce: broker.untilAsking().Nonce, Answer: api.StorageBootstrap}
			broker.write(layout.LiveFile, broker.live)
			controller.untilReady()
			before := broker.untilReady()
			if before.Rack != "a" || before.Volumes[1].State != api.VolumeFormatted {
				t.Errorf("ready with %+v", before)
			}

			broker.stop()
			broker.code(90 * time.Second)
			if err := os.RemoveAll(broker.static.Volumes[1].Path); err != nil {
				t.Fatal(err)
			}
			broker.start()
			asked := broker.untilAsking()
			if asked.Volumes[0].State != api.VolumeFormatted || asked.Volumes[1].State != api.VolumeEmpty {
				t.Errorf("asks %+v", asked.Volumes)
			}
			broker.live.Storage = &api.StorageAnswer{Nonce: asked.Nonce, Answer: api.StorageJoin}
			broker.write(layout.LiveFile, broker.live)
			after := broker.untilReady()
			if after.Volumes[0].DirectoryID != before.Volumes[0].DirectoryID || after.Volumes[1].DirectoryID == before.Volumes[1].DirectoryID {
				t.Errorf("before %+v, after %+v", before.Volumes, after.Volumes)
			}
			broker.stop()
			broker.code(90 * time.Second)
			controller.stop()
			controller.code(90 * time.Second)
		})
	}
}
