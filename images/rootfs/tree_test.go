package rootfs_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/images/rootfs"
)

var nobody = rootfs.Owner{UID: 65534, GID: 65533}

// list reads a layer back: a line for each entry, in order.
func list(t *testing.T, tree *rootfs.Tree) []string {
	t.Helper()
	layer, err := tree.Layer()
	if err != nil {
		t.Fatal(err)
	}
	in, err := layer.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	var lines []string
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%c %s %#o %d:%d %d %q%s", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), content, h.Linkname))
	}
}

func TestALayerHoldsWhatWasAddedWithOwnersModesAndParents(t *testing.T) {
	tree := rootfs.New()
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("run"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree.File("usr/bin/program", file, 0o755, rootfs.Owner{})
	tree.Folder("tmp", 0o1777, rootfs.Owner{})
	tree.Folder("home/nobody", 0o700, nobody)
	tree.Text("etc/passwd", "root")
	tree.Link("bin", "usr/bin")
	want := []string{
		`2 bin 0777 0:0 0 ""usr/bin`,
		`5 etc/ 0755 0:0 0 ""`,
		`0 etc/passwd 0644 0:0 0 "root"`,
		`5 home/ 0755 0:0 0 ""`,
		`5 home/nobody/ 0700 65534:65533 0 ""`,
		`5 tmp/ 01777 0:0 0 ""`,
		`5 usr/ 0755 0:0 0 ""`,
		`5 usr/bin/ 0755 0:0 0 ""`,
		`0 usr/bin/program 0755 0:0 0 "run"`,
	}
	if diff := cmp.Diff(want, list(t, tree)); diff != "" {
		t.Errorf("layer (- want, + got):\n%s", diff)
	}
}

func TestTheOrderOfAddingMakesNoDifference(t *testing.T) {
	digest := func(names ...string) string {
		tree := rootfs.New()
		for _, name := range names {
			tree.Text(name, "text of "+name)
		}
		layer, err := tree.Layer()
		if err != nil {
			t.Fatal(err)
		}
		d, err := layer.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	one, other := digest("a", "b/c", "b/d", "e"), digest("e", "b/d", "a", "b/c")
	if one != other {
		t.Errorf("the same files give %s and, added in another order, %s", one, other)
	}
	if third := digest("a", "b/c", "b/d", "f"); third == one {
		t.Error("another file gives the same digest")
	}
}

func tarOf(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = "content of " + h.Name
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func same(name string) string { return name }

func TestATarIsTakenWithoutItsOwnersTimesAndSetuidBits(t *testing.T) {
	in := tarOf(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o700},
		tar.Header{Typeflag: tar.TypeReg, Name: "./bin/su", Mode: 0o4755, Uid: 7, Gid: 8, ModTime: rootfs.Epoch().AddDate(50, 0, 0)},
		tar.Header{Typeflag: tar.TypeLink, Name: "./bin/hard", Linkname: "./bin/su"},
		tar.Header{Typeflag: tar.TypeReg, Name: "./share/doc", Mode: 0o644},
	)
	tree := rootfs.New()
	err := tree.Tar(in, nobody, func(name string) string {
		if strings.HasPrefix(name, "share") {
			return ""
		}
		return name
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`5 bin/ 0755 0:0 0 ""`,
		`0 bin/hard 0755 65534:65533 0 "content of ./bin/su"`,
		`0 bin/su 0755 65534:65533 0 "content of ./bin/su"`,
	}
	if diff := cmp.Diff(want, list(t, tree)); diff != "" {
		t.Errorf("layer (- want, + got):\n%s", diff)
	}
}

func TestWhatCannotBeInALayerIsRefused(t *testing.T) {
	reg := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	for what, headers := range map[string][]tar.Header{
		"leads out of the tree": {reg("../etc/passwd")},
		"is there twice":        {reg("a"), reg("./a")},
		"left out":              {{Typeflag: tar.TypeLink, Name: "a", Linkname: "b"}},
		"only files":            {{Typeflag: tar.TypeChar, Name: "dev/null"}},
	} {
		if err := rootfs.New().Tar(tarOf(t, headers...), nobody, same); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("error %v, want one that says %q", err, what)
		}
	}
	tree := rootfs.New()
	tree.File("a", t.TempDir()+"/missing", 0o644, nobody)
	if _, err := tree.Layer(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("layer with a missing file: %v", err)
	}
}

func TestTheRootsAreThereInBothFormats(t *testing.T) {
	pem, err := rootfs.RootsPEM()
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(pem, []byte("BEGIN CERTIFICATE")); n < 100 {
		t.Errorf("%d root certificates, want Mozilla's hundred and more", n)
	}
	one, err := rootfs.RootsPKCS12()
	if err != nil {
		t.Fatal(err)
	}
	other, err := rootfs.RootsPKCS12()
	if err != nil || !bytes.Equal(one, other) {
		t.Errorf("trust store differs from one call to the next, or error %v", err)
	}
}
