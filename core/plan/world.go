// Package plan decides the next steps towards a Model: which node may change now and why,
// what blocks, and when to look again. It is computed afresh on every pass from facts; it
// remembers nothing and touches nothing.
package plan

import (
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/cluster"
)

// World is every fact that a plan rests on, read in one pass.
type World struct {
	// ClusterID as recorded in the newest revision or in the spec; empty before a bootstrap.
	ClusterID string
	// Revision that the Model was resolved from.
	Revision string
	// OwnedKeys are the cluster-wide dynamic keys that Castellan has set, see ClusterRevision.
	OwnedKeys []string
	Nodes     []Node
	Hosts     []Host
	Kafka     Kafka
	// Fresh holds unused random ids for a bootstrap: one for the cluster and enough
	// directory ids for its controllers (Kafka's base64 uuids).
	Fresh Fresh
	// Certificates as they now stand in the nodes' Secrets.
	Certificates map[int32]api.NodeCertificates
	// Accept lists node ids whose loss of data a user has accepted (annotation
	// castellan.dev/accept-data-loss on the KafkaCluster).
	Accept []int32
	// Operations of the cluster in the order of their making, finished ones among them.
	Operations []api.Operation
	// Restores is an earlier revision with the same spec as the Model's; empty when there is none.
	Restores string
	// Hold is why the revision of the Model is held; nil when it is not.
	Hold *api.RevisionHold
	// Earlier are Models of revisions that nodes may be given back to, by name.
	Earlier map[string]cluster.Model
	// Shared is what Kubernetes gave the cluster as a whole; empty on hosts.
	Shared Shared
	// Moving and Throttled topics as recorded in the newest revision.
	Moving, Throttled []string
	// Memo is what the last pass computed and this one need not compute again; nil after a
	// start. It only saves work and keeps plans steady: nothing is lost with it.
	Memo *Memo
}

// Memo passes from one pass to the next what is dear to compute, or says since when something lasts.
type Memo struct {
	// Operation and Request that Proposal answers; another one makes it void.
	Operation string
	Request   string
	Proposal  balance.Proposal
	// Planned is when.
	Planned time.Time
	// Done counts the moves of earlier rounds.
	Done int
	// MovedAt is when something of ours was last under way.
	MovedAt time.Time
	// Rounds is how often it was planned anew.
	Rounds int
	// UnderMinISR is how many partitions were under min.insync.replicas when moving began.
	UnderMinISR int
	// StalledSince is since when moves cannot go on; zero when they can.
	StalledSince time.Time
}

// Ask is what of Kafka a pass needs beside what every pass needs.
type Ask struct {
	// PerBroker are nodes whose own dynamic configuration is wanted.
	PerBroker []int32
	// Placement says that log dirs and reassignments are wanted.
	Placement bool
	// Throttles are topics whose throttled replicas are wanted.
	Throttles []string
	// Controllers says that the registered controllers are wanted.
	Controllers bool
}

// TopicThrottle are the throttled replicas of a topic (KIP-73) as Kafka writes them: pairs
// partition:broker, with commas between. Empty is none.
type TopicThrottle struct {
	Leader, Follower string
}

// Shared is what Kubernetes gave a cluster as a whole.
type Shared struct {
	// Claims are the newest PersistentVolumeClaims that exist, by node id and volume.
	Claims map[int32]map[string]string
	// Bootstrap is what the bootstrap Services of exposed listeners were given, by listener.
	Bootstrap map[string]api.ExposureStatus
	// Evicting are nodes whose pods somebody was allowed to end, though they may still run.
	Evicting []int32
}

// Fresh are random ids drawn by the shell for this pass.
type Fresh struct {
	ClusterID    string
	DirectoryIDs []string
}

// Node is a KafkaNode with its facts as just read (not as last written to its status).
type Node struct {
	Spec   api.KafkaNodeSpec
	Status api.KafkaNodeStatus
	// Rack of the node.
	Rack string
	// ReplaceAsked is a user's word that the node's volumes are lost for good: a token that
	// differs from spec.replaced asks for new ones.
	ReplaceAsked string
}

// Host is a Host with what is claimed on it.
type Host struct {
	Name      string
	Spec      api.HostSpec
	Labels    map[string]string
	Reachable bool
	// Claimed ports with their owners.
	Claimed map[int32]string
	// Nodes of any cluster that run there.
	Nodes int
}

// Kafka is the cluster as Kafka itself describes it.
type Kafka struct {
	// Known is false when Kafka could not be read in this pass; Why then says why, and
	// nothing else is to be believed.
	Known bool
	Why   string
	// PartitionsKnown is false when only controllers answered.
	PartitionsKnown bool
	ClusterID       string
	ControllerID    int32
	Brokers         []Broker
	Quorum          Quorum
	Topics          []Topic
	// FailedLogDirs are brokers that serve while replicas of theirs are offline.
	FailedLogDirs []int32
	// ClusterConfig is the dynamic cluster-wide configuration
	// (DYNAMIC_DEFAULT_BROKER_CONFIG), without sensitive values.
	ClusterConfig map[string]string
	// BrokerConfig is the dynamic configuration of single brokers (DYNAMIC_BROKER_CONFIG).
	BrokerConfig map[int32]map[string]string
	// Features are the finalized feature levels, by name.
	Features map[string]int16
	// SupportedFeatures are the lowest and highest level, by name, that the broker supports
	// which answered: the truth for all only when all run the same version.
	SupportedFeatures map[string][2]int16
	// MetadataVersion is the finalized one as Kafka writes it, for example 4.3-IV0.
	MetadataVersion string
	// Placement is where replicas are, how large, and what is on its way; nil when it was not
	// asked for, or could not be read completely: PlacementWhy then says why. No broker in it
	// is marked as leaving, and as cordoned only where Kafka says so.
	Placement    *balance.Cluster
	PlacementWhy string
	// Controllers are the ids of all registered controllers (KIP-919), also of those that left;
	// nil when not asked for or not read.
	Controllers []int32
	// TopicThrottles are the throttled replicas of the topics that were asked for; a topic that
	// does not exist is missing. Nil when not asked for or not read.
	TopicThrottles map[string]TopicThrottle
}

// Broker is a registered broker.
type Broker struct {
	ID     int32
	Fenced bool
	Rack   string
}

// Quorum is the KRaft quorum (DescribeQuorum).
type Quorum struct {
	Leader      int32
	LeaderEpoch int32
	HighWater   int64
	Voters      []Replica
	Observers   []Replica
}

// Replica is a voter or observer of the metadata log. DirectoryID is empty for a static quorum.
type Replica struct {
	ID          int32
	DirectoryID string
	LogEnd      int64
	// LastCaughtUp is how long ago the leader saw it caught up; negative when unknown.
	LastCaughtUp time.Duration
}

// Topic holds partitions in partition order.
type Topic struct {
	Name       string
	MinISR     int
	Partitions []Partition
}

// Partition of a topic. Leader is -1 without one.
type Partition struct {
	Leader   int32
	Replicas []int32
	ISR      []int32
}
