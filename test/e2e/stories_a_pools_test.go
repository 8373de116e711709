package e2e

import (
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/kafka/kafkatest"
	"castellan.dev/castellan/test/e2e/stand"
)

// firstBroker is the node id from which on the brokers of [stand.Dedicated] and [stand.Mixed] count.
const firstBroker = 100

// brokerChangeLeavesControllersAlone changes a key of the brokers' pool that needs a restart.
func brokerChangeLeavesControllersAlone(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.WaitReady()
	if diff := cmp.Diff([]int32{0, 1, 2}, s.Cluster().Status.Quorum.Voters); diff != "" {
		t.Errorf("voters (- want, + got):\n%s", diff)
	}
	traffic := s.StartTraffic("rolled", 6)
	watch := kafkatest.WatchISR(t.Context(), s.BrokerTarget(), 250*time.Millisecond, nil)
	before := s.JVMPIDs()
	s.Apply(stand.Dedicated(version, 3, 3, "queued.max.requests: 600"))
	took := s.WaitReady()
	t.Logf("three brokers were rolled in %s", took.Round(time.Millisecond))
	after := s.JVMPIDs()
	s.Eventually("every replica is in sync again", time.Minute, s.InSync())
	if failed := traffic.End(); failed > 0 {
		t.Errorf("%d records failed during the roll", failed)
	}
	if report := watch.Stop(); len(report.Under) > 0 {
		t.Errorf("under min.insync.replicas during the roll: %+v", report.Under)
	}

	for id, pid := range before {
		restarted := after[id] != pid
		if broker := id >= firstBroker; broker != restarted {
			t.Errorf("node %d: JVM %d before and %d after; only brokers should restart", id, pid, after[id])
		}
	}
	if len(after) != len(before) {
		t.Errorf("nodes with a JVM: got %v, want %v", maps.Keys(after), maps.Keys(before))
	}
	for _, n := range s.Nodes() {
		broker := n.Spec.NodeID >= firstBroker
		if value, is := n.Spec.Process.Config["queued.max.requests"]; is != broker || broker && value != "600" {
			t.Errorf("node %d has queued.max.requests=%q", n.Spec.NodeID, value)
		}
	}
}

// worksAs looks at the version that runs, and writes and reads.
func worksAs(t *testing.T, s *stand.Stand, version string) {
	t.Helper()
	s.WaitReady()
	if got := s.Cluster().Status.Version; got != version {
		t.Errorf("version: got %s, want %s", got, version)
	}
	lines := string(numbered(kept, 1000))
	write(t, s, kept, lines)
	same(t, "castellan produce to consume", []byte(lines), []byte(read(s, kept)))
	same(t, "castellan produce to kcat", []byte(lines), []byte(kcatConsumer(s, s.Bootstrap("plain"), kept)))
	s.Eventually("every replica is in sync", time.Minute, s.InSync())
}
