package kube

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
)

// Remove stops the node and removes what it has; its volumes only with DeletionDelete. It
// is called until it says that nothing is left.
func (r *Realizer) Remove(ctx context.Context, node api.KafkaNode, data api.DeletionPolicy) (gone bool, err error) {
	if !corekube.Genuine(node) {
		return true, nil // what there is belongs to another one
	}
	gone, err = r.remove(ctx, &node, data)
	if err != nil {
		return false, fmt.Errorf("remove node %s/%s: %w", node.Namespace, node.Name, err)
	}
	return gone, nil
}

func (r *Realizer) remove(ctx context.Context, node *api.KafkaNode, data api.DeletionPolicy) (gone bool, err error) {
	r.settled.forget(client.ObjectKeyFromObject(node))
	set, err := read[appsv1.StatefulSet](ctx, r.live, node.Namespace, corekube.NodeName(node.Spec.ClusterName, node.Spec.NodeID))
	if err != nil {
		return false, err
	}
	pod, err := r.pod(ctx, r.live, node)
	if err != nil {
		return false, err
	}
	switch {
	case set != nil && (set.Spec.Replicas == nil || *set.Spec.Replicas != 0):
		// To zero first: once its controller has seen that, no pod comes any more.
		before := set.DeepCopy()
		set.Spec.Replicas = new(int32(0))
		return false, client.IgnoreNotFound(r.client.Patch(ctx, set, client.MergeFrom(before), fieldOwner))
	case pod != nil && set == nil && pod.DeletionTimestamp == nil:
		return false, (&act{r: r}).deletePod(ctx, pod)
	case pod != nil || set != nil && set.Status.ObservedGeneration != set.Generation:
		return false, nil
	}
	if r.reports != nil {
		r.reports.Forget(client.ObjectKeyFromObject(node))
	}
	return r.removeRest(ctx, node, set, data)
}

func (r *Realizer) removeRest(ctx context.Context, node *api.KafkaNode, set *appsv1.StatefulSet, data api.DeletionPolicy) (gone bool, err error) {
	mine := []client.ListOption{
		client.InNamespace(node.Namespace), client.MatchingLabels(corekube.NodeSelector(node.Spec.ClusterName, node.Spec.NodeID)),
	}
	var rest []client.Object
	if set != nil {
		rest = append(rest, set)
	}
	var services corev1.ServiceList
	var maps corev1.ConfigMapList
	var claims corev1.PersistentVolumeClaimList
	lists := errors.Join(r.live.List(ctx, &services, mine...), r.live.List(ctx, &maps, mine...))
	if data == api.DeletionDelete {
		lists = errors.Join(lists, r.live.List(ctx, &claims, mine...))
	}
	if lists != nil {
		return false, fmt.Errorf("look what is left: %w", lists)
	}
	for i := range services.Items {
		rest = append(rest, &services.Items[i])
	}
	for i := range maps.Items {
		rest = append(rest, &maps.Items[i])
	}
	for i := range claims.Items {
		rest = append(rest, &claims.Items[i])
	}
	return len(rest) == 0, r.deleteAll(ctx, rest)
}

func (r *Realizer) deleteAll(ctx context.Context, objects []client.Object) error {
	var errs []error
	for _, o := range objects {
		if o.GetDeletionTimestamp() != nil {
			continue
		}
		err := r.client.Delete(ctx, o, client.PropagationPolicy(metav1.DeletePropagationBackground))
		if client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("delete %T %s: %w", o, o.GetName(), err))
		}
	}
	return errors.Join(errs...)
}

// DeleteShared removes what the nodes of a cluster shared, with DeletionDelete also the claims
// of nodes that were there once: an empty cluster of that name would find them.
func (r *Realizer) DeleteShared(ctx context.Context, namespace, cluster string, data api.DeletionPolicy) error {
	services, err := r.sharedServices(ctx, r.live, namespace, cluster)
	if err != nil {
		return fmt.Errorf("remove what cluster %s/%s shared: %w", namespace, cluster, err)
	}
	var claims corev1.PersistentVolumeClaimList
	if data == api.DeletionDelete {
		err := r.live.List(ctx, &claims, client.InNamespace(namespace),
			client.MatchingLabels{corekube.LabelCluster: cluster}, client.HasLabels{corekube.LabelNodeID, corekube.LabelVolume})
		if err != nil {
			return fmt.Errorf("remove the claims of cluster %s/%s: %w", namespace, cluster, err)
		}
	}
	rest := make([]client.Object, 0, len(services)+len(claims.Items)+1)
	for i := range claims.Items {
		rest = append(rest, &claims.Items[i])
	}
	for i := range services {
		rest = append(rest, &services[i])
	}
	budget, err := read[policyv1.PodDisruptionBudget](ctx, r.live, namespace, corekube.BudgetName(cluster))
	if err != nil {
		return fmt.Errorf("remove what cluster %s/%s shared: %w", namespace, cluster, err)
	}
	if budget != nil && budget.Labels[corekube.LabelCluster] == cluster {
		rest = append(rest, budget)
	}
	if err := r.deleteAll(ctx, rest); err != nil {
		return fmt.Errorf("remove what cluster %s/%s shared: %w", namespace, cluster, err)
	}
	return nil
}
