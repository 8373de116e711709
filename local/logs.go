package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

const (
	logLimit     = 16 << 20 // bytes a log may have before its content moves to NAME.log.1
	logCheck     = 30 * time.Second
	logTailBytes = 8 << 10
)

// openLog opens a log for appending. Children write to the file itself, not to a pipe of
// the server, so that they outlive it.
func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600) //nolint:gosec // a log of the folder
	if err != nil {
		return nil, fmt.Errorf("open the log %s: %w", path, err)
	}
	return f, nil
}

// boundLogs keeps every log below about twice the limit until ctx ends.
func boundLogs(ctx context.Context, d Dir, names []string, failed func(error)) {
	ticker := time.NewTicker(logCheck)
	defer ticker.Stop()
	for {
		for _, name := range names {
			if err := boundLog(d.Log(name), logLimit); err != nil {
				failed(err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// boundLog copies a log that has grown beyond limit aside and empties it. Writers append,
// so they go on at its new start; lines written between copy and truncation are lost.
func boundLog(path string, limit int64) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() <= limit {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the log %s: %w", path, err)
	}
	data, err := os.ReadFile(path) //nolint:gosec // a log of the folder
	if err != nil {
		return fmt.Errorf("read the log %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		data = data[int64(len(data))-limit:]
	}
	if err := os.WriteFile(path+".1", data, 0o600); err != nil { //nolint:gosec // a log of the folder
		return fmt.Errorf("keep the old log: %w", err)
	}
	if err := os.Truncate(path, 0); err != nil {
		return fmt.Errorf("empty the log %s: %w", path, err)
	}
	return nil
}

// logSize is where a log ends now, for a later [logTail].
func logSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// logTail returns the last lines of a log that were written after from, at most n.
func logTail(path string, from int64, n int) string {
	f, err := os.Open(path) //nolint:gosec // a log of the folder
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	size := logSize(path)
	start := min(max(from, size-logTailBytes), size)
	data, err := io.ReadAll(io.NewSectionReader(f, start, size-start))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
