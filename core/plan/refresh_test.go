package plan_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
)

// A controller that left registers at the new version before features are finalized, never
// votes, and goes again.
func TestControllerThatLeftIsInNobodysWay(t *testing.T) {
	m := model(controllers(3), brokers(3))
	m.Rollout.Upgrade.Soak = &metav1.Duration{Duration: time.Second}
	m.NodeIDs = []api.PoolNodeIDs{{Pool: "controllers", IDs: []int32{0, 1, 2, 7}, Removed: []int32{7}}}
	s := newScaled(t, m)
	s.w.Registered, s.w.Retired[7] = map[int32]string{7: "4.3.1"}, true
	s.w.Features["metadata.version"], s.w.Supported["metadata.version"] = 27, 29
	s.spec(func(m *cluster.Model) {
		m.Version = "4.4.0"
		for i := range m.Nodes {
			m.Nodes[i].Process.Version = "4.4.0"
		}
	})
	s.atRest(300)
	if s.w.Features["metadata.version"] != 29 {
		t.Errorf("features %v: %s", s.w.Features, s.said())
	}
	if _, gone := s.w.Deleted[7]; !gone || s.count(plan.AddVoter) > 0 || s.w.Registered[7] != "4.4.0" {
		t.Errorf("gone %v, %d voters were added, it is registered at %s", gone, s.count(plan.AddVoter), s.w.Registered[7])
	}
	s.phase("orders-upgrade-r2", api.OperationSucceeded, "")
}
