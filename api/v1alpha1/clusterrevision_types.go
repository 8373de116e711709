package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterRevision is an immutable snapshot of an accepted spec; made by the engine.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=cr,categories=castellan
// +kubebuilder:printcolumn:name="CLUSTER",type=string,JSONPath=`.spec.clusterName`
// +kubebuilder:printcolumn:name="NUMBER",type=integer,JSONPath=`.spec.number`
// +kubebuilder:printcolumn:name="GENERATION",type=integer,JSONPath=`.spec.generation`
// +kubebuilder:printcolumn:name="VERSION",type=string,JSONPath=`.spec.cluster.version`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterRevision struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ClusterRevisionSpec `json:"spec"`
}

// ClusterRevisionList is a list of ClusterRevisions.
//
// +kubebuilder:object:root=true
type ClusterRevisionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterRevision `json:"items"`
}

// ClusterRevisionSpec is the snapshot. Only clusterID may be filled in later, once; held, moving, throttled
// and nodeIDs[].removed change with what is done.
//
// +kubebuilder:validation:XValidation:rule="self.cluster == oldSelf.cluster && self.number == oldSelf.number && self.clusterName == oldSelf.clusterName",message="a revision is immutable"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.clusterID) || size(oldSelf.clusterID) == 0 || self.clusterID == oldSelf.clusterID",message="the cluster id of a revision cannot change once known"
type ClusterRevisionSpec struct {
	ClusterName string `json:"clusterName"`
	// Number counts the revisions of a cluster from 1.
	Number int64 `json:"number"`
	// Generation of the KafkaCluster that was accepted.
	Generation int64 `json:"generation"`
	// ClusterID as soon as a bootstrap has been answered or data was adopted.
	// +optional
	ClusterID string `json:"clusterID,omitempty"`
	// NodeIDs by pool: every id ever given, in the order of giving.
	// +optional
	// +listType=map
	// +listMapKey=pool
	NodeIDs []PoolNodeIDs `json:"nodeIDs,omitempty"`
	// OwnedKeys are the cluster-wide dynamic keys that Castellan has set in Kafka and must
	// remove when no spec names them any more.
	// +optional
	// +listType=set
	OwnedKeys []string `json:"ownedKeys,omitempty"`
	// DefaultReplicas is how many replicas Castellan gives topics by default. It was taken from
	// the number of brokers that the cluster began with and stays: brokers that are added
	// restart no other one.
	// +optional
	DefaultReplicas int32 `json:"defaultReplicas,omitempty"`
	// Restores names an earlier revision with the same spec: nodes go back to it in reverse order.
	// +optional
	Restores string `json:"restores,omitempty"`
	// Held says that nothing of this revision reaches further nodes until somebody decides: a
	// new spec, a rollback, or a retry.
	// +optional
	Held *RevisionHold `json:"held,omitempty"`
	// Moving are topics with replicas that Castellan has on their way: recorded before the first
	// is moved and forgotten after the last, so that what is left behind by a crash is known as its own.
	// +optional
	// +listType=set
	Moving []string `json:"moving,omitempty"`
	// Throttled are those of them whose throttled replicas (KIP-73) Castellan has set.
	// +optional
	// +listType=set
	Throttled []string `json:"throttled,omitempty"`
	// Digest (sha256:<hex>) of the accepted spec as it was read. It tells whether a spec is
	// another one; the copy below gets defaults of its own when it is stored.
	Digest string `json:"digest"`
	// Cluster is the accepted spec.
	Cluster KafkaClusterSpec `json:"cluster"`
}

// RevisionHold is why a revision is held.
type RevisionHold struct {
	// Operation that was cancelled or failed.
	Operation string      `json:"operation"`
	Reason    string      `json:"reason"`
	Since     metav1.Time `json:"since"`
}

// PoolNodeIDs are the node ids given to a pool.
type PoolNodeIDs struct {
	Pool string `json:"pool"`
	// +listType=atomic
	IDs []int32 `json:"ids"`
	// Removed are those whose nodes have left for good; they are never given again.
	// +optional
	// +listType=atomic
	Removed []int32 `json:"removed,omitempty"`
}
