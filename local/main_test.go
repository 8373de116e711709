package local

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// TestMain lets the test binary stand for castellan: the server under test starts its
// children from it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case ExecCommand:
			fail(ExecRecorded(os.Args[2], os.Args[3:]))
		case ServerCommand:
			fail(serveForTest(os.Args[2:]))
			return
		case Operator, Agent, "sleeper":
			untilTerminated()
			return
		case "stubborn":
			signal.Ignore(syscall.SIGTERM)
			select {}
		}
	}
	os.Exit(m.Run())
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func untilTerminated() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
}

func serveForTest(args []string) error {
	flags := flag.NewFlagSet("server", flag.ExitOnError)
	dir := flags.String("dir", "", "")
	controlPlane := flags.String("controlplane", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return Serve(ctx, ServerConfig{
		Dir: Dir(*dir), Programs: Programs{Executable: self, ControlPlane: *controlPlane},
		PackageStore: *dir + "/packages", Version: "test", Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}
