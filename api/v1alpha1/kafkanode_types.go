package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KafkaNode is one Kafka process. Its spec is written by the plan engine and nobody else:
// spec.process is the permission to restart, everything else is applied live.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=kn,categories=castellan
// +kubebuilder:printcolumn:name="CLUSTER",type=string,JSONPath=`.spec.clusterName`
// +kubebuilder:printcolumn:name="ID",type=integer,JSONPath=`.spec.nodeID`
// +kubebuilder:printcolumn:name="ROLES",type=string,JSONPath=`.status.roles`
// +kubebuilder:printcolumn:name="VERSION",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="RACK",type=string,JSONPath=`.status.rack`
// +kubebuilder:printcolumn:name="STATE",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="READY",type=boolean,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="REASON",type=string,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="NODE",type=string,priority=1,JSONPath=`.status.placement.node`
// +kubebuilder:printcolumn:name="MESSAGE",type=string,priority=1,JSONPath=`.status.message`
type KafkaNode struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   KafkaNodeSpec   `json:"spec"`
	Status KafkaNodeStatus `json:"status,omitempty"`
}

// KafkaNodeList is a list of KafkaNodes.
//
// +kubebuilder:object:root=true
type KafkaNodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []KafkaNode `json:"items"`
}

// KafkaNodeSpec is what one Kafka process must be.
//
// +kubebuilder:validation:XValidation:rule="self.nodeID == oldSelf.nodeID && self.clusterName == oldSelf.clusterName",message="clusterName and nodeID cannot change: they name the data on disk"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.clusterID) || size(oldSelf.clusterID) == 0 || (has(self.clusterID) && self.clusterID == oldSelf.clusterID)",message="clusterID cannot change once known"
type KafkaNodeSpec struct {
	// +kubebuilder:validation:MaxLength=253
	ClusterName string `json:"clusterName"`
	// ClusterID is empty until it is known from a bootstrap or from adopted data.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ClusterID string `json:"clusterID,omitempty"`
	// +kubebuilder:validation:Minimum=0
	NodeID int32  `json:"nodeID"`
	Pool   string `json:"pool"`
	// +listType=set
	Roles []Role `json:"roles"`
	// Revision names the ClusterRevision that this node was last brought to.
	Revision string `json:"revision"`
	// Process is the permission to restart: the node restarts when it differs from what runs.
	Process ProcessSpec `json:"process"`
	// Dynamic holds the per-broker configuration that lives in Kafka for this node.
	// +optional
	Dynamic map[string]string `json:"dynamic,omitempty"`
	// Certificates name by digest what the node's Secret must hold.
	// +optional
	Certificates NodeCertificates `json:"certificates,omitempty"`
	// Volumes are the log directories; the first one holds the metadata log.
	// +listType=map
	// +listMapKey=name
	Volumes []NodeVolume `json:"volumes"`
	// Host is the Host that runs the node.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host,omitempty"`
	// Rack of the host (broker.rack); read at each start, never a reason to restart.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Rack string `json:"rack,omitempty"`
	// Address that the node advertises.
	// +kubebuilder:validation:MaxLength=253
	Address string `json:"address"`
	// Ports by listener name, CONTROLLER and INTERNAL among them; once given they stay.
	Ports map[string]int32 `json:"ports"`
	// BootstrapControllers are host:port of the controllers (controller.quorum.bootstrap.servers);
	// read at each start, never a reason to restart.
	// +optional
	// +listType=atomic
	BootstrapControllers []string `json:"bootstrapControllers,omitempty"`
	// Exposures are the listeners that are reached through Services of their own. What was
	// once given (ports, addresses) stays.
	// +optional
	// +listType=map
	// +listMapKey=listener
	Exposures []NodeExposure `json:"exposures,omitempty"`
	// Replaced is the last request (annotation castellan.dev/replace-volumes of the KafkaNode)
	// that was granted.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Replaced string `json:"replaced,omitempty"`
	// Storage is the answer to the supervisor's question about its disks.
	// +optional
	Storage *StorageAnswer `json:"storage,omitempty"`
	// Change says on whose behalf the process was last changed.
	// +optional
	Change *NodeChange `json:"change,omitempty"`
	// +kubebuilder:default=Running
	// +optional
	State RunState `json:"state,omitempty"`
}

// ProcessSpec is everything that needs a restart to take effect.
type ProcessSpec struct {
	Version string `json:"version"`
	// Package is the digest (sha256:<hex>) of the archive that a host runs.
	// +optional
	Package string `json:"package,omitempty"`
	// Image is what Kubernetes runs.
	// +optional
	Image string `json:"image,omitempty"`
	// Config is the static Kafka configuration, without what the supervisor itself renders
	// (listeners, log directories, quorum, key stores).
	// +optional
	Config map[string]string `json:"config,omitempty"`
	// Listeners in the order in which they are rendered, without the CONTROLLER and INTERNAL ones.
	// +optional
	// +listType=map
	// +listMapKey=name
	Listeners []NodeListener `json:"listeners,omitempty"`
	// SuperUsers in Kafka's form, beside the nodes and the operator, in order of name.
	// +optional
	// +listType=atomic
	SuperUsers []string `json:"superUsers,omitempty"`
	// Volumes names the volumes whose paths are Kafka's log.dirs, in order.
	// +listType=atomic
	Volumes []string `json:"volumes"`
	// HeapBytes is the Java heap in bytes.
	HeapBytes int64 `json:"heapBytes"`
	// +optional
	// +listType=atomic
	JVMOptions []string `json:"jvmOptions,omitempty"`
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	// Layout is the version of the rendering rules for this node.
	Layout int32 `json:"layout"`
	// Supervisor is the version of castellan node that runs the JVM; on Kubernetes the image
	// that it is copied from.
	// +optional
	Supervisor string `json:"supervisor,omitempty"`
	// Restart names the Operation that last asked for a restart without any other change.
	// +optional
	// +kubebuilder:validation:MaxLength=260
	Restart string `json:"restart,omitempty"`
	// Pod holds what else stands in the pod, on Kubernetes.
	// +optional
	Pod *PodSettings `json:"pod,omitempty"`
}

// PodSettings are the parts of a KubernetesPlacement that stand in the pod.
type PodSettings struct {
	// +optional
	Spread Spread `json:"spread,omitempty"`
	// +optional
	// +listType=atomic
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// +optional
	// +listType=atomic
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`
}

// NodeExposure is a listener of a node that is reached through a Service of its own, named
// <cluster>-<id>-<listener>.
type NodeExposure struct {
	Listener string       `json:"listener"`
	Type     ExposureType `json:"type"`
	// AddressType of the Kubernetes node that is advertised (NodePort without Host).
	// +optional
	AddressType corev1.NodeAddressType `json:"addressType,omitempty"`
	// Host that is advertised in place of the address found.
	// +optional
	Host string `json:"host,omitempty"`
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// +optional
	LoadBalancerClass string `json:"loadBalancerClass,omitempty"`
	// NodePort of the Service, once it was given.
	// +optional
	NodePort int32 `json:"nodePort,omitempty"`
	// Address of the load balancer, once it was given.
	// +optional
	Address string `json:"address,omitempty"`
	// BootstrapNodePort of the cluster's bootstrap Service of this listener, once it was given.
	// +optional
	BootstrapNodePort int32 `json:"bootstrapNodePort,omitempty"`
}

// NodeListener is a client listener of a node. What its files hold (certificates, users) is no
// part of it: they are taken up while the node runs.
type NodeListener struct {
	Name string `json:"name"`
	// Protocol is Kafka's security protocol.
	// +kubebuilder:validation:Enum=PLAINTEXT;SSL;SASL_PLAINTEXT;SASL_SSL
	Protocol string `json:"protocol"`
	// Authentication of clients; empty is None.
	// +optional
	Authentication AuthenticationType `json:"authentication,omitempty"`
	// OAuth goes with authentication OAuth.
	// +optional
	OAuth *NodeOAuth `json:"oauth,omitempty"`
	// OwnCertificate says that the listener does not serve the node's certificate.
	// +optional
	OwnCertificate bool `json:"ownCertificate,omitempty"`
}

// NodeOAuth is OAuth of a node's listener.
type NodeOAuth struct {
	OAuthTokens `json:",inline"`
	// OwnCA says that the provider's endpoint has a certificate of a CA of its own.
	// +optional
	OwnCA bool `json:"ownCA,omitempty"`
}

// NodeCertificates name the content of the node's Secret by digest (sha256:<hex>).
type NodeCertificates struct {
	// +optional
	Digest string `json:"digest,omitempty"`
	// NotAfter is when the node's certificate ends.
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`
}

// NodeVolume is one log directory of a node.
type NodeVolume struct {
	Name string `json:"name"`
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`
	// Path of the log directory.
	Path string `json:"path"`
	// Claim names the PersistentVolumeClaim, on Kubernetes.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Claim string `json:"claim,omitempty"`
	// StorageClassName of the claim; empty is the default class.
	// +optional
	StorageClassName string `json:"storageClassName,omitempty"`
	// DirectoryID that Kafka's format gave the log directory, once it was seen. An empty
	// volume without one was never used and may be formatted at once.
	// +optional
	DirectoryID string `json:"directoryID,omitempty"`
}

// StorageAnswerType answers a supervisor that asks what to do with its disks.
// +kubebuilder:validation:Enum=Bootstrap;Join;Adopt
type StorageAnswerType string

// The answers. Bootstrap formats a first controller (or a broker of a new cluster), Join
// formats an empty node of an existing cluster, Adopt takes formatted disks as they are.
const (
	StorageBootstrap StorageAnswerType = "Bootstrap"
	StorageJoin      StorageAnswerType = "Join"
	StorageAdopt     StorageAnswerType = "Adopt"
)

// StorageAnswer answers one nonce, once.
type StorageAnswer struct {
	// Nonce is the question that this answers; another nonce is another question.
	Nonce  string            `json:"nonce"`
	Answer StorageAnswerType `json:"answer"`
	// InitialControllers, for Bootstrap of a controller, in the form of
	// kafka-storage format --initial-controllers: id@host:port:directoryID.
	// +optional
	// +listType=atomic
	InitialControllers []string `json:"initialControllers,omitempty"`
	// MetadataVersion to format with (kafka-storage format --release-version); empty is the newest.
	// +optional
	MetadataVersion string `json:"metadataVersion,omitempty"`
}

// NodeChange says on whose behalf, why and when the node was last changed.
type NodeChange struct {
	// +optional
	Operation string      `json:"operation,omitempty"`
	Reason    string      `json:"reason"`
	Since     metav1.Time `json:"since"`
	// +optional
	FromRevision string `json:"fromRevision,omitempty"`
	// Attempt counts the retries within the operation.
	// +optional
	Attempt int32 `json:"attempt,omitempty"`
	// RolledBack says that the node failed and was given back what it ran before.
	// +optional
	RolledBack bool `json:"rolledBack,omitempty"`
	// WasDown says that the node was not running when it was changed, so that its staying
	// down says nothing about the change.
	// +optional
	WasDown bool `json:"wasDown,omitempty"`
}

// NodeState is the state of a KafkaNode in one word.
type NodeState string

// The states of a KafkaNode.
const (
	NodePending    NodeState = "Pending"    // not started yet: see reason
	NodeAsking     NodeState = "Asking"     // disks wait for the plan's answer
	NodeFormatting NodeState = "Formatting" // storage is being formatted
	NodeStarting   NodeState = "Starting"   // the JVM runs, Kafka is not ready
	NodeRunning    NodeState = "Running"    // ready
	NodeStopping   NodeState = "Stopping"   // controlled shutdown
	NodeStopped    NodeState = "Stopped"    // as asked
	NodeFailed     NodeState = "Failed"     // exited or cannot start: see reason
	NodeUnknown    NodeState = "Unknown"    // its host is silent
)

// KafkaNodeStatus is what is known of the process.
type KafkaNodeStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	State NodeState `json:"state,omitempty"`
	// +optional
	Ready bool `json:"ready,omitempty"`
	// Roles as one word for the table: broker, controller or combined.
	// +optional
	Roles string `json:"roles,omitempty"`
	// Reason is one CamelCase word: why the node is not ready.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Message is a sentence for a person: what happened and what to do.
	// +optional
	Message string `json:"message,omitempty"`
	// +optional
	Version string `json:"version,omitempty"`
	// +optional
	Rack string `json:"rack,omitempty"`
	// +optional
	Process *ProcessStatus `json:"process,omitempty"`
	// Nonce is the open question about the disks, if any.
	// +optional
	Nonce string `json:"nonce,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=name
	Volumes []VolumeStatus `json:"volumes,omitempty"`
	// CertificateDigest is what the node's live endpoints serve.
	// +optional
	CertificateDigest string `json:"certificateDigest,omitempty"`
	// Placement is where the node's pod runs, on Kubernetes.
	// +optional
	Placement *NodePlacement `json:"placement,omitempty"`
	// Exposures as found.
	// +optional
	// +listType=map
	// +listMapKey=listener
	Exposures []ExposureStatus `json:"exposures,omitempty"`
	// LastExit is how the process last ended when nobody asked it to.
	// +optional
	LastExit *ExitStatus `json:"lastExit,omitempty"`
	// Restarts counts ends that nobody asked for.
	// +optional
	Restarts int32 `json:"restarts,omitempty"`
}

// NodePlacement is what is known of the machine that a pod was scheduled to.
type NodePlacement struct {
	// Node is the Kubernetes node.
	Node string `json:"node"`
	// Zone of the Kubernetes node (topology.kubernetes.io/zone), which becomes broker.rack.
	// +optional
	Zone string `json:"zone,omitempty"`
	// Addresses of the Kubernetes node by type.
	// +optional
	Addresses map[string]string `json:"addresses,omitempty"`
	// Lost says that the volumes of the node are on a machine that was declared out of
	// service (taint node.kubernetes.io/out-of-service) or does not exist any more.
	// +optional
	Lost bool `json:"lost,omitempty"`
}

// ExposureStatus is what Kubernetes gave a listener.
type ExposureStatus struct {
	Listener string `json:"listener"`
	// +optional
	NodePort int32 `json:"nodePort,omitempty"`
	// Address of the load balancer: an IP address or a host name.
	// +optional
	Address string `json:"address,omitempty"`
}

// ProcessStatus is the running process.
type ProcessStatus struct {
	// Hash of the ProcessSpec that the process was started with.
	Hash string `json:"hash"`
	// PID of the JVM on its host, for operators.
	// +optional
	PID       int32       `json:"pid,omitempty"`
	StartedAt metav1.Time `json:"startedAt"`
}

// VolumeState is what a supervisor found on a volume.
type VolumeState string

// The states of a volume.
const (
	VolumeEmpty     VolumeState = "Empty"
	VolumeFormatted VolumeState = "Formatted"
	// VolumeForeign holds files, but nothing that Kafka formatted.
	VolumeForeign VolumeState = "Foreign"
	// VolumeUnreadable cannot be read or written.
	VolumeUnreadable VolumeState = "Unreadable"
)

// VolumeStatus is one volume as found (Kafka's meta.properties).
type VolumeStatus struct {
	Name  string      `json:"name"`
	State VolumeState `json:"state"`
	// +optional
	ClusterID string `json:"clusterID,omitempty"`
	// +optional
	NodeID *int32 `json:"nodeID,omitempty"`
	// +optional
	DirectoryID string `json:"directoryID,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}

// ExitStatus is how a process ended.
type ExitStatus struct {
	// Code of the exit; 128+n for signal n.
	Code int32 `json:"code"`
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
	// LogTail holds the last lines of the log.
	// +optional
	LogTail string      `json:"logTail,omitempty"`
	At      metav1.Time `json:"at"`
}
