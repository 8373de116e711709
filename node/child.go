package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// child is a process that never outlives the supervisor.
type child struct {
	process *os.Process
	started time.Time
	done    chan struct{}
	// status once done is closed.
	status syscall.WaitStatus
}

// command is what a child runs.
type command struct {
	path   string
	args   []string
	env    []string
	dir    string
	output io.Writer
	// stdout gets the standard output where that is not to go to output.
	stdout io.Writer
	// held files stay open, and locked, as long as the child lives.
	held []*os.File
}

// outputWait bounds how long output is read after a child's end: a process that it started
// may hold the pipe.
const outputWait = 2 * time.Second

func start(c command) (*child, error) {
	cmd := exec.Command(c.path, c.args...) //nolint:gosec,noctx // ended by the stop rule, not by a context
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = c.env, c.dir, c.output, c.output
	if c.stdout != nil {
		cmd.Stdout = c.stdout
	}
	cmd.ExtraFiles = c.held
	cmd.WaitDelay = outputWait
	// It stays in the supervisor's process group: who kills the group kills both.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ch := &child{done: make(chan struct{})}
	begun := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread ends that started the child, so that
		// thread must live as long as the child: it waits for it and is never unlocked.
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			ch.process, ch.started = cmd.Process, time.Now()
		}
		begun <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // what matters of it is the status
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
			ch.status = status
		}
		close(ch.done)
	}()
	if err := <-begun; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.path, err)
	}
	return ch, nil
}

// signal asks a child that may have ended already.
func (c *child) signal(sig os.Signal) error {
	if err := c.process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", c.process.Pid, err)
	}
	return nil
}

// code is the exit code; 128+n for signal n.
func (c *child) code() int {
	if c.status.Signaled() {
		return 128 + int(c.status.Signal())
	}
	return c.status.ExitStatus()
}
