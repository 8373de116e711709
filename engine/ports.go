// Package engine makes one pass over a cluster: resolve the spec, observe the facts, plan,
// do the steps, say how it is. It decides nothing that package plan does not decide and
// speaks to the world only through the ports that it declares here. Nothing that it keeps from
// one pass to the next decides anything: it is only spared to be computed again.
package engine

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
)

// Endpoints are where a cluster's own listeners are reached, host:port each.
type Endpoints struct {
	Brokers     []string
	Controllers []string
	// ClusterID that must answer there, once it is known: another cluster is not believed.
	ClusterID string
}

// Kafka speaks to the Kafka cluster of a KafkaCluster.
type Kafka interface {
	// Observe reads every fact that a plan needs, and what is asked for beside. It does not
	// fail: what it could not read is said in the answer.
	Observe(ctx context.Context, of *api.KafkaCluster, at Endpoints, what plan.Ask) plan.Kafka
	// Do does one step of kind SetConfig, AddVoter, RemoveVoter, ElectLeaders, FinalizeFeatures,
	// ThrottleTopics, MoveReplicas, CancelMoves or UnregisterBroker.
	Do(ctx context.Context, of *api.KafkaCluster, at Endpoints, step plan.Step) error
}

// Freshness says from where facts are read.
type Freshness bool

// Cached facts come from watches and cost no request; they are good enough to see that
// nothing is to be done. Whatever is done rests on Fresh ones, read from the API server in
// the same pass: a stale answer could restart two nodes where one may go.
const (
	Cached Freshness = false
	Fresh  Freshness = true
)

// Nodes reads and writes the KafkaNodes of a cluster.
type Nodes interface {
	// List returns the nodes with their facts.
	List(ctx context.Context, of *api.KafkaCluster, how Freshness) ([]plan.Node, error)
	// Write creates a node or replaces its spec, after claiming the ports that the spec names.
	Write(ctx context.Context, of *api.KafkaCluster, spec *api.KafkaNodeSpec) error
	// Delete begins the removal of a node; removeData says that its volumes go too.
	Delete(ctx context.Context, of *api.KafkaCluster, id int32, removeData bool) error
}

// Catalog reads what can be run and where.
type Catalog interface {
	Packages(ctx context.Context) ([]api.Package, error)
	Hosts(ctx context.Context) ([]plan.Host, []api.Host, error)
}

// Revisions keeps the ClusterRevisions of a cluster. What is written rests on the revision as
// it was read: where it has changed since, nothing is written, which is an error. To write
// the same once more is a success.
type Revisions interface {
	MoveRecords
	// List returns them in ascending order of number.
	List(ctx context.Context, of *api.KafkaCluster, how Freshness) ([]api.ClusterRevision, error)
	Create(ctx context.Context, of *api.KafkaCluster, rev *api.ClusterRevision) error
	// SetClusterID fills in the id of a revision that has none.
	SetClusterID(ctx context.Context, rev *api.ClusterRevision, id string) error
	// SetHeld says why a revision is held, or with nil that it goes on.
	SetHeld(ctx context.Context, rev *api.ClusterRevision, hold *api.RevisionHold) error
	Delete(ctx context.Context, rev *api.ClusterRevision) error
}

// MoveRecords keep in a revision what must be remembered of moves and of nodes that leave.
type MoveRecords interface {
	// SetMoves replaces the topics that are recorded as ours to move and as throttled by us.
	SetMoves(ctx context.Context, rev *api.ClusterRevision, moving, throttled []string) error
	// Retire records that a node id is never given again.
	Retire(ctx context.Context, rev *api.ClusterRevision, pool string, id int32) error
}

// Operations keeps the Operations of a cluster.
type Operations interface {
	// List returns those of this very cluster in the order of their making.
	List(ctx context.Context, of *api.KafkaCluster, how Freshness) ([]api.Operation, error)
	// Create makes one, owned by the cluster. One of that name that is about the same is a success.
	Create(ctx context.Context, of *api.KafkaCluster, op *api.Operation) error
	// Record writes spec.from, spec.soakSince, spec.begun and spec.heldUp of op, and leaves the rest of the spec, which is
	// a user's, as it is now.
	Record(ctx context.Context, op *api.Operation) error
	// Report writes the status and keeps the object by its finalizer, or with free takes that off.
	// was is the status that was replaced; nil if it said so already.
	Report(ctx context.Context, of *api.KafkaCluster, op *api.Operation, status api.OperationStatus, free bool) (was *api.OperationStatus, err error)
	// Delete removes one with its finalizer.
	Delete(ctx context.Context, op *api.Operation) error
}

// Certificates issues and renews what the nodes need.
type Certificates interface {
	Ensure(ctx context.Context, of *api.KafkaCluster, want cluster.Model, nodes []plan.Node) (Issued, error)
	// Delete removes everything that Ensure made.
	Delete(ctx context.Context, of *api.KafkaCluster) error
}

// Issued is what nodes and listeners have.
type Issued struct {
	Nodes map[int32]api.NodeCertificates
	// Faults of Secrets that listeners name.
	Faults []SecretFault
	// OwnTrust are listeners whose own certificate came with a CA for clients.
	OwnTrust map[string]bool
	// State is the condition Certificates; nil is none.
	State *metav1.Condition
	// Done is what was done, for people, in order.
	Done []CertificateStep
	// Again is how soon to look again; zero is the ordinary resync.
	Again time.Duration
}

// CertificateStep is one change of a cluster's certificates.
type CertificateStep struct {
	// Action is a word, such as SignWith; Reason says what and why.
	Action, Reason string
}

// SecretFault is why a file of listeners cannot be made.
type SecretFault struct {
	cluster.Problem
	// Key of the nodes' Secrets that is missing.
	Key string
	// Held are nodes that have the last good content.
	Held map[int32]bool
}

// Shared realizes what the nodes of a cluster have in common on Kubernetes: Services and
// the PodDisruptionBudget. A cluster on hosts has nothing of the kind.
type Shared interface {
	// Observe reads what Kubernetes gave the cluster as a whole.
	Observe(ctx context.Context, of *api.KafkaCluster, how Freshness) (plan.Shared, error)
	// Same says whether caches show all of it as Apply would make it.
	Same(ctx context.Context, of *api.KafkaCluster, want cluster.Model, nodes []plan.Node, spare bool) bool
	// Apply makes the objects so at once, and writes nothing when they are so already. spare
	// is plan.Plan.Spare. closed says that the budget was closed just now: until then it may
	// have let somebody end a pod that earlier facts show as running.
	Apply(ctx context.Context, of *api.KafkaCluster, want cluster.Model, nodes []plan.Node, spare bool) (closed bool, err error)
	// Delete removes the objects; withData also the claims that no node has any more.
	Delete(ctx context.Context, of *api.KafkaCluster, withData bool) error
}

// facts are what a pass reads before it resolves.
type facts struct {
	catalog   cluster.Catalog
	revisions []api.ClusterRevision
	nodes     []plan.Node
	hosts     []plan.Host
	shared    plan.Shared
	// operations in the order of their making.
	operations []api.Operation
}
