package packages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// verifyTree compares an unpacked tree with its manifest: every byte if full, else only what is there and how large. The
// error is fs.ErrNotExist if there is no tree and a *DamageError if it is wrong.
func (s *Store) verifyTree(ctx context.Context, d Digest, full bool) (manifest, error) {
	dir := s.unpackedPath(d)
	if _, err := os.Stat(dir); err != nil {
		return manifest{}, fmt.Errorf("package %s is not unpacked: %w", d, err)
	}
	m, err := readManifest(filepath.Join(dir, "manifest.json"), d)
	if err != nil {
		return manifest{}, err
	}
	v := &verification{dir: filepath.Join(dir, "files"), expected: map[string]bool{".": true}}
	for _, f := range m.Files {
		if err := v.file(ctx, f, full); err != nil {
			return manifest{}, err
		}
	}
	for _, l := range m.Links {
		v.link(l)
	}
	if err := v.additional(); err != nil {
		return manifest{}, err
	}
	if len(v.damage) > 0 {
		return manifest{}, &DamageError{Digest: d, Files: v.damage}
	}
	return m, nil
}

func readManifest(file string, d Digest) (manifest, error) {
	text, err := os.ReadFile(file) //nolint:gosec // to open what the caller or the store names is its task
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	var m manifest
	if text, err = unseal(text); err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil || m.Digest != d || !filepath.IsLocal(m.Root) {
		bad := &DigestError{File: file, Want: "the manifest of " + string(d), Found: "another text", Remedy: treeRemedy}
		return manifest{}, &DamageError{Digest: d, Files: []error{bad}}
	}
	return m, nil
}

type verification struct {
	dir      string
	expected map[string]bool
	damage   []error
}

func (v *verification) wrong(path, want, found string) {
	v.damage = append(v.damage, &DigestError{File: filepath.Join(v.dir, path), Want: want, Found: found, Remedy: treeRemedy})
}

// expect notes the path and the folders above it.
func (v *verification) expect(path string) {
	for ; !v.expected[path]; path = filepath.Dir(path) {
		v.expected[path] = true
	}
}

func (v *verification) file(ctx context.Context, f manifestFile, full bool) error {
	v.expect(f.Path)
	path := filepath.Join(v.dir, f.Path)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.wrong(f.Path, digestPrefix+f.SHA256, "no such file")
		return nil
	case err != nil:
		v.wrong(f.Path, digestPrefix+f.SHA256, err.Error())
		return nil
	case !info.Mode().IsRegular():
		v.wrong(f.Path, "a file", "a "+info.Mode().Type().String())
		return nil
	case info.Size() != f.Size:
		v.wrong(f.Path, fmt.Sprintf("%d bytes", f.Size), fmt.Sprintf("%d bytes", info.Size()))
		return nil
	case !full:
		return nil
	}
	found, err := hashFile(ctx, path)
	switch {
	case ctx.Err() != nil:
		return err
	case err != nil: // a disk that cannot read it back, for one
		v.wrong(f.Path, digestPrefix+f.SHA256, err.Error())
	case found != f.SHA256:
		v.wrong(f.Path, digestPrefix+f.SHA256, digestPrefix+found)
	}
	return nil
}

func (v *verification) link(l manifestLink) {
	v.expect(l.Path)
	if found, err := os.Readlink(filepath.Join(v.dir, l.Path)); err != nil || found != l.Target {
		v.wrong(l.Path, "a link to "+l.Target, fmt.Sprintf("%q", found))
	}
}

// additional finds what was never unpacked: a jar too many would be on the class path. Empty folders do no harm, and
// an archive may have them.
func (v *verification) additional() error {
	err := filepath.WalkDir(v.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(v.dir, path)
		if err != nil {
			return err
		}
		if !e.IsDir() && !v.expected[name] {
			v.wrong(name, "no such file", "one")
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its files are missing, which is already noted
	}
	if err != nil {
		return fmt.Errorf("walk unpacked tree: %w", err)
	}
	return nil
}
