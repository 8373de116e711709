package stand

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"castellan.dev/castellan/packages"
)

// buildTimeout is for an empty build cache.
const buildTimeout = 10 * time.Minute

// findPrograms finds what a test never builds itself, and builds what only these tests need.
func (k *Kubernetes) findPrograms(ctx context.Context) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	k.root = root
	bin := os.Getenv(EnvBin)
	if bin == "" {
		bin = filepath.Join(root, "bin")
	}
	for name, at := range map[string]*string{"testkube": &k.testkube, "helm": &k.helm, "castellan": &k.castellan} {
		*at = filepath.Join(bin, name)
		if _, err := os.Stat(*at); err != nil {
			return fmt.Errorf("%w: run `make e2e`, which builds it", err)
		}
	}
	k.client, k.images = filepath.Join(k.work, "client"), filepath.Join(k.work, "castellan-images")
	return errors.Join(
		k.build(ctx, ".", k.client, "./test/e2e/kube/client"),
		k.build(ctx, "images", k.images, "./cmd/castellan-images"),
	)
}

// build makes a static executable of a module.
func (k *Kubernetes) build(ctx context.Context, module, out, program string) error {
	made := command{
		program: "go", args: []string{"-C", filepath.Join(k.root, module), "build", "-o", out, program}, within: buildTimeout, env: []string{"CGO_ENABLED=0"},
	}.run(ctx)
	if made.Code != 0 {
		return fmt.Errorf("build %s: %s", program, made)
	}
	return nil
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the module's root: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		} else if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the module's root: %w", err)
		}
		dir = filepath.Dir(dir)
	}
}

// LoadKafka puts the image of another version of Kafka on every machine.
func (k *Kubernetes) LoadKafka(version string) {
	k.tb.Helper()
	tag := "kafka " + version
	if k.loaded[tag] {
		return
	}
	if err := k.loadKafka(k.tb.Context(), version); err != nil {
		k.tb.Fatal(err)
	}
	k.loaded[tag] = true
}

// loadKafka puts an image of Kafka on every machine. Castellan's own comes with [Kubernetes.LoadCastellan].
func (k *Kubernetes) loadKafka(ctx context.Context, version string) error {
	folder := os.Getenv(EnvImages)
	image := filepath.Join(folder, "kafka-"+version+".tar")
	_, missing := os.Stat(image) //nolint:gosec // who runs the test says where
	if folder == "" || errors.Is(missing, fs.ErrNotExist) {
		folder = filepath.Join(k.work, "images")
		archive, err := kafkaArchive(ctx, version)
		if err != nil {
			return err
		}
		made := command{program: k.images, args: []string{"kafka", "--version", version, "--archive", archive, "--out", folder}, within: buildTimeout}.run(ctx)
		if made.Code != 0 {
			return fmt.Errorf("make the image of Kafka: %s", made)
		}
		image = filepath.Join(folder, "kafka-"+version+".tar")
	}
	return k.load(ctx, image)
}

// kafkaArchive is Kafka as hosts run it.
func kafkaArchive(ctx context.Context, version string) (string, error) {
	dir, err := packages.DefaultDir()
	if err != nil {
		return "", fmt.Errorf("find the package store: %w", err)
	}
	catalog, err := packages.Builtin()
	if err != nil {
		return "", fmt.Errorf("read the built-in packages: %w", err)
	}
	spec, err := catalog.Find("Kafka", version)
	if err != nil {
		return "", fmt.Errorf("find Kafka %s: %w", version, err)
	}
	archive, err := (&packages.Store{Dir: dir}).Fetch(ctx, spec, nil)
	if err != nil {
		return "", fmt.Errorf("get Kafka %s: %w", version, err)
	}
	return archive.Path, nil
}

// load puts an image on every machine.
func (k *Kubernetes) load(ctx context.Context, archive string) error {
	if out := k.harness(ctx, loadTimeout, []string{"load", archive}); out.Code != 0 {
		return fmt.Errorf("load %s into the machines: %s", archive, out)
	}
	return nil
}

// LoadCastellan makes an image of bin/castellan with a tag of its own on every machine.
func (k *Kubernetes) LoadCastellan(tag string) {
	k.tb.Helper()
	if k.loaded[tag] {
		return
	}
	out := filepath.Join(k.work, tag)
	must(k.tb, command{program: k.images, args: []string{"castellan", "--version", tag, "--binary", "linux/amd64=" + k.castellan, "--out", out}}.run(k.tb.Context()))
	if err := k.load(k.tb.Context(), filepath.Join(out, "castellan-amd64.tar")); err != nil {
		k.tb.Fatal(err)
	}
	k.loaded[tag] = true
}
