package host

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// Finalizer keeps a HostProcess until its agent has stopped the process.
const Finalizer = "castellan.dev/host-process"

// Labels of a HostProcess and of the Secret beside it.
const (
	LabelCluster   = "castellan.dev/cluster"
	LabelNamespace = "castellan.dev/namespace"
	LabelNodeID    = "castellan.dev/node-id"
)

// LeaseName is the Lease in a host's namespace that its agent renews.
const LeaseName = "agent"

// Bounds of a stop under layout 1, in seconds: the supervisor ends Kafka after the first
// one, the agent ends the supervisor after the second one, so that the supervisor always
// has time to say what happened.
const (
	nodeStopGrace    = 60
	processStopGrace = 75
)

// openFiles is the limit that a broker with some ten thousand segments needs; an agent that
// may not raise its own limit so far gives what it may.
const openFiles = 100_000

// maxName keeps names usable as file names and as prefixes of other names.
const maxName = 200

// Placement is what a node needs to know of its Host.
type Placement struct {
	// User that the Host wants processes to run as; empty is the agent's own.
	User string
	// RemoveData says what happens to the volumes when the node is removed; empty keeps them.
	RemoveData api.DeletionPolicy
}

// Object is one thing that a node needs on its host: exactly one field is set.
type Object struct {
	Process *api.HostProcess
	Secret  *SecretCopy
}

// SecretCopy names a Secret that must stand with the same content in another namespace.
type SecretCopy struct {
	From, To types.NamespacedName
}

// Namespace is the namespace of a Host, the only one that its agent may read.
func Namespace(host string) string {
	const prefix = "castellan-host-"
	return prefix + shorten(dashed(host), 63-len(prefix), host)
}

// dashed turns a DNS name into a DNS label.
func dashed(name string) string {
	out := []byte(name)
	for i, c := range out {
		if c == '.' {
			out[i] = '-'
		}
	}
	return string(out)
}

// ProcessName is the name of a node's HostProcess. A namespace holds no dot, so no two
// nodes share a name.
func ProcessName(namespace, cluster string, id int32) string {
	name := fmt.Sprintf("%s.%s-%d", namespace, cluster, id)
	return shorten(name, maxName, name)
}

// SecretName is the name of a node's own Secret in the cluster's namespace (keys: see
// package layout).
func SecretName(cluster string, id int32) string {
	return fmt.Sprintf("%s-%d-tls", cluster, id)
}

// Path is where a volume lies below a data root.
func Path(root, namespace, cluster string, id int32, volume string) string {
	return path.Join(root, namespace, cluster, strconv.Itoa(int(id)), volume)
}

// shorten cuts a name to at most limit bytes; what it cuts, or what was changed before, it
// replaces by the hash of the full name.
func shorten(name string, limit int, full string) string {
	if name == full && len(name) <= limit {
		return name
	}
	sum := sha256.Sum256([]byte(full))
	suffix := "-" + hex.EncodeToString(sum[:4])
	if len(name) > limit-len(suffix) {
		name = name[:limit-len(suffix)]
	}
	for len(name) > 0 && (name[len(name)-1] == '.' || name[len(name)-1] == '-') {
		name = name[:len(name)-1]
	}
	return name + suffix
}

// Objects says what a node needs on its host. Everything that depends on the layout is
// pinned by node.spec.process.layout; a layout of a newer Castellan is an error, since
// guessing would restart the node.
func Objects(node api.KafkaNode, at Placement) ([]Object, error) {
	if node.Spec.Host == "" {
		return nil, fmt.Errorf("node %s/%s has no host: the plan must place it first", node.Namespace, node.Name)
	}
	if !layout.Known(node.Spec.Process.Layout) {
		return nil, fmt.Errorf("node %s/%s has layout %d, this Castellan renders layouts up to %d: run the version that wrote the node, or a newer one",
			node.Namespace, node.Name, node.Spec.Process.Layout, layout.Authenticated)
	}
	program, err := program(node, at)
	if err != nil {
		return nil, err
	}
	live, err := liveFile(node)
	if err != nil {
		return nil, err
	}
	spec := node.Spec
	namespace := Namespace(spec.Host)
	name := ProcessName(node.Namespace, spec.ClusterName, spec.NodeID)
	process := &api.HostProcess{
		TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion.String(), Kind: "HostProcess"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:  namespace,
			Name:       name,
			Labels:     nodeLabels(node),
			Finalizers: []string{Finalizer},
		},
		Spec: api.HostProcessSpec{
			Owner:             api.OwnerRef{Kind: "KafkaNode", Namespace: node.Namespace, Name: node.Name, UID: string(node.UID)},
			Program:           program,
			Files:             []api.File{live},
			Secrets:           []api.SecretFiles{{SecretName: name, Path: layout.TLSDir}},
			Directories:       directories(spec.Volumes),
			State:             orRunning(spec.State),
			RemoveDirectories: orRetain(at.RemoveData),
		},
	}
	secret := &SecretCopy{
		From: types.NamespacedName{Namespace: node.Namespace, Name: SecretName(spec.ClusterName, spec.NodeID)},
		To:   types.NamespacedName{Namespace: namespace, Name: name},
	}
	return []Object{{Secret: secret}, {Process: process}}, nil
}

// nodeLabels leaves out what does not fit into a label; the owner names it in full.
func nodeLabels(node api.KafkaNode) map[string]string {
	labels := map[string]string{
		LabelNamespace: node.Namespace,
		LabelNodeID:    strconv.Itoa(int(node.Spec.NodeID)),
	}
	if len(node.Spec.ClusterName) <= 63 {
		labels[LabelCluster] = node.Spec.ClusterName
	}
	return labels
}

// program renders layouts 1 and 2, which differ in what the supervisor renders. Only node.spec.process and what can never change of a node may
// flow into it: a change of a Program is a restart.
func program(node api.KafkaNode, at Placement) (api.Program, error) {
	static, err := staticFile(node)
	if err != nil {
		return api.Program{}, err
	}
	return api.Program{
		Archive:            node.Spec.Process.Package,
		Args:               []string{"castellan", "node", fmt.Sprintf("--stop-grace=%ds", nodeStopGrace)},
		Files:              []api.File{static},
		User:               at.User,
		OpenFiles:          openFiles,
		StopGraceSeconds:   processStopGrace,
		Socket:             layout.Socket,
		TerminationMessage: layout.TerminationMessageFile,
	}, nil
}

func staticFile(node api.KafkaNode) (api.File, error) {
	static, err := layout.StaticOf(&node)
	if err != nil {
		return api.File{}, err
	}
	return jsonFile(layout.StaticFile, static)
}

func liveFile(node api.KafkaNode) (api.File, error) {
	return jsonFile(layout.LiveFile, layout.LiveOf(&node))
}

func jsonFile(name string, content any) (api.File, error) {
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return api.File{}, fmt.Errorf("render %s: %w", name, err)
	}
	return api.File{Path: name, Content: string(data) + "\n"}, nil
}

func directories(volumes []api.NodeVolume) []string {
	paths := make([]string, 0, len(volumes))
	for _, v := range volumes {
		paths = append(paths, v.Path)
	}
	return paths
}

func orRunning(s api.RunState) api.RunState {
	if s == "" {
		return api.StateRunning
	}
	return s
}

func orRetain(p api.DeletionPolicy) api.DeletionPolicy {
	if p == "" {
		return api.DeletionRetain
	}
	return p
}
