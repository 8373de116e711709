package packages

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// notice is part of the archive: changing it changes every digest.
const notice = `This package was assembled by Castellan from the Maven artifacts that LOCK lists, each unchanged.
Each jar in libs/ carries its own licence and notice under META-INF/; Apache Kafka and most of what it
needs is licensed under the Apache License, Version 2.0.
`

// WriteArchive writes the lock's package, an uncompressed tar, from a folder with the lock's jars, checking each
// against the lock. The bytes depend on the lock's entries and root only; not on clock, user, order or umask, nor on a
// compressor's version.
func (l Lock) WriteArchive(ctx context.Context, w io.Writer, jars string) error {
	out := tar.NewWriter(w)
	entries := slices.Clone(l.Entries)
	slices.SortFunc(entries, func(a, b LockEntry) int { return strings.Compare(a.File, b.File) })
	texts := []struct{ name, text string }{{"LOCK", l.entriesText()}, {"NOTICE", notice}}
	errs := []error{putFolder(out, l.Root)}
	for _, t := range texts {
		errs = append(errs, putFile(out, path.Join(l.Root, t.name), int64(len(t.text)), strings.NewReader(t.text)))
	}
	errs = append(errs, putFolder(out, path.Join(l.Root, "libs")))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, e := range entries {
		if err := l.putJar(ctx, out, e, jars); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("end archive: %w", err)
	}
	return nil
}

// putJar hashes the very bytes that it writes.
func (l Lock) putJar(ctx context.Context, out *tar.Writer, e LockEntry, jars string) error {
	file := filepath.Join(jars, e.File)
	in, err := os.Open(file) //nolint:gosec // to open what the caller or the store names is its task
	if err != nil {
		return fmt.Errorf("open jar: %w", err)
	}
	defer func() { _ = in.Close() }()
	h := sha256.New()
	if err := putFile(out, path.Join(l.Root, "libs", e.File), e.Size, io.TeeReader(ctxReader{ctx, in}, h)); err != nil {
		return err
	}
	if found := hex.EncodeToString(h.Sum(nil)); found != e.SHA256 {
		return &DigestError{File: file, Want: digestPrefix + e.SHA256, Found: digestPrefix + found, Remedy: "delete it and fetch again"}
	}
	return nil
}

func putFolder(out *tar.Writer, name string) error {
	err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	if err != nil {
		return fmt.Errorf("write folder %s: %w", name, err)
	}
	return nil
}

func putFile(out *tar.Writer, name string, size int64, from io.Reader) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
	if err := out.WriteHeader(header); err != nil {
		return fmt.Errorf("write file %s: %w", name, err)
	}
	written, err := io.Copy(out, from)
	if err == nil && written != size {
		err = fmt.Errorf("it has %d bytes, the lock says %d", written, size)
	}
	if err != nil {
		return fmt.Errorf("write file %s: %w", name, err)
	}
	return nil
}

// damaged compares a folder of jars with the lock.
func (l Lock) damaged(ctx context.Context, jars string) ([]error, error) {
	var bad []error
	for _, e := range l.Entries {
		file := filepath.Join(jars, e.File)
		found, err := hashFile(ctx, file)
		if err != nil {
			return nil, err
		}
		if found != e.SHA256 {
			bad = append(bad, &DigestError{
				File: e.Coordinates() + " as mvn gave it", Want: digestPrefix + e.SHA256, Found: digestPrefix + found,
				Remedy: "delete it from the local Maven repository and try again; if it stays, the repository that mvn uses serves another file than the lock names",
			})
		}
	}
	return bad, nil
}

func hashFile(ctx context.Context, file string) (string, error) {
	in, err := os.Open(file) //nolint:gosec // to open what the caller or the store names is its task
	if err != nil {
		return "", fmt.Errorf("open to check: %w", err)
	}
	defer func() { _ = in.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, ctxReader{ctx, in}); err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
