package packages

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// spareBytes stay free on the file system, for whoever else writes there.
const spareBytes = 64 << 20

// needSpace refuses to begin what the file system has no room for.
func (s *Store) needSpace(what string, size int64) error {
	free, err := s.freeBytes()
	if err != nil {
		return err
	}
	if need := size + spareBytes; free < need {
		return fmt.Errorf("no room to %s: the file system of %s has %s free, it takes %s; free some space, or choose another folder",
			what, s.Dir, inMiB(free), inMiB(need))
	}
	return nil
}

func (s *Store) freeBytes() (int64, error) {
	if s.free != nil {
		return s.free()
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.Dir, &st); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", s.Dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil //nolint:gosec // no file system has 8 EiB free
}

func inMiB(n int64) string {
	return fmt.Sprintf("%d MiB", n>>20)
}
