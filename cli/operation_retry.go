package cli

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

func retryCommand(o *options) *cobra.Command {
	var nodes []int32
	cmd := &cobra.Command{
		Use:   "retry" + operationArgument + " [--node ID[,ID...]]",
		Short: "Let nodes that failed begin again, or an operation that is over",
		Long: `Let nodes that failed or timed out begin again, all of them or those of --node. With --node, one
that was ignored is taken along again.

Of an operation that is over, a new one is made to the same revision. Nodes that have to go back
still go back to where the first one found them.` + aboutArgument,
		Example: "  castellan retry orders-rollout-7\n  castellan retry orders-rollout-7 --node 3",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := checkIDs("node", nodes)
			if err != nil {
				return err
			}
			return o.retry(cmd.Context(), args[0], ids)
		},
	}
	o.addNamespace(cmd)
	addIDs(cmd, &nodes, "node", "`ids` of the nodes (default all that failed)")
	return cmd
}

func (o *options) retry(ctx context.Context, name string, ids []int32) error {
	c, _, namespace, err := o.objects()
	if err != nil {
		return err
	}
	op, err := o.operationToChange(ctx, c, namespace, name)
	if err != nil {
		return err
	}
	if op.Status.Phase.Final() {
		return o.again(ctx, c, op, ids)
	}
	return o.write(ctx, c, op, func(ctx context.Context, c client.Client, op *api.Operation) (change, error) {
		return o.retryNodes(ctx, c, op, ids)
	})
}

// retryNodes raises the attempt of nodes that failed.
func (o *options) retryNodes(ctx context.Context, c client.Client, op *api.Operation, ids []int32) (change, error) {
	if err := o.refuseOver(op); err != nil {
		return change{}, err
	}
	_, known, err := about(ctx, c, op)
	if err != nil {
		return change{}, err
	}
	bad := failedNodes(op)
	if len(ids) == 0 {
		ids = bad
	}
	if len(ids) == 0 {
		return change{}, refusedf("no node of operation %s has failed: `%s ops %[1]s -v` shows how each one is", op.Name, o.program())
	}
	attempts, ignored := slices.Clone(op.Spec.Retry), slices.Clone(op.Spec.IgnoredNodes)
	for _, id := range ids {
		n, was := nodeOf(op, id), slices.Contains(ignored, id)
		switch {
		case n == nil && !was:
			return change{}, unknownNode(op, id, known)
		case !was && !failed(n.State):
			return change{}, refusedf("node %d of operation %s is %s: only nodes that failed begin again; they are: %s", id, op.Name, n.State, idText(bad))
		}
		ignored = slices.DeleteFunc(ignored, func(i int32) bool { return i == id })
		if n != nil && failed(n.State) {
			attempts = raise(attempts, id)
		}
	}
	spec := map[string]any{}
	if len(ignored) < len(op.Spec.IgnoredNodes) {
		spec["ignoredNodes"] = ignored
	}
	if !slices.Equal(attempts, op.Spec.Retry) {
		spec["retry"] = attempts
	}
	return change{spec, "lets node " + idText(ids) + " begin again"}, nil
}

func raise(attempts []api.OperationRetry, id int32) []api.OperationRetry {
	i := slices.IndexFunc(attempts, func(r api.OperationRetry) bool { return r.ID == id })
	if i < 0 {
		return append(attempts, api.OperationRetry{ID: id, Attempt: 1})
	}
	attempts[i].Attempt++
	return attempts
}

// again makes an Operation like one that is over.
func (o *options) again(ctx context.Context, c client.Client, old *api.Operation, ids []int32) error {
	ops, err := operationsOf(ctx, c, old.Namespace, old.Spec.ClusterRef.Name)
	if err != nil {
		return err
	}
	if err := o.refuseAgain(ctx, c, old, ops, ids); err != nil {
		return err
	}
	next := &api.Operation{
		ObjectMeta: metav1.ObjectMeta{Namespace: old.Namespace, Labels: operationLabels(old.Spec.ClusterRef.Name)},
		Spec: api.OperationSpec{
			ClusterRef: old.Spec.ClusterRef, Type: old.Spec.Type, Reason: old.Spec.Reason, ToRevision: old.Spec.ToRevision,
			Nodes: old.Spec.Nodes, Order: old.Spec.Order, From: old.Spec.From,
			Rebalance: old.Spec.Rebalance, BytesPerSecond: old.Spec.BytesPerSecond,
		},
	}
	if len(ids) > 0 {
		next.Spec.Nodes = ids
		next.Spec.From = slices.DeleteFunc(slices.Clone(old.Spec.From), func(f api.OperationOrigin) bool { return !slices.Contains(ids, f.ID) })
	}
	taken := names(ops)
	for {
		next.Name = nextName(old.Spec.ClusterRef.Name, old.Name, taken)
		err := c.Create(ctx, next, client.FieldOwner(FieldManager))
		if !apierrors.IsAlreadyExists(err) { // somebody was faster
			return o.tellCreated(next, err)
		}
		taken, next.ResourceVersion = append(taken, next.Name), ""
	}
}

func (o *options) tellCreated(op *api.Operation, err error) error {
	if err != nil {
		return fmt.Errorf("create Operation %s/%s: %w", op.Namespace, op.Name, err)
	}
	_, err = fmt.Fprintf(o.Out, "operation.castellan.dev/%s created: `%s watch %[1]s -n %[3]s` shows how it goes\n", op.Name, o.program(), op.Namespace)
	return err
}

// refuseAgain refuses to begin again what is done, superseded, or being done.
func (o *options) refuseAgain(ctx context.Context, c client.Client, old *api.Operation, ops []api.Operation, ids []int32) error {
	known, text, err := about(ctx, c, old)
	if err != nil {
		return err
	}
	left := false // a node that was left out
	for _, id := range ids {
		if !slices.Contains(known, id) {
			return unknownNode(old, id, text)
		}
		left = left || slices.Contains(old.Spec.IgnoredNodes, id)
	}
	if old.Status.Phase == api.OperationSucceeded && !left {
		return refusedf("operation %s has succeeded: there is nothing to begin again", old.Name)
	}
	if old.Spec.ToRevision == "" {
		return nil
	}
	for i := range ops {
		if op := &ops[i]; op.Spec.ToRevision == old.Spec.ToRevision && !op.Status.Phase.Final() {
			return refusedf("operation %s does that already: `%s watch %[1]s` shows how it goes", op.Name, o.program())
		}
	}
	cluster, err := findCluster(ctx, c, old.Namespace, old.Spec.ClusterRef.Name, "")
	if err != nil {
		return err
	}
	if now := cluster.Status.Revision; now != "" && now != old.Spec.ToRevision {
		return refusedf("the spec has moved on from revision %s to %s: `%s rollback %s` shows how to go back to one", old.Spec.ToRevision, now, o.program(), cluster.Name)
	}
	return nil
}

// nextName is the first of <name>-2, <name>-3 … that is free. What an earlier retry put behind
// a name is no part of it; a revision's number is.
func nextName(cluster, name string, taken []string) string {
	retried := regexp.MustCompile(`^(` + regexp.QuoteMeta(cluster) + `-[a-z]+-[0-9a-z]+)-[0-9]+$`)
	if m := retried.FindStringSubmatch(name); m != nil {
		name = m[1]
	}
	for i := 2; ; i++ {
		if next := fmt.Sprintf("%s-%d", name, i); !slices.Contains(taken, next) {
			return next
		}
	}
}
