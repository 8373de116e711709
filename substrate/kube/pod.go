package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/layout"
)

// tendPod takes up the permission to restart, else tells the pod what it needs to know.
func (a *act) tendPod(ctx context.Context, want corekube.NodeObjects) error {
	key := client.ObjectKeyFromObject(a.node)
	pod, err := a.r.pod(ctx, a.r.client, a.node)
	if err != nil {
		return err
	}
	a.r.follow(key, a.node, pod) //nolint:contextcheck // reports are followed beyond this pass
	if pod == nil {
		return nil
	}
	why := corekube.MustRestart(want, pod)
	a.busy = a.busy || why != ""
	switch {
	case why == "" && pod.DeletionTimestamp == nil && pod.Spec.NodeName != "":
		return a.annotate(ctx, pod, want)
	case why == "":
		return nil
	case pod.DeletionTimestamp != nil:
		return a.force(ctx, want, pod)
	default:
		return a.restart(ctx, want)
	}
}

func (r *Realizer) pod(ctx context.Context, from client.Reader, node *api.KafkaNode, how ...client.GetOption) (*corev1.Pod, error) {
	return read[corev1.Pod](ctx, from, node.Namespace, corekube.PodName(node.Spec.ClusterName, node.Spec.NodeID), how...)
}

// restart ends the pod, with its grace, once its StatefulSet will make the new one; all of
// it is read again before.
func (a *act) restart(ctx context.Context, want corekube.NodeObjects) error {
	if fresh, err := a.fresh(ctx); err != nil || !fresh {
		return err
	}
	set, err := read[appsv1.StatefulSet](ctx, a.r.live, a.node.Namespace, want.StatefulSet.Name)
	if err != nil {
		return err
	}
	if set == nil || set.Status.ObservedGeneration != set.Generation {
		return nil // its controller looks at it now, and the watch tells when it did
	}
	if same, err := a.equal(want.StatefulSet, set); err != nil || !same {
		return err
	}
	pod, err := a.r.pod(ctx, a.r.live, a.node)
	if err != nil || pod == nil || pod.DeletionTimestamp != nil || corekube.MustRestart(want, pod) == "" {
		return err
	}
	if made := pod.Labels[appsv1.ControllerRevisionHashLabelKey]; made != "" && made == set.Status.UpdateRevision {
		// It was made from this very template, so somebody has edited what it says of itself.
		process := want.StatefulSet.Spec.Template.Annotations[corekube.ProcessAnnotation]
		return a.note(ctx, pod, map[string]string{corekube.ProcessAnnotation: process})
	}
	return a.deletePod(ctx, pod)
}

// force ends a pod that nobody can end any more: its machine is dead, and the plan gave the
// node other volumes on a user's word.
func (a *act) force(ctx context.Context, want corekube.NodeObjects, pod *corev1.Pod) error {
	have := corekube.ClaimsOf(pod.Spec)
	moved := false
	for volume, claim := range corekube.ClaimsOf(want.StatefulSet.Spec.Template.Spec) {
		moved = moved || have[volume] != "" && have[volume] != claim
	}
	if !moved {
		return nil
	}
	machines, known, err := a.r.machineOf(ctx, pod)
	if err != nil {
		return err
	}
	if known && !corekube.Dead(pod, machines) || !known && !overdue(pod) {
		return nil
	}
	if fresh, err := a.fresh(ctx); err != nil || !fresh {
		return err
	}
	return a.deletePod(ctx, pod, client.GracePeriodSeconds(0))
}

func (a *act) deletePod(ctx context.Context, pod *corev1.Pod, options ...client.DeleteOption) error {
	uid := pod.UID
	err := a.r.client.Delete(ctx, pod, append(options, client.Preconditions{UID: &uid})...)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // another pod already
	}
	if err != nil {
		return fmt.Errorf("end pod %s: %w", pod.Name, err)
	}
	return nil
}

// annotate tells the supervisor where it is, and the kubelet when a mounted file changed.
func (a *act) annotate(ctx context.Context, pod *corev1.Pod, want corekube.NodeObjects) error {
	annotations, err := a.r.annotations(ctx, a.node, pod, want)
	if err != nil || hasAll(pod.Annotations, annotations) {
		return err
	}
	return a.note(ctx, pod, annotations)
}

// note writes annotations of a pod.
func (a *act) note(ctx context.Context, pod *corev1.Pod, annotations map[string]string) error {
	a.busy = true
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID, "annotations": annotations}})
	if err != nil {
		return fmt.Errorf("encode the annotations of pod %s: %w", pod.Name, err)
	}
	err = a.r.client.Patch(ctx, pod, client.RawPatch(types.MergePatchType, patch), fieldOwner)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("annotate pod %s: %w", pod.Name, err)
	}
	return nil
}

func (r *Realizer) annotations(ctx context.Context, node *api.KafkaNode, pod *corev1.Pod, want corekube.NodeObjects) (map[string]string, error) {
	secret, err := read[corev1.Secret](ctx, r.client, node.Namespace, corekube.SecretName(node.Spec.ClusterName, node.Spec.NodeID))
	if err != nil {
		return nil, err
	}
	machines, _, err := r.machineOf(ctx, pod)
	if err != nil {
		return nil, err
	}
	at := corekube.PlacementOf(pod, machines)
	return map[string]string{
		layout.PlacementAnnotation: corekube.PlacementText(at),
		layout.LiveAnnotation:      liveDigest(want.Live, secret),
	}, nil
}

// liveDigest is over all that a pod has mounted and that changes in place.
func liveDigest(live *corev1.ConfigMap, secret *corev1.Secret) string {
	hash := sha256.New()
	add := func(name, content string) {
		hash.Write(fmt.Appendf(nil, "%d %s %d %s\n", len(name), name, len(content), content)) // never fails
	}
	for _, name := range slices.Sorted(maps.Keys(live.Data)) {
		add(name, live.Data[name])
	}
	if secret != nil {
		for _, name := range slices.Sorted(maps.Keys(secret.Data)) {
			add(name, string(secret.Data[name]))
		}
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil))
}

func hasAll(have, want map[string]string) bool {
	for key, value := range want {
		if found, ok := have[key]; !ok || found != value {
			return false
		}
	}
	return true
}

// sweep removes what the node had and needs no more.
func (a *act) sweep(ctx context.Context, want corekube.NodeObjects) error {
	mine := []client.ListOption{
		client.InNamespace(a.node.Namespace),
		client.MatchingLabels(corekube.NodeSelector(a.node.Spec.ClusterName, a.node.Spec.NodeID)),
	}
	var services corev1.ServiceList
	var maps corev1.ConfigMapList
	if err := errors.Join(a.r.client.List(ctx, &services, mine...), a.r.client.List(ctx, &maps, mine...)); err != nil {
		return fmt.Errorf("look for what is needed no more: %w", err)
	}
	var obsolete []client.Object
	for _, s := range corekube.ObsoleteServices(want, services.Items) {
		obsolete = append(obsolete, &s)
	}
	pod, err := a.r.pod(ctx, a.r.client, a.node)
	if err != nil {
		return err
	}
	// Without a pod the next one may still be made from an earlier template.
	for _, m := range corekube.ObsoleteConfigMaps(want, pod, maps.Items) {
		if pod != nil && corekube.MustRestart(want, pod) == "" {
			obsolete = append(obsolete, &m)
		}
	}
	return a.remove(ctx, obsolete)
}

func (a *act) remove(ctx context.Context, obsolete []client.Object) error {
	var errs []error
	for _, o := range obsolete {
		if o.GetDeletionTimestamp() != nil {
			continue
		}
		if fresh, err := a.fresh(ctx); err != nil || !fresh {
			return err
		}
		uid := o.GetUID()
		err := a.r.client.Delete(ctx, o, client.Preconditions{UID: &uid})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete %T %s, which is needed no more: %w", o, o.GetName(), err))
		}
	}
	return errors.Join(errs...)
}
