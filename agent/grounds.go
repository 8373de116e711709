package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// grounds are the only places where the agent writes for a process: the process's own
// folder and the data roots. Every access goes through an os.Root, so that neither ".." nor
// a symlink, also one that the process itself places, leads out of them.
type grounds struct {
	own       string
	dataRoots []string
}

// owner of what is written; negative ids leave it as it is.
type owner struct{ uid, gid int }

func nobody() owner { return owner{uid: -1, gid: -1} }

// data splits a path into the data root that holds it and the rest, which is never the
// root itself.
func (g grounds) data(path string) (root, rel string, err error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return "", "", refused("directory %q is not a plain absolute path: give one below a data root of the host", path)
	}
	for _, candidate := range g.dataRoots {
		if rest, ok := below(candidate, path); ok && len(candidate) > len(root) {
			root, rel = candidate, rest
		}
	}
	if root == "" {
		return "", "", refused("%s is not below a data root of this agent (%s): use one of them, or start the agent with another", path, strings.Join(g.dataRoots, ", "))
	}
	return root, rel, nil
}

// file is data for files: relative ones lie in the process's own folder.
func (g grounds) file(path string) (root, rel string, err error) {
	if !filepath.IsAbs(path) {
		if !filepath.IsLocal(path) || filepath.Clean(path) != path || path == "." {
			return "", "", refused("file %q leads out of the process's folder", path)
		}
		return g.own, path, nil
	}
	if rest, ok := below(g.own, path); ok && filepath.Clean(path) == path {
		return g.own, rest, nil
	}
	return g.data(path)
}

func below(root, path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/")+"/")
	return rest, ok && rest != ""
}

func openRoot(root string) (*os.Root, error) {
	opened, err := os.OpenRoot(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &problem{
			Reason:  ReasonDataRootMissing,
			Message: fmt.Sprintf("%s does not exist: mount its disk, or make the folder if it is new", root),
			Retry:   5 * time.Second,
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	return opened, nil
}

// makeDirectory makes a directory below a data root and gives it to the owner.
func (g grounds) makeDirectory(path string, own owner) error {
	root, rel, err := g.data(path)
	if err != nil {
		return err
	}
	r, err := openRoot(root)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read from
	if err := r.MkdirAll(filepath.Dir(rel), 0o755); err != nil {
		return fmt.Errorf("make the parents of %s: %w", path, err)
	}
	if err := r.Mkdir(rel, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory %s: %w", path, err)
	}
	info, err := r.Stat(rel)
	if err != nil {
		return fmt.Errorf("look at directory %s: %w", path, err)
	}
	if !info.IsDir() {
		return &problem{Reason: ReasonFiles, Message: path + " is not a directory: move it away", Retry: 5 * time.Second}
	}
	return give(r, rel, info, own)
}

func give(r *os.Root, rel string, info fs.FileInfo, own owner) error {
	if own.uid < 0 || ownedBy(info, own) {
		return nil
	}
	if err := r.Lchown(rel, own.uid, own.gid); err != nil {
		return fmt.Errorf("give %s to its user: %w", rel, err)
	}
	return nil
}

// removeDirectory removes a directory below a data root with all it holds. It follows no
// symlink, and one that is gone is fine.
func (g grounds) removeDirectory(path string) error {
	root, rel, err := g.data(path)
	if err != nil {
		return err
	}
	r, err := openRoot(root)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read from
	if err := r.RemoveAll(rel); err != nil {
		return fmt.Errorf("remove directory %s: %w", path, err)
	}
	return nil
}

// write places a file, readable by its owner only, at once and whole: nobody ever reads half of it. A file that already
// has this content is left alone.
func (g grounds) write(path string, content []byte, own owner) error {
	root, rel, err := g.file(path)
	if err != nil {
		return err
	}
	r, err := openRoot(root)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // the file itself is synced and closed below
	if found, err := r.ReadFile(rel); err == nil && bytes.Equal(found, content) {
		return nil
	}
	if err := makeParents(r, filepath.Dir(rel), own); err != nil {
		return err
	}
	temp := rel + ".new"
	if err := r.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the rest of an earlier write of %s: %w", path, err)
	}
	if err := writeNew(r, temp, content, own); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := r.Rename(temp, rel); err != nil {
		return fmt.Errorf("place %s: %w", path, err)
	}
	return nil
}

func makeParents(r *os.Root, dir string, own owner) error {
	if dir == "." {
		return nil
	}
	if err := r.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make folder %s: %w", dir, err)
	}
	info, err := r.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at folder %s: %w", dir, err)
	}
	return give(r, dir, info, own)
}

func writeNew(r *os.Root, name string, content []byte, own owner) (err error) {
	f, err := r.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if own.uid >= 0 {
		if err := f.Chown(own.uid, own.gid); err != nil {
			return err
		}
	}
	return f.Sync()
}

// remove removes one file of the process; one that is gone is fine.
func (g grounds) remove(path string) error {
	root, rel, err := g.file(path)
	if err != nil {
		return err
	}
	r, err := openRoot(root)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read from
	if err := r.Remove(rel); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// read reads a small file of the process, at most limit bytes of it.
func (g grounds) read(path string, limit int64) ([]byte, error) {
	root, rel, err := g.file(path)
	if err != nil {
		return nil, err
	}
	r, err := openRoot(root)
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // only read from
	return readBounded(r, rel, limit)
}
