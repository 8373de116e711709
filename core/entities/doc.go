// Package entities decides what is to be changed in Kafka so that it has the topics, ACLs,
// credentials and quotas that KafkaTopics and KafkaUsers ask for, and says of each object in
// words how it is. It touches nothing, has no clock, and sees secrets only by digest.
//
// A World knows what Kafka has (Snapshot) and what objects want, by topic name and by
// principal, so that one edit among many costs only itself: Topic and User look at one, All at
// everything. The shell writes the holds a Plan asks for, does its changes, tells Settle what
// became of them, looks again, and writes what Verdicts say.
//
// Of a topic only the configuration keys that stand in its object, or ever stood there, are
// touched; a principal belongs to its KafkaUser as a whole. What no object names is counted,
// and removed only where the cluster says prune.
//
// Status is never input. What an object holds in Kafka stands in its annotation
// api.HoldAnnotation, written before the act: its uid, the keys it set, and which password
// digest it gave with how many iterations. Kafka shows the iterations of a credential, and each
// password gets another number: so what is in force is a fact of Kafka, after any crash.
package entities
