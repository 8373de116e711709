package packages

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// acquire takes the store's lock shared, so that nothing is pruned meanwhile, and the lock of that name alone, so
// that two processes do the same work once. The locks die with the process.
func (s *Store) acquire(ctx context.Context, name string, r *reporter) (release func(), err error) {
	if err := s.makeFolders(); err != nil {
		return nil, err
	}
	s.sweep()
	shared, err := flock(ctx, s.lockPath("store"), unix.LOCK_SH, func() { r.say("waiting for another process that prunes %s", s.Dir) })
	if err != nil {
		return nil, err
	}
	alone, err := flock(ctx, s.lockPath(name), unix.LOCK_EX, func() { r.say("waiting for another process that works on %s", name) })
	if err != nil {
		shared()
		return nil, err
	}
	return func() { alone(); shared() }, nil
}

// sweep removes what a killed process left half-done: whoever works in tmp holds the store's lock shared.
func (s *Store) sweep() {
	file, err := os.OpenFile(s.lockPath("store"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return
	}
	defer func() { _ = file.Close() }()
	if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = clearFolder(s.tmp())
	}
}

func (s *Store) lockPath(name string) string {
	return filepath.Join(s.Dir, "locks", name)
}

// flock waits for a lock on the file, and calls waiting once if it has to.
func flock(ctx context.Context, path string, how int, waiting func()) (release func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // to open what the caller or the store names is its task
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for attempt := 1; ; attempt++ {
		err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// The first failure may be somebody who sweeps, for a moment.
		if attempt == 2 {
			waiting()
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("wait for the lock %s: %w", path, context.Cause(ctx))
		case <-retry.C:
		}
	}
}
