package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/kafka/kafkatest"
	"castellan.dev/castellan/test/e2e/stand"
)

// TestUpgrade tells of an upgrade that stops after its first node, goes on, is taken back before it is finalized, is made
// again and finalized, after which there is no way back. Clients go on all the time.
func TestUpgrade(t *testing.T) {
	const before, beforeFeature, afterFeature = "4.2.1", "4.2-IV1", "4.3-IV0"
	s := stand.New(t, stand.Options{Cluster: stand.Combined(before, 3)})
	traffic := s.StartTraffic("upgraded", 6)
	isr := kafkatest.WatchISR(t.Context(), s.BrokerTarget(), 250*time.Millisecond, func(topic string) bool { return topic == "upgraded" })
	at := func(release string, rollout ...string) string {
		return stand.Combined(release, 3) + "  rollout: {" + strings.Join(append(rollout, "upgrade: {soak: 1s, finalize: Manual}"), ", ") + "}\n"
	}

	s.Apply(at(version, "pauseAfter: [FirstNode]"))
	op := operation(t, s)
	if op.Spec.Type != api.OperationUpgrade {
		t.Errorf("the operation is a %s", op.Spec.Type)
	}
	s.Eventually("it waits after its first node", 4*time.Minute, phase(s, op.Name, api.OperationPaused, "after its first node"))
	if got := runningVersions(s); got[version] != 1 || got[before] != 2 {
		t.Errorf("nodes run %v", got)
	}
	unmoved(t, s, "nothing is begun at a canary point")
	s.Must("resume", op.Name)
	s.Eventually("every node runs the new version, and it waits to be finalized", 6*time.Minute, phase(s, op.Name, api.OperationRunning, "castellan approve "+op.Name))
	if now := metadataVersion(t, s); now != beforeFeature {
		t.Errorf("metadata.version is %s before anybody agreed to it", now)
	}

	s.Apply(at(before))
	s.Eventually("every node runs the version before", 6*time.Minute, ran(s, before))
	s.WaitReady()

	s.Apply(at(version))
	s.Eventually("every node runs the new version", 6*time.Minute, ran(s, version))
	op = operation(t, s)
	s.Eventually("it waits to be finalized", 2*time.Minute, phase(s, op.Name, api.OperationRunning, "castellan approve "+op.Name))
	s.Must("approve", op.Name, "--yes")
	s.Eventually("it is over", 2*time.Minute, phase(s, op.Name, api.OperationSucceeded, ""))
	if now := metadataVersion(t, s); now != afterFeature {
		t.Errorf("metadata.version is %s, want %s", now, afterFeature)
	}
	releaseFeatures(t, s)
	s.WaitReady()
	if out := s.TryApply(at(before)); out.Code == 0 || !strings.Contains(out.Stderr, afterFeature) {
		t.Errorf("going back is not refused with what is finalized: %s", out)
	}

	report := isr.Stop()
	if len(report.Under) > 0 || report.Samples == 0 {
		t.Errorf("%d samples (%d not answered: %s); under min ISR: %+v", report.Samples, report.Unknown, report.Why, report.Under)
	}
	traffic.End()
}

// upgradedOverFour upgrades from the last release line before 4.0, which Kafka allows at once from any KRaft release on,
// and nobody has to agree to its end.
func upgradedOverFour(t *testing.T, s *stand.Stand, name string) {
	t.Helper()
	traffic := s.StartTraffic("upgraded", 6)
	s.Apply(stand.Named(name, stand.Combined(version, 3)+"  rollout: {upgrade: {soak: 1s}}\n"))
	op := operation(t, s)
	s.Eventually("it is over", 6*time.Minute, phase(s, op.Name, api.OperationSucceeded, ""))
	if now := metadataVersion(t, s); now != "4.3-IV0" {
		t.Errorf("metadata.version is %s", now)
	}
	releaseFeatures(t, s)
	s.WaitReady()
	s.Eventually("every node runs the new version", time.Second, ran(s, version))
	traffic.End()
}

// runningVersions counts the nodes that run each version and are ready.
func runningVersions(s *stand.Stand) map[string]int {
	count := map[string]int{}
	for _, n := range s.Nodes() {
		if p := n.Status.Process; n.Status.Ready && p != nil && p.Hash == layout.ProcessHash(n.Spec.Process) {
			count[n.Status.Version]++
		}
	}
	return count
}

// ran is the fact that every node runs a version and is ready.
func ran(s *stand.Stand, release string) stand.Fact {
	return func(context.Context) error {
		if got := runningVersions(s); got[release] != len(s.Nodes()) {
			return fmt.Errorf("nodes run %v", got)
		}
		return nil
	}
}

// releaseFeatures wants what a new cluster of 4.3.1 has (kafka-features version-mapping).
func releaseFeatures(t *testing.T, s *stand.Stand) {
	t.Helper()
	seen, err := s.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int16{
		"metadata.version": 30, "kraft.version": 1, "transaction.version": 2, "group.version": 1, "eligible.leader.replicas.version": 1,
		"share.version": 1, "streams.version": 1,
	}
	if diff := gocmp.Diff(want, seen.Features); diff != "" {
		t.Errorf("finalized features (- want, + got):\n%s", diff)
	}
}

func metadataVersion(t *testing.T, s *stand.Stand) string {
	t.Helper()
	seen, err := s.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return seen.MetadataVersion
}
