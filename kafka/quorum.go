package kafka

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/plan"
)

// metadataTopic is the only topic of DescribeQuorum (KIP-595).
const metadataTopic = "__cluster_metadata"

// readQuorum asks a broker, which forwards, or the active controller; any other controller refuses.
func readQuorum(ctx context.Context, b *kgo.Broker) (plan.Quorum, error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	topic := kmsg.NewDescribeQuorumRequestTopic()
	topic.Topic = metadataTopic
	topic.Partitions = append(topic.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req.Topics = append(req.Topics, topic)
	resp, err := ask[*kmsg.DescribeQuorumResponse](ctx, b, req)
	if err != nil {
		return plan.Quorum{}, err
	}
	const doing = "describe the metadata quorum"
	if err := refused(doing, resp.ErrorCode, resp.ErrorMessage); err != nil {
		return plan.Quorum{}, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return plan.Quorum{}, fmt.Errorf("%s: the answer holds no single partition", doing)
	}
	p := resp.Topics[0].Partitions[0]
	if err := refused(doing, p.ErrorCode, p.ErrorMessage); err != nil {
		return plan.Quorum{}, err
	}
	return quorumOf(p)
}

func quorumOf(p kmsg.DescribeQuorumResponseTopicPartition) (plan.Quorum, error) {
	leaderNow := int64(-1)
	for _, v := range p.CurrentVoters {
		if v.ReplicaID == p.LeaderID {
			leaderNow = v.LastCaughtUpTimestamp
		}
	}
	// A leader that has just been removed from the voters leads on as an observer for a moment.
	for _, o := range p.Observers {
		if o.ReplicaID == p.LeaderID && leaderNow < 0 {
			leaderNow = o.LastCaughtUpTimestamp
		}
	}
	if p.LeaderID < 0 || len(p.CurrentVoters) == 0 {
		return plan.Quorum{}, fmt.Errorf("describe the metadata quorum: leader %d of %d voters is no quorum", p.LeaderID, len(p.CurrentVoters))
	}
	return plan.Quorum{
		Leader:      p.LeaderID,
		LeaderEpoch: p.LeaderEpoch,
		HighWater:   p.HighWatermark,
		Voters:      replicas(p.CurrentVoters, leaderNow),
		Observers:   replicas(p.Observers, leaderNow),
	}, nil
}

// replicas takes times relative to the leader's own entry, which is its clock at the answer (KIP-836): our
// clock and its may differ.
func replicas(states []kmsg.DescribeQuorumResponseTopicPartitionReplicaState, leaderNow int64) []plan.Replica {
	out := make([]plan.Replica, 0, len(states))
	for _, s := range states {
		caughtUp := time.Duration(-1)
		if leaderNow >= 0 && s.LastCaughtUpTimestamp >= 0 {
			caughtUp = max(0, time.Duration(leaderNow-s.LastCaughtUpTimestamp)*time.Millisecond)
		}
		out = append(out, plan.Replica{
			ID:           s.ReplicaID,
			DirectoryID:  formatUUID(s.ReplicaDirectoryID),
			LogEnd:       s.LogEndOffset,
			LastCaughtUp: caughtUp,
		})
	}
	return out
}

// formatUUID writes an id as Kafka's Uuid does; the zero id, which stands for none, is empty.
func formatUUID(id [16]byte) string {
	if id == [16]byte{} {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(id[:])
}

func parseUUID(text string) ([16]byte, error) {
	var id [16]byte
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("%q is not a directory id: 16 bytes in URL-safe base64 without padding are wanted", text)
	}
	copy(id[:], raw)
	if id == [16]byte{} {
		return id, fmt.Errorf("%q is the zero id, which names no directory", text)
	}
	return id, nil
}
