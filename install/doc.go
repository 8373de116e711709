// Package install puts Castellan and a Kafka cluster into a Kubernetes cluster with one
// call: it checks everything first and lists what is missing, installs types and operator,
// creates the KafkaCluster, waits until it is Ready, and proves it with a record that goes
// through Kafka the way a client's would.
//
// It keeps no state: a second call finds everything done. It decides nothing about Kafka.
package install
