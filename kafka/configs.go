package kafka

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// clusterWide stands for the default of all brokers in place of a node id.
const clusterWide int32 = -1

// resourceName of a BROKER resource; the cluster-wide one is empty.
func resourceName(node int32) string {
	if node == clusterWide {
		return ""
	}
	return strconv.Itoa(int(node))
}

func describeConfigs(ctx context.Context, b *kgo.Broker, resources []kmsg.DescribeConfigsRequestResource) (*kmsg.DescribeConfigsResponse, error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Resources = resources
	resp, err := ask[*kmsg.DescribeConfigsResponse](ctx, b, req)
	if err != nil {
		return nil, err
	}
	if len(resp.Resources) != len(resources) {
		return nil, fmt.Errorf("describe configuration: %d of %d resources came back", len(resp.Resources), len(resources))
	}
	return resp, nil
}

// readDynamic reads the keys set dynamically at exactly that level. A node's own must be asked of that node.
// Sensitive keys are left out: Kafka never shows their values.
func readDynamic(ctx context.Context, b *kgo.Broker, node int32) (map[string]string, error) {
	doing, source := "describe the cluster-wide configuration", kmsg.ConfigSourceDynamicDefaultBrokerConfig
	if node != clusterWide {
		doing, source = fmt.Sprintf("describe the configuration of node %d", node), kmsg.ConfigSourceDynamicBrokerConfig
	}
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType = kmsg.ConfigResourceTypeBroker
	resource.ResourceName = resourceName(node)
	resp, err := describeConfigs(ctx, b, []kmsg.DescribeConfigsRequestResource{resource})
	if err != nil {
		return nil, err
	}
	r := resp.Resources[0]
	if err := refused(doing, r.ErrorCode, r.ErrorMessage); err != nil {
		return nil, err
	}
	set := map[string]string{}
	for _, c := range r.Configs {
		if c.Source == source && !c.IsSensitive && c.Value != nil {
			set[c.Name] = *c.Value
		}
	}
	return set, nil
}

const (
	minISRKey = "min.insync.replicas"
	// topicsPerRequest keeps one answer of the configuration of topics well under 1 MiB.
	topicsPerRequest = 2000
)

// readMinISR reads the effective min.insync.replicas of topics. A topic that is deleted meanwhile is missing.
func readMinISR(ctx context.Context, b *kgo.Broker, topics []string) (map[string]int, error) {
	min := make(map[string]int, len(topics))
	for chunk := range slices.Chunk(topics, topicsPerRequest) {
		resp, err := describeConfigs(ctx, b, topicResources(chunk, minISRKey))
		if err != nil {
			return nil, err
		}
		for _, r := range resp.Resources {
			if r.ErrorCode == kerr.UnknownTopicOrPartition.Code {
				continue
			}
			n, err := minISROf(r)
			if err != nil {
				return nil, err
			}
			min[r.ResourceName] = n
		}
	}
	return min, nil
}

// topicResources ask for keys of topics.
func topicResources(topics []string, keys ...string) []kmsg.DescribeConfigsRequestResource {
	resources := make([]kmsg.DescribeConfigsRequestResource, 0, len(topics))
	for _, topic := range topics {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType = kmsg.ConfigResourceTypeTopic
		r.ResourceName = topic
		r.ConfigNames = keys
		resources = append(resources, r)
	}
	return resources
}

func minISROf(r kmsg.DescribeConfigsResponseResource) (int, error) {
	doing := "read " + minISRKey + " of topic " + r.ResourceName
	if err := refused(doing, r.ErrorCode, r.ErrorMessage); err != nil {
		return 0, err
	}
	for _, c := range r.Configs {
		if c.Name != minISRKey || c.Value == nil {
			continue
		}
		n, err := strconv.Atoi(*c.Value)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", doing, err)
		}
		return n, nil
	}
	return 0, fmt.Errorf("%s: the answer lacks it", doing)
}
