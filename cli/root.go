package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Config is what the commands need from outside.
type Config struct {
	Version  string
	In       io.Reader
	Out, Err io.Writer
	// Getenv reads an environment variable.
	Getenv func(string) string
	// DefaultDir is the folder of the local Castellan when --dir is not given.
	DefaultDir string
	// Preview tells what an object would lead to; nil when this build cannot.
	Preview func(ctx context.Context, api *rest.Config, cluster *api.KafkaCluster) (PlanView, error)
	// Plugin says that kubectl runs the command, as kubectl castellan.
	Plugin bool
	// Interactive says that a person sits at In and can be asked.
	Interactive bool
	// Size is columns and rows of the terminal at Out; nil when Out is none.
	Size func() (columns, rows int)
	// Forward opens the way to Kafka in pods; nil when this build cannot.
	Forward func(api *rest.Config) (Forwarder, error)
	// LocalStatus prints what runs on this machine; nil when this build knows no such thing.
	LocalStatus func(ctx context.Context, out io.Writer, dir, output string) error
}

// Forwarder connects to addresses of the pod network from outside of it.
type Forwarder interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	Close() error
}

// PlanView is what would happen if a spec were applied.
type PlanView struct {
	// Problems make the spec unacceptable, Warnings do not; both name a field path.
	Problems []string `json:"problems,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Steps in order, as far as they can be known now.
	Steps []PlanStep `json:"steps"`
	// Blocked is what has to wait, and for what.
	Blocked []PlanStep `json:"blocked,omitempty"`
}

// PlanStep is one step or what keeps it from being done.
type PlanStep struct {
	What   string `json:"what"`
	Reason string `json:"reason"`
}

// options are the flags that every command has.
type options struct {
	Config
	kubeconfig string
	context    string
	dir        string
	namespace  string
}

// New is the castellan command with everything that goes through an API. Further commands
// are added by the caller.
func New(c Config) *cobra.Command {
	o := &options{Config: c}
	root := &cobra.Command{
		Use:   "castellan",
		Short: "Run Kafka clusters from one description",
		Long: `Castellan runs Kafka clusters from one description, a KafkaCluster object.

  castellan up                    a control plane and a Kafka cluster on this machine
  castellan apply -f FILE         create or change objects
  castellan get kafkaclusters     what there is, and how it is

Help: castellan COMMAND --help, castellan help exit-codes.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(c.In)
	root.SetOut(c.Out)
	root.SetErr(c.Err)
	root.CompletionOptions.HiddenDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVar(&o.dir, "dir", c.DefaultDir, "folder of the local Castellan")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server (default "+o.order()+")")
	flags.StringVar(&o.context, "context", "", "context of the kubeconfig; without --kubeconfig and $KUBECONFIG the first file that has it is taken")
	if c.Plugin {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl castellan"}
	}
	root.AddGroup(
		&cobra.Group{ID: GroupLocal, Title: "This machine:"},
		&cobra.Group{ID: groupObjects, Title: "Objects:"},
		&cobra.Group{ID: groupOperations, Title: "Operations:"},
		&cobra.Group{ID: groupKafka, Title: "Kafka:"},
	)
	for _, command := range []*cobra.Command{
		applyCommand(o), getCommand(o), describeCommand(o), deleteCommand(o), planCommand(o), statusCommand(o),
	} {
		command.GroupID = groupObjects
		root.AddCommand(command)
	}
	for _, command := range operationCommands(o) {
		command.GroupID = groupOperations
		root.AddCommand(command)
	}
	for _, command := range []*cobra.Command{topicsCommand(o), importCommand(o), produceCommand(o), consumeCommand(o), logsCommand(o), nodeCommand(o)} {
		command.GroupID = groupKafka
		root.AddCommand(command)
	}
	root.AddCommand(versionCommand(o), exitCodesTopic())
	return root
}

// Groups of commands in the help.
const (
	// GroupLocal is for the commands that a caller adds to [New].
	GroupLocal      = "local"
	groupObjects    = "objects"
	groupOperations = "operations"
	groupKafka      = "kafka"
)

// Execute runs the command and returns the code to exit with; a failure is told on the
// command's error stream.
func Execute(ctx context.Context, root *cobra.Command) int {
	began := false
	markBegin(root, &began)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	if !began {
		err = &UsageError{Err: err}
	}
	fmt.Fprintf(root.ErrOrStderr(), "error: %v\n", err)
	code := ExitCode(err)
	if code == ExitUsage {
		fmt.Fprintf(root.ErrOrStderr(), "See %s --help.\n", root.DisplayName())
	}
	return code
}

// markBegin tells errors of the command line, which cobra finds, from those of a command.
func markBegin(cmd *cobra.Command, began *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*began = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		markBegin(sub, began)
	}
}

func usagef(format string, args ...any) error {
	return &UsageError{Err: fmt.Errorf(format, args...)}
}

// addNamespace adds -n to a command that has to do with namespaces.
func (o *options) addNamespace(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "namespace (default that of the kubeconfig, else default)")
}

func versionCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "castellan %s\n", o.Version)
			return err
		},
	}
}

var errNoPreview = errors.New("this build cannot make plans")
