package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

func throttleCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "throttle" + operationArgument + " RATE|none",
		Short: "Let an operation move replicas faster or slower",
		Long: `Change how many bytes a second each broker receives and sends at most for the moves of an
operation, also while it runs. With none it follows spec.balance.bytesPerSecond of its cluster.` + aboutArgument,
		Example: "  castellan throttle orders-rebalance-x1y2z 20Mi\n  castellan throttle orders none",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, said := map[string]any{"bytesPerSecond": nil}, "follows the limit of its cluster"
			if !strings.EqualFold(args[1], "none") {
				rate, err := o.parseRate("RATE", args[1])
				if err != nil {
					return err
				}
				if rate == nil {
					return usagef("say how many bytes a second, or none")
				}
				spec["bytesPerSecond"], said = rate, "moves at most "+rate.String()+" bytes a second from and to each broker"
			}
			return o.decide(cmd.Context(), args[0], func(_ context.Context, _ client.Client, op *api.Operation) (change, error) {
				return change{spec, said}, o.mayThrottle(op)
			})
		},
	}
	o.addNamespace(cmd)
	return cmd
}

// mayThrottle refuses what moves nothing. An operation that was cancelled may still have moves
// under way.
func (o *options) mayThrottle(op *api.Operation) error {
	switch {
	case op.Spec.Type == api.OperationRestart:
		return refusedf("operation %s is a Restart and moves no replicas: `%s ops %s` shows the others", op.Name, o.program(), op.Spec.ClusterRef.Name)
	case op.Spec.Cancelled && !op.Status.Phase.Final():
		return nil
	default:
		return o.refuseOver(op)
	}
}

func cancelCommand(o *options) *cobra.Command {
	var revert bool
	cmd := &cobra.Command{
		Use: "cancel", Short: "End an operation after the nodes under way",
		Long: `End an operation: nodes that it is changing end, no other begins. What was done stays, and a
revision that was being rolled out reaches no further node. Then decide with castellan retry,
castellan rollback, or a new spec.

Replicas on their way arrive, with --revert they are taken back to where they were.`,
	}
	decisionCommand(o, cmd, func(_ context.Context, _ client.Client, op *api.Operation) (change, error) {
		return o.cancel(op, revert)
	})
	cmd.Flags().BoolVar(&revert, "revert", false, "take moves under way back")
	return cmd
}

func (o *options) cancel(op *api.Operation, revert bool) (change, error) {
	if revert && op.Spec.Type == api.OperationRestart {
		return change{}, refusedf("operation %s is a Restart and moves no replicas: cancel it without --revert", op.Name)
	}
	cancelled := op.Spec.Cancelled || op.Status.Phase == api.OperationCancelled
	if cancelled && (!revert || op.Spec.Revert || op.Status.Phase.Final()) {
		return change{said: "was cancelled already"}, nil
	}
	if !cancelled {
		if err := o.refuseOver(op); err != nil {
			return change{}, err
		}
	}
	return change{cancelling(op, revert), cancelWords(op, revert)}, nil
}

func cancelling(op *api.Operation, revert bool) map[string]any {
	spec := map[string]any{}
	if !op.Spec.Cancelled {
		spec["cancelled"] = true
	}
	if revert {
		spec["revert"] = true
	}
	return spec
}

func cancelWords(op *api.Operation, revert bool) string {
	said := "cancelled: nodes under way end, no other begins"
	switch {
	case revert:
		said += ", and moves under way are taken back"
	case op.Status.Moves != nil && op.Status.Moves.Running > 0:
		said += fmt.Sprintf(", and the %d moves under way arrive (--revert takes them back)", op.Status.Moves.Running)
	}
	if op.Spec.ToRevision != "" {
		said += "; " + op.Spec.ToRevision + " reaches no further node"
	}
	return said
}
