package operator

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"

	kubesub "castellan.dev/castellan/substrate/kube"
)

// Access is what an operator that serves Kubernetes may do. Manifests and the chart are
// made from it, and [RightsCheck] asks for it.
type Access struct {
	// Namespaced rules hold in each namespace that is served, or in all.
	Namespaced []rbacv1.PolicyRule
	// Own rules hold in the operator's own namespace.
	Own []rbacv1.PolicyRule
	// Cluster rules are about what lies in no namespace, and only read. Without them less
	// is known, and nodes run all the same.
	Cluster []rbacv1.PolicyRule
	// Admission rules, about what lies in no namespace, serve to have bad specs refused
	// when they are applied; without them a condition tells.
	Admission []rbacv1.PolicyRule
}

// KubernetesAccess is the access of an operator in a namespace of a Kubernetes cluster.
func KubernetesAccess(namespace string) Access {
	events := []rbacv1.PolicyRule{rule("events.k8s.io", verbs("create", "patch"), "events"), rule("", verbs("create", "patch"), "events")}
	return Access{
		Namespaced: slices.Concat(ownKinds(), kubesub.Rules(), events, []rbacv1.PolicyRule{
			// For the one finalizer on it; nobody can give himself rights by that.
			named(rule(rbacv1.GroupName, verbs("get", "patch"), "rolebindings"), ClustersBinding),
		}),
		Own: append([]rbacv1.PolicyRule{
			rule("coordination.k8s.io", verbs("create"), "leases"),
			named(rule("coordination.k8s.io", verbs("get", "update", "patch"), "leases"), LeaseName),
			rule("", verbs("create"), "secrets"),
			named(rule("", verbs("get", "list", "watch", "update"), "secrets"), WebhookSecret),
		}, events...),
		// Labels of namespaces decide whose topics and users a cluster takes (spec.allowedNamespaces).
		Cluster: append(kubesub.ClusterRules(), rule("", verbs("get", "list", "watch"), "namespaces")),
		Admission: []rbacv1.PolicyRule{
			named(rule("admissionregistration.k8s.io", verbs("get", "list", "watch", "patch"), "validatingwebhookconfigurations"), WebhookConfiguration(namespace)),
		},
	}
}

// ownKinds are the objects of castellan.dev, and the Secrets with their certificates.
func ownKinds() []rbacv1.PolicyRule {
	const group = "castellan.dev"
	return []rbacv1.PolicyRule{
		rule(group, verbs("get", "list", "watch", "patch"), "kafkaclusters"),
		rule(group, verbs("get", "list", "watch", "create", "update", "patch", "delete"), "kafkanodes"),
		rule(group, verbs("get", "list", "watch", "create", "patch", "delete"), "clusterrevisions"),
		rule(group, verbs("get", "list", "watch", "create", "patch", "delete"), "operations"),
		rule(group, verbs("get", "list", "watch", "patch"), "kafkatopics", "kafkausers"),
		rule(group, verbs("patch"), "kafkaclusters/status", "kafkanodes/status", "operations/status", "kafkatopics/status", "kafkausers/status"),
		rule("", verbs("create", "update", "delete"), "secrets"),
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
