// Command castellan-controlplane is a Kubernetes API server and its etcd in one process, for hosts without Kubernetes.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"castellan.dev/castellan/controlplane/internal/serve"
)

func main() {
	// A starter may go away with its terminal and its ends of our pipes: neither must end this process.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := root(log).ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func root(log *slog.Logger) *cobra.Command {
	cmd := &cobra.Command{
		Use:           "castellan-controlplane",
		Short:         "A Kubernetes API server and its etcd in one process, for hosts without Kubernetes",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddCommand(serveCommand(log), backupCommand(), restoreCommand(), versionCommand())
	return cmd
}

func serveCommand(log *slog.Logger) *cobra.Command {
	o := serve.Options{Stdout: os.Stdout, Stderr: os.Stderr, Log: log, Now: time.Now}
	cmd := &cobra.Command{
		Use:   "serve --data DIR [-- KUBE-APISERVER-FLAGS]",
		Short: "Serve the control plane kept in a data directory until SIGTERM",
		Long: `Serve the control plane kept in a data directory until SIGTERM.

The first start creates everything in DIR: CA, certificates, keys, etcd and DIR/admin.kubeconfig. When the server is ready
one line of JSON is printed: {"ready":true,"url":"https://...","pid":...}. Flags of kube-apiserver may follow after --.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Extra = args
			enforceDeadline(cmd.Context(), log)
			return serve.Run(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Data, "data", "", "data directory; created when missing (required)")
	flags.StringVar(&o.BindAddress, "bind-address", "127.0.0.1", "address to listen on; add names with --san when others connect")
	flags.IntVar(&o.SecurePort, "secure-port", 0, "port to listen on; 0 picks a free one on the first start and keeps it")
	flags.StringVar(&o.AuditLog, "audit-log", "", "audit log file (default DIR/audit/audit.log)")
	flags.StringSliceVar(&o.SANs, "san", nil, "further names and addresses for the serving certificate")
	return cmd
}

// enforceDeadline ends the process when a requested stop takes too long, or at the second signal.
func enforceDeadline(ctx context.Context, log *slog.Logger) {
	context.AfterFunc(ctx, func() {
		again := make(chan os.Signal, 1)
		signal.Notify(again, syscall.SIGTERM, syscall.SIGINT)
		select {
		case <-again:
			log.ErrorContext(ctx, "stopping at once: second signal")
		case <-time.After(serve.StopDeadline):
			log.ErrorContext(ctx, "stopping at once: the orderly stop took too long; no acknowledged write is lost", slog.Duration("deadline", serve.StopDeadline))
		}
		os.Exit(3)
	})
}
