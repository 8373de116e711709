package entities

import (
	"context"
	"encoding/base64"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/kafka"
)

func changeMillis() int32 { return int32(kafka.ChangeWithin.Milliseconds()) } //nolint:gosec // half a minute

func (a *applying) createTopics(ctx context.Context, batch []int) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = changeMillis()
	for _, i := range batch {
		do, ok := a.changes[i].Do.(core.CreateTopic)
		if !ok {
			continue
		}
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = do.Name, do.Partitions, do.Replicas
		for _, k := range slices.Sorted(maps.Keys(do.Config)) {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = k, new(do.Config[k])
			t.Configs = append(t.Configs, c)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := askOnce[*kmsg.CreateTopicsResponse](ctx, a, req)
	if err != nil {
		return err
	}
	at := a.names(batch, func(x core.Action) string { return topicOfAction(x) })
	for i := range resp.Topics {
		t := &resp.Topics[i]
		r := outcome(t.ErrorCode, t.ErrorMessage)
		if r.Outcome == core.Done && t.NumPartitions > 0 {
			r.Created = core.TopicFacts{ID: base64.RawURLEncoding.EncodeToString(t.TopicID[:]), Partitions: t.NumPartitions, Replicas: int32(t.ReplicationFactor)}
		}
		a.set(at, t.Topic, r)
	}
	return nil
}

func topicOfAction(a core.Action) string {
	switch do := a.(type) {
	case core.CreateTopic:
		return do.Name
	case core.AddPartitions:
		return do.Topic
	case core.AlterConfig:
		return do.Topic
	default:
		return ""
	}
}

func (a *applying) addPartitions(ctx context.Context, batch []int) error {
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis = changeMillis()
	for _, i := range batch {
		if do, ok := a.changes[i].Do.(core.AddPartitions); ok {
			t := kmsg.NewCreatePartitionsRequestTopic()
			t.Topic, t.Count = do.Topic, do.To
			req.Topics = append(req.Topics, t)
		}
	}
	resp, err := askOnce[*kmsg.CreatePartitionsResponse](ctx, a, req)
	if err != nil {
		return err
	}
	at := a.names(batch, topicOfAction)
	for i := range resp.Topics {
		t := &resp.Topics[i]
		a.set(at, t.Topic, outcome(t.ErrorCode, t.ErrorMessage))
	}
	return nil
}

// alterConfigs is incremental: what is not named stays as it is (KIP-339).
func (a *applying) alterConfigs(ctx context.Context, batch []int) error {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	for _, i := range batch {
		do, ok := a.changes[i].Do.(core.AlterConfig)
		if !ok {
			continue
		}
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, do.Topic
		for _, k := range slices.Sorted(maps.Keys(do.Set)) {
			c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			c.Name, c.Op, c.Value = k, kmsg.IncrementalAlterConfigOpSet, new(do.Set[k])
			r.Configs = append(r.Configs, c)
		}
		for _, k := range do.Delete {
			c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			c.Name, c.Op = k, kmsg.IncrementalAlterConfigOpDelete
			r.Configs = append(r.Configs, c)
		}
		req.Resources = append(req.Resources, r)
	}
	resp, err := askOnce[*kmsg.IncrementalAlterConfigsResponse](ctx, a, req)
	if err != nil {
		return err
	}
	at := a.names(batch, topicOfAction)
	for i := range resp.Resources {
		r := &resp.Resources[i]
		a.set(at, r.ResourceName, outcome(r.ErrorCode, r.ErrorMessage))
	}
	return nil
}

// deleteTopics deletes by id where it is known. One that is gone is done.
func (a *applying) deleteTopics(ctx context.Context, batch []int) error {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = changeMillis()
	at := byName{}
	for _, i := range batch {
		do, ok := a.changes[i].Do.(core.DeleteTopic)
		if !ok {
			continue
		}
		t := kmsg.NewDeleteTopicsRequestTopic()
		id, err := base64.RawURLEncoding.DecodeString(do.ID)
		if err == nil && len(id) == len(t.TopicID) {
			copy(t.TopicID[:], id)
			at[string(id)] = i
		} else {
			t.Topic = &do.Name
		}
		at["name "+do.Name] = i
		req.Topics = append(req.Topics, t)
		req.TopicNames = append(req.TopicNames, do.Name) // to Kafka before 2.8
	}
	resp, err := askOnce[*kmsg.DeleteTopicsResponse](ctx, a, req)
	if err != nil {
		return err
	}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		r := outcome(t.ErrorCode, t.ErrorMessage, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID)
		if _, ok := at[string(t.TopicID[:])]; ok {
			a.set(at, string(t.TopicID[:]), r)
		} else if t.Topic != nil {
			a.set(at, "name "+*t.Topic, r)
		}
	}
	return nil
}
