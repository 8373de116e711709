package cli

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

const rateUsage = "bytes a second that each broker receives and sends for it at most, for example 50Mi (default spec.balance.bytesPerSecond)"

func drainCommand(o *options) *cobra.Command {
	b := &beginOptions{options: o}
	var nodes []int32
	var rate string
	cmd := &cobra.Command{
		Use:   "drain CLUSTER --nodes ID[,ID...]",
		Short: "Move every replica off brokers that stay",
		Long: `Move every replica off brokers, which stay and run on: before work on their machines, or their
disks. Brokers that shall leave for good need none: castellan scale --remove drains them itself.`,
		Example: "  castellan drain orders --nodes 3 --reason 'new disks' --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := checkIDs("nodes", nodes)
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				return usagef("name the brokers to drain: --nodes ID")
			}
			limit, err := o.parseRate("--rate", rate)
			if err != nil {
				return err
			}
			return b.begin(cmd.Context(), args[0], func(ctx context.Context, c client.Client, cluster *api.KafkaCluster) (api.OperationSpec, error) {
				return api.OperationSpec{Type: api.OperationDrain, Nodes: ids, BytesPerSecond: limit}, mayDrain(ctx, c, cluster, ids)
			})
		},
	}
	b.flags(cmd)
	addIDs(cmd, &nodes, "nodes", "`ids` of the brokers to drain")
	cmd.Flags().StringVar(&rate, "rate", "", rateUsage)
	return cmd
}

func mayDrain(ctx context.Context, c client.Reader, cluster *api.KafkaCluster, ids []int32) error {
	brokers, err := brokersOf(ctx, c, cluster)
	if err != nil {
		return err
	}
	if err := checkBrokers(cluster, ids, brokers); err != nil {
		return err
	}
	if len(ids) == len(brokers) {
		return refusedf("no broker of cluster %s would be left to take the replicas: name fewer, or give it more brokers first", cluster.Name)
	}
	return nil
}

type rebalanceOptions struct {
	beginOptions
	mode    string
	brokers []int32
	topics  []string
	factor  int32
	repair  bool
	rate    string
	// replicate says that --replication-factor was given.
	replicate bool
}

func rebalanceCommand(o *options) *cobra.Command {
	r := &rebalanceOptions{beginOptions: beginOptions{options: o}}
	cmd := &cobra.Command{
		Use:   "rebalance CLUSTER",
		Short: "Move replicas and leaders to where they should be",
		Long: `Move replicas and leaders to where they should be:

  full      repair racks, and even out disks, leaders, replicas and topics (default)
  fill      move replicas to the brokers named, and to nobody else
  disks     move replicas between the log dirs of each broker
  leaders   change only who leads

--replication-factor gives topics another number of replicas instead. With spec.rollout.approval
Manual it shows what it would bring and waits for castellan approve.`,
		Example: `  castellan rebalance orders --rate 50Mi
  castellan rebalance orders --mode fill --brokers 4,5
  castellan rebalance orders --replication-factor 3 --topics payments,refunds`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.replicate = cmd.Flags().Changed("replication-factor")
			return r.run(cmd.Context(), args[0])
		},
	}
	r.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&r.mode, "mode", "", "full, fill, disks or leaders (default full)")
	addIDs(cmd, &r.brokers, "brokers", "`ids` of the brokers to fill, or whose disks are evened out")
	flags.StringSliceVar(&r.topics, "topics", nil, "only these topics")
	flags.Lookup("topics").DefValue = ""
	flags.Int32Var(&r.factor, "replication-factor", 0, "number of replicas that the topics get")
	flags.Lookup("replication-factor").DefValue = ""
	flags.BoolVar(&r.repair, "repair-log-dirs", false, "give brokers whose log dirs have failed the replicas back that were there (mode disks)")
	flags.StringVar(&r.rate, "rate", "", rateUsage)
	return cmd
}

func (r *rebalanceOptions) run(ctx context.Context, name string) error {
	what, err := r.what()
	if err != nil {
		return err
	}
	limit, err := r.parseRate("--rate", r.rate)
	if err != nil {
		return err
	}
	return r.begin(ctx, name, func(ctx context.Context, c client.Client, cluster *api.KafkaCluster) (api.OperationSpec, error) {
		spec := api.OperationSpec{Type: api.OperationRebalance, Rebalance: what, BytesPerSecond: limit}
		brokers, err := brokersOf(ctx, c, cluster)
		if err != nil {
			return spec, err
		}
		return spec, checkBrokers(cluster, what.Brokers, brokers)
	})
}

// what reads the flags: each goes with some modes only.
func (r *rebalanceOptions) what() (*api.Rebalance, error) {
	brokers, err := checkIDs("brokers", r.brokers)
	if err != nil {
		return nil, err
	}
	topics := slices.Sorted(slices.Values(r.topics))
	out := &api.Rebalance{Brokers: brokers, Topics: slices.Compact(topics), RepairLogDirs: r.repair, Mode: r.impliedMode()}
	if r.mode != "" {
		modes, word := []api.RebalanceMode{
			api.RebalanceFull, api.RebalanceFill, api.RebalanceDisks, api.RebalanceLeaders, api.RebalanceReplicationFactor,
		}, strings.ReplaceAll(r.mode, "-", "")
		i := slices.IndexFunc(modes, func(m api.RebalanceMode) bool { return strings.EqualFold(string(m), word) })
		if i < 0 {
			return nil, usagef("--mode %s: use full, fill, disks or leaders", r.mode)
		}
		out.Mode = modes[i]
	}
	if r.replicate {
		out.ReplicationFactor = &r.factor
	}
	return out, r.together(out)
}

// impliedMode is the mode where none was said.
func (r *rebalanceOptions) impliedMode() api.RebalanceMode {
	switch {
	case r.replicate:
		return api.RebalanceReplicationFactor
	case r.repair:
		return api.RebalanceDisks
	default:
		return api.RebalanceFull
	}
}

func (r *rebalanceOptions) together(w *api.Rebalance) error {
	if slices.Contains(w.Topics, "") {
		return usagef("--topics: one of them has no name")
	}
	if w.Mode == api.RebalanceReplicationFactor {
		switch {
		case !r.replicate:
			return usagef("say how many replicas: --replication-factor N")
		case r.factor < 1 || r.factor > 100:
			return usagef("--replication-factor %d: use 1 to 100", r.factor)
		case len(w.Topics) == 0:
			return usagef("say which topics get %d replicas: --topics", r.factor)
		}
	}
	return r.apart(w)
}

// apart refuses flags that have no meaning in the mode.
func (r *rebalanceOptions) apart(w *api.Rebalance) error {
	switch {
	case r.replicate && w.Mode != api.RebalanceReplicationFactor:
		return usagef("--replication-factor does not go with --mode %s", r.mode)
	case w.Mode == api.RebalanceFill && len(w.Brokers) == 0:
		return usagef("say which brokers to fill: --brokers")
	case len(w.Brokers) > 0 && w.Mode != api.RebalanceFill && w.Mode != api.RebalanceDisks:
		return usagef("--brokers goes with --mode fill or disks, not with %s", cmp.Or(r.mode, strings.ToLower(string(w.Mode))))
	case r.repair && w.Mode != api.RebalanceDisks:
		return usagef("--repair-log-dirs goes with --mode disks, not with %s", cmp.Or(r.mode, strings.ToLower(string(w.Mode))))
	}
	return nil
}
