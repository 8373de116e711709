package packages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SourcesError says that none of a package's sources gave it, and why.
type SourcesError struct {
	Product, Version string
	// Causes has an error per source, in the order of the sources.
	Causes []error
}

func (e *SourcesError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s could not be fetched: ", e.Product, e.Version)
	for i, cause := range e.Causes {
		switch {
		case len(e.Causes) == 1:
		case i == 0:
			b.WriteString("neither ")
		default:
			b.WriteString("; nor ")
		}
		fmt.Fprintf(&b, "from %v", cause)
	}
	return b.String()
}

// Unwrap returns the causes.
func (e *SourcesError) Unwrap() []error { return e.Causes }

// Fetch makes sure that the store has the package's archive, whole and with the right digest, and returns it. What
// the store has is checked in full and used; what is damaged is set aside and fetched again. It fails with a
// [*SourcesError] if no source gives the package.
func (s *Store) Fetch(ctx context.Context, spec Spec, progress Progress) (Artifact, error) {
	r := report(progress)
	defer r.stop()
	a, _, err := s.fetch(ctx, spec, r)
	return a, err
}

// fetch also tells, in a sentence, which damage it found in the store and repaired.
func (s *Store) fetch(ctx context.Context, spec Spec, r *reporter) (a Artifact, repaired string, err error) {
	if err := spec.Validate(); err != nil {
		return Artifact{}, "", err
	}
	release, err := s.acquire(ctx, strings.ToLower(spec.Product)+"-"+spec.Version, r)
	if err != nil {
		return Artifact{}, "", err
	}
	defer release()
	a, damage, err := s.held(ctx, spec, r)
	if err != nil {
		return Artifact{}, "", fmt.Errorf("look for %s in the store: %w", spec.title(), err)
	}
	if a.Digest != "" {
		return a, "", s.touch(a.Path)
	}
	if a, err = s.fetchAny(ctx, spec, r); err != nil {
		return Artifact{}, "", errors.Join(err, damage)
	}
	if damage != nil {
		repaired = fmt.Sprintf("%v; it was fetched again", damage)
	}
	return a, repaired, nil
}

// known returns the digests of archives that would do, as far as the store knows.
func (s *Store) known(spec Spec) []Digest {
	if spec.Digest != "" {
		return []Digest{spec.Digest}
	}
	var digests []Digest
	for _, source := range spec.Sources {
		if source.Cache != "" {
			if found, err := findCached(source.Cache, spec); err == nil {
				source = found
			}
		}
		ref, err := source.reference()
		if err != nil || ref == "" {
			continue
		}
		text, err := os.ReadFile(s.refPath(ref))
		if err != nil {
			continue
		}
		if d, err := ParseDigest(strings.TrimSpace(string(text))); err == nil {
			digests = append(digests, d)
		}
	}
	return digests
}

// held returns the first archive in the store that would do; an Artifact without digest if there is none. Damage is not an
// error here: it is set aside and told.
func (s *Store) held(ctx context.Context, spec Spec, r *reporter) (found Artifact, damage, err error) {
	for _, d := range s.known(spec) {
		a, err := s.verifyArchive(ctx, spec, d)
		var wrong *DigestError
		switch {
		case err == nil:
			return a, damage, nil
		case ctx.Err() != nil:
			return Artifact{}, nil, err
		case errors.As(err, &wrong):
			r.say("%v", err)
			damage = errors.Join(damage, err)
			if err := s.setAside(s.archivePath(d)); err != nil {
				return Artifact{}, nil, err
			}
		case !errors.Is(err, fs.ErrNotExist):
			// A disk that cannot read it back, for one: it is written again.
			r.say("%v", err)
		}
	}
	return Artifact{}, damage, nil
}

// touch dates the use of an archive or tree, so that a prune does not take it from under a process that just asked for it.
func (s *Store) touch(path string) error {
	now := s.now()
	if err := os.Chtimes(path, now, now); err != nil {
		return fmt.Errorf("date the use of %s: %w", path, err)
	}
	return nil
}

func (s *Store) fetchAny(ctx context.Context, spec Spec, r *reporter) (Artifact, error) {
	failed := &SourcesError{Product: spec.Product, Version: spec.Version}
	for _, source := range spec.Sources {
		a, err := s.fetchFrom(ctx, spec, source, r)
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return Artifact{}, fmt.Errorf("fetch %s from %s: %w", spec.title(), source, err)
		}
		r.say("%s: %v", source, err)
		failed.Causes = append(failed.Causes, fmt.Errorf("%s: %w", source, err))
	}
	return Artifact{}, failed
}

// fetchFrom gets the archive from one source into a folder of its own and, once it is checked, into the store.
func (s *Store) fetchFrom(ctx context.Context, spec Spec, source Source, r *reporter) (Artifact, error) {
	folder, err := os.MkdirTemp(s.tmp(), "fetch-")
	if err != nil {
		return Artifact{}, fmt.Errorf("make folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	if source.Cache != "" {
		if source, err = findCached(source.Cache, spec); err != nil {
			return Artifact{}, err
		}
	}
	var file string
	want := spec.Digest
	if source.Maven != "" {
		var l Lock
		if l, err = lockFor(spec, source); err != nil {
			return Artifact{}, err
		}
		if want == "" {
			want = l.Archive
		}
		file, err = s.assemble(ctx, l, folder, r)
	} else {
		file, err = s.download(ctx, source, folder, r)
	}
	if err != nil {
		return Artifact{}, err
	}
	return s.admit(ctx, spec, source, file, want)
}

func lockFor(spec Spec, source Source) (Lock, error) {
	l, err := source.lock()
	if err != nil {
		return Lock{}, err
	}
	if l.Product != spec.Product || l.Version != spec.Version {
		return Lock{}, fmt.Errorf("the lock is of %s %s: name the lock of %s", l.Product, l.Version, spec.title())
	}
	if spec.Digest != "" && l.Archive != "" && spec.Digest != l.Archive {
		return Lock{}, fmt.Errorf("it makes the archive %s, wanted is %s", l.Archive, spec.Digest)
	}
	return l, nil
}

// admit checks an archive that has arrived and puts it into the store under its digest.
func (s *Store) admit(ctx context.Context, spec Spec, source Source, file string, want Digest) (Artifact, error) {
	sum, err := hashFile(ctx, file)
	if err != nil {
		return Artifact{}, err
	}
	d := Digest(digestPrefix + sum)
	if want != "" && d != want {
		return Artifact{}, &DigestError{
			File: "the archive", Want: string(want), Found: string(d),
			Remedy: "this source has another build of that version; take the source that the package was first fetched from",
		}
	}
	a, err := s.record(ctx, spec, file, d)
	if err != nil {
		return Artifact{}, err
	}
	return a, s.keep(a, source, file)
}

func (s *Store) keep(a Artifact, source Source, file string) error {
	if err := os.Chmod(file, 0o644); err != nil { //nolint:gosec // an archive is public
		return fmt.Errorf("make archive readable: %w", err)
	}
	if err := os.Rename(file, a.Path); err != nil {
		return fmt.Errorf("put archive into the store: %w", err)
	}
	ref, err := source.reference()
	if err != nil {
		return err
	}
	return errors.Join(syncFolder(filepath.Dir(a.Path)), s.writeFile(s.refPath(ref), []byte(a.Digest+"\n")), s.touch(a.Path))
}
