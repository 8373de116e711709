package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
)

// endGrace is how much later than it should a pod may end before its kubelet counts as
// silent, where machines cannot be read.
const endGrace = 60 * time.Second

// Status is what is known of the node. Unknown is an answer, not an error. With fresh the
// pod and its StatefulSet come from the API server itself, for decisions.
func (r *Realizer) Status(ctx context.Context, node api.KafkaNode, fresh bool) (api.KafkaNodeStatus, error) {
	if r.reports == nil {
		return node.Status, nil
	}
	status, err := r.status(ctx, &node, fresh)
	if err != nil {
		return api.KafkaNodeStatus{}, fmt.Errorf("observe node %s/%s: %w", node.Namespace, node.Name, err)
	}
	return status, nil
}

func (r *Realizer) status(ctx context.Context, node *api.KafkaNode, fresh bool) (api.KafkaNodeStatus, error) {
	from := client.Reader(r.client)
	if fresh {
		from = r.live
	}
	f, err := r.find(ctx, from, node)
	if err != nil {
		return api.KafkaNodeStatus{}, err
	}
	if f.Pod != nil {
		f.Report, f.ReportErr = r.reports.Get(client.ObjectKeyFromObject(node), f.Pod.UID)
	}
	if err := r.lookCloser(ctx, node, &f.Seen); err != nil {
		return api.KafkaNodeStatus{}, err
	}
	status := corekube.Facts(*node, f.Seen)
	status.ObservedGeneration = node.Status.ObservedGeneration
	all, err := r.handedOver(ctx, node, f, fresh)
	if all {
		status.ObservedGeneration = node.Generation
	}
	return status, err
}

// handedOver says whether all that this generation of the node asks for was handed over.
// Either answer is remembered of what the cache alone shows.
func (r *Realizer) handedOver(ctx context.Context, node *api.KafkaNode, f found, fresh bool) (bool, error) {
	key, now := client.ObjectKeyFromObject(node), f.digest(node)
	for _, known := range []verdict{done, undone} {
		if !fresh && r.settled.is(key, now, known) {
			return known == done, nil
		}
	}
	found, err := r.compare(ctx, node, f.Seen)
	if err != nil || found == 0 || fresh {
		return found == done, err
	}
	return found == done, r.note(ctx, node, now, found)
}

// compare says whether the node is done; 0 when that could not be found out, for a reason
// that Apply gives.
func (r *Realizer) compare(ctx context.Context, node *api.KafkaNode, seen corekube.Seen) (verdict, error) {
	want, err := corekube.Objects(*node)
	if err != nil {
		return 0, nil //nolint:nilerr // Apply says so
	}
	a := &act{r: r}
	objects := []client.Object{want.Static, want.Live, want.StatefulSet}
	for _, claim := range want.Claims {
		objects = append(objects, claim)
	}
	for _, o := range objects {
		if err := sign(o); err != nil {
			return 0, err
		}
		same, err := a.so(ctx, r.client, o)
		if err != nil {
			return 0, nil //nolint:nilerr // Apply says so
		}
		if !same {
			return undone, nil
		}
	}
	switch {
	case seen.Pod == nil && node.Spec.State == api.StateStopped:
		return done, nil
	case seen.Pod == nil || node.Spec.State == api.StateStopped || corekube.MustRestart(want, seen.Pod) != "" || seen.Pod.Spec.NodeName == "":
		return undone, nil
	}
	annotations, err := r.annotations(ctx, node, seen.Pod, want)
	if err != nil {
		return 0, err
	}
	if !hasAll(seen.Pod.Annotations, annotations) {
		return undone, nil
	}
	return done, nil
}

// found is what there is of a node. It belongs to the cache: nothing of it may be changed.
type found struct {
	corekube.Seen
	secret *corev1.Secret
	maps   []corev1.ConfigMap
	// extras is what the realizer itself knows of the StatefulSet, see there.
	extras int64
}

// find reads the pod and its StatefulSet from a reader, the rest from the cache.
func (r *Realizer) find(ctx context.Context, from client.Reader, node *api.KafkaNode) (found, error) {
	cluster, id, asIs := node.Spec.ClusterName, node.Spec.NodeID, client.UnsafeDisableDeepCopy
	f := found{Seen: corekube.Seen{Claims: map[string]*corev1.PersistentVolumeClaim{}}}
	var err error
	if f.StatefulSet, err = read[appsv1.StatefulSet](ctx, from, node.Namespace, corekube.NodeName(cluster, id), asIs); err != nil {
		return f, err
	}
	if f.StatefulSet != nil {
		f.extras = r.extrasOf(f.StatefulSet)
	}
	if f.Pod, err = r.pod(ctx, from, node, asIs); err != nil {
		return f, err
	}
	for _, v := range node.Spec.Volumes {
		if f.Claims[v.Claim], err = read[corev1.PersistentVolumeClaim](ctx, r.client, node.Namespace, v.Claim, asIs); err != nil {
			return f, err
		}
	}
	mine := []client.ListOption{client.InNamespace(node.Namespace), client.MatchingFields{nodeIndex: corekube.NodeName(cluster, id)}, asIs}
	var services corev1.ServiceList
	var maps corev1.ConfigMapList
	if err := errors.Join(r.client.List(ctx, &services, mine...), r.client.List(ctx, &maps, mine...)); err != nil {
		return f, fmt.Errorf("read the Services and ConfigMaps: %w", err)
	}
	f.Services, f.maps = services.Items, maps.Items
	if f.secret, err = read[corev1.Secret](ctx, r.client, node.Namespace, corekube.SecretName(cluster, id), asIs); err != nil {
		return f, err
	}
	f.SecretMissing = f.secret == nil
	f.Machines, f.MachinesKnown, err = r.machineOf(ctx, f.Pod)
	return f, err
}

// lookCloser asks the API server what only matters while a pod does not run.
func (r *Realizer) lookCloser(ctx context.Context, node *api.KafkaNode, seen *corekube.Seen) error {
	if node.Spec.State == api.StateStopped || seen.Report != nil {
		return nil
	}
	pod := seen.Pod
	if r.sight.Volumes && seen.MachinesKnown && (pod == nil || pod.Spec.NodeName == "" || corekube.Dead(pod, seen.Machines)) {
		var err error
		if seen.Machines, seen.MachinesKnown, err = r.machines(ctx); err != nil {
			return err
		}
		if seen.Volumes, err = r.volumes(ctx, seen.Claims); err != nil {
			return err
		}
	}
	about := suspect(node, seen)
	if about == nil {
		return nil
	}
	var err error
	seen.Warning, err = r.warnings.newest(ctx, about)
	return err
}

// volumes reads what claims are bound to, as far as it is there.
func (r *Realizer) volumes(ctx context.Context, claims map[string]*corev1.PersistentVolumeClaim) (map[string]*corev1.PersistentVolume, error) {
	out := map[string]*corev1.PersistentVolume{}
	for _, claim := range claims {
		if claim == nil || claim.Spec.VolumeName == "" {
			continue
		}
		volume, err := read[corev1.PersistentVolume](ctx, r.live, "", claim.Spec.VolumeName)
		if apierrors.IsForbidden(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if volume != nil {
			out[volume.Name] = volume
		}
	}
	return out, nil
}

func (r *Realizer) services(ctx context.Context, from client.Reader, namespace string, labels map[string]string) ([]corev1.Service, error) {
	var list corev1.ServiceList
	if err := from.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels(labels)); err != nil {
		return nil, fmt.Errorf("read the Services: %w", err)
	}
	return list.Items, nil
}

// machineOf is the machine of a pod, as far as it exists; there may be thousands of others.
// Known is false without the right to read them.
func (r *Realizer) machineOf(ctx context.Context, pod *corev1.Pod) (one []*corev1.Node, known bool, err error) {
	if !r.sight.Machines || pod == nil || pod.Spec.NodeName == "" {
		return nil, r.sight.Machines, nil
	}
	machine, err := read[corev1.Node](ctx, r.client, "", pod.Spec.NodeName, client.UnsafeDisableDeepCopy)
	if machine != nil {
		one = append(one, machine)
	}
	return one, err == nil, err
}

// machines are all of Kubernetes' nodes; known is false without the right to read them.
func (r *Realizer) machines(ctx context.Context) (all []*corev1.Node, known bool, err error) {
	if !r.sight.Machines {
		return nil, false, nil
	}
	var list corev1.NodeList
	// They are only read here: no copies.
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, false, fmt.Errorf("read the machines: %w", err)
	}
	for i := range list.Items {
		all = append(all, &list.Items[i])
	}
	return all, true, nil
}

// overdue says whether a pod should have ended long ago.
func overdue(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && time.Since(pod.DeletionTimestamp.Time) > endGrace
}

// follow lets the reports of the node's pod be read as long as it may have any.
func (r *Realizer) follow(key types.NamespacedName, node *api.KafkaNode, pod *corev1.Pod) {
	if r.reports == nil {
		return
	}
	if pod == nil || pod.Status.PodIP == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		r.reports.Forget(key)
		return
	}
	r.reports.Follow(key, Target{
		Cluster: types.NamespacedName{Namespace: node.Namespace, Name: node.Spec.ClusterName},
		Pod:     pod.UID, IP: pod.Status.PodIP, Name: node.Spec.Address,
	})
}
