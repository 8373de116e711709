package kafka

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ReplicaSync says how many replicas a broker has and how many of them are out of the ISR.
type ReplicaSync struct {
	Replicas, OutOfSync int
	// Example is one that is out, as topic-partition.
	Example string
}

// InSync reads from the broker's own metadata which of its replicas are in the ISR; ctx
// bounds it. A node without the broker role has none.
func (p *Probe) InSync(ctx context.Context) (ReplicaSync, error) {
	if p.self.Broker == "" {
		return ReplicaSync{}, nil
	}
	b, err := p.at(p.self.Broker)
	if err != nil {
		return ReplicaSync{}, err
	}
	req := kmsg.NewPtrMetadataRequest() // of all topics
	req.AllowAutoTopicCreation = false
	resp, err := ask[*kmsg.MetadataResponse](ctx, b, req)
	if err != nil {
		return ReplicaSync{}, err
	}
	return replicaSync(resp, p.self.ID), nil
}

func replicaSync(m *kmsg.MetadataResponse, id int32) ReplicaSync {
	var found ReplicaSync
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			if !slices.Contains(p.Replicas, id) {
				continue
			}
			found.Replicas++
			if slices.Contains(p.ISR, id) {
				continue
			}
			found.OutOfSync++
			if found.Example == "" && t.Topic != nil {
				found.Example = fmt.Sprintf("%s-%d", *t.Topic, p.Partition)
			}
		}
	}
	return found
}
