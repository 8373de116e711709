package operator

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"castellan.dev/castellan/pki"
)

// cacheOptions keep in memory what is ours, and of that what is read.
func (c Config) cacheOptions() cache.Options {
	o := cache.Options{DefaultTransform: cache.TransformStripManagedFields()}
	if len(c.WatchNamespaces) > 0 {
		o.DefaultNamespaces = map[string]cache.Config{}
		for _, n := range c.WatchNamespaces {
			o.DefaultNamespaces[n] = cache.Config{}
		}
	}
	if !c.serves(SubstrateKubernetes) {
		return o // an API server without pods does not know their kinds
	}
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{pki.LabelManagedBy: pki.ManagedBy})}
	o.ByObject = map[client.Object]cache.ByObject{
		&corev1.Pod{}: {Label: ours.Label, Transform: leanPod}, &corev1.Service{}: ours, &corev1.PersistentVolumeClaim{}: ours,
		&appsv1.StatefulSet{}: ours, &policyv1.PodDisruptionBudget{}: ours,
		&corev1.Node{}: {Transform: leanNode},
	}
	if !c.serves(SubstrateHost) {
		// The copies of Secrets in hosts' namespaces carry no label.
		o.ByObject[&corev1.Secret{}], o.ByObject[&corev1.ConfigMap{}] = ours, ours
	}
	return o
}

// leanNode keeps of a machine what is read: identity, labels, taints, addresses, conditions.
// A heartbeat changes nothing of it.
func leanNode(in any) (any, error) {
	n, ok := in.(*corev1.Node)
	if !ok {
		return in, nil
	}
	lean := &corev1.Node{
		TypeMeta: n.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion, Labels: n.Labels,
			CreationTimestamp: n.CreationTimestamp, DeletionTimestamp: n.DeletionTimestamp,
		},
		Spec:   corev1.NodeSpec{Unschedulable: n.Spec.Unschedulable, Taints: n.Spec.Taints},
		Status: corev1.NodeStatus{Addresses: n.Status.Addresses, Conditions: n.Status.Conditions},
	}
	for i := range lean.Status.Conditions {
		lean.Status.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return lean, nil
}

// leanPod keeps of a pod what is read: its metadata and status, where it is, what it mounts
// by name, and what its containers may use. What it runs follows from its StatefulSet.
func leanPod(in any) (any, error) {
	p, ok := in.(*corev1.Pod)
	if !ok {
		return in, nil
	}
	lean := &corev1.Pod{TypeMeta: p.TypeMeta, ObjectMeta: p.ObjectMeta, Status: p.Status, Spec: corev1.PodSpec{NodeName: p.Spec.NodeName}}
	lean.ManagedFields = nil
	for _, c := range p.Spec.Containers {
		lean.Spec.Containers = append(lean.Spec.Containers, corev1.Container{Name: c.Name, Image: c.Image, Resources: c.Resources})
	}
	for _, v := range p.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
		case v.ConfigMap != nil:
			v.ConfigMap = &corev1.ConfigMapVolumeSource{LocalObjectReference: v.ConfigMap.LocalObjectReference}
		default:
			continue
		}
		lean.Spec.Volumes = append(lean.Spec.Volumes, v)
	}
	return lean, nil
}
