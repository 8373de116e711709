package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// Starter starts machines that die with it. All are children of one thread that lives as long as the process, because the
// kernel's parent death signal goes out when the thread ends that started the child.
type Starter struct {
	calls chan func()
}

// NewStarter makes a starter. Its thread ends with the process.
func NewStarter() *Starter {
	s := &Starter{calls: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for call := range s.calls {
			call()
		}
	}()
	return s
}

// Machine is one that runs, or did.
type Machine struct {
	// Pid is that of the first process, as the host counts.
	Pid  int
	gate io.WriteCloser
	done chan struct{}
	err  error
}

// Start creates the namespaces and their first process, which waits in them until Release. binary is the executable that
// calls [Init] for the arguments "machine SPECFILE"; specFile is written.
func (s *Starter) Start(binary string, spec Spec, specFile, logFile string) (*Machine, error) {
	if err := spec.write(specFile); err != nil {
		return nil, err
	}
	const namespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC
	return s.start(exec.CommandContext(context.Background(), binary, "machine", specFile), namespaces, logFile) //nolint:gosec // our own executable
}

// StartNetwork creates a network namespace alone, held by a process that does nothing.
func (s *Starter) StartNetwork(logFile string) (*Machine, error) {
	return s.start(exec.CommandContext(context.Background(), "sleep", "infinity"), syscall.CLONE_NEWNET, logFile)
}

func (s *Starter) start(cmd *exec.Cmd, namespaces uintptr, logFile string) (*Machine, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // a path of the state directory
	if err != nil {
		return nil, fmt.Errorf("open the log of a machine: %w", err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	gate, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a machine: %w", err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TMPDIR=/run/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Setsid: true, Pdeathsig: syscall.SIGKILL}
	m := &Machine{gate: gate, done: make(chan struct{})}
	started := make(chan error)
	s.calls <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("create the namespaces of a machine (needs root): %w", err)
	}
	m.Pid = cmd.Process.Pid
	go func() {
		m.err = cmd.Wait()
		close(m.done)
	}()
	return m, nil
}

// Release lets the first process go on, once its network is in place.
func (m *Machine) Release() error {
	if err := m.gate.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("release the machine: %w", err)
	}
	return nil
}

// Done is closed when the machine is off; all its processes are gone then.
func (m *Machine) Done() <-chan struct{} { return m.done }

// PowerOff kills the first process, and with it everything. It returns when all processes are gone or ctx ends.
func (m *Machine) PowerOff(ctx context.Context) error {
	if err := syscall.Kill(m.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill pid %d: %w", m.Pid, err)
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the machine of pid %d has not ended: a process of it hangs in the kernel (see ps -o pid,stat,wchan): %w", m.Pid, ctx.Err())
	}
}
