package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
)

// operationsPort keeps Operations as an API server does: one with a finalizer outlives its
// deletion, and a spec that changes gets another generation.
type operationsPort struct{ *world }

func (o operationsPort) List(_ context.Context, _ *api.KafkaCluster, how engine.Freshness) (list []api.Operation, err error) {
	o.read("operations", how)
	from := o.operations
	if how == engine.Cached && o.stale != nil {
		from = o.stale.operations
	}
	err = o.call("list operations", func() error {
		for i := range from {
			list = append(list, *from[i].DeepCopy())
		}
		return nil
	})
	return list, err
}

func (o operationsPort) Create(_ context.Context, _ *api.KafkaCluster, op *api.Operation) error {
	return o.write("create operation "+op.Name, func() {
		if o.operation(op.Name) != nil {
			return
		}
		op = op.DeepCopy()
		op.Generation, op.CreationTimestamp = 1, metav1.NewTime(o.sim.Now)
		o.operations = append(o.operations, *op)
	})
}

func (o operationsPort) Record(_ context.Context, op *api.Operation) error {
	return o.write("record operation "+op.Name, func() {
		o.decide(op.Name, func(spec *api.OperationSpec) { spec.From, spec.SoakSince = op.Spec.From, op.Spec.SoakSince })
	})
}

func (o operationsPort) Report(_ context.Context, _ *api.KafkaCluster, op *api.Operation, status api.OperationStatus, free bool) (was *api.OperationStatus, err error) {
	err = o.call("report operation "+op.Name, func() error {
		is := o.operation(op.Name)
		if is == nil {
			return nil
		}
		if !engine.SameReport(is.Status, status) {
			o.writes = append(o.writes, fmt.Sprintf("report operation %s %s", op.Name, status.Phase))
			was = is.Status.DeepCopy()
			is.Status = *status.DeepCopy()
		}
		has := slices.Contains(is.Finalizers, plan.OperationFinalizer)
		switch {
		case free && has:
			o.writes = append(o.writes, "free operation "+op.Name)
			is.Finalizers = nil
			o.end(op.Name)
		case !free && !has && is.DeletionTimestamp == nil:
			o.writes = append(o.writes, "keep operation "+op.Name)
			is.Finalizers = []string{plan.OperationFinalizer}
		}
		return nil
	})
	return was, err
}

func (o operationsPort) Delete(_ context.Context, op *api.Operation) error {
	return o.write("delete operation "+op.Name, func() {
		o.operations = slices.DeleteFunc(o.operations, func(x api.Operation) bool { return x.Name == op.Name })
	})
}

// operation of that name, nil when there is none.
func (w *world) operation(name string) *api.Operation {
	for i := range w.operations {
		if w.operations[i].Name == name {
			return &w.operations[i]
		}
	}
	return nil
}

// decide changes the spec of an Operation as a user does.
func (w *world) decide(name string, change func(*api.OperationSpec)) {
	op := w.operation(name)
	change(&op.Spec)
	op.Generation++
}

// ask makes an Operation as a user does: without what the engine puts on its own.
func (w *world) ask(name string, spec api.OperationSpec) {
	spec.ClusterRef.Name = "orders"
	w.operations = append(w.operations, api.Operation{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: name, Generation: 1, CreationTimestamp: metav1.NewTime(w.sim.Now)}, Spec: spec,
	})
}

// dismiss deletes an Operation as a user does.
func (w *world) dismiss(name string) {
	op := w.operation(name)
	op.DeletionTimestamp = &metav1.Time{Time: w.sim.Now}
	op.Generation++
	w.end(name)
}

func (w *world) anyOperation(random *rand.Rand) string {
	if len(w.operations) == 0 {
		return ""
	}
	return w.operations[random.IntN(len(w.operations))].Name
}

// end removes an Operation that is deleted and that nothing keeps.
func (w *world) end(name string) {
	w.operations = slices.DeleteFunc(w.operations, func(x api.Operation) bool {
		return x.Name == name && x.DeletionTimestamp != nil && len(x.Finalizers) == 0
	})
}
