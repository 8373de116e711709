// Package csi is a CSI driver with volumes of real size: each is a file with an XFS file system, on the node where its first
// pod was scheduled. One process per node serves the driver, provisions and removes that node's volumes, and marks them for
// growth, as node-driver-registrar, external-provisioner --node-deployment and external-resizer do beside other drivers.
package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"
)

const (
	mebibyte = 1 << 20
	// minBytes is the smallest file system that mkfs.xfs makes.
	minBytes = 300 * mebibyte
)

// disk keeps the volumes of one node: one file each in one directory.
type disk struct {
	dir     string
	mounter mount.Interface
}

// rounded is the size that a request for so many bytes gets.
func rounded(bytes int64) int64 {
	return max(minBytes, (bytes+mebibyte-1)/mebibyte*mebibyte)
}

func (d disk) file(id string) (string, error) {
	if id == "" || id != filepath.Base(id) || strings.HasPrefix(id, ".") {
		return "", fmt.Errorf("%q is no volume id", id)
	}
	return filepath.Join(d.dir, id), nil
}

// create makes a volume, unless it is there already.
func (d disk) create(ctx context.Context, id string, bytes int64) error {
	path, err := d.file(id)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	draft := path + ".new"
	f, err := os.OpenFile(draft, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // file checked the id
	if err != nil {
		return fmt.Errorf("create the volume %s: %w", id, err)
	}
	if err := errors.Join(f.Truncate(bytes), f.Close()); err != nil {
		return fmt.Errorf("size the volume %s: %w", id, err)
	}
	if err := run(ctx, "mkfs.xfs", "-q", "-f", draft); err != nil {
		return err
	}
	if err := os.Rename(draft, path); err != nil {
		return fmt.Errorf("create the volume %s: %w", id, err)
	}
	return nil
}

func (d disk) remove(id string) error {
	path, err := d.file(id)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the volume %s: %w", id, err)
	}
	return nil
}

// mount shows a volume at target. A volume whose file is gone is an error and never a fresh one: its data was lost.
func (d disk) mount(id, target string) error {
	path, err := d.file(id)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("the volume %s is not on this node any more; its data is lost: %w", id, err)
	}
	return d.mountOnce(path, target, "xfs", "loop")
}

// bind shows a mounted volume at another place.
func (d disk) bind(source, target string, readOnly bool) error {
	options := []string{"bind"}
	if readOnly {
		options = append(options, "ro")
	}
	return d.mountOnce(source, target, "", options...)
}

func (d disk) mountOnce(source, target, kind string, options ...string) error {
	if err := os.MkdirAll(target, 0o750); err != nil {
		return fmt.Errorf("make the mount point: %w", err)
	}
	if mounted, err := d.mounter.IsMountPoint(target); err != nil {
		return fmt.Errorf("look at the mount point %s: %w", target, err)
	} else if mounted {
		return nil
	}
	if err := d.mounter.Mount(source, target, kind, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

func (d disk) unmount(target string) error {
	if err := mount.CleanupMountPoint(target, d.mounter, true); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// grow enlarges the file of a mounted volume and the file system in it, and returns the size it has then. It never shrinks.
func (d disk) grow(ctx context.Context, id, mountPoint string, bytes int64) (int64, error) {
	path, err := d.file(id)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("the volume %s is not on this node: %w", id, err)
	}
	bytes = max(rounded(bytes), info.Size())
	if err := os.Truncate(path, bytes); err != nil {
		return 0, fmt.Errorf("enlarge the volume %s: %w", id, err)
	}
	device, _, err := mount.GetDeviceNameFromMount(d.mounter, mountPoint)
	if err != nil {
		return 0, fmt.Errorf("find the device of %s: %w", mountPoint, err)
	}
	if err := run(ctx, "losetup", "-c", device); err != nil {
		return 0, err
	}
	return bytes, run(ctx, "xfs_growfs", mountPoint)
}

// usage is what statfs says of a mounted volume, in bytes and inodes.
type usage struct{ bytes, free, inodes, inodesFree int64 }

func usageOf(path string) (usage, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return usage{}, fmt.Errorf("read the usage of %s: %w", path, err)
	}
	return usage{
		bytes: int64(s.Blocks) * s.Bsize, free: int64(s.Bavail) * s.Bsize, //nolint:gosec // no disk has 2^63 bytes
		inodes: int64(s.Files), inodesFree: int64(s.Ffree), //nolint:gosec // nor inodes
	}, nil
}

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput() //nolint:gosec // fixed programs, checked paths
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
