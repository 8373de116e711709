package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"

	"castellan.dev/castellan/cli"
	"castellan.dev/castellan/install"
	"castellan.dev/castellan/local"
	"castellan.dev/castellan/packages"
)

const controlPlaneProgram = "castellan-controlplane"

func (w wiring) upCommand() *cobra.Command {
	var o local.UpOptions
	var k onKubernetes
	var detach bool
	var ports, controlPlane string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a Kafka cluster on this machine, or in a Kubernetes cluster",
		Long: `Start a control plane and a Kafka cluster on this machine, and say how to connect.

Without -f a cluster "kafka" of combined nodes is made, once; later it only starts what
exists. What runs already is left as it is. Ctrl-C stops everything in order and keeps the
data; with --detach everything goes on in the background until castellan down.

With --kubernetes CONTEXT the operator and the cluster are brought into that Kubernetes
cluster: everything is checked first, and what is missing is listed with nothing created;
at the end a record has gone through every listener. A second run changes nothing.`,
		Example: "  castellan up\n  castellan up --nodes 1 --kafka-version 4.2.1 --detach\n  castellan up -f cluster.yaml\n" +
			"  castellan up --kubernetes my-context --expose NodePort",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			here, err := k.here(cmd)
			if err != nil {
				return err
			}
			if !here {
				return k.up(cmd, w, o.File, o.Nodes, o.KafkaVersion, o.Timeout)
			}
			if o.Ports, err = parsePorts(ports); err != nil {
				return err
			}
			if o.Dir, o.Programs, err = place(cmd, controlPlane, true); err != nil {
				return err
			}
			if o.PackageStore, err = packages.DefaultDir(); err != nil {
				return err
			}
			return w.up(cmd, o, detach)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.File, "filename", "f", "", "file with a KafkaCluster and what it needs; - is standard input")
	flags.IntVar(&o.Nodes, "nodes", 0, "nodes of the cluster that is made without -f (default 3)")
	flags.StringVar(&o.KafkaVersion, "kafka-version", "", "its version of Kafka (default the newest that is built in)")
	flags.StringVar(&ports, "ports", "", "take every port from this range, as 19000-19999 (default: a listener's own port if free)")
	flags.DurationVar(&o.Timeout, "timeout", 10*time.Minute, "how long to wait until the cluster is Ready")
	flags.BoolVarP(&detach, "detach", "d", false, "return when the cluster is Ready and leave it running")
	addControlPlane(cmd, &controlPlane)
	k.addUpFlags(cmd)
	return cmd
}

func (w wiring) up(cmd *cobra.Command, o local.UpOptions, detach bool) error {
	ctx := cmd.Context()
	o.Progress = newProgress()
	running, err := local.Up(ctx, o)
	o.Progress.Close()
	if err == nil {
		local.PrintRunning(cmd.OutOrStdout(), o.Dir, running)
	}
	if detach || err != nil && ctx.Err() == nil {
		return translate(err)
	}
	if err == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "\nCtrl-C stops everything in order; the data is kept.")
		<-ctx.Done()
	}
	return errors.Join(translate(err), w.down(local.DownOptions{Dir: o.Dir, Programs: o.Programs, Timeout: downTimeout}))
}

const downTimeout = 5 * time.Minute

func (w wiring) down(o local.DownOptions) error {
	o.Progress = newProgress()
	defer o.Progress.Close()
	return local.Down(w.leave, o)
}

func (w wiring) downCommand() *cobra.Command {
	var o local.DownOptions
	var k onKubernetes
	var controlPlane string
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop what up has started, in order; the data is kept",
		Long: `Stop what castellan up has started on this machine, in order; the data is kept.

With --kubernetes CONTEXT the KafkaCluster is deleted there, in order; its volumes and the
operator stay.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			here, err := k.here(cmd)
			if err != nil {
				return err
			}
			if !here {
				return k.down(cmd.Context(), cmd, w, o.Timeout)
			}
			if o.Dir, o.Programs, err = place(cmd, controlPlane, false); err != nil {
				return err
			}
			o.Progress = newProgress()
			defer o.Progress.Close()
			return local.Down(cmd.Context(), o)
		},
	}
	cmd.Flags().DurationVar(&o.Timeout, "timeout", downTimeout, "how long to wait for the nodes to stop")
	addControlPlane(cmd, &controlPlane)
	k.addDownFlags(cmd)
	return cmd
}

// localStatus prints what runs on this machine.
func localStatus(ctx context.Context, out io.Writer, given, output string) error {
	dir, err := filepath.Abs(given)
	if err != nil {
		return fmt.Errorf("find --dir: %w", err)
	}
	s := local.ReadStatus(ctx, local.Dir(dir))
	if output == "" {
		s.Print(out)
		return nil
	}
	data, err := yaml.Marshal(s)
	if err == nil && output == "json" {
		data, err = yaml.YAMLToJSON(data)
		data = append(data, '\n')
	}
	if err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	_, err = out.Write(data)
	return err
}

func (w wiring) serverCommand() *cobra.Command {
	var controlPlane string
	cmd := &cobra.Command{
		Use:   local.ServerCommand,
		Short: "Keep control plane, operator and agent running in the foreground",
		Long: `Keep control plane, operator and agent of a folder running, in the foreground; castellan up
starts it in the background. SIGTERM stops the three; Kafka's nodes run on.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, programs, err := place(cmd, controlPlane, true)
			if err != nil {
				return err
			}
			store, err := packages.DefaultDir()
			if err != nil {
				return err
			}
			return local.Serve(cmd.Context(), local.ServerConfig{
				Dir: dir, Programs: programs, PackageStore: store, Version: w.version, Log: w.log,
			})
		},
	}
	addControlPlane(cmd, &controlPlane)
	return cmd
}

func execRecordedCommand() *cobra.Command {
	return &cobra.Command{
		Use:                local.ExecCommand + " FILE PROGRAM [ARGS...]",
		Hidden:             true,
		DisableFlagParsing: true,
		Args:               cobra.MinimumNArgs(2),
		RunE:               func(_ *cobra.Command, args []string) error { return local.ExecRecorded(args[0], args[1:]) },
	}
}

// controlPlaneCommand hands its arguments to castellan-controlplane.
func controlPlaneCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "controlplane serve|backup|restore|version [FLAGS]",
		Short:              "Serve, back up or restore a control plane's data",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			program, err := findControlPlane("")
			if err != nil {
				return err
			}
			if err := syscall.Exec(program, append([]string{program}, args...), os.Environ()); err != nil { //nolint:gosec // it is the program beside this one
				return fmt.Errorf("run %s: %w", program, err)
			}
			return nil
		},
	}
}

func addControlPlane(cmd *cobra.Command, value *string) {
	cmd.Flags().StringVar(value, "controlplane", "", "the castellan-controlplane program (default beside this one)")
}

// place finds the folder and the programs; makeDir makes the folder.
func place(cmd *cobra.Command, controlPlane string, makeDir bool) (local.Dir, local.Programs, error) {
	var p local.Programs
	var err error
	if p.Executable, err = os.Executable(); err != nil {
		return "", p, fmt.Errorf("find this program: %w", err)
	}
	if p.ControlPlane, err = findControlPlane(controlPlane); err != nil {
		return "", p, err
	}
	given := cmd.Flag("dir").Value.String()
	if given == "" {
		return "", p, &cli.UsageError{Err: errors.New("there is no home folder: give --dir")}
	}
	if !makeDir {
		abs, err := filepath.Abs(given)
		if err != nil {
			return "", p, fmt.Errorf("find --dir: %w", err)
		}
		return local.Dir(abs), p, nil
	}
	dir, err := local.OpenDir(given)
	return dir, p, err
}

func findControlPlane(given string) (string, error) {
	if given != "" {
		abs, err := filepath.Abs(given)
		if err != nil {
			return "", fmt.Errorf("find --controlplane: %w", err)
		}
		return abs, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), controlPlaneProgram)
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	if found, err := exec.LookPath(controlPlaneProgram); err == nil {
		return filepath.Abs(found)
	}
	return "", fmt.Errorf("%s is neither beside %s nor in $PATH: `make build` makes both, or name it with --controlplane", controlPlaneProgram, self)
}

func parsePorts(text string) (*local.PortRange, error) {
	if text == "" {
		return nil, nil
	}
	from, to, ok := strings.Cut(text, "-")
	first, err1 := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if !ok || err1 != nil || err2 != nil || first == 0 || first > last {
		return nil, &cli.UsageError{Err: fmt.Errorf("--ports %s: want FROM-TO, as 19000-19999", text)}
	}
	return &local.PortRange{From: int32(first), To: int32(last)}, nil
}

func newProgress() *local.Progress {
	return local.NewProgress(os.Stderr, term.IsTerminal(int(os.Stderr.Fd())))
}

// translate gives errors of the packages local and install the exit codes of package cli.
func translate(err error) error {
	var refused *local.RefusedError
	var installed *install.RefusedError
	switch {
	case errors.As(err, &refused):
		return &cli.RefusedError{Message: refused.Error()}
	case errors.As(err, &installed):
		return &cli.RefusedError{Message: installed.Error()}
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted: %w", err)
	default:
		return err
	}
}
