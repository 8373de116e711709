package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// NodeObjects is what a node needs in its namespace, beside the Secret that its certificates
// come in and what the cluster shares.
type NodeObjects struct {
	StatefulSet *appsv1.StatefulSet
	// Static is immutable and named by its content, Live changes in place.
	Static, Live *corev1.ConfigMap
	// Claims have no owner: data outlives every object of ours.
	Claims []*corev1.PersistentVolumeClaim
	// Services are those of the node's exposed listeners.
	Services []*corev1.Service
}

// Objects says what a node needs. The pod template is a function of node.spec.process,
// the node's identity (names, roles, pool, address, ports) and its claims' names, pinned by
// node.spec.process.layout; a layout of a newer Castellan is an error, since guessing would
// restart the node.
func Objects(node api.KafkaNode) (NodeObjects, error) {
	spec := &node.Spec
	if !Genuine(node) {
		return NodeObjects{}, fmt.Errorf("KafkaNode %s/%s calls itself node %d of cluster %s, whose name is %s: delete it, KafkaNodes are made by the operator alone",
			node.Namespace, node.Name, spec.NodeID, spec.ClusterName, NodeName(spec.ClusterName, spec.NodeID))
	}
	if !layout.Known(spec.Process.Layout) {
		return NodeObjects{}, fmt.Errorf("node %s/%s has layout %d, this Castellan renders layouts up to %d: run the version that wrote the node, or a newer one",
			node.Namespace, node.Name, spec.Process.Layout, layout.Authenticated)
	}
	if spec.Process.Image == "" || spec.Process.Supervisor == "" {
		return NodeObjects{}, fmt.Errorf("node %s/%s has no image of Kafka or of its supervisor: the plan must name both in spec.process", node.Namespace, node.Name)
	}
	static, err := staticMap(&node)
	if err != nil {
		return NodeObjects{}, err
	}
	live, err := liveMap(&node)
	if err != nil {
		return NodeObjects{}, err
	}
	claims, err := claims(&node)
	if err != nil {
		return NodeObjects{}, err
	}
	set, err := statefulSet(&node, static.Name)
	if err != nil {
		return NodeObjects{}, err
	}
	return NodeObjects{StatefulSet: set, Static: static, Live: live, Claims: claims, Services: exposures(&node)}, nil
}

// Genuine says whether a KafkaNode has the name of the node that it says it is. Another one
// must have nothing, and take nothing with it: all of it would be that node's.
func Genuine(node api.KafkaNode) bool {
	return node.Name == NodeName(node.Spec.ClusterName, node.Spec.NodeID)
}

// LiveName is the name of a node's mutable ConfigMap.
func LiveName(cluster string, id int32) string { return NodeName(cluster, id) + "-live" }

// StaticName is the name of the immutable ConfigMap with a content: its SHA-256 in hex.
func StaticName(cluster string, id int32, hash string) string {
	const enough = 10
	return NodeName(cluster, id) + "-" + hash[:min(enough, len(hash))]
}

// SecretName is the name of the Secret with a node's certificate (keys: see package layout).
func SecretName(cluster string, id int32) string { return NodeName(cluster, id) + "-tls" }

func meta(node *api.KafkaNode, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: node.Namespace, Name: name, Labels: nodeLabels(node),
		OwnerReferences: owner("KafkaNode", node.Name, node.UID),
	}
}

func staticMap(node *api.KafkaNode) (*corev1.ConfigMap, error) {
	static, err := layout.StaticOf(node)
	if err != nil {
		return nil, err
	}
	content, err := jsonText(layout.StaticFile, static)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(content))
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: meta(node, StaticName(node.Spec.ClusterName, node.Spec.NodeID, hex.EncodeToString(sum[:]))),
		Immutable:  new(true),
		Data:       map[string]string{layout.StaticFile: content},
	}, nil
}

func liveMap(node *api.KafkaNode) (*corev1.ConfigMap, error) {
	live := layout.LiveOf(node)
	for i := range node.Spec.Exposures {
		e := &node.Spec.Exposures[i]
		// No process waits for the address of a listener that it does not have yet.
		if slices.ContainsFunc(node.Spec.Process.Listeners, func(l api.NodeListener) bool { return l.Name == e.Listener }) {
			live.Advertised = append(live.Advertised, advertised(e, node.Spec.Ports))
		}
	}
	content, err := jsonText(layout.LiveFile, live)
	if err != nil {
		return nil, err
	}
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: meta(node, LiveName(node.Spec.ClusterName, node.Spec.NodeID)),
		Data:       map[string]string{layout.LiveFile: content},
	}, nil
}

// advertised is where clients reach an exposed listener; its port is 0 as long as not all
// of it is known.
func advertised(e *api.NodeExposure, ports map[string]int32) layout.Advertised {
	out := layout.Advertised{Listener: e.Listener, Host: e.Host}
	switch e.Type {
	case api.ExposureNodePort:
		out.Port = e.NodePort
		if e.Host == "" {
			out.AddressType = string(e.AddressType)
		}
		if e.Host == "" && e.AddressType == "" {
			out.AddressType = string(corev1.NodeInternalIP)
		}
	default: // a load balancer
		if e.Host == "" {
			out.Host = e.Address
		}
		if out.Host != "" {
			out.Port = ports[e.Listener]
		}
	}
	return out
}

func jsonText(name string, content any) (string, error) {
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return "", fmt.Errorf("render %s: %w", name, err)
	}
	return string(data) + "\n", nil
}

func claims(node *api.KafkaNode) ([]*corev1.PersistentVolumeClaim, error) {
	out := make([]*corev1.PersistentVolumeClaim, 0, len(node.Spec.Volumes))
	for i := range node.Spec.Volumes {
		v := &node.Spec.Volumes[i]
		if v.Claim == "" || v.Size == nil {
			return nil, fmt.Errorf("node %s/%s: volume %s has no claim or no size: the plan must give both", node.Namespace, node.Name, v.Name)
		}
		claim := &corev1.PersistentVolumeClaim{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
			ObjectMeta: metav1.ObjectMeta{Namespace: node.Namespace, Name: v.Claim, Labels: nodeLabels(node)},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: *v.Size}},
			},
		}
		claim.Labels[LabelVolume] = v.Name
		if v.StorageClassName != "" {
			claim.Spec.StorageClassName = new(v.StorageClassName)
		}
		out = append(out, claim)
	}
	return out, nil
}

// claimOf names the claim of a volume.
func claimOf(node *api.KafkaNode, volume string) string {
	at := slices.IndexFunc(node.Spec.Volumes, func(v api.NodeVolume) bool { return v.Name == volume })
	if at < 0 {
		return ""
	}
	return node.Spec.Volumes[at].Claim
}

func statefulSet(node *api.KafkaNode, static string) (*appsv1.StatefulSet, error) {
	template, err := podTemplate(node, static)
	if err != nil {
		return nil, err
	}
	replicas := int32(1)
	if node.Spec.State == api.StateStopped {
		replicas = 0
	}
	return &appsv1.StatefulSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"},
		ObjectMeta: meta(node, NodeName(node.Spec.ClusterName, node.Spec.NodeID)),
		Spec: appsv1.StatefulSetSpec{
			Replicas:            &replicas,
			ServiceName:         NodesService(node.Spec.ClusterName),
			PodManagementPolicy: appsv1.ParallelPodManagement,
			// The realizer deletes the pod when the plan gave the permission; nobody else.
			UpdateStrategy:       appsv1.StatefulSetUpdateStrategy{Type: appsv1.OnDeleteStatefulSetStrategyType},
			RevisionHistoryLimit: new(int32(1)),
			Selector:             &metav1.LabelSelector{MatchLabels: NodeSelector(node.Spec.ClusterName, node.Spec.NodeID)},
			Template:             template,
		},
	}, nil
}
