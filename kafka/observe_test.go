package kafka_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/kafkatest"
)

func clients(t *testing.T, timeout time.Duration) *kafka.Clients {
	t.Helper()
	c := kafka.NewClients(kafka.Options{Timeout: timeout})
	t.Cleanup(c.Close)
	return c
}

func observe(t *testing.T, target kafka.Target, perBroker ...int32) plan.Kafka {
	t.Helper()
	k, err := clients(t, 10*time.Second).Cluster("default/fake", target).Observe(t.Context(), plan.Ask{PerBroker: perBroker})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestObserveReadsWholeCluster(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"b", "a"}, Partitions: 2})
	fake.SetQuorum(plan.Quorum{
		Leader: 1, LeaderEpoch: 7, HighWater: 50,
		Voters: []plan.Replica{
			{ID: 1, DirectoryID: kafkatest.DirectoryID(1), LogEnd: 50},
			{ID: 2, LogEnd: 40, LastCaughtUp: 1500 * time.Millisecond},
		},
		Observers: []plan.Replica{{ID: 0, DirectoryID: kafkatest.DirectoryID(0), LogEnd: 3, LastCaughtUp: -1}},
	})
	fake.Fence(2)
	cluster := clients(t, 10*time.Second).Cluster("default/fake", fake.Target())
	mustSet(t, cluster, -1, map[string]string{"log.cleaner.threads": "2"})
	mustSet(t, cluster, 1, map[string]string{"background.threads": "5"})

	k, err := cluster.Observe(t.Context(), plan.Ask{PerBroker: []int32{0, 1, 2, 9}})
	if err != nil {
		t.Fatal(err)
	}
	if !k.Known || !k.PartitionsKnown || k.Why != "" {
		t.Fatalf("Known %v, PartitionsKnown %v, Why %q", k.Known, k.PartitionsKnown, k.Why)
	}
	if k.ClusterID != "fake" || k.ControllerID != 1 {
		t.Errorf("cluster %q, controller %d", k.ClusterID, k.ControllerID)
	}
	wantBrokers := []plan.Broker{{ID: 0, Rack: "rack-0"}, {ID: 1, Rack: "rack-1"}, {ID: 2, Rack: "rack-2", Fenced: true}}
	if diff := cmp.Diff(wantBrokers, k.Brokers); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(fake.Quorum(), k.Quorum); diff != "" {
		t.Error(diff)
	}
	if len(k.Topics) != 2 || k.Topics[0].Name != "a" || len(k.Topics[1].Partitions) != 2 || k.Topics[0].MinISR < 1 {
		t.Errorf("topics %+v", k.Topics)
	}
	if diff := cmp.Diff(map[string]string{"log.cleaner.threads": "2"}, k.ClusterConfig); diff != "" {
		t.Error(diff)
	}
	// 2 is fenced and 9 is nobody: both are unknown, not empty.
	wantNodes := []int32{0, 1}
	for id := range k.BrokerConfig {
		if !slices.Contains(wantNodes, id) {
			t.Errorf("configuration of node %d: %v", id, k.BrokerConfig[id])
		}
	}
	if k.MetadataVersion == "" || k.Features["metadata.version"] == 0 {
		t.Errorf("metadata version %q of %v", k.MetadataVersion, k.Features)
	}
}

func mustSet(t *testing.T, c *kafka.Cluster, node int32, set map[string]string) {
	t.Helper()
	if err := c.SetConfig(t.Context(), node, set, nil); err != nil {
		t.Fatal(err)
	}
}

func TestObserveAsksOncePerPassNotPerObject(t *testing.T) {
	const topics = 4500
	names := make([]string, topics)
	for i := range names {
		names[i] = "topic-" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + time.Duration(i).String()
	}
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: names})
	before := fake.Requests()
	k := observe(t, fake.Target())
	if !k.Known || len(k.Topics) != topics {
		t.Fatalf("Known %v (%s), %d topics", k.Known, k.Why, len(k.Topics))
	}
	got := fake.Requests()
	for key, n := range before {
		if got[key] -= n; got[key] == 0 {
			delete(got, key)
		}
	}
	// Once to open the connection, once for the features; topics in three chunks and the cluster-wide level.
	want := map[kmsg.Key]int{kmsg.ApiVersions: 2, kmsg.DescribeCluster: 1, kmsg.DescribeQuorum: 1, kmsg.Metadata: 1, kmsg.DescribeConfigs: 4}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Every partial or failed answer makes the whole observation unknown.
func TestObserveCallsUnknownWhatIsNotWhole(t *testing.T) {
	code := func(e *kerr.Error) int16 { return e.Code }
	cases := []struct {
		reason string
		fault  kfake.Fault
		answer func(*kmsg.MetadataResponse)
		why    string
	}{
		{reason: "a topic that cannot be described", fault: kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: "t", Err: kerr.TopicAuthorizationFailed}, why: "TOPIC_AUTHORIZATION_FAILED"},
		{reason: "cluster-wide configuration refused", fault: kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.ClusterAuthorizationFailed}, why: "CLUSTER_AUTHORIZATION_FAILED"},
		{reason: "a topic with an error", answer: func(r *kmsg.MetadataResponse) { r.Topics[0].ErrorCode = code(kerr.UnknownServerError) }, why: "UNKNOWN_SERVER_ERROR"},
		{reason: "a partition with an error", answer: func(r *kmsg.MetadataResponse) { r.Topics[0].Partitions[0].ErrorCode = code(kerr.KafkaStorageError) }, why: "KAFKA_STORAGE_ERROR"},
		{reason: "a partition missing", answer: func(r *kmsg.MetadataResponse) { r.Topics[0].Partitions[0].Partition = 1 }, why: "out of order"},
		{reason: "a partition without replicas", answer: func(r *kmsg.MetadataResponse) { r.Topics[0].Partitions[0].Replicas = nil }, why: "no replicas"},
		{reason: "a failed answer as a whole", answer: func(r *kmsg.MetadataResponse) { r.ErrorCode = code(kerr.UnknownServerError) }, why: "UNKNOWN_SERVER_ERROR"},
		{reason: "another cluster's answer", answer: func(r *kmsg.MetadataResponse) { r.ClusterID = new("other") }, why: "not of cluster fake"},
		{reason: "a leader despite an error", answer: func(r *kmsg.MetadataResponse) {
			r.Topics[0].Partitions[0].ErrorCode = code(kerr.LeaderNotAvailable)
			r.Topics[0].Partitions[0].Leader = 1
		}, why: "leader 1"},
	}
	for _, c := range cases {
		t.Run(c.reason, func(t *testing.T) {
			fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}})
			if c.answer != nil {
				scriptMetadata(fake, c.answer)
			} else {
				c.fault.Count = -1
				fake.Brokers.Fault(c.fault)
			}
			k := observe(t, fake.Target())
			if k.Known || !strings.Contains(k.Why, c.why) {
				t.Errorf("Known %v, Why %q, want one with %q", k.Known, k.Why, c.why)
			}
			if len(k.Topics)+len(k.Brokers)+len(k.Quorum.Voters) != 0 {
				t.Errorf("facts beside Known=false: %+v", k)
			}
		})
	}
}

// scriptMetadata answers every Metadata request with one topic t of one partition, changed by change.
func scriptMetadata(fake *kafkatest.Fake, change func(*kmsg.MetadataResponse)) {
	fake.Brokers.ControlKey(kmsg.Metadata.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		fake.Brokers.KeepControl()
		resp := r.ResponseKind().(*kmsg.MetadataResponse)
		resp.ClusterID = new("fake")
		p := kmsg.NewMetadataResponseTopicPartition()
		p.Leader, p.Replicas, p.ISR = 0, []int32{0, 1, 2}, []int32{0, 1, 2}
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic = new("t")
		topic.Partitions = append(topic.Partitions, p)
		resp.Topics = append(resp.Topics, topic)
		change(resp)
		return resp, nil, true
	})
}

func TestObserveTakesLeaderlessPartitionAsState(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}})
	scriptMetadata(fake, func(r *kmsg.MetadataResponse) {
		p := &r.Topics[0].Partitions[0]
		p.ErrorCode, p.Leader, p.ISR = kerr.LeaderNotAvailable.Code, -1, []int32{2}
	})
	k := observe(t, fake.Target())
	if !k.Known {
		t.Fatal(k.Why)
	}
	want := []plan.Partition{{Leader: -1, Replicas: []int32{0, 1, 2}, ISR: []int32{2}}}
	if diff := cmp.Diff(want, k.Topics[0].Partitions); diff != "" {
		t.Error(diff)
	}
}

func TestObserveDropsTopicDeletedMeanwhile(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"gone", "stays"}})
	fake.Brokers.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Resource: "gone", Err: kerr.UnknownTopicOrPartition, Count: -1})
	k := observe(t, fake.Target())
	if !k.Known || len(k.Topics) != 1 || k.Topics[0].Name != "stays" {
		t.Errorf("Known %v (%s), topics %+v", k.Known, k.Why, k.Topics)
	}
}

// A principal that may not see everything gets a shorter list from Kafka, without an error.
func TestObserveDoesNotBelieveWithoutSuperUser(t *testing.T) {
	c := kafkatest.NewFake(t, kafkatest.Config{})
	c.Authorize(int32(1) << int32(kmsg.ACLOperationDescribe))
	k := observe(t, c.Target())
	if k.Known || !strings.Contains(k.Why, "super user") {
		t.Errorf("Known %v, Why %q", k.Known, k.Why)
	}
	c.Authorize(math.MaxInt32)
	if k := observe(t, c.Target()); !k.Known {
		t.Error(k.Why)
	}
}

func TestObserveFallsBackToControllers(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 2, Controllers: 3})
	q := fake.Quorum()
	q.Leader = 2
	fake.SetQuorum(q)
	target := fake.Target()
	fake.Brokers.Close()
	k := observe(t, target, 1)
	if !k.Known || k.PartitionsKnown {
		t.Fatalf("Known %v, PartitionsKnown %v, Why %q", k.Known, k.PartitionsKnown, k.Why)
	}
	if k.ControllerID != 2 || k.ClusterID != "fake" || len(k.Quorum.Voters) != 3 || k.MetadataVersion == "" {
		t.Errorf("%+v", k)
	}
	if _, ok := k.BrokerConfig[1]; !ok {
		t.Errorf("controller 1 is up, its configuration is %v", k.BrokerConfig)
	}
	if !strings.Contains(k.Why, "no broker answers") {
		t.Errorf("Why %q", k.Why)
	}
}

func TestObserveFindsTheQuorumDespiteBroker(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Controllers: 3})
	stale := kmsg.NewPtrDescribeQuorumResponse()
	stale.ErrorCode = kerr.NotLeaderForPartition.Code
	fake.AnswerOnce(kmsg.DescribeQuorum, stale)
	if k := observe(t, fake.Target()); !k.Known || !k.PartitionsKnown || len(k.Quorum.Voters) != 3 {
		t.Errorf("%+v", k)
	}
}

func TestObserveWithNobodyUp(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Controllers: 1})
	target := fake.Target()
	fake.Brokers.Close()
	fake.Controllers.Close()
	k := observe(t, target)
	if k.Known || !strings.Contains(k.Why, target.Controllers[0]) {
		t.Errorf("Known %v, Why %q", k.Known, k.Why)
	}
}

// A stopped process accepts connections and never answers.
func TestObserveGoesOnPastSilentBroker(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 3})
	release := make(chan struct{})
	defer close(release)
	fake.Silence(release, 0, 1)
	begin := time.Now()
	k := observe(t, fake.Target())
	if !k.Known {
		t.Fatal(k.Why)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestObserveIsBounded(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1})
	release := make(chan struct{})
	defer close(release)
	fake.Silence(release, 0)
	begin := time.Now()
	k, err := clients(t, 500*time.Millisecond).Cluster("default/fake", fake.Target()).Observe(t.Context(), plan.Ask{})
	if err != nil || k.Known {
		t.Errorf("Known %v, error %v", k.Known, err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestObserveEndsWithItsCaller(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := clients(t, time.Second).Cluster("default/fake", fake.Target()).Observe(ctx, plan.Ask{}); err == nil {
		t.Error("an observation that was not made must be an error")
	}
	if _, err := clients(t, time.Second).Cluster("default/fake", kafka.Target{}).Observe(t.Context(), plan.Ask{}); err == nil {
		t.Error("a target without addresses must be an error")
	}
}

// Kafka 3.9 has no DescribeCluster version 2.
func TestObserveOldBroker(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{DescribeCluster: 1})
	fake.Fence(2)
	k := observe(t, fake.Target())
	if !k.Known || len(k.Brokers) != 2 {
		t.Errorf("Known %v (%s), brokers %+v", k.Known, k.Why, k.Brokers)
	}
}

// A broker that is cut off from the controllers answers with what it last knew.
func TestObserveBelievesNoBrokerThatIsBehind(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"a"}, Brokers: 3, Controllers: 1, FirstController: 100})
	q := fake.Quorum()
	q.Observers[0].LastCaughtUp = time.Minute
	q.Observers = q.Observers[:2] // 2 has not fetched for so long that the quorum forgot it
	fake.SetQuorum(q)
	if k := observe(t, fake.Target()); !k.Known || !k.PartitionsKnown || len(k.Topics) != 1 {
		t.Errorf("one broker is up to date, and all is %v, partitions %v: %s", k.Known, k.PartitionsKnown, k.Why)
	}
	q.Observers[1].LastCaughtUp = -1
	fake.SetQuorum(q)
	k := observe(t, fake.Target())
	if !k.Known || k.PartitionsKnown || len(k.Topics) > 0 || !strings.Contains(k.Why, "broker 1 has not caught up") {
		t.Errorf("Known %v, PartitionsKnown %v, topics %d, Why %q", k.Known, k.PartitionsKnown, len(k.Topics), k.Why)
	}
}
