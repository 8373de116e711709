// Package operator wires the engine to an API server: controllers that call a pass when
// something changed, realizers of KafkaNodes, admission that refuses a bad spec, and the
// fetching of packages. It decides nothing about Kafka.
package operator
