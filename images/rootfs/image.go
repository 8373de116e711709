package rootfs

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Part is one layer and the sentence that its history shows.
type Part struct {
	Tree *Tree
	What string
}

// Image stacks the parts, lowest first.
func Image(platform v1.Platform, config v1.Config, parts ...Part) (v1.Image, error) { //nolint:ireturn // go-containerregistry has interfaces only
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	file := &v1.ConfigFile{
		Architecture: platform.Architecture, OS: platform.OS, Variant: platform.Variant,
		Created: v1.Time{Time: Epoch()}, Config: config, RootFS: v1.RootFS{Type: "layers"},
	}
	img, err := mutate.ConfigFile(img, file)
	if err != nil {
		return nil, fmt.Errorf("set image config: %w", err)
	}
	for _, p := range parts {
		layer, err := p.Tree.Layer()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.What, err)
		}
		img, err = mutate.Append(img, mutate.Addendum{
			Layer: layer, MediaType: types.OCILayer,
			History: v1.History{Created: v1.Time{Time: Epoch()}, CreatedBy: "castellan-images: " + p.What},
		})
		if err != nil {
			return nil, fmt.Errorf("add layer, %s: %w", p.What, err)
		}
	}
	return img, nil
}
