package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// identity names a process beyond doubt: a pid alone is given again to others.
type identity struct {
	PID int `json:"pid"`
	// Ticks is the start time as the kernel counts it (proc(5), field 22 of stat).
	Ticks uint64 `json:"ticks"`
	Boot  string `json:"boot"`
}

func identify(pid int) (identity, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return identity{}, fmt.Errorf("read the kernel's boot id: %w", err)
	}
	ticks, err := startTicks(pid)
	if err != nil {
		return identity{}, err
	}
	return identity{PID: pid, Ticks: ticks, Boot: strings.TrimSpace(string(boot))}, nil
}

func startTicks(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("look at process %d: %w", pid, err)
	}
	// Field 2 is a name in parentheses that may hold anything.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the start time of process %d: %w", pid, err)
	}
	return ticks, nil
}

// alive says whether exactly this process still runs.
func (id identity) alive() bool {
	if id.PID <= 0 {
		return false
	}
	now, err := identify(id.PID)
	return err == nil && now == id
}

// end asks the process to end and forces it after grace. It takes hold of the process
// (a pidfd, see [os.FindProcess]) before it verifies it, so that no other one is ever hit.
func (id identity) end(ctx context.Context, grace time.Duration) error {
	process, err := os.FindProcess(id.PID)
	if err != nil {
		return fmt.Errorf("find process %d: %w", id.PID, err)
	}
	defer func() { _ = process.Release() }()
	if !id.alive() {
		return nil
	}
	if err := send(process, syscall.SIGTERM); err != nil {
		return err
	}
	// A caller in a hurry is no reason to cut an orderly stop short.
	graceful, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if id.awaitEnd(graceful) == nil {
		return nil
	}
	if err := send(process, syscall.SIGKILL); err != nil {
		return err
	}
	killed, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return id.awaitEnd(killed)
}

// awaitEnd returns when the process has ended. Only a parent can wait without asking again.
func (id identity) awaitEnd(ctx context.Context) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for id.alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d has not ended: %w", id.PID, ctx.Err())
		case <-ticker.C:
		}
	}
	return nil
}

func send(p *os.Process, s syscall.Signal) error {
	if err := p.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %s to process %d: %w", s, p.Pid, err)
	}
	return nil
}
