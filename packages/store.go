package packages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Store keeps packages in a folder. Any number of processes may use it at once, and any of them may be killed at any
// moment: a file or tree appears under its digest only when it is complete.
//
//	archives/sha256-…   archives, as they were fetched or assembled
//	records/sha256-….json   what each archive is
//	refs/…   which archive a lock or a published checksum led to
//	unpacked/sha256-…/   files/ and the manifest of them
//	damaged/sha256-…   what failed its check, until the next prune
//	tmp/, locks/   work in progress
//
// Only Dir must be set.
type Store struct {
	Dir string
	// Mvn is the Maven client: "mvn" if empty.
	Mvn string
	// HTTP fetches archives: http.DefaultClient if nil.
	HTTP *http.Client
	// Idle ends a download that received nothing for so long: 30 s if zero.
	Idle time.Duration
	// Limits bound archives: DefaultLimits if zero.
	Limits Limits
	// Now dates the last use of an archive, which Prune looks at: time.Now if nil.
	Now func() time.Time

	free func() (int64, error) // tests
}

// CacheDirEnv overrides the folder of everything that all commands of one user share.
const CacheDirEnv = "CASTELLAN_CACHE"

// DefaultDir is the folder of the user's store: "packages" in $CASTELLAN_CACHE, else in "castellan" in the user's cache
// folder.
func DefaultDir() (string, error) {
	dir := os.Getenv(CacheDirEnv)
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder, set %s to choose one: %w", CacheDirEnv, err)
		}
		dir = filepath.Join(cache, "castellan")
	}
	abs, err := filepath.Abs(filepath.Join(dir, "packages"))
	if err != nil {
		return "", fmt.Errorf("find the package store in %s: %w", dir, err)
	}
	return abs, nil
}

func (s *Store) mvn() string {
	if s.Mvn != "" {
		return s.Mvn
	}
	return "mvn"
}

func (s *Store) client() *http.Client {
	if s.HTTP != nil {
		return s.HTTP
	}
	return http.DefaultClient
}

func (s *Store) idle() time.Duration {
	if s.Idle > 0 {
		return s.Idle
	}
	return 30 * time.Second
}

func (s *Store) limits() Limits {
	if s.Limits != (Limits{}) {
		return s.Limits
	}
	return DefaultLimits()
}

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Store) tmp() string { return filepath.Join(s.Dir, "tmp") }

func (s *Store) archivePath(d Digest) string  { return filepath.Join(s.Dir, "archives", d.name()) }
func (s *Store) recordPath(d Digest) string   { return filepath.Join(s.Dir, "records", d.name()+".json") }
func (s *Store) unpackedPath(d Digest) string { return filepath.Join(s.Dir, "unpacked", d.name()) }
func (s *Store) refPath(ref string) string    { return filepath.Join(s.Dir, "refs", ref) }

func (s *Store) makeFolders() error {
	if !filepath.IsAbs(s.Dir) {
		return fmt.Errorf("package store %q: want an absolute path", s.Dir)
	}
	for _, name := range []string{"archives", "records", "refs", "unpacked", "damaged", "tmp", "locks"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, name), 0o755); err != nil { //nolint:gosec // Kafka runs as another user and reads the trees
			return fmt.Errorf("make package store: %w", err)
		}
	}
	return nil
}

// Artifact returns the archive of that digest. It looks at the archive's size, not at its bytes; Fetch checks these.
func (s *Store) Artifact(d Digest) (Artifact, error) {
	text, err := os.ReadFile(s.recordPath(d))
	if err != nil {
		return Artifact{}, fmt.Errorf("package %s is not in the store: %w", d, err)
	}
	var a Artifact
	if text, err = unseal(text); err == nil {
		err = json.Unmarshal(text, &a)
	}
	if err != nil || a.Digest != d || !filepath.IsLocal(a.Root) {
		return Artifact{}, fmt.Errorf("record %s is damaged: fetch the package again: %w", s.recordPath(d), err)
	}
	a.Path = s.archivePath(d)
	info, err := os.Stat(a.Path)
	if err != nil {
		return Artifact{}, fmt.Errorf("package %s is not in the store: %w", d, err)
	}
	if info.Size() != a.Size {
		return Artifact{}, &DigestError{
			File: a.Path, Want: fmt.Sprintf("%d bytes", a.Size), Found: fmt.Sprintf("%d bytes", info.Size()),
			Remedy: "it must be fetched again",
		}
	}
	return a, nil
}

// Artifacts lists the archives in the store, by digest. Records that cannot be read are left out: what they told of
// is fetched again when it is asked for.
func (s *Store) Artifacts() ([]Artifact, error) {
	entries, err := os.ReadDir(filepath.Join(s.Dir, "archives"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list package store: %w", err)
	}
	var all []Artifact
	for _, e := range entries {
		if d, ok := digestOfName(e.Name()); ok {
			if a, err := s.Artifact(d); err == nil {
				all = append(all, a)
			}
		}
	}
	return all, nil
}

func digestOfName(name string) (Digest, bool) {
	if len(name) < len(digestPrefix) || name[:len(digestPrefix)] != "sha256-" {
		return "", false
	}
	d, err := ParseDigest(digestPrefix + name[len(digestPrefix):])
	return d, err == nil
}

// verifyArchive reads an archive that the store has and compares its digest. A record that is lost is written anew.
func (s *Store) verifyArchive(ctx context.Context, spec Spec, d Digest) (Artifact, error) {
	file := s.archivePath(d)
	sum, err := hashFile(ctx, file)
	if err != nil {
		return Artifact{}, err
	}
	if found := Digest(digestPrefix + sum); found != d {
		return Artifact{}, &DigestError{File: file, Want: string(d), Found: string(found), Remedy: "it must be fetched again"}
	}
	a, err := s.Artifact(d)
	if err != nil {
		return s.record(ctx, spec, file, d)
	}
	a.Product, a.Version = spec.Product, spec.Version
	return a, nil
}

// record looks into an archive and writes down what it is.
func (s *Store) record(ctx context.Context, spec Spec, file string, d Digest) (Artifact, error) {
	c, err := inspect(ctx, spec, file, d, s.limits())
	if err != nil {
		return Artifact{}, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return Artifact{}, fmt.Errorf("look at archive: %w", err)
	}
	a := Artifact{
		Product: spec.Product, Version: spec.Version, Digest: d, Path: s.archivePath(d),
		Size: info.Size(), UnpackedSize: c.size, Root: c.root,
	}
	text, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return Artifact{}, fmt.Errorf("write record: %w", err)
	}
	return a, s.writeFile(s.recordPath(d), seal(text))
}

// setAside moves what is damaged out of the way, where the next prune removes it.
func (s *Store) setAside(path string) error {
	aside := filepath.Join(s.Dir, "damaged", filepath.Base(path))
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("make room for damaged %s: %w", path, err)
	}
	if err := os.Rename(path, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set damaged %s aside: %w", path, err)
	}
	return nil
}

// writeFile writes a small file so that it is there whole or not at all.
func (s *Store) writeFile(path string, text []byte) error {
	f, err := os.CreateTemp(s.tmp(), "file-")
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("put %s in place: %w", path, err)
	}
	return syncFolder(filepath.Dir(path))
}

// seal ends a text with its own digest, for the store's notes about archives and trees.
func seal(text []byte) []byte {
	h := sha256.Sum256(text)
	return fmt.Appendf(text, "\n%s%x\n", digestPrefix, h)
}

func unseal(sealed []byte) ([]byte, error) {
	end := bytes.LastIndex(sealed, []byte("\n"+digestPrefix))
	if end < 0 || !bytes.Equal(seal(bytes.Clone(sealed[:end])), sealed) {
		return nil, errors.New("the text does not match the digest at its end")
	}
	return sealed[:end], nil
}

// syncFolder makes a rename in it survive a power loss.
func syncFolder(dir string) error {
	f, err := os.Open(dir) //nolint:gosec // to open what the caller or the store names is its task
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

func clearFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
