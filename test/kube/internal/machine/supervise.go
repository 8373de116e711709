package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	firstPause = 500 * time.Millisecond
	lastPause  = 5 * time.Second
	// maxRestarts bounds a process that never stays up: after it, the log says so and the process stays down.
	maxRestarts = 100
	// longRun is how long a process must live to count as up.
	longRun  = time.Minute
	afterTry = 200 * time.Millisecond
)

// reaper is the only one in this process who waits for children: orphans of the machine become its children too, and would
// be zombies for ever otherwise.
type reaper struct {
	mu    sync.Mutex
	wants map[int]chan syscall.WaitStatus
}

func supervise(processes []Process) error {
	r := &reaper{wants: map[int]chan syscall.WaitStatus{}}
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	for _, p := range processes {
		go r.keep(p)
	}
	for range died {
		r.reap()
	}
	return errors.New("no more signals")
}

func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if want, ok := r.wants[pid]; ok {
			delete(r.wants, pid)
			want <- status
		}
	}
}

// keep runs p again and again.
func (r *reaper) keep(p Process) {
	pause := firstPause
	for restarts := 0; restarts < maxRestarts; restarts++ {
		for _, address := range p.After {
			awaitListener(address)
		}
		begun := time.Now()
		ended, err := r.run(p)
		if time.Since(begun) > longRun {
			pause, restarts = firstPause, 0
		}
		if err != nil {
			ended = err.Error()
		}
		fmt.Fprintf(os.Stderr, "%s %s ended after %s: %s; it is started again in %s\n",
			begun.Format(time.RFC3339), p.Name, time.Since(begun).Round(time.Millisecond), ended, pause)
		time.Sleep(pause)
		pause = min(2*pause, lastPause)
	}
	fmt.Fprintf(os.Stderr, "%s ended %d times in a row and stays down: see %s\n", p.Name, maxRestarts, p.Log)
}

func awaitListener(address string) {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	dialer := &net.Dialer{Timeout: time.Second}
	for {
		conn, err := dialer.DialContext(context.Background(), network, address)
		if err == nil {
			_ = conn.Close()
			return
		}
		time.Sleep(afterTry)
	}
}

// run starts p and returns how it ended.
func (r *reaper) run(p Process) (string, error) {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return "", fmt.Errorf("open its log: %w", err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	null, err := os.Open(os.DevNull)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close() //nolint:errcheck // only read
	ended, err := r.fork(p, []uintptr{null.Fd(), log.Fd(), log.Fd()})
	if err != nil {
		return "", err
	}
	status := <-ended
	if status.Signaled() {
		return "killed by " + status.Signal().String(), nil
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus()), nil
}

// fork holds the lock from before the start until the pid is known, so that a child which ends at once is not missed.
func (r *reaper) fork(p Process, files []uintptr) (<-chan syscall.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	path := p.Args[0]
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("%s is no absolute path", path)
	}
	pid, err := syscall.ForkExec(path, p.Args, &syscall.ProcAttr{ //nolint:gosec // what the machine is made of
		Dir: "/", Env: append(os.Environ(), p.Env...), Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	ended := make(chan syscall.WaitStatus, 1)
	r.wants[pid] = ended
	return ended, nil
}
