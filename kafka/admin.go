package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TopicSummary is a topic in one line.
type TopicSummary struct {
	Name              string `json:"name"`
	Internal          bool   `json:"internal,omitempty"`
	Partitions        int    `json:"partitions"`
	ReplicationFactor int    `json:"replicationFactor"`
	// UnderReplicated partitions have fewer in-sync replicas than replicas, Offline ones no leader.
	UnderReplicated int `json:"underReplicated"`
	Offline         int `json:"offline"`
}

// TopicDetail is a topic with its partitions and configuration.
type TopicDetail struct {
	TopicSummary
	Config  []TopicConfig     `json:"config"`
	Details []PartitionDetail `json:"details"`
}

// TopicConfig is one effective key; Default is false where the topic itself sets it.
type TopicConfig struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Default bool   `json:"default,omitempty"`
}

// PartitionDetail of a topic. Start and End are offsets, -1 where no leader told them.
type PartitionDetail struct {
	Partition int32   `json:"partition"`
	Leader    int32   `json:"leader"`
	Replicas  []int32 `json:"replicas"`
	ISR       []int32 `json:"isr"`
	Start     int64   `json:"start"`
	End       int64   `json:"end"`
}

// NewTopic is a topic to create.
type NewTopic struct {
	Name string
	// Partitions and ReplicationFactor; -1 takes the cluster's defaults.
	Partitions        int32
	ReplicationFactor int16
	Config            map[string]string
}

// Topics lists all topics by name, Kafka's internal ones too.
func (c *Client) Topics(ctx context.Context) ([]TopicSummary, error) {
	listed, err := c.admin.ListTopicsWithInternal(ctx)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	out := make([]TopicSummary, 0, len(listed))
	for _, t := range listed.Sorted() {
		if t.Err != nil {
			return nil, fmt.Errorf("list topics: topic %s: %w", t.Topic, t.Err)
		}
		out = append(out, summaryOf(t))
	}
	return out, nil
}

func summaryOf(t kadm.TopicDetail) TopicSummary {
	s := TopicSummary{Name: t.Topic, Internal: t.IsInternal, Partitions: len(t.Partitions)}
	for _, p := range t.Partitions {
		s.ReplicationFactor = max(s.ReplicationFactor, len(p.Replicas))
		if len(p.ISR) < len(p.Replicas) {
			s.UnderReplicated++
		}
		if p.Leader < 0 {
			s.Offline++
		}
	}
	return s
}

// Topic describes one topic.
func (c *Client) Topic(ctx context.Context, name string) (TopicDetail, error) {
	doing := "describe topic " + name
	listed, err := c.admin.ListTopicsWithInternal(ctx, name)
	if err != nil {
		return TopicDetail{}, fmt.Errorf("%s: %w", doing, err)
	}
	t := listed[name]
	if t.Err != nil {
		return TopicDetail{}, fmt.Errorf("%s: %w", doing, t.Err)
	}
	detail := TopicDetail{TopicSummary: summaryOf(t)}
	if detail.Config, err = c.topicConfig(ctx, name); err != nil {
		return TopicDetail{}, fmt.Errorf("%s: %w", doing, err)
	}
	starts, errStarts := c.admin.ListStartOffsets(ctx, name)
	ends, errEnds := c.admin.ListEndOffsets(ctx, name)
	if err := errors.Join(errStarts, errEnds); err != nil && detail.Offline == 0 {
		return TopicDetail{}, fmt.Errorf("%s: %w", doing, err)
	}
	for _, p := range t.Partitions.Sorted() {
		detail.Details = append(detail.Details, PartitionDetail{
			Partition: p.Partition, Leader: p.Leader, Replicas: p.Replicas, ISR: p.ISR,
			Start: offsetIn(starts, name, p.Partition), End: offsetIn(ends, name, p.Partition),
		})
	}
	return detail, nil
}

func offsetIn(offsets kadm.ListedOffsets, topic string, partition int32) int64 {
	if o, ok := offsets.Lookup(topic, partition); ok && o.Err == nil {
		return o.Offset
	}
	return -1
}

func (c *Client) topicConfig(ctx context.Context, name string) ([]TopicConfig, error) {
	resources, err := c.admin.DescribeTopicConfigs(ctx, name)
	if err != nil {
		return nil, err
	}
	resource, err := resources.On(name, nil)
	if err != nil {
		return nil, err
	}
	if resource.Err != nil {
		return nil, resource.Err
	}
	var out []TopicConfig
	for _, config := range resource.Configs {
		out = append(out, TopicConfig{
			Name: config.Key, Value: config.MaybeValue(),
			Default: config.Source != kmsg.ConfigSourceDynamicTopicConfig,
		})
	}
	slices.SortFunc(out, func(a, b TopicConfig) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// CreateTopic creates a topic; one of that name is an error.
func (c *Client) CreateTopic(ctx context.Context, t NewTopic) error {
	config := make(map[string]*string, len(t.Config))
	for name, value := range t.Config {
		config[name] = &value
	}
	resp, err := c.admin.CreateTopic(ctx, t.Partitions, t.ReplicationFactor, config, t.Name)
	return topicError("create topic "+t.Name, err, resp.ErrMessage)
}

// DeleteTopic deletes a topic with its data; a missing one is an error.
func (c *Client) DeleteTopic(ctx context.Context, name string) error {
	resp, err := c.admin.DeleteTopic(ctx, name)
	return topicError("delete topic "+name, err, resp.ErrMessage)
}

func topicError(doing string, err error, message string) error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*kerr.Error](err); ok {
		return refused(doing, known.Code, &message)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
