// Package entities reads topics, ACLs, credentials and quotas from Kafka and changes them, in the
// words of core/entities. The number of requests to read them does not depend on how many there
// are, but for the configuration of thousands of topics; changes go in batches, and each gets its
// own result. It decides nothing and repeats nothing that was not answered.
package entities
