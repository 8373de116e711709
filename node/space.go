package node

import (
	"fmt"

	"golang.org/x/sys/unix"

	api "castellan.dev/castellan/api/v1alpha1"
)

// minFree is what a volume must have free for a start: the metadata log, indexes and the
// checkpoints need it before retention can free anything.
const minFree = 64 << 20

func freeBytes(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", path, err)
	}
	return st.Bavail * uint64(st.Bsize), nil //nolint:gosec // a block size is positive
}

// checkSpace of the volumes that can be read, and of the folder with the logs.
func (s *supervisor) checkSpace(found []api.VolumeStatus) error {
	paths := []string{s.dir}
	for i, v := range s.static.Volumes {
		if found[i].State != api.VolumeUnreadable {
			paths = append(paths, v.Path)
		}
	}
	for _, path := range paths {
		free, err := s.config.FreeBytes(path)
		if err != nil {
			return fail(ExitStorage, ReasonVolumeUnreadable, "%v: check the disk", err)
		}
		if free < minFree {
			return fail(ExitHost, ReasonDiskFull, "%s has %d bytes free, Kafka needs at least %d to start: free space there or enlarge the disk; nothing was touched", path, free, minFree)
		}
	}
	return nil
}
