package stand

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// onSmallDisk wraps a command that starts the server so that it, and all that it starts, see a small file system where
// the data goes. A mount namespace of its own needs no root, only a kernel that lets users have one.
func (s *Stand) onSmallDisk(program string, args []string) (wrapper string, wrapped []string) {
	if err := os.MkdirAll(s.dir.DataRoot(), 0o700); err != nil {
		s.tb.Fatalf("make the data folder: %v", err)
	}
	wrapped = []string{"--mount"}
	if os.Geteuid() != 0 {
		wrapped = append(wrapped, "--user", "--map-root-user")
	}
	script := fmt.Sprintf(`mount -t tmpfs -o size=%d,mode=700 tmpfs "$1" && shift && exec "$@"`, s.options.DataSize)
	wrapped = append(wrapped, "sh", "-c", script, "sh", s.dir.DataRoot(), program)
	return "unshare", append(wrapped, args...)
}

// DataSeen is the data folder as the stand's own processes see it, with [Options.DataSize].
func (s *Stand) DataSeen() string {
	s.tb.Helper()
	return filepath.Join("/proc", strconv.Itoa(s.MustPID(Server)), "root", s.dir.DataRoot())
}
