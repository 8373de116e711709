// Package entities drives KafkaTopics and KafkaUsers: one loop for each KafkaCluster takes what
// the watches say, lets core/entities decide, has kafka/entities do it in batches, and writes
// holds, Secrets with credentials, statuses and events. It decides nothing about Kafka.
//
// A loop owns its World. Watches only mark what changed, in a set, so nothing is dropped however
// much comes at once. Kafka is read as a whole once a minute, whatever the number of objects.
package entities
