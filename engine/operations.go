package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
)

// OperationChange is an Operation whose phase has changed.
type OperationChange struct {
	// Operation with its new status.
	Operation api.Operation
	Before    api.OperationPhase
}

// SameReport says whether two statuses are the same once they are stored: times are whole
// seconds there.
func SameReport(a, b api.OperationStatus) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(x, y)
}

// kept says whether our finalizer keeps an Operation.
func kept(op *api.Operation) bool { return slices.Contains(op.Finalizers, plan.OperationFinalizer) }

// frees says whether a report lets an Operation go, which rests on fresh facts.
func frees(have []api.Operation, reports []plan.OperationReport) bool {
	return slices.ContainsFunc(reports, func(r plan.OperationReport) bool {
		op := named(have, r.Name)
		return r.Free && op != nil && kept(op)
	})
}

// report writes down how Operations are where that differs from what they say. What was made
// in this pass is reported by the next one.
func (e *Engine) report(ctx context.Context, kc *api.KafkaCluster, have []api.Operation, reports []plan.OperationReport) ([]OperationChange, error) {
	var changed []OperationChange
	var failed error
	for _, r := range reports {
		op := named(have, r.Name)
		if op == nil {
			continue
		}
		right := kept(op) == !r.Free || !r.Free && op.DeletionTimestamp != nil // nothing keeps what goes already
		if right && SameReport(op.Status, r.Status) {
			continue
		}
		was, err := e.Operations.Report(ctx, kc, op, r.Status, r.Free)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("report operation %s: %w", r.Name, err))
			continue
		}
		if was != nil && was.Phase != r.Status.Phase {
			now := *op.DeepCopy()
			now.Status = r.Status
			changed = append(changed, OperationChange{Operation: now, Before: was.Phase})
		}
	}
	return changed, failed
}

func named(have []api.Operation, name string) *api.Operation {
	i := slices.IndexFunc(have, func(op api.Operation) bool { return op.Name == name })
	if i < 0 {
		return nil
	}
	return &have[i]
}

// activeOperation names the oldest that is not over, or the one that was made just now.
func activeOperation(have []api.Operation, reports []plan.OperationReport, done []plan.Step) string {
	for i := range have {
		for _, r := range reports {
			if r.Name == have[i].Name && !r.Status.Phase.Final() {
				return r.Name
			}
		}
	}
	for _, s := range done {
		if s.Kind == plan.CreateOperation {
			return s.Operation.Name
		}
	}
	return ""
}

// hold keeps a revision from further nodes, or lets it go on.
func (e *Engine) hold(ctx context.Context, f *facts, step plan.Step) error {
	for i := range f.revisions {
		if f.revisions[i].Name == step.Revision {
			return e.Revisions.SetHeld(ctx, &f.revisions[i], step.Hold)
		}
	}
	return fmt.Errorf("revision %s is gone: the next pass looks again", step.Revision)
}

// earlier are the Models of the revisions that nodes may be given back to. One that cannot be
// resolved any more, as when its Package is gone, is left out.
func (e *Engine) earlier(kc *api.KafkaCluster, f *facts, model cluster.Model) map[string]cluster.Model {
	if model.Rollout.OnFailure != api.OnFailureRollback {
		return nil
	}
	wanted := map[string]bool{}
	for _, n := range f.nodes {
		if n.Spec.Change != nil {
			wanted[n.Spec.Change.FromRevision] = true
		}
	}
	for i := range f.operations {
		if op := &f.operations[i]; !op.Status.Phase.Final() {
			for _, from := range op.Spec.From {
				wanted[from.Revision] = true
			}
		}
	}
	models := map[string]cluster.Model{}
	for i := range f.revisions {
		rev := &f.revisions[i]
		if !wanted[rev.Name] {
			continue
		}
		m, problems := cluster.Resolve(cluster.Input{
			Namespace: kc.Namespace, Name: kc.Name, Spec: rev.Spec.Cluster, Catalog: f.catalog, Supervisor: e.Supervisor,
			NodeIDs: rev.Spec.NodeIDs, DefaultReplicas: rev.Spec.DefaultReplicas,
		})
		if !cluster.HasErrors(problems) {
			models[rev.Name] = plan.KeepSupervisors(m, f.nodes)
		}
	}
	return models
}

// comesFrom fills in what a new revision takes over from earlier ones: which one it goes back
// to, and, where only pausing or stopping sets it apart from the last, that nothing of it
// reaches further nodes.
func comesFrom(rev *api.ClusterRevision, earlier []api.ClusterRevision) error {
	latest := last(earlier)
	if latest == nil {
		return nil
	}
	now, err := essence(rev.Spec.Cluster)
	if err != nil {
		return err
	}
	for i, before := range slices.Backward(earlier) {
		then, err := essence(before.Spec.Cluster)
		switch {
		case err != nil:
			return err
		case then != now:
		case i == len(earlier)-1:
			rev.Spec.Restores, rev.Spec.Held = latest.Spec.Restores, latest.Spec.Held.DeepCopy()
			return nil
		default:
			rev.Spec.Restores = before.Name
			return nil
		}
	}
	return nil
}

// essence names what a spec asks of nodes: whether it is paused or stopped sets no two apart.
func essence(spec api.KafkaClusterSpec) (string, error) {
	spec.Paused, spec.State = false, ""
	return specDigest(spec)
}

// previewed is the revision that a spec has, or would get.
func previewed(kc *api.KafkaCluster, f *facts, model cluster.Model) (*api.ClusterRevision, error) {
	digest, err := specDigest(kc.Spec)
	if latest := last(f.revisions); err == nil && latest != nil && latest.Spec.Digest == digest {
		return latest, nil
	}
	if err != nil {
		return nil, err
	}
	return newRevision(kc, f.revisions, model)
}
