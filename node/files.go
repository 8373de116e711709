package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"castellan.dev/castellan/core/layout"
)

func readJSON(file string, into any) error {
	data, err := os.ReadFile(file) //nolint:gosec // to read the files of its folder is the supervisor's task
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(file), err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(file), err)
	}
	return nil
}

// replaceFile writes a file for this user alone, so that a reader, or a power cut, sees the old or the new one.
func replaceFile(file string, content []byte) error {
	temp := file + ".new"
	if err := writeSynced(temp, content); err != nil {
		return err
	}
	if err := os.Rename(temp, file); err != nil {
		return fmt.Errorf("replace %s: %w", file, err)
	}
	return syncPath(filepath.Dir(file))
}

func writeSynced(file string, content []byte) (err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // a file of the supervisor's own folder
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(content); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

// syncPath makes a file, or the entries of a folder, survive a power cut.
func syncPath(path string) (err error) {
	f, err := os.Open(path) //nolint:gosec // a path of the node's own
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// live reads the live file; a missing one says nothing yet.
func (s *supervisor) live() (layout.Live, error) {
	var l layout.Live
	err := readJSON(s.liveFile(), &l)
	if errors.Is(err, fs.ErrNotExist) {
		return layout.Live{}, nil
	}
	return l, err
}

func (s *supervisor) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func writeJSON(file string, content any) error {
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(file), err)
	}
	return replaceFile(file, append(data, '\n'))
}

// syncTree makes a folder and all below it survive a power cut.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
		return syncPath(path)
	})
}

// readFrom reads a part of a file.
func readFrom(file string, at, most int64) (data []byte, err error) {
	f, err := os.Open(file) //nolint:gosec // a file of the supervisor's own folder
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.NewSectionReader(f, at, most))
}
