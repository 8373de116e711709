package local

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	minBackoff = time.Second
	maxBackoff = 5 * time.Second
	// settled is how long a child must have run for its next end to count as the first one.
	settled = time.Minute
	// childGrace is how long a child may take to stop; the control plane's own bound is 20 s.
	childGrace = 25 * time.Second
)

// child is a program that the server keeps running.
type child struct {
	name string
	argv []string
	env  []string
}

// keeper runs one child until its context ends.
type keeper struct {
	child
	dir        Dir
	executable string
	board      *board
	log        *slog.Logger
}

// run starts the child, starts it again with growing pauses whenever it ends, and stops it
// when ctx ends.
func (k keeper) run(ctx context.Context) {
	pause := minBackoff
	for ctx.Err() == nil {
		began := time.Now()
		why := k.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > settled {
			pause = minBackoff
		}
		k.log.ErrorContext(ctx, "child ended", slog.String("child", k.name), slog.String("why", why), slog.Duration("restartIn", pause))
		k.note(func(s *ChildState) {
			s.Running, s.PID, s.LastExit = false, 0, why
			s.Exits++
		})
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxBackoff)
	}
}

// once runs the child to its end and says how it ended.
func (k keeper) once(ctx context.Context) string {
	log, err := openLog(k.dir.Log(k.name))
	if err != nil {
		return err.Error()
	}
	defer func() { _ = log.Close() }()
	written := logSize(k.dir.Log(k.name))
	//nolint:noctx,gosec // asked to stop, not killed, when ctx ends; the program is castellan itself
	cmd := exec.Command(k.executable, append([]string{ExecCommand, k.dir.record(k.name)}, k.argv...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = k.env, log, log
	// A session of its own: neither the terminal's Ctrl-C nor the end of the server reaches it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Sprintf("it could not be started: %v", err)
	}
	k.note(func(s *ChildState) { s.Running, s.PID, s.StartedAt = true, cmd.Process.Pid, time.Now().UTC() })
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = k.stop(cmd, ended)
		k.note(func(s *ChildState) { s.Running, s.PID = false, 0 })
	}
	return howItEnded(err, logTail(k.dir.Log(k.name), written, 3))
}

func (k keeper) stop(cmd *exec.Cmd, ended <-chan error) error {
	if err := send(cmd.Process, syscall.SIGTERM); err != nil {
		k.log.Error("child cannot be stopped", slog.String("child", k.name), slog.String("error", err.Error()))
	}
	timer := time.NewTimer(childGrace)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
	}
	k.log.Error("child took too long to stop and was killed", slog.String("child", k.name), slog.Duration("after", childGrace))
	if err := send(cmd.Process, syscall.SIGKILL); err != nil {
		k.log.Error("child cannot be killed", slog.String("child", k.name), slog.String("error", err.Error()))
	}
	return <-ended
}

func (k keeper) note(change func(*ChildState)) {
	err := k.board.update(func(s *State) {
		c := s.Children[k.name]
		change(&c)
		s.Children[k.name] = c
	})
	if err != nil {
		k.log.Error("state not written", slog.String("error", err.Error()))
	}
}

func howItEnded(err error, tail string) string {
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	if tail == "" {
		return how
	}
	return how + ": " + strings.TrimPrefix(tail, "error: ")
}
