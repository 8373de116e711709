package operator

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
	"castellan.dev/castellan/engine"
	hostsub "castellan.dev/castellan/substrate/host"
)

// An operator that was held up while another one took over writes on facts of long ago.
func TestWriteTakesNothingBackThatAnotherOperatorDid(t *testing.T) {
	c := controlplanetest.Client(t, controlplanetest.Start(t))
	kc := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orders"}}
	late, now := portOf(c), portOf(c)
	spec := func(heap int64) *api.KafkaNodeSpec {
		return &api.KafkaNodeSpec{
			ClusterName: "orders", NodeID: 1, Pool: "nodes", Roles: []api.Role{api.RoleBroker}, Revision: "orders-1", Address: "h",
			Ports: map[string]int32{"INTERNAL": 9091}, Volumes: []api.NodeVolume{{Name: "data", Path: "/data/1"}},
			Process: api.ProcessSpec{Version: "4.3.1", Volumes: []string{"data"}, HeapBytes: heap, Layout: 1},
		}
	}
	for _, heap := range []int64{1, 2} { // created, and written again in the same pass
		if err := now.Write(t.Context(), kc, spec(heap)); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what, word string, p nodesPort) {
		t.Helper()
		if err := p.Write(t.Context(), kc, spec(9)); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: got %v, want an error with %q", what, err, word)
		}
	}
	list(t, late, kc)
	if err := now.Write(t.Context(), kc, spec(3)); err != nil {
		t.Fatal(err)
	}
	refused("changed by another one", "changed", late)
	node := &api.KafkaNode{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orders-1"}}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(node), node); err != nil || node.Spec.Process.HeapBytes != 3 {
		t.Fatalf("heap %d, error %v: want what was written last", node.Spec.Process.HeapBytes, err)
	}
	node.Labels, node.Finalizers = nil, nil
	if err := c.Update(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	list(t, late, kc)
	refused("without its label", LabelCluster, late)
	if err := c.Delete(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	refused("deleted", "deleted", now)
	list(t, now, kc)
	if err := now.Write(t.Context(), kc, spec(4)); err != nil {
		t.Errorf("created again: %v", err)
	}
}

// A user may think better of deletionPolicy Delete as long as the nodes are still stopping.
func TestDataIsKeptForWhomThinksBetterOfIt(t *testing.T) {
	scheme, err := Scheme()
	if err != nil {
		t.Fatal(err)
	}
	node := &api.KafkaNode{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orders-1", Finalizers: []string{nodeFinalizer}}}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(node).Build()
	kc := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "orders"}}
	for _, withData := range []bool{true, false, true} {
		if err := portOf(c).Delete(t.Context(), kc, 1, withData); err != nil {
			t.Fatal(err)
		}
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(node), node); err != nil {
			t.Fatal(err)
		}
		if got := node.Annotations[removeData] == "true"; got != withData || node.DeletionTimestamp == nil {
			t.Errorf("with data %t: removes data %t, deleted %v", withData, got, node.DeletionTimestamp)
		}
	}
}

func portOf(c client.Client) nodesPort {
	return nodesPort{client: c, live: c, on: substrates{hosts: hostsub.New(c, c)}, seen: newSeenNodes()}
}

func list(t *testing.T, p nodesPort, kc *api.KafkaCluster) {
	t.Helper()
	if _, err := p.List(t.Context(), kc, engine.Fresh); err != nil {
		t.Fatal(err)
	}
}
