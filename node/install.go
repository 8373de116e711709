package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// InstallSupervisor copies this executable to dir/castellan, for the Kafka container of a
// pod to run. Whoever looks there sees the old one or the whole new one.
func InstallSupervisor(dir string) (err error) {
	const name = "castellan"
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open the own executable: %w", err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return fmt.Errorf("install the supervisor: %w; mount a volume there that user %d may write", err, os.Getuid())
	}
	if err := fill(to, from); err != nil {
		return errors.Join(fmt.Errorf("install the supervisor in %s: %w", dir, err), os.Remove(to.Name()))
	}
	if err := os.Rename(to.Name(), filepath.Join(dir, name)); err != nil {
		return errors.Join(fmt.Errorf("install the supervisor in %s: %w", dir, err), os.Remove(to.Name()))
	}
	return syncPath(dir)
}

// fill writes an executable for everybody and closes it.
func fill(to *os.File, from io.Reader) (err error) {
	defer func() { err = errors.Join(err, to.Close()) }()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	if err := to.Chmod(0o755); err != nil {
		return err
	}
	return to.Sync()
}
