package kafkatest

import (
	"maps"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Dynamic configuration of a node, or with -1 the cluster-wide one, as it now is.
func (f *Fake) Dynamic(node int32) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.dynamic[node])
}

// alterConfigs answers for broker resources as Kafka 4.3.1 was measured: a broker takes its own keys and the
// cluster-wide ones, the active controller any node's. Other resources are kfake's.
func (f *Fake) alterConfigs(r *kmsg.IncrementalAlterConfigsRequest, node int32, controllers bool) kmsg.Response { //nolint:ireturn // what kfake takes
	if len(r.Resources) != 1 || r.Resources[0].ResourceType != kmsg.ConfigResourceTypeBroker {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := r.Resources[0]
	one := kmsg.NewIncrementalAlterConfigsResponseResource()
	one.ResourceType, one.ResourceName = asked.ResourceType, asked.ResourceName
	id, ok := nodeOf(asked.ResourceName)
	switch {
	case controllers && node != f.quorum.Leader:
		one.ErrorCode = kerr.NotController.Code
	case !ok, !controllers && id >= 0 && id != node:
		one.ErrorCode = kerr.InvalidRequest.Code
	default:
		f.apply(id, asked.Configs)
	}
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	resp.Version = r.Version
	resp.Resources = append(resp.Resources, one)
	return resp
}

func (f *Fake) apply(id int32, configs []kmsg.IncrementalAlterConfigsRequestResourceConfig) {
	if f.dynamic[id] == nil {
		f.dynamic[id] = map[string]string{}
	}
	for _, c := range configs {
		switch {
		case c.Op == kmsg.IncrementalAlterConfigOpSet && c.Value != nil:
			f.dynamic[id][c.Name] = *c.Value
		case c.Op == kmsg.IncrementalAlterConfigOpDelete:
			delete(f.dynamic[id], c.Name)
		}
	}
}

// describeConfigs answers for one broker resource: dynamic keys only, which is all that the product looks at.
func (f *Fake) describeConfigs(r *kmsg.DescribeConfigsRequest, node int32) kmsg.Response { //nolint:ireturn // what kfake takes
	if len(r.Resources) != 1 || r.Resources[0].ResourceType != kmsg.ConfigResourceTypeBroker {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := r.Resources[0]
	one := kmsg.NewDescribeConfigsResponseResource()
	one.ResourceType, one.ResourceName = asked.ResourceType, asked.ResourceName
	id, ok := nodeOf(asked.ResourceName)
	if !ok || id >= 0 && id != node {
		one.ErrorCode = kerr.InvalidRequest.Code
	} else {
		one.Configs = f.effective(id)
	}
	resp := kmsg.NewPtrDescribeConfigsResponse()
	resp.Version = r.Version
	resp.Resources = append(resp.Resources, one)
	return resp
}

// effective keys of a node are the cluster-wide ones, each hidden by one of its own.
func (f *Fake) effective(id int32) []kmsg.DescribeConfigsResponseResourceConfig {
	type sourced struct {
		value  string
		source kmsg.ConfigSource
	}
	all := map[string]sourced{}
	for name, value := range f.dynamic[-1] {
		all[name] = sourced{value, kmsg.ConfigSourceDynamicDefaultBrokerConfig}
	}
	if id >= 0 {
		for name, value := range f.dynamic[id] {
			all[name] = sourced{value, kmsg.ConfigSourceDynamicBrokerConfig}
		}
	}
	var out []kmsg.DescribeConfigsResponseResourceConfig
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c := kmsg.NewDescribeConfigsResponseResourceConfig()
		c.Name, c.Value, c.Source = name, new(all[name].value), all[name].source
		out = append(out, c)
	}
	return out
}

func nodeOf(resource string) (int32, bool) {
	if resource == "" {
		return -1, true
	}
	id, err := strconv.ParseInt(resource, 10, 32)
	return int32(id), err == nil
}
