package packages

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// manifest lists what an unpacked tree must be, no more and no less.
type manifest struct {
	Digest Digest         `json:"digest"`
	Root   string         `json:"root"`
	Files  []manifestFile `json:"files"`
	Links  []manifestLink `json:"links,omitempty"`
}

type manifestFile struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

type manifestLink struct {
	Path   string `json:"path"`
	Target string `json:"target"`
}

// DamageError says that an unpacked tree is not what was unpacked.
type DamageError struct {
	Digest Digest
	// Files are [*DigestError], one per file that is changed, missing or too much.
	Files []error
}

func (e *DamageError) Error() string {
	const shown = 3
	var b strings.Builder
	fmt.Fprintf(&b, "the unpacked package %s is damaged: ", e.Digest)
	for i, err := range e.Files[:min(shown, len(e.Files))] {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	if more := len(e.Files) - shown; more > 0 {
		fmt.Fprintf(&b, "; and %d more files", more)
	}
	return b.String()
}

// Unwrap returns the damages.
func (e *DamageError) Unwrap() []error { return e.Files }

const treeRemedy = "it must be unpacked again"

// Provide returns the package as an intact unpacked tree, whatever that takes: it fetches what is missing and replaces what is
// damaged, and says so in the tree's Repaired. It reads every byte of the tree: call it before a process is first started
// from it.
func (s *Store) Provide(ctx context.Context, spec Spec, progress Progress) (Provided, error) {
	if err := spec.Validate(); err != nil {
		return Provided{}, err
	}
	r := report(progress)
	defer r.stop()
	var repaired []string
	for _, d := range s.known(spec) {
		tree, damage, err := s.intact(ctx, d, r)
		if err != nil {
			return Provided{}, err
		}
		if damage != "" {
			repaired = append(repaired, damage)
		}
		if tree.Digest != "" {
			return Provided{Tree: tree, Repaired: repaired}, nil
		}
	}
	a, damage, err := s.fetch(ctx, spec, r)
	if err != nil {
		return Provided{}, err
	}
	if damage != "" {
		repaired = append(repaired, damage)
	}
	tree, err := s.unpack(ctx, a.Digest, r)
	if err != nil {
		return Provided{}, err
	}
	return Provided{Tree: tree, Repaired: repaired}, nil
}

// Provided is what Provide made sure of.
type Provided struct {
	Tree
	// Repaired are sentences on the damage that was found and repaired: what was expected and found, and in which file.
	Repaired []string
}

// intact checks a tree if there is one, and sets it aside, saying why, if it is damaged.
func (s *Store) intact(ctx context.Context, d Digest, r *reporter) (tree Tree, damage string, err error) {
	if _, err := os.Lstat(s.unpackedPath(d)); err != nil {
		return Tree{}, "", nil
	}
	release, err := s.acquire(ctx, d.name(), r)
	if err != nil {
		return Tree{}, "", err
	}
	defer release()
	r.say("checking the unpacked package %s", d)
	m, err := s.verifyTree(ctx, d, true)
	if bad, ok := errors.AsType[*DamageError](err); ok {
		r.say("%v", bad)
		return Tree{}, bad.Error() + "; it was replaced", s.setAside(s.unpackedPath(d))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Tree{}, "", nil
	}
	if err != nil {
		return Tree{}, "", err
	}
	return s.tree(m), "", s.touch(s.unpackedPath(d))
}

// VerifyUnpacked reads every file of the unpacked tree and compares it with the manifest written when it was unpacked. It fails
// with a [*DamageError] that names each changed, missing or additional file; Provide replaces such a tree. If the package was
// never unpacked, the error is fs.ErrNotExist.
func (s *Store) VerifyUnpacked(ctx context.Context, d Digest) error {
	_, err := s.verifyTree(ctx, d, true)
	return err
}

// Intact returns the unpacked tree of an archive that is in the store, with every byte of it checked; a damaged tree is
// replaced from the archive, and Repaired says so. Unlike Provide it fetches nothing.
func (s *Store) Intact(ctx context.Context, d Digest, progress Progress) (Provided, error) {
	r := report(progress)
	defer r.stop()
	if _, err := ParseDigest(string(d)); err != nil {
		return Provided{}, err
	}
	tree, damage, err := s.intact(ctx, d, r)
	if err != nil {
		return Provided{}, err
	}
	var repaired []string
	if damage != "" {
		repaired = append(repaired, damage)
	}
	if tree.Digest == "" {
		if tree, err = s.unpack(ctx, d, r); err != nil {
			return Provided{}, err
		}
	}
	return Provided{Tree: tree, Repaired: repaired}, nil
}

// Unpack unpacks the archive of that digest, once; a tree that is there is only looked at (sizes, not bytes). A damaged archive is set
// aside and the error is a [*DigestError]: fetch it again.
func (s *Store) Unpack(ctx context.Context, d Digest, progress Progress) (Tree, error) {
	r := report(progress)
	defer r.stop()
	return s.unpack(ctx, d, r)
}

func (s *Store) unpack(ctx context.Context, d Digest, r *reporter) (Tree, error) {
	if _, err := ParseDigest(string(d)); err != nil {
		return Tree{}, err
	}
	release, err := s.acquire(ctx, d.name(), r)
	if err != nil {
		return Tree{}, err
	}
	defer release()
	m, err := s.verifyTree(ctx, d, false)
	if err == nil {
		return s.tree(m), s.touch(s.unpackedPath(d))
	}
	var bad *DamageError
	switch {
	case errors.As(err, &bad):
		r.say("%v", bad)
		if err := s.setAside(s.unpackedPath(d)); err != nil {
			return Tree{}, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return Tree{}, err
	}
	return s.unpackArchive(ctx, d, r)
}

func (s *Store) unpackArchive(ctx context.Context, d Digest, r *reporter) (Tree, error) {
	a, err := s.Artifact(d)
	if err == nil {
		err = s.needSpace("unpack "+a.Product+" "+a.Version, a.UnpackedSize)
	}
	if err != nil {
		return Tree{}, s.unusable(d, err)
	}
	r.say("unpacking %s %s (%s)", a.Product, a.Version, inMiB(a.UnpackedSize))
	folder, err := os.MkdirTemp(s.tmp(), "unpack-")
	if err != nil {
		return Tree{}, fmt.Errorf("make folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	m, err := extract(ctx, a, filepath.Join(folder, "files"), s.limits(), r)
	if err != nil {
		return Tree{}, s.unusable(d, fmt.Errorf("unpack %s %s: %w", a.Product, a.Version, err))
	}
	if err := s.place(folder, m); err != nil {
		return Tree{}, err
	}
	return s.tree(m), nil
}

// unusable sets the archive aside if it is what failed.
func (s *Store) unusable(d Digest, err error) error {
	if _, ok := errors.AsType[*DigestError](err); ok {
		return errors.Join(err, s.setAside(s.archivePath(d)))
	}
	return err
}

// place makes a finished tree appear under its digest, in one step.
func (s *Store) place(folder string, m manifest) error {
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := s.writeFile(filepath.Join(folder, "manifest.json"), seal(text)); err != nil {
		return err
	}
	if err := os.Chmod(folder, 0o755); err != nil { //nolint:gosec // Kafka runs as another user
		return fmt.Errorf("make tree readable: %w", err)
	}
	if err := os.Rename(folder, s.unpackedPath(m.Digest)); err != nil {
		return fmt.Errorf("put tree in place: %w", err)
	}
	return syncFolder(filepath.Dir(s.unpackedPath(m.Digest)))
}

func (s *Store) tree(m manifest) Tree {
	return Tree{Digest: m.Digest, Dir: filepath.Join(s.unpackedPath(m.Digest), "files", m.Root)}
}

// extraction writes below one folder; os.Root lets nothing out of it even if a check had a hole.
type extraction struct {
	root  *os.Root
	m     manifest
	done  int64
	total int64
	r     *reporter
}

func extract(ctx context.Context, a Artifact, dir string, limits Limits, r *reporter) (manifest, error) {
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // Kafka runs as another user
		return manifest{}, fmt.Errorf("make folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return manifest{}, fmt.Errorf("open folder: %w", err)
	}
	defer func() { _ = root.Close() }()
	x := &extraction{root: root, m: manifest{Digest: a.Digest, Root: a.Root}, total: a.UnpackedSize, r: r}
	if err := readArchive(ctx, a.Path, a.Digest, limits, x.put); err != nil {
		return manifest{}, err
	}
	return x.m, errors.Join(x.openFolders(), x.putLinks())
}

// openFolders makes folders readable whatever the umask: Kafka runs as another user.
func (x *extraction) openFolders() error {
	err := fs.WalkDir(x.root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return x.root.Chmod(path, 0o755)
	})
	if err != nil {
		return fmt.Errorf("make unpacked folders readable: %w", err)
	}
	return nil
}

func (x *extraction) put(m member, in io.Reader) error {
	switch m.kind {
	case tar.TypeSymlink:
		// Links come last: nothing is ever written through one.
		x.m.Links = append(x.m.Links, manifestLink{Path: m.path, Target: m.target})
		return nil
	case tar.TypeDir:
		return x.folder(m.path)
	default:
		return x.file(m, in)
	}
}

func (x *extraction) folder(p string) error {
	if err := x.root.MkdirAll(p, 0o755); err != nil {
		return fmt.Errorf("make folder %s: %w", p, err)
	}
	return nil
}

func (x *extraction) file(m member, in io.Reader) error {
	if err := x.folder(path.Dir(m.path)); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if m.executable {
		mode = 0o755
	}
	out, err := x.root.OpenFile(m.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), in)
	// Fsync, because a tree is in use for months and read in full only once.
	if err = errors.Join(err, out.Chmod(mode), out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("write file %s: %w", m.path, err)
	}
	x.done += n
	x.r.bytes(x.done, x.total)
	x.m.Files = append(x.m.Files, manifestFile{Path: m.path, SHA256: hex.EncodeToString(h.Sum(nil)), Size: n})
	return nil
}

func (x *extraction) putLinks() error {
	for _, l := range x.m.Links {
		if err := x.folder(path.Dir(l.Path)); err != nil {
			return err
		}
		if err := x.root.Symlink(l.Target, l.Path); err != nil {
			return fmt.Errorf("make link: %w", err)
		}
	}
	for _, l := range x.m.Links {
		if _, err := x.root.Stat(l.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("refused: link %q to %q: %w", l.Path, l.Target, err)
		}
	}
	return nil
}
