package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const reapEvery = 10 * time.Second

// adopt lets process 1 of a container bury what it did not start: whatever a `kubectl exec`
// leaves running becomes its child. The returned function ends that.
func adopt(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		var before map[int]bool
		for pause(ctx, reapEvery) {
			now := zombies("/proc", os.Getpid())
			bury(before, now)
			before = now
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// bury waits for the dead that were dead already the last time. Our own children are waited
// for where they were started, at once.
func bury(before, now map[int]bool) {
	for pid := range now {
		if before[pid] {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // how it ended matters to nobody
		}
	}
}

// zombies are the dead children of a process.
func zombies(proc string, parent int) map[int]bool {
	found := map[int]bool{}
	files, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "stat"))
	if err != nil {
		return found
	}
	for _, file := range files {
		data, err := os.ReadFile(file) //nolint:gosec // the kernel's own table
		if err != nil {
			continue
		}
		// "pid (name) state ppid …", where the name may hold anything.
		rest := string(data[strings.LastIndexByte(string(data), ')')+1:])
		var state string
		var ppid int
		if n, err := fmt.Sscan(rest, &state, &ppid); n < 2 || err != nil || state != "Z" || ppid != parent {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			found[pid] = true
		}
	}
	return found
}
