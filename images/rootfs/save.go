package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// SaveArchive writes a docker-archive, as "docker load" and "ctr images import" take it, tagged with ref. Who reads the old file
// meanwhile keeps it whole.
func SaveArchive(file, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("image name %q: want name:tag, as in castellan:1.0: %w", ref, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // images are for everybody
		return fmt.Errorf("make output folder: %w", err)
	}
	half := file + ".half"
	if err := tarball.WriteToFile(half, tag, img); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", half, err), os.Remove(half))
	}
	if err := os.Rename(half, file); err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	return nil
}

// SaveLayout writes an OCI image layout that holds the index as ref, in place of the layout that was there.
func SaveLayout(dir, ref string, index v1.ImageIndex) error {
	half := dir + ".half"
	if err := errors.Join(mayReplace(dir), os.RemoveAll(half)); err != nil {
		return err
	}
	out, err := layout.Write(half, empty.Index)
	if err != nil {
		return fmt.Errorf("make image layout: %w", err)
	}
	if err := out.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": ref})); err != nil {
		return fmt.Errorf("write image layout: %w", err)
	}
	if err := errors.Join(os.RemoveAll(dir), os.Rename(half, dir)); err != nil {
		return fmt.Errorf("replace image layout: %w", err)
	}
	return nil
}

// mayReplace keeps us from deleting what is no image of ours.
func mayReplace(dir string) error {
	_, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "oci-layout"))
	}
	if err != nil {
		return fmt.Errorf("%s is there and is no image layout: remove it or choose another output folder: %w", dir, err)
	}
	return nil
}
