package kafka_test

import (
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/kafkatest"
)

// placed is a fake cluster of three brokers, of which 2 is fenced, with the partitions t-0 and t-1. t-1 moves from 1
// to 0, and the broker that tells Metadata does not know that yet.
func placed(t *testing.T) (*kafkatest.Fake, *asked) {
	t.Helper()
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}, Partitions: 2})
	fake.Fence(2)
	scriptMetadata(fake, func(r *kmsg.MetadataResponse) {
		second := kmsg.NewMetadataResponseTopicPartition()
		second.Partition, second.Leader, second.Replicas, second.ISR, second.OfflineReplicas = 1, 1, []int32{1, 2}, []int32{1}, []int32{2}
		r.Topics[0].Partitions = append(r.Topics[0].Partitions, second)
		first := &r.Topics[0].Partitions[0]
		first.Replicas, first.ISR = []int32{0, 1}, []int32{0, 1}
	})
	answer(fake, kmsg.ListPartitionReassignments, func(_ int32, r *kmsg.ListPartitionReassignmentsRequest) kmsg.Response {
		resp := r.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
		for _, name := range []string{"t", "deleted"} {
			p := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
			p.Partition, p.Replicas, p.AddingReplicas, p.RemovingReplicas = 1, []int32{0, 2, 1}, []int32{0}, []int32{1}
			topic := kmsg.NewListPartitionReassignmentsResponseTopic()
			topic.Topic = name
			topic.Partitions = append(topic.Partitions, p)
			resp.Topics = append(resp.Topics, topic)
		}
		return resp
	})
	a := &asked{times: map[int32]int{}}
	answer(fake, kmsg.DescribeLogDirs, a.describe)
	return fake, a
}

// answer handles every request of a key at brokers from now on.
func answer[R kmsg.Request](fake *kafkatest.Fake, key kmsg.Key, handle func(node int32, r R) kmsg.Response) {
	fake.Brokers.ControlKey(key.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		fake.Brokers.KeepControl()
		resp := handle(fake.Brokers.CurrentNode(), r.(R))
		return resp, nil, resp != nil
	})
}

// asked answers for log dirs, and counts how often each broker did.
type asked struct {
	mu     sync.Mutex
	times  map[int32]int
	refuse int32 // this broker, where it is above zero
}

func (a *asked) describe(node int32, r *kmsg.DescribeLogDirsRequest) kmsg.Response { //nolint:ireturn // what kfake takes
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times[node]++
	resp := r.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	if r.Topics != nil || a.refuse > 0 && node == a.refuse {
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		return resp
	}
	log := func(partition int32, size int64, future bool) kmsg.DescribeLogDirsResponseDirTopicPartition {
		p := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		p.Partition, p.Size, p.IsFuture = partition, size, future
		return p
	}
	dir := func(path string, logs ...kmsg.DescribeLogDirsResponseDirTopicPartition) kmsg.DescribeLogDirsResponseDir {
		d := kmsg.NewDescribeLogDirsResponseDir()
		d.Dir, d.TotalBytes, d.UsableBytes = path, 1000, 500
		for _, name := range []string{"deleted", "t"} {
			topic := kmsg.NewDescribeLogDirsResponseDirTopic()
			topic.Topic, topic.Partitions = name, logs
			d.Topics = append(d.Topics, topic)
		}
		return d
	}
	if node == 1 {
		resp.Dirs = append(resp.Dirs, dir("/a", log(0, 20, false), log(1, 30, false), log(7, 70, false)))
		resp.Dirs[0].IsCordoned = true
		return resp
	}
	lost := kmsg.NewDescribeLogDirsResponseDir()
	lost.Dir, lost.ErrorCode = "/b", kerr.KafkaStorageError.Code
	resp.Dirs = append(resp.Dirs, dir("/c", log(0, 4, true), log(1, 5, false)), lost, dir("/a", log(0, 10, false)))
	return resp
}

func (a *asked) total() map[int32]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.times)
}

func placement(t *testing.T, c *kafka.Cluster) plan.Kafka {
	t.Helper()
	k, err := c.Observe(t.Context(), plan.Ask{Placement: true})
	if err != nil || !k.Known {
		t.Fatalf("%+v, %v", k, err)
	}
	return k
}

func TestObservePlacement(t *testing.T) {
	fake, a := placed(t)
	k := placement(t, clients(t, 10*time.Second).Cluster("default/fake", fake.Target()))
	dir := func(path string) balance.LogDir { return balance.LogDir{Path: path, Total: 1000, Usable: 500} }
	cordoned := dir("/a")
	cordoned.Cordoned = true
	want := &balance.Cluster{
		Brokers: []balance.Broker{
			{ID: 0, Rack: "rack-0", Alive: true, LogDirs: []balance.LogDir{dir("/a"), {Path: "/b", Total: -1, Usable: -1, Offline: true}, dir("/c")}},
			{ID: 1, Rack: "rack-1", Alive: true, Cordoned: true, LogDirs: []balance.LogDir{cordoned}},
			{ID: 2, Rack: "rack-2"},
		},
		Topics: []balance.Topic{{Name: "t", MinISR: k.Topics[0].MinISR, Partitions: []balance.Partition{
			{Leader: 0, Replicas: []balance.Replica{{Broker: 0, Dir: 0, State: balance.InSync, Bytes: 10}, {Broker: 1, Dir: 0, State: balance.InSync, Bytes: 20}}},
			{Leader: 1, Replicas: []balance.Replica{
				{Broker: 0, Dir: 2, State: balance.Adding, Bytes: 5},
				{Broker: 2, Dir: balance.NoDir, State: balance.Offline},
				{Broker: 1, Dir: 0, State: balance.InSync | balance.Removing, Bytes: 30},
			}},
		}}},
		Copies: []balance.Copy{{Topic: "t", Partition: 0, Broker: 0, Dir: 2, Bytes: 4}},
	}
	if diff := cmp.Diff(want, k.Placement); diff != "" || k.PlacementWhy != "" || k.Topics[0].MinISR < 1 {
		t.Errorf("%s%s", k.PlacementWhy, diff)
	}
	if diff := cmp.Diff(map[int32]int{0: 1, 1: 1}, a.total()); diff != "" {
		t.Error(diff)
	}
}

// What is not asked for costs nothing.
func TestObserveWithoutPlacement(t *testing.T) {
	fake, a := placed(t)
	k := observe(t, fake.Target())
	if k.Placement != nil || k.PlacementWhy != "" || k.TopicThrottles != nil || len(a.total()) > 0 {
		t.Errorf("%+v, asked %v", k, a.total())
	}
}

func TestLogDirsAreAskedOncePerPeriod(t *testing.T) {
	fake, a := placed(t)
	now := time.Unix(1000, 0)
	all := kafka.NewClients(kafka.Options{Now: func() time.Time { return now }})
	t.Cleanup(all.Close)
	c := all.Cluster("default/fake", fake.Target())
	first := placement(t, c)
	first.Placement.Brokers[0].LogDirs[0].Cordoned = true // the caller's own
	step := func(reason string, after time.Duration, zero, one int) {
		t.Helper()
		now = now.Add(after)
		k := placement(t, c)
		if diff := cmp.Diff(map[int32]int{0: zero, 1: one}, a.total()); diff != "" {
			t.Errorf("%s: %s", reason, diff)
		}
		if k.Placement == nil || k.Placement.Brokers[0].LogDirs[0].Cordoned || k.Placement.Topics[0].Partitions[0].Replicas[1].Bytes != 20 {
			t.Errorf("%s: %+v", reason, k.Placement)
		}
	}
	step("fresh", 5*time.Second+59*time.Millisecond, 1, 1)
	step("5 s and 20 ms for each of three brokers", time.Millisecond, 2, 2)
	err := c.MoveReplicas(t.Context(), []balance.Move{{Topic: "t", From: []int32{0, 1}, To: []int32{0, 1}, Dirs: []balance.DirRef{{Broker: 1, Path: "/a"}}}})
	if err != nil {
		t.Fatal(err)
	}
	step("the log dirs of 1 were changed", 0, 2, 3)
	all.Forget("default/fake")
	step("connections were replaced", 0, 3, 4)
}

// The other facts stay good where a live broker does not tell its log dirs.
func TestPlacementIsWholeOrNone(t *testing.T) {
	fake, a := placed(t)
	a.refuse = 1
	k := placement(t, clients(t, 5*time.Second).Cluster("default/fake", fake.Target()))
	if k.Placement != nil || len(k.Topics) != 1 || len(k.Brokers) != 3 || !strings.Contains(k.PlacementWhy, "broker 1: describe its log dirs: Kafka answered CLUSTER_AUTHORIZATION_FAILED") {
		t.Errorf("%q, %+v", k.PlacementWhy, k)
	}
}

func TestPlacementSaysWhyNobodyTellsIt(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Controllers: 1})
	target := fake.Target()
	fake.Brokers.Close()
	k := placement(t, clients(t, 5*time.Second).Cluster("default/fake", target))
	if k.Placement != nil || !strings.Contains(k.PlacementWhy, "no broker answers") {
		t.Errorf("%q", k.PlacementWhy)
	}
}
