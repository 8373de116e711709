package packages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Prune removes archives and trees that are not kept and were last asked for before that time, and whatever is
// damaged or half-done since before it. It waits until no process works on the store. It returns what it removed.
func (s *Store) Prune(ctx context.Context, keep []Digest, before time.Time) ([]Digest, error) {
	if err := s.makeFolders(); err != nil {
		return nil, err
	}
	release, err := flock(ctx, s.lockPath("store"), unix.LOCK_EX, func() {})
	if err != nil {
		return nil, err
	}
	defer release()
	var removed []Digest
	for _, d := range s.digests() {
		if slices.Contains(keep, d) || !s.olderThan(d, before) {
			continue
		}
		if err := s.remove(d); err != nil {
			return removed, err
		}
		removed = append(removed, d)
	}
	return removed, errors.Join(s.pruneRefs(), clearFolder(s.tmp()), removeOlder(filepath.Join(s.Dir, "damaged"), before))
}

// digests lists every digest of which there is an archive, a tree or a record.
func (s *Store) digests() []Digest {
	var all []Digest
	for _, folder := range []string{"archives", "unpacked", "records"} {
		entries, err := os.ReadDir(filepath.Join(s.Dir, folder))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if d, ok := digestOfName(strings.TrimSuffix(e.Name(), ".json")); ok {
				all = append(all, d)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *Store) olderThan(d Digest, before time.Time) bool {
	for _, path := range []string{s.archivePath(d), s.unpackedPath(d), s.recordPath(d)} {
		info, err := os.Lstat(path)
		if err == nil && !info.ModTime().Before(before) || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// remove first renames a tree away, so that a kill leaves no half of it.
func (s *Store) remove(d Digest) error {
	gone := filepath.Join(s.tmp(), d.name())
	err := os.Rename(s.unpackedPath(d), gone)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, path := range []string{gone, s.archivePath(d), s.recordPath(d)} {
		err = errors.Join(err, os.RemoveAll(path))
	}
	if err != nil {
		return fmt.Errorf("remove package %s: %w", d, err)
	}
	return nil
}

// pruneRefs removes references to archives that are gone.
func (s *Store) pruneRefs() error {
	entries, err := os.ReadDir(filepath.Join(s.Dir, "refs"))
	if err != nil {
		return fmt.Errorf("list references: %w", err)
	}
	var errs []error
	for _, e := range entries {
		text, err := os.ReadFile(s.refPath(e.Name()))
		d := Digest(strings.TrimSpace(string(text)))
		if _, gone := os.Lstat(s.recordPath(d)); err != nil || errors.Is(gone, fs.ErrNotExist) {
			errs = append(errs, os.Remove(s.refPath(e.Name())))
		}
	}
	return errors.Join(errs...)
}

func removeOlder(dir string, before time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	var errs []error
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().Before(before) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
