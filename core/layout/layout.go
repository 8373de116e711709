// Package layout is the contract between the realizers of a KafkaNode and the supervisor
// that runs it: the two files that a supervisor reads, the report it gives, and how
// Kafka's own files are rendered from them, byte for byte for each layout version. It
// decides nothing and touches nothing.
package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Current is the layout that nodes get whose process needs no other, see [Of]. Raising it is
// a planned roll.
const Current int32 = 1

// Names of the two listeners that every node has, and the ports they prefer.
const (
	ControllerListener = "CONTROLLER"
	InternalListener   = "INTERNAL"
	ControllerPort     = int32(9090)
	InternalPort       = int32(9091)
)

// Files below the folder of a node's process, which is the supervisor's working directory.
const (
	StaticFile             = "node.json"               // Static; a change is a restart
	LiveFile               = "live.json"               // Live; re-read when it changes
	TLSDir                 = "tls"                     // the node's Secret, see the names below
	Socket                 = "node.sock"               // GET /livez /readyz /report /metrics
	TerminationMessageFile = "termination.json"        // api.ExitStatus of the last end
	PropertiesFile         = "kafka/server.properties" // rendered by the supervisor
	LogDir                 = "logs"                    // Kafka's own logs, rotated
)

// Keys of a node's Secret, which are file names in TLSDir.
const (
	KeyNodePEM = "node.pem" // private key (PKCS #8) and certificate chain
	KeyCAPEM   = "ca.pem"   // every CA that the node trusts
)

// Principals (Kafka's User:<name>) that the certificates of a cluster map to.
const (
	NodePrincipal     = "castellan-node"
	OperatorPrincipal = "castellan-operator"
)

// Static is what a process is started with.
type Static struct {
	Namespace   string           `json:"namespace"`
	ClusterName string           `json:"clusterName"`
	NodeID      int32            `json:"nodeID"`
	Roles       []api.Role       `json:"roles"`
	Process     api.ProcessSpec  `json:"process"`
	Volumes     []Volume         `json:"volumes"`
	Address     string           `json:"address"`
	Ports       map[string]int32 `json:"ports"`
}

// Volume is a log directory.
type Volume struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// Live is what may change while the process runs.
type Live struct {
	ClusterID            string             `json:"clusterID,omitempty"`
	Storage              *api.StorageAnswer `json:"storage,omitempty"`
	BootstrapControllers []string           `json:"bootstrapControllers,omitempty"`
	// Rack is read at each start (broker.rack), never a reason to restart.
	Rack string `json:"rack,omitempty"`
	// CertificateDigest that the node's Secret should have, see Report.CertificateDigest.
	CertificateDigest string `json:"certificateDigest,omitempty"`
	// Advertised are the client listeners that are reached elsewhere than at Static.Address;
	// read at each start.
	Advertised []Advertised `json:"advertised,omitempty"`
}

// Report is what a supervisor says of its node.
type Report struct {
	ProcessHash string        `json:"processHash"`
	State       api.NodeState `json:"state"`
	Ready       bool          `json:"ready"`
	// Reason and Message say why the node is not ready and what to do.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	Version string `json:"version,omitempty"`
	Rack    string `json:"rack,omitempty"`
	// InSync says that every replica of this broker is in the ISR (true for a controller); only
	// pods ask.
	InSync bool `json:"inSync,omitempty"`
	// PID and StartedAt of the JVM.
	PID       int32        `json:"pid,omitempty"`
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// Nonce is the open question about the disks.
	Nonce   string             `json:"nonce,omitempty"`
	Volumes []api.VolumeStatus `json:"volumes,omitempty"`
	// CertificateDigest is "sha256:<hex>" of the leaf certificate (DER) that the node's own
	// listeners serve.
	CertificateDigest string `json:"certificateDigest,omitempty"`
}

// ProcessHash names a ProcessSpec by content: "sha256:<hex>" of its JSON. A node restarts
// only when this differs from what it was started with.
func ProcessHash(p api.ProcessSpec) string {
	data, err := json.Marshal(p)
	if err != nil {
		// Every field is plain data; a failure is a programming error that must not
		// look like an unchanged process.
		return fmt.Sprintf("unhashable: %v", err)
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
