package deploy

import (
	"slices"
	"strings"
	"testing"
)

// TestNamespacedRights: with WatchNamespaces nothing of a namespace may be touched outside
// of them, and what lies in no namespace is only read, but for the webhook's own object.
func TestNamespacedRights(t *testing.T) {
	objects, err := Objects(Options{Namespace: "ops", WatchNamespaces: []string{"b", "a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	var places []string
	for _, o := range objects {
		switch o.GetKind() {
		case "Role":
			places = append(places, o.GetNamespace()+"/"+o.GetName())
		case "ClusterRole":
			text := encodeYAML(t, o.Object["rules"])
			for _, never := range []string{"secrets", "pods", "configmaps", "create", "update", "delete", "kafkaclusters"} {
				if strings.Contains(text, never) {
					t.Errorf("ClusterRole %s: %s in\n%s", o.GetName(), never, text)
				}
			}
		}
	}
	if want := []string{"ops/castellan-operator", "a/castellan-operator-clusters", "b/castellan-operator-clusters"}; !slices.Equal(places, want) {
		t.Errorf("Roles %v, want %v", places, want)
	}
}

func TestObjectsRefusesBadOptions(t *testing.T) {
	for _, o := range []Options{{Namespace: "Ops"}, {WatchNamespaces: []string{""}}, {Replicas: -1}} {
		if _, err := Objects(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
