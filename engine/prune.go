package engine

import (
	"context"
	"fmt"

	api "castellan.dev/castellan/api/v1alpha1"
)

const (
	// keptRevisions is how many ClusterRevisions of a cluster are kept, besides those that a
	// node or an Operation that is not over names.
	keptRevisions = 20
	// keptOperations is how many Operations that are over are kept, besides those that
	// something still names.
	keptOperations = 20
)

// prunable says whether prune would forget something.
func (e *Engine) prunable(f *facts) bool {
	return len(forgettableRevisions(f)) > 0 || len(forgettableOperations(f)) > 0
}

// prune forgets old Operations, and old revisions that nothing names.
func (e *Engine) prune(ctx context.Context, f *facts) error {
	for _, op := range forgettableOperations(f) {
		if err := e.Operations.Delete(ctx, op); err != nil {
			return fmt.Errorf("prune operation %s: %w", op.Name, err)
		}
	}
	for _, rev := range forgettableRevisions(f) {
		if err := e.Revisions.Delete(ctx, rev); err != nil {
			return fmt.Errorf("prune revision %s: %w", rev.Name, err)
		}
	}
	return nil
}

func forgettableRevisions(f *facts) []*api.ClusterRevision {
	if len(f.revisions) <= keptRevisions {
		return nil
	}
	named := map[string]bool{}
	for _, n := range f.nodes {
		named[n.Spec.Revision] = true
		if n.Spec.Change != nil {
			named[n.Spec.Change.FromRevision] = true
		}
	}
	for i := range f.operations {
		op := &f.operations[i]
		if op.Status.Phase.Final() {
			continue
		}
		named[op.Spec.ToRevision] = true
		for _, from := range op.Spec.From {
			named[from.Revision] = true
		}
	}
	var out []*api.ClusterRevision
	for i := range len(f.revisions) - keptRevisions {
		if rev := &f.revisions[i]; !named[rev.Name] {
			out = append(out, rev)
		}
	}
	return out
}

// forgettableOperations are over, older than the newest that are over, and named by nothing
// that is decided by: not by a node, nor by why a revision is held, and not leading to the
// revision in force, whose ignored nodes they hold.
func forgettableOperations(f *facts) []*api.Operation {
	if len(f.operations) <= keptOperations {
		return nil
	}
	named := map[string]bool{}
	for _, n := range f.nodes {
		if n.Spec.Change != nil {
			named[n.Spec.Change.Operation] = true
		}
	}
	inForce := ""
	if rev := last(f.revisions); rev != nil {
		inForce = rev.Name
		if rev.Spec.Held != nil {
			named[rev.Spec.Held.Operation] = true
		}
	}
	var out []*api.Operation
	newer := 0
	for i := len(f.operations) - 1; i >= 0; i-- {
		op := &f.operations[i]
		if !op.Status.Phase.Final() || op.DeletionTimestamp != nil {
			continue
		}
		newer++
		if newer > keptOperations && !named[op.Name] && (inForce == "" || op.Spec.ToRevision != inForce) {
			out = append(out, op)
		}
	}
	return out
}
