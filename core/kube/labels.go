package kube

import (
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Labels of everything that a cluster has in Kubernetes.
const (
	LabelName      = "app.kubernetes.io/name"
	LabelInstance  = "app.kubernetes.io/instance"
	LabelManagedBy = "app.kubernetes.io/managed-by"
	LabelCluster   = "castellan.dev/cluster"
	LabelNodeID    = "castellan.dev/node-id"
	LabelPool      = "castellan.dev/pool"
	LabelVolume    = "castellan.dev/volume"
	// LabelRole and the role is "true" for each role of a node.
	LabelRole = "castellan.dev/role-"

	// ManagedBy is the value of LabelManagedBy.
	ManagedBy = "castellan"
	appName   = "kafka"
)

// ProcessAnnotation of a pod is the layout.ProcessHash that it was made for.
const ProcessAnnotation = "castellan.dev/process"

// zoneLabel is where a machine says which zone it is in.
const zoneLabel = "topology.kubernetes.io/zone"

// hostnameLabel tells machines apart.
const hostnameLabel = "kubernetes.io/hostname"

// ClusterLabels stand on everything of a cluster.
func ClusterLabels(cluster string) map[string]string {
	return map[string]string{LabelName: appName, LabelInstance: cluster, LabelManagedBy: ManagedBy, LabelCluster: cluster}
}

// ClusterSelector selects the pods of a cluster's nodes.
func ClusterSelector(cluster string) map[string]string {
	return map[string]string{LabelName: appName, LabelCluster: cluster}
}

// NodeSelector selects what belongs to one node. It never changes: a StatefulSet keeps it.
func NodeSelector(cluster string, id int32) map[string]string {
	return map[string]string{LabelCluster: cluster, LabelNodeID: strconv.Itoa(int(id))}
}

// nodeLabels stand on everything of a node but its pod, which also tells its roles.
func nodeLabels(node *api.KafkaNode) map[string]string {
	labels := ClusterLabels(node.Spec.ClusterName)
	labels[LabelNodeID] = strconv.Itoa(int(node.Spec.NodeID))
	labels[LabelPool] = node.Spec.Pool
	return labels
}

func podLabels(node *api.KafkaNode) map[string]string {
	labels := nodeLabels(node)
	for _, role := range node.Spec.Roles {
		labels[LabelRole+string(role)] = "true"
	}
	return labels
}

// NodeOf says which KafkaNode an object belongs to, by its labels.
func NodeOf(o metav1.Object) (node types.NamespacedName, ok bool) {
	labels := o.GetLabels()
	id, err := strconv.ParseInt(labels[LabelNodeID], 10, 32)
	if err != nil || labels[LabelCluster] == "" {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: NodeName(labels[LabelCluster], int32(id))}, true
}

// ClusterOf says which KafkaCluster an object belongs to, by its labels.
func ClusterOf(o metav1.Object) (cluster types.NamespacedName, ok bool) {
	name := o.GetLabels()[LabelCluster]
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: name}, name != ""
}

// owner makes a KafkaNode or KafkaCluster the controller; nothing while it has no UID yet.
func owner(kind, name string, uid types.UID) []metav1.OwnerReference {
	if uid == "" {
		return nil
	}
	return []metav1.OwnerReference{{
		APIVersion: api.GroupVersion.String(), Kind: kind, Name: name, UID: uid,
		Controller: new(true), BlockOwnerDeletion: new(true),
	}}
}
