package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Operation is a piece of work on the nodes of a cluster, which one can watch, pause, cancel
// and take back. The engine makes one when a spec calls for nodes to be changed, a user when
// he asks for it. What was asked stands in spec, what became of it in status.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=op,categories=castellan
// +kubebuilder:printcolumn:name="CLUSTER",type=string,JSONPath=`.spec.clusterRef.name`
// +kubebuilder:printcolumn:name="TYPE",type=string,JSONPath=`.spec.type`
// +kubebuilder:printcolumn:name="PHASE",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="DONE",type=integer,JSONPath=`.status.steps.done`
// +kubebuilder:printcolumn:name="TOTAL",type=integer,JSONPath=`.status.steps.total`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="MESSAGE",type=string,JSONPath=`.status.message`
type Operation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   OperationSpec   `json:"spec"`
	Status OperationStatus `json:"status,omitempty"`
}

// OperationList is a list of Operations.
//
// +kubebuilder:object:root=true
type OperationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Operation `json:"items"`
}

// OperationType is what an Operation does.
// +kubebuilder:validation:Enum=Rollout;Restart;Upgrade;Rollback;Scale;Drain;Rebalance
type OperationType string

// The types of operations.
const (
	// OperationRollout brings nodes to a revision.
	OperationRollout OperationType = "Rollout"
	// OperationUpgrade is a rollout to another version of Kafka.
	OperationUpgrade OperationType = "Upgrade"
	// OperationRollback is a rollout to the spec of an earlier revision, in reverse order.
	OperationRollback OperationType = "Rollback"
	// OperationRestart restarts nodes as they are.
	OperationRestart OperationType = "Restart"
	// OperationScale brings nodes in, or takes nodes out: their replicas move first.
	OperationScale OperationType = "Scale"
	// OperationDrain moves every replica off brokers that stay.
	OperationDrain OperationType = "Drain"
	// OperationRebalance moves replicas and leaders to where they should be.
	OperationRebalance OperationType = "Rebalance"
)

// OperationSpec is what was asked. What an operation is about is set once; a user may change
// the members from paused on.
//
// +kubebuilder:validation:XValidation:rule="self.clusterRef == oldSelf.clusterRef && self.type == oldSelf.type",message="clusterRef and type of an Operation cannot change: make another one"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.toRevision) || has(self.toRevision) && self.toRevision == oldSelf.toRevision",message="toRevision is set once"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.from) || has(self.from) && self.from == oldSelf.from",message="from is recorded once: it is what nodes go back to"
// +kubebuilder:validation:XValidation:rule="(has(self.nodes) ? self.nodes : []) == (has(oldSelf.nodes) ? oldSelf.nodes : [])",message="the nodes that an Operation is about cannot change: make another one"
// +kubebuilder:validation:XValidation:rule="has(self.rebalance) == (self.type == 'Rebalance')",message="rebalance goes with type Rebalance, and with no other"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.rebalance) || has(self.rebalance) && self.rebalance == oldSelf.rebalance",message="what a Rebalance shall do cannot change: make another one"
// +kubebuilder:validation:XValidation:rule="self.type != 'Drain' || has(self.nodes) && size(self.nodes) > 0",message="a Drain needs the nodes to drain"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancelled) || !oldSelf.cancelled || has(self.cancelled) && self.cancelled",message="an Operation that was cancelled stays so: make another one"
type OperationSpec struct {
	// ClusterRef names the KafkaCluster, in the same namespace.
	ClusterRef ClusterRef    `json:"clusterRef"`
	Type       OperationType `json:"type"`
	// Reason says what for, for people.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
	// ToRevision is the ClusterRevision that nodes are brought to; empty for a restart.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ToRevision string `json:"toRevision,omitempty"`
	// Nodes that it is about; none is every node that differs, for a restart every node.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	Nodes []int32 `json:"nodes,omitempty"`
	// From is where nodes came from, recorded before the first is touched: no retry changes it.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=1000
	From []OperationOrigin `json:"from,omitempty"`
	// Order in which nodes are taken, as far as it is safe; those not named come after in the
	// ordinary order.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Order []int32 `json:"order,omitempty"`
	// Paused lets the nodes that are being changed end and begins none.
	// +optional
	Paused bool `json:"paused,omitempty"`
	// Cancelled lets the nodes that are being changed end and never begins another. A revision
	// that was being rolled out is held: nothing of it reaches further nodes until somebody decides.
	// +optional
	Cancelled bool `json:"cancelled,omitempty"`
	// IgnoredNodes are left as they are, and are not waited for.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	IgnoredNodes []int32 `json:"ignoredNodes,omitempty"`
	// Retry lets nodes that failed begin again.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=1000
	Retry []OperationRetry `json:"retry,omitempty"`
	// ApprovedPlan is the digest of the plan, as status.plan shows it, that somebody agreed to.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	ApprovedPlan string `json:"approvedPlan,omitempty"`
	// Passed are the canary points that somebody let it go on from, as status.point names them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	Passed []string `json:"passed,omitempty"`
	// SoakSince is when every node ran the new version; written by the engine.
	// +optional
	SoakSince *metav1.Time `json:"soakSince,omitempty"`
	// Finalize lets an upgrade take its last step, after which there is no way back.
	// +optional
	Finalize bool `json:"finalize,omitempty"`
	// Rebalance is what a Rebalance shall do; set once.
	// +optional
	Rebalance *Rebalance `json:"rebalance,omitempty"`
	// BytesPerSecond that each broker receives and sends for moves at most, in place of
	// spec.balance.bytesPerSecond of the cluster.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('1')) >= 0",message="bytesPerSecond is at least 1, for example 50Mi: leave it out to take that of the cluster"
	BytesPerSecond *resource.Quantity `json:"bytesPerSecond,omitempty"`
	// Revert takes back the moves that are under way when the Operation is cancelled; otherwise
	// they go on to their end.
	// +optional
	Revert bool `json:"revert,omitempty"`
	// Begun is when moves were first let begin; written by the engine. What was approved holds
	// for the moves that are planned anew on the way.
	// +optional
	Begun *metav1.Time `json:"begun,omitempty"`
	// HeldUp are brokers that a partition cannot spare, since when; written by the engine.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=1000
	HeldUp []OperationHeldUp `json:"heldUp,omitempty"`
}

// OperationHeldUp is since when a broker cannot be restarted for want of spare replicas.
type OperationHeldUp struct {
	ID    int32       `json:"id"`
	Since metav1.Time `json:"since"`
}

// RebalanceMode is what a Rebalance is for.
// +kubebuilder:validation:Enum=Full;Fill;Disks;Leaders;ReplicationFactor
type RebalanceMode string

// The modes of a Rebalance.
const (
	// RebalanceFull repairs racks and evens out disks, leaders, replicas and topics.
	RebalanceFull RebalanceMode = "Full"
	// RebalanceFill moves replicas to the brokers named, and to nobody else.
	RebalanceFill RebalanceMode = "Fill"
	// RebalanceDisks moves replicas between the log dirs of each broker.
	RebalanceDisks RebalanceMode = "Disks"
	// RebalanceLeaders changes only who leads.
	RebalanceLeaders RebalanceMode = "Leaders"
	// RebalanceReplicationFactor gives topics another number of replicas.
	RebalanceReplicationFactor RebalanceMode = "ReplicationFactor"
)

// Rebalance says what is to be moved.
//
// +kubebuilder:validation:XValidation:rule="self.mode != 'Fill' || has(self.brokers) && size(self.brokers) > 0",message="Fill needs the brokers to fill"
// +kubebuilder:validation:XValidation:rule="(self.mode == 'ReplicationFactor') == has(self.replicationFactor)",message="replicationFactor goes with mode ReplicationFactor, and with no other"
// +kubebuilder:validation:XValidation:rule="self.mode != 'ReplicationFactor' || has(self.topics) && size(self.topics) > 0",message="ReplicationFactor needs the topics"
type Rebalance struct {
	Mode RebalanceMode `json:"mode"`
	// Brokers to fill, or whose disks are evened out; none is all.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	Brokers []int32 `json:"brokers,omitempty"`
	// Topics limits it to these.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MaxLength=249
	Topics []string `json:"topics,omitempty"`
	// ReplicationFactor that Topics get (mode ReplicationFactor).
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	ReplicationFactor *int32 `json:"replicationFactor,omitempty"`
	// RepairLogDirs gives brokers whose log dirs have failed the replicas back that were there,
	// on other brokers (mode Disks).
	// +optional
	RepairLogDirs bool `json:"repairLogDirs,omitempty"`
}

// ClusterRef names a KafkaCluster.
type ClusterRef struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// OperationOrigin is the revision that a node came from.
type OperationOrigin struct {
	ID int32 `json:"id"`
	// +kubebuilder:validation:MaxLength=253
	Revision string `json:"revision"`
}

// OperationRetry is a further attempt at a node; the first attempt has no number.
type OperationRetry struct {
	ID int32 `json:"id"`
	// +kubebuilder:validation:Minimum=1
	Attempt int32 `json:"attempt"`
}

// OperationPhase is how an Operation is, in one word.
// +kubebuilder:validation:Enum=Pending;Running;Paused;Succeeded;Failed;Cancelled
type OperationPhase string

// The phases. The last three are final.
const (
	OperationPending   OperationPhase = "Pending" // waits: see message
	OperationRunning   OperationPhase = "Running"
	OperationPaused    OperationPhase = "Paused" // by a user, at a canary point, or since a node failed: see message
	OperationSucceeded OperationPhase = "Succeeded"
	OperationFailed    OperationPhase = "Failed"
	OperationCancelled OperationPhase = "Cancelled"
)

// Final says whether nothing comes after a phase.
func (p OperationPhase) Final() bool {
	return p == OperationSucceeded || p == OperationFailed || p == OperationCancelled
}

// OperationStatus is what became of an Operation.
type OperationStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	Phase OperationPhase `json:"phase,omitempty"`
	// Message says in a sentence what goes on, or what it waits for and what to do about it.
	// +optional
	Message string `json:"message,omitempty"`
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
	// EstimatedEnd is when it ends if nodes go on to take as long as they did; none until the first has ended.
	// +optional
	EstimatedEnd *metav1.Time `json:"estimatedEnd,omitempty"`
	// +optional
	Steps OperationSteps `json:"steps,omitempty"`
	// Nodes in the order in which they are taken.
	// +optional
	// +listType=map
	// +listMapKey=id
	Nodes []OperationNode `json:"nodes,omitempty"`
	// Plan is what is going to be done, shown while it waits for approval, and PlanDigest names it.
	// +optional
	// +listType=atomic
	Plan []string `json:"plan,omitempty"`
	// +optional
	PlanDigest string `json:"planDigest,omitempty"`
	// Point is the canary point that it waits at.
	// +optional
	Point string `json:"point,omitempty"`
	// Moves are the replicas on their way (Scale, Drain, Rebalance, and rollouts that empty log dirs).
	// +optional
	Moves *OperationMoves `json:"moves,omitempty"`
	// Proposal is what moving is to bring, broker by broker.
	// +optional
	Proposal *OperationProposal `json:"proposal,omitempty"`
}

// OperationMoves counts partitions whose replicas change. Bytes are those copied between brokers.
//
// Every count is optional for the schema, so that a patch of one of them is valid.
type OperationMoves struct {
	// +optional
	Done int32 `json:"done"`
	// +optional
	Running int32 `json:"running"`
	// +optional
	Total int32 `json:"total"`
	// +optional
	LeftBytes int64 `json:"leftBytes"`
	// Foreign are reassignments that somebody else began; they are left alone and count towards the limits.
	// +optional
	Foreign int32 `json:"foreign,omitempty"`
}

// OperationProposal is what moves are to bring.
type OperationProposal struct {
	// +optional
	Moves int32 `json:"moves"`
	// Bytes to copy between brokers, LocalBytes between log dirs of one broker, LeastBytes what
	// any plan must copy between brokers.
	// +optional
	Bytes int64 `json:"bytes"`
	// +optional
	LocalBytes int64 `json:"localBytes,omitempty"`
	// +optional
	LeastBytes int64 `json:"leastBytes,omitempty"`
	// Seconds that copying takes at least at the rate allowed; none where no rate is set.
	// +optional
	Seconds int64 `json:"seconds,omitempty"`
	// Brokers as they are and as they will be: those that change most, 100 at most.
	// +optional
	// +listType=map
	// +listMapKey=id
	Brokers []ProposalBroker `json:"brokers,omitempty"`
	// Objectives that it was made for, in their order.
	// +optional
	// +listType=map
	// +listMapKey=name
	Objectives []ProposalObjective `json:"objectives,omitempty"`
}

// ProposalBroker is a broker before and after.
type ProposalBroker struct {
	ID int32 `json:"id"`
	// +optional
	Rack   string       `json:"rack,omitempty"`
	Before ProposalLoad `json:"before"`
	After  ProposalLoad `json:"after"`
}

// ProposalLoad is what a broker holds. Percent of its disks is used, other data included; zero when unknown.
type ProposalLoad struct {
	// +optional
	Bytes int64 `json:"bytes"`
	// +optional
	Percent int32 `json:"percent"`
	// +optional
	Replicas int32 `json:"replicas"`
	// +optional
	Leaders int32 `json:"leaders"`
}

// ProposalObjective is one thing a proposal was made for: how far brokers are from what is
// reachable at most, before and after, as text such as "3.2 %".
type ProposalObjective struct {
	Name   string `json:"name"`
	Met    bool   `json:"met"`
	Before string `json:"before"`
	After  string `json:"after"`
	Limit  string `json:"limit"`
}

// OperationSteps counts nodes (and the finalization of an upgrade) that are done with.
//
// Every count is optional for the schema, so that a patch of one of them is valid.
type OperationSteps struct {
	// +optional
	Done int32 `json:"done"`
	// +optional
	Total int32 `json:"total"`
	// Percent of the whole, 0 to 100.
	// +optional
	Percent int32 `json:"percent"`
}

// OperationNodeState is how far an Operation is with a node.
// +kubebuilder:validation:Enum=Waiting;Running;Succeeded;Failed;TimedOut;Ignored;Cancelled
type OperationNodeState string

// The states of a node in an Operation.
const (
	OperationNodeWaiting   OperationNodeState = "Waiting"
	OperationNodeRunning   OperationNodeState = "Running"
	OperationNodeSucceeded OperationNodeState = "Succeeded"
	OperationNodeFailed    OperationNodeState = "Failed"   // the process ended or cannot start: see reason and log
	OperationNodeTimedOut  OperationNodeState = "TimedOut" // not ready within spec.rollout.nodeTimeout
	OperationNodeIgnored   OperationNodeState = "Ignored"
	OperationNodeCancelled OperationNodeState = "Cancelled" // was waiting when the Operation ended
)

// OperationNode is how far an Operation is with a node.
type OperationNode struct {
	ID    int32              `json:"id"`
	State OperationNodeState `json:"state"`
	// Reason says why it is changed or, in a sentence, why it waits or failed.
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Attempt int32 `json:"attempt,omitempty"`
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
	// Log holds the last lines of a process that failed.
	// +optional
	Log string `json:"log,omitempty"`
}

// Approval says who lets changes begin.
// +kubebuilder:validation:Enum=Automatic;Manual
type Approval string

// The kinds of approval.
const (
	ApprovalAutomatic Approval = "Automatic"
	ApprovalManual    Approval = "Manual"
)

// OnFailure says what follows when more nodes fail than are tolerated.
// +kubebuilder:validation:Enum=Pause;Rollback
type OnFailure string

// What follows on a failure.
const (
	// OnFailurePause begins no further node and waits for a user.
	OnFailurePause OnFailure = "Pause"
	// OnFailureRollback gives the failed node back what it ran before, and stops.
	OnFailureRollback OnFailure = "Rollback"
)

// Window is a time in which nodes may be changed.
type Window struct {
	// Schedule is when it opens, as cron writes it: minute, hour, day of month, month, day of week.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Schedule string `json:"schedule"`
	// Duration is how long it stays open.
	Duration metav1.Duration `json:"duration"`
	// TimeZone of the schedule, such as Europe/Zurich; UTC if empty.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	TimeZone string `json:"timeZone,omitempty"`
}

// UpgradePolicy is how an upgrade ends.
type UpgradePolicy struct {
	// Soak is how long all nodes run a new version before its features are finalized.
	// +kubebuilder:default="1h"
	// +optional
	Soak *metav1.Duration `json:"soak,omitempty"`
	// Finalize says who lets that happen: Automatic after the soak, or Manual. Until then the
	// version before can be gone back to.
	// +kubebuilder:default=Automatic
	// +optional
	Finalize Approval `json:"finalize,omitempty"`
}
