package kube

import (
	"context"
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	corekube "castellan.dev/castellan/core/kube"
)

// WatchedByNode are the kinds whose objects NodeRequests maps to a KafkaNode.
func WatchedByNode() []client.Object {
	return []client.Object{&appsv1.StatefulSet{}, &corev1.Pod{}, &corev1.PersistentVolumeClaim{}, &corev1.Service{}, &corev1.ConfigMap{}}
}

// WatchedByCluster are the kinds whose objects ClusterRequests maps to a KafkaCluster.
func WatchedByCluster() []client.Object {
	return []client.Object{&corev1.Service{}, &policyv1.PodDisruptionBudget{}, &corev1.PersistentVolumeClaim{}, &corev1.Secret{}}
}

// CacheOptions keep out of memory what is not ours, of the kinds that only we label. Secrets
// and machines are left as they are: others of the operator read them, too.
func CacheOptions() map[client.Object]cache.ByObject {
	mine := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{corekube.LabelManagedBy: corekube.ManagedBy})}
	out := map[client.Object]cache.ByObject{&policyv1.PodDisruptionBudget{}: mine}
	for _, o := range WatchedByNode() {
		out[o] = mine
	}
	return out
}

// nodeIndex finds the objects of one node without a walk through all of their namespace.
const nodeIndex = "castellan.dev/node"

// Index lets the cache that a Realizer reads from find what it asks for; it is called before
// the cache starts.
func Index(ctx context.Context, cache client.FieldIndexer) error {
	for _, kind := range []client.Object{&corev1.Service{}, &corev1.ConfigMap{}} {
		if err := cache.IndexField(ctx, kind, nodeIndex, indexedNode); err != nil {
			return fmt.Errorf("index %T by node: %w", kind, err)
		}
	}
	return nil
}

func indexedNode(o client.Object) []string {
	node, ok := corekube.NodeOf(o)
	if !ok {
		return nil
	}
	return []string{node.Name}
}

// NodeRequests maps an object to its KafkaNode, by its labels.
func NodeRequests(_ context.Context, o client.Object) []reconcile.Request {
	node, ok := corekube.NodeOf(o)
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: node}}
}

// ClusterRequests maps an object to its KafkaCluster, by its labels.
func ClusterRequests(_ context.Context, o client.Object) []reconcile.Request {
	cluster, ok := corekube.ClusterOf(o)
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: cluster}}
}

// MachineRequests maps a machine to the KafkaNodes whose pods are on it, or nowhere: those
// may be waiting for it.
func (r *Realizer) MachineRequests(ctx context.Context, machine client.Object) []reconcile.Request {
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, client.MatchingLabels{corekube.LabelManagedBy: corekube.ManagedBy}, client.UnsafeDisableDeepCopy); err != nil {
		return nil // a cache that does not answer makes no request; it is asked again with the next event
	}
	all := map[types.NamespacedName]bool{}
	for i := range pods.Items {
		p := &pods.Items[i]
		if node, ok := corekube.NodeOf(p); ok && (p.Spec.NodeName == machine.GetName() || p.Spec.NodeName == "") {
			all[node] = true
		}
	}
	requests := make([]reconcile.Request, 0, len(all))
	for node := range maps.Keys(all) {
		requests = append(requests, reconcile.Request{NamespacedName: node})
	}
	return requests
}

// MachineChanged lets only those changes of machines through that are told of nodes, not
// each heartbeat.
func MachineChanged() predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(*corev1.Node)
		after, also := e.ObjectNew.(*corev1.Node)
		return !ok || !also || !equality.Semantic.DeepEqual(told(before), told(after))
	}}
}

// told is what of a machine is told of its nodes.
func told(m *corev1.Node) []any {
	ready := corev1.ConditionUnknown
	for _, c := range m.Status.Conditions {
		if c.Type == corev1.NodeReady {
			ready = c.Status
		}
	}
	return []any{m.Labels, m.Spec.Taints, m.Status.Addresses, ready}
}

// Sight says what may be read beside the objects in the clusters' own namespaces.
type Sight struct {
	// Machines (Kubernetes' nodes): zones, addresses, and whether a machine is lost.
	Machines bool
	// Volumes (PersistentVolumes): whether a volume is on a machine that is lost.
	Volumes bool
}

// Look tries what may be read. Missing names each right that is not there, with what it
// costs, for a condition.
func Look(ctx context.Context, live client.Reader) (s Sight, missing []string, err error) {
	s.Machines, err = may(ctx, live, &corev1.NodeList{})
	if err != nil {
		return Sight{}, nil, fmt.Errorf("try to read nodes: %w", err)
	}
	s.Volumes, err = may(ctx, live, &corev1.PersistentVolumeList{})
	if err != nil {
		return Sight{}, nil, fmt.Errorf("try to read persistentvolumes: %w", err)
	}
	if !s.Machines {
		missing = append(missing, "get, list and watch nodes (cluster-wide): without it broker.rack is known only where Kubernetes copies zones to pods, "+
			"NodePort listeners need exposure.host, and a lost machine is not told from a silent one")
	}
	if !s.Volumes {
		missing = append(missing, "get and list persistentvolumes (cluster-wide): without it the taint node.kubernetes.io/out-of-service gives a node no new volumes, only castellan node replace does")
	}
	return s, missing, nil
}
