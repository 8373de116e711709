// Package deploy says which objects an operator in Kubernetes is made of. The file
// castellan.yaml and the chart's rules and definitions are generated from it
// (go test ./deploy -update), and the chart must render the same. It installs nothing.
package deploy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"castellan.dev/castellan/operator"
)

// What an empty option means.
const (
	DefaultNamespace = "castellan-system"
	DefaultImage     = "castellan:dev"
	DefaultReplicas  = 2
)

const (
	// operatorName is the name of everything of the operator that no other one needs.
	operatorName = "castellan-operator"
	// serviceName is the Service of admission.
	serviceName = "castellan-webhook"
)

// Options are what differs between installations.
type Options struct {
	// Namespace of the operator; one operator to a namespace. Empty is [DefaultNamespace].
	Namespace string
	// WatchNamespaces are the only namespaces whose clusters are served, and the only ones
	// in which the operator has rights; they must exist. None means all.
	WatchNamespaces []string
	// Image of the operator, which pods also copy their supervisor from. Empty is [DefaultImage].
	Image string
	// Replicas of the operator; one leads. 0 is [DefaultReplicas].
	Replicas int
}

// Objects are all objects of an installation, in the order in which to apply them: the
// namespace and the CustomResourceDefinitions first, the Deployment last. They carry no
// status, and the webhook configuration no caBundle: the operator writes that.
func Objects(o Options) ([]*unstructured.Unstructured, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	definitions, err := definitions()
	if err != nil {
		return nil, err
	}
	typed := []runtime.Object{o.namespace()}
	rest := slices.Concat(o.account(), o.rights(), []runtime.Object{
		o.service(), o.budget(), operator.ServiceWebhook(o.Namespace, serviceName, o.WatchNamespaces), o.deployment(),
	})
	objects, err := encode(typed)
	if err != nil {
		return nil, err
	}
	others, err := encode(rest)
	if err != nil {
		return nil, err
	}
	return slices.Concat(objects, definitions, others), nil
}

func (o Options) complete() (Options, error) {
	o.Namespace, o.Image, o.Replicas = cmp.Or(o.Namespace, DefaultNamespace), cmp.Or(o.Image, DefaultImage), cmp.Or(o.Replicas, DefaultReplicas)
	o.WatchNamespaces = slices.Compact(slices.Sorted(slices.Values(o.WatchNamespaces)))
	var errs []error
	for _, n := range append([]string{o.Namespace}, o.WatchNamespaces...) {
		for _, reason := range validation.IsDNS1123Label(n) {
			errs = append(errs, fmt.Errorf("namespace %q: %s", n, reason))
		}
	}
	if o.Replicas < 0 {
		errs = append(errs, fmt.Errorf("replicas %d: give 1 or more", o.Replicas))
	}
	return o, errors.Join(errs...)
}

// encode makes objects as they are applied: without status and empty timestamps.
func encode(typed []runtime.Object) ([]*unstructured.Unstructured, error) {
	out := make([]*unstructured.Unstructured, 0, len(typed))
	for _, t := range typed {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(t)
		if err != nil {
			return nil, fmt.Errorf("encode %T: %w", t, err)
		}
		u := &unstructured.Unstructured{Object: content}
		unstructured.RemoveNestedField(content, "status")
		unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
		unstructured.RemoveNestedField(content, "spec", "template", "metadata", "creationTimestamp")
		if u.GetKind() == "Deployment" {
			prune(content)
		}
		out = append(out, u)
	}
	return out, nil
}

// prune takes out empty maps that stand for "not given".
func prune(m map[string]any) {
	for k, v := range m {
		if inner, ok := v.(map[string]any); ok {
			if prune(inner); len(inner) == 0 {
				delete(m, k)
			}
		}
	}
}

func kind(version, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version, Kind: kind}
}

func rbac(name string) metav1.TypeMeta { return kind(rbacv1.SchemeGroupVersion.String(), name) }

// selector finds the operator's pods. They must not carry managed-by: castellan, by which
// the operator knows what it made.
func selector() map[string]string {
	return map[string]string{"app.kubernetes.io/name": "castellan", "app.kubernetes.io/component": "operator"}
}

func (o Options) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: o.Namespace, Name: name, Labels: selector()}
}

func (o Options) namespace() *corev1.Namespace {
	return &corev1.Namespace{
		TypeMeta:   kind("v1", "Namespace"),
		ObjectMeta: metav1.ObjectMeta{Name: o.Namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}},
	}
}

func (o Options) account() []runtime.Object {
	return []runtime.Object{&corev1.ServiceAccount{TypeMeta: kind("v1", "ServiceAccount"), ObjectMeta: o.meta(operatorName)}}
}

// rights are cluster-wide, or, with WatchNamespaces, in those and nowhere else but for what
// lies in no namespace.
func (o Options) rights() []runtime.Object {
	access := operator.KubernetesAccess(o.Namespace)
	wide := metav1.ObjectMeta{Name: "castellan:operator:" + o.Namespace, Labels: selector()}
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: o.Namespace, Name: operatorName}}
	everywhere := slices.Concat(access.Cluster, access.Admission)
	if len(o.WatchNamespaces) == 0 {
		everywhere = append(everywhere, access.Namespaced...)
	}
	objects := []runtime.Object{
		&rbacv1.ClusterRole{TypeMeta: rbac("ClusterRole"), ObjectMeta: wide, Rules: everywhere},
		&rbacv1.ClusterRoleBinding{
			TypeMeta: rbac("ClusterRoleBinding"), ObjectMeta: wide, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: wide.Name},
		},
	}
	own := o.meta(operatorName)
	objects = append(objects,
		&rbacv1.Role{TypeMeta: rbac("Role"), ObjectMeta: own, Rules: access.Own}, binding(own, "Role", own.Name, subjects))
	if len(o.WatchNamespaces) == 0 {
		return objects
	}
	clusters := metav1.ObjectMeta{Name: wide.Name + ":clusters", Labels: selector()}
	objects = append(objects, &rbacv1.ClusterRole{TypeMeta: rbac("ClusterRole"), ObjectMeta: clusters, Rules: access.Namespaced})
	for _, n := range o.WatchNamespaces {
		// The operator's own namespace may be one of these and has a RoleBinding besides.
		objects = append(objects, binding(metav1.ObjectMeta{Namespace: n, Name: operator.ClustersBinding, Labels: selector()}, "ClusterRole", clusters.Name, subjects))
	}
	return objects
}

func binding(at metav1.ObjectMeta, roleKind, role string, subjects []rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		TypeMeta: rbac("RoleBinding"), ObjectMeta: at, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: roleKind, Name: role},
	}
}

func (o Options) service() *corev1.Service {
	return &corev1.Service{
		TypeMeta: kind("v1", "Service"), ObjectMeta: o.meta(serviceName),
		Spec: corev1.ServiceSpec{Selector: selector(), Ports: []corev1.ServicePort{{
			Name: "webhook", Port: 443, TargetPort: intstr.FromString("webhook"),
		}}},
	}
}

func (o Options) budget() *policyv1.PodDisruptionBudget {
	one := intstr.FromInt32(1)
	return &policyv1.PodDisruptionBudget{
		TypeMeta: kind(policyv1.SchemeGroupVersion.String(), "PodDisruptionBudget"), ObjectMeta: o.meta(operatorName),
		Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: selector()}},
	}
}

func (o Options) deployment() *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta: kind(appsv1.SchemeGroupVersion.String(), "Deployment"), ObjectMeta: o.meta(operatorName),
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(o.Replicas)), //nolint:gosec // small
			Selector: &metav1.LabelSelector{MatchLabels: selector()},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: selector()}, Spec: o.pod()},
		},
	}
}
