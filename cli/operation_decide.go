package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

const operationArgument = " OPERATION|CLUSTER"

// aboutArgument tells how OPERATION|CLUSTER is read.
const aboutArgument = "\n\nA cluster stands for its operation when exactly one is active."

func pauseCommand(o *options) *cobra.Command {
	return decisionCommand(o, &cobra.Command{
		Use: "pause", Short: "Let the nodes under way end, and begin no other",
		Long: "Let the nodes that an operation is changing end, and begin no other until it is resumed.",
	}, o.pause)
}

func resumeCommand(o *options) *cobra.Command {
	return decisionCommand(o, &cobra.Command{
		Use: "resume", Short: "Let an operation go on that is paused or waits at a canary point",
		Long: "Let an operation go on: take back a pause, and pass the canary point that it waits at.",
	}, o.resume)
}

// decisionCommand completes a command about one Operation.
func decisionCommand(o *options, cmd *cobra.Command, judge func(context.Context, client.Client, *api.Operation) (change, error)) *cobra.Command {
	cmd.Example = "  castellan " + cmd.Use + " orders-rollout-7"
	cmd.Use += operationArgument
	cmd.Long += aboutArgument
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return o.decide(cmd.Context(), args[0], judge) }
	o.addNamespace(cmd)
	return cmd
}

func (o *options) pause(_ context.Context, _ client.Client, op *api.Operation) (change, error) {
	if err := o.refuseOver(op); err != nil {
		return change{}, err
	}
	if op.Spec.Paused {
		return change{said: "was paused already"}, nil
	}
	return change{map[string]any{"paused": true}, "paused: nodes under way end, no other begins until `" + o.program() + " resume`"}, nil
}

func (o *options) resume(_ context.Context, _ client.Client, op *api.Operation) (change, error) {
	if err := o.refuseOver(op); err != nil {
		return change{}, err
	}
	made := change{spec: map[string]any{}}
	if op.Spec.Paused {
		made.spec["paused"], made.said = false, "resumed"
	}
	if point := op.Status.Point; point != "" && !slices.Contains(op.Spec.Passed, point) {
		made.spec["passed"] = append(slices.Clone(op.Spec.Passed), point)
		if made.said == "" {
			made.said = "goes on"
		}
		made.said += " past " + point
	}
	if len(made.spec) > 0 {
		return made, nil
	}
	switch {
	case op.Status.Point != "":
		return change{said: "was let past " + op.Status.Point + " already"}, nil
	case len(failedNodes(op)) > 0:
		return change{}, refusedf("operation %s is not paused by anybody: node %s failed. `%s retry %[1]s` lets it begin again, `%[3]s ignore %[1]s --node %[4]d` leaves it as it is",
			op.Name, idText(failedNodes(op)), o.program(), failedNodes(op)[0])
	case waitsForPlan(op):
		return change{}, refusedf("operation %s is not paused, it waits for its plan to be approved: `%s approve %[1]s`", op.Name, o.program())
	default:
		return change{said: "is not paused and waits at no canary point" + messageOf(op)}, nil
	}
}

func messageOf(op *api.Operation) string {
	if op.Status.Message == "" {
		return ""
	}
	return ": " + op.Status.Message
}

func ignoreCommand(o *options) *cobra.Command {
	var nodes []int32
	cmd := &cobra.Command{
		Use:     "ignore" + operationArgument + " --node ID[,ID...]",
		Short:   "Leave nodes as they are, and wait for them no longer",
		Long:    "Leave nodes as they are: an operation begins them no more and ends without them." + aboutArgument,
		Example: "  castellan ignore orders-rollout-7 --node 3",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := checkIDs("node", nodes)
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				return usagef("name the nodes to leave as they are: --node ID")
			}
			return o.decide(cmd.Context(), args[0], func(ctx context.Context, c client.Client, op *api.Operation) (change, error) {
				return o.ignore(ctx, c, op, ids)
			})
		},
	}
	o.addNamespace(cmd)
	addIDs(cmd, &nodes, "node", "`ids` of the nodes")
	return cmd
}

func (o *options) ignore(ctx context.Context, c client.Client, op *api.Operation, ids []int32) (change, error) {
	if err := o.refuseOver(op); err != nil {
		return change{}, err
	}
	known, text, err := about(ctx, c, op)
	if err != nil {
		return change{}, err
	}
	ignored := slices.Clone(op.Spec.IgnoredNodes)
	for _, id := range ids {
		if !slices.Contains(known, id) {
			return change{}, unknownNode(op, id, text)
		}
		if n := nodeOf(op, id); n != nil && n.State == api.OperationNodeSucceeded {
			return change{}, refusedf("node %d of operation %s has succeeded: there is nothing to ignore", id, op.Name)
		}
		if !slices.Contains(ignored, id) {
			ignored = append(ignored, id)
		}
	}
	if len(ignored) == len(op.Spec.IgnoredNodes) {
		return change{said: "ignores node " + idText(ids) + " already"}, nil
	}
	return change{map[string]any{"ignoredNodes": ignored}, fmt.Sprintf("ignores node %s: it stays as it is", idText(ids))}, nil
}

func unknownNode(op *api.Operation, id int32, known string) error {
	return &NotFoundError{Message: fmt.Sprintf("operation %s is not about a node %d; it is about: %s", op.Name, id, known)}
}

func nodeOf(op *api.Operation, id int32) *api.OperationNode {
	i := slices.IndexFunc(op.Status.Nodes, func(n api.OperationNode) bool { return n.ID == id })
	if i < 0 {
		return nil
	}
	return &op.Status.Nodes[i]
}

// failedNodes are those that a retry lets begin again.
func failedNodes(op *api.Operation) []int32 {
	var ids []int32
	for _, n := range op.Status.Nodes {
		if failed(n.State) {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func failed(s api.OperationNodeState) bool {
	return s == api.OperationNodeFailed || s == api.OperationNodeTimedOut
}
