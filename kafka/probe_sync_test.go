package kafka

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestReplicaSync(t *testing.T) {
	partition := func(id int32, replicas, isr []int32) kmsg.MetadataResponseTopicPartition {
		return kmsg.MetadataResponseTopicPartition{Partition: id, Replicas: replicas, ISR: isr}
	}
	topic := func(name string, partitions ...kmsg.MetadataResponseTopicPartition) kmsg.MetadataResponseTopic {
		return kmsg.MetadataResponseTopic{Topic: &name, Partitions: partitions}
	}
	all := &kmsg.MetadataResponse{Topics: []kmsg.MetadataResponseTopic{
		topic("a", partition(0, []int32{1, 2}, []int32{2, 1}), partition(1, []int32{2, 3}, []int32{2})),
		topic("b", partition(7, []int32{3, 1}, []int32{3}), partition(8, []int32{1}, nil)),
	}}
	for id, want := range map[int32]ReplicaSync{
		1: {Replicas: 3, OutOfSync: 2, Example: "b-7"},
		2: {Replicas: 2},
		3: {Replicas: 2, OutOfSync: 1, Example: "a-1"},
		4: {},
	} {
		if diff := cmp.Diff(want, replicaSync(all, id)); diff != "" {
			t.Errorf("broker %d (-want +got):\n%s", id, diff)
		}
	}
}
