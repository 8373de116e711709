package stand

import (
	"fmt"
	"strings"
)

// Combined is the YAML of a KafkaCluster default/kafka of combined nodes with small heaps and a plaintext listener
// "plain"; config are further lines of spec.config as "key: value".
func Combined(version string, nodes int, config ...string) string {
	return head(version, nodes, config) + fmt.Sprintf(`
  pools:
  - name: nodes
    roles: [broker, controller]
    replicas: %d
    jvm: {heap: 256Mi}
    placement: {hosts: {maxPerHost: %d}}
`, nodes, nodes)
}

// head is a cluster's YAML up to its pools.
func head(version string, brokers int, config []string) string {
	copies := min(brokers, 3)
	lines := append([]string{
		fmt.Sprintf("default.replication.factor: %d", copies),
		fmt.Sprintf("offsets.topic.replication.factor: %d", copies),
		fmt.Sprintf("min.insync.replicas: %d", max(1, copies-1)),
	}, config...)
	return fmt.Sprintf(`apiVersion: castellan.dev/v1alpha1
kind: KafkaCluster
metadata: {name: kafka, namespace: default}
spec:
  version: %s
  config:
    %s
  listeners:
  - name: plain
    port: 9092`, version, strings.Join(lines, "\n    "))
}

// Dedicated is the YAML of a KafkaCluster default/kafka of a pool "controllers" and a pool "brokers" from node 100 on,
// with small heaps and a plaintext listener "plain"; brokerConfig are lines of the brokers' pool's config.
func Dedicated(version string, controllers, brokers int, brokerConfig ...string) string {
	return head(version, brokers, nil) + fmt.Sprintf(`
  pools:
  - name: controllers
    roles: [controller]
    replicas: %d
    jvm: {heap: 256Mi}
    placement: {hosts: {maxPerHost: %d}}
  - name: brokers
    roles: [broker]
    replicas: %d
    firstNodeID: 100
    jvm: {heap: 256Mi}
    config: {%s}
    placement: {hosts: {maxPerHost: %d}}
`, controllers, controllers, brokers, strings.Join(brokerConfig, ", "), brokers)
}

// Mixed is Combined with a further pool "brokers" from node 100 on that are brokers only.
func Mixed(version string, combined, brokers int) string {
	return head(version, combined+brokers, nil) + fmt.Sprintf(`
  pools:
  - name: nodes
    roles: [broker, controller]
    replicas: %d
    jvm: {heap: 256Mi}
    placement: {hosts: {maxPerHost: %d}}
  - name: brokers
    roles: [broker]
    replicas: %d
    firstNodeID: 100
    jvm: {heap: 256Mi}
    placement: {hosts: {maxPerHost: %d}}
`, combined, combined, brokers, brokers)
}

// Named is the YAML of a cluster under another name.
func Named(name, yaml string) string {
	return strings.Replace(yaml, "metadata: {name: kafka,", "metadata: {name: "+name+",", 1)
}
