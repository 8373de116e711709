package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"castellan.dev/castellan/core/layout"
)

// lockWait is how long a virtual machine whose supervisor was killed may take to vanish.
const lockWait = 15 * time.Second

// lockFile in the process's folder is held by the supervisor and handed on to the virtual
// machine, so that it is free only when both are gone.
const lockFile = "node.lock"

// lockFolder takes the lock of the process's folder.
func lockFolder(ctx context.Context, dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // a file of the supervisor's own folder
	if err != nil {
		return nil, fmt.Errorf("open the lock of %s: %w", dir, err)
	}
	if err := lock(ctx, file, dir); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// lockVolume locks the folder of a volume itself, so that nothing is written to it.
func lockVolume(ctx context.Context, v layout.Volume) (*os.File, error) {
	folder, err := os.Open(v.Path)
	if err != nil {
		return nil, fmt.Errorf("open volume %s: %w", v.Name, err)
	}
	if err := lock(ctx, folder, v.Path); err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	return folder, nil
}

func lock(ctx context.Context, file *os.File, what string) error {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", what, err)
		}
		if !pause(ctx, 100*time.Millisecond) {
			return fail(ExitBusy, ReasonAlreadyRunning, "another supervisor, or the Kafka that it started, still runs on %s: end it (castellan node and its java process) or wait", what)
		}
	}
}

// pause waits, and says whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
