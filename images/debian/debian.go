// Package debian brings the contents of Debian packages into a layer. It runs none of their scripts and installs nothing here.
package debian

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"castellan.dev/castellan/images/rootfs"
)

// Fetch returns the packages' files for amd64 in the order of names, downloading into cache what it lacks. What apt downloads
// it has verified; what lies in the cache is trusted.
func Fetch(ctx context.Context, cache string, names []string) ([]string, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // packages are public
		return nil, fmt.Errorf("make package cache: %w", err)
	}
	files := make([]string, 0, len(names))
	for _, name := range names {
		file, err := cached(cache, name)
		if err == nil && file == "" {
			if err = download(ctx, cache, name); err == nil {
				file, err = cached(cache, name)
			}
		}
		if err != nil {
			return nil, err
		}
		if file == "" {
			return nil, fmt.Errorf("apt-get downloaded no %s for amd64: put %s_*_amd64.deb into %s", name, name, cache)
		}
		files = append(files, file)
	}
	return files, nil
}

func cached(cache, name string) (string, error) {
	found, err := filepath.Glob(filepath.Join(cache, name+"_*_amd64.deb"))
	if err != nil {
		return "", fmt.Errorf("look into package cache: %w", err)
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	default:
		return "", fmt.Errorf("%s has several versions of %s: delete all but one of %s", cache, name, strings.Join(found, ", "))
	}
}

// download goes through a folder of its own, so that the cache never has half a package.
func download(ctx context.Context, cache, name string) error {
	tmp, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return fmt.Errorf("make download folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	cmd := exec.CommandContext(ctx, "apt-get", "download", "-qq", "-o", "Acquire::Retries=3", name+":amd64") //nolint:gosec // a fixed program; name is an argument
	cmd.Dir = tmp
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("download Debian package %s: %w: %s; run apt-get update and try again, or put %s_*_amd64.deb into %s",
			name, err, bytes.TrimSpace(text), name, cache)
	}
	found, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return fmt.Errorf("look for the downloaded package: %w", err)
	}
	for _, file := range found {
		if err := os.Rename(file, filepath.Join(cache, filepath.Base(file))); err != nil {
			return fmt.Errorf("keep the downloaded package: %w", err)
		}
	}
	return nil
}

// Unpack adds a package's files to the tree; place says where each goes, "" leaves it out.
func Unpack(ctx context.Context, t *rootfs.Tree, deb string, place func(name string) string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb) //nolint:gosec // a fixed program; deb is an argument
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("connect to dpkg-deb: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start dpkg-deb, which Debian's package dpkg brings: %w", err)
	}
	readErr := t.Tar(out, rootfs.Owner{}, place)
	_, _ = io.Copy(io.Discard, out) // dpkg-deb ends only when all is read; its own error tells what went wrong
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("read %s: %w: %s; delete it, it is fetched again", deb, err, bytes.TrimSpace(complaint.Bytes()))
	}
	if readErr != nil {
		return fmt.Errorf("unpack %s: %w", deb, readErr)
	}
	return nil
}

// MergeUsr puts what a package still has in /bin, /sbin, /lib and /lib64 below /usr, as every current Debian does.
func MergeUsr(name string) string {
	first, _, _ := strings.Cut(name, "/")
	switch first {
	case "bin", "sbin", "lib", "lib64":
		return "usr/" + name
	default:
		return name
	}
}

// LinkUsr adds the links that make the old places work.
func LinkUsr(t *rootfs.Tree) {
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		t.Folder("usr/"+name, 0o755, rootfs.Owner{})
		t.Link(name, "usr/"+name)
	}
}
