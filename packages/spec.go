package packages

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Spec says what to get and where it may come from.
type Spec struct {
	// Product is a word such as "Kafka"; Version is its published version.
	Product, Version string
	// Digest, if set, is the only archive that will do: a node that was pinned to an archive gets that one
	// or none, even where another source of the same version would give different bytes.
	Digest Digest
	// Sources are tried in this order.
	Sources []Source
}

// Source is one way to get a package: exactly one of URL, Maven and Cache is set.
type Source struct {
	// URL is an http, https or file URL, or a path, of a .tgz, .tar or .tar.zst archive.
	URL string
	// SHA512 and SHA256 are the archive's published sums in hexadecimal; a URL needs at least one.
	SHA512, SHA256 string
	// Maven is the name of a built-in lock ("kafka-4.3.1") or the text of a lock.
	Maven string
	// Cache is a folder with archives named PRODUCT-VERSION.tgz (.tar.gz, .tar.zst, .tar) and their .sha512
	// files, or another store.
	Cache string
}

// String names the source as messages do.
func (s Source) String() string {
	switch {
	case s.URL != "":
		return s.URL
	case s.Maven != "" && strings.Contains(s.Maven, "\n"):
		return "Maven (own lock)"
	case s.Maven != "":
		return "Maven (lock " + s.Maven + ")"
	default:
		return "cache folder " + s.Cache
	}
}

// Artifact is an archive in a store.
type Artifact struct {
	Product string `json:"product"`
	Version string `json:"version"`
	Digest  Digest `json:"digest"`
	// Path is the archive's absolute path.
	Path string `json:"-"`
	// Size is the archive's and UnpackedSize its files' size in bytes.
	Size         int64 `json:"size"`
	UnpackedSize int64 `json:"unpackedSize"`
	// Root is the archive's one top folder, the one that contains "libs" in Kafka's case; "." if there is none.
	Root string `json:"root"`
}

// Tree is an unpacked archive.
type Tree struct {
	Digest Digest
	// Dir is the absolute path of the package's top folder.
	Dir string
}

// Libs is the folder of the package's jars.
func (t Tree) Libs() string {
	return filepath.Join(t.Dir, "libs")
}

func (s Spec) title() string {
	return s.Product + " " + s.Version
}

// Validate reports every mistake in the spec at once.
func (s Spec) Validate() error {
	var errs []error
	word := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)
	if !word.MatchString(s.Product) {
		errs = append(errs, fmt.Errorf("product %q: want a word such as Kafka", s.Product))
	}
	if !word.MatchString(s.Version) {
		errs = append(errs, fmt.Errorf("version %q: want a version such as 4.3.1", s.Version))
	}
	if s.Digest != "" {
		if _, err := ParseDigest(string(s.Digest)); err != nil {
			errs = append(errs, err)
		}
	}
	if len(s.Sources) == 0 {
		errs = append(errs, errors.New("sources: none given; give a url with its sha512, a Maven lock or a cache folder"))
	}
	for i, source := range s.Sources {
		if err := source.validate(); err != nil {
			errs = append(errs, fmt.Errorf("sources[%d]: %w", i, err))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("package %s: %w", s.title(), errors.Join(errs...))
	}
	return nil
}

func (s Source) validate() error {
	given := 0
	for _, v := range []string{s.URL, s.Maven, s.Cache} {
		if v != "" {
			given++
		}
	}
	if given != 1 {
		return errors.New("set exactly one of url, maven and cache")
	}
	if s.URL == "" {
		return nil
	}
	if s.SHA512 == "" && s.SHA256 == "" {
		return fmt.Errorf("%s has no sha512: set the sum that its publisher gives", s.URL)
	}
	if s.SHA512 != "" && !isHex(strings.ToLower(s.SHA512), sha512.Size) {
		return fmt.Errorf("sha512 %q: want 128 hexadecimal digits", s.SHA512)
	}
	if s.SHA256 != "" && !isHex(strings.ToLower(s.SHA256), sha256.Size) {
		return fmt.Errorf("sha256 %q: want 64 hexadecimal digits", s.SHA256)
	}
	return nil
}

// reference names what the source promises, so that a store that once kept the promise finds the archive again.
// A cache folder promises nothing by itself.
func (s Source) reference() (string, error) {
	switch {
	case s.Maven != "":
		lock, err := s.lock()
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256([]byte(lock.entriesText()))
		return "lock-" + hex.EncodeToString(sum[:]), nil
	case s.SHA512 != "":
		return "sha512-" + strings.ToLower(s.SHA512), nil
	case s.SHA256 != "":
		return "sha256-" + strings.ToLower(s.SHA256), nil
	default:
		return "", nil
	}
}

func (s Source) lock() (Lock, error) {
	if strings.Contains(s.Maven, "\n") {
		return ParseLock(s.Maven)
	}
	return BuiltinLock(s.Maven)
}
