// Command testkube builds a real Kubernetes of several nodes on one machine, out of Linux namespaces, and runs it. It is all
// of Kubernetes in one executable.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/component-base/version"

	"castellan.dev/castellan/test/kube/internal/cluster"
)

func main() {
	// By its own name or by its first argument: "kubectl get pods" through a link, and "testkube kubectl get pods".
	for skip, name := range os.Args[:min(2, len(os.Args))] {
		if run := component(filepath.Base(name)); run != nil {
			os.Args = os.Args[skip:]
			os.Exit(run())
		}
	}
	os.Exit(runCommand())
}

func runCommand() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use: "testkube", Short: "A real Kubernetes of several nodes on this machine", Version: version.Get().GitVersion,
		Long: `A real Kubernetes of several nodes on this machine: each node is a set of Linux namespaces with its own containerd and
kubelet. It needs root and what test/kube/install-tools installs. 'testkube kubectl …' is kubectl.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	var dir string
	root.PersistentFlags().StringVar(&dir, "dir", "", "directory that holds all of the cluster (required)")
	state := func() (cluster.Dir, error) { return cluster.NewDir(dir) }
	root.AddCommand(upCommand(state), downCommand(state), loadCommand(state), nodeCommand(state), execCommand(state), balancerCommand(state), daemonCommand(state))
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "testkube:", err)
		return 1
	}
	return 0
}
