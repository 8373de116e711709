package host

import (
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	corehost "castellan.dev/castellan/core/host"
)

// Enrolment is everything that an agent's credentials need to exist: the host's namespace
// and the right to do its work in there and on its own Host, and nothing else. The objects
// carry their kinds, for server-side apply, in the order in which to write them.
func Enrolment(host string, agent rbacv1.Subject) []client.Object {
	namespace := corehost.Namespace(host)
	inside := metav1.ObjectMeta{Namespace: namespace, Name: "castellan-agent"}
	own := metav1.ObjectMeta{Name: "castellan:agent:" + host}
	rbac := func(kind string) metav1.TypeMeta {
		return metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: kind}
	}
	refer := func(kind, name string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
	}
	return []client.Object{
		&corev1.Namespace{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
			ObjectMeta: metav1.ObjectMeta{Name: namespace},
		},
		&rbacv1.Role{TypeMeta: rbac("Role"), ObjectMeta: inside, Rules: insideRules()},
		&rbacv1.RoleBinding{
			TypeMeta: rbac("RoleBinding"), ObjectMeta: inside,
			RoleRef: refer("Role", inside.Name), Subjects: []rbacv1.Subject{agent},
		},
		&rbacv1.ClusterRole{TypeMeta: rbac("ClusterRole"), ObjectMeta: own, Rules: ownRules(host)},
		&rbacv1.ClusterRoleBinding{
			TypeMeta: rbac("ClusterRoleBinding"), ObjectMeta: own,
			RoleRef: refer("ClusterRole", own.Name), Subjects: []rbacv1.Subject{agent},
		},
	}
}

func insideRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		// patch of the object itself is for the finalizer
		{APIGroups: []string{"castellan.dev"}, Resources: []string{"hostprocesses"}, Verbs: []string{"get", "list", "watch", "patch"}},
		{APIGroups: []string{"castellan.dev"}, Resources: []string{"hostprocesses/status"}, Verbs: []string{"patch"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{corehost.LeaseName}, Verbs: []string{"get", "update"}},
	}
}

func ownRules(host string) []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{"castellan.dev"}, Resources: []string{"hosts"}, ResourceNames: []string{host}, Verbs: []string{"get"}},
		{APIGroups: []string{"castellan.dev"}, Resources: []string{"hosts/status"}, ResourceNames: []string{host}, Verbs: []string{"patch"}},
	}
}
