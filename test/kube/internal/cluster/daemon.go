package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// ReadyLine ends the progress of a daemon that came up.
	ReadyLine = "ready"

	downTimeout = 90 * time.Second
)

func (d Dir) configFile() string { return d.path("config.json") }

// Daemon runs a cluster until ctx ends, and leaves nothing. It writes its progress line by line; the last line of a good start
// is [ReadyLine], and then it closes progress.
func Daemon(ctx context.Context, d Dir, config Config, progress io.WriteCloser) error {
	if err := makeDirs(string(d)); err != nil {
		return err
	}
	lock, err := d.takeLock()
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // the process ends
	if err := forgetLast(ctx, d); err != nil {
		return err
	}
	if err := writeJSON(d.configFile(), config); err != nil {
		return err
	}
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(progress, format+"\n", args...) // whoever asked may have gone
	}
	c := New(d, config, slog.New(slog.NewTextHandler(os.Stderr, nil)), say)
	err = c.Start(ctx)
	if err == nil {
		say(ReadyLine)
		_ = progress.Close() // whoever asked may have gone
		err = c.Serve(ctx)
	}
	return errors.Join(err, c.Stop())
}

// forgetLast removes what a daemon that was killed has left on the host, under the name it had.
func forgetLast(ctx context.Context, d Dir) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	data, err := os.ReadFile(d.configFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var last Config
	if err := errors.Join(err, json.Unmarshal(data, &last)); err != nil {
		return fmt.Errorf("read %s (remove it to begin anew): %w", d.configFile(), err)
	}
	return cleanUp(ctx, d, last.Name)
}

// takeLock makes this process the only daemon of the directory, until it ends.
func (d Dir) takeLock() (*os.File, error) {
	lock, err := os.OpenFile(d.lock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close() // nothing was written
		return nil, fmt.Errorf("another testkube works in %s: wait, or end it with 'testkube down --dir %s': %w", d, d, err)
	}
	if err := errors.Join(lock.Truncate(0), writeAt(lock, strconv.Itoa(os.Getpid()))); err != nil {
		return nil, fmt.Errorf("write the lock: %w", err)
	}
	return lock, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err //nolint:wrapcheck // the caller says what for
}

// Down ends the daemon of a directory and all it runs, or cleans up after one that was killed. It returns when nothing is left.
func Down(ctx context.Context, d Dir) error {
	if _, err := os.Stat(d.lock()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	if pid, held := d.holder(); held && pid > 0 {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end the daemon, pid %d: %w", pid, err)
		}
	}
	if err := poll(ctx, downTimeout, func(context.Context) error {
		if pid, held := d.holder(); held {
			return fmt.Errorf("the daemon, pid %d, has not ended: see %s", pid, d.DaemonLog())
		}
		return nil
	}); err != nil {
		return err
	}
	return forgetLast(ctx, d)
}

// holder is who holds the lock.
func (d Dir) holder() (pid int, held bool) {
	lock, err := os.Open(d.lock())
	if err != nil {
		return 0, false
	}
	defer lock.Close() //nolint:errcheck // lets go of the lock
	if unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0, false
	}
	text, err := io.ReadAll(lock)
	if err != nil {
		return 0, true
	}
	pid, _ = strconv.Atoi(strings.TrimSpace(string(text))) // 0 is nobody; the caller waits
	return pid, true
}
