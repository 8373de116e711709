package operator

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
)

// A number of the spec that came back as text would be the operator's: the user's next
// apply of the same file would meet a conflict.
func TestFinalizerLeavesTheSpecToTheUser(t *testing.T) {
	c := controlplanetest.Client(t, controlplanetest.Start(t))
	applied := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": api.GroupVersion.String(), "kind": "KafkaCluster",
		"metadata": map[string]any{"namespace": "default", "name": "kafka"},
		"spec": map[string]any{
			"version": "4.3.1",
			"config":  map[string]any{"num.io.threads": int64(8)},
			"pools":   []any{map[string]any{"name": "nodes", "roles": []any{"broker", "controller"}, "replicas": int64(1)}},
		},
	}}
	user := client.FieldOwner("user")
	if err := c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(applied.DeepCopy()), user); err != nil {
		t.Fatal(err)
	}
	kc := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kafka"}}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(kc), kc); err != nil {
		t.Fatal(err)
	}
	r := &clusterReconciler{client: c}
	if err := r.patchFinalizer(t.Context(), kc, controllerutil.AddFinalizer); err != nil {
		t.Fatal(err)
	}
	for _, m := range kc.ManagedFields {
		if m.Manager == string(fieldOwner) && strings.Contains(m.FieldsV1.GetRawString(), "f:spec") {
			t.Errorf("the operator owns part of the spec: %s", m.FieldsV1.GetRawString())
		}
	}
	if err := unstructured.SetNestedField(applied.Object, int64(9), "spec", "config", "num.io.threads"); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(applied), user); err != nil {
		t.Errorf("the user's next apply: %v", err)
	}
	if err := r.patchFinalizer(t.Context(), kc, controllerutil.RemoveFinalizer); err == nil {
		t.Error("a finalizer was removed from an object that somebody had changed meanwhile")
	}
}
