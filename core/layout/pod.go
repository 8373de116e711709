package layout

// Places in a pod under layout 1. What must survive without Castellan is mounted; the
// supervisor reads it as it does the files of a host.
const (
	PodSupervisor = "/castellan/bin/castellan" // copied there by the init container
	PodBinDir     = "/castellan/bin"           // emptyDir, shared with the init container
	PodStaticDir  = "/castellan/static"        // immutable ConfigMap with StaticFile
	PodLiveDir    = "/castellan/live"          // mutable ConfigMap with LiveFile
	PodTLSDir     = "/castellan/tls"           // the node's Secret: KeyNodePEM, KeyCAPEM
	PodInfoDir    = "/castellan/pod"           // downward API: PlacementFile, ZoneFile
	PodStateDir   = "/castellan/state"         // emptyDir: the process's folder, see above
	PodVolumeDir  = "/var/lib/kafka"           // <volume> below it: the claims
	PodKafkaDir   = "/opt/kafka"               // as in the official image
)

// Files in PodInfoDir.
const (
	// PlacementFile is the annotation of the same purpose: an api.NodePlacement as JSON, empty
	// until the operator has written it.
	PlacementFile = "placement"
	// ZoneFile is the pod's label topology.kubernetes.io/zone, which newer Kubernetes copies
	// from the machine; empty elsewhere.
	ZoneFile = "zone"
)

// Annotations of a pod that the operator writes.
const (
	PlacementAnnotation = "castellan.dev/placement"
	// LiveAnnotation is a digest of the live ConfigMap and the Secret: writing it to a pod
	// makes its kubelet refresh the mounted files at once instead of within a minute.
	LiveAnnotation = "castellan.dev/live"
)

// NodeNameVariable is the environment variable with the name of the machine that a pod runs on.
const NodeNameVariable = "CASTELLAN_NODE_NAME"

// Ports of a supervisor in a pod. Client listeners on Kubernetes cannot have them.
const (
	// ReportPort serves GET /report and /metrics over mutual TLS to the operator's
	// certificate alone. With ?after=<digest>&wait=<seconds> it answers when the report is
	// another one (header ETag is its digest), at the latest after that time.
	ReportPort = int32(8443)
	// ProbePort serves GET /livez, /readyz and /metrics in plain HTTP: kubelets have no
	// certificate, and nothing secret is there.
	ProbePort = int32(8080)
)

// Advertised is how clients reach a listener that is exposed beyond the pod network.
type Advertised struct {
	Listener string `json:"listener"`
	// Host, or empty for the machine's address of AddressType (see api.NodePlacement).
	Host        string `json:"host,omitempty"`
	AddressType string `json:"addressType,omitempty"`
	// Port is 0 while it is not known: the supervisor waits, and says so.
	Port int32 `json:"port,omitempty"`
}
