// Command castellan-images makes container images without a container engine or a registry: Castellan's own, for every platform,
// and the Kafka image of the test bed. It writes files; pushing them is for whoever has a registry.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := rootCommand().ExecuteContext(ctx); err != nil {
		return 1
	}
	return 0
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{Use: "castellan-images", Short: "Make container images without a container engine", SilenceUsage: true}
	root.AddCommand(castellanCommand(), kafkaCommand())
	return root
}

// say tells what was written: a file or folder, and what it is.
func say(cmd *cobra.Command, what ...any) error {
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), what...); err != nil {
		return fmt.Errorf("say what was written: %w", err)
	}
	return nil
}

func required(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(fmt.Sprintf("flag %s: %v", name, err)) // a typing mistake in this program
		}
	}
}
