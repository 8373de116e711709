package kafka_test

import (
	"errors"
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

func TestSetConfigGoesToWhoTakesIt(t *testing.T) {
	cases := []struct {
		reason string
		node   int32
		before func(*kafkatest.Fake)
	}{
		{reason: "cluster-wide through any broker", node: -1},
		{reason: "a live broker through itself", node: 1},
		{reason: "a fenced broker through the active controller", node: 2, before: func(f *kafkatest.Fake) { f.Fence(2) }},
		{reason: "a controller through the active one", node: 5},
		{reason: "cluster-wide through the active controller when no broker lives", node: -1, before: func(f *kafkatest.Fake) { f.Brokers.Close() }},
	}
	for _, c := range cases {
		t.Run(c.reason, func(t *testing.T) {
			fake := kafkatest.NewFake(t, kafkatest.Config{Controllers: 3})
			q := fake.Quorum()
			q.Leader = 1
			fake.SetQuorum(q)
			target := fake.Target()
			if c.before != nil {
				c.before(fake)
			}
			cluster := clients(t, 10*time.Second).Cluster("default/fake", target)
			for range 2 { // to repeat it changes nothing
				if err := cluster.SetConfig(t.Context(), c.node, map[string]string{"a": "1", "b": "2"}, []string{"c"}); err != nil {
					t.Fatal(err)
				}
			}
			if err := cluster.SetConfig(t.Context(), c.node, nil, []string{"a"}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]string{"b": "2"}, fake.Dynamic(c.node)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSetConfigSaysWhatKafkaSaid(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{})

	refuse := kmsg.NewPtrIncrementalAlterConfigsResponse()
	one := kmsg.NewIncrementalAlterConfigsResponseResource()
	one.ErrorCode, one.ErrorMessage = kerr.InvalidConfig.Code, new("num.io.threads must be positive")
	refuse.Resources = append(refuse.Resources, one)
	fake.Answer(kmsg.IncrementalAlterConfigs, refuse)
	err := clients(t, time.Second).Cluster("default/fake", fake.Target()).
		SetConfig(t.Context(), 1, map[string]string{"num.io.threads": "secret-value"}, nil)
	var no *kafka.RefusedError
	if !errors.As(err, &no) || no.Code != kerr.InvalidConfig.Code {
		t.Fatalf("error %v", err)
	}
	want := "set 1 and delete 0 dynamic keys of node 1: Kafka answered INVALID_CONFIG (40): num.io.threads must be positive"
	if err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestSetConfigKnowsNobodyForNode(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{})
	err := clients(t, time.Second).Cluster("default/fake", fake.Target()).SetConfig(t.Context(), 9, map[string]string{"a": "1"}, nil)
	if err == nil || !strings.Contains(err.Error(), "node 9 is no live broker") {
		t.Errorf("error %v", err)
	}
}

func TestVotersChangeAtTheActiveController(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Controllers: 3})
	q := fake.Quorum()
	q.Leader = 2
	fake.SetQuorum(q)
	target := fake.Target()
	target.ClusterID = "fake"
	cluster := clients(t, 10*time.Second).Cluster("default/fake", target)
	old, fresh := kafkatest.DirectoryID(0), kafkatest.DirectoryID(77)
	if err := cluster.AddVoter(t.Context(), 0, fresh, "host:9090"); err == nil {
		t.Error("the id is still a voter with its old directory: adding the new one must fail")
	}
	for range 2 { // to repeat it is a success
		if err := cluster.RemoveVoter(t.Context(), 0, old); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := cluster.AddVoter(t.Context(), 0, fresh, "host:9090"); err != nil {
			t.Fatal(err)
		}
	}
	voters := fake.Quorum().Voters
	if len(voters) != 3 || voters[2].ID != 0 || voters[2].DirectoryID != fresh {
		t.Errorf("voters %+v", voters)
	}
}

func TestVotersChangeThroughBrokersWithoutControllers(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{})
	cluster := clients(t, 10*time.Second).Cluster("default/fake", fake.Target())
	if err := cluster.RemoveVoter(t.Context(), 2, kafkatest.DirectoryID(2)); err != nil {
		t.Fatal(err)
	}
	if n := len(fake.Quorum().Voters); n != 2 {
		t.Errorf("%d voters", n)
	}
}

// Leadership that moves between the question and the change costs a further round, not a failure.
func TestVoterChangeFollowsTheLeader(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Controllers: 3})
	moved := kmsg.NewPtrRemoveRaftVoterResponse()
	moved.ErrorCode = kerr.NotLeaderForPartition.Code
	fake.AnswerOnce(kmsg.RemoveRaftVoter, moved)
	cluster := clients(t, 10*time.Second).Cluster("default/fake", fake.Target())
	if err := cluster.RemoveVoter(t.Context(), 2, kafkatest.DirectoryID(2)); err != nil {
		t.Fatal(err)
	}
	if n := len(fake.Quorum().Voters); n != 2 {
		t.Errorf("%d voters", n)
	}
}

func TestVotersRefuseWhatIsNoDirectoryOrEndpoint(t *testing.T) {
	cluster := clients(t, time.Second).Cluster("default/fake", kafka.Target{Brokers: []string{"127.0.0.1:1"}})
	for _, c := range []struct{ directory, endpoint string }{
		{"", "h:1"}, {"AAAAAAAAAAAAAAAAAAAAAA", "h:1"}, {kafkatest.DirectoryID(1), "h"}, {kafkatest.DirectoryID(1), "h:99999"},
	} {
		if err := cluster.AddVoter(t.Context(), 1, c.directory, c.endpoint); err == nil {
			t.Errorf("directory %q and endpoint %q were taken", c.directory, c.endpoint)
		}
	}
}

func TestElectPreferredLeaders(t *testing.T) {
	for _, c := range []struct {
		reason string
		code   int16
		want   string
	}{
		{"elected", 0, ""},
		{"not needed", kerr.ElectionNotNeeded.Code, ""},
		{"out of sync", kerr.PreferredLeaderNotAvailable.Code, ""},
		{"refused", kerr.ClusterAuthorizationFailed.Code, "elect preferred leaders of t-0: Kafka answered CLUSTER_AUTHORIZATION_FAILED (31)"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}})
			if c.code != 0 {
				fake.Brokers.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ElectLeaders}, Topic: "t", Err: kerr.TypedErrorForCode(c.code)})
			}
			err := clients(t, 5*time.Second).Cluster("default/fake", fake.Target()).ElectPreferredLeaders(t.Context())
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestAnotherClusterIsNeitherBelievedNorChanged(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Controllers: 1})
	target := fake.Target()
	target.ClusterID = "mine"
	cluster := clients(t, 5*time.Second).Cluster("default/fake", target)
	k, err := cluster.Observe(t.Context(), plan.Ask{})
	if err != nil || k.Known || !strings.Contains(k.Why, "cluster fake answers where mine is expected") {
		t.Errorf("Known %v, Why %q, error %v", k.Known, k.Why, err)
	}
	if err := cluster.SetConfig(t.Context(), -1, map[string]string{"a": "1"}, nil); err == nil {
		t.Error("the configuration of another cluster was changed")
	}
	if err := cluster.RemoveVoter(t.Context(), 0, kafkatest.DirectoryID(0)); err == nil {
		t.Error("a voter of another cluster was removed")
	}
}
