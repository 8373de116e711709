package operator

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	api "castellan.dev/castellan/api/v1alpha1"
)

// A KafkaTopic is held against the cluster that it is for, before Kafka could refuse it.
func TestTopicsBesideTheirCluster(t *testing.T) {
	scheme, err := Scheme()
	if err != nil {
		t.Fatal(err)
	}
	orders := &api.KafkaCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders"},
		Spec: api.KafkaClusterSpec{
			Version: "4.3.1", Config: api.Config{"delete.topic.enable": "False"},
			Pools: []api.Pool{{Roles: []api.Role{api.RoleController}, Replicas: 3}, {Roles: []api.Role{api.RoleBroker}, Replicas: 2}},
		},
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(orders).Build()
	v := validator{revisions: revisionsPort{client: c, live: c}, log: slog.New(slog.DiscardHandler)}
	for _, tt := range []struct {
		reason, cluster string
		spec            api.KafkaTopicSpec
		want            []string // none is that it is let through
	}{
		{"as it should be", "orders", api.KafkaTopicSpec{Replicas: new(int32(2)), Config: api.Config{"cleanup.policy": "compact"}}, nil},
		{"a key that no Kafka has", "orders", api.KafkaTopicSpec{Config: api.Config{"retention.weeks": "1"}}, []string{"spec.config[retention.weeks]", "Kafka 4.3 has no topic key retention.weeks"}},
		{"a broker's name for it", "orders", api.KafkaTopicSpec{Config: api.Config{"log.cleanup.policy": "compact"}}, []string{"for a topic it is called cleanup.policy"}},
		{"a value that is none", "orders", api.KafkaTopicSpec{Config: api.Config{"cleanup.policy": "shred"}}, []string{"accepted: one of compact, delete"}},
		{"more replicas than brokers", "orders", api.KafkaTopicSpec{Replicas: new(int32(3))}, []string{"spec.replicas", "is 3 and the cluster has 2 brokers"}},
		{"a deletion that Kafka does not do", "orders", api.KafkaTopicSpec{DeletionPolicy: api.DeletionDelete}, []string{"spec.deletionPolicy", "delete.topic.enable=false"}},
		{"all at once", "orders", api.KafkaTopicSpec{Replicas: new(int32(9)), Config: api.Config{"a": "1", "b": "2"}}, []string{"spec.config[a]", "spec.config[b]", "spec.replicas"}},
		{"a cluster that is not there yet", "later", api.KafkaTopicSpec{Replicas: new(int32(9)), Config: api.Config{"a": "1"}}, nil},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			tt.spec.ClusterRef = api.EntityClusterRef{Name: tt.cluster, Namespace: "kafka"}
			raw, err := json.Marshal(&api.KafkaTopic{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "t"}, Spec: tt.spec})
			if err != nil {
				t.Fatal(err)
			}
			got := v.validateTopic(t.Context(), admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
				Operation: admissionv1.Create, Namespace: "team", Name: "t", Object: runtime.RawExtension{Raw: raw},
			}})
			if got.Allowed != (len(tt.want) == 0) {
				t.Fatalf("allowed %t: %+v", got.Allowed, got.Result)
			}
			for _, words := range tt.want {
				if !strings.Contains(got.Result.Message, words) {
					t.Errorf("the answer lacks %q: %s", words, got.Result.Message)
				}
			}
		})
	}
}
