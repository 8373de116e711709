package kafkatest_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/kafkatest"
)

func wait(t *testing.T, what string, until func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !until() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
		<-tick.C
	}
}

func TestWitnessSeesLoss(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}, Partitions: 2})
	config := kafka.ClientConfig{Brokers: fake.Brokers.ListenAddrs()}
	w, err := kafkatest.StartWriter(t.Context(), config, "t", 1000)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "writing", func() bool { return w.Acknowledged() >= 50 })
	acked := w.Stop()
	v, err := w.Verify(t.Context())
	if err != nil || v.Acknowledged != acked || v.Read < acked || len(v.Missing)+v.Duplicates != 0 {
		t.Fatalf("%d acknowledged, %+v, %v", acked, v, err)
	}
	lose(t, fake, "t", 0, 3)
	lose(t, fake, "t", 1, 3)
	v, err = w.Verify(t.Context())
	if err != nil || len(v.Missing) == 0 || v.Read+len(v.Missing) < acked {
		t.Errorf("%+v, %v", v, err)
	}
	if w.LongestGap() <= 0 {
		t.Error("no gap at all")
	}
}

// lose deletes the first records of a partition.
func lose(t *testing.T, fake *kafkatest.Fake, topic string, partition int32, n int64) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(fake.Brokers.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = partition, n
	one := kmsg.NewDeleteRecordsRequestTopic()
	one.Topic, one.Partitions = topic, append(one.Partitions, p)
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.Topics = append(req.Topics, one)
	if _, err := req.RequestWith(t.Context(), client); err != nil {
		t.Fatal(err)
	}
}

func TestISRWatchKeepsTheWorst(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Topics: []string{"t"}})
	for range 2 { // the second one must not hide the first
		metadata(fake, []int32{0, 1, 2}, []int32{2})
	}
	watch := kafkatest.WatchISR(t.Context(), fake.Target(), 10*time.Millisecond, func(topic string) bool { return topic == "t" })
	wait(t, "sampling", func() bool { return fake.Requests()[kmsg.Metadata] >= 3 })
	metadata(fake, []int32{0, 1, 2}, []int32{0, 1, 2})
	asked := fake.Requests()[kmsg.Metadata]
	wait(t, "sampling", func() bool { return fake.Requests()[kmsg.Metadata] >= asked+2 })
	r := watch.Stop()
	if r.Samples < 2 || r.Least["t-0"] != 1 {
		t.Errorf("%+v", r)
	}
	if len(r.Under) > 0 && !cmp.Equal(r.Under["t-0"].ISR, []int32{2}) {
		t.Errorf("%+v", r.Under)
	}
}

func metadata(fake *kafkatest.Fake, replicas, isr []int32) {
	p := kmsg.NewMetadataResponseTopicPartition()
	p.Leader, p.Replicas, p.ISR = isr[0], replicas, isr
	topic := kmsg.NewMetadataResponseTopic()
	topic.Topic = new("t")
	topic.Partitions = append(topic.Partitions, p)
	resp := kmsg.NewPtrMetadataResponse()
	resp.ClusterID = new("fake")
	resp.Topics = append(resp.Topics, topic)
	fake.Answer(kmsg.Metadata, resp)
}
