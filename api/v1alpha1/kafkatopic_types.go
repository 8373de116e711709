package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KafkaTopic is one topic of a Kafka cluster. Keys of its configuration that stand here are
// kept as they stand here; all others are left alone.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=kt,categories=castellan
// +kubebuilder:printcolumn:name="CLUSTER",type=string,JSONPath=`.spec.clusterRef.name`
// +kubebuilder:printcolumn:name="TOPIC",type=string,JSONPath=`.status.topicName`
// +kubebuilder:printcolumn:name="PARTITIONS",type=integer,JSONPath=`.status.partitions`
// +kubebuilder:printcolumn:name="REPLICAS",type=integer,JSONPath=`.status.replicas`
// +kubebuilder:printcolumn:name="READY",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="REASON",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="has(self.spec.topicName) || size(self.metadata.name) <= 249",message="a topic's name has at most 249 characters: set spec.topicName"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.partitions) || !has(oldSelf.spec.partitions) || self.spec.partitions >= oldSelf.spec.partitions || !has(oldSelf.status) || !has(oldSelf.status.partitions) || self.spec.partitions >= oldSelf.status.partitions",message="partitions cannot become fewer than the topic has (status.partitions): Kafka takes none away; make another topic and copy the records"
type KafkaTopic struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   KafkaTopicSpec   `json:"spec"`
	Status KafkaTopicStatus `json:"status,omitempty"`
}

// KafkaTopicList is a list of KafkaTopics.
//
// +kubebuilder:object:root=true
type KafkaTopicList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []KafkaTopic `json:"items"`
}

// KafkaTopicSpec is the topic as a user wants it.
//
// +kubebuilder:validation:XValidation:rule="self.clusterRef == oldSelf.clusterRef",message="clusterRef of a KafkaTopic cannot change: make another one"
// +kubebuilder:validation:XValidation:rule="has(self.topicName) == has(oldSelf.topicName) && (!has(self.topicName) || self.topicName == oldSelf.topicName)",message="topicName cannot change: Kafka renames no topic; make another KafkaTopic"
type KafkaTopicSpec struct {
	ClusterRef EntityClusterRef `json:"clusterRef"`
	// TopicName in Kafka; default is the name of this object.
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9._-]+$`
	// +kubebuilder:validation:MaxLength=249
	// +kubebuilder:validation:XValidation:rule="self != '.' && self != '..'",message="Kafka takes neither . nor .. as the name of a topic"
	TopicName string `json:"topicName,omitempty"`
	// Partitions; default is num.partitions of the cluster at creation. They can only become more.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Partitions *int32 `json:"partitions,omitempty"`
	// Replicas of each partition; default is default.replication.factor of the cluster at
	// creation. A change is done by the balancer.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Replicas *int32 `json:"replicas,omitempty"`
	// Config of the topic. A key that is removed from here goes back to the cluster's default.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	Config Config `json:"config,omitempty"`
	// DeletionPolicy says what happens to the topic and its records when this object is deleted.
	// +kubebuilder:default=Retain
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
	// Adopt takes over a topic that exists already.
	// +optional
	Adopt bool `json:"adopt,omitempty"`
	// Paused makes the operator observe and report only: what it would change stands in the condition.
	// +optional
	Paused bool `json:"paused,omitempty"`
}

// KafkaTopicStatus says how the topic is in Kafka.
type KafkaTopicStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions: Ready, and while they are True Reconciling and Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// +optional
	TopicName string `json:"topicName,omitempty"`
	// TopicID that Kafka gave.
	// +optional
	TopicID string `json:"topicID,omitempty"`
	// +optional
	Partitions int32 `json:"partitions,omitempty"`
	// Replicas of the partition that has fewest.
	// +optional
	Replicas int32 `json:"replicas,omitempty"`
}
