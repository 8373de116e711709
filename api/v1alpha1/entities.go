package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EntityClusterRef names the KafkaCluster that a topic or a user belongs to.
type EntityClusterRef struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// Namespace of the KafkaCluster; empty is that of this object. The cluster must allow it
	// (spec.allowedNamespaces).
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
}

// NamespacesFrom says which namespaces are meant.
// +kubebuilder:validation:Enum=Same;All;Selector
type NamespacesFrom string

// The ways to choose namespaces.
const (
	// NamespacesSame is the cluster's own namespace.
	NamespacesSame NamespacesFrom = "Same"
	// NamespacesAll is every namespace.
	NamespacesAll NamespacesFrom = "All"
	// NamespacesSelector is the cluster's own, and those whose labels match.
	NamespacesSelector NamespacesFrom = "Selector"
)

// AllowedNamespaces says from which namespaces topics and users may be bound to a cluster.
//
// +kubebuilder:validation:XValidation:rule="(self.from == 'Selector') == has(self.selector)",message="selector goes with from: Selector, and with no other"
type AllowedNamespaces struct {
	// +kubebuilder:default=Same
	// +optional
	From NamespacesFrom `json:"from,omitempty"`
	// Selector of namespaces by label, with from: Selector.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// EntityCounts counts what a cluster has and no KafkaTopic or KafkaUser names.
//
// Every count is optional for the schema, so that a patch of one of them is valid.
type EntityCounts struct {
	// Total is the sum of the others.
	// +optional
	Total int32 `json:"total"`
	// Topics, those that Kafka keeps for itself not counted.
	// +optional
	Topics int32 `json:"topics"`
	// ACLs whose principal no KafkaUser has.
	// +optional
	ACLs int32 `json:"acls"`
	// Credentials for SCRAM whose user no KafkaUser has.
	// +optional
	Credentials int32 `json:"credentials"`
	// Quotas of users that no KafkaUser has, of client ids, of addresses, and defaults.
	// +optional
	Quotas int32 `json:"quotas"`
}

// Quota limits what clients may use. What is not set is not limited by it; what is set is above 0, and a byte rate is a
// whole number.
type Quota struct {
	// ProducerByteRate is bytes per second and broker.
	// +optional
	ProducerByteRate *resource.Quantity `json:"producerByteRate,omitempty"`
	// ConsumerByteRate is bytes per second and broker.
	// +optional
	ConsumerByteRate *resource.Quantity `json:"consumerByteRate,omitempty"`
	// RequestPercentage of the time of one request or network thread, per broker. A fraction is
	// written as text, "12.5".
	// +optional
	RequestPercentage *resource.Quantity `json:"requestPercentage,omitempty"`
	// ControllerMutationRate is partitions created or deleted per second (KIP-599).
	// +optional
	ControllerMutationRate *resource.Quantity `json:"controllerMutationRate,omitempty"`
}

// ClusterQuota limits clients that are not told apart by user: by client id, by address, or
// by default. Kafka's most specific quota is the one in force.
//
// +kubebuilder:validation:XValidation:rule="[has(self.clientID), has(self.address), has(self.everyUser), has(self.everyClientID), has(self.everyAddress)].filter(x, x).size() == 1",message="name one of clientID, address, everyUser, everyClientID and everyAddress"
// +kubebuilder:validation:XValidation:rule="(has(self.address) || has(self.everyAddress)) == has(self.connectionCreationRate)",message="connectionCreationRate goes with address or everyAddress, and nothing else does"
// +kubebuilder:validation:XValidation:rule="!has(self.connectionCreationRate) || !has(self.limits)",message="of an address only connectionCreationRate can be limited"
// +kubebuilder:validation:XValidation:rule="has(self.connectionCreationRate) || has(self.limits)",message="say what is limited: limits, or of an address connectionCreationRate"
type ClusterQuota struct {
	// ClientID of any user.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ClientID string `json:"clientID,omitempty"`
	// Address of clients (IPv4 or IPv6), from where they connect.
	// +optional
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=45
	Address string `json:"address,omitempty"`
	// EveryUser is each user that has no quota of its own.
	// +optional
	EveryUser *EveryOne `json:"everyUser,omitempty"`
	// EveryClientID is each client id that has none.
	// +optional
	EveryClientID *EveryOne `json:"everyClientID,omitempty"`
	// EveryAddress is each address that has none.
	// +optional
	EveryAddress *EveryOne `json:"everyAddress,omitempty"`
	// +optional
	Limits *Quota `json:"limits,omitempty"`
	// ConnectionCreationRate is connections per second that an address may open.
	// +optional
	// +kubebuilder:validation:Minimum=1
	ConnectionCreationRate *int32 `json:"connectionCreationRate,omitempty"`
}

// EveryOne stands for all that have no entry of their own; it is written {}.
type EveryOne struct{}

// Keys of the Secret of a KafkaUser that say who it is: a name and its password, or a certificate with its chain and its
// key, PEM.
const (
	UserSecretName        = "username"
	UserSecretPassword    = "password"
	UserSecretCertificate = "user.crt"
	UserSecretKey         = "user.key"
)

// ConditionEntities of a KafkaCluster says whether Kafka has the quotas of spec.quotas, and nothing
// that spec.prune removes. It is there while one of the two is asked for.
const ConditionEntities = "Entities"

const (
	// HoldAnnotation is what a topic or a user holds in Kafka: the uid of its object, so that a
	// copy of an object holds nothing, and what it ever set there. Castellan writes it before
	// anything is changed in Kafka.
	HoldAnnotation = "castellan.dev/holds"
	// HoldFinalizer keeps a topic or a user until Kafka has let go of it.
	HoldFinalizer = "castellan.dev/holds"
)
