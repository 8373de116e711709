package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
)

// calls notes what reaches the ports, and may let one fail.
type calls struct {
	made  []string
	fails string
}

func (c *calls) call(format string, args ...any) error {
	call := fmt.Sprintf(format, args...)
	c.made = append(c.made, call)
	if call == c.fails {
		return errors.New("injected")
	}
	return nil
}

type notedRevisions struct {
	Revisions
	*calls
}

func (r notedRevisions) SetMoves(_ context.Context, rev *api.ClusterRevision, moving, throttled []string) error {
	return r.call("%s moves %v, throttled %v, after %v, %v", rev.Name, moving, throttled, rev.Spec.Moving, rev.Spec.Throttled)
}

func (r notedRevisions) Retire(_ context.Context, rev *api.ClusterRevision, pool string, id int32) error {
	return r.call("%s retires %d of %s", rev.Name, id, pool)
}

type notedNodes struct {
	Nodes
	*calls
}

func (n notedNodes) Delete(_ context.Context, _ *api.KafkaCluster, id int32, removeData bool) error {
	return n.call("delete node %d, data %t", id, removeData)
}

type notedKafka struct {
	Kafka
	*calls
}

func (k notedKafka) Do(_ context.Context, _ *api.KafkaCluster, at Endpoints, step plan.Step) error {
	return k.call("%s of %d by %s", step.Kind, step.Node, at.ClusterID)
}

// doing does steps in a pass over a cluster with two revisions and node 3 of pool a.
func doing(t *testing.T, c *calls, steps ...plan.Step) (facts, error) {
	t.Helper()
	now := time.Unix(1700000000, 0)
	e := &Engine{Revisions: notedRevisions{calls: c}, Nodes: notedNodes{calls: c}, Kafka: notedKafka{calls: c}, Now: func() time.Time { return now }}
	f := facts{revisions: make([]api.ClusterRevision, 2), nodes: []plan.Node{{Spec: api.KafkaNodeSpec{NodeID: 3, Pool: "a", ClusterID: "id"}}}}
	f.revisions[0].Name, f.revisions[1].Name = "orders-1", "orders-2"
	f.revisions[1].Spec.NodeIDs = []api.PoolNodeIDs{{Pool: "a", IDs: []int32{3}}}
	_, err := e.do(t.Context(), &api.KafkaCluster{}, &f, plan.World{Nodes: f.nodes}, now, steps, nil)
	return f, err
}

// What is recorded of moves stands in the newest revision, also for the steps that follow.
func TestStepsOfMovesAndOfNodesThatLeave(t *testing.T) {
	c := &calls{}
	f, err := doing(t, c,
		plan.Step{Kind: plan.RecordMoves, Node: -1, Moving: []string{"t", "u"}, Throttled: []string{"t"}},
		plan.Step{Kind: plan.ThrottleTopics, Node: -1},
		plan.Step{Kind: plan.MoveReplicas, Node: -1},
		plan.Step{Kind: plan.CancelMoves, Node: -1},
		plan.Step{Kind: plan.RecordMoves, Node: -1, Moving: []string{"u"}},
		plan.Step{Kind: plan.UnregisterBroker, Node: 3},
		plan.Step{Kind: plan.RetireNode, Node: 3},
		plan.Step{Kind: plan.RetireNode, Node: 4, Spec: &api.KafkaNodeSpec{NodeID: 4, Pool: "b"}},
		plan.Step{Kind: plan.DeleteNode, Node: 3, RemoveData: true},
		plan.Step{Kind: plan.DeleteNode, Node: 4},
	)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"orders-2 moves [t u], throttled [t], after [], []",
		"ThrottleTopics of -1 by id", "MoveReplicas of -1 by id", "CancelMoves of -1 by id",
		"orders-2 moves [u], throttled [], after [t u], [t]",
		"UnregisterBroker of 3 by id",
		"orders-2 retires 3 of a", "orders-2 retires 4 of b",
		"delete node 3, data true", "delete node 4, data false",
	}
	if diff := cmp.Diff(want, c.made); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	spec := api.ClusterRevisionSpec{Moving: []string{"u"}, NodeIDs: []api.PoolNodeIDs{
		{Pool: "a", IDs: []int32{3}, Removed: []int32{3}}, {Pool: "b", IDs: []int32{4}, Removed: []int32{4}},
	}}
	if diff := cmp.Diff(spec, f.revisions[1].Spec); diff != "" {
		t.Errorf("the revision as the pass knows it (-want +got):\n%s", diff)
	}
}

// Nothing moves of which no record was made, and no node goes that could come back.
func TestMovesWaitForTheirRecord(t *testing.T) {
	record := plan.Step{Kind: plan.RecordMoves, Node: -1, Moving: []string{"t"}}
	retire := plan.Step{Kind: plan.RetireNode, Node: 3}
	for _, c := range []struct {
		fails string
		steps []plan.Step
		want  string
	}{
		{"orders-2 moves [t], throttled [], after [], []", []plan.Step{record, {Kind: plan.MoveReplicas, Node: -1}}, "RecordMoves (): injected"},
		{"orders-2 retires 3 of a", []plan.Step{retire, {Kind: plan.DeleteNode, Node: 3}}, "RetireNode (): injected"},
		{"", []plan.Step{{Kind: plan.RetireNode, Node: 7}, {Kind: plan.DeleteNode, Node: 7}}, "RetireNode (): node 7 is gone, and its pool with it: the next pass looks again"},
	} {
		noted := &calls{fails: c.fails}
		f, err := doing(t, noted, c.steps...)
		if err == nil || err.Error() != c.want || c.fails != "" && len(noted.made) != 1 || c.fails == "" && len(noted.made) != 0 {
			t.Errorf("%q fails: %v, calls %v", c.fails, err, noted.made)
		}
		if spec := f.revisions[1].Spec; len(spec.Moving) > 0 || len(spec.NodeIDs[0].Removed) > 0 {
			t.Errorf("%q fails, and what was not written is believed: %+v", c.fails, spec)
		}
	}
}
