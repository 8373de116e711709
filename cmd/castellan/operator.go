package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/cli"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/operator"
)

func (w wiring) operatorCommand() *cobra.Command {
	c := operator.Config{Log: w.log, Substrates: []string{operator.SubstrateHost}}
	cmd := &cobra.Command{
		Use:   "operator",
		Short: "Bring clusters to what their objects say",
		Long: `Bring clusters to what their objects say: plan, act, report, and refuse bad specs. SIGTERM ends the
operator; every node keeps running.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := kubeconfig(cmd)
			if err != nil {
				return err
			}
			c.API = config
			return operator.Run(cmd.Context(), c)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.PackagesDir, "packages", "", "folder of the package store")
	flags.StringVar(&c.LeaseNamespace, "lease-namespace", "castellan-system", "namespace of the operator's Lease")
	flags.StringVar(&c.Identity, "identity", "", "name in the Lease: one started again under it goes on at once; only where no two run at a time (default a new one)")
	flags.StringVar(&c.WebhookAddress, "webhook-address", "127.0.0.1:0", "where admission listens; port 0 takes a free one")
	flags.StringVar(&c.MetricsAddress, "metrics-address", "0", "where /metrics listens; 0 serves none")
	require(cmd, "packages")
	return cmd
}

// preview shows a plan as the CLI prints it.
func preview() func(context.Context, *rest.Config, *api.KafkaCluster) (cli.PlanView, error) {
	return func(ctx context.Context, config *rest.Config, kc *api.KafkaCluster) (cli.PlanView, error) {
		p, problems, err := operator.Preview(ctx, config, kc)
		if err != nil {
			return cli.PlanView{}, err
		}
		var view cli.PlanView
		for _, problem := range problems {
			if problem.Severity == cluster.Error {
				view.Problems = append(view.Problems, problem.String())
			} else {
				view.Warnings = append(view.Warnings, problem.String())
			}
		}
		for _, s := range append(p.Steps, p.Upcoming...) {
			view.Steps = append(view.Steps, cli.PlanStep{What: subject(string(s.Kind), s.Node), Reason: s.Reason})
		}
		for _, b := range p.Blocked {
			view.Blocked = append(view.Blocked, cli.PlanStep{What: subject(b.Reason, b.Node), Reason: b.Message})
		}
		return view, nil
	}
}

func subject(what string, node int32) string {
	if node < 0 {
		return what
	}
	return fmt.Sprintf("%s node %d", what, node)
}
