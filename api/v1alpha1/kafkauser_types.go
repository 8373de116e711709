package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KafkaUser is one principal of a Kafka cluster: how it proves who it is, what it may do, and
// how much of it. All ACLs, SCRAM credentials and quotas of that principal are this object's:
// what does not stand here is removed.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ku,categories=castellan
// +kubebuilder:printcolumn:name="CLUSTER",type=string,JSONPath=`.spec.clusterRef.name`
// +kubebuilder:printcolumn:name="PRINCIPAL",type=string,JSONPath=`.status.principal`
// +kubebuilder:printcolumn:name="AUTHENTICATION",type=string,JSONPath=`.spec.authentication.type`
// +kubebuilder:printcolumn:name="READY",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="REASON",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="VERIFIED",type=date,JSONPath=`.status.verifiedAt`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.spec.authentication.type != 'MutualTLS' || size(has(self.spec.principal) ? self.spec.principal : self.metadata.name) <= 64",message="the common name of a certificate has at most 64 characters (X.520): set spec.principal to a shorter one, or use ScramSha512"
// +kubebuilder:validation:XValidation:rule="self.spec.authentication.type != 'MutualTLS' || !has(self.spec.principal) || self.spec.principal.matches('^[A-Za-z0-9._@:/-]([A-Za-z0-9._@:/ -]*[A-Za-z0-9._@:/-])?$')",message="with MutualTLS a principal has only letters, digits, inner spaces and . _ @ : / - because certificates escape all others: choose another one, or use ScramSha512"
type KafkaUser struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   KafkaUserSpec   `json:"spec"`
	Status KafkaUserStatus `json:"status,omitempty"`
}

// KafkaUserList is a list of KafkaUsers.
//
// +kubebuilder:object:root=true
type KafkaUserList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []KafkaUser `json:"items"`
}

// KafkaUserSpec is the principal as a user wants it.
//
// +kubebuilder:validation:XValidation:rule="self.clusterRef == oldSelf.clusterRef",message="clusterRef of a KafkaUser cannot change: make another one"
// +kubebuilder:validation:XValidation:rule="has(self.principal) == has(oldSelf.principal) && (!has(self.principal) || self.principal == oldSelf.principal)",message="principal cannot change: make another KafkaUser"
// +kubebuilder:validation:XValidation:rule="!has(self.principal) || self.principal != '*' || self.authentication.type == 'External'",message="principal * is everyone: use it with authentication External"
type KafkaUserSpec struct {
	ClusterRef EntityClusterRef `json:"clusterRef"`
	// Principal is the name that Kafka knows, without User: in front, for names that no object
	// can have; default is the name of this object. With External it may be a whole
	// distinguished name, and * is everyone.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('User:')",message="leave User: out: it is put in front of every principal"
	Principal string `json:"principal,omitempty"`
	// Authentication is how the principal proves who it is.
	Authentication UserAuthentication `json:"authentication"`
	// ACLs are what the principal may do, and what it may not.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	ACLs []ACL `json:"acls,omitempty"`
	// Presets are ACLs for the usual kinds of clients; status.acls shows what they are.
	// +optional
	Presets *ACLPresets `json:"presets,omitempty"`
	// Quotas of the principal.
	// +optional
	Quotas *UserQuotas `json:"quotas,omitempty"`
	// Adopt takes over a principal that has other ACLs, credentials or quotas already: they are
	// replaced by what stands here.
	// +optional
	Adopt bool `json:"adopt,omitempty"`
	// Paused makes the operator observe and report only: what it would change stands in the condition.
	// +optional
	Paused bool `json:"paused,omitempty"`
}

// UserAuthenticationType is how a principal proves who it is.
// +kubebuilder:validation:Enum=MutualTLS;ScramSha512;External
type UserAuthenticationType string

// The ways of authentication of a KafkaUser.
const (
	// UserMutualTLS is a certificate that Castellan issues and renews.
	UserMutualTLS UserAuthenticationType = "MutualTLS"
	// UserScramSha512 is a password that Castellan generates, or takes from a Secret.
	UserScramSha512 UserAuthenticationType = "ScramSha512"
	// UserExternal is somebody else's business, such as that of an OIDC provider.
	UserExternal UserAuthenticationType = "External"
)

// UserAuthentication is a union by type.
//
// +kubebuilder:validation:XValidation:rule="!has(self.scramSha512) || self.type == 'ScramSha512'",message="scramSha512 goes with type ScramSha512"
// +kubebuilder:validation:XValidation:rule="self.type != 'External' || !has(self.secretName) && !has(self.rotation)",message="with External there is no Secret to write: leave secretName and rotation out"
type UserAuthentication struct {
	Type UserAuthenticationType `json:"type"`
	// SecretName of the Secret that credentials are written to, in this namespace; default is
	// the name of this object.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName,omitempty"`
	// Rotation asks for a new certificate or password whenever it is changed; any text.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Rotation string `json:"rotation,omitempty"`
	// +optional
	ScramSha512 *ScramAuthentication `json:"scramSha512,omitempty"`
}

// ScramAuthentication configures ScramSha512.
type ScramAuthentication struct {
	// Password is given in this Secret of the same namespace; without it one is generated.
	// +optional
	Password *corev1.SecretKeySelector `json:"password,omitempty"`
}

// ACLResourceType is what kind of thing an ACL is about.
// +kubebuilder:validation:Enum=Topic;Group;TransactionalId;Cluster;DelegationToken;User
type ACLResourceType string

// The types of resources. User is for tokens that are made for others (KIP-373).
const (
	ACLTopic           ACLResourceType = "Topic"
	ACLGroup           ACLResourceType = "Group"
	ACLTransactionalID ACLResourceType = "TransactionalId"
	ACLCluster         ACLResourceType = "Cluster"
	ACLDelegationToken ACLResourceType = "DelegationToken"
	ACLUser            ACLResourceType = "User"
)

// ACLPatternType is how a name matches.
// +kubebuilder:validation:Enum=Literal;Prefixed
type ACLPatternType string

// The pattern types. Literal * is every name.
const (
	ACLLiteral  ACLPatternType = "Literal"
	ACLPrefixed ACLPatternType = "Prefixed"
)

// ACLOperation is what is done to a resource.
// +kubebuilder:validation:Enum=All;Read;Write;Create;Delete;Alter;Describe;ClusterAction;DescribeConfigs;AlterConfigs;IdempotentWrite;CreateTokens;DescribeTokens;TwoPhaseCommit
type ACLOperation string

// The operations (org.apache.kafka.common.acl.AclOperation).
const (
	ACLAll             ACLOperation = "All"
	ACLRead            ACLOperation = "Read"
	ACLWrite           ACLOperation = "Write"
	ACLCreate          ACLOperation = "Create"
	ACLDelete          ACLOperation = "Delete"
	ACLAlter           ACLOperation = "Alter"
	ACLDescribe        ACLOperation = "Describe"
	ACLClusterAction   ACLOperation = "ClusterAction"
	ACLDescribeConfigs ACLOperation = "DescribeConfigs"
	ACLAlterConfigs    ACLOperation = "AlterConfigs"
	ACLIdempotentWrite ACLOperation = "IdempotentWrite"
	ACLCreateTokens    ACLOperation = "CreateTokens"
	ACLDescribeTokens  ACLOperation = "DescribeTokens"
	ACLTwoPhaseCommit  ACLOperation = "TwoPhaseCommit"
)

// ACLEffect says whether an ACL allows or denies. Deny wins.
// +kubebuilder:validation:Enum=Allow;Deny
type ACLEffect string

// The effects.
const (
	ACLAllow ACLEffect = "Allow"
	ACLDeny  ACLEffect = "Deny"
)

// ACL allows or denies operations on a resource.
type ACL struct {
	Resource ACLResource `json:"resource"`
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=set
	Operations []ACLOperation `json:"operations"`
	// +kubebuilder:default=Allow
	// +optional
	Effect ACLEffect `json:"effect,omitempty"`
	// Host is the address that clients come from; * is any.
	// +kubebuilder:default="*"
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host,omitempty"`
}

// ACLResource names what an ACL is about.
//
// +kubebuilder:validation:XValidation:rule="has(self.name) || self.type == 'Cluster'",message="name the resource; * is every one of its type"
// +kubebuilder:validation:XValidation:rule="self.type != 'Cluster' || !has(self.name) || self.name == 'kafka-cluster'",message="there is one Cluster, kafka-cluster: leave the name out"
// +kubebuilder:validation:XValidation:rule="self.type != 'Cluster' || !has(self.patternType) || self.patternType == 'Literal'",message="patternType of a Cluster is Literal"
type ACLResource struct {
	Type ACLResourceType `json:"type"`
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Name string `json:"name,omitempty"`
	// PatternType Prefixed is every name that begins with name.
	// +kubebuilder:default=Literal
	// +optional
	PatternType ACLPatternType `json:"patternType,omitempty"`
}

// ACLPattern is a name, or with Prefixed all names that begin with it; Literal * is every name.
type ACLPattern struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Name string `json:"name"`
	// +kubebuilder:default=Literal
	// +optional
	PatternType ACLPatternType `json:"patternType,omitempty"`
}

// ACLPresets are ACLs for the usual kinds of clients.
type ACLPresets struct {
	// Producer writes to topics that exist.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Producer []ProducerPreset `json:"producer,omitempty"`
	// Consumer reads topics in groups.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Consumer []ConsumerPreset `json:"consumer,omitempty"`
	// Streams is an application of Kafka Streams.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Streams []StreamsPreset `json:"streams,omitempty"`
	// TransactionalProducer writes to topics in transactions.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	TransactionalProducer []TransactionalProducerPreset `json:"transactionalProducer,omitempty"`
}

// ProducerPreset is Write and Describe on the topic.
type ProducerPreset struct {
	Topic ACLPattern `json:"topic"`
}

// ConsumerPreset is Read and Describe on the topic, Read and Describe on the group.
type ConsumerPreset struct {
	Topic ACLPattern `json:"topic"`
	Group ACLPattern `json:"group"`
}

// StreamsPreset is Read and Describe on the inputs, Write and Describe on the outputs, All on
// topics and groups whose names begin with the application id, and Write and Describe on
// transactional ids that do.
type StreamsPreset struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=200
	ApplicationID string `json:"applicationID"`
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Inputs []ACLPattern `json:"inputs,omitempty"`
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Outputs []ACLPattern `json:"outputs,omitempty"`
}

// TransactionalProducerPreset is Write and Describe on the topic and on the transactional id.
type TransactionalProducerPreset struct {
	Topic           ACLPattern `json:"topic"`
	TransactionalID ACLPattern `json:"transactionalID"`
}

// UserQuotas limit a principal, in all and by client id.
type UserQuotas struct {
	Quota `json:",inline"`
	// Clients are limits for single client ids of this principal; in force in place of those above.
	// +optional
	// +listType=map
	// +listMapKey=clientID
	// +kubebuilder:validation:MaxItems=100
	Clients []ClientQuota `json:"clients,omitempty"`
}

// ClientQuota limits one client id of a principal.
type ClientQuota struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ClientID string `json:"clientID"`
	Quota    `json:",inline"`
}

// KafkaUserStatus says how the principal is in Kafka.
type KafkaUserStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions: Ready, and while they are True Reconciling and Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Principal as Kafka writes it, such as User:orders.
	// +optional
	Principal string `json:"principal,omitempty"`
	// ACLs are what spec.acls and spec.presets come to.
	// +optional
	// +listType=atomic
	ACLs []ACL `json:"acls,omitempty"`
	// VerifiedAt is when what stands in spec was last read back from Kafka after a change of it.
	// It is looked at all the time; only a difference changes this status.
	// +optional
	VerifiedAt *metav1.Time `json:"verifiedAt,omitempty"`
	// SecretName of the Secret with the credentials.
	// +optional
	SecretName string `json:"secretName,omitempty"`
}
