package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	corekube "castellan.dev/castellan/core/kube"
)

// AppliedAnnotation is a digest of what was last applied: what is wanted no more must go
// too, and cannot be seen in an object that also has what others wrote.
const AppliedAnnotation = "castellan.dev/applied"

// put makes an object so. What the cache shows to be so costs no request.
func (a *act) put(ctx context.Context, want client.Object) error {
	if err := sign(want); err != nil {
		return err
	}
	same, err := a.so(ctx, a.r.client, want)
	if same || err != nil {
		return err
	}
	if fresh, err := a.fresh(ctx); err != nil || !fresh {
		return err
	}
	_, err = a.write(ctx, want)
	return err
}

// write makes a signed object so unless the API server shows that it is.
func (a *act) write(ctx context.Context, want client.Object) (wrote bool, err error) {
	same, err := a.so(ctx, a.r.live, want)
	if same || err != nil {
		return false, err
	}
	return true, a.send(ctx, want)
}

func (a *act) send(ctx context.Context, want client.Object) error {
	content, err := contentOf(want)
	if err != nil {
		return err
	}
	applied := &unstructured.Unstructured{Object: content}
	err = a.r.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(applied), fieldOwner, client.ForceOwnership)
	if apierrors.IsInvalid(err) {
		return a.replace(ctx, want, err)
	}
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", kindOf(want), want.GetName(), err)
	}
	if set, ok := want.(*appsv1.StatefulSet); ok {
		return a.exact(ctx, set, applied)
	}
	return nil
}

// so says whether an object is as wanted, as a reader shows it, or is on its way out, after
// which it is made anew. It completes want by what of the object cannot change.
func (a *act) so(ctx context.Context, from client.Reader, want client.Object) (bool, error) {
	have, ok := want.DeepCopyObject().(client.Object)
	if !ok {
		return false, fmt.Errorf("copy %T", want)
	}
	empty(have)
	err := from.Get(ctx, client.ObjectKeyFromObject(want), have)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s %s: %w", kindOf(want), want.GetName(), err)
	}
	if have.GetDeletionTimestamp() != nil {
		return true, nil
	}
	if err := ours(have, want); err != nil {
		return false, err
	}
	keep(want, have)
	return a.equal(want, have)
}

func (a *act) equal(want, have client.Object) (bool, error) {
	content, err := contentOf(want)
	if err != nil {
		return false, err
	}
	found, err := runtime.DefaultUnstructuredConverter.ToUnstructured(have)
	if err != nil {
		return false, fmt.Errorf("encode %s %s: %w", kindOf(want), want.GetName(), err)
	}
	wantSet, ok := want.(*appsv1.StatefulSet)
	if !ok {
		return holds(found, content), nil
	}
	haveSet, ok := have.(*appsv1.StatefulSet)
	if !ok {
		return false, fmt.Errorf("read %T as %T", want, have)
	}
	unstructured.RemoveNestedField(content, "spec", "template")
	return holds(found, content) && a.r.sameTemplate(wantSet, haveSet), nil
}

// sameTemplate compares exactly: what somebody added to a template would stand in the next
// pod, too.
func (r *Realizer) sameTemplate(want, have *appsv1.StatefulSet) bool {
	if equality.Semantic.DeepEqual(want.Spec.Template, have.Spec.Template) {
		return true
	}
	return r.extrasOf(have) == have.Generation
}

// extrasOf is the generation that stands in extras; -1 when none does.
func (r *Realizer) extrasOf(set *appsv1.StatefulSet) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if generation, known := r.extras[set.UID]; known {
		return generation
	}
	return -1
}

// exact takes out of a template what server-side apply leaves: the fields of others.
// Applied is what the API server answered.
func (a *act) exact(ctx context.Context, want *appsv1.StatefulSet, applied *unstructured.Unstructured) error {
	have := &appsv1.StatefulSet{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(applied.Object, have); err != nil {
		return fmt.Errorf("read StatefulSet %s as it was applied: %w", want.Name, err)
	}
	if equality.Semantic.DeepEqual(want.Spec.Template, have.Spec.Template) {
		return nil
	}
	patch, err := json.Marshal([]map[string]any{
		{"op": "replace", "path": "/spec/template", "value": want.Spec.Template},
	})
	if err != nil {
		return fmt.Errorf("encode the template of StatefulSet %s: %w", want.Name, err)
	}
	if err := a.r.client.Patch(ctx, have, client.RawPatch(types.JSONPatchType, patch), fieldOwner); err != nil {
		return fmt.Errorf("replace the template of StatefulSet %s: %w", want.Name, err)
	}
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	delete(a.r.extras, have.UID)
	if !equality.Semantic.DeepEqual(want.Spec.Template, have.Spec.Template) {
		a.r.extras[have.UID] = have.Generation
	}
	return nil
}

// replace makes an object anew whose change the API server refuses because a field of it
// never changes. Pods stay when a StatefulSet goes, and claims are never replaced.
func (a *act) replace(ctx context.Context, want client.Object, why error) error {
	options := []client.DeleteOption{client.PropagationPolicy(metav1.DeletePropagationBackground)}
	switch w := want.(type) {
	case *appsv1.StatefulSet:
		options[0] = client.PropagationPolicy(metav1.DeletePropagationOrphan)
	case *corev1.Service:
		if a.replacePorts(ctx, w) == nil {
			return nil // it keeps its addresses
		}
	case *corev1.ConfigMap:
	case *policyv1.PodDisruptionBudget:
		return a.replaceSpec(ctx, w, why)
	default:
		return fmt.Errorf("apply %s %s: %w", kindOf(want), want.GetName(), why)
	}
	have, ok := want.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("copy %T", want)
	}
	empty(have)
	err := a.r.live.Get(ctx, client.ObjectKeyFromObject(want), have)
	if err != nil {
		// There is none, so it is not what exists that is refused.
		return fmt.Errorf("apply %s %s: %w", kindOf(want), want.GetName(), why)
	}
	uid := have.GetUID()
	if err := a.r.client.Delete(ctx, have, append(options, client.Preconditions{UID: &uid})...); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s %s to make it anew (%w): %w", kindOf(want), want.GetName(), why, err)
	}
	return nil // its end is an event, after which it is applied again
}

// replaceSpec takes out of a budget what somebody else put beside our fields and what may
// not stand there with them. It is never deleted: without it anything could be evicted.
func (a *act) replaceSpec(ctx context.Context, want *policyv1.PodDisruptionBudget, why error) error {
	have := &policyv1.PodDisruptionBudget{}
	if err := a.r.live.Get(ctx, client.ObjectKeyFromObject(want), have); err != nil {
		return fmt.Errorf("apply %s %s: %w", kindOf(want), want.GetName(), why)
	}
	content, err := contentOf(want)
	if err != nil {
		return err
	}
	if err := a.substitute(ctx, have, "/spec", content["spec"]); err != nil {
		return fmt.Errorf("put back %s %s (%w): %w", kindOf(want), want.GetName(), why, err)
	}
	return nil
}

// replacePorts takes ports out of a Service that somebody else put beside ours and that may
// not stand there with them. Ports of machines that it has stay.
func (a *act) replacePorts(ctx context.Context, want *corev1.Service) error {
	have := &corev1.Service{}
	if err := a.r.live.Get(ctx, client.ObjectKeyFromObject(want), have); err != nil {
		return fmt.Errorf("read Service %s again: %w", want.Name, err)
	}
	ports := slices.Clone(want.Spec.Ports)
	for i := range ports {
		at := slices.IndexFunc(have.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == ports[i].Name })
		if at >= 0 && ports[i].NodePort == 0 {
			ports[i].NodePort = have.Spec.Ports[at].NodePort
		}
	}
	return a.substitute(ctx, have, "/spec/ports", ports)
}

// substitute replaces one part of an object that was just read, whoever wrote it.
func (a *act) substitute(ctx context.Context, have client.Object, path string, value any) error {
	patch, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/uid", "value": have.GetUID()},
		{"op": "replace", "path": path, "value": value},
	})
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return a.r.client.Patch(ctx, have, client.RawPatch(types.JSONPatchType, patch), fieldOwner)
}

// ours refuses to take over what is somebody else's. A claim without any label of ours is
// one that was restored by hand, and is adopted.
func ours(have, want client.Object) error {
	labels, wanted := have.GetLabels(), want.GetLabels()
	if labels[corekube.LabelCluster] == wanted[corekube.LabelCluster] && labels[corekube.LabelNodeID] == wanted[corekube.LabelNodeID] {
		return nil
	}
	if _, claim := have.(*corev1.PersistentVolumeClaim); claim && labels[corekube.LabelCluster] == "" {
		return nil
	}
	controller := metav1.GetControllerOf(have)
	for _, o := range want.GetOwnerReferences() {
		if controller != nil && controller.UID == o.UID {
			return nil
		}
	}
	return fmt.Errorf("%s %s exists and is not one of this cluster: delete it, or give the cluster another name", kindOf(want), have.GetName())
}

// keep takes over what of an existing object cannot change or never shrinks.
func keep(want, have client.Object) {
	claim, ok := want.(*corev1.PersistentVolumeClaim)
	if !ok {
		return
	}
	found, ok := have.(*corev1.PersistentVolumeClaim)
	if !ok {
		return
	}
	claim.Spec.AccessModes, claim.Spec.StorageClassName = found.Spec.AccessModes, found.Spec.StorageClassName
	size, has := found.Spec.Resources.Requests[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if size.Cmp(has) > 0 {
		claim.Spec.Resources.Requests[corev1.ResourceStorage] = size
	}
}

// sign notes the digest of an object on it.
func sign(o client.Object) error {
	content, err := contentOf(o)
	if err != nil {
		return err
	}
	data, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", kindOf(o), o.GetName(), err)
	}
	sum := sha256.Sum256(data)
	annotations := maps.Clone(o.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[AppliedAnnotation] = hex.EncodeToString(sum[:8])
	o.SetAnnotations(annotations)
	return nil
}

// contentOf is an object as it is applied.
func contentOf(o client.Object) (map[string]any, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", kindOf(o), o.GetName(), err)
	}
	delete(content, "status")
	dropNulls(content)
	return content, nil
}

func kindOf(o client.Object) string { return o.GetObjectKind().GroupVersionKind().Kind }
