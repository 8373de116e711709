package kafka_test

import (
	"context"
	"errors"
	"iter"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/kafkatest"
	"castellan.dev/castellan/packages/packagestest" //nolint:depguard // only to get a real Kafka
)

const realVersion = "4.3.1"

func realLibs(t *testing.T) string {
	t.Helper()
	return filepath.Join(packagestest.RealKafka(t, realVersion).Libs(), "*")
}

// java runs a JVM to its end and returns what it printed.
func java(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nice", append([]string{"java", "-Xmx256m", "-XX:TieredStopAtLevel=1"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("java %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}

// startKafka runs one combined node until the test ends and returns where it listens, and how to kill it earlier.
func startKafka(t *testing.T, libs string) (target kafka.Target, kill func()) {
	t.Helper()
	controller := freePort(t)
	n := realNode{id: 1, roles: "broker,controller", controller: controller, port: freePort(t), dirs: []string{filepath.Join(t.TempDir(), "data")}}
	id := strings.TrimSpace(java(t, "-cp", libs, "kafka.tools.StorageTool", "random-uuid"))
	kill = n.start(t, libs, id, "--standalone", "--feature", "transaction.version=1")
	return kafka.Target{ClusterID: id, Brokers: []string{n.address()}, Controllers: []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(controller))}}, kill
}

// observed waits until the cluster is as wanted.
func observed(t *testing.T, c *kafka.Cluster, perBroker []int32, wanted func(plan.Kafka) bool) plan.Kafka {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		k, err := c.Observe(ctx, plan.Ask{PerBroker: perBroker})
		if err != nil {
			t.Fatalf("%v; last seen %+v", err, k)
		}
		if wanted(k) {
			return k
		}
		<-tick.C
	}
}

func TestRealKafka(t *testing.T) {
	libs := realLibs(t)
	target, kill := startKafka(t, libs)
	all := clients(t, 10*time.Second)
	cluster := all.Cluster("default/real", target)
	ready := observed(t, cluster, nil, func(k plan.Kafka) bool {
		return k.Known && k.PartitionsKnown && len(k.Brokers) == 1 && !k.Brokers[0].Fenced
	})

	t.Run("observe", func(t *testing.T) { realObserve(t, ready, target) })
	t.Run("controllers alone", func(t *testing.T) {
		alone := target
		alone.Brokers = nil
		k := observed(t, all.Cluster("default/alone", alone), []int32{1}, func(k plan.Kafka) bool { return k.Known })
		if k.PartitionsKnown || k.ClusterID != target.ClusterID || k.MetadataVersion != "4.3-IV0" || k.BrokerConfig[1] == nil {
			t.Errorf("%+v", k)
		}
	})
	t.Run("configuration", func(t *testing.T) { realConfig(t, all, target) })
	t.Run("features", func(t *testing.T) { realFeatures(t, cluster) })
	t.Run("voters", func(t *testing.T) { realVoters(t, cluster, ready.Quorum.Voters[0], target) })
	t.Run("topics and records", func(t *testing.T) { realRecords(t, cluster, target) })
	t.Run("witness", func(t *testing.T) { realWitness(t, target) })
	t.Run("down", func(t *testing.T) {
		kill()
		if k := observed(t, cluster, nil, func(plan.Kafka) bool { return true }); k.Known || k.Why == "" {
			t.Errorf("%+v", k)
		}
	})
}

func realObserve(t *testing.T, k plan.Kafka, target kafka.Target) {
	t.Helper()
	if k.ClusterID != target.ClusterID || k.ControllerID != 1 || k.MetadataVersion != "4.3-IV0" || k.Features["kraft.version"] != 1 {
		t.Errorf("%+v", k)
	}
	v := k.Quorum.Voters
	if len(v) != 1 || v[0].ID != 1 || len(v[0].DirectoryID) != 22 || v[0].LastCaughtUp != 0 || v[0].LogEnd < 1 || k.Quorum.LeaderEpoch < 1 {
		t.Errorf("quorum %+v", k.Quorum)
	}
	// The cluster itself writes it where eligible leader replicas are on (measured on 4.3.1).
	if k.ClusterConfig["min.insync.replicas"] != "1" {
		t.Errorf("cluster-wide configuration %v", k.ClusterConfig)
	}
}

func realConfig(t *testing.T, all *kafka.Clients, target kafka.Target) {
	t.Helper()
	cluster := all.Cluster("default/real", target)
	mustSet(t, cluster, -1, map[string]string{"log.cleaner.threads": "2"})
	mustSet(t, cluster, 1, map[string]string{"num.io.threads": "5"})
	observed(t, cluster, []int32{1}, func(k plan.Kafka) bool {
		return k.ClusterConfig["log.cleaner.threads"] == "2" && cmp.Equal(k.BrokerConfig[1], map[string]string{"num.io.threads": "5"})
	})
	if err := cluster.SetConfig(t.Context(), 1, nil, []string{"num.io.threads", "num.network.threads"}); err != nil {
		t.Error("delete, one of them not set:", err)
	}
	observed(t, cluster, []int32{1}, func(k plan.Kafka) bool { return k.BrokerConfig[1] != nil && len(k.BrokerConfig[1]) == 0 })

	err := cluster.SetConfig(t.Context(), -1, map[string]string{"log.cleaner.threads": "many"}, nil)
	var no *kafka.RefusedError
	if !errors.As(err, &no) || no.Message == "" {
		t.Errorf("a bad value: %v", err)
	}
	alone := target
	alone.Brokers = nil
	mustSet(t, all.Cluster("default/alone", alone), 1, map[string]string{"background.threads": "9"})
	observed(t, cluster, []int32{1}, func(k plan.Kafka) bool { return k.BrokerConfig[1]["background.threads"] == "9" })
}

// realFeatures finalizes what the node was formatted without.
func realFeatures(t *testing.T, cluster *kafka.Cluster) {
	t.Helper()
	k := observed(t, cluster, nil, func(k plan.Kafka) bool { return k.Known })
	want := map[string][2]int16{"metadata.version": {7, 30}, "transaction.version": {0, 2}, "group.version": {0, 1}}
	for name, levels := range want {
		if k.SupportedFeatures[name] != levels {
			t.Errorf("%s supports %v, want %v", name, k.SupportedFeatures[name], levels)
		}
	}
	if k.Features["transaction.version"] != 1 {
		t.Fatalf("features %v", k.Features)
	}
	err := cluster.FinalizeFeatures(t.Context(), map[string]int16{"transaction.version": 2, "group.version": 99})
	if err == nil || !strings.Contains(err.Error(), "feature group.version") {
		t.Errorf("error %v", err)
	}
	for range 2 {
		if err := cluster.FinalizeFeatures(t.Context(), map[string]int16{"transaction.version": 2, "metadata.version": k.Features["metadata.version"]}); err != nil {
			t.Fatal(err)
		}
		observed(t, cluster, nil, func(k plan.Kafka) bool { return k.Features["transaction.version"] == 2 })
	}
}

func realVoters(t *testing.T, cluster *kafka.Cluster, self plan.Replica, target kafka.Target) {
	t.Helper()
	if err := cluster.AddVoter(t.Context(), self.ID, self.DirectoryID, target.Controllers[0]); err != nil {
		t.Error("a voter that already is one:", err)
	}
	if err := cluster.RemoveVoter(t.Context(), 7, kafkatest.DirectoryID(7)); err != nil {
		t.Error("a voter that is none:", err)
	}
	var no *kafka.RefusedError
	if err := cluster.AddVoter(t.Context(), self.ID, kafkatest.DirectoryID(8), target.Controllers[0]); !errors.As(err, &no) || no.Name != "DUPLICATE_VOTER" {
		t.Errorf("a second directory of a voter: %v", err)
	}
	if err := cluster.AddVoter(t.Context(), 7, kafkatest.DirectoryID(7), "127.0.0.1:1"); err == nil {
		t.Error("a controller that nobody has ever seen became a voter")
	}
}

func realRecords(t *testing.T, cluster *kafka.Cluster, target kafka.Target) {
	t.Helper()
	client, err := kafka.Dial(t.Context(), kafka.ClientConfig{Brokers: target.Brokers})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topic := kafka.NewTopic{Name: "records", Partitions: 3, ReplicationFactor: 1, Config: map[string]string{"min.insync.replicas": "1", "retention.ms": "-1"}}
	if err := client.CreateTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	k := observed(t, cluster, nil, func(k plan.Kafka) bool { return len(k.Topics) > 0 && len(k.Topics[0].Partitions) == 3 })
	want := plan.Topic{Name: "records", MinISR: 1}
	for range 3 {
		want.Partitions = append(want.Partitions, plan.Partition{Leader: 1, Replicas: []int32{1}, ISR: []int32{1}})
	}
	if diff := cmp.Diff([]plan.Topic{want}, k.Topics); diff != "" {
		t.Error(diff)
	}
	if err := cluster.ElectPreferredLeaders(t.Context()); err != nil {
		t.Error(err)
	}
	const total = 5000
	n, err := client.Produce(t.Context(), kafka.ProduceOptions{Topic: "records"}, numbered(total))
	if n != total || err != nil {
		t.Fatalf("%d acknowledged, %v", n, err)
	}
	read := 0
	for r, err := range client.Consume(t.Context(), kafka.ConsumeOptions{Topic: "records", From: kafka.Start{Offset: kafka.Beginning}, UntilEnd: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if i, _ := strconv.Atoi(string(r.Value)); string(r.Key) != "key-"+strconv.Itoa(i%100) || len(r.Headers) != 1 {
			t.Fatalf("%+v", r)
		}
		read++
	}
	if read != total {
		t.Errorf("%d records read back", read)
	}
	detail, err := client.Topic(t.Context(), "records")
	if err != nil || len(detail.Details) != 3 || detail.Details[0].End == 0 {
		t.Errorf("%+v, %v", detail, err)
	}
	if err := client.DeleteTopic(t.Context(), "records"); err != nil {
		t.Error(err)
	}
}

func numbered(total int) iter.Seq2[kafka.Record, error] {
	return func(yield func(kafka.Record, error) bool) {
		for i := range total {
			r := kafka.Record{
				Partition: kafka.AnyPartition, Key: []byte("key-" + strconv.Itoa(i%100)), Value: []byte(strconv.Itoa(i)),
				Headers: []kafka.Header{{Key: "n", Value: []byte{0xff}}},
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func realWitness(t *testing.T, target kafka.Target) {
	t.Helper()
	config := kafka.ClientConfig{Brokers: target.Brokers}
	client, err := kafka.Dial(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.CreateTopic(t.Context(), kafka.NewTopic{Name: "witness", Partitions: 2, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
	watch := kafkatest.WatchISR(t.Context(), target, 50*time.Millisecond, nil)
	writer, err := kafkatest.StartWriter(t.Context(), config, "witness", 500)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for writer.Acknowledged() < 300 && time.Now().Before(deadline) {
		<-tick.C
	}
	acked := writer.Stop()
	v, err := writer.Verify(t.Context())
	if err != nil || acked < 300 || v.Acknowledged != acked || len(v.Missing) != 0 || v.Read < acked {
		t.Errorf("%d acknowledged, %+v, %v", acked, v, err)
	}
	if r := watch.Stop(); r.Samples == 0 || len(r.Under) != 0 || r.Least["witness-0"] != 1 {
		t.Errorf("%+v", r)
	}
}

func TestMetadataVersionsAreKafkas(t *testing.T) {
	out := java(t, "-cp", realLibs(t), filepath.Join("testdata", "MetadataVersions.java"))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for _, line := range lines {
		number, name, _ := strings.Cut(line, " ")
		level, err := strconv.ParseInt(number, 10, 16)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if got := kafka.MetadataVersion(int16(level)); got != name {
			t.Errorf("level %d is %q, Kafka says %s", level, got, name)
		}
	}
	if len(lines) < 20 {
		t.Errorf("Kafka knows only %d versions: %q", len(lines), out)
	}
}
