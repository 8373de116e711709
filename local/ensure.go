package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ServerCommand is the command of castellan that [Serve] stands behind.
const ServerCommand = "server"

// serverGrace is how long the server may take to stop: each of its children has its own bound.
const serverGrace = 3*childGrace + 5*time.Second

// Programs are what a server is started from.
type Programs struct {
	// Executable is castellan itself, ControlPlane castellan-controlplane.
	Executable, ControlPlane string
}

// ensureServer returns when a server of exactly these programs is ready, and says whether
// it had to be started. One of another build is replaced: Kafka runs on meanwhile.
func ensureServer(ctx context.Context, d Dir, p Programs, progress *Progress) (started bool, err error) {
	if _, err := exec.LookPath(p.ControlPlane); err != nil {
		return false, fmt.Errorf("find castellan-controlplane: %w; it belongs beside the castellan program (`make build` makes both), or name it with --controlplane", err)
	}
	program, err := fingerprint(p.Executable, p.ControlPlane)
	if err != nil {
		return false, err
	}
	running, err := d.serverRuns()
	if err != nil {
		return false, err
	}
	if running {
		state, alive := readState(d)
		if alive && state.Program == program {
			return false, awaitServer(ctx, d, nil, progress)
		}
		if alive {
			progress.Doing("replacing the server of another build (%s)", state.Version)
			if err := state.Server.end(ctx, serverGrace); err != nil {
				return false, fmt.Errorf("end the old server: %w", err)
			}
		}
		if err := awaitUnlocked(ctx, d); err != nil {
			return false, err
		}
	}
	ended, err := startServer(d, p)
	if err != nil {
		return false, err
	}
	return true, awaitServer(ctx, d, ended, progress)
}

// startServer starts the server in a session of its own, so that it outlives this process
// and its terminal. The channel tells when it ends while this process lives.
func startServer(d Dir, p Programs) (<-chan string, error) {
	log, err := openLog(d.Log(ServerCommand))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	written := logSize(d.Log(ServerCommand))
	//nolint:noctx,gosec // it outlives every context of this process; the program is castellan itself
	cmd := exec.Command(p.Executable, ServerCommand, "--dir", string(d), "--controlplane", p.ControlPlane)
	cmd.Env, cmd.Stdout, cmd.Stderr = os.Environ(), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	ended := make(chan string, 1)
	go func() {
		err := cmd.Wait()
		ended <- howItEnded(err, logTail(d.Log(ServerCommand), written, 3))
	}()
	return ended, nil
}

// awaitServer waits until the server is ready. A control plane that ends while it has
// never been ready says what is wrong, and waiting would not mend it.
func awaitServer(ctx context.Context, d Dir, ended <-chan string, progress *Progress) error {
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		state, alive := readState(d)
		if alive && state.Phase == PhaseReady {
			return nil
		}
		if alive {
			progress.Doing("server: %s", state.Message)
			if c := state.Children[ControlPlane]; ended != nil && c.Exits > 0 {
				return fmt.Errorf("the control plane does not start: %s (log: %s)", c.LastExit, d.Log(ControlPlane))
			}
		} else {
			progress.Doing("starting the server")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the server (%s; logs: %s): %w", state.Message, d.LogDir(), ctx.Err())
		case how := <-ended:
			return fmt.Errorf("the server ended: %s (log: %s)", how, d.Log(ServerCommand))
		case <-ticker.C:
		}
	}
}

func awaitUnlocked(ctx context.Context, d Dir) error {
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		running, err := d.serverRuns()
		if err != nil || !running {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until the old server has ended: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}

// stopServer stops the server and its children; Kafka runs on.
func stopServer(ctx context.Context, d Dir) error {
	state, alive := readState(d)
	if !alive {
		return nil
	}
	if err := state.Server.end(ctx, serverGrace); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	if running, err := d.serverRuns(); err != nil || running {
		return errors.Join(err, fmt.Errorf("the server of %s still runs (pid %d)", d, state.Server.PID))
	}
	return nil
}
