package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/cli"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/operator"
	"castellan.dev/castellan/substrate/kube/forward"
)

// Variables that an operator's pod is given.
const (
	namespaceVariable = "CASTELLAN_NAMESPACE"
	imageVariable     = "CASTELLAN_IMAGE"
	// memoryVariable is the container's memory limit in bytes.
	memoryVariable = "CASTELLAN_MEMORY_LIMIT"
)

func (w wiring) operatorCommand() *cobra.Command {
	c := operator.Config{Log: w.log}
	var level slog.LevelVar
	cmd := &cobra.Command{
		Use:   "operator",
		Short: "Bring clusters to what their objects say",
		Long: `Bring clusters to what their objects say: plan, act, report, and refuse bad specs. SIGTERM ends the
operator; every node keeps running. Without --kubeconfig it runs in a pod, as that pod's ServiceAccount.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOperator(c); err != nil {
				return &cli.UsageError{Err: err}
			}
			config, err := operatorConfig(cmd)
			if err != nil {
				return err
			}
			c.API = config
			c.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: &level}))
			limitMemory(os.Getenv(memoryVariable))
			return operator.Run(cmd.Context(), c)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&c.Substrates, "substrates", []string{operator.SubstrateHost}, "where nodes run: host, kubernetes or both")
	flags.StringSliceVar(&c.WatchNamespaces, "watch-namespace", nil, "namespace whose clusters are served; may be given several times (default all)")
	flags.StringVar(&c.SupervisorImage, "supervisor-image", os.Getenv(imageVariable), "image that a pod's supervisor is copied from (default $"+imageVariable+")")
	flags.StringVar(&c.PackagesDir, "packages", "", "folder of the package store, for hosts")
	flags.StringVar(&c.LeaseNamespace, "lease-namespace", cmp.Or(os.Getenv(namespaceVariable), "castellan-system"), "namespace of the operator's Lease and of its webhook's Service and Secret (default $"+namespaceVariable+")")
	flags.StringVar(&c.Identity, "identity", "", "name in the Lease: one started again under it goes on at once; only where no two run at a time (default a new one)")
	flags.StringVar(&c.WebhookAddress, "webhook-address", "127.0.0.1:0", "where admission listens; port 0 takes a free one")
	flags.StringVar(&c.WebhookService, "webhook-service", "", "Service through which the API server asks for admission (default: --webhook-address itself)")
	flags.BoolVar(&c.WebhookProvided, "webhook-provided", false, "somebody else keeps the Secret "+operator.WebhookSecret+" and the webhook's caBundle, such as cert-manager")
	flags.StringVar(&c.HealthAddress, "health-address", "0", "where /healthz and /readyz listen; 0 serves none")
	flags.StringVar(&c.MetricsAddress, "metrics-address", "0", "where /metrics listens, as plain HTTP for whoever reaches it; 0 serves none")
	flags.TextVar(&level, "log-level", &level, "debug, info, warn or error")
	return cmd
}

func checkOperator(c operator.Config) error {
	for _, s := range c.Substrates {
		if s != operator.SubstrateHost && s != operator.SubstrateKubernetes {
			return fmt.Errorf("--substrates %s is unknown: give host, kubernetes or both", s)
		}
	}
	hosts, pods := slices.Contains(c.Substrates, operator.SubstrateHost), slices.Contains(c.Substrates, operator.SubstrateKubernetes)
	switch {
	case !hosts && !pods:
		return errors.New("--substrates is empty: give host, kubernetes or both")
	case hosts && c.PackagesDir == "":
		return errors.New("an operator that serves hosts needs --packages")
	case hosts && len(c.WatchNamespaces) > 0:
		return errors.New("--watch-namespace is for --substrates kubernetes: every host has a namespace of its own, which the operator must see")
	case pods && c.SupervisorImage == "":
		return fmt.Errorf("an operator that serves Kubernetes needs --supervisor-image or $%s: the image that pods copy castellan from", imageVariable)
	}
	return nil
}

// operatorConfig is the way to the API server: a kubeconfig, else the pod's own account.
func operatorConfig(cmd *cobra.Command) (*rest.Config, error) {
	if cmd.Flag("kubeconfig").Value.String() != "" {
		return kubeconfig(cmd)
	}
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, &cli.UsageError{Err: errors.New("castellan operator needs --kubeconfig outside a pod")}
	}
	if err != nil {
		return nil, fmt.Errorf("read the pod's own account: %w", err)
	}
	return config, nil
}

// limitMemory keeps the heap within the container's limit, and leaves a tenth of it to what
// is not the heap's.
func limitMemory(limit string) {
	if bytes, err := strconv.ParseInt(limit, 10, 64); err == nil && bytes > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes / 10 * 9)
	}
}

// preview shows a plan as the CLI prints it.
func preview() func(context.Context, *rest.Config, *api.KafkaCluster) (cli.PlanView, error) {
	return func(ctx context.Context, config *rest.Config, kc *api.KafkaCluster) (cli.PlanView, error) {
		// Kafka in pods is out of reach from here but through the API server; names and
		// addresses that are none of a pod are dialed as they are.
		way, err := forward.New(config)
		if err != nil {
			return cli.PlanView{}, err
		}
		defer func() { _ = way.Close() }() // nothing was written through it
		p, problems, err := operator.Preview(ctx, config, kc, way.DialContext)
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
