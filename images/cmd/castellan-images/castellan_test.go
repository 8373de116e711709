package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// program writes the smallest thing that is a Linux binary of that machine.
func program(t *testing.T, machine elf.Machine, parts ...elf.ProgType) string {
	t.Helper()
	head := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(parts)),
	}
	copy(head.Ident[:], elf.ELFMAG)
	head.Ident[elf.EI_CLASS], head.Ident[elf.EI_DATA], head.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	out := new(bytes.Buffer)
	errs := []error{binary.Write(out, binary.LittleEndian, head)}
	for _, p := range parts {
		errs = append(errs, binary.Write(out, binary.LittleEndian, elf.Prog64{Type: uint32(p)}))
	}
	file := filepath.Join(t.TempDir(), "program")
	// A developer's umask and a private file must not show in the image.
	if err := errors.Join(append(errs, os.WriteFile(file, out.Bytes(), 0o600))...); err != nil {
		t.Fatal(err)
	}
	return file
}

func castellanImages(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func mustMake(t *testing.T, args ...string) string {
	t.Helper()
	text, err := castellanImages(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// both are the arguments that make Castellan's image for two platforms.
func both(t *testing.T, out string) []string {
	t.Helper()
	licence := filepath.Join(t.TempDir(), "LICENSE")
	if err := os.WriteFile(licence, []byte("free"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{
		"castellan", "--version", "1.2.3", "--revision", "abc", "--out", out, "--doc", licence,
		"--binary", "linux/arm64=" + program(t, elf.EM_AARCH64), "--binary", "linux/amd64=" + program(t, elf.EM_X86_64),
	}
}

// files reads an image as a container would see it: a line for each path, without the content.
func files(t *testing.T, img v1.Image) map[string]string {
	t.Helper()
	in := mutate.Extract(img)
	defer func() { _ = in.Close() }()
	found := map[string]string{}
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimSuffix(h.Name, "/")] = fmt.Sprintf("%c%#o %d:%d%s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname)
	}
}

func config(t *testing.T, img v1.Image) *v1.ConfigFile {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func digest(t *testing.T, img interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestCastellansImageHoldsTheBinaryAnUnprivilegedUserAndNoShell(t *testing.T) {
	out := t.TempDir()
	mustMake(t, both(t, out)...)
	tag, err := name.NewTag("castellan:1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(filepath.Join(out, "castellan-arm64.tar"), &tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	const folder = "50755 0:0"
	want := map[string]string{
		"etc": folder, "etc/passwd": "00644 0:0", "etc/group": "00644 0:0", "etc/nsswitch.conf": "00644 0:0",
		"etc/ssl": folder, "etc/ssl/certs": folder, "etc/ssl/certs/ca-certificates.crt": "00644 0:0",
		"home": folder, "home/nonroot": "50700 65532:65532", "root": "50700 0:0", "tmp": "501777 0:0",
		"usr": folder, "usr/bin": folder, "usr/bin/castellan": "00755 0:0",
		"usr/share": folder, "usr/share/doc": folder, "usr/share/doc/castellan": folder, "usr/share/doc/castellan/LICENSE": "00644 0:0",
	}
	if diff := cmp.Diff(want, files(t, img)); diff != "" {
		t.Errorf("files (- want, + got):\n%s", diff)
	}
	wantConfig := v1.Config{
		User: "65532:65532", Entrypoint: []string{"/usr/bin/castellan"}, WorkingDir: "/",
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Labels: map[string]string{
			"org.opencontainers.image.title": "castellan", "org.opencontainers.image.version": "1.2.3",
			"org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.revision": "abc",
		},
	}
	c := config(t, img)
	if diff := cmp.Diff(wantConfig, c.Config); diff != "" || c.Architecture != "arm64" || c.OS != "linux" {
		t.Errorf("platform %s/%s, config (- want, + got):\n%s", c.OS, c.Architecture, diff)
	}
}

// indexIn reads the one index of a layout.
func indexIn(t *testing.T, dir string) (v1.ImageIndex, v1.Descriptor) { //nolint:ireturn // go-containerregistry has interfaces only
	t.Helper()
	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 1 {
		t.Fatalf("layout has %d entries, want the one index", len(m.Manifests))
	}
	index, err := top.ImageIndex(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return index, m.Manifests[0]
}

func TestTheLayoutHasOneIndexOfEveryPlatform(t *testing.T) {
	out := t.TempDir()
	mustMake(t, both(t, out)...)
	index, entry := indexIn(t, filepath.Join(out, "castellan"))
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	if ref := entry.Annotations["org.opencontainers.image.ref.name"]; ref != "castellan:1.2.3" {
		t.Errorf("the index is named %q", ref)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms, bases []string
	for _, d := range m.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		layers, err := img.Layers()
		if err != nil || len(layers) != 2 {
			t.Fatalf("%d layers, error %v; want one of base files and one of the binary", len(layers), err)
		}
		platforms = append(platforms, d.Platform.String()+" "+config(t, img).Architecture)
		bases = append(bases, digest(t, layers[0]))
	}
	if diff := cmp.Diff([]string{"linux/amd64 amd64", "linux/arm64 arm64"}, platforms); diff != "" {
		t.Errorf("platforms (- want, + got):\n%s", diff)
	}
	if bases[0] != bases[1] {
		t.Error("the platforms do not share the layer of base files")
	}
}

func TestTheSameInputsGiveTheSameBytesAndOthersDoNot(t *testing.T) {
	one, other := t.TempDir(), t.TempDir()
	args := both(t, one)
	mustMake(t, args...)
	mustMake(t, append(args, "--out", other)...)
	for _, file := range []string{"castellan-amd64.tar", "castellan-arm64.tar", "castellan/index.json"} {
		a, errA := os.ReadFile(filepath.Join(one, file))
		b, errB := os.ReadFile(filepath.Join(other, file))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs from one run to the next", file)
		}
	}
	before, _ := indexIn(t, filepath.Join(one, "castellan"))
	mustMake(t, append(args, "--version", "1.2.4")...) // over the old one
	after, _ := indexIn(t, filepath.Join(one, "castellan"))
	if digest(t, before) == digest(t, after) {
		t.Error("another version has the same digest, or the layout was not replaced")
	}
}

func TestABinaryThatCouldNotStartIsRefused(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ reason, binary, say string }{
		{"of another machine", "linux/arm64=" + program(t, elf.EM_X86_64), "build it with GOARCH=arm64"},
		{"linked dynamically", "linux/amd64=" + program(t, elf.EM_X86_64, elf.PT_INTERP), "build it with CGO_ENABLED=0"},
		{"a script", "linux/amd64=" + text, "no Linux binary"},
		{"of another system", "windows/amd64=" + text, "use linux/amd64 or linux/arm64"},
	} {
		_, err := castellanImages(t, "castellan", "--version", "1", "--out", t.TempDir(), "--binary", c.binary)
		if err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: error %v, want one that says %q", c.reason, err, c.say)
		}
	}
}

func TestAFolderThatIsNoLayoutIsLeftAlone(t *testing.T) {
	out := t.TempDir()
	mine := filepath.Join(out, "castellan", "mine")
	if err := errors.Join(os.Mkdir(filepath.Dir(mine), 0o700), os.WriteFile(mine, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err := castellanImages(t, both(t, out)...)
	if _, statErr := os.Stat(mine); err == nil || !strings.Contains(err.Error(), "is no image layout") || statErr != nil {
		t.Errorf("error %v; the file that was there: %v", err, statErr)
	}
}
