package engine

import (
	"context"
	"fmt"
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
)

// needsPlacement says whether a plan wants to know where every replica is, which costs a
// request to each broker.
func needsPlacement(f *facts, rev *api.ClusterRevision, model cluster.Model) bool {
	return plan.NeedsPlacement(model, f.nodes, f.operations, rev.Spec.Moving)
}

// ask is what a plan wants to know of Kafka.
func ask(f *facts, rev *api.ClusterRevision, model cluster.Model) plan.Ask {
	placement := needsPlacement(f, rev, model)
	return plan.Ask{
		PerBroker: plan.PerBroker(model, f.nodes, placement),
		Placement: placement,
		Throttles: rev.Spec.Moving, Controllers: plan.NeedsControllers(f.operations),
	}
}

// recordMoves writes down which topics are ours, before any of their replicas moves.
func (e *Engine) recordMoves(ctx context.Context, f *facts, step plan.Step) error {
	rev := last(f.revisions)
	if err := e.Revisions.SetMoves(ctx, rev, step.Moving, step.Throttled); err != nil {
		return err
	}
	rev.Spec.Moving, rev.Spec.Throttled = slices.Clone(step.Moving), slices.Clone(step.Throttled)
	return nil
}

// retire writes down that a node's id is never given again.
func (e *Engine) retire(ctx context.Context, f *facts, step plan.Step) error {
	pool := ""
	if i := slices.IndexFunc(f.nodes, func(n plan.Node) bool { return n.Spec.NodeID == step.Node }); i >= 0 {
		pool = f.nodes[i].Spec.Pool
	}
	if step.Spec != nil {
		pool = step.Spec.Pool
	}
	if pool == "" {
		return fmt.Errorf("node %d is gone, and its pool with it: the next pass looks again", step.Node)
	}
	rev := last(f.revisions)
	if err := e.Revisions.Retire(ctx, rev, pool, step.Node); err != nil {
		return err
	}
	rev.Spec.NodeIDs = Retired(rev.Spec.NodeIDs, pool, step.Node)
	return nil
}

// Retired are the ids given once one of a pool has left for good. It stays among those given.
func Retired(given []api.PoolNodeIDs, pool string, id int32) []api.PoolNodeIDs {
	out := make([]api.PoolNodeIDs, 0, len(given)+1)
	for i := range given {
		out = append(out, *given[i].DeepCopy())
	}
	at := slices.IndexFunc(out, func(g api.PoolNodeIDs) bool { return g.Pool == pool })
	if at < 0 {
		at, out = len(out), append(out, api.PoolNodeIDs{Pool: pool})
	}
	if !slices.Contains(out[at].IDs, id) {
		out[at].IDs = append(out[at].IDs, id)
	}
	if !slices.Contains(out[at].Removed, id) {
		out[at].Removed = append(out[at].Removed, id)
	}
	return out
}
