// Package rootfs makes layers: which files an image holds, whose they are and with which mode.
//
// The same tree always gives the same bytes: entries are sorted and of one fixed time, and nothing of the machine that builds
// (user, umask, clock) gets in. It runs nothing and unpacks nothing onto this machine.
package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Owner is a user and its group, by number: an image brings its own names.
type Owner struct{ UID, GID int }

// Epoch is the time of every file, so that a layer tells its contents and not when it was built.
func Epoch() time.Time { return time.Unix(0, 0).UTC() }

// Tree is the files of one layer. Paths are slash-separated, without a leading slash. Folders that nobody named are root's and 0755.
// The first mistake is kept, and told by Layer.
type Tree struct {
	entries map[string]entry
	err     error
}

type entry struct {
	header tar.Header
	open   func() (io.ReadCloser, error) // of a regular file
}

// New returns an empty tree.
func New() *Tree { return &Tree{entries: map[string]entry{}} }

// Folder adds a folder; mode is as chmod takes it, 0o1777 for a sticky one.
func (t *Tree) Folder(name string, mode int64, owner Owner) {
	t.add(name, entry{header: tar.Header{Typeflag: tar.TypeDir, Mode: mode, Uid: owner.UID, Gid: owner.GID}})
}

// Bytes adds a file with that content.
func (t *Tree) Bytes(name string, content []byte, mode int64, owner Owner) {
	t.add(name, entry{
		header: tar.Header{Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(content)), Uid: owner.UID, Gid: owner.GID},
		open:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	})
}

// Text adds a file of root's that everybody may read.
func (t *Tree) Text(name, content string) { t.Bytes(name, []byte(content), 0o644, Owner{}) }

// Link adds a symbolic link.
func (t *Tree) Link(name, target string) {
	t.add(name, entry{header: tar.Header{Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: target}})
}

// File adds a file of this machine. It is read when the layer is made.
func (t *Tree) File(name, from string, mode int64, owner Owner) {
	info, err := os.Stat(from)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", from)
	}
	if err != nil {
		t.fail(fmt.Errorf("add /%s: %w", name, err))
		return
	}
	t.add(name, entry{
		header: tar.Header{Typeflag: tar.TypeReg, Mode: mode, Size: info.Size(), Uid: owner.UID, Gid: owner.GID},
		open:   func() (io.ReadCloser, error) { return os.Open(from) }, //nolint:gosec // what the user named is read
	})
}

// Tar adds what a tar holds, keeping modes but not owners or times. Place says where an entry goes; "" leaves it out.
func (t *Tree) Tar(in io.Reader, owner Owner, place func(name string) string) error {
	for r := tar.NewReader(in); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return t.err
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		from := path.Clean(header.Name)
		if !filepath.IsLocal(from) {
			return fmt.Errorf("refused: entry %q leads out of the tree", header.Name)
		}
		if name := place(from); name != "" {
			if err := t.take(r, header, name, owner, place); err != nil {
				return fmt.Errorf("entry %q: %w", header.Name, err)
			}
		}
	}
}

func (t *Tree) take(r io.Reader, header *tar.Header, name string, owner Owner, place func(string) string) error {
	mode := header.Mode & 0o777 // no setuid in an image of ours
	switch header.Typeflag {
	case tar.TypeDir:
		t.Folder(name, mode, owner)
	case tar.TypeSymlink:
		t.Link(name, header.Linkname)
	case tar.TypeReg:
		content, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		t.Bytes(name, content, mode, owner)
	case tar.TypeLink:
		target, there := t.entries[place(path.Clean(header.Linkname))]
		if !there {
			return fmt.Errorf("hard link to %q, which was left out", header.Linkname)
		}
		t.add(name, target)
	case tar.TypeXGlobalHeader:
	default:
		return fmt.Errorf("type %q: only files, folders and links can be in a layer", header.Typeflag)
	}
	return t.err
}

// Has says whether the tree holds that path.
func (t *Tree) Has(name string) bool {
	_, there := t.entries[name]
	return there
}

func (t *Tree) add(name string, e entry) {
	clean := path.Clean(name)
	if !filepath.IsLocal(clean) || clean == "." {
		if clean != "." || e.header.Typeflag != tar.TypeDir {
			t.fail(fmt.Errorf("%q is no path of a layer", name))
		}
		return
	}
	if old, there := t.entries[clean]; there && (old.header.Typeflag != tar.TypeDir || e.header.Typeflag != tar.TypeDir) {
		t.fail(fmt.Errorf("/%s is there twice", clean))
		return
	}
	e.header.Name = clean
	t.entries[clean] = e
}

func (t *Tree) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// Layer makes the layer, gzip-compressed and of OCI's media type.
func (t *Tree) Layer() (v1.Layer, error) { //nolint:ireturn // go-containerregistry has interfaces only
	if t.err != nil {
		return nil, t.err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		out, in := io.Pipe()
		go func() { in.CloseWithError(t.write(in)) }() // ends when the reader has read or closed
		return out, nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, fmt.Errorf("make layer: %w", err)
	}
	return layer, nil
}

func (t *Tree) write(to io.Writer) error {
	out := tar.NewWriter(to)
	all := t.withParents()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := all[name].write(out); err != nil {
			return fmt.Errorf("write /%s: %w", name, err)
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("end layer: %w", err)
	}
	return nil
}

func (t *Tree) withParents() map[string]entry {
	all := maps.Clone(t.entries)
	for name := range t.entries {
		for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
			if _, there := all[parent]; !there {
				all[parent] = entry{header: tar.Header{Typeflag: tar.TypeDir, Name: parent, Mode: 0o755}}
			}
		}
	}
	return all
}

func (e entry) write(out *tar.Writer) error {
	header := e.header
	header.ModTime = Epoch()
	if header.Typeflag == tar.TypeDir {
		header.Name += "/"
	}
	if err := out.WriteHeader(&header); err != nil {
		return err
	}
	if e.open == nil {
		return nil
	}
	in, err := e.open()
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, in.Close())
}

// Passwd is the /etc/passwd line of an account that nobody logs in to.
func Passwd(name string, owner Owner, home, shell string) string {
	return strings.Join([]string{name, "x", fmt.Sprint(owner.UID), fmt.Sprint(owner.GID), name, home, shell}, ":") + "\n"
}

// Group is the /etc/group line of a group.
func Group(name string, gid int) string { return fmt.Sprintf("%s:x:%d:\n", name, gid) }
