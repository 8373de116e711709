package kafka_test

import (
	"errors"
	"fmt"
	"strconv"
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

// orders writes down what is asked for, and answers by topic.
type orders struct {
	mu    sync.Mutex
	lines []string
	codes map[string]int16
}

func ordered(t *testing.T) (*kafka.Cluster, *orders) {
	t.Helper()
	fake := kafkatest.NewFake(t, kafkatest.Config{})
	fake.Fence(2)
	o := &orders{codes: map[string]int16{}}
	answer(fake, kmsg.AlterReplicaLogDirs, o.dirs)
	answer(fake, kmsg.AlterPartitionAssignments, o.assign)
	return clients(t, 5*time.Second).Cluster("default/fake", fake.Target()), o
}

func (o *orders) dirs(node int32, r *kmsg.AlterReplicaLogDirsRequest) kmsg.Response { //nolint:ireturn // what kfake takes
	o.mu.Lock()
	defer o.mu.Unlock()
	resp := r.ResponseKind().(*kmsg.AlterReplicaLogDirsResponse)
	line := "dirs of " + strconv.Itoa(int(node))
	for _, d := range r.Dirs {
		for _, t := range d.Topics {
			line += fmt.Sprintf(" %s:%s%v", d.Dir, t.Topic, t.Partitions)
			topic := kmsg.NewAlterReplicaLogDirsResponseTopic()
			topic.Topic = t.Topic
			for _, p := range t.Partitions {
				topic.Partitions = append(topic.Partitions, kmsg.AlterReplicaLogDirsResponseTopicPartition{Partition: p, ErrorCode: o.codes["dirs "+t.Topic]})
			}
			resp.Topics = append(resp.Topics, topic)
		}
	}
	o.lines = append(o.lines, line)
	return resp
}

func (o *orders) assign(_ int32, r *kmsg.AlterPartitionAssignmentsRequest) kmsg.Response { //nolint:ireturn // what kfake takes
	o.mu.Lock()
	defer o.mu.Unlock()
	resp := r.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	line := fmt.Sprint("assign ", r.AllowReplicationFactorChange)
	for _, t := range r.Topics {
		topic := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			line += fmt.Sprintf(" %s-%d%v", t.Topic, p.Partition, p.Replicas)
			if p.Replicas == nil {
				line += "null"
			}
			topic.Partitions = append(topic.Partitions, kmsg.AlterPartitionAssignmentsResponseTopicPartition{Partition: p.Partition, ErrorCode: o.codes[t.Topic]})
		}
		resp.Topics = append(resp.Topics, topic)
	}
	o.lines = append(o.lines, line)
	return resp
}

func move(topic string, partition int32, from, to []int32, dirs ...balance.DirRef) balance.Move {
	return balance.Move{Topic: topic, Partition: partition, From: from, To: to, Dirs: dirs}
}

func TestMoveReplicas(t *testing.T) {
	c, o := ordered(t)
	o.codes["dirs a"] = kerr.ReplicaNotAvailable.Code // not there yet
	o.codes["dirs gone"], o.codes["gone"] = kerr.UnknownTopicOrPartition.Code, kerr.UnknownTopicOrPartition.Code
	at := func(broker int32, path string) balance.DirRef { return balance.DirRef{Broker: broker, Path: path} }
	err := c.MoveReplicas(t.Context(), []balance.Move{
		move("a", 0, []int32{1}, []int32{0}, at(0, "/y")),
		move("b", 0, []int32{0}, []int32{0}, at(0, "/x")), // only between log dirs
		move("a", 1, []int32{1}, []int32{0}, at(0, "/x")),
		move("gone", 0, []int32{1}, []int32{0}, at(0, "/y")),
		move("order", 0, []int32{0, 1}, []int32{1, 0}),
		move("more", 0, []int32{0}, []int32{0, 1}),
		move("a", 2, []int32{1}, []int32{0}, at(0, "/x")),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"dirs of 0 /x:a[1 2] /x:b[0] /y:a[0] /y:gone[0]", "assign true a-0[0] a-1[0] a-2[0] gone-0[0] order-0[1 0] more-0[0 1]"}
	if diff := cmp.Diff(want, o.lines); diff != "" {
		t.Error(diff)
	}
	if err := c.MoveReplicas(t.Context(), nil); err != nil || len(o.lines) != 2 {
		t.Errorf("nothing to move: %v, %v", err, o.lines)
	}
}

// What failed is named, the rest goes on, and nothing is reassigned to where its log dir was refused.
func TestMoveReplicasNamesWhatFailed(t *testing.T) {
	c, o := ordered(t)
	o.codes["dirs lost"], o.codes["bad"] = kerr.KafkaStorageError.Code, kerr.InvalidReplicaAssignment.Code
	moves := []balance.Move{
		move("lost", 0, []int32{1}, []int32{0}, balance.DirRef{Broker: 0, Path: "/x"}),
		move("dead", 0, []int32{1}, []int32{2}, balance.DirRef{Broker: 2, Path: "/x"}),
		move("empty", 0, []int32{1}, nil),
		move("good", 0, []int32{1}, []int32{0}),
	}
	for i := range int32(3) {
		moves = append(moves, move("bad", i, []int32{1}, []int32{0}))
	}
	err := c.MoveReplicas(t.Context(), moves)
	if err == nil {
		t.Fatal("no error")
	}
	for _, text := range []string{
		"6 of 7 partitions failed", "lost-0: ask broker 0 for its log dir: Kafka answered KAFKA_STORAGE_ERROR (56)", "dead-0: broker 2 is not alive",
		"empty-0: the move names no replicas", "bad-0: reassign: Kafka answered INVALID_REPLICA_ASSIGNMENT", "and 1 more",
	} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q lacks %q", err, text)
		}
	}
	if diff := cmp.Diff([]string{"dirs of 0 /x:lost[0]", "assign true good-0[0] bad-0[0] bad-1[0] bad-2[0]"}, o.lines); diff != "" {
		t.Error(diff)
	}
}

func TestCancelMoves(t *testing.T) {
	c, o := ordered(t)
	o.codes["over"], o.codes["gone"] = kerr.NoReassignmentInProgress.Code, kerr.UnknownTopicOrPartition.Code
	ref := func(topic string) balance.PartitionRef { return balance.PartitionRef{Topic: topic, Partition: 3} }
	cancel := []balance.Cancel{{PartitionRef: ref("runs"), To: []int32{1}}, {PartitionRef: ref("over")}, {PartitionRef: ref("gone")}}
	back := []balance.Return{{PartitionRef: ref("runs"), DirRef: balance.DirRef{Broker: 1, Path: "/x"}}}
	if err := c.CancelMoves(t.Context(), cancel, back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"assign true runs-3[]null over-3[]null gone-3[]null", "dirs of 1 /x:runs[3]"}, o.lines); diff != "" {
		t.Error(diff)
	}
	o.codes["runs"] = kerr.ClusterAuthorizationFailed.Code
	if err := c.CancelMoves(t.Context(), cancel, nil); err == nil || !strings.Contains(err.Error(), "take back: 1 of 3 partitions failed") {
		t.Errorf("error %v", err)
	}
}

func TestThrottleTopics(t *testing.T) {
	names := []string{"set", "clear", "refused"}
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: names})
	var asked []int
	answer(fake, kmsg.IncrementalAlterConfigs, func(_ int32, r *kmsg.IncrementalAlterConfigsRequest) kmsg.Response {
		asked = append(asked, len(r.Resources))
		resp := r.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
		for _, res := range r.Resources {
			one := kmsg.NewIncrementalAlterConfigsResponseResource()
			one.ResourceType, one.ResourceName = res.ResourceType, res.ResourceName
			leader, follower := res.Configs[0], res.Configs[1]
			right := leader.Op == kmsg.IncrementalAlterConfigOpSet && *leader.Value == "0:1" && follower.Op == kmsg.IncrementalAlterConfigOpDelete && follower.Value == nil
			switch {
			case res.ResourceName != "refused" && res.ResourceName != "set":
				one.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case res.ResourceName == "refused", !right, res.ResourceType != kmsg.ConfigResourceTypeTopic:
				one.ErrorCode = kerr.InvalidConfig.Code
			}
			resp.Resources = append(resp.Resources, one)
		}
		return resp
	})
	c := clients(t, 5*time.Second).Cluster("default/fake", fake.Target())
	throttles := map[string]plan.TopicThrottle{"set": {Leader: "0:1"}, "clear": {}}
	for i := range 1000 {
		throttles["gone-"+strconv.Itoa(i)] = plan.TopicThrottle{Leader: "0:1", Follower: "0:2"}
	}
	if err := c.ThrottleTopics(t.Context(), throttles); err != nil {
		t.Fatal(err)
	}
	throttles["refused"] = plan.TopicThrottle{Leader: "x"}
	if err := c.ThrottleTopics(t.Context(), throttles); err == nil || !strings.Contains(err.Error(), "topic refused: Kafka answered INVALID_CONFIG") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]int{1000, 2, 1000, 3}, asked); diff != "" {
		t.Error(diff)
	}
}

func TestObserveThrottles(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"set", "plain"}})
	const leaders, followers = "leader.replication.throttled.replicas", "follower.replication.throttled.replicas"
	answer(fake, kmsg.DescribeConfigs, func(_ int32, r *kmsg.DescribeConfigsRequest) kmsg.Response {
		if len(r.Resources[0].ConfigNames) != 2 {
			return nil // of min.insync.replicas
		}
		resp := r.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, res := range r.Resources {
			one := kmsg.NewDescribeConfigsResponseResource()
			one.ResourceType, one.ResourceName = res.ResourceType, res.ResourceName
			own := kmsg.DescribeConfigsResponseResourceConfig{Name: followers, Value: new("0:2"), Source: kmsg.ConfigSourceDynamicTopicConfig}
			other := kmsg.DescribeConfigsResponseResourceConfig{Name: leaders, Value: new("1:1"), Source: kmsg.ConfigSourceDefaultConfig}
			switch one.Configs = append(one.Configs, other); res.ResourceName {
			case "set":
				one.Configs = append(one.Configs, own)
			case "gone":
				one.ErrorCode, one.Configs = kerr.UnknownTopicOrPartition.Code, nil
			}
			resp.Resources = append(resp.Resources, one)
		}
		return resp
	})
	c := clients(t, 5*time.Second).Cluster("default/fake", fake.Target())
	k, err := c.Observe(t.Context(), plan.Ask{Throttles: []string{"set", "plain", "gone"}})
	if err != nil || !k.Known {
		t.Fatalf("%+v, %v", k, err)
	}
	if diff := cmp.Diff(map[string]plan.TopicThrottle{"set": {Follower: "0:2"}, "plain": {}}, k.TopicThrottles); diff != "" {
		t.Error(diff)
	}
}

func TestUnregisterBroker(t *testing.T) {
	moving := func(r *kmsg.MetadataResponse) { r.Topics[0].Partitions[0].Replicas = []int32{0, 1} }
	for _, c := range []struct {
		reason string
		fence  []int32
		old    int16
		keep   func(*kmsg.MetadataResponse)
		adding []int32
		want   string
	}{
		{reason: "live", keep: moving, want: "unregister broker 2: refused: it is registered and not fenced; stop it"},
		{reason: "live on 3.9", old: 1, keep: moving, want: "not fenced"},
		{reason: "holds a replica", fence: []int32{2}, keep: func(*kmsg.MetadataResponse) {}, want: "it still holds replicas of 1 partitions, such as t-0; move them"},
		{reason: "a replica is on its way there", fence: []int32{2}, keep: moving, adding: []int32{0, 1, 2}, want: "such as t-0"},
		{reason: "empty and fenced", fence: []int32{2}, keep: moving},
		{reason: "empty and fenced on 3.9, which does not list it", fence: []int32{2}, old: 1, keep: moving},
	} {
		t.Run(c.reason, func(t *testing.T) {
			fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}, DescribeCluster: c.old})
			fake.Fence(c.fence...)
			scriptMetadata(fake, c.keep)
			answer(fake, kmsg.ListPartitionReassignments, func(_ int32, r *kmsg.ListPartitionReassignmentsRequest) kmsg.Response {
				resp := r.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
				topic := kmsg.ListPartitionReassignmentsResponseTopic{Topic: "t"}
				topic.Partitions = append(topic.Partitions, kmsg.ListPartitionReassignmentsResponseTopicPartition{Replicas: c.adding})
				resp.Topics = append(resp.Topics, topic)
				return resp
			})
			cluster := clients(t, 5*time.Second).Cluster("default/fake", fake.Target())
			err := cluster.UnregisterBroker(t.Context(), 2)
			if c.want != "" {
				var no *kafka.RefusedError
				if !errors.As(err, &no) || !strings.Contains(err.Error(), c.want) || len(fake.Unregistered()) > 0 {
					t.Errorf("error %v, unregistered %v", err, fake.Unregistered())
				}
				return
			}
			if again := cluster.UnregisterBroker(t.Context(), 2); err != nil || again != nil {
				t.Errorf("%v, and again %v", err, again)
			}
			if diff := cmp.Diff([]int32{2}, fake.Unregistered()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
