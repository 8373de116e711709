package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

type restartOptions struct {
	*options
	nodes   []int32
	reason  string
	wait    bool
	timeout time.Duration
}

func restartCommand(o *options) *cobra.Command {
	r := &restartOptions{options: o}
	cmd := &cobra.Command{
		Use:   "restart CLUSTER",
		Short: "Restart the nodes of a cluster as they are, one after the other",
		Long: `Restart nodes as they are, with the same checks as any other change: a node stops only when
partitions and quorum can do without it.`,
		Example: "  castellan restart orders\n  castellan restart orders --nodes 1,2 --reason 'a new kernel' --wait",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return r.run(cmd.Context(), args[0]) },
	}
	o.addNamespace(cmd)
	flags := cmd.Flags()
	addIDs(cmd, &r.nodes, "nodes", "`ids` of the nodes to restart (default all)")
	flags.StringVar(&r.reason, "reason", "", "what for, for people")
	flags.BoolVar(&r.wait, "wait", false, "show how it goes until it is over")
	flags.DurationVar(&r.timeout, "timeout", 0, "how long to wait (default as long as it takes)")
	return cmd
}

func (r *restartOptions) run(ctx context.Context, name string) error {
	ids, err := checkIDs("nodes", r.nodes)
	if err != nil {
		return err
	}
	if r.timeout != 0 && !r.wait {
		return usagef("--timeout goes with --wait")
	}
	c, config, namespace, err := r.objects()
	if err != nil {
		return err
	}
	cluster, err := findCluster(ctx, c, namespace, name, "")
	if err != nil {
		return err
	}
	if err := r.check(ctx, c, cluster, ids); err != nil {
		return err
	}
	op := &api.Operation{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name + "-restart-" + utilrand.String(5), Labels: operationLabels(name)},
		Spec:       api.OperationSpec{ClusterRef: api.ClusterRef{Name: name}, Type: api.OperationRestart, Reason: r.reason, Nodes: ids},
	}
	if err := r.tellCreated(op, c.Create(ctx, op, client.FieldOwner(FieldManager))); err != nil || !r.wait {
		return err
	}
	return r.watch(ctx, config, namespace, watched{cluster: name, operation: op.Name}, r.timeout)
}

func (r *restartOptions) check(ctx context.Context, c client.Client, cluster *api.KafkaCluster, ids []int32) error {
	if cluster.Spec.State == api.StateStopped {
		return refusedf("cluster %s is stopped, so no node of it runs: spec.state Running starts them", cluster.Name)
	}
	known, err := nodeIDs(ctx, c, cluster.Namespace, cluster.Name)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if !slices.Contains(known, id) {
			return &NotFoundError{Message: fmt.Sprintf("cluster %s has no node %d; it has: %s", cluster.Name, id, idText(known))}
		}
	}
	if cluster.Spec.Paused {
		fmt.Fprintf(r.Err, "Cluster %s is paused (spec.paused): nothing begins before that ends.\n", cluster.Name)
	}
	return nil
}
