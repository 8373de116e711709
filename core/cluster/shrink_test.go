package cluster_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

// history is a cluster over time: each spec is accepted, and nodes leave for good.
type history struct {
	t  *testing.T
	in cluster.Input
}

// begin is a cluster of three controllers, 0 to 2, and five brokers, 100 to 104.
func begin(t *testing.T) *history {
	t.Helper()
	h := &history{t: t, in: good(controllerPool(3), brokerPool(5))}
	h.change(func([]api.Pool) {})
	return h
}

// change accepts a spec with other pools, and gives the ids of the brokers.
func (h *history) change(change func(pools []api.Pool)) []int32 {
	h.t.Helper()
	change(h.in.Spec.Pools)
	m := resolved(h.t, h.in)
	h.in.Accepted = h.in.Spec.DeepCopy()
	h.in.NodeIDs, h.in.DefaultReplicas = m.NodeIDs, m.DefaultReplicas
	return idsByPool(m)["brokers"]
}

// leave records that nodes have left for good, after which the spec means the same.
func (h *history) leave(ids ...int32) {
	h.t.Helper()
	before := idsByPool(resolved(h.t, h.in))
	for i := range h.in.NodeIDs {
		for _, id := range ids {
			if slices.Contains(h.in.NodeIDs[i].IDs, id) {
				h.in.NodeIDs[i].Removed = append(h.in.NodeIDs[i].Removed, id)
			}
		}
	}
	if diff := cmp.Diff(before, idsByPool(resolved(h.t, h.in))); diff != "" {
		h.t.Errorf("nodes change when %d have left:\n%s", ids, diff)
	}
}

func TestNodesLeave(t *testing.T) {
	replicas := func(n int32) func([]api.Pool) { return func(p []api.Pool) { p[1].Replicas = n } }
	remove := func(n int32, ids ...int32) func([]api.Pool) {
		return func(p []api.Pool) { p[1].Replicas, p[1].Remove = n, ids }
	}
	type step struct {
		change func([]api.Pool)
		want   []int32
		leave  []int32
	}
	tests := map[string][]step{
		"the highest, and new ones after them": {
			{change: replicas(3), want: []int32{100, 101, 102}, leave: []int32{103, 104}},
			{change: replicas(5), want: []int32{100, 101, 102, 105, 106}},
		},
		"back before they have left": {
			{change: replicas(3), want: []int32{100, 101, 102}, leave: []int32{104}},
			{change: replicas(5), want: []int32{100, 101, 102, 103, 105}},
		},
		"one in the middle, and its mention later": {
			{change: remove(4, 101), want: []int32{100, 102, 103, 104}, leave: []int32{101}},
			{change: remove(4), want: []int32{100, 102, 103, 104}},
			{change: remove(5), want: []int32{100, 102, 103, 104, 105}},
		},
		"more nodes while one that has left is still named": {
			{change: remove(4, 101), want: []int32{100, 102, 103, 104}, leave: []int32{101}},
			{change: remove(6, 101), want: []int32{100, 102, 103, 104, 105, 106}},
			{change: remove(4, 101, 104), want: []int32{100, 102, 103, 105}, leave: []int32{104, 106}},
			{change: remove(4), want: []int32{100, 102, 103, 105}},
		},
		"one is replaced": {
			{change: remove(5, 101), want: []int32{100, 102, 103, 104, 105}, leave: []int32{101}},
			{change: remove(5), want: []int32{100, 102, 103, 104, 105}},
		},
		"one is replaced, and not": {
			{change: remove(5, 101), want: []int32{100, 102, 103, 104, 105}},
			{change: remove(5), want: []int32{100, 101, 102, 103, 104}, leave: []int32{105}},
			{change: remove(6), want: []int32{100, 101, 102, 103, 104, 106}},
		},
		"all are replaced": {
			{change: remove(5, 100, 101, 102, 103, 104), want: []int32{105, 106, 107, 108, 109}, leave: []int32{100, 101, 102, 103, 104}},
		},
		"nobody is counted twice": {
			{change: remove(3, 104), want: []int32{100, 101, 102}, leave: []int32{103, 104}},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			h := begin(t)
			for i, s := range steps {
				if diff := cmp.Diff(s.want, h.change(s.change)); diff != "" {
					t.Fatalf("step %d (-want +got):\n%s", i, diff)
				}
				h.leave(s.leave...)
			}
		})
	}
}

// The record of nodes that left is passed on, and stays as it was given.
func TestRemovedIsKept(t *testing.T) {
	in := good()
	in.NodeIDs = []api.PoolNodeIDs{{Pool: "nodes", IDs: []int32{0, 1, 2, 3}, Removed: []int32{1}}, {Pool: "gone", IDs: []int32{7}, Removed: []int32{7}}}
	given := []api.PoolNodeIDs{*in.NodeIDs[0].DeepCopy(), *in.NodeIDs[1].DeepCopy()}
	m := resolved(t, in)
	if diff := cmp.Diff(given, m.NodeIDs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string][]int32{"nodes": {0, 2, 3}}, idsByPool(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A first id says where to begin, not where to begin again.
func TestFirstNodeIDAfterLeaving(t *testing.T) {
	p := combinedPool(3)
	p.FirstNodeID = new(int32(5))
	in := good(p)
	in.NodeIDs = []api.PoolNodeIDs{{Pool: "nodes", IDs: []int32{5, 6, 7}, Removed: []int32{5, 6}}}
	if diff := cmp.Diff(map[string][]int32{"nodes": {7, 8, 9}}, idsByPool(resolved(t, in))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A node may have left that no revision knew.
func TestRemovedAlone(t *testing.T) {
	in := good(combinedPool(3), api.Pool{Name: "more", Roles: []api.Role{api.RoleBroker}, Replicas: 1})
	in.Spec.Pools[0].Remove = []int32{2}
	in.NodeIDs = []api.PoolNodeIDs{{Pool: "nodes", IDs: []int32{0, 1}, Removed: []int32{1, 2}}, {Pool: "gone", Removed: []int32{100}}}
	want := map[string][]int32{"nodes": {0, 3, 4}, "more": {200}}
	if diff := cmp.Diff(want, idsByPool(resolved(t, in))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPoolsLeave(t *testing.T) {
	h := begin(t)
	old := h.in.Spec.DeepCopy().Pools
	revisions := []api.ClusterRevision{{Spec: api.ClusterRevisionSpec{NodeIDs: h.in.NodeIDs, Cluster: *h.in.Spec.DeepCopy()}}}
	h.in.Spec.Pools[1] = api.Pool{Name: "other", Roles: []api.Role{api.RoleBroker}, Replicas: 3}
	h.change(func([]api.Pool) {})
	if diff := cmp.Diff(map[string][]int32{"controllers": {0, 1, 2}, "other": {200, 201, 202}}, idsByPool(resolved(t, h.in))); diff != "" {
		t.Fatalf("one pool in place of another (-want +got):\n%s", diff)
	}
	revisions = append(revisions, api.ClusterRevision{Spec: api.ClusterRevisionSpec{NodeIDs: h.in.NodeIDs, Cluster: *h.in.Spec.DeepCopy()}})
	h.in.Leaving = cluster.LeavingPools(revisions)
	if diff := cmp.Diff(old[1:], h.in.Leaving); diff != "" {
		t.Fatalf("pools that leave (-want +got):\n%s", diff)
	}
	h.in.Spec.Pools = append(h.in.Spec.Pools, old[1])
	want := map[string][]int32{"controllers": {0, 1, 2}, "other": {200, 201, 202}, "brokers": count(100, 5)}
	if diff := cmp.Diff(want, idsByPool(resolved(t, h.in))); diff != "" {
		t.Errorf("a pool that comes back gets its nodes back (-want +got):\n%s", diff)
	}
	h.in.Spec.Pools[2].Roles = []api.Role{api.RoleController}
	_, problems := cluster.Resolve(h.in)
	if got := strings.Join(lines(problems), "\n"); !strings.Contains(got, "spec.pools[2].roles: the roles of pool brokers cannot change from broker") {
		t.Errorf("a pool comes back with other roles while its nodes are there:\n%s", got)
	}
	for i := range revisions[1].Spec.NodeIDs {
		if g := &revisions[1].Spec.NodeIDs[i]; g.Pool == "brokers" {
			g.Removed = slices.Clone(g.IDs)
		}
	}
	h.in.NodeIDs, h.in.Leaving = revisions[1].Spec.NodeIDs, cluster.LeavingPools(revisions)
	if len(h.in.Leaving) > 0 {
		t.Errorf("nothing of it is left, but it leaves: %v", h.in.Leaving)
	}
	want["brokers"] = count(105, 5) // controllers now, and new nodes
	if diff := cmp.Diff(want, idsByPool(resolved(t, h.in))); diff != "" {
		t.Errorf("only the name comes back (-want +got):\n%s", diff)
	}
}

// TestProblemsOfLeaving is about what may not leave.
func TestProblemsOfLeaving(t *testing.T) {
	const unset = "default.replication.factor, transaction.state.log.replication.factor, share.coordinator.state.topic.replication.factor, offsets.topic.replication.factor"
	factors := func(n api.ConfigValue) api.Config {
		c := api.Config{}
		for key := range strings.SplitSeq(unset, ", ") {
			c[key] = n
		}
		return c
	}
	base := func() cluster.Input { return begin(t).in }
	checkProblems(t, base, map[string]problemCase{
		"a node that never was": {
			func(in *cluster.Input) {
				in.NodeIDs[1].Removed = []int32{101}
				in.Spec.Pools[1].Remove = []int32{101, 1, 105}
			},
			[]string{
				"Error spec.pools[1].remove[1]: pool brokers never had a node 1; its nodes are 100, 102, 103, 104",
				"Error spec.pools[1].remove[2]: pool brokers never had a node 105; its nodes are 100, 102, 103, 104",
			},
		},
		"a node of a new pool": {
			func(in *cluster.Input) {
				in.Spec.Pools = append(in.Spec.Pools, api.Pool{Name: "more", Roles: []api.Role{api.RoleBroker}, Replicas: 1, Remove: []int32{200}})
			},
			[]string{"Error spec.pools[2].remove[0]: pool more never had a node 200; leave it out: the pool is new"},
		},
		"the brokers": {
			func(in *cluster.Input) { in.Spec.Pools = in.Spec.Pools[:1] },
			[]string{"Error spec.pools: no pool has the role broker, so no partition could be placed; add a pool with roles: [broker]"},
		},
		"the controllers": {
			func(in *cluster.Input) { in.Spec.Pools = in.Spec.Pools[1:] },
			[]string{"Error spec.pools: no pool has the role controller, so nothing would hold the cluster's metadata; add a pool with roles: [controller], or [broker, controller] for combined nodes"},
		},
		"a controller": {
			func(in *cluster.Input) { in.Spec.Pools[0].Replicas = 2 },
			[]string{"Warning spec.pools: 2 controllers survive no more failures than 1; use an odd number, usually 3"},
		},
		"all controllers for new ones": {
			func(in *cluster.Input) { in.Spec.Pools[0].Remove = []int32{0, 1, 2} }, nil,
		},
		"down to the replicas": {func(in *cluster.Input) { in.Spec.Pools[1].Replicas = 3 }, nil},
		"below the replicas by default": {
			func(in *cluster.Input) { in.Spec.Pools[1].Replicas = 1 },
			[]string{"Error spec.config: topics get 3 replicas by default since the cluster began, and the pools now have 1; set " + unset + " to at most 1, or keep 3 brokers"},
		},
		"below the replicas by default, as was not recorded": {
			func(in *cluster.Input) { in.Spec.Pools[1].Replicas, in.DefaultReplicas = 2, 0 },
			[]string{"Error spec.config: topics get 3 replicas by default since the cluster began, and the pools now have 2; set " + unset + " to at most 2, or keep 3 brokers"},
		},
		"below the replicas that were, with fewer asked for": {
			func(in *cluster.Input) {
				in.Spec.Pools[1].Replicas, in.Spec.Config = 2, factors("2")
			},
			nil,
		},
		"below the replicas asked for": {
			func(in *cluster.Input) {
				in.Spec.Pools[1].Replicas, in.Spec.Config = 2, factors("2")
				in.Spec.Config["default.replication.factor"], in.Spec.Config["transaction.state.log.min.isr"] = "4", "3"
			},
			[]string{
				"Error spec.config[default.replication.factor]: 4 replicas need 4 brokers, the pools have 2; use at most 2, or more brokers",
				"Error spec.config[transaction.state.log.min.isr]: 3 replicas need 3 brokers, the pools have 2; use at most 2, or more brokers",
			},
		},
		"an override while the node is there": {
			func(in *cluster.Input) {
				in.Spec.Pools[1].Remove = []int32{101}
				in.Spec.Pools[1].Overrides = []api.NodeOverride{{NodeID: 101}}
			},
			nil,
		},
		"an override of a node that has left": {
			func(in *cluster.Input) {
				in.NodeIDs[1].Removed = []int32{101}
				in.Spec.Pools[1].Overrides = []api.NodeOverride{{NodeID: 101}}
				in.Spec.Rollout.PauseAfter = []string{"101", "102"}
			},
			[]string{
				"Warning spec.pools[1].overrides[0].nodeID: node 101 of pool brokers has left for good; take the override out; its nodes are 100, 102, 103, 104, 105",
				"Warning spec.rollout.pauseAfter[0]: there is no node 101; use the id of a node of this cluster",
			},
		},
	})
}

func TestBalanceSettings(t *testing.T) {
	checkProblems(t, func() cluster.Input { return good() }, map[string]problemCase{
		"as it should be": {
			func(in *cluster.Input) {
				in.Spec.Balance = api.Balance{BytesPerSecond: quantity("1Mi"), CopiesPerBroker: 1000, CopiesPerCluster: 10000, HeadroomPercent: new(int32(0))}
			},
			nil,
		},
		"nothing moves": {
			func(in *cluster.Input) { in.Spec.Balance.BytesPerSecond = quantity("500m") },
			[]string{"Error spec.balance.bytesPerSecond: at 500m nothing would ever move; use for example 50Mi, or leave it out for no throttle"},
		},
		"little moves": {
			func(in *cluster.Input) { in.Spec.Balance.BytesPerSecond = quantity("512Ki") },
			[]string{"Warning spec.balance.bytesPerSecond: 512Ki bytes a second is little: 1Gi takes 34m8s; use 1Mi or more, usually 50Mi"},
		},
		"bounds": {
			func(in *cluster.Input) {
				in.Spec.Balance = api.Balance{CopiesPerBroker: -1, CopiesPerCluster: 10001, HeadroomPercent: new(int32(91))}
			},
			[]string{
				"Error spec.balance.copiesPerBroker: -1 is out of range; use 1 to 1000",
				"Error spec.balance.copiesPerCluster: 10001 is out of range; use 1 to 10000",
				"Error spec.balance.headroomPercent: 91 is out of range; use 0 to 90",
			},
		},
	})
}
