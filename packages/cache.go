package packages

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// findCached turns a cache folder into the archive in it: a file with a .sha512 beside it, or an archive of a store.
func findCached(folder string, spec Spec) (Source, error) {
	if _, err := os.Stat(folder); err != nil {
		return Source{}, fmt.Errorf("open cache folder: %w", err)
	}
	names := cachedNames(spec)
	for _, name := range names {
		file := filepath.Join(folder, name)
		if _, err := os.Stat(file); err != nil {
			continue
		}
		return cachedFile(file)
	}
	if source, ok, err := findStored(folder, spec); err != nil || ok {
		return source, err
	}
	return Source{}, fmt.Errorf("it has no %s: put one of %s and its .sha512 there", spec.title(), strings.Join(names, ", "))
}

// cachedNames are the names under which people keep archives: ours and, for Kafka, Apache's.
func cachedNames(spec Spec) []string {
	stems := []string{strings.ToLower(spec.Product)}
	if spec.Product != stems[0] {
		stems = append(stems, spec.Product)
	}
	if spec.Product == "Kafka" {
		stems = append(stems, "kafka_2.13")
	}
	var names []string
	for _, stem := range stems {
		for _, ext := range []string{".tgz", ".tar.gz", ".tar.zst", ".tar"} {
			names = append(names, stem+"-"+spec.Version+ext)
		}
	}
	return names
}

func cachedFile(file string) (Source, error) {
	text, err := os.ReadFile(file + ".sha512") //nolint:gosec // to open what the caller or the store names is its task
	if errors.Is(err, fs.ErrNotExist) {
		return Source{}, fmt.Errorf("%s has no %s beside it: put the published checksum file there", file, filepath.Base(file)+".sha512")
	}
	if err != nil {
		return Source{}, fmt.Errorf("read checksum file: %w", err)
	}
	sum, err := ParseChecksum(string(text), filepath.Base(file))
	if err != nil {
		return Source{}, err
	}
	return Source{URL: file, SHA512: sum}, nil
}

// findStored reads another store without writing to it.
func findStored(folder string, spec Spec) (Source, bool, error) {
	other := Store{Dir: folder}
	all, err := other.Artifacts()
	if err != nil {
		return Source{}, false, err
	}
	for _, a := range all {
		if a.Product != spec.Product || a.Version != spec.Version || spec.Digest != "" && a.Digest != spec.Digest {
			continue
		}
		return Source{URL: a.Path, SHA256: strings.TrimPrefix(string(a.Digest), digestPrefix)}, true, nil
	}
	return Source{}, false, nil
}
