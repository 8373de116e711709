package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

func restartCommand(o *options) *cobra.Command {
	b := &beginOptions{options: o}
	var nodes []int32
	cmd := &cobra.Command{
		Use:   "restart CLUSTER",
		Short: "Restart the nodes of a cluster as they are, one after the other",
		Long: `Restart nodes as they are, with the same checks as any other change: a node stops only when
partitions and quorum can do without it.`,
		Example: "  castellan restart orders\n  castellan restart orders --nodes 1,2 --reason 'a new kernel' --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := checkIDs("nodes", nodes)
			if err != nil {
				return err
			}
			return b.begin(cmd.Context(), args[0], func(ctx context.Context, c client.Client, cluster *api.KafkaCluster) (api.OperationSpec, error) {
				return restart(ctx, c, cluster, ids)
			})
		},
	}
	b.flags(cmd)
	addIDs(cmd, &nodes, "nodes", "`ids` of the nodes to restart (default all)")
	return cmd
}

func restart(ctx context.Context, c client.Reader, cluster *api.KafkaCluster, ids []int32) (api.OperationSpec, error) {
	known, err := nodeIDs(ctx, c, cluster.Namespace, cluster.Name)
	if err != nil {
		return api.OperationSpec{}, err
	}
	for _, id := range ids {
		if !slices.Contains(known, id) {
			return api.OperationSpec{}, &NotFoundError{Message: fmt.Sprintf("cluster %s has no node %d; it has: %s", cluster.Name, id, idText(known))}
		}
	}
	return api.OperationSpec{Type: api.OperationRestart, Nodes: ids}, nil
}
