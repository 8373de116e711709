package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilrand "k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// beginOptions are those of a command that creates an Operation.
type beginOptions struct {
	*options
	reason  string
	wait    bool
	timeout time.Duration
}

func (b *beginOptions) flags(cmd *cobra.Command) {
	b.addNamespace(cmd)
	flags := cmd.Flags()
	flags.StringVar(&b.reason, "reason", "", "what for, for people")
	flags.BoolVar(&b.wait, "wait", false, "show how it goes until it is over")
	flags.DurationVar(&b.timeout, "timeout", 0, "how long to wait (default as long as it takes)")
}

// begin creates the Operation that a function describes, after it has checked what it is
// about, and follows it with --wait.
func (b *beginOptions) begin(ctx context.Context, name string, describe func(context.Context, client.Client, *api.KafkaCluster) (api.OperationSpec, error)) error {
	if b.timeout != 0 && !b.wait {
		return usagef("--timeout goes with --wait")
	}
	c, config, namespace, err := b.objects()
	if err != nil {
		return err
	}
	cluster, err := findCluster(ctx, c, namespace, name, "")
	if err != nil {
		return err
	}
	if cluster.Spec.State == api.StateStopped {
		return refusedf("cluster %s is stopped, so no node of it runs: spec.state Running starts them", cluster.Name)
	}
	spec, err := describe(ctx, c, cluster)
	if err != nil {
		return err
	}
	if cluster.Spec.Paused {
		fmt.Fprintf(b.Err, "Cluster %s is paused (spec.paused): nothing begins before that ends.\n", cluster.Name)
	}
	spec.ClusterRef, spec.Reason = api.ClusterRef{Name: name}, b.reason
	op := &api.Operation{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name + "-" + strings.ToLower(string(spec.Type)) + "-" + utilrand.String(5), Labels: operationLabels(name),
		},
		Spec: spec,
	}
	if err := b.tellCreated(op, c.Create(ctx, op, client.FieldOwner(FieldManager))); err != nil || !b.wait {
		return err
	}
	return b.watch(ctx, config, namespace, watched{cluster: name, operation: op.Name}, b.timeout)
}

// brokersOf are the ids of a cluster's brokers.
func brokersOf(ctx context.Context, c client.Reader, cluster *api.KafkaCluster) ([]int32, error) {
	var list api.KafkaNodeList
	if err := c.List(ctx, &list, client.InNamespace(cluster.Namespace)); err != nil {
		return nil, fmt.Errorf("list the KafkaNodes of namespace %s: %w", cluster.Namespace, err)
	}
	var ids []int32
	for i := range list.Items {
		if spec := &list.Items[i].Spec; spec.ClusterName == cluster.Name && slices.Contains(spec.Roles, api.RoleBroker) {
			ids = append(ids, spec.NodeID)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// checkBrokers refuses ids that are those of no broker.
func checkBrokers(cluster *api.KafkaCluster, ids, brokers []int32) error {
	for _, id := range ids {
		if !slices.Contains(brokers, id) {
			return &NotFoundError{Message: fmt.Sprintf("cluster %s has no broker %d; it has: %s", cluster.Name, id, idText(brokers))}
		}
	}
	return nil
}

// parseRate reads bytes a second; nil for nothing.
func (o *options) parseRate(flag, text string) (*resource.Quantity, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no rate is no error
	}
	rate, err := resource.ParseQuantity(strings.TrimSuffix(text, "/s"))
	if err != nil || rate.CmpInt64(1) < 0 {
		return nil, usagef("%s %s is no number of bytes a second: use for example 50Mi", flag, text)
	}
	if rate.CmpInt64(1<<20) < 0 {
		fmt.Fprintf(o.Err, "%s bytes a second is little: moves take long, and 1Mi or more is usual.\n", rate.String())
	}
	return &rate, nil
}
