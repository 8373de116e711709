package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"castellan.dev/castellan/test/kube/internal/cluster"
)

// progressFile is the daemon's descriptor for progress lines.
const progressFile = 3

func upCommand(state func() (cluster.Dir, error)) *cobra.Command {
	var config cluster.Config
	cmd := &cobra.Command{
		Use: "up --dir DIR", Short: "Start a cluster and wait until it is ready", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := state()
			if err != nil {
				return err
			}
			if err := config.Check(); err != nil {
				return err
			}
			return up(cmd, d, config)
		},
	}
	f := cmd.Flags()
	f.StringVar(&config.Name, "name", "k", "tells clusters of one machine apart")
	f.IntVar(&config.Nodes, "nodes", 3, "workers, in the zones a, b and c in turn")
	f.BoolVar(&config.Keep, "keep", false, "continue with objects, volumes and containers of the last run")
	f.StringArrayVar(&config.Images, "image", nil, "image archive (docker save, or OCI layout as a tar) for all nodes; may be repeated")
	f.BoolVar(&config.LoadBalancer, "load-balancer", true, "give Services of type LoadBalancer an address")
	f.DurationVar(&config.Timeout, "timeout", 5*time.Minute, "give up after")
	return cmd
}

func up(cmd *cobra.Command, d cluster.Dir, config cluster.Config) error {
	out := cmd.OutOrStdout()
	if cluster.Running(cmd.Context(), d) {
		fmt.Fprintf(out, "it is running already\nexport KUBECONFIG=%s\n", d.Kubeconfig())
		return nil
	}
	if err := checkHost(); err != nil {
		return err
	}
	for i, path := range config.Images {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("find the image archive: %w", err)
		}
		config.Images[i] = absolute(path)
	}
	progress, daemon, err := startDaemon(d, config)
	if err != nil {
		return err
	}
	// Whoever interrupts this wants no cluster: the daemon tears down and ends.
	detach := context.AfterFunc(cmd.Context(), func() { _ = daemon.Process.Signal(syscall.SIGTERM) })
	ready := false
	for lines := bufio.NewScanner(progress); lines.Scan(); {
		if lines.Text() == cluster.ReadyLine {
			ready = true
			break
		}
		fmt.Fprintln(out, lines.Text())
	}
	if !ready || !detach() {
		_ = daemon.Wait() // its log says why
		return errors.New("it did not come up, and nothing runs now:\n" + lastRun(d))
	}
	fmt.Fprintf(out, "export KUBECONFIG=%s\n", d.Kubeconfig())
	return nil
}

// startDaemon starts it detached from this terminal, from its own copy of this executable.
func startDaemon(d cluster.Dir, config cluster.Config) (*os.File, *exec.Cmd, error) {
	binary, err := cluster.InstallBinaries(d)
	if err != nil {
		return nil, nil, err
	}
	log, err := os.Create(d.DaemonLog())
	if err != nil {
		return nil, nil, fmt.Errorf("open the daemon's log: %w", err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	progress, theirs, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	defer theirs.Close() //nolint:errcheck // the child has its own
	encoded, err := json.Marshal(config)
	if err != nil {
		return nil, nil, fmt.Errorf("encode the configuration: %w", err)
	}
	cmd := exec.CommandContext(context.Background(), binary, "daemon", "--dir", string(d), "--config", string(encoded)) //nolint:gosec // our own executable
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("start the daemon: %w", err)
	}
	return progress, cmd, nil
}

func daemonCommand(state func() (cluster.Dir, error)) *cobra.Command {
	var encoded string
	cmd := &cobra.Command{
		Use: "daemon", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := state()
			if err != nil {
				return err
			}
			var config cluster.Config
			if err := json.Unmarshal([]byte(encoded), &config); err != nil {
				return fmt.Errorf("read --config: %w", err)
			}
			return cluster.Daemon(cmd.Context(), d, config, os.NewFile(progressFile, "progress"))
		},
	}
	cmd.Flags().StringVar(&encoded, "config", "", "configuration as JSON")
	return cmd
}

// lastRun is what the daemon wrote before it ended.
func lastRun(d cluster.Dir) string {
	data, err := os.ReadFile(d.DaemonLog())
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data))
}

func downCommand(state func() (cluster.Dir, error)) *cobra.Command {
	return &cobra.Command{
		Use: "down --dir DIR", Short: "Stop a cluster; nothing but its directory is left", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := state()
			if err != nil {
				return err
			}
			return cluster.Down(cmd.Context(), d)
		},
	}
}
