package castellan_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
)

// The API server itself says what a team may that has the rights of the example.
func TestTeamMayMakeTopicsAndNothingElse(t *testing.T) {
	config := controlplanetest.Start(t)
	admin := controlplanetest.Client(t, config)
	text, err := os.ReadFile("examples/rbac/team.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var o unstructured.Unstructured
		if err := documents.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if err := admin.Create(t.Context(), &o); err != nil {
			t.Fatal(err)
		}
	}
	theirs := rest.CopyConfig(config)
	theirs.Impersonate = rest.ImpersonationConfig{UserName: "ada", Groups: []string{"team", "system:authenticated"}}
	ada := controlplanetest.Client(t, theirs)

	at := func(namespace string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: "orders"}
	}
	ref := api.EntityClusterRef{Name: "kafka", Namespace: "kafka"}
	topic := &api.KafkaTopic{ObjectMeta: at("team"), Spec: api.KafkaTopicSpec{ClusterRef: ref}}
	if err := ada.Create(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	topic.Spec.Partitions = new(int32(3))
	if err := ada.Update(t.Context(), topic); err != nil {
		t.Error(err)
	}
	if err := ada.Delete(t.Context(), topic); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"a topic elsewhere":    ada.Create(t.Context(), &api.KafkaTopic{ObjectMeta: at("default"), Spec: api.KafkaTopicSpec{ClusterRef: ref}}),
		"a topic's status":     ada.Status().Patch(t.Context(), topic, client.RawPatch("application/merge-patch+json", []byte(`{"status":{"topicName":"x"}}`))),
		"a user":               ada.Create(t.Context(), &api.KafkaUser{ObjectMeta: at("team"), Spec: api.KafkaUserSpec{ClusterRef: ref, Authentication: api.UserAuthentication{Type: api.UserExternal}}}),
		"an operation":         ada.Create(t.Context(), &api.Operation{ObjectMeta: at("team"), Spec: api.OperationSpec{ClusterRef: api.ClusterRef{Name: "kafka"}, Type: api.OperationRestart}}),
		"secrets":              ada.List(t.Context(), &corev1.SecretList{}, client.InNamespace("team")),
		"clusters of anybody":  ada.List(t.Context(), &api.KafkaClusterList{}),
		"nodes of the cluster": ada.List(t.Context(), &api.KafkaNodeList{}, client.InNamespace("kafka")),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want it forbidden", what, err)
		}
	}
}
