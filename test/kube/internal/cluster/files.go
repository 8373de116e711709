package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	tailLines = 15
	tailBytes = 16 << 10
)

// InstallBinaries copies the two executables into the directory, so that a new build does not change a running cluster, and
// returns where the first is.
func InstallBinaries(d Dir) (string, error) {
	if err := makeDirs(d.path("bin")); err != nil {
		return "", err
	}
	link := d.path("bin", "kubectl")
	if err := remove(link); err != nil {
		return "", err
	}
	if err := os.Symlink("testkube", link); err != nil {
		return "", fmt.Errorf("link kubectl: %w", err)
	}
	return d.path("bin", "testkube"), installBinaries(d)
}

func installBinaries(d Dir) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find our own executable: %w", err)
	}
	for _, name := range []string{"testkube", "testkube-addons"} {
		from, to := filepath.Join(filepath.Dir(self), name), d.path("bin", name)
		if from == to {
			continue
		}
		if err := copyExecutable(from, to); err != nil {
			return fmt.Errorf("copy %s (both executables are built together and lie side by side): %w", name, err)
		}
	}
	return nil
}

func copyExecutable(from, to string) error {
	source, err := os.Open(from) //nolint:gosec // beside our own executable
	if err != nil {
		return err //nolint:wrapcheck // the caller says what for
	}
	defer source.Close() //nolint:errcheck // only read
	info, err := source.Stat()
	if err != nil {
		return err //nolint:wrapcheck // the caller says what for
	}
	if old, err := os.Stat(to); err == nil && old.Size() == info.Size() && old.ModTime().Equal(info.ModTime()) {
		return nil
	}
	draft, err := os.OpenFile(to+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755) //nolint:gosec // an executable
	if err != nil {
		return err //nolint:wrapcheck // the caller says what for
	}
	_, err = io.Copy(draft, source)
	if err := errors.Join(err, draft.Close()); err != nil {
		return err
	}
	if err := os.Chtimes(to+".new", info.ModTime(), info.ModTime()); err != nil {
		return err //nolint:wrapcheck // the caller says what for
	}
	return os.Rename(to+".new", to) //nolint:wrapcheck // the caller says what for
}

// writeJSON replaces a file at once, so that a reader sees the old or the new one.
func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o644); err != nil { //nolint:gosec // no secret is in it
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// tail returns the last lines of a log under its name, or nothing if there is none.
func tail(path string, lines int) string {
	f, err := os.Open(path) //nolint:gosec // a log of ours
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // only read
	if info, err := f.Stat(); err == nil && info.Size() > tailBytes {
		_, _ = f.Seek(-tailBytes, io.SeekEnd) // a failure shows more
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return ""
	}
	all := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return fmt.Sprintf("--- last lines of %s\n%s\n", path, bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

func remove(paths ...string) error {
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", path, err)
		}
	}
	return nil
}
