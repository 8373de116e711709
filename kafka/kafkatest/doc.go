// Package kafkatest is for tests of what speaks to Kafka: a fake cluster of brokers and controllers, and, for stories on
// a real one, witnesses: a writer that remembers what Kafka acknowledged and a watch over in-sync replicas.
//
// It never starts Kafka and is never part of the product.
package kafkatest
