package entities

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
)

// CheckTopicOf is what is wrong with a topic's spec beside its cluster's spec, one sentence each, for admission: Kafka
// would refuse it later. table is that of the cluster's version; ok is false where there is none, and keys are not checked.
func CheckTopicOf(o *api.KafkaTopic, cluster *api.KafkaClusterSpec, table kconf.Table, ok bool) []string {
	var problems []string
	for _, key := range slices.Sorted(maps.Keys(o.Spec.Config)) {
		if !ok {
			break
		}
		for _, p := range table.ValidateTopic(key, string(o.Spec.Config[key])) {
			if p.Severity == kconf.Error {
				problems = append(problems, sentence(fmt.Sprintf("spec.config[%s]: %s", key, p.Reason), p.Remedy))
			}
		}
	}
	brokers := brokersOf(cluster)
	if r := o.Spec.Replicas; r != nil && brokers > 0 && *r > brokers {
		problems = append(problems, fmt.Sprintf("spec.replicas is %d and the cluster has %d brokers: lower it, or give the cluster more brokers first.", *r, brokers))
	}
	if o.Spec.DeletionPolicy == api.DeletionDelete && strings.EqualFold(strings.TrimSpace(string(cluster.Config["delete.topic.enable"])), "false") {
		problems = append(problems, "spec.deletionPolicy is Delete and the cluster has delete.topic.enable=false, with which Kafka deletes no topic: choose Retain, or allow it there.")
	}
	return problems
}

func sentence(reason, remedy string) string {
	if remedy == "" {
		return reason + "."
	}
	return reason + "; " + remedy + "."
}

func brokersOf(cluster *api.KafkaClusterSpec) int32 {
	var n int32
	for _, p := range cluster.Pools {
		if slices.Contains(p.Roles, api.RoleBroker) {
			n += p.Replicas
		}
	}
	return n
}
