package kafka

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/plan"
)

// UnregisterBroker makes the cluster forget a broker that is gone for good (KIP-631). One that is not registered is a
// success. Kafka would take it at any time, so what makes it safe is looked at right before: a broker that is not
// fenced, or holds a replica, is refused with a [RefusedError] of code 0.
func (c *Cluster) UnregisterBroker(ctx context.Context, id int32) error {
	doing := fmt.Sprintf("unregister broker %d", id)
	return c.use(ctx, func(ctx context.Context, conn *conn) error {
		b, err := conn.chooseCurrent(ctx, ctx)
		if err != nil {
			return fmt.Errorf("%s: no broker answers that is up to date: %w", doing, err)
		}
		// 3.9 does not list fenced brokers.
		if slices.ContainsFunc(brokersOf(b.cluster), func(one plan.Broker) bool { return one.ID == id && !one.Fenced }) {
			return &RefusedError{Doing: doing, Message: "it is registered and not fenced; stop it, and wait until the controller has fenced it"}
		}
		moving, err := readReassignments(ctx, b.Broker)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		topics, _, err := readPartitions(ctx, b.Broker, b.cluster.ClusterID)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		if n, first := held(id, topics, moving); n > 0 {
			return &RefusedError{Doing: doing, Message: fmt.Sprintf("it still holds replicas of %d partitions, such as %s; move them to other brokers first", n, first)}
		}
		req := kmsg.NewPtrUnregisterBrokerRequest()
		req.BrokerID = id
		resp, err := ask[*kmsg.UnregisterBrokerResponse](ctx, b.Broker, req)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		if resp.ErrorCode == kerr.BrokerIDNotRegistered.Code {
			return nil
		}
		return refused(doing, resp.ErrorCode, resp.ErrorMessage)
	})
}

// held counts the partitions with a replica on a broker, or on its way there, and names one.
func held(id int32, topics []plan.Topic, moving *kmsg.ListPartitionReassignmentsResponse) (n int, first string) {
	count := func(topic string, partition int32, replicas []int32) {
		if !slices.Contains(replicas, id) {
			return
		}
		if n++; n == 1 {
			first = fmt.Sprintf("%s-%d", topic, partition)
		}
	}
	for _, t := range topics {
		for i, p := range t.Partitions {
			count(t.Name, int32(i), p.Replicas)
		}
	}
	if n > 0 {
		return n, first
	}
	// The controller may know of one that the broker we read from does not yet.
	for _, t := range moving.Topics {
		for _, p := range t.Partitions {
			count(t.Topic, p.Partition, p.Replicas)
		}
	}
	return n, first
}
