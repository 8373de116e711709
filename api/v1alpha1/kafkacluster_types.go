package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// KafkaCluster is one Kafka cluster as a user wants it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=kc,categories=castellan
// +kubebuilder:printcolumn:name="VERSION",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="READY",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="NODES",type=integer,JSONPath=`.status.nodes.ready`
// +kubebuilder:printcolumn:name="DESIRED",type=integer,JSONPath=`.status.nodes.desired`
// +kubebuilder:printcolumn:name="DOING",type=string,JSONPath=`.status.doing`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
type KafkaCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   KafkaClusterSpec   `json:"spec"`
	Status KafkaClusterStatus `json:"status,omitempty"`
}

// KafkaClusterList is a list of KafkaClusters.
//
// +kubebuilder:object:root=true
type KafkaClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []KafkaCluster `json:"items"`
}

// KafkaClusterSpec is the whole cluster from one description.
//
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.clusterID) || size(oldSelf.clusterID) == 0 || (has(self.clusterID) && self.clusterID == oldSelf.clusterID)",message="clusterID cannot change: it names the data on disk; create another KafkaCluster to adopt other data"
type KafkaClusterSpec struct {
	// Version is the Kafka version that every node runs, for example 4.3.1. On hosts it
	// selects the Package, on Kubernetes the image.
	// +kubebuilder:validation:Pattern=`^\d+\.\d+\.\d+$`
	// +kubebuilder:validation:MaxLength=32
	Version string `json:"version"`
	// ClusterID is set only to adopt existing data; otherwise an id is generated once
	// and kept in every KafkaNode and ClusterRevision.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ClusterID string `json:"clusterID,omitempty"`
	// Package names the Package to run when several have this version.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Package string `json:"package,omitempty"`
	// MetadataVersion pins Kafka's metadata.version; empty follows Version when the upgrade
	// policy allows it.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	MetadataVersion string `json:"metadataVersion,omitempty"`
	// Config holds Kafka configuration of every node: any key of this version that
	// Castellan does not own.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	Config Config `json:"config,omitempty"`
	// ExtraConfig holds keys that the key table of this version does not know. They are
	// passed through with a warning; changing one restarts nodes.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	ExtraConfig Config `json:"extraConfig,omitempty"`
	// Pools are groups of nodes with the same roles and shape.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=50
	// +listType=map
	// +listMapKey=name
	Pools []Pool `json:"pools"`
	// Listeners are where clients connect. The two listeners that Castellan itself uses
	// (CONTROLLER and INTERNAL, mutual TLS) are always there and not listed.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	Listeners []Listener `json:"listeners,omitempty"`
	// Certificates of this cluster; by default of CAs that Castellan makes and replaces in time.
	// +optional
	Certificates Certificates `json:"certificates,omitzero"`
	// Authorization of client requests.
	// +optional
	Authorization *Authorization `json:"authorization,omitempty"`
	// AllowedNamespaces says from which namespaces topics and users may be bound to this
	// cluster; default is its own.
	// +optional
	AllowedNamespaces AllowedNamespaces `json:"allowedNamespaces,omitzero"`
	// Prune removes topics, ACLs, credentials and quotas of users that no KafkaTopic and no
	// KafkaUser names; otherwise they are left alone and counted (status.unmanaged). Nothing of
	// a kind is removed while there is no object of it at all.
	// +optional
	Prune bool `json:"prune,omitempty"`
	// PruneKeep is left alone by prune: names of topics and principals (without User:), or with
	// a * at the end all that begin so.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=500
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	PruneKeep []string `json:"pruneKeep,omitempty"`
	// Quotas of client ids and addresses, and those by default. Where any stands here these are
	// all that there are; otherwise those in Kafka are left alone.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=200
	Quotas []ClusterQuota `json:"quotas,omitempty"`
	// Rollout says how changes reach the nodes.
	// +optional
	Rollout Rollout `json:"rollout,omitempty"`
	// Balance says how replicas move between brokers.
	// +optional
	Balance Balance `json:"balance,omitempty"`
	// DeletionPolicy says what happens to the data when this object is deleted.
	// +kubebuilder:default=Retain
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
	// State Stopped stops all nodes in order and keeps their data; Running starts them again.
	// +kubebuilder:default=Running
	// +optional
	State RunState `json:"state,omitempty"`
	// Paused makes the operator observe and report only.
	// +optional
	Paused bool `json:"paused,omitempty"`
}

// DeletionPolicy says what happens to data.
// +kubebuilder:validation:Enum=Retain;Delete
type DeletionPolicy string

// The deletion policies.
const (
	DeletionRetain DeletionPolicy = "Retain"
	DeletionDelete DeletionPolicy = "Delete"
)

// RunState is whether something shall run.
// +kubebuilder:validation:Enum=Running;Stopped
type RunState string

// The run states.
const (
	StateRunning RunState = "Running"
	StateStopped RunState = "Stopped"
)

// Role is what a Kafka node does (process.roles).
// +kubebuilder:validation:Enum=broker;controller
type Role string

// The roles of a Kafka node.
const (
	RoleBroker     Role = "broker"
	RoleController Role = "controller"
)

// Pool is a group of nodes with the same roles and shape.
//
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.firstNodeID) || (has(self.firstNodeID) && self.firstNodeID == oldSelf.firstNodeID)",message="firstNodeID cannot change: node ids name data on disk"
type Pool struct {
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=40
	Name string `json:"name"`
	// Roles of each node: broker, controller or both (a combined node).
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	// +listType=set
	Roles []Role `json:"roles"`
	// Remove are the ids of nodes that leave: their replicas move to other brokers first. They
	// are not counted in replicas; where fewer replicas are wanted and nothing stands here the
	// highest ids leave.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=1000
	Remove []int32 `json:"remove,omitempty"`
	// WhenScaled says what happens to the data of a node that has left: Retain keeps its
	// volumes.
	// +kubebuilder:default=Retain
	// +optional
	WhenScaled DeletionPolicy `json:"whenScaled,omitempty"`
	// Replicas is how many nodes the pool has.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Replicas int32 `json:"replicas"`
	// FirstNodeID is the first Kafka node id of the pool; ids are never reused. Without
	// it the pool takes the next free ids.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	FirstNodeID *int32 `json:"firstNodeID,omitempty"`
	// JVM settings of each node.
	// +optional
	JVM JVM `json:"jvm,omitempty"`
	// Resources of each node: the limits of its process.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	// Volumes hold the node's log directories; the first one also holds the metadata log.
	// Without any, one volume named data is used.
	// +optional
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=name
	Volumes []Volume `json:"volumes,omitempty"`
	// Config is over spec.config for the nodes of this pool.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	Config Config `json:"config,omitempty"`
	// Overrides make single nodes different from their pool.
	// +optional
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=nodeID
	Overrides []NodeOverride `json:"overrides,omitempty"`
	// Placement says where the nodes run: exactly one member is set.
	// +optional
	Placement Placement `json:"placement,omitempty"`
}

// JVM settings of a node.
type JVM struct {
	// Heap is the Java heap (-Xms and -Xmx). Default 1Gi for brokers, 512Mi for
	// controllers.
	// +optional
	Heap *resource.Quantity `json:"heap,omitempty"`
	// Options are further options of the Java virtual machine. Options that run
	// commands or load agents are refused.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	Options []string `json:"options,omitempty"`
}

// Volume is one log directory of a node.
type Volume struct {
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=40
	Name string `json:"name"`
	// Size of the volume; optional on hosts.
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`
	// StorageClassName on Kubernetes.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	StorageClassName string `json:"storageClassName,omitempty"`
	// Path on hosts: the root below which <namespace>/<cluster>/<id>/<volume> is made; it
	// must lie in one of the host's data roots. Default is the host's first data root.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Path string `json:"path,omitempty"`
}

// NodeOverride makes one node different from its pool.
type NodeOverride struct {
	// +kubebuilder:validation:Minimum=0
	NodeID int32 `json:"nodeID"`
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	Config Config `json:"config,omitempty"`
	// +optional
	JVM *JVM `json:"jvm,omitempty"`
	// +optional
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`
	// Image on Kubernetes.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Image string `json:"image,omitempty"`
}

// Placement is a union: where the nodes of a pool run.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.kubernetes) && has(self.hosts))",message="set kubernetes or hosts, not both"
type Placement struct {
	// Kubernetes runs the nodes as pods.
	// +optional
	Kubernetes *KubernetesPlacement `json:"kubernetes,omitempty"`
	// Hosts places the nodes on Hosts (the default when nothing is set).
	// +optional
	Hosts *HostPlacement `json:"hosts,omitempty"`
}

// Spread says what the nodes of a pool are spread over.
// +kubebuilder:validation:Enum=Zone;Node;None
type Spread string

// The ways to spread. Zone evens the nodes out over the zones and keeps two of one pool
// from sharing a Kubernetes node; Node only the latter; None neither.
const (
	SpreadZone Spread = "Zone"
	SpreadNode Spread = "Node"
	SpreadNone Spread = "None"
)

// KubernetesPlacement runs nodes as pods. Everything here is part of the pod, so a change
// restarts the node by plan.
type KubernetesPlacement struct {
	// +kubebuilder:default=Zone
	// +optional
	Spread Spread `json:"spread,omitempty"`
	// Image that holds Kafka below /opt/kafka and a Java runtime; default is apache/kafka of
	// spec.version.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Image string `json:"image,omitempty"`
	// ImagePullSecrets of the pods.
	// +optional
	// +listType=atomic
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// +optional
	// +listType=atomic
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// Affinity of the pods, beside what spread asks for.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`
}

// HostPlacement places nodes on Hosts.
type HostPlacement struct {
	// Selector of Hosts by label; empty selects every Host that allows the namespace.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// Names of Hosts, in the order in which nodes are placed.
	// +optional
	// +kubebuilder:validation:MaxItems=1000
	// +listType=set
	Names []string `json:"names,omitempty"`
	// MaxPerHost bounds how many nodes of this cluster's pool share a host.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +optional
	MaxPerHost int32 `json:"maxPerHost,omitempty"`
}

// Listener is one place where clients connect.
//
// +kubebuilder:validation:XValidation:rule="!has(self.authentication) || !has(self.authentication.type) || !(self.authentication.type in ['MutualTLS', 'OAuth']) || has(self.tls)",message="authentication MutualTLS and OAuth need tls: set tls: {}"
type Listener struct {
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=25
	Name string `json:"name"`
	// Port that every broker listens on. On a host where it is taken by another node the
	// next free one of the host's port range is given, once.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// TLS encrypts the listener, with a certificate of this cluster's CA or with one's own.
	// +optional
	TLS *ListenerTLS `json:"tls,omitempty"`
	// Authentication of clients.
	// +optional
	Authentication Authentication `json:"authentication,omitempty"`
	// Exposure says from where the listener is reached.
	// +optional
	Exposure Exposure `json:"exposure,omitempty"`
}

// ListenerTLS configures TLS of a listener.
type ListenerTLS struct {
	// SecretRef names a Secret of this namespace with a certificate of one's own: tls.crt (the
	// chain, leaf first), tls.key, and ca.crt where clients need a CA to trust. Other content is
	// taken up without a restart; what cannot be used is reported, and the last good one stays.
	// +optional
	SecretRef *SecretRef `json:"secretRef,omitempty"`
}

// SecretRef names a Secret of the same namespace.
type SecretRef struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Certificates says whose CAs sign. Nothing in here restarts a node.
type Certificates struct {
	// ClusterCA signs what nodes and the operator show; clients trust it.
	// +optional
	ClusterCA CertificateAuthority `json:"clusterCA,omitzero"`
	// ClientsCA signs what clients show on listeners with MutualTLS.
	// +optional
	ClientsCA CertificateAuthority `json:"clientsCA,omitzero"`
	// ClientGrace is how long clients may take to use what their Secret holds, while a CA is
	// being replaced; nobody can look at them. Default 24h.
	// +optional
	ClientGrace *metav1.Duration `json:"clientGrace,omitempty"`
}

// CertificateAuthority is one of the two CAs.
type CertificateAuthority struct {
	// SecretRef names a Secret of this namespace with a CA of one's own: tls.crt (the CA's
	// certificate, then each one's signer), tls.key, and ca.crt where the root is not in the
	// chain. Other content replaces the CA; what cannot be used is reported, and the last good
	// one goes on.
	// +optional
	SecretRef *SecretRef `json:"secretRef,omitempty"`
	// Generation asks for a new key of the CA that Castellan makes, whenever it is raised.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Generation int64 `json:"generation,omitempty"`
}

// AuthenticationType is how clients prove who they are.
// +kubebuilder:validation:Enum=None;MutualTLS;ScramSha512;OAuth;Plain
type AuthenticationType string

// The ways of authentication. Without any, every client is User:ANONYMOUS.
const (
	AuthenticationNone AuthenticationType = "None"
	// AuthenticationMutualTLS takes certificates of the cluster's clients CA; CN=<name> alone
	// or with further attributes is User:<name>.
	AuthenticationMutualTLS AuthenticationType = "MutualTLS"
	// AuthenticationScramSha512 takes users whose SCRAM credentials live in Kafka.
	AuthenticationScramSha512 AuthenticationType = "ScramSha512"
	// AuthenticationOAuth takes tokens of an OpenID provider (SASL/OAUTHBEARER, KIP-768).
	AuthenticationOAuth AuthenticationType = "OAuth"
	// AuthenticationPlain takes users and passwords of a Secret (SASL/PLAIN).
	AuthenticationPlain AuthenticationType = "Plain"
)

// Authentication of clients at a listener: a union by type.
//
// +kubebuilder:validation:XValidation:rule="has(self.oauth) == (has(self.type) && self.type == 'OAuth')",message="oauth goes with type OAuth, and that needs it"
// +kubebuilder:validation:XValidation:rule="has(self.plain) == (has(self.type) && self.type == 'Plain')",message="plain goes with type Plain, and that needs it"
type Authentication struct {
	// +kubebuilder:default=None
	// +optional
	Type AuthenticationType `json:"type,omitempty"`
	// OAuth says whose tokens are taken.
	// +optional
	OAuth *OAuthAuthentication `json:"oauth,omitempty"`
	// Plain says where users and passwords are.
	// +optional
	Plain *PlainAuthentication `json:"plain,omitempty"`
}

// OAuthTokens says which tokens are taken, and what is read from them.
type OAuthTokens struct {
	// JWKSURL is where the provider publishes the keys that it signs with (jwks_uri).
	// +kubebuilder:validation:Pattern=`^https?://[^\s,"\\]+$`
	// +kubebuilder:validation:MaxLength=1024
	JWKSURL string `json:"jwksURL"`
	// Issuer that a token must have (claim iss).
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Issuer string `json:"issuer"`
	// Audiences of which a token must have one (claim aud). Without any, a token that the
	// issuer made for another service is taken too.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	Audiences []string `json:"audiences,omitempty"`
	// PrincipalClaim names the claim that becomes User:<value>; default sub.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	PrincipalClaim string `json:"principalClaim,omitempty"`
	// ScopeClaim names the claim with the scopes; default scope.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	ScopeClaim string `json:"scopeClaim,omitempty"`
}

// OAuthAuthentication configures OAuth of a listener.
type OAuthAuthentication struct {
	OAuthTokens `json:",inline"`
	// CASecretRef names a Secret of this namespace whose key ca.crt holds the CA of the
	// provider's endpoint; without it those that the Java runtime trusts.
	// +optional
	CASecretRef *SecretRef `json:"caSecretRef,omitempty"`
}

// PlainAuthentication configures Plain of a listener.
type PlainAuthentication struct {
	// UsersSecretRef names a Secret of this namespace: each key is a user, its value the
	// password. A change is in force within a minute, without a restart.
	UsersSecretRef SecretRef `json:"usersSecretRef"`
}

// ExposureType is from where a listener is reached.
// +kubebuilder:validation:Enum=Internal;HostAddress;NodePort;LoadBalancer
type ExposureType string

// The kinds of exposure. Internal is the pod network, or the address of a host; NodePort and
// LoadBalancer are Services of Kubernetes, one per broker and one to begin with.
const (
	ExposureInternal     ExposureType = "Internal"
	ExposureHostAddress  ExposureType = "HostAddress"
	ExposureNodePort     ExposureType = "NodePort"
	ExposureLoadBalancer ExposureType = "LoadBalancer"
)

// Exposure of a listener. In host, bootstrapHost and the values of annotations, {id} stands
// for the node id, {cluster}, {namespace}, {listener} for those names.
//
// +kubebuilder:validation:XValidation:rule="!has(self.addressType) || self.type == 'NodePort'",message="addressType goes with type NodePort"
type Exposure struct {
	// +kubebuilder:default=Internal
	// +optional
	Type ExposureType `json:"type,omitempty"`
	// AddressType is which address of its Kubernetes node a broker advertises with NodePort;
	// default InternalIP.
	// +optional
	// +kubebuilder:validation:Enum=InternalIP;ExternalIP;Hostname;InternalDNS;ExternalDNS
	AddressType corev1.NodeAddressType `json:"addressType,omitempty"`
	// Host is what a broker advertises in place of the address found, for example
	// broker-{id}.kafka.example.com.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host,omitempty"`
	// BootstrapHost is what clients are told to begin with in place of the address found.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	BootstrapHost string `json:"bootstrapHost,omitempty"`
	// Annotations of the brokers' Services.
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// BootstrapAnnotations of the Service to begin with.
	// +optional
	BootstrapAnnotations map[string]string `json:"bootstrapAnnotations,omitempty"`
	// LoadBalancerClass of the Services of type LoadBalancer.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	LoadBalancerClass string `json:"loadBalancerClass,omitempty"`
}

// AuthorizationType is how client requests are allowed.
// +kubebuilder:validation:Enum=None;ACL
type AuthorizationType string

// The kinds of authorization. None allows what no ACL forbids; ACL forbids what no ACL allows.
const (
	AuthorizationNone AuthorizationType = "None"
	AuthorizationACL  AuthorizationType = "ACL"
)

// Authorization of client requests. The listeners CONTROLLER and INTERNAL are always
// limited to Castellan and the cluster's own nodes.
type Authorization struct {
	// +kubebuilder:default=None
	// +optional
	Type AuthorizationType `json:"type,omitempty"`
	// SuperUsers may do everything, in Kafka's form User:<name>, beside the nodes and the
	// operator. A change restarts every node.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=50
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	SuperUsers []string `json:"superUsers,omitempty"`
}

// Rollout says how changes reach the nodes.
type Rollout struct {
	// MaxUnavailable is how many brokers of one rack may restart together: a number, a
	// percentage of all brokers, or Rack (a whole rack). Partition checks always hold on top.
	// +kubebuilder:default=1
	// +optional
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`
	// Approval Manual shows each plan in an Operation and waits until it is agreed to.
	// +kubebuilder:default=Automatic
	// +optional
	Approval Approval `json:"approval,omitempty"`
	// PauseAfter are canary points at which an Operation waits until it is resumed: FirstNode,
	// EachRack, or a node's id.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=100
	// +kubebuilder:validation:items:Pattern=`^(FirstNode|EachRack|[0-9]+)$`
	PauseAfter []string `json:"pauseAfter,omitempty"`
	// OnFailure says what follows when more nodes fail than maxFailures.
	// +kubebuilder:default=Pause
	// +optional
	OnFailure OnFailure `json:"onFailure,omitempty"`
	// MaxFailures is how many nodes may fail before nothing more is begun. What partitions and
	// quorum need holds on top.
	// +optional
	// +kubebuilder:validation:Minimum=0
	MaxFailures int32 `json:"maxFailures,omitempty"`
	// NodeTimeout is how long a node may take to be ready again.
	// +kubebuilder:default="15m"
	// +optional
	NodeTimeout *metav1.Duration `json:"nodeTimeout,omitempty"`
	// Windows are the times in which nodes may be changed; none is always. Repairs wait for none.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50
	Windows []Window `json:"windows,omitempty"`
	// Upgrade says how an upgrade ends.
	// +optional
	Upgrade UpgradePolicy `json:"upgrade,omitempty"`
	// NoSpareReplica says what becomes of a broker that cannot be restarted without taking a
	// partition below min.insync.replicas or offline, even with all of its replicas in sync.
	// +optional
	NoSpareReplica NoSpareReplica `json:"noSpareReplica,omitempty"`
}

// NoSpareReplica is what becomes of a broker that a partition cannot spare.
type NoSpareReplica struct {
	// Then Wait leaves it until the topic is mended. Restart restarts it all the same once
	// after has passed: the partition takes no records until it is back, and loses none.
	// +kubebuilder:default=Wait
	// +optional
	Then NoSpareReplicaThen `json:"then,omitempty"`
	// After is how long the topic is waited for.
	// +kubebuilder:default="10m"
	// +optional
	After *metav1.Duration `json:"after,omitempty"`
}

// NoSpareReplicaThen is what follows when a broker could not be spared for a while.
// +kubebuilder:validation:Enum=Wait;Restart
type NoSpareReplicaThen string

// What follows.
const (
	NoSpareReplicaWait    NoSpareReplicaThen = "Wait"
	NoSpareReplicaRestart NoSpareReplicaThen = "Restart"
)

// Balance says how replicas move between brokers.
type Balance struct {
	// BytesPerSecond that each broker receives and sends for moves at most (KIP-73); none is no throttle.
	// +optional
	BytesPerSecond *resource.Quantity `json:"bytesPerSecond,omitempty"`
	// CopiesPerBroker is how many replicas a broker receives, and sends, at once. Ten let a
	// leader copy three whole partitions of three replicas, so that one is always under way.
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	CopiesPerBroker int32 `json:"copiesPerBroker,omitempty"`
	// CopiesPerCluster is how many replicas are copied at once in all.
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	// +optional
	CopiesPerCluster int32 `json:"copiesPerCluster,omitempty"`
	// HeadroomPercent of each log dir stays free, copies under way counted.
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=90
	// +optional
	HeadroomPercent *int32 `json:"headroomPercent,omitempty"`
	// FillNewBrokers moves replicas to brokers that are added, as soon as they are ready.
	// Otherwise they take only what is made from then on.
	// +optional
	FillNewBrokers bool `json:"fillNewBrokers,omitempty"`
}

// ReasonDegraded of ConditionAvailable says that clients are served, but not by every replica.
const ReasonDegraded = "Degraded"

// Types of conditions of a KafkaCluster, in the sense of kstatus.
const (
	// ConditionAccepted is False while the newest spec has errors; the last good one stays in force.
	ConditionAccepted = "Accepted"
	// ConditionReady is True when the newest generation is fully in force and every partition is served.
	ConditionReady = "Ready"
	// ConditionAvailable is False when a partition has no leader or is under min ISR.
	ConditionAvailable = "Available"
	// ConditionReconciling is True while something is being changed, with what and why.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is True when something blocks, with what the user can do.
	ConditionStalled = "Stalled"
	// ConditionCertificates is False while a CA is being replaced, with how far that is and for
	// whom it waits, and while something is wrong that the user can mend.
	ConditionCertificates = "Certificates"
)

// KafkaClusterStatus says what runs.
type KafkaClusterStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// +optional
	ClusterID string `json:"clusterID,omitempty"`
	// Version is the lowest version that a node runs.
	// +optional
	Version string `json:"version,omitempty"`
	// +optional
	MetadataVersion string `json:"metadataVersion,omitempty"`
	// Revision is the ClusterRevision in force.
	// +optional
	Revision string `json:"revision,omitempty"`
	// +optional
	Nodes NodeCounts `json:"nodes,omitempty"`
	// +optional
	Quorum *QuorumStatus `json:"quorum,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	Listeners []ListenerStatus `json:"listeners,omitempty"`
	// Operation names the Operation that is active.
	// +optional
	Operation string `json:"operation,omitempty"`
	// Doing is one short phrase: what is going on.
	// +optional
	Doing string `json:"doing,omitempty"`
	// Unmanaged counts what Kafka has and no KafkaTopic or KafkaUser names.
	// +optional
	Unmanaged *EntityCounts `json:"unmanaged,omitempty"`
}

// NodeCounts counts the nodes of a cluster.
//
// Every count is optional for the schema, so that a patch of one of them is valid.
type NodeCounts struct {
	// +optional
	Desired int32 `json:"desired"`
	// +optional
	Ready int32 `json:"ready"`
	// Updated nodes run what the newest accepted spec wants.
	// +optional
	Updated int32 `json:"updated"`
}

// QuorumStatus is the KRaft quorum as Kafka describes it.
type QuorumStatus struct {
	// +optional
	Leader int32 `json:"leader"`
	// +optional
	Epoch int32 `json:"epoch"`
	// +optional
	// +listType=atomic
	Voters []int32 `json:"voters"`
	// +optional
	// +listType=atomic
	Observers []int32 `json:"observers,omitempty"`
}

// Authentication of the listener of that name: how its clients prove who they are.
func (s *KafkaClusterSpec) Authentication(listener string) AuthenticationType {
	for _, l := range s.Listeners {
		if l.Name == listener && l.Authentication.Type != "" {
			return l.Authentication.Type
		}
	}
	return AuthenticationNone
}

// ListenerStatus says how clients reach a listener.
type ListenerStatus struct {
	Name             string `json:"name"`
	BootstrapServers string `json:"bootstrapServers"`
	// CASecretRef names the Secret of this namespace whose key ca.crt clients trust.
	// +optional
	CASecretRef *corev1.LocalObjectReference `json:"caSecretRef,omitempty"`
}
