package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/kafka/kafkatest"
	"castellan.dev/castellan/test/e2e/stand"
)

const (
	// dynamicKey changes live, cluster-wide and per broker; readOnlyKey needs a restart.
	dynamicKey  = "log.cleaner.delete.retention.ms"
	perNodeKey  = "num.io.threads"
	readOnlyKey = "queued.max.requests"
)

// TestConfigurationChanges tells how a change of spec.config reaches Kafka, with traffic all the time: live where Kafka
// can, else node by node, and back again half-way, whatever happens to the operator.
func TestConfigurationChanges(t *testing.T) {
	s := stand.New(t, stand.Options{Cluster: stand.Combined(version, 3)})
	traffic := s.StartTraffic("orders", 6)
	isr := kafkatest.WatchISR(t.Context(), s.BrokerTarget(), 250*time.Millisecond, func(topic string) bool { return topic == "orders" })

	t.Run("a dynamic key changes with no restart", func(t *testing.T) { dynamicKeyChanges(t, s.For(t)) })
	t.Run("a read-only key rolls node by node, the active controller last", func(t *testing.T) { readOnlyKeyRolls(t, s.For(t)) })
	t.Run("reverting mid-roll leaves the untouched nodes alone", func(t *testing.T) { revertMidRoll(t, s.For(t)) })
	t.Run("the operator is killed 20 times while nodes roll", func(t *testing.T) { operatorKilledInRolls(t, s.For(t)) })

	report := isr.Stop()
	if len(report.Under) > 0 || report.Samples == 0 {
		t.Errorf("%d samples (%d not answered: %s); under min ISR: %+v", report.Samples, report.Unknown, report.Why, report.Under)
	}
	traffic.End()
}

// configured is the stand's cluster with these lines in spec.config.
func configured(lines ...string) string { return stand.Combined(version, 3, lines...) }

func dynamicKeyChanges(t *testing.T, s *stand.Stand) {
	t.Helper()
	pids := kafkaPIDs(s)
	ids := nodeIDs(s)
	yaml := configured(dynamicKey + ": 7200000")
	s.Apply(override(yaml, ids[1], perNodeKey+": 10"))
	s.WaitReady()
	for _, id := range ids {
		if got := inForce(t, s, id, dynamicKey); got != "7200000" {
			t.Errorf("broker %d has %s=%s in force", id, dynamicKey, got)
		}
		want := "8" // Kafka's default
		if id == ids[1] {
			want = "10"
		}
		if got := inForce(t, s, id, perNodeKey); got != want {
			t.Errorf("broker %d has %s=%s in force instead of %s", id, perNodeKey, got, want)
		}
	}
	s.Apply(configured())
	s.WaitReady()
	for _, id := range ids {
		if a, b := inForce(t, s, id, dynamicKey), inForce(t, s, id, perNodeKey); a != "86400000" || b != "8" {
			t.Errorf("broker %d keeps %s=%s and %s=%s, which no spec wants any more", id, dynamicKey, a, perNodeKey, b)
		}
	}
	if diff := gocmp.Diff(pids, kafkaPIDs(s)); diff != "" {
		t.Errorf("processes changed (- before, + after):\n%s", diff)
	}
}

func readOnlyKeyRolls(t *testing.T, s *stand.Stand) {
	t.Helper()
	active := activeController(t, s)
	history := watchJVMs(s)
	s.Apply(configured(readOnlyKey + ": 600"))
	s.WaitReady()
	history.restartedOnce(t)
	for _, id := range nodeIDs(s) {
		if got := inForce(t, s, id, readOnlyKey); got != "600" {
			t.Errorf("broker %d has %s=%s in force", id, readOnlyKey, got)
		}
	}
	order := s.Nodes()
	slices.SortFunc(order, func(a, b api.KafkaNode) int {
		return a.Status.Process.StartedAt.Compare(b.Status.Process.StartedAt.Time)
	})
	if last := order[len(order)-1].Spec.NodeID; last != active {
		t.Errorf("node %d was restarted last, the active controller was %d", last, active)
	}
}

func revertMidRoll(t *testing.T, s *stand.Stand) {
	t.Helper()
	before := s.JVMPIDs()
	s.Apply(configured(readOnlyKey + ": 700"))
	var touched []int32
	s.Eventually("the first node is told to restart", time.Minute, func(context.Context) error {
		touched = touched[:0]
		for _, n := range s.Nodes() {
			if n.Spec.Process.Config[readOnlyKey] == "700" {
				touched = append(touched, n.Spec.NodeID)
			}
		}
		if len(touched) == 0 {
			return fmt.Errorf("no node has %s=700 in its process", readOnlyKey)
		}
		return nil
	})
	s.Apply(configured(readOnlyKey + ": 600"))
	s.WaitReady()
	if len(touched) != 1 {
		t.Errorf("nodes %v restart together", touched)
	}
	after := s.JVMPIDs()
	for id, pid := range before {
		if restarted := after[id] != pid; restarted != slices.Contains(touched, id) {
			t.Errorf("node %d: restarted is %t; touched before the revert were %v", id, restarted, touched)
		}
		if got := inForce(t, s, id, readOnlyKey); got != "600" {
			t.Errorf("broker %d has %s=%s in force", id, readOnlyKey, got)
		}
	}
}

func operatorKilledInRolls(t *testing.T, s *stand.Stand) {
	t.Helper()
	const kills = 20
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	killed, rolls := 0, 0
	for killed < kills {
		rolls++
		value := fmt.Sprint(800 + rolls)
		history := watchJVMs(s)
		s.Apply(configured(readOnlyKey + ": " + value))
		for killed < kills && rolling(s, value) {
			killOperator(t, s, time.Duration(random.Int64N(int64(4*time.Second))))
			killed++
		}
		s.WaitReady()
		history.restartedOnce(t)
		for _, id := range nodeIDs(s) {
			if got := inForce(t, s, id, readOnlyKey); got != value {
				t.Errorf("roll %d: broker %d has %s=%s in force instead of %s", rolls, id, readOnlyKey, got, value)
			}
		}
	}
	t.Logf("%d kills in %d rolls", killed, rolls)
}

// rolling says whether a node still has to restart for a value.
func rolling(s *stand.Stand, value string) bool {
	return slices.ContainsFunc(s.Nodes(), func(n api.KafkaNode) bool {
		return n.Spec.Process.Config[readOnlyKey] != value || !n.Status.Ready
	})
}

// killOperator kills the operator that runs, after so much of its life, and waits for its successor.
func killOperator(t *testing.T, s *stand.Stand, after time.Duration) {
	t.Helper()
	<-time.After(after)
	old := s.MustPID(stand.Operator)
	s.Kill(old)
	s.Eventually("the operator runs again", time.Minute, func(context.Context) error {
		if pid := s.PID(stand.Operator); pid == 0 || pid == old {
			return fmt.Errorf("its pid is %d, that of the killed one was %d", pid, old)
		}
		return nil
	})
}

// jvmHistory is every JVM that a node was seen with.
type jvmHistory struct {
	stop  context.CancelFunc
	ended sync.WaitGroup
	seen  map[int32][]int
}

func watchJVMs(s *stand.Stand) *jvmHistory {
	ctx, stop := context.WithCancel(context.Background())
	h := &jvmHistory{stop: stop, seen: map[int32][]int{}}
	h.note(s.JVMPIDs())
	h.ended.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			h.note(s.JVMPIDs())
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return h
}

func (h *jvmHistory) note(pids map[int32]int) {
	for id, pid := range pids {
		if !slices.Contains(h.seen[id], pid) {
			h.seen[id] = append(h.seen[id], pid)
		}
	}
}

// restartedOnce ends the watch and fails the test unless every node was restarted exactly once.
func (h *jvmHistory) restartedOnce(t *testing.T) {
	t.Helper()
	h.stop()
	h.ended.Wait()
	for id, pids := range h.seen {
		if len(pids) != 2 {
			t.Errorf("node %d was to be restarted once; its JVMs were %v", id, pids)
		}
	}
}

func nodeIDs(s *stand.Stand) []int32 {
	var ids []int32
	for _, n := range s.Nodes() {
		ids = append(ids, n.Spec.NodeID)
	}
	return ids
}

// override gives one node of the first pool a configuration of its own.
func override(yaml string, node int32, line string) string {
	return strings.Replace(yaml, "    jvm:", fmt.Sprintf("    overrides: [{nodeID: %d, config: {%s}}]\n    jvm:", node, line), 1)
}

func activeController(t *testing.T, s *stand.Stand) int32 {
	t.Helper()
	seen, err := s.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return seen.Quorum.Leader
}

// inForce asks a broker itself (DescribeConfigs), through the client listener.
func inForce(t *testing.T, s *stand.Stand, broker int32, key string) string {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.ClientConfig("plain").Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	all, err := kadm.NewClient(client).DescribeBrokerConfigs(ctx, broker)
	if err != nil {
		t.Fatal(err)
	}
	one, err := all.On(fmt.Sprint(broker), nil)
	if err != nil {
		t.Fatalf("describe the configuration of broker %d: %v", broker, err)
	}
	for _, c := range one.Configs {
		if c.Key == key {
			return c.MaybeValue()
		}
	}
	t.Fatalf("broker %d does not describe %s", broker, key)
	return ""
}
