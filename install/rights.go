package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// right is something that this user must be allowed.
type right struct{ group, resource, subresource, namespace string }

func (r right) String() string {
	name := r.resource
	if r.subresource != "" {
		name += "/" + r.subresource
	}
	if r.group != "" {
		name += "." + r.group
	}
	if r.namespace != "" {
		name += " in namespace " + r.namespace
	}
	return name
}

// checkRights asks for every right that the installation needs.
func (p *preflight) checkRights(ctx context.Context, w *wish) error {
	verbs := map[right][]string{}
	need := func(r right, v ...string) {
		verbs[r] = append(verbs[r], v...)
	}
	for _, o := range slices.Concat(w.operator, w.objects) {
		need(p.rightOn(o), "get", "create", "patch")
	}
	for _, name := range w.namespaces(p.OperatorNamespace) {
		if p.isThere(ctx, name) {
			continue
		}
		need(right{resource: "namespaces"}, "create")
	}
	need(right{group: "apps", resource: "deployments", namespace: p.OperatorNamespace}, "list")
	for _, c := range w.clusters {
		n := c.Namespace
		need(right{group: api.GroupVersion.Group, resource: "kafkaclusters", namespace: n}, "get")
		need(right{group: api.GroupVersion.Group, resource: "kafkanodes", namespace: n}, "list")
		need(right{resource: "pods", namespace: n}, "get", "list")
		need(right{resource: "pods", subresource: "portforward", namespace: n}, "create")
		need(right{resource: "events", namespace: n}, "list")
		need(right{resource: "secrets", namespace: n}, "get")
	}
	for r, wanted := range verbs {
		slices.Sort(wanted)
		var refused []string
		for _, verb := range slices.Compact(wanted) {
			allowed, err := p.allowed(ctx, r, verb)
			if err != nil {
				return err
			}
			if !allowed {
				refused = append(refused, verb)
			}
		}
		if len(refused) > 0 {
			p.miss("the right to %s %s", strings.Join(refused, ", "), r)
		}
	}
	slices.Sort(p.missing)
	return nil
}

func (p *preflight) isThere(ctx context.Context, namespace string) bool {
	return p.client.Get(ctx, client.ObjectKey{Name: namespace}, &corev1.Namespace{}) == nil
}

// rightOn names an object's resource. What no server knows yet is guessed as the server
// would have it: the plural of the kind.
func (p *preflight) rightOn(o *unstructured.Unstructured) right {
	gvk := o.GroupVersionKind()
	if m, err := p.client.RESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version); err == nil {
		r := right{group: m.Resource.Group, resource: m.Resource.Resource}
		if m.Scope.Name() == meta.RESTScopeNameNamespace {
			r.namespace = o.GetNamespace()
		}
		return r
	}
	plural, _ := meta.UnsafeGuessKindToResource(gvk)
	return right{group: gvk.Group, resource: plural.Resource, namespace: o.GetNamespace()}
}

func (p *preflight) allowed(ctx context.Context, r right, verb string) (bool, error) {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Group: r.group, Resource: r.resource, Subresource: r.subresource, Namespace: r.namespace, Verb: verb,
		},
	}}
	if err := p.client.Create(ctx, review); err != nil {
		return false, fmt.Errorf("ask whether %s %s is allowed: %w", verb, r, err)
	}
	return review.Status.Allowed, nil
}

// rehearse applies everything in a dry run, as far as its namespace and its type are there:
// it finds roles that this user may not give, fields that belong to somebody else, and
// specs that are refused.
func (p *preflight) rehearse(ctx context.Context, w *wish) error {
	for _, o := range slices.Concat(w.operator, w.objects) {
		_, force := p.owned(o, w)
		_, err := p.apply(ctx, o, force, true)
		switch {
		case err == nil, meta.IsNoMatchError(err), absent(err), unanswered(err):
			// Its type, its namespace or the operator that judges it is yet to come.
		case apierrors.IsForbidden(err) && p.toldAlready(o):
		case isRefusal(err):
			p.miss("%s %s that the API server accepts: %v", o.GetKind(), o.GetName(), err)
		default:
			return fmt.Errorf("try %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// toldAlready says whether the right on an object is among what is missing.
func (p *preflight) toldAlready(o *unstructured.Unstructured) bool {
	name := p.rightOn(o).String()
	return slices.ContainsFunc(p.missing, func(item string) bool {
		return strings.HasPrefix(item, "the right to") && strings.HasSuffix(item, " "+name)
	})
}

// tryPod asks in a dry run whether a namespace takes pods as Castellan makes them: its Pod
// Security level, policies and quotas answer.
func (p *preflight) tryPod(ctx context.Context, namespace string) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "castellan-preflight-"},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: new(false),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), RunAsUser: new(int64(1000)), FSGroup: new(int64(1000)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "kafka", Image: "apache/kafka",
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
	err := p.client.Create(ctx, pod, client.DryRunAll)
	if err != nil && isRefusal(err) && !strings.Contains(err.Error(), "cannot create resource") {
		p.miss("a namespace %s that takes Castellan's pods: %v", namespace, err)
	}
}
