package cluster_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

// More brokers must neither restart the others nor raise the min ISR of topics that were
// made with fewer replicas.
func TestMoreBrokersChangeNoOther(t *testing.T) {
	spec := func(replicas int32) api.KafkaClusterSpec {
		return api.KafkaClusterSpec{Version: "4.3.1", Pools: []api.Pool{{Name: "nodes", Roles: []api.Role{api.RoleBroker, api.RoleController}, Replicas: replicas}}}
	}
	catalog := cluster.Catalog{Packages: []api.Package{{Spec: api.PackageSpec{Product: api.ProductKafka, Version: "4.3.1"}, Status: api.PackageStatus{Digest: "sha256:1"}}}}
	before, problems := cluster.Resolve(cluster.Input{Name: "orders", Spec: spec(2), Catalog: catalog})
	if cluster.HasErrors(problems) || before.DefaultReplicas != 2 {
		t.Fatalf("default replicas %d, %v", before.DefaultReplicas, problems)
	}
	accepted := spec(2)
	for name, known := range map[string]int32{"as recorded": 2, "before it was recorded": 0} {
		in := cluster.Input{Name: "orders", Spec: spec(3), Catalog: catalog, Accepted: &accepted, NodeIDs: before.NodeIDs, DefaultReplicas: known}
		after, problems := cluster.Resolve(in)
		if cluster.HasErrors(problems) {
			t.Fatalf("%s: %v", name, problems)
		}
		for i := range before.Nodes {
			if diff := cmp.Diff(before.Nodes[i], after.Nodes[i]); diff != "" {
				t.Errorf("%s: node %d is another one:\n%s", name, before.Nodes[i].ID, diff)
			}
		}
		if diff := cmp.Diff(before.Dynamic, after.Dynamic); diff != "" {
			t.Errorf("%s: what lives in Kafka is another: %s", name, diff)
		}
		warned := false
		for _, p := range problems {
			warned = warned || strings.Contains(p.Reason, "began with fewer brokers")
		}
		if !warned || after.DefaultReplicas != 2 {
			t.Errorf("%s: warned %v, default replicas %d", name, warned, after.DefaultReplicas)
		}
	}
}
