// Package image writes container images of one static executable and says which names an image archive holds. There is no
// registry and no Docker in it.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	specs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Static is an image with nothing but executables.
type Static struct {
	Name       string            // as pods write it
	Files      map[string][]byte // executable files by path without leading slash
	Entrypoint []string
}

// manifest is one entry of manifest.json in what 'docker save' writes.
type manifest struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// WriteFile writes the image as an archive that 'docker load' and 'ctr images import' read.
func (s Static) WriteFile(path string) error {
	layer, err := tarOf(s.Files, 0o755)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(layer)
	config, err := json.Marshal(specs.Image{
		Platform: specs.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   specs.ImageConfig{Entrypoint: s.Entrypoint, User: "65532:65532"},
		RootFS:   specs.RootFS{Type: "layers", DiffIDs: digests(digest)},
		History:  []specs.History{{CreatedBy: "testkube"}},
	})
	if err != nil {
		return fmt.Errorf("encode the image %s: %w", s.Name, err)
	}
	configSum := sha256.Sum256(config)
	configName := hex.EncodeToString(configSum[:]) + ".json"
	list, err := json.Marshal([]manifest{{Config: configName, RepoTags: []string{s.Name}, Layers: []string{"layer.tar"}}})
	if err != nil {
		return fmt.Errorf("encode the image %s: %w", s.Name, err)
	}
	archive, err := tarOf(map[string][]byte{"manifest.json": list, configName: config, "layer.tar": layer}, 0o644)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		return fmt.Errorf("write the image %s: %w", s.Name, err)
	}
	return nil
}

func tarOf(files map[string][]byte, mode int64) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range sortedKeys(files) {
		header := &tar.Header{Name: name, Mode: mode, Size: int64(len(files[name])), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("write %s into an archive: %w", name, err)
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, fmt.Errorf("write %s into an archive: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("finish an archive: %w", err)
	}
	return out.Bytes(), nil
}

// Names lists the full image names in an archive of 'docker save' or of an OCI layout. An archive without any is an error:
// nobody could run it.
func Names(archive io.Reader) ([]string, error) {
	var names []string
	for r := tar.NewReader(archive); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read an image archive (an uncompressed tar is wanted): %w", err)
		}
		switch strings.TrimPrefix(header.Name, "./") {
		case "manifest.json":
			var list []manifest
			if err := json.NewDecoder(r).Decode(&list); err != nil {
				return nil, fmt.Errorf("read manifest.json: %w", err)
			}
			for _, m := range list {
				names = append(names, m.RepoTags...)
			}
		case specs.ImageIndexFile:
			var index specs.Index
			if err := json.NewDecoder(r).Decode(&index); err != nil {
				return nil, fmt.Errorf("read %s: %w", specs.ImageIndexFile, err)
			}
			names = append(names, ociNames(index)...)
		}
	}
	names = unique(names)
	if len(names) == 0 {
		return nil, errors.New("the archive names no image: save it with a tag (docker: RepoTags; OCI layout: annotation " + containerdName + ")")
	}
	return names, nil
}

// containerdName is the annotation from which containerd takes the full name of an image in an OCI layout.
const containerdName = "io.containerd.image.name"

func ociNames(index specs.Index) []string {
	var names []string
	for _, m := range index.Manifests {
		name := m.Annotations[containerdName]
		if name == "" {
			name = m.Annotations[specs.AnnotationRefName]
		}
		if strings.Contains(name, ":") {
			names = append(names, name)
		}
	}
	return names
}

// Names of the images that the test bed makes itself.
const (
	PauseName = "testkube.local/pause:1"
	DNSName   = "testkube.local/coredns:1"
)
