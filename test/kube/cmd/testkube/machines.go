package main

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"castellan.dev/castellan/test/kube/internal/cluster"
)

func nodeCommand(state func() (cluster.Dir, error)) *cobra.Command {
	parent := &cobra.Command{Use: "node", Short: "Turn a node off and on"}
	do := func(cmd *cobra.Command, node, verb string, query url.Values) error {
		d, err := state()
		if err != nil {
			return err
		}
		return cluster.Command(cmd.Context(), d, "/node/"+url.PathEscape(node)+"/"+verb, query)
	}
	var fresh bool
	start := &cobra.Command{
		Use: "start --dir DIR NODE", Short: "Turn a node on again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return do(cmd, args[0], "start", url.Values{"fresh-disk": {strconv.FormatBool(fresh)}})
		},
	}
	start.Flags().BoolVar(&fresh, "fresh-disk", false, "its volumes and containers are lost")
	parent.AddCommand(start, &cobra.Command{
		Use: "kill --dir DIR NODE", Short: "Cut the power of a node", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return do(cmd, args[0], "kill", nil) },
	})
	return parent
}

func balancerCommand(state func() (cluster.Dir, error)) *cobra.Command {
	return &cobra.Command{
		Use: "loadbalancer --dir DIR on|off", Short: "Switch whether Services of type LoadBalancer get an address",
		Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"on", "off"},
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := state()
			if err != nil {
				return err
			}
			return cluster.Command(cmd.Context(), d, "/loadbalancer/"+args[0], nil)
		},
	}
}

func loadCommand(state func() (cluster.Dir, error)) *cobra.Command {
	return &cobra.Command{
		Use: "load --dir DIR IMAGE.tar...", Short: "Give all nodes the images of archives", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := state()
			if err != nil {
				return err
			}
			for i, path := range args {
				if _, err := os.Stat(path); err != nil {
					return fmt.Errorf("find the image archive: %w", err)
				}
				args[i] = absolute(path)
			}
			if cluster.Running(cmd.Context(), d) {
				return cluster.Command(cmd.Context(), d, "/load", url.Values{"image": args})
			}
			if err := checkHost(); err != nil {
				return err
			}
			return cluster.Load(cmd.Context(), d, args, func(format string, a ...any) { fmt.Fprintf(cmd.OutOrStdout(), format+"\n", a...) })
		},
	}
}

func execCommand(state func() (cluster.Dir, error)) *cobra.Command {
	return &cobra.Command{
		Use: "exec --dir DIR (NODE|cp|ext) -- COMMAND...", Short: "Run a command in a machine",
		Long: `Run a command in a machine: a node, cp (the control plane) or ext (the world outside the cluster's network).
In ext only the network is another: files, directory and environment are the caller's.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := state()
			if err != nil {
				return err
			}
			status, err := cluster.ReadStatus(d)
			if err != nil {
				return err
			}
			pid, err := status.Pid(args[0])
			if err != nil {
				return err
			}
			nsenter, err := exec.LookPath("nsenter")
			if err != nil {
				return fmt.Errorf("run test/kube/install-tools: %w", err)
			}
			enter := []string{"nsenter", "-t", strconv.Itoa(pid), "-n"}
			if args[0] != "ext" {
				enter = append(enter, "-m", "-p", "-u", "-i")
			}
			err = syscall.Exec(nsenter, append(append(enter, "--"), args[1:]...), os.Environ()) //nolint:gosec // what the caller wants
			return fmt.Errorf("run nsenter: %w", err)
		},
	}
}
