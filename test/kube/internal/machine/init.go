package machine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Init is the first process of a machine. It waits until stdin ends, which says that the network is there, sets up mounts and
// host name, and supervises until it is killed. It returns only errors.
func Init(specFile string) error {
	spec, err := readSpec(specFile)
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return errors.New("not the first process of a machine: use 'testkube up'")
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return fmt.Errorf("wait for the network: %w", err)
	}
	if err := setUp(spec); err != nil {
		return fmt.Errorf("set up the machine %s: %w", spec.Hostname, err)
	}
	return supervise(spec.Processes)
}

func setUp(spec Spec) error {
	home, err := unix.Open(spec.Home, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", spec.Home, err)
	}
	defer unix.Close(home) //nolint:errcheck // a path descriptor
	if err := ownMounts(home); err != nil {
		return err
	}
	if err := hide(spec.Overlays); err != nil {
		return err
	}
	for _, b := range spec.Binds {
		from := filepath.Join(Home, b.From)
		for _, dir := range []string{from, b.To} {
			if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // containers of any user pass through
				return fmt.Errorf("make %s: %w", dir, err)
			}
		}
		if err := mount(from, b.To, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil {
		return fmt.Errorf("forward packets: %w", err)
	}
	return nil
}

// ownMounts makes the machine's mounts its own and gives it /proc, an empty /run and, below that, its Home.
func ownMounts(home int) error {
	// Private to this machine, but shared within: what the kubelet mounts must reach what runc made a namespace for.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	if err := mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{Home, "/run/netns", "/run/lock", "/run/tmp"} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as on any host
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	return mount(fmt.Sprintf("/proc/self/fd/%d", home), Home, "", unix.MS_BIND, "")
}

// hide puts an overlay over each directory whose paths are compiled into the programs that run here, so that machines neither
// share them nor leave anything on the host.
func hide(dirs []string) error {
	for i, dir := range dirs {
		upper, work := fmt.Sprintf("/run/overlay/%d/upper", i), fmt.Sprintf("/run/overlay/%d/work", i)
		for _, d := range []string{upper, work} {
			if err := os.MkdirAll(d, 0o755); err != nil { //nolint:gosec // as the directory it covers
				return fmt.Errorf("make %s: %w", d, err)
			}
		}
		if err := mount("overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+upper+",workdir="+work); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}
