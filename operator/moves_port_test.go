package operator

import (
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// moves: what moves, and who has left, is written to the revision that was read or not at all.
func (o operated) moves() {
	o.t.Helper()
	ctx := o.t.Context()
	port := revisionsPort{client: o.client, live: o.client}
	rev := &api.ClusterRevision{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-3"},
		Spec: api.ClusterRevisionSpec{
			ClusterName: "orders", Number: 3, Generation: 3, Digest: "sha256:0", Cluster: o.kc.Spec,
			NodeIDs: []api.PoolNodeIDs{{Pool: "nodes", IDs: []int32{0, 1, 2}}},
		},
	}
	if err := port.Create(ctx, o.kc, rev); err != nil {
		o.t.Fatal(err)
	}
	outdated := rev.DeepCopy()
	stands := func(want api.ClusterRevisionSpec) *api.ClusterRevision {
		o.t.Helper()
		is := &api.ClusterRevision{}
		if err := o.admin.Get(ctx, client.ObjectKeyFromObject(rev), is); err != nil {
			o.t.Fatal(err)
		}
		for what, spec := range map[string]api.ClusterRevisionSpec{"stored": is.Spec, "as the pass knows it": rev.Spec} {
			got := api.ClusterRevisionSpec{Moving: spec.Moving, Throttled: spec.Throttled, NodeIDs: spec.NodeIDs}
			if diff := cmp.Diff(want, got); diff != "" {
				o.t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		return is
	}
	want := api.ClusterRevisionSpec{Moving: []string{"a", "b"}, Throttled: []string{"b"}, NodeIDs: []api.PoolNodeIDs{{Pool: "nodes", IDs: []int32{0, 1, 2}, Removed: []int32{2}}}}
	version := ""
	for i := range 2 { // to repeat it writes nothing
		if err := port.SetMoves(ctx, rev, want.Moving, want.Throttled); err != nil {
			o.t.Fatal(err)
		}
		if err := port.Retire(ctx, rev, "nodes", 2); err != nil {
			o.t.Fatal(err)
		}
		is := stands(want)
		if i > 0 && is.ResourceVersion != version {
			o.t.Error("the same was written twice")
		}
		version = is.ResourceVersion
	}
	o.outdated(port, outdated)
	stands(want)
	if err := port.SetMoves(ctx, rev, nil, nil); err != nil {
		o.t.Fatal(err)
	}
	want.Moving, want.Throttled = nil, nil
	stands(want)
}

// outdated: one who read it before another one wrote changes nothing, not even to what it was then.
func (o operated) outdated(port revisionsPort, rev *api.ClusterRevision) {
	o.t.Helper()
	before := rev.DeepCopy()
	for what, err := range map[string]error{
		"other moves":   port.SetMoves(o.t.Context(), rev, []string{"c"}, nil),
		"none as then":  port.SetMoves(o.t.Context(), rev, nil, nil),
		"another node":  port.Retire(o.t.Context(), rev, "nodes", 1),
		"a cluster id":  port.SetClusterID(o.t.Context(), rev, "another"),
		"as not held":   port.SetHeld(o.t.Context(), rev, nil),
		"the same node": port.Retire(o.t.Context(), rev, "nodes", 2),
	} {
		if !apierrors.IsConflict(err) {
			o.t.Errorf("%s on an outdated read: %v", what, err)
		}
	}
	if diff := cmp.Diff(before, rev); diff != "" {
		o.t.Errorf("what was not written is believed (-was +is):\n%s", diff)
	}
}

// moved: how an Operation that moves replicas began and is.
func (o operated) moved() {
	o.t.Helper()
	ctx := o.t.Context()
	rate := quantity.MustParse("50Mi")
	op := &api.Operation{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "move"},
		Spec: api.OperationSpec{
			ClusterRef: api.ClusterRef{Name: "orders"}, Type: api.OperationRebalance, BytesPerSecond: &rate,
			Rebalance: &api.Rebalance{Mode: api.RebalanceFull},
		},
	}
	o.create(op)
	op.Spec.Begun = &metav1.Time{Time: time.Unix(1700000000, 0)}
	if err := o.port.Record(ctx, op); err != nil {
		o.t.Fatal(err)
	}
	if is := o.get("move"); is.Spec.Begun == nil || is.Spec.Begun.Unix() != 1700000000 || is.Spec.BytesPerSecond.Cmp(rate) != 0 || is.Spec.Rebalance == nil {
		o.t.Errorf("%+v", is.Spec)
	}
	load := api.ProposalLoad{Bytes: 5, Percent: 1, Replicas: 2, Leaders: 1}
	for _, st := range []api.OperationStatus{
		{
			Phase: api.OperationRunning, Moves: &api.OperationMoves{Done: 3, Running: 1, Total: 4, LeftBytes: 7, Foreign: 1},
			Proposal: &api.OperationProposal{
				Moves: 4, Bytes: 9, LocalBytes: 1, LeastBytes: 8, Seconds: 2,
				Brokers:    []api.ProposalBroker{{ID: 0, Rack: "a", Before: load}, {ID: 1, After: load}},
				Objectives: []api.ProposalObjective{{Name: "disks", Before: "3 %", After: "1 %", Limit: "2 %"}, {Name: "leaders", Met: true}},
			},
		},
		{ // counts go back to nothing, and lists get shorter
			Phase: api.OperationRunning, Moves: &api.OperationMoves{},
			Proposal: &api.OperationProposal{Brokers: []api.ProposalBroker{{ID: 1, Before: load}}, Objectives: []api.ProposalObjective{{Name: "leaders"}}},
		},
		{Phase: api.OperationSucceeded},
	} {
		if _, err := o.port.Report(ctx, o.kc, op, st, false); err != nil {
			o.t.Fatal(err)
		}
		if diff := cmp.Diff(st, o.get("move").Status); diff != "" {
			o.t.Errorf("status (-reported +stored):\n%s", diff)
		}
	}
	again := &api.Operation{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "move"}, Spec: *op.Spec.DeepCopy()}
	if err := o.port.Create(ctx, o.kc, again); err != nil {
		o.t.Errorf("the same once more: %v", err)
	}
	again.Spec.Rebalance.Mode = api.RebalanceLeaders
	if err := o.port.Create(ctx, o.kc, again); err == nil {
		o.t.Error("another rebalance counts as made")
	}
}

// schema: what is refused whoever asks, and what may be changed on the way.
func (o operated) schema() {
	o.t.Helper()
	ctx := o.t.Context()
	bytes := func(text string) *quantity.Quantity { q := quantity.MustParse(text); return &q }
	drain := api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{1, 2}}
	o.refused(api.OperationSpec{Type: api.OperationDrain}, "a Drain needs the nodes to drain")
	o.refused(api.OperationSpec{Type: api.OperationRebalance}, "rebalance goes with type Rebalance")
	for text, r := range map[string]api.Rebalance{
		"Fill needs the brokers to fill":                         {Mode: api.RebalanceFill},
		"ReplicationFactor needs the topics":                     {Mode: api.RebalanceReplicationFactor, ReplicationFactor: new(int32(3))},
		"replicationFactor goes with mode ReplicationFactor":     {Mode: api.RebalanceFull, ReplicationFactor: new(int32(3))},
		`Unsupported value: "Most"`:                              {Mode: "Most"},
		"spec.rebalance.replicationFactor in body should be gre": {Mode: api.RebalanceReplicationFactor, ReplicationFactor: new(int32(0)), Topics: []string{"t"}},
	} {
		o.refused(api.OperationSpec{Type: api.OperationRebalance, Rebalance: &r}, text)
	}
	for _, rate := range []string{"0", "-1Mi", "500m"} {
		bad := drain
		bad.BytesPerSecond = bytes(rate)
		o.refused(bad, "bytesPerSecond is at least 1, for example 50Mi")
	}
	op := &api.Operation{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "drain"}, Spec: drain}
	op.Spec.ClusterRef.Name = "orders"
	o.create(op)
	try := func(change func(*api.OperationSpec)) error {
		next := op.DeepCopy()
		change(&next.Spec)
		return o.admin.Patch(ctx, next, client.MergeFrom(op), client.DryRunAll)
	}
	for what, change := range map[string]func(*api.OperationSpec){
		"a rate":         func(s *api.OperationSpec) { s.BytesPerSecond = bytes("1") },
		"another order":  func(s *api.OperationSpec) { s.Nodes = []int32{2, 1} },
		"paused":         func(s *api.OperationSpec) { s.Paused = true },
		"cancelled":      func(s *api.OperationSpec) { s.Cancelled, s.Revert = true, true },
		"what has begun": func(s *api.OperationSpec) { s.Begun = &metav1.Time{Time: time.Unix(1700000000, 0)} },
	} {
		if err := try(change); err != nil {
			o.t.Errorf("%s: %v", what, err)
		}
	}
	for text, change := range map[string]func(*api.OperationSpec){
		"the nodes that an Operation is about cannot change": func(s *api.OperationSpec) { s.Nodes = []int32{1} },
		"bytesPerSecond is at least 1":                       func(s *api.OperationSpec) { s.BytesPerSecond = bytes("0") },
	} {
		if err := try(change); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), text) {
			o.t.Errorf("%q: refused with %v", text, err)
		}
	}
	move := o.get("move")
	next := move.DeepCopy()
	next.Spec.Rebalance.Mode = api.RebalanceLeaders
	if err := o.admin.Patch(ctx, next, client.MergeFrom(move)); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "what a Rebalance shall do cannot change") {
		o.t.Errorf("another mode: %v", err)
	}
	for _, name := range []string{"move", "drain"} {
		if err := o.port.Delete(ctx, o.get(name)); err != nil {
			o.t.Fatal(err)
		}
	}
}

func (o operated) refused(spec api.OperationSpec, text string) {
	o.t.Helper()
	spec.ClusterRef.Name = "orders"
	op := &api.Operation{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "bad"}, Spec: spec}
	if err := o.admin.Create(o.t.Context(), op, client.DryRunAll); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), text) {
		o.t.Errorf("%q: refused with %v", text, err)
	}
}
