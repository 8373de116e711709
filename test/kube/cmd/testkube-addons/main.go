// Command testkube-addons is what runs inside the machines of a test bed beside Kubernetes: their first process, the CSI
// driver and the DNS server of pods. The command testkube starts it; nobody else does.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"castellan.dev/castellan/test/kube/internal/csi"
	"castellan.dev/castellan/test/kube/internal/machine"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	root := &cobra.Command{Use: "testkube-addons", SilenceUsage: true}
	root.AddCommand(machineCommand(), csiCommand(), dnsCommand())
	if root.ExecuteContext(ctx) != nil {
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

func machineCommand() *cobra.Command {
	return &cobra.Command{
		Use: "machine SPECFILE", Short: "Be the first process of a machine", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return machine.Init(args[0])
		},
	}
}

func csiCommand() *cobra.Command {
	var o csi.Options
	cmd := &cobra.Command{
		Use: "csi", Short: "Serve the volumes of one node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return csi.Serve(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.Node, "node", "", "name of the node")
	cmd.Flags().StringVar(&o.Kubeconfig, "kubeconfig", "", "how to reach the API server")
	cmd.Flags().StringVar(&o.Volumes, "volumes", "", "directory of the volumes")
	cmd.Flags().StringVar(&o.Kubelet, "kubelet", "", "the kubelet's root directory")
	return cmd
}

func dnsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "dns COREFILE", Short: "Serve DNS for pods", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			corefile, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read the Corefile: %w", err)
			}
			return serveDNS(cmd.Context(), corefile)
		},
	}
}
