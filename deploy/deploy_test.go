package deploy

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestNamespacedRights: with WatchNamespaces nothing of a namespace may be touched outside
// of them, and what lies in no namespace is only read, but for the webhook's own object.
func TestNamespacedRights(t *testing.T) {
	objects, err := Objects(Options{Namespace: "ops", WatchNamespaces: []string{"b", "a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	const wide, clusters = "castellan:operator:ops", "castellan:operator:ops:clusters"
	var bound []string
	for _, o := range objects {
		switch o.GetKind() {
		case "RoleBinding", "ClusterRoleBinding":
			role, _, err := unstructured.NestedString(o.Object, "roleRef", "name")
			if err != nil {
				t.Fatal(err)
			}
			bound = append(bound, strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")+" "+role)
		case "ClusterRole":
			text := encodeYAML(t, o.Object["rules"])
			for _, never := range []string{"secrets", "pods", "configmaps", "create", "update", "delete", "kafkaclusters"} {
				if o.GetName() != clusters && strings.Contains(text, never) {
					t.Errorf("ClusterRole %s: %s in\n%s", o.GetName(), never, text)
				}
			}
		}
	}
	want := []string{wide + " " + wide, "ops/castellan-operator castellan-operator", "a/castellan-operator-clusters " + clusters, "b/castellan-operator-clusters " + clusters}
	if !slices.Equal(bound, want) {
		t.Errorf("bound are %q, want %q", bound, want)
	}
}

func TestObjectsRefusesBadOptions(t *testing.T) {
	for _, o := range []Options{{Namespace: "Ops"}, {WatchNamespaces: []string{""}}, {Replicas: -1}} {
		if _, err := Objects(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
