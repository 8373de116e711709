package entities_test

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/entities"
	"castellan.dev/castellan/kafka/kafkatest"
)

// kfake, like Kafka before KRaft, takes changes at the controller only.
func TestChangesGoToTheController(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 3})
	client, err := kgo.NewClient(kgo.SeedBrokers(fake.Brokers.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	found, err := kmsg.NewPtrMetadataRequest().RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for leader := range int32(3) {
		q := fake.Quorum()
		q.Leader = leader
		fake.SetQuorum(q)
		want := core.Denied
		if leader == found.ControllerID {
			want = core.Done
		}
		o := core.CreateTopic{Name: name("t", int(leader)), Partitions: 1, Replicas: 1}
		wantOutcomes(t, apply(t, cluster(t, fake), of(owner(core.KindTopic, "t"), o)...), want)
	}
}

// Of a cluster that is somebody else's nobody may tell us the quorum: it is read all the same. One that has
// controllers of ours is not, for a broker that is cut off would show what is long gone.
func TestClusterThatTellsNoQuorum(t *testing.T) {
	silent := kmsg.NewPtrDescribeQuorumResponse()
	silent.ErrorCode = kerr.UnsupportedVersion.Code
	for _, controllers := range []int{0, 1} {
		fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1, Controllers: controllers, Topics: []string{"t"}})
		fake.Answer(kmsg.DescribeQuorum, silent)
		all := kafka.NewClients(kafka.Options{Timeout: 2 * time.Second})
		defer all.Close()
		s, err := entities.Read(t.Context(), all.Cluster("default/fake", fake.Target()), entities.Ask{})
		switch {
		case controllers == 0 && (err != nil || s.Topics["t"] == nil):
			t.Errorf("%+v, %v", s, err)
		case controllers == 1 && (err == nil || !strings.Contains(err.Error(), "default/fake")):
			t.Errorf("%+v, %v", s, err)
		}
	}
}
