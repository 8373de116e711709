package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"castellan.dev/castellan/agent"
	"castellan.dev/castellan/cli"
	"castellan.dev/castellan/core/host"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/node"
	"castellan.dev/castellan/packages"
)

// archiveVariable is where an agent tells a process its unpacked package.
const archiveVariable = "ARCHIVE"

// processCommands are the commands that run as processes of their own: operator, agent, node.
func (w wiring) processCommands() []*cobra.Command {
	return []*cobra.Command{w.operatorCommand(), w.agentCommand(), w.nodeCommand(), installSupervisorCommand()}
}

func (w wiring) agentCommand() *cobra.Command {
	var hostName, state, store string
	var roots, users []string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run what the API asks this host to run",
		Long: `Run what the HostProcesses of this host's own namespace ask for. SIGTERM ends the agent and
leaves every process running; the next agent takes them over.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := kubeconfig(cmd)
			if err != nil {
				return err
			}
			a, err := agent.New(agent.Config{
				Host: hostName, Namespace: host.Namespace(hostName), Dir: state, DataRoots: roots, Users: users,
				Version: w.version, API: config, Archives: agent.StoreArchives{Store: &packages.Store{Dir: store}, Log: w.log}, Log: w.log,
			})
			if err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&hostName, "host", "", "name of this machine's Host object")
	flags.StringVar(&state, "state", "", "the agent's own folder")
	flags.StringSliceVar(&roots, "data-root", nil, "folder below which data may lie; may be given several times")
	flags.StringSliceVar(&users, "user", nil, "user that processes may run as; may be given several times")
	flags.StringVar(&store, "packages", "", "folder of the package store")
	require(cmd, "host", "state", "data-root", "packages")
	return cmd
}

// nodeCommand is started by an agent, or as the first process of a container, in the node's folder.
func (w wiring) nodeCommand() *cobra.Command {
	var dir, archive string
	var pod bool
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Supervise one Kafka process",
		Long: `Supervise one Kafka process in the folder that an agent has prepared: render its files,
format its storage when told to, run the JVM, and end with its status. With --pod its files
are where the pod's template mounts them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config := node.Config{Dir: dir, Archive: archive, StopGrace: grace, Log: w.log}
			if pod {
				config.Dir, config.Archive = layout.PodStateDir, layout.PodKafkaDir
				config.Pod = node.PodPlaces(os.Getenv(layout.NodeNameVariable))
			}
			code := node.Run(cmd.Context(), config)
			if code != cli.ExitOK {
				os.Exit(code) // the code is Kafka's own; the termination message says more
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "state", ".", "the node's folder")
	flags.StringVar(&archive, "archive", os.Getenv(archiveVariable), "folder of the unpacked Kafka (default $ARCHIVE)")
	flags.BoolVar(&pod, "pod", false, "run as the first process of a pod's container")
	flags.DurationVar(&grace, "stop-grace", 0, "how long a controlled shutdown may take (default 2m)")
	cmd.MarkFlagsMutuallyExclusive("pod", "state")
	cmd.MarkFlagsMutuallyExclusive("pod", "archive")
	return cmd
}

// installSupervisorCommand is an init container's: Kafka's own image has no castellan.
func installSupervisorCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "install-supervisor DIR",
		Short:  "Copy this program to a folder, for a pod's other container to run",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE:   func(_ *cobra.Command, args []string) error { return node.InstallSupervisor(args[0]) },
	}
}

// kubeconfig reads the file of --kubeconfig; a process of its own never guesses its credentials.
func kubeconfig(cmd *cobra.Command) (*rest.Config, error) {
	file := cmd.Flag("kubeconfig").Value.String()
	if file == "" {
		return nil, &cli.UsageError{Err: fmt.Errorf("castellan %s needs --kubeconfig", cmd.Name())}
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("find the kubeconfig: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", abs)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	return config, nil
}

func require(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a flag that was just defined
		}
	}
}
