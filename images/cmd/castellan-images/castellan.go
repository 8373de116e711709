package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"castellan.dev/castellan/images/castellan"
	"castellan.dev/castellan/images/rootfs"
)

func castellanCommand() *cobra.Command {
	var (
		build     castellan.Build
		out, name string
		binaries  map[string]string
	)
	cmd := &cobra.Command{
		Use:   "castellan --version V --out DIR --binary linux/ARCH=PATH ...",
		Short: "Make Castellan's image of static binaries",
		Long: `Makes Castellan's image: no shell, user 65532, entrypoint /usr/bin/castellan. The same inputs give the same digest.

  DIR/castellan/          an OCI image layout: one index of all platforms, for any tool that pushes layouts
  DIR/castellan-ARCH.tar  one platform as a docker-archive, for "docker load" or "ctr -n k8s.io images import"

Each is tagged NAME:V. A NAME without a registry is what Kubernetes finds under the same NAME.`,
		Example: `  castellan-images castellan --version 1.0.0 --out dist --binary linux/amd64=dist/castellan-linux-amd64 \
    --binary linux/arm64=dist/castellan-linux-arm64 --doc LICENSE --doc NOTICE`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := platforms(build, binaries)
			if err != nil {
				return err
			}
			return saveAll(cmd, out, name+":"+build.Version, images)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&build.Version, "version", "", "version, which is the tag too")
	flags.StringVar(&build.Revision, "revision", "", "commit that was built, for the image's labels")
	flags.StringSliceVar(&build.Docs, "doc", nil, "file for /usr/share/doc/castellan, such as the licence; may be repeated")
	flags.StringToStringVar(&binaries, "binary", nil, "platform and its static binary, linux/amd64=PATH; may be repeated")
	flags.StringVar(&out, "out", "", "folder to write to")
	flags.StringVar(&name, "name", "castellan", "image name without tag")
	required(cmd, "version", "out", "binary")
	return cmd
}

func platforms(build castellan.Build, binaries map[string]string) ([]castellan.Image, error) {
	var images []castellan.Image
	for _, text := range slices.Sorted(maps.Keys(binaries)) {
		platform, err := v1.ParsePlatform(text)
		if err != nil {
			return nil, fmt.Errorf("platform %q: use linux/amd64 or linux/arm64: %w", text, err)
		}
		img, err := build.Image(*platform, binaries[text])
		if err != nil {
			return nil, err
		}
		images = append(images, castellan.Image{Platform: *platform, Image: img})
	}
	return images, nil
}

func saveAll(cmd *cobra.Command, out, ref string, images []castellan.Image) error {
	index, err := castellan.Index(images)
	if err != nil {
		return err
	}
	for _, i := range images {
		file := filepath.Join(out, "castellan-"+i.Platform.Architecture+".tar")
		if err := rootfs.SaveArchive(file, ref, i.Image); err != nil {
			return err
		}
		if err := say(cmd, file, ref, i.Platform); err != nil {
			return err
		}
	}
	dir := filepath.Join(out, "castellan")
	if err := rootfs.SaveLayout(dir, ref, index); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return fmt.Errorf("read digest of the index: %w", err)
	}
	return say(cmd, dir, ref, digest)
}
