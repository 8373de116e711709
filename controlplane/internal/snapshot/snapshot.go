// Package snapshot saves a running control plane into one archive and makes a new data directory from such an archive.
// An archive holds every key of the control plane: whoever reads it owns the control plane. It is never written over an
// existing file, and nothing is ever restored over existing data.
package snapshot

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"castellan.dev/castellan/controlplane/internal/datadir"
)

const (
	// format is raised when an older restore could no longer read the archive.
	format       = 1
	manifestName = "manifest.json"
	etcdName     = "etcd.snapshot"
	maxManifest  = 1 << 20 // bytes
)

// Manifest is the first entry of an archive.
type Manifest struct {
	Format     int       `json:"format"`
	Created    time.Time `json:"created"`
	Kubernetes string    `json:"kubernetes"` // version that wrote the objects
	Etcd       string    `json:"etcd"`       // storage version of the snapshot
	Files      []File    `json:"files"`
}

// File is one entry of an archive.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// part is a file of a data directory that belongs into an archive.
type part struct {
	name     string
	path     string
	optional bool
}

// parts are the files beside etcd's snapshot without which the objects cannot be served, read or trusted.
func parts(dir datadir.Dir) []part {
	inPKI := []string{dir.CACert(), dir.CAKey(), dir.ServingCert(), dir.ServingKey(), dir.AdminCert(), dir.AdminKey(), dir.ServiceAccountKey(), dir.ServiceAccountPub(), dir.Encryption()}
	var out []part
	for _, path := range inPKI {
		out = append(out, part{name: "pki/" + filepath.Base(path), path: path})
	}
	// Clients know the port, so a control plane restored elsewhere keeps it.
	return append(out, part{name: filepath.Base(dir.PortFile()), path: dir.PortFile(), optional: true})
}

func describe(name, path string) (File, error) {
	f, err := os.Open(path) //nolint:gosec // a path of the data directory
	if err != nil {
		return File{}, fmt.Errorf("open %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", path, err)
	}
	return File{Name: name, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

func checkSuffix(path string) error {
	if strings.HasSuffix(path, ".tar.zst") || strings.HasSuffix(path, ".tar.gz") {
		return nil
	}
	return fmt.Errorf("%s: the name must end in .tar.zst or .tar.gz", path)
}

func compressor(path string, to io.Writer) (io.WriteCloser, error) {
	if strings.HasSuffix(path, ".tar.gz") {
		return gzip.NewWriter(to), nil
	}
	w, err := zstd.NewWriter(to)
	if err != nil {
		return nil, fmt.Errorf("set up zstd: %w", err)
	}
	return w, nil
}

func decompressor(path string, from io.Reader) (io.ReadCloser, error) {
	if strings.HasSuffix(path, ".tar.gz") {
		r, err := gzip.NewReader(from)
		if err != nil {
			return nil, fmt.Errorf("read gzip header of %s: %w", path, err)
		}
		return r, nil
	}
	r, err := zstd.NewReader(from)
	if err != nil {
		return nil, fmt.Errorf("read zstd header of %s: %w", path, err)
	}
	return r.IOReadCloser(), nil
}

func writeEntry(to *tar.Writer, file File, from io.Reader, modified time.Time) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: file.Name, Mode: 0o600, Size: file.Size, ModTime: modified}
	if err := to.WriteHeader(header); err != nil {
		return fmt.Errorf("write archive entry %s: %w", file.Name, err)
	}
	if _, err := io.Copy(to, from); err != nil {
		return fmt.Errorf("write archive entry %s: %w", file.Name, err)
	}
	return nil
}

// closeAll closes in order and reports everything that went wrong: a failed close is a truncated archive.
func closeAll(closers ...io.Closer) error {
	var errs []error
	for _, c := range closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
