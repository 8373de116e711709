package kafka

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/plan"
)

// 300,000 partitions of three replicas, all in sync, are to stay well under what the plan may use.
func TestPartitionsStaySmall(t *testing.T) {
	const topics, partitions, limit = 1000, 300, 40 << 20
	var before, after runtime.MemStats
	kept := make([]plan.Topic, 0, topics)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range topics {
		answer := answerOf(fmt.Sprintf("topic-%d", i), partitions)
		one, err := topicOf(&answer)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, one)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > limit {
		t.Errorf("%d MiB for %d partitions", used>>20, topics*partitions)
	} else {
		t.Logf("%d KiB for %d partitions", used>>10, topics*partitions)
	}
	runtime.KeepAlive(kept)
}

func answerOf(name string, partitions int32) kmsg.MetadataResponseTopic {
	topic := kmsg.NewMetadataResponseTopic()
	topic.Topic = &name
	for i := range partitions {
		p := kmsg.NewMetadataResponseTopicPartition()
		p.Partition, p.Leader = i, i%300
		p.Replicas = []int32{i % 300, (i + 1) % 300, (i + 2) % 300}
		p.ISR = []int32{i % 300, (i + 1) % 300, (i + 2) % 300}
		topic.Partitions = append(topic.Partitions, p)
	}
	return topic
}
