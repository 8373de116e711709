package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// apply writes an object and says whether that changed anything.
func (s *session) apply(ctx context.Context, o *unstructured.Unstructured, force, dryRun bool) (changed bool, _ error) {
	before := shell(o)
	err := s.client.Get(ctx, client.ObjectKeyFromObject(o), before)
	if err != nil && !apierrors.IsNotFound(err) {
		return false, err
	}
	after := o.DeepCopy()
	options := []client.ApplyOption{client.FieldOwner(manager)}
	if force {
		options = append(options, client.ForceOwnership)
	}
	if dryRun {
		options = append(options, client.DryRunAll)
	}
	if err := s.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(after), options...); err != nil {
		return false, err
	}
	return before.GetUID() != after.GetUID() || before.GetResourceVersion() != after.GetResourceVersion(), nil
}

// shell is an object of the same kind to read into.
func shell(o *unstructured.Unstructured) *unstructured.Unstructured {
	empty := &unstructured.Unstructured{}
	empty.SetGroupVersionKind(o.GroupVersionKind())
	return empty
}

// owned says what of an object is forced: the operator is Castellan's own, unless somebody
// else has made it; a cluster is the user's.
func (s *session) owned(o *unstructured.Unstructured, w *wish) (operator, force bool) {
	if slices.Contains(w.operator, o) {
		// Its namespace may be somebody's own, and stays as it is then.
		return true, o.GetKind() != "Namespace"
	}
	return false, w.force
}

// applyAll writes objects in their order and says how many were changed.
func (s *session) applyAll(ctx context.Context, objects []*unstructured.Unstructured, w *wish) (int, error) {
	count := 0
	for _, o := range objects {
		operator, force := s.owned(o, w)
		changed, err := s.applyOne(ctx, o, force)
		if err != nil {
			return count, err
		}
		if changed {
			count++
		}
		if changed && !operator {
			s.Done("%s %s applied", strings.ToLower(o.GetKind()), fullName(o))
		}
		if o.GetKind() == definitionKind {
			if err := s.awaitServed(ctx, o); err != nil {
				return count, err
			}
		}
	}
	return count, nil
}

// applyOne tries again while the operator that judges the object does not answer yet.
func (s *session) applyOne(ctx context.Context, o *unstructured.Unstructured, force bool) (bool, error) {
	for {
		changed, err := s.apply(ctx, o, force, false)
		switch {
		case err == nil:
			return changed, nil
		case unanswered(err):
			s.Doing("waiting until the operator judges %s %s", strings.ToLower(o.GetKind()), fullName(o))
			if !pause(ctx) {
				return false, fmt.Errorf("the operator's webhook does not answer: %w: %w", err, ctx.Err())
			}
		case isRefusal(err) && !apierrors.IsForbidden(err):
			return false, &RefusedError{Message: fmt.Sprintf("%s %s is not accepted: %v", o.GetKind(), fullName(o), err)}
		default:
			return false, fmt.Errorf("apply %s %s: %w", o.GetKind(), fullName(o), err)
		}
	}
}

func fullName(o *unstructured.Unstructured) string {
	if o.GetNamespace() == "" {
		return o.GetName()
	}
	return o.GetNamespace() + "/" + o.GetName()
}

// awaitServed waits until the API server serves the type that a definition defines.
func (s *session) awaitServed(ctx context.Context, definition *unstructured.Unstructured) error {
	group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "kind")
	for {
		if _, err := s.client.RESTMapper().RESTMapping(schema.GroupKind{Group: group, Kind: kind}); err == nil {
			return nil
		}
		if !pause(ctx) {
			return fmt.Errorf("the API server does not serve %s yet: %w", definition.GetName(), ctx.Err())
		}
	}
}

// ensureNamespace makes the namespace of a cluster where there is none.
func (s *session) ensureNamespace(ctx context.Context, name string) (int, error) {
	err := s.client.Get(ctx, client.ObjectKey{Name: name}, &corev1.Namespace{})
	if err == nil || apierrors.IsForbidden(err) {
		return 0, nil
	}
	if !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("read namespace %s: %w", name, err)
	}
	err = s.client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.FieldOwner(manager))
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return 0, fmt.Errorf("create namespace %s: %w", name, err)
	}
	s.Done("namespace %s created", name)
	return 1, nil
}

// absent says that an object, or its whole type, is not there.
func absent(err error) bool { return apierrors.IsNotFound(err) || meta.IsNoMatchError(err) }

// unanswered says that admission could not be asked, which is so while the operator starts.
func unanswered(err error) bool {
	return apierrors.IsInternalError(err) && strings.Contains(err.Error(), "failed calling webhook")
}

// isRefusal says that the API server has judged, and said no.
func isRefusal(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsConflict(err) ||
		strings.Contains(err.Error(), "denied the request")
}
