package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

type upgradeOptions struct {
	editOptions
	version  string
	soak     time.Duration
	soaks    bool // --soak was given
	finalize string
}

func upgradeCommand(o *options) *cobra.Command {
	u := &upgradeOptions{editOptions: editOptions{options: o}}
	cmd := &cobra.Command{
		Use:   "upgrade CLUSTER --version VERSION",
		Short: "Bring a cluster to another version of Kafka",
		Long: `Write another version into the spec of a KafkaCluster, as you, and show what that leads to: the
nodes restart with it one after the other, and when all have run it for a while (--soak) its
features are finalized. Before that castellan rollback goes back, afterwards nothing does;
--finalize manual lets it wait there for castellan approve.`,
		Example: "  castellan upgrade orders --version 4.3.1\n  castellan upgrade orders --version 4.3.1 --soak 24h --finalize manual",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u.soaks = cmd.Flags().Changed("soak")
			return u.run(cmd.Context(), args[0])
		},
	}
	u.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&u.version, "version", "", "version of Kafka, for example 4.3.1")
	flags.DurationVar(&u.soak, "soak", 0, "how long all nodes run it before it is finalized (default as it is in spec.rollout.upgrade)")
	flags.StringVar(&u.finalize, "finalize", "", "automatic after the soak, or manual (default as it is in spec.rollout.upgrade)")
	return cmd
}

func (u *upgradeOptions) run(ctx context.Context, name string) error {
	approval, known := map[string]api.Approval{
		"": "", "manual": api.ApprovalManual, "automatic": api.ApprovalAutomatic,
	}[strings.ToLower(u.finalize)]
	switch {
	case u.version == "":
		return usagef("say which version: --version, for example 4.3.1")
	case !known:
		return usagef("--finalize %s: use manual or automatic", u.finalize)
	case u.soak < 0:
		return usagef("--soak %s: use 0s or more", u.soak)
	}
	return u.edit(ctx, name, func(_ context.Context, _ client.Client, cluster *api.KafkaCluster) ([]string, error) {
		return u.change(cluster, approval), nil
	})
}

func (u *upgradeOptions) change(cluster *api.KafkaCluster, approval api.Approval) []string {
	before, policy := cluster.Spec.Version, &cluster.Spec.Rollout.Upgrade
	cluster.Spec.Version = u.version
	if u.soaks {
		policy.Soak = &metav1.Duration{Duration: u.soak}
	}
	if approval != "" {
		policy.Finalize = approval
	}
	var told []string
	for i := range cluster.Spec.Pools {
		p := &cluster.Spec.Pools[i]
		if k := p.Placement.Kubernetes; k != nil && k.Image != "" && before != u.version {
			told = append(told, fmt.Sprintf("Pool %s goes on with its own image %s (spec.pools[%d].placement.kubernetes.image): it has to hold Kafka %s", p.Name, k.Image, i, u.version))
		}
	}
	return told
}
