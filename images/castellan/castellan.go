// Package castellan makes the image of Castellan: one static binary that is operator, supervisor and command line, the
// certificates it trusts, an unprivileged user, and nothing else: no shell, no package manager, no C library.
package castellan

import (
	"debug/elf"
	"errors"
	"fmt"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"castellan.dev/castellan/images/rootfs"
)

// Binary is where the image has the program.
const Binary = "/usr/bin/castellan"

// Build is what the images of all platforms share.
type Build struct {
	Version string
	// Revision is the commit that was built; may be empty.
	Revision string
	// Docs are files (licence, notice) that go to /usr/share/doc/castellan.
	Docs []string
}

// Image makes the image of one platform around a static binary of it.
func (b Build) Image(platform v1.Platform, binary string) (v1.Image, error) { //nolint:ireturn // go-containerregistry has interfaces only
	if err := fits(binary, platform); err != nil {
		return nil, err
	}
	base, err := b.base()
	if err != nil {
		return nil, err
	}
	program := rootfs.New()
	program.File(Binary[1:], binary, 0o755, rootfs.Owner{})
	return rootfs.Image(platform, b.config(),
		rootfs.Part{Tree: base, What: "users, certificates, licence"},
		rootfs.Part{Tree: program, What: "castellan " + b.Version})
}

func (b Build) config() v1.Config {
	labels := map[string]string{
		"org.opencontainers.image.title":    "castellan",
		"org.opencontainers.image.version":  b.Version,
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
	if b.Revision != "" {
		labels["org.opencontainers.image.revision"] = b.Revision
	}
	return v1.Config{
		User:       "65532:65532", // numbers, for Kubernetes' runAsNonRoot cannot judge a name
		Entrypoint: []string{Binary},
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		WorkingDir: "/",
		Labels:     labels,
	}
}

// base is the same for every platform, and from release to release: a node that has one image need not fetch it for the next.
func (b Build) base() (*rootfs.Tree, error) {
	roots, err := rootfs.RootsPEM()
	if err != nil {
		return nil, err
	}
	root, nobody, nonroot := rootfs.Owner{}, rootfs.Owner{UID: 65534, GID: 65534}, rootfs.Owner{UID: 65532, GID: 65532}
	t := rootfs.New()
	t.Text("etc/passwd", rootfs.Passwd("root", root, "/root", "/sbin/nologin")+
		rootfs.Passwd("nobody", nobody, "/nonexistent", "/sbin/nologin")+
		rootfs.Passwd("nonroot", nonroot, "/home/nonroot", "/sbin/nologin"))
	t.Text("etc/group", rootfs.Group("root", 0)+rootfs.Group("nobody", nobody.GID)+rootfs.Group("nonroot", nonroot.GID))
	t.Text("etc/nsswitch.conf", "hosts: files dns\n")
	t.Bytes("etc/ssl/certs/ca-certificates.crt", roots, 0o644, root)
	t.Folder("home/nonroot", 0o700, nonroot)
	t.Folder("root", 0o700, root)
	t.Folder("tmp", 0o1777, root)
	for _, doc := range b.Docs {
		t.File("usr/share/doc/castellan/"+filepath.Base(doc), doc, 0o644, root)
	}
	return t, nil
}

// fits refuses what could not start in this image: a binary of another machine, or one that wants a dynamic linker.
func fits(binary string, platform v1.Platform) error {
	machines := map[string]elf.Machine{"linux/amd64": elf.EM_X86_64, "linux/arm64": elf.EM_AARCH64}
	want, known := machines[platform.OS+"/"+platform.Architecture]
	if !known {
		return fmt.Errorf("platform %s: use linux/amd64 or linux/arm64", platform)
	}
	file, err := elf.Open(binary)
	if err != nil {
		return fmt.Errorf("%s is no Linux binary: build it with GOOS=linux GOARCH=%s: %w", binary, platform.Architecture, err)
	}
	defer func() { _ = file.Close() }()
	if file.Machine != want {
		return fmt.Errorf("%s is for %s, not for %s: build it with GOARCH=%s", binary, file.Machine, platform, platform.Architecture)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is linked dynamically and the image has no C library: build it with CGO_ENABLED=0", binary)
		}
	}
	return nil
}

// Image is one platform's image.
type Image struct {
	Platform v1.Platform
	Image    v1.Image
}

// Index joins the platforms' images under one name.
func Index(images []Image) (v1.ImageIndex, error) { //nolint:ireturn // go-containerregistry has interfaces only
	if len(images) == 0 {
		return nil, errors.New("no image: name at least one binary")
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, i := range images {
		platform := i.Platform
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: i.Image, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	return index, nil
}
