package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	// unified is where runc adds a group beside the controllers of version 1, without being asked.
	unified   = "unified"
	rmdirTry  = 100 * time.Millisecond
	cgroupDir = 0o755
)

// MakeCgroup makes a control group in every hierarchy of version 1.
func MakeCgroup(name string) error {
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		if filepath.Base(h) == unified {
			continue
		}
		dir := filepath.Join(h, name)
		if err := os.MkdirAll(dir, cgroupDir); err != nil {
			return fmt.Errorf("make the control group %s: %w", dir, err)
		}
		if filepath.Base(h) != "cpuset" {
			continue
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // empty at first, which lets no process in
			value, err := os.ReadFile(filepath.Join(h, file)) //nolint:gosec // a fixed place
			if err != nil {
				return fmt.Errorf("read %s: %w", file, err)
			}
			if err := os.WriteFile(filepath.Join(dir, file), value, 0o600); err != nil { //nolint:gosec // a group of ours
				return fmt.Errorf("set %s of %s: %w", file, dir, err)
			}
		}
	}
	return nil
}

// RemoveCgroup removes the group with all below from every hierarchy. Processes in it must be gone or going.
func RemoveCgroup(ctx context.Context, name string) error {
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		if err := removeTree(ctx, filepath.Join(h, name)); err != nil {
			return err
		}
	}
	return nil
}

// Cgroups lists the names of groups at the top of any hierarchy that match a pattern of [filepath.Match].
func Cgroups(pattern string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(cgroupRoot, "*", pattern))
	if err != nil {
		return nil, fmt.Errorf("look for control groups: %w", err)
	}
	for i, dir := range found {
		found[i] = filepath.Base(dir)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

func hierarchies() ([]string, error) {
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, fmt.Errorf("look for control groups: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(cgroupRoot, e.Name()))
		}
	}
	if len(dirs) == 0 || !slices.Contains(dirs, filepath.Join(cgroupRoot, "memory")) {
		return nil, fmt.Errorf("%s holds no hierarchies of control groups version 1, which this test bed needs", cgroupRoot)
	}
	return dirs, nil
}

// removeTree removes groups bottom up. A group whose last process is just ending is busy for a moment.
func removeTree(ctx context.Context, dir string) error {
	for {
		err := rmdirs(dir)
		if err == nil || !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("a process is still in a control group: see cgroup.procs below %s: %w", dir, err)
		case <-time.After(rmdirTry):
		}
	}
}

func rmdirs(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list control groups: %w", err)
	}
	for _, d := range slices.Backward(dirs) {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove the control group %s: %w", d, err)
		}
	}
	return nil
}
