package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

func approveCommand(o *options) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "approve" + operationArgument,
		Short: "Show the plan of an operation that waits, and agree to it",
		Long: `Show what an operation that waits for approval is going to do, and agree to exactly that: a plan
that has changed since is shown again. An upgrade that waits to be finalized is let take that
step, after which no earlier version can be gone back to.` + aboutArgument,
		Example: "  castellan approve orders-rollout-7",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return o.approve(cmd.Context(), args[0], yes) },
	}
	o.addNamespace(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func waitsForPlan(op *api.Operation) bool {
	return op.Status.PlanDigest != "" && op.Spec.ApprovedPlan != op.Status.PlanDigest
}

func (o *options) approve(ctx context.Context, name string, yes bool) error {
	c, _, namespace, err := o.objects()
	if err != nil {
		return err
	}
	op, err := o.operationToChange(ctx, c, namespace, name)
	if err != nil {
		return err
	}
	if err := o.refuseOver(op); err != nil {
		return err
	}
	switch {
	case waitsForPlan(op):
		return o.approvePlan(ctx, c, op, yes)
	case op.Spec.Type == api.OperationUpgrade && op.Spec.SoakSince != nil:
		return o.approveFinal(ctx, c, op, yes)
	case op.Status.PlanDigest != "":
		_, err = fmt.Fprintf(o.Out, "operation.castellan.dev/%s was approved already\n", op.Name)
		return err
	default:
		return refusedf("operation %s shows no plan to approve%s", op.Name, messageOf(op))
	}
}

func (o *options) approvePlan(ctx context.Context, c client.Client, op *api.Operation, yes bool) error {
	shown := op.Status.PlanDigest
	fmt.Fprintf(o.Out, "Operation %s (%s of cluster %s) is going to do:\n", op.Name, op.Spec.Type, op.Spec.ClusterRef.Name)
	for _, line := range op.Status.Plan {
		fmt.Fprintf(o.Out, "  %s\n", line)
	}
	if p := op.Status.Proposal; p != nil {
		fmt.Fprintf(o.Out, "\nProposal: %s\n", proposalText(p))
		if err := printProposal(o.Out, p); err != nil {
			return err
		}
	}
	if err := o.ask(ctx, yes, "\nApprove it?", "approve the plan of operation "+op.Name); err != nil {
		return err
	}
	return o.write(ctx, c, op, func(_ context.Context, _ client.Client, op *api.Operation) (change, error) {
		if err := o.refuseOver(op); err != nil {
			return change{}, err
		}
		if op.Status.PlanDigest != shown {
			return change{}, refusedf("its plan is another one now: look at it again with `%s approve %s`", o.program(), op.Name)
		}
		return change{map[string]any{"approvedPlan": shown}, "approved"}, nil
	})
}

// approveFinal lets an upgrade take the step after which there is no way back.
func (o *options) approveFinal(ctx context.Context, c client.Client, op *api.Operation, yes bool) error {
	if op.Spec.Finalize {
		_, err := fmt.Fprintf(o.Out, "operation.castellan.dev/%s was let finalize already\n", op.Name)
		return err
	}
	cluster, err := findCluster(ctx, c, op.Namespace, op.Spec.ClusterRef.Name, "")
	if err != nil {
		return err
	}
	if cluster.Spec.Rollout.Upgrade.Finalize != api.ApprovalManual {
		return refusedf("operation %s waits for nobody: it finalizes by itself when it has soaked (spec.rollout.upgrade)%s", op.Name, messageOf(op))
	}
	fmt.Fprintf(o.Out, "Every node of cluster %s runs Kafka %s since %s.\n", cluster.Name, cluster.Spec.Version, op.Spec.SoakSince.UTC().Format(time.RFC3339))
	for _, line := range op.Status.Plan {
		fmt.Fprintf(o.Out, "  %s\n", line)
	}
	fmt.Fprintf(o.Out, "Its features are finalized, the metadata version among them. An earlier version CANNOT be gone back to after that.\n")
	if err := o.ask(ctx, yes, "\nFinalize it?", "finalize the upgrade "+op.Name); err != nil {
		return err
	}
	return o.write(ctx, c, op, func(_ context.Context, _ client.Client, op *api.Operation) (change, error) {
		if err := o.refuseOver(op); err != nil {
			return change{}, err
		}
		return change{map[string]any{"finalize": true}, "is let finalize the upgrade"}, nil
	})
}
