// Package cluster decides what a KafkaCluster means: Resolve turns a spec and the catalog
// into a Model of nodes, or into every problem of the spec at once. It is the only
// validator: admission, the CLI and the engine call it. It touches nothing.
package cluster

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/intstr"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Model is what an accepted spec means.
type Model struct {
	Namespace string
	Name      string
	// ClusterID that the spec asks to adopt; empty otherwise.
	ClusterID string
	Version   string
	// MetadataVersion to bootstrap with; empty is the newest of Version.
	MetadataVersion string
	// Nodes in ascending order of id.
	Nodes []Node
	// NodeIDs is every id ever given, by pool, this spec's and those that left among them.
	NodeIDs []api.PoolNodeIDs
	// Dynamic is the cluster-wide configuration that lives in Kafka.
	Dynamic map[string]string
	// DefaultReplicas is what topics get by default, see ClusterRevision.
	DefaultReplicas int32
	// MaxUnavailable is a number, a percentage of the brokers, or "Rack".
	MaxUnavailable intstr.IntOrString
	// Rollout is how changes reach nodes, as in the spec.
	Rollout api.Rollout
	// Balance is how replicas move, as in the spec.
	Balance        api.Balance
	Listeners      []api.Listener
	Certificates   api.Certificates
	State          api.RunState
	Paused         bool
	DeletionPolicy api.DeletionPolicy
}

// Node is one node as wanted.
type Node struct {
	ID    int32
	Pool  string
	Roles []api.Role
	// Process as wanted. Process.Package is empty until the package's digest is known;
	// PackageWait then says what is waited for.
	Process     api.ProcessSpec
	PackageWait string
	// SecretWait says which Secret a listener's file is missing from, without which the process
	// could not start; only who reads Secrets sets it.
	SecretWait string
	// Dynamic is the per-broker configuration that lives in Kafka for this node.
	Dynamic map[string]string
	Volumes []api.Volume
	Hosts   api.HostPlacement
	// WhenScaled is what happens to the node's data when it leaves.
	WhenScaled api.DeletionPolicy
	// Kubernetes says that the node is a pod.
	Kubernetes bool
	// Exposures that the node's listeners need; what only Kubernetes can give is empty.
	Exposures []api.NodeExposure
	// Ports that the node's listeners prefer, by listener name.
	Ports map[string]int32
}

// Broker says whether the node has the broker role.
func (n Node) Broker() bool { return hasRole(n.Roles, api.RoleBroker) }

// Controller says whether the node has the controller role.
func (n Node) Controller() bool { return hasRole(n.Roles, api.RoleController) }

func hasRole(roles []api.Role, role api.Role) bool {
	return slices.Contains(roles, role)
}

// Severity of a Problem.
type Severity string

// The severities: an Error refuses the spec, a Warning is printed and lets it pass.
const (
	Error   Severity = "Error"
	Warning Severity = "Warning"
)

// Problem is one thing that is wrong with a spec.
type Problem struct {
	// Path of the field, for example spec.pools[0].replicas.
	Path     string
	Severity Severity
	// Reason says what is wrong, as a clause.
	Reason string
	// Remedy says what would be accepted or what to do.
	Remedy string
}

// String is the problem in one line.
func (p Problem) String() string {
	s := p.Path + ": " + p.Reason
	if p.Remedy != "" {
		s += "; " + p.Remedy
	}
	return s
}

// Input is everything that Resolve looks at.
type Input struct {
	Namespace string
	Name      string
	Spec      api.KafkaClusterSpec
	// Accepted is the spec in force, nil for a new cluster.
	Accepted *api.KafkaClusterSpec
	// Leaving are pools that Accepted has no more but that may still have nodes, see LeavingPools.
	Leaving []api.Pool
	// NodeIDs are all ids ever given (from the newest ClusterRevision).
	NodeIDs []api.PoolNodeIDs
	// Finalized is the cluster's metadata.version as Kafka writes it, for example 4.3-IV0; empty
	// when it is not known. The plan asks Kafka again before it acts on it.
	Finalized string
	// DefaultReplicas as in the newest ClusterRevision; 0 is not known.
	DefaultReplicas int32
	Catalog         Catalog
	// Supervisor is the version of castellan node that new processes are pinned to; on
	// Kubernetes the image that it is copied from.
	Supervisor string
}

// Catalog is what can be run and where.
type Catalog struct {
	Packages []api.Package
	Hosts    []api.Host
}

// WholeRack as rollout.maxUnavailable lets all brokers of a rack restart together.
const WholeRack = "Rack"

// Canary points of rollout.pauseAfter; a node's is its id.
const (
	FirstNode = "FirstNode"
	EachRack  = "EachRack"
)
