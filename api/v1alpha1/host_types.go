package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Host is a machine with an agent.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=kh,categories=castellan
// +kubebuilder:printcolumn:name="ADDRESS",type=string,JSONPath=`.spec.address`
// +kubebuilder:printcolumn:name="RACK",type=string,JSONPath=`.spec.rack`
// +kubebuilder:printcolumn:name="READY",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="AGENT",type=string,JSONPath=`.status.agentVersion`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
type Host struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   HostSpec   `json:"spec"`
	Status HostStatus `json:"status,omitempty"`
}

// HostList is a list of Hosts.
//
// +kubebuilder:object:root=true
type HostList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Host `json:"items"`
}

// HostSpec is what Castellan may use of a machine.
type HostSpec struct {
	// Address under which other machines and clients reach the host.
	// +kubebuilder:validation:MaxLength=253
	Address string `json:"address"`
	// Rack becomes broker.rack.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Rack string `json:"rack,omitempty"`
	// AllowedNamespaces may place nodes here; none means closed, "*" means all.
	// +optional
	// +listType=set
	AllowedNamespaces []string `json:"allowedNamespaces,omitempty"`
	// DataRoots are the folders below which data may live; the first is the default.
	// +kubebuilder:validation:MinItems=1
	// +listType=set
	DataRoots []string `json:"dataRoots"`
	// PortRange gives ports to listeners whose own port is taken on this host.
	// +optional
	PortRange *PortRange `json:"portRange,omitempty"`
	// ListenerPorts says whether a listener's own port is tried before the range.
	// +kubebuilder:default=IfFree
	// +optional
	ListenerPorts ListenerPortPolicy `json:"listenerPorts,omitempty"`
	// User that processes run as; empty is the agent's own user.
	// +optional
	User string `json:"user,omitempty"`
}

// ListenerPortPolicy says how ports are given on a host.
// +kubebuilder:validation:Enum=IfFree;FromRange
type ListenerPortPolicy string

// The port policies.
const (
	PortsIfFree    ListenerPortPolicy = "IfFree"
	PortsFromRange ListenerPortPolicy = "FromRange"
)

// PortRange is a range of ports, both ends included.
//
// +kubebuilder:validation:XValidation:rule="self.from <= self.to",message="from must not be above to"
type PortRange struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	From int32 `json:"from"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	To int32 `json:"to"`
}

// HostStatus is what the agent found. It changes only when a fact changes; liveness is
// the Lease in the host's namespace.
type HostStatus struct {
	// Namespace is the host's own namespace, the only one that its agent may read.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// +optional
	AgentVersion string `json:"agentVersion,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// HostProcess is what one agent must run on its host. It knows nothing of Kafka.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hp,categories=castellan
// +kubebuilder:printcolumn:name="STATE",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="READY",type=boolean,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="PID",type=integer,JSONPath=`.status.pid`
// +kubebuilder:printcolumn:name="RESTARTS",type=integer,JSONPath=`.status.restarts`
// +kubebuilder:printcolumn:name="REASON",type=string,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
type HostProcess struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   HostProcessSpec   `json:"spec"`
	Status HostProcessStatus `json:"status,omitempty"`
}

// HostProcessList is a list of HostProcesses.
//
// +kubebuilder:object:root=true
type HostProcessList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []HostProcess `json:"items"`
}

// HostProcessSpec is a process with its files.
type HostProcessSpec struct {
	// Owner is the object that this process realizes.
	Owner OwnerRef `json:"owner"`
	// Program restarts the process when its hash differs from what runs.
	Program Program `json:"program"`
	// Files are written at once when they change; the process is never restarted for them.
	// +optional
	// +listType=map
	// +listMapKey=path
	Files []File `json:"files,omitempty"`
	// Secrets of this namespace whose keys become files, written at once when they change.
	// +optional
	// +listType=map
	// +listMapKey=path
	Secrets []SecretFiles `json:"secrets,omitempty"`
	// Directories are made when missing, below one of the agent's data roots, and belong
	// to the process's user. They outlive the process unless Remove says otherwise.
	// +optional
	// +listType=set
	Directories []string `json:"directories,omitempty"`
	// +kubebuilder:default=Running
	// +optional
	State RunState `json:"state,omitempty"`
	// RemoveDirectories says what happens to Directories when this object is deleted.
	// +kubebuilder:default=Retain
	// +optional
	RemoveDirectories DeletionPolicy `json:"removeDirectories,omitempty"`
}

// OwnerRef names an object of another namespace; owner references of Kubernetes do not
// cross namespaces.
type OwnerRef struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

// Program is what runs and how it ends. Paths that are not absolute are relative to the
// process's own folder on the host, which is also its working directory.
type Program struct {
	// Archive (sha256:<hex>) is unpacked by the agent; its root is $ARCHIVE for the process.
	// +optional
	Archive string `json:"archive,omitempty"`
	// Args is the command line. An Args[0] of "castellan" is the agent's own binary.
	// +kubebuilder:validation:MinItems=1
	// +listType=atomic
	Args []string `json:"args"`
	// +optional
	Env map[string]string `json:"env,omitempty"`
	// Files that belong to the program: a change restarts it.
	// +optional
	// +listType=map
	// +listMapKey=path
	Files []File `json:"files,omitempty"`
	// User that the program runs as; empty is the agent's own. A change alone restarts
	// nothing: it takes effect with the next start.
	// +optional
	User string `json:"user,omitempty"`
	// OpenFiles is the limit of open files; 0 leaves the agent's own.
	// +optional
	OpenFiles int64 `json:"openFiles,omitempty"`
	// StopGraceSeconds between SIGTERM and SIGKILL.
	StopGraceSeconds int32 `json:"stopGraceSeconds"`
	// Socket is a unix socket of the process that serves GET /livez, /readyz and /report (JSON).
	// +optional
	Socket string `json:"socket,omitempty"`
	// TerminationMessage is a file that the process leaves when it ends: a JSON ExitStatus.
	// +optional
	TerminationMessage string `json:"terminationMessage,omitempty"`
}

// File is a small text file.
type File struct {
	Path    string `json:"path"`
	Content string `json:"content"`
}

// SecretFiles places the keys of a Secret as files (mode 0600) in a folder.
type SecretFiles struct {
	// SecretName in the namespace of the HostProcess.
	SecretName string `json:"secretName"`
	// Path of the folder, relative to the process's own.
	Path string `json:"path"`
}

// HostProcessState is the state of a process in one word.
type HostProcessState string

// The states of a HostProcess.
const (
	ProcessPending  HostProcessState = "Pending"  // being prepared: see reason
	ProcessRunning  HostProcessState = "Running"  // the process runs
	ProcessBackoff  HostProcessState = "Backoff"  // it ended; the agent starts it again later
	ProcessStopping HostProcessState = "Stopping" // it was told to end
	ProcessStopped  HostProcessState = "Stopped"  // as asked
)

// HostProcessStatus is what the agent knows.
type HostProcessStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	State HostProcessState `json:"state,omitempty"`
	// +optional
	Ready bool `json:"ready,omitempty"`
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
	// ProgramHash of the Program that the running process was started with.
	// +optional
	ProgramHash string `json:"programHash,omitempty"`
	// +optional
	PID int32 `json:"pid,omitempty"`
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// SecretsDigest of the secret files now on disk.
	// +optional
	SecretsDigest string `json:"secretsDigest,omitempty"`
	// Restarts counts ends that nobody asked for.
	// +optional
	Restarts int32 `json:"restarts,omitempty"`
	// +optional
	LastExit *ExitStatus `json:"lastExit,omitempty"`
	// Report is what the process says of itself (GET /report), as JSON text.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	Report string `json:"report,omitempty"`
}
