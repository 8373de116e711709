package operator

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Access is what an operator that serves Kubernetes must be allowed. Manifests and the
// chart are made from it, and [RightsCheck] asks for it.
type Access struct {
	// Namespaced rules hold in each namespace that is served, or in all.
	Namespaced []rbacv1.PolicyRule
	// Cluster rules are about what lies in no namespace; they only read.
	Cluster []rbacv1.PolicyRule
	// Own rules hold in the operator's own namespace.
	Own []rbacv1.PolicyRule
	// Admission rules, about what lies in no namespace, serve to have bad specs refused
	// when they are applied; an operator does its work without them too.
	Admission []rbacv1.PolicyRule
}

// KubernetesAccess is the access of an operator in a namespace of a Kubernetes cluster.
func KubernetesAccess(namespace string) Access {
	return Access{
		Namespaced: append(ownKinds(), kubernetesKinds()...),
		Cluster: []rbacv1.PolicyRule{
			rule("", verbs("get", "list", "watch"), "nodes"), // zone and addresses of where a pod landed
			rule("storage.k8s.io", verbs("get", "list", "watch"), "storageclasses"),
		},
		Own: []rbacv1.PolicyRule{
			rule("coordination.k8s.io", verbs("create"), "leases"),
			named(rule("coordination.k8s.io", verbs("get", "update", "patch"), "leases"), LeaseName),
			rule("", verbs("create"), "secrets"),
			named(rule("", verbs("get", "list", "watch", "update"), "secrets"), WebhookSecret),
			rule("events.k8s.io", verbs("create", "patch"), "events"),
			rule("", verbs("create", "patch"), "events"),
		},
		Admission: []rbacv1.PolicyRule{
			named(rule("admissionregistration.k8s.io", verbs("get", "list", "watch", "patch"), "validatingwebhookconfigurations"), WebhookConfiguration(namespace)),
		},
	}
}

// ownKinds are the objects of castellan.dev. The right to update finalizers lets objects
// that the operator makes be owned by these.
func ownKinds() []rbacv1.PolicyRule {
	const group = "castellan.dev"
	return []rbacv1.PolicyRule{
		rule(group, verbs("get", "list", "watch", "patch"), "kafkaclusters"),
		rule(group, verbs("get", "list", "watch", "create", "update", "patch", "delete"), "kafkanodes"),
		rule(group, verbs("get", "list", "watch", "create", "patch", "delete"), "clusterrevisions"),
		rule(group, verbs("patch"), "kafkaclusters/status", "kafkanodes/status"),
		rule(group, verbs("update"), "kafkaclusters/finalizers", "kafkanodes/finalizers"),
	}
}

// kubernetesKinds are what a node is made of, and what tells about it.
func kubernetesKinds() []rbacv1.PolicyRule {
	all := verbs("get", "list", "watch", "create", "update", "patch", "delete")
	return []rbacv1.PolicyRule{
		rule("", all, "secrets", "configmaps", "services", "persistentvolumeclaims"),
		rule("", verbs("get", "list", "watch", "patch", "delete"), "pods"),
		rule("apps", all, "statefulsets"),
		rule("policy", all, "poddisruptionbudgets"),
		rule("events.k8s.io", verbs("create", "patch"), "events"),
		rule("", verbs("create", "patch"), "events"),
	}
}

func rule(group string, verbs []string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
}

func named(r rbacv1.PolicyRule, names ...string) rbacv1.PolicyRule {
	r.ResourceNames = names
	return r
}

func verbs(v ...string) []string { return slices.Clone(v) }
