package kafka

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/plan"
)

// replicaRef names one replica.
type replicaRef struct {
	topic             string
	partition, broker int32
}

// readReassignments reads every reassignment in flight. Brokers pass it on to the active controller.
func readReassignments(ctx context.Context, b *kgo.Broker) (*kmsg.ListPartitionReassignmentsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	req := kmsg.NewPtrListPartitionReassignmentsRequest() // no topics named: all of them
	req.TimeoutMillis = millisLeft(ctx)
	resp, err := ask[*kmsg.ListPartitionReassignmentsResponse](ctx, b, req)
	if err != nil {
		return nil, err
	}
	return resp, refused("list the reassignments in flight", resp.ErrorCode, resp.ErrorMessage)
}

// placing is what a placement is made of.
type placing struct {
	brokers []plan.Broker
	topics  []plan.Topic
	offline []replicaRef
	moving  *kmsg.ListPartitionReassignmentsResponse
	dirs    map[int32]*brokerDirs
}

// cluster has two allocations a topic: there may be a million partitions.
func (p placing) cluster() *balance.Cluster {
	out := &balance.Cluster{Topics: make([]balance.Topic, 0, len(p.topics)), Brokers: make([]balance.Broker, 0, len(p.brokers))}
	index := make(map[string]*balance.Topic, len(p.topics))
	for i := range p.topics {
		out.Topics = append(out.Topics, placedTopic(&p.topics[i]))
		index[p.topics[i].Name] = &out.Topics[i]
	}
	p.markMoving(index)
	for _, r := range p.offline {
		if at := replicaAt(index[r.topic], r.partition, r.broker); at != nil {
			at.State |= balance.Offline
		}
	}
	for _, b := range p.brokers {
		one := balance.Broker{ID: b.ID, Rack: b.Rack, Alive: !b.Fenced}
		if kept := p.dirs[b.ID]; kept != nil && one.Alive {
			one.LogDirs = slices.Clone(kept.dirs)
			one.Cordoned = allCordoned(one.LogDirs)
			out.Copies = kept.fill(index, b.ID, out.Copies)
		}
		out.Brokers = append(out.Brokers, one)
	}
	return out
}

func placedTopic(t *plan.Topic) balance.Topic {
	total := 0
	for i := range t.Partitions {
		total += len(t.Partitions[i].Replicas)
	}
	out := balance.Topic{Name: t.Name, MinISR: t.MinISR, Partitions: make([]balance.Partition, len(t.Partitions))}
	all := make([]balance.Replica, 0, total)
	for i := range t.Partitions {
		from := len(all)
		all = placedReplicas(all, t.Partitions[i].Replicas, t.Partitions[i].ISR)
		out.Partitions[i] = balance.Partition{Leader: t.Partitions[i].Leader, Replicas: all[from:len(all):len(all)]}
	}
	return out
}

func placedReplicas(to []balance.Replica, replicas, isr []int32) []balance.Replica {
	for _, b := range replicas {
		one := balance.Replica{Broker: b, Dir: balance.NoDir}
		if slices.Contains(isr, b) {
			one.State = balance.InSync
		}
		to = append(to, one)
	}
	return to
}

// markMoving marks what is being added and removed. The list comes from the controller and may be ahead of the
// broker that told the replicas, so its replicas count where they differ. It was read before those: a reassignment
// that ends in between shows as in flight once more, and never as one replica too many for good.
func (p placing) markMoving(index map[string]*balance.Topic) {
	for _, t := range p.moving.Topics {
		topic := index[t.Topic]
		for _, m := range t.Partitions {
			if topic == nil || m.Partition < 0 || int(m.Partition) >= len(topic.Partitions) {
				continue // deleted meanwhile
			}
			part := &topic.Partitions[m.Partition]
			if !slices.EqualFunc(part.Replicas, m.Replicas, func(r balance.Replica, b int32) bool { return r.Broker == b }) {
				part.Replicas = placedReplicas(nil, m.Replicas, isrOf(part.Replicas))
			}
			for i := range part.Replicas {
				if slices.Contains(m.AddingReplicas, part.Replicas[i].Broker) {
					part.Replicas[i].State |= balance.Adding
				}
				if slices.Contains(m.RemovingReplicas, part.Replicas[i].Broker) {
					part.Replicas[i].State |= balance.Removing
				}
			}
		}
	}
}

func isrOf(replicas []balance.Replica) []int32 {
	var out []int32
	for _, r := range replicas {
		if r.State.Has(balance.InSync) {
			out = append(out, r.Broker)
		}
	}
	return out
}

// replicaAt is nil where that broker holds none.
func replicaAt(t *balance.Topic, partition, broker int32) *balance.Replica {
	if t == nil || partition < 0 || int(partition) >= len(t.Partitions) {
		return nil
	}
	replicas := t.Partitions[partition].Replicas
	for i := range replicas {
		if replicas[i].Broker == broker {
			return &replicas[i]
		}
	}
	return nil
}

// allCordoned says that the broker takes no new replica at all (KIP-1066).
func allCordoned(dirs []balance.LogDir) bool {
	return len(dirs) > 0 && !slices.ContainsFunc(dirs, func(d balance.LogDir) bool { return !d.Cordoned })
}

// readPlacement adds the log dirs to what was read before.
func (c *conn) readPlacement(ctx context.Context, b current, p placing) (*balance.Cluster, error) {
	var err error
	if p.dirs, err = c.readLogDirs(ctx, b.cluster); err != nil {
		return nil, fmt.Errorf("log dirs are not known, nothing can be moved until every live broker tells them: %w", err)
	}
	return p.cluster(), nil
}
