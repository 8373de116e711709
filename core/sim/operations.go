package sim

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
)

// doOperation obeys a step that concerns an Operation, a revision or features.
func (w *World) doOperation(s plan.Step) {
	switch s.Kind {
	case plan.CreateOperation:
		if w.Operation(s.Operation.Name) != nil {
			w.violate("operation %s made twice", s.Operation.Name)
			return
		}
		w.AddOperation(*s.Operation)
	case plan.RecordOperation:
		w.Operation(s.Operation.Name).Spec = *s.Operation.Spec.DeepCopy()
	case plan.HoldRevision:
		w.holds[s.Revision] = s.Hold
	default:
		w.judgeRegistered()
		maps.Copy(w.Features, s.Features)
	}
}

// judgeRegistered checks that every controller that left has registered at the version that is
// finalized: Kafka refuses otherwise.
func (w *World) judgeRegistered() {
	for id, version := range w.Registered {
		if n := w.nodes[id]; n != nil && w.ready(n) {
			version = n.spec.Process.Version
			w.Registered[id] = version
		}
		for _, n := range w.nodes {
			if n.spec.Process.Version != version {
				w.violate("features are finalized, and controller %d, which left, is registered at %s", id, version)
				return
			}
		}
	}
}

// AddOperation makes one, as a user does.
func (w *World) AddOperation(op api.Operation) {
	op.CreationTimestamp = metav1.NewTime(w.Now)
	op.Finalizers = []string{plan.OperationFinalizer}
	w.operations = append(w.operations, *op.DeepCopy())
}

// Operation by name, to be changed as a user does; nil when there is none.
func (w *World) Operation(name string) *api.Operation {
	i := slices.IndexFunc(w.operations, func(op api.Operation) bool { return op.Name == name })
	if i < 0 {
		return nil
	}
	return &w.operations[i]
}

// Operations in the order of their making.
func (w *World) Operations() []api.Operation { return w.operations }

// DeleteOperation asks for its deletion; its finalizer keeps it until a report frees it.
func (w *World) DeleteOperation(name string) {
	if op := w.Operation(name); op != nil && op.DeletionTimestamp == nil {
		op.DeletionTimestamp = new(metav1.NewTime(w.Now))
	}
}

// Report writes down how a plan says that Operations are.
func (w *World) Report(reports []plan.OperationReport) {
	for _, r := range reports {
		op := w.Operation(r.Name)
		if op == nil {
			continue
		}
		if final := op.Status.Phase; final.Final() && r.Status.Phase != final {
			w.violate("operation %s was %s and is %s", r.Name, final, r.Status.Phase)
		}
		op.Status = *r.Status.DeepCopy()
		if r.Free {
			op.Finalizers = nil
		}
	}
	w.operations = slices.DeleteFunc(w.operations, func(op api.Operation) bool { return op.DeletionTimestamp != nil && len(op.Finalizers) == 0 })
}

// Accept records what a revision means, and makes it the one in force.
func (w *World) Accept(revision string, m cluster.Model) {
	m.Nodes = slices.Clone(m.Nodes)
	w.Revision, w.earlier[revision] = revision, m
}

// Held is why a revision is held.
func (w *World) Held(revision string) *api.RevisionHold { return w.holds[revision] }

// Spoil keeps every node from starting with a process.
func (w *World) Spoil(hash string) { w.spoilt[hash] = true }

// Mend lets every node start again with every process.
func (w *World) Mend() {
	clear(w.spoilt)
	for _, n := range w.nodes {
		n.bad = false
	}
}
