package operator

import (
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	api "castellan.dev/castellan/api/v1alpha1"
)

// mixed judges for a cluster with controllers 0 and 1 and brokers 100 and 101, and one without nodes.
func mixed(t *testing.T) validator {
	t.Helper()
	scheme, err := Scheme()
	if err != nil {
		t.Fatal(err)
	}
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "kafka", Name: name, Labels: map[string]string{LabelCluster: "orders"}}
	}
	objects := []client.Object{
		&api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders", UID: "this"}, Spec: api.KafkaClusterSpec{State: api.StateStopped, Paused: true}},
		&api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "empty", UID: "other"}},
		&api.ClusterRevision{ObjectMeta: meta("orders-1"), Spec: api.ClusterRevisionSpec{ClusterName: "orders", Number: 1}},
	}
	for name, spec := range map[string]api.KafkaNodeSpec{
		"orders-0":   {NodeID: 0, Roles: []api.Role{api.RoleController}},
		"orders-1":   {NodeID: 1, Roles: []api.Role{api.RoleController}},
		"orders-100": {NodeID: 100, Roles: []api.Role{api.RoleBroker}},
		"orders-101": {NodeID: 101, Roles: []api.Role{api.RoleBroker, api.RoleController}},
	} {
		objects = append(objects, &api.KafkaNode{ObjectMeta: meta(name), Spec: spec})
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
	return validator{revisions: revisionsPort{client: c, live: c}, log: slog.New(slog.DiscardHandler)}
}

func TestOperationsThatMoveReplicas(t *testing.T) {
	v := mixed(t)
	rebalance := func(brokers ...int32) api.OperationSpec {
		return api.OperationSpec{Type: api.OperationRebalance, Rebalance: &api.Rebalance{Mode: api.RebalanceFill, Brokers: brokers}}
	}
	at := func(cluster string, spec api.OperationSpec) api.OperationSpec {
		spec.ClusterRef.Name = cluster
		return spec
	}
	for _, c := range []struct {
		reason string
		spec   api.OperationSpec
		owner  string
		want   string
	}{
		{"brokers are drained, also of a cluster that is stopped and paused: it waits", api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{100, 101}}, "", ""},
		{
			"a controller holds no replicas",
			api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{100, 1}},
			"",
			"spec.nodes[1]: node 1 of KafkaCluster orders is no broker, so it holds no replicas; its brokers are 100, 101",
		},
		{
			"a node that is not there",
			api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{7}},
			"",
			"spec.nodes[0]: KafkaCluster orders has no node 7; its nodes are 0, 1, 100, 101",
		},
		{
			"a drain is no rollout",
			api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{100}, ToRevision: "orders-1"},
			"",
			"spec.toRevision: a drain leads to no revision; leave toRevision out, or change the spec of the KafkaCluster",
		},
		{"brokers are filled", rebalance(101), "", ""},
		{"all brokers take part", rebalance(), "", ""},
		{
			"to a controller and to nobody nothing moves", rebalance(100, 0, 9), "",
			"spec.rebalance.brokers[1]: KafkaCluster orders has no broker 0; its brokers are 100, 101\n" +
				"spec.rebalance.brokers[2]: KafkaCluster orders has no broker 9; its brokers are 100, 101",
		},
		{
			"before the first node", at("empty", rebalance(0)), "",
			"spec.rebalance.brokers[0]: KafkaCluster empty has no broker 0; its brokers are none",
		},
		{
			"nodes would be left unread",
			api.OperationSpec{Type: api.OperationRebalance, Rebalance: &api.Rebalance{Mode: api.RebalanceFull}, Nodes: []int32{100}},
			"",
			"spec.nodes: a Rebalance moves replicas between brokers, and changes no nodes; leave it out, or name brokers in spec.rebalance.brokers",
		},
		{
			"a rebalance is no rollout",
			api.OperationSpec{Type: api.OperationRebalance, Rebalance: &api.Rebalance{Mode: api.RebalanceFull}, ToRevision: "orders-1"},
			"",
			"spec.toRevision: a rebalance leads to no revision; leave toRevision out, or change the spec of the KafkaCluster",
		},
		{
			"how many nodes there are is said elsewhere",
			api.OperationSpec{Type: api.OperationScale, ToRevision: "orders-1"},
			"",
			"spec.type: an Operation Scale is made by Castellan, when the nodes of a cluster change; change spec.pools[].replicas or spec.pools[].remove of KafkaCluster orders instead; one that was cancelled is taken up again by castellan retry",
		},
		{"the engine's own, for a node that comes", api.OperationSpec{Type: api.OperationScale, ToRevision: "orders-2", Nodes: []int32{102}}, "this", ""},
		{
			"that of an earlier cluster of the name",
			api.OperationSpec{Type: api.OperationScale, ToRevision: "orders-1"},
			"earlier",
			"spec.type: an Operation Scale is made by Castellan, when the nodes of a cluster change; change spec.pools[].replicas or spec.pools[].remove of KafkaCluster orders instead; one that was cancelled is taken up again by castellan retry",
		},
	} {
		op := &api.Operation{ObjectMeta: metav1.ObjectMeta{Name: "asked"}, Spec: c.spec}
		if op.Spec.ClusterRef.Name == "" {
			op.Spec.ClusterRef.Name = "orders"
		}
		if c.owner != "" {
			adopt(op, &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Name: "orders", UID: types.UID(c.owner)}})
		}
		if diff := cmp.Diff(c.want, refusal(t, v, op)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.reason, diff)
		}
	}
}

// refusal is what the one is told who makes an Operation; empty when it is taken.
func refusal(t *testing.T, v validator, op *api.Operation) string {
	t.Helper()
	raw, err := json.Marshal(op)
	if err != nil {
		t.Fatal(err)
	}
	request := admissionv1.AdmissionRequest{Namespace: "kafka", Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw}}
	answer := v.validateOperation(t.Context(), admission.Request{AdmissionRequest: request})
	if len(answer.Warnings) > 0 {
		t.Errorf("%s could not be judged: %v", op.Name, answer.Warnings)
	}
	if answer.Allowed {
		return ""
	}
	return answer.Result.Message
}
