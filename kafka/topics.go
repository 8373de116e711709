package kafka

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/plan"
)

// readTopics reads every topic, internal ones too, with its partitions and its min.insync.replicas. It
// gives all or an error, and which replicas are offline.
func readTopics(ctx context.Context, b *kgo.Broker, clusterID string) ([]plan.Topic, []replicaRef, error) {
	topics, offline, err := readPartitions(ctx, b, clusterID)
	if err != nil {
		return nil, nil, err
	}
	names := make([]string, 0, len(topics))
	for _, t := range topics {
		names = append(names, t.Name)
	}
	min, err := readMinISR(ctx, b, names)
	if err != nil {
		return nil, nil, err
	}
	for i := range topics {
		topics[i].MinISR = min[topics[i].Name]
	}
	// Deleted between the two requests: nothing of it is left to protect.
	return slices.DeleteFunc(topics, func(t plan.Topic) bool {
		_, ok := min[t.Name]
		return !ok
	}), offline, nil
}

// failedLogDirs are the brokers that are there and have offline replicas.
func failedLogDirs(brokers []plan.Broker, offline []replicaRef) []int32 {
	var ids []int32
	for _, b := range brokers {
		if !b.Fenced && slices.ContainsFunc(offline, func(r replicaRef) bool { return r.broker == b.ID }) {
			ids = append(ids, b.ID)
		}
	}
	return ids
}

func readPartitions(ctx context.Context, b *kgo.Broker, clusterID string) ([]plan.Topic, []replicaRef, error) {
	const doing = "read the partitions of all topics"
	req := kmsg.NewPtrMetadataRequest() // no topics named: all of them
	resp, err := ask[*kmsg.MetadataResponse](ctx, b, req)
	if err != nil {
		return nil, nil, err
	}
	if err := refused(doing, resp.ErrorCode, nil); err != nil {
		return nil, nil, err
	}
	if resp.ClusterID == nil || *resp.ClusterID != clusterID {
		return nil, nil, fmt.Errorf("%s: the answer is not of cluster %s", doing, clusterID)
	}
	topics := make([]plan.Topic, 0, len(resp.Topics))
	var offline []replicaRef
	for i := range resp.Topics {
		t, err := topicOf(&resp.Topics[i])
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", doing, err)
		}
		topics = append(topics, t)
		for j := range resp.Topics[i].Partitions {
			p := &resp.Topics[i].Partitions[j]
			for _, id := range p.OfflineReplicas {
				offline = append(offline, replicaRef{t.Name, p.Partition, id})
			}
		}
	}
	slices.SortFunc(topics, func(a, b plan.Topic) int { return strings.Compare(a.Name, b.Name) })
	return topics, offline, nil
}

// topicOf copies into three allocations per topic, so that the answer with its six per partition can go.
func topicOf(t *kmsg.MetadataResponseTopic) (plan.Topic, error) {
	if t.Topic == nil {
		return plan.Topic{}, fmt.Errorf("a topic has no name")
	}
	name := *t.Topic
	if err := refused("topic "+name, t.ErrorCode, nil); err != nil {
		return plan.Topic{}, err
	}
	total := 0
	for i := range t.Partitions {
		total += len(t.Partitions[i].Replicas) + len(t.Partitions[i].ISR)
	}
	partitions := make([]plan.Partition, len(t.Partitions))
	seen := make([]bool, len(t.Partitions))
	ids := make([]int32, 0, total)
	keep := func(list []int32) []int32 {
		from := len(ids)
		ids = append(ids, list...)
		return ids[from:len(ids):len(ids)]
	}
	for i := range t.Partitions {
		p := &t.Partitions[i]
		if p.Partition < 0 || int(p.Partition) >= len(partitions) || seen[p.Partition] {
			return plan.Topic{}, fmt.Errorf("topic %s: partition %d of %d is out of order", name, p.Partition, len(partitions))
		}
		if err := partitionError(p); err != nil {
			return plan.Topic{}, fmt.Errorf("topic %s partition %d: %w", name, p.Partition, err)
		}
		seen[p.Partition] = true
		one := plan.Partition{Leader: p.Leader, Replicas: keep(p.Replicas)}
		if slices.Equal(p.ISR, p.Replicas) {
			one.ISR = one.Replicas
		} else {
			one.ISR = keep(p.ISR)
		}
		partitions[p.Partition] = one
	}
	return plan.Topic{Name: name, Partitions: partitions}, nil
}

// partitionError tells states from failures: a partition without a live leader comes with an error code and
// leader -1, and its replicas and ISR are complete (KRaftMetadataCache.getPartitionMetadata).
func partitionError(p *kmsg.MetadataResponseTopicPartition) error {
	switch p.ErrorCode {
	case 0, kerr.ReplicaNotAvailable.Code:
	case kerr.LeaderNotAvailable.Code, kerr.ListenerNotFound.Code:
		if p.Leader >= 0 {
			return fmt.Errorf("leader %d comes with error %d", p.Leader, p.ErrorCode)
		}
	default:
		return refused("read it", p.ErrorCode, nil)
	}
	if len(p.Replicas) == 0 {
		return fmt.Errorf("it has no replicas")
	}
	return nil
}
