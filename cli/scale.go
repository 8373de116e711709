package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corecluster "castellan.dev/castellan/core/cluster"
)

type scaleOptions struct {
	editOptions
	pool     string
	replicas int32
	remove   []int32
	fill     bool
	// sized and filled say that --replicas and --fill were given.
	sized, filled bool
}

func scaleCommand(o *options) *cobra.Command {
	s := &scaleOptions{editOptions: editOptions{options: o}}
	cmd := &cobra.Command{
		Use:   "scale CLUSTER [--pool POOL] [--replicas N] [--remove ID[,ID...]]",
		Short: "Give a pool more or fewer nodes, or other ones",
		Long: `Change how many nodes a pool has, in the spec of a KafkaCluster and as you. What changes is shown
before. Where fewer nodes are wanted those with the highest ids leave, or those that --remove
names; their replicas move to other brokers first, and an id that has left is never given again.
--remove with --replicas as it was puts new nodes in place of old ones.`,
		Example: `  castellan scale orders --pool brokers --replicas 5 --fill
  castellan scale orders --pool brokers --remove 101
  castellan scale orders --pool brokers --remove 101 --replicas 5 --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s.sized, s.filled = cmd.Flags().Changed("replicas"), cmd.Flags().Changed("fill")
			return s.run(cmd.Context(), args[0])
		},
	}
	s.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&s.pool, "pool", "", "the pool (default the only one)")
	flags.Int32Var(&s.replicas, "replicas", 0, "how many nodes the pool shall have")
	flags.Lookup("replicas").DefValue = ""
	addIDs(cmd, &s.remove, "remove", "`ids` of nodes that leave; without --replicas there are so many fewer")
	flags.BoolVar(&s.fill, "fill", false, "move replicas to new brokers as soon as they are ready (spec.balance.fillNewBrokers)")
	return cmd
}

func (s *scaleOptions) run(ctx context.Context, name string) error {
	ids, err := checkIDs("remove", s.remove)
	if err != nil {
		return err
	}
	switch {
	case !s.sized && !s.filled && len(ids) == 0:
		return usagef("say what shall change: --replicas, --remove or --fill")
	case s.sized && s.replicas < 1:
		return usagef("--replicas %d: a pool has 1 node or more; take it out of spec.pools to have none", s.replicas)
	}
	s.remove = ids
	return s.edit(ctx, name, s.change)
}

func (s *scaleOptions) change(ctx context.Context, c client.Client, cluster *api.KafkaCluster) ([]string, error) {
	if s.filled {
		cluster.Spec.Balance.FillNewBrokers = s.fill
	}
	if !s.sized && len(s.remove) == 0 {
		return nil, nil
	}
	p, err := s.poolOf(cluster)
	if err != nil {
		return nil, err
	}
	revisions, err := revisionsOf(ctx, c, cluster)
	if err != nil {
		return nil, err
	}
	var given []api.PoolNodeIDs
	if len(revisions) > 0 {
		given = revisions[len(revisions)-1].Spec.NodeIDs
	}
	before := *p.DeepCopy()
	if err := s.leaving(p, given); err != nil {
		return nil, err
	}
	if s.sized {
		p.Replicas = s.replicas
	}
	if p.Replicas < 1 {
		return nil, refusedf("pool %s would have no node left: name fewer in --remove, say --replicas for new ones in their place, or take the pool out of spec.pools", p.Name)
	}
	return s.tell(cluster, &before, p, given), nil
}

// poolOf finds the pool, or the only one.
func (s *scaleOptions) poolOf(cluster *api.KafkaCluster) (*api.Pool, error) {
	pools := cluster.Spec.Pools
	if s.pool == "" && len(pools) == 1 {
		return &pools[0], nil
	}
	var names []string
	for i := range pools {
		if pools[i].Name == s.pool {
			return &pools[i], nil
		}
		names = append(names, pools[i].Name)
	}
	if s.pool == "" {
		return nil, usagef("say which pool: --pool with one of %s", strings.Join(names, ", "))
	}
	return nil, &NotFoundError{Message: fmt.Sprintf("cluster %s has no pool %s; it has: %s", cluster.Name, s.pool, strings.Join(names, ", "))}
}

// leaving names nodes that leave. One that leaves already, or has left, is not counted again.
func (s *scaleOptions) leaving(p *api.Pool, given []api.PoolNodeIDs) error {
	kept := corecluster.KeptIDs(p, given)
	var ever []int32
	if i := slices.IndexFunc(given, func(g api.PoolNodeIDs) bool { return g.Pool == p.Name }); i >= 0 {
		ever = slices.Concat(given[i].IDs, given[i].Removed)
	}
	for _, id := range s.remove {
		if !slices.Contains(ever, id) {
			return &NotFoundError{Message: fmt.Sprintf("pool %s has no node %d; it has: %s", p.Name, id, idText(kept))}
		}
		if slices.Contains(p.Remove, id) {
			continue
		}
		p.Remove = append(p.Remove, id)
		if slices.Contains(kept, id) && !s.sized {
			p.Replicas--
		}
	}
	slices.Sort(p.Remove)
	return nil
}

// tell says which nodes leave and come back, and how many are new.
func (s *scaleOptions) tell(cluster *api.KafkaCluster, before, after *api.Pool, given []api.PoolNodeIDs) []string {
	was, kept := corecluster.KeptIDs(before, given), corecluster.KeptIDs(after, given)
	without := func(ids, others []int32) []int32 {
		return slices.DeleteFunc(slices.Clone(ids), func(id int32) bool { return slices.Contains(others, id) })
	}
	broker := slices.Contains(after.Roles, api.RoleBroker)
	var told []string
	if ids := without(was, kept); len(ids) > 0 {
		line := fmt.Sprintf("Of pool %s leaves: node %s", after.Name, idText(ids))
		if broker {
			line += ", after its replicas have moved to other brokers"
		}
		told = append(told, line)
	}
	if ids := without(kept, was); len(ids) > 0 {
		told = append(told, fmt.Sprintf("Of pool %s stays after all: node %s", after.Name, idText(ids)))
	}
	known := len(kept)
	if len(given) == 0 { // no spec was accepted yet, so no id is known
		known = int(min(before.Replicas, after.Replicas))
	}
	if fresh := int(after.Replicas) - known; fresh > 0 {
		line := fmt.Sprintf("New in pool %s: %d", after.Name, fresh)
		if broker && !cluster.Spec.Balance.FillNewBrokers {
			line += fmt.Sprintf("; they take what is made from then on, --fill or `%s rebalance %s` moves replicas to them", s.program(), cluster.Name)
		}
		told = append(told, line)
	}
	return told
}
