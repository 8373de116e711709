package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/plan"
)

// The throttled replicas of a topic (KIP-73).
const (
	throttledLeaders   = "leader.replication.throttled.replicas"
	throttledFollowers = "follower.replication.throttled.replicas"
)

// readThrottles reads what the topics themselves say; a topic that does not exist is missing.
func readThrottles(ctx context.Context, b *kgo.Broker, topics []string) (map[string]plan.TopicThrottle, error) {
	out := make(map[string]plan.TopicThrottle, len(topics))
	for chunk := range slices.Chunk(topics, topicsPerRequest) {
		resp, err := describeConfigs(ctx, b, topicResources(chunk, throttledLeaders, throttledFollowers))
		if err != nil {
			return nil, err
		}
		for _, r := range resp.Resources {
			if r.ErrorCode == kerr.UnknownTopicOrPartition.Code {
				continue
			}
			if err := refused("read the throttled replicas of topic "+r.ResourceName, r.ErrorCode, r.ErrorMessage); err != nil {
				return nil, err
			}
			out[r.ResourceName] = throttleOf(r.Configs)
		}
	}
	return out, nil
}

func throttleOf(configs []kmsg.DescribeConfigsResponseResourceConfig) plan.TopicThrottle {
	var t plan.TopicThrottle
	for _, c := range configs {
		switch {
		case c.Source != kmsg.ConfigSourceDynamicTopicConfig || c.Value == nil:
		case c.Name == throttledLeaders:
			t.Leader = *c.Value
		case c.Name == throttledFollowers:
			t.Follower = *c.Value
		}
	}
	return t
}

// ThrottleTopics sets the throttled replicas of topics, and deletes the empty ones. To repeat it changes nothing, a
// topic that does not exist is a success. The error names up to five topics that were refused.
func (c *Cluster) ThrottleTopics(ctx context.Context, throttles map[string]plan.TopicThrottle) error {
	const topicsAtOnce = 1000
	if len(throttles) == 0 {
		return nil
	}
	doing := fmt.Sprintf("set the throttled replicas of %d topics", len(throttles))
	return c.use(ctx, func(ctx context.Context, conn *conn) error {
		b, _, err := choose(ctx, conn.brokers, conn.itsBrokers)
		if err != nil {
			return fmt.Errorf("%s: no broker answers: %w", doing, err)
		}
		var failed []error
		for chunk := range slices.Chunk(slices.Sorted(maps.Keys(throttles)), topicsAtOnce) {
			resp, err := ask[*kmsg.IncrementalAlterConfigsResponse](ctx, b, throttleRequest(chunk, throttles))
			if err != nil {
				failed = append(failed, err)
				continue
			}
			for _, r := range resp.Resources {
				if err := refused("topic "+r.ResourceName, r.ErrorCode, r.ErrorMessage); err != nil && r.ErrorCode != kerr.UnknownTopicOrPartition.Code {
					failed = append(failed, err)
				}
			}
		}
		if len(failed) > 0 {
			return fmt.Errorf("%s: %w", doing, joinUpTo(5, failed))
		}
		return nil
	})
}

func throttleRequest(topics []string, throttles map[string]plan.TopicThrottle) *kmsg.IncrementalAlterConfigsRequest {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	for _, name := range topics {
		resource := kmsg.NewIncrementalAlterConfigsRequestResource()
		resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, name
		for _, of := range []struct{ key, value string }{{throttledLeaders, throttles[name].Leader}, {throttledFollowers, throttles[name].Follower}} {
			config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			config.Name, config.Op = of.key, kmsg.IncrementalAlterConfigOpDelete
			if of.value != "" {
				config.Op, config.Value = kmsg.IncrementalAlterConfigOpSet, &of.value
			}
			resource.Configs = append(resource.Configs, config)
		}
		req.Resources = append(req.Resources, resource)
	}
	return req
}
