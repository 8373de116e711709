package kube

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Rules are the rights that this package needs in every namespace with clusters.
func Rules() []rbacv1.PolicyRule {
	rule := func(group string, resources []string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
	}
	return []rbacv1.PolicyRule{
		rule("", []string{"configmaps", "persistentvolumeclaims", "services"}, "get", "list", "watch", "create", "patch", "delete"),
		rule("apps", []string{"statefulsets"}, "get", "list", "watch", "create", "patch", "delete"),
		rule("policy", []string{"poddisruptionbudgets"}, "get", "list", "watch", "create", "patch", "delete"),
		// Pods are made by StatefulSets; we only tell them where they are, and end them.
		rule("", []string{"pods"}, "get", "list", "watch", "patch", "delete"),
		rule("", []string{"secrets"}, "get", "list", "watch"),
		// Read only while a pod cannot start.
		rule("", []string{"events"}, "list"),
		// Where OwnerReferencesPermissionEnforcement is on, an owner that blocks its own
		// deletion must be one whose finalizers we may set.
		rule("castellan.dev", []string{"kafkanodes/finalizers", "kafkaclusters/finalizers"}, "update"),
	}
}

// ClusterRules are the rights on what has no namespace. All are optional: see Look.
func ClusterRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"persistentvolumes"}, Verbs: []string{"get", "list"}},
	}
}

// may says whether a kind may be listed; an error is anything else than a refusal.
func may(ctx context.Context, live client.Reader, list client.ObjectList) (bool, error) {
	err := live.List(ctx, list, client.Limit(1))
	if apierrors.IsForbidden(err) {
		return false, nil
	}
	return err == nil, err
}
