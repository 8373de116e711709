// Command castellan runs Kafka clusters from one description. Here are flags and wiring
// only: each command stands in the package that does the work.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // the image has none, and windows name time zones

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"castellan.dev/castellan/cli"
	"castellan.dev/castellan/local"
)

// version is set when a release is built.
var version = ""

func main() {
	os.Exit(run())
}

func run() int {
	// The first Ctrl-C or SIGTERM asks to stop in order, the second one to leave now.
	ctx, again, release := interrupts()
	defer release()
	dir, err := local.DefaultDir()
	if err != nil {
		dir = "" // --dir must be given then
	}
	w := wiring{
		version: buildVersion(), leave: again,
		log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	root := cli.New(cli.Config{
		Version: w.version, In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Getenv: os.Getenv, DefaultDir: string(dir), Preview: preview(),
		Plugin: isPlugin(os.Args[0]), Interactive: term.IsTerminal(int(os.Stdin.Fd())),
		Size: terminalSize(os.Stdout), Forward: forwarder, LocalStatus: localStatus,
	})
	for _, command := range []*cobra.Command{w.upCommand(), w.downCommand(), w.serverCommand(), controlPlaneCommand()} {
		command.GroupID = cli.GroupLocal
		root.AddCommand(command)
	}
	root.AddCommand(execRecordedCommand())
	addCommands(root, w.processCommands()...)
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		if cmd.GroupID != "" || cmd.HasParent() && cmd.Parent().GroupID != "" {
			// A person reads the terminal: what libraries have to say comes as an error.
			ctrl.SetLogger(logr.Discard())
			klog.SetLogger(logr.Discard())
		}
	}
	return cli.Execute(ctx, root)
}

// terminalSize tells columns and rows of a terminal; nil if out is none.
func terminalSize(out *os.File) func() (columns, rows int) {
	fd := int(out.Fd())
	if !term.IsTerminal(fd) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return func() (int, int) {
		columns, rows, err := term.GetSize(fd)
		if err != nil {
			return 80, 24 // what a terminal has that does not say
		}
		return columns, rows
	}
}

// wiring is what the commands of this program share.
type wiring struct {
	version string
	// leave ends at the second Ctrl-C.
	leave context.Context //nolint:containedctx // the program's own second signal, not a request's
	log   *slog.Logger
}

// interrupts returns a context that ends at the first SIGINT or SIGTERM and one that ends
// at the second.
func interrupts() (first, second context.Context, release func()) {
	first, cancelFirst := context.WithCancel(context.Background())
	second, cancelSecond := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		cancelFirst()
		<-signals
		cancelSecond()
	}()
	return first, second, func() { signal.Stop(signals); cancelFirst(); cancelSecond() }
}

// buildVersion is the release, else the commit that the program was built from.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return fmt.Sprintf("dev-%s", info.Main.Version)
}
