package plan

import (
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/balance"
)

// Plan is what to do next, in order, what blocks, and when to look again.
type Plan struct {
	// Steps to do now, in this order. A step that fails ends the pass.
	Steps []Step
	// Blocked says what must happen first, for a person.
	Blocked []Block
	// Upcoming are the steps that will follow as far as they can be foreseen, for display only.
	Upcoming []Step
	// Again is how long to wait at most before looking again without an event; zero
	// means only the ordinary resync.
	Again time.Duration
	// Spare says that any one node could be stopped now without harm, whichever it is: the
	// truth for a PodDisruptionBudget.
	Spare bool
	// Held says why no pod can be spared, for a person, where that does not end by itself;
	// drains wait for ever then. Empty otherwise.
	Held string
	// Memo to hand to the next pass, see World.Memo.
	Memo *Memo
	// Operations say how each one is that is not over, or whose end is to be written down.
	Operations []OperationReport
}

// OperationReport is how an Operation is.
type OperationReport struct {
	Name   string
	Status api.OperationStatus
	// Free says that nothing of ours keeps the object any more: its finalizer may go.
	Free bool
}

// Done says that nothing is to be done or waited for.
func (p Plan) Done() bool {
	return len(p.Steps) == 0 && len(p.Blocked) == 0 && len(p.Upcoming) == 0
}

// Block is a reason to wait.
type Block struct {
	// Node that waits; -1 for the whole cluster.
	Node int32
	// Reason is one CamelCase word.
	Reason string
	// Message is a sentence: what is waited for, and what a user can do when it does not come.
	Message string
	// Stalled is true when it will not go away by itself.
	Stalled bool
}

// Kind of a Step.
type Kind string

// The kinds of steps. Steps on nodes write a KafkaNode's spec; the others talk to Kafka
// or record a fact.
const (
	CreateNode      Kind = "CreateNode"      // make the KafkaNode with its claims
	AnswerStorage   Kind = "AnswerStorage"   // answer a supervisor's nonce
	RecordClusterID Kind = "RecordClusterID" // into the newest ClusterRevision
	UpdateProcess   Kind = "UpdateProcess"   // the permission to restart
	UpdateLive      Kind = "UpdateLive"      // everything of a node that never restarts it
	ReplaceVolumes  Kind = "ReplaceVolumes"  // new claims in place of lost ones, which are kept
	StopNode        Kind = "StopNode"        // state Stopped
	StartNode       Kind = "StartNode"       // state Running
	DeleteNode      Kind = "DeleteNode"      // remove the KafkaNode object; its data stays unless told
	SetConfig       Kind = "SetConfig"       // dynamic configuration in Kafka
	AddVoter        Kind = "AddVoter"        // KIP-853 AddRaftVoter
	RemoveVoter     Kind = "RemoveVoter"     // KIP-853 RemoveRaftVoter
	ElectLeaders    Kind = "ElectLeaders"    // preferred leaders

	CreateOperation  Kind = "CreateOperation"  // before the first node is touched
	RecordOperation  Kind = "RecordOperation"  // into the spec of an Operation: what must be remembered with an act
	HoldRevision     Kind = "HoldRevision"     // keep a revision from further nodes, or (Hold is nil) let it go on
	FinalizeFeatures Kind = "FinalizeFeatures" // KIP-584 UpdateFeatures: no way back

	RecordMoves      Kind = "RecordMoves"      // which topics are ours to move and throttle, into the newest ClusterRevision
	ThrottleTopics   Kind = "ThrottleTopics"   // throttled replicas of topics (KIP-73)
	MoveReplicas     Kind = "MoveReplicas"     // begin reassignments and moves between log dirs
	CancelMoves      Kind = "CancelMoves"      // take reassignments and moves between log dirs back
	UnregisterBroker Kind = "UnregisterBroker" // the broker is gone for good
	RetireNode       Kind = "RetireNode"       // record in the newest ClusterRevision that an id is never given again
)

// Step is one act with its reason. Only the members of its kind are set.
type Step struct {
	Kind Kind
	// Node that it concerns; -1 for the cluster.
	Node   int32
	Reason string

	// Spec is the whole wanted KafkaNode spec (CreateNode, AnswerStorage, UpdateProcess,
	// UpdateLive, ReplaceVolumes, StopNode, StartNode).
	Spec *api.KafkaNodeSpec
	// ClusterID to record (RecordClusterID).
	ClusterID string
	// Set and Delete keys (SetConfig); Node -1 is the cluster-wide resource.
	Set    map[string]string
	Delete []string
	// DirectoryID of a voter (AddVoter, RemoveVoter), Endpoint its CONTROLLER listener.
	DirectoryID string
	Endpoint    string
	// Operation to create, or with the spec that it shall have (CreateOperation, RecordOperation).
	Operation *api.Operation
	// Revision to hold or, where Hold is nil, to let go on (HoldRevision).
	Revision string
	Hold     *api.RevisionHold
	// Features are the levels to finalize, by name (FinalizeFeatures).
	Features map[string]int16
	// Moving and Throttled topics to record, whole lists (RecordMoves).
	Moving, Throttled []string
	// Throttles to set by topic; an empty one is deleted (ThrottleTopics).
	Throttles map[string]TopicThrottle
	// Moves to begin: To is the list to ask for, Dirs the log dirs to ask for first (MoveReplicas).
	Moves []balance.Move
	// Cancel and Return say what to take back (CancelMoves).
	Cancel []balance.Cancel
	Return []balance.Return
	// RemoveData says that the volumes of a deleted node go too (DeleteNode).
	RemoveData bool
}
