package operator_test

import (
	"fmt"
	"slices"
	"strings"

	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
)

func operation(name string, spec api.OperationSpec) *api.Operation {
	if spec.ClusterRef.Name == "" {
		spec.ClusterRef.Name = "orders"
	}
	return &api.Operation{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
}

// operations: a user's is refused with what there is, or kept, reported, told and
// freed; a change of the spec has its own, and a cancel holds the revision.
func (y *yard) operations() {
	y.t.Helper()
	y.refusedOperations()
	y.asked()
	y.changed()
}

func (y *yard) refusedOperations() {
	y.t.Helper()
	for text, spec := range map[string]api.OperationSpec{
		"spec.clusterRef.name: there is no KafkaCluster order in namespace kafka; there are orders": {Type: api.OperationRestart, ClusterRef: api.ClusterRef{Name: "order"}},
		"spec.nodes[1]: KafkaCluster orders has no node 7; its nodes are 0, 1, 2":                   {Type: api.OperationRestart, Nodes: []int32{1, 7}},
		"spec.ignoredNodes[0]: KafkaCluster orders has no node 8":                                   {Type: api.OperationRestart, IgnoredNodes: []int32{8}},
		"spec.retry[0].id: KafkaCluster orders has no node 9":                                       {Type: api.OperationRestart, Retry: []api.OperationRetry{{ID: 9, Attempt: 1}}},
		"spec.order[2]: node 1 comes at place 0 already; name each node once":                       {Type: api.OperationRestart, Order: []int32{1, 2, 1}},
		"spec.toRevision: KafkaCluster orders has no ClusterRevision orders-7; there are orders-1":  {Type: api.OperationRollout, ToRevision: "orders-7"},
		"spec.toRevision: a Rollout needs the revision that nodes are brought to":                   {Type: api.OperationRollout},
		"spec.toRevision: a restart leads to no revision":                                           {Type: api.OperationRestart, ToRevision: "orders-1"},
		"spec.type: an Operation Scale is made by Castellan":                                        {Type: api.OperationScale},
		"spec.rebalance.brokers[0]: KafkaCluster orders has no broker 5; its brokers are 0, 1, 2":   {Type: api.OperationRebalance, Rebalance: &api.Rebalance{Mode: api.RebalanceFill, Brokers: []int32{5}}},
	} {
		err := y.c.Create(y.t.Context(), operation("bad", spec))
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), text) {
			y.t.Errorf("%q is refused with %v", text, err)
		}
	}
}

// operation waits for a fact about one.
func (y *yard) operation(name, what string, fact func(*api.Operation) bool) *api.Operation {
	y.t.Helper()
	op := &api.Operation{}
	y.eventually(what, func() error {
		if err := y.c.Get(y.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, op); err != nil {
			return err
		}
		if !fact(op) {
			return fmt.Errorf("%+v, %+v", op.ObjectMeta, op.Status)
		}
		return nil
	})
	return op
}

func (y *yard) decide(op *api.Operation, change func(*api.OperationSpec)) {
	y.t.Helper()
	before := op.DeepCopy()
	change(&op.Spec)
	if err := y.c.Patch(y.t.Context(), op, client.MergeFrom(before)); err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) asked() {
	y.t.Helper()
	y.create(operation("again", api.OperationSpec{Type: api.OperationRestart, Paused: true}))
	op := y.operation("again", "a user's operation is reported and kept", func(op *api.Operation) bool {
		return op.Status.Phase == api.OperationPaused && slices.Contains(op.Finalizers, plan.OperationFinalizer)
	})
	kc := y.get()
	if len(op.OwnerReferences) != 1 || op.OwnerReferences[0].UID != kc.UID || op.OwnerReferences[0].BlockOwnerDeletion != nil || op.Labels["castellan.dev/cluster"] != "orders" {
		y.t.Errorf("%+v", op.ObjectMeta)
	}
	y.eventually("the cluster names it", func() error {
		if active := y.get().Status.Operation; active != "again" {
			return fmt.Errorf("active is %q", active)
		}
		return nil
	})
	y.eventually("it is told on both", func() error {
		var list eventsv1.EventList
		if err := y.c.List(y.t.Context(), &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		told := map[string]bool{}
		for _, e := range list.Items {
			if e.Reason == "OperationPaused" && e.Type == "Normal" && e.Related != nil {
				told[e.Regarding.Kind+" "+e.Regarding.Name+" with "+e.Related.Name] = true
			}
		}
		if !told["Operation again with orders"] || !told["KafkaCluster orders with again"] {
			return fmt.Errorf("told %v", told)
		}
		return nil
	})
	y.quiet()
	y.decide(op, func(spec *api.OperationSpec) { spec.IgnoredNodes = []int32{0, 1, 2} })
	y.operation("again", "it is over when nothing is left of it", func(op *api.Operation) bool {
		return op.Status.Phase == api.OperationSucceeded && len(op.Finalizers) == 0
	})
}

// changed: a new spec makes an Operation, and to cancel it holds what it led to.
func (y *yard) changed() {
	y.t.Helper()
	kc := y.get()
	before := kc.DeepCopy()
	kc.Spec.Config, kc.Spec.Rollout.Approval = api.Config{"replica.fetch.max.bytes": "9000"}, api.ApprovalManual
	if err := y.c.Patch(y.t.Context(), kc, client.MergeFrom(before)); err != nil {
		y.t.Fatal(err)
	}
	op := y.operation("orders-rollout-2", "a change has its operation", func(op *api.Operation) bool {
		return len(op.Status.Plan) == 3 && op.Status.PlanDigest != ""
	})
	if len(op.Spec.From) == 0 || op.Spec.From[0].Revision != "orders-1" || op.Spec.ToRevision != "orders-2" || len(op.OwnerReferences) != 1 {
		y.t.Errorf("%+v", op)
	}
	y.decide(op, func(spec *api.OperationSpec) { spec.Cancelled = true })
	revision := &api.ClusterRevision{}
	y.eventually("the revision is held", func() error {
		if err := y.c.Get(y.t.Context(), client.ObjectKey{Namespace: namespace, Name: "orders-2"}, revision); err != nil {
			return err
		}
		if revision.Spec.Held == nil || revision.Spec.Held.Operation != op.Name {
			return fmt.Errorf("held %+v", revision.Spec.Held)
		}
		return nil
	})
}

// unasked makes an Operation that admission would refuse, as nobody answers.
func (y *yard) unasked() {
	y.t.Helper()
	y.create(operation("lost", api.OperationSpec{Type: api.OperationRestart, ClusterRef: api.ClusterRef{Name: "nobody"}}))
	y.create(operation("left", api.OperationSpec{Type: api.OperationRestart, Paused: true, Nodes: []int32{99}}))
}

// toldAlone: what passed unasked says what it waits for.
func (y *yard) toldAlone() {
	y.t.Helper()
	op := y.operation("lost", "an operation without a cluster is told so", func(op *api.Operation) bool {
		return op.Status.Message == "there is no KafkaCluster nobody in namespace kafka: create it, or delete this Operation"
	})
	if err := y.c.Delete(y.t.Context(), op); err != nil {
		y.t.Fatal(err)
	}
	y.operation("left", "one that is about no node of the cluster does no harm", func(op *api.Operation) bool { return op.Status.Phase != "" })
}
