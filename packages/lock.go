package packages

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Lock is the exact set of Maven artifacts that a package is made of.
//
// Its text form is lines of words. A header gives product, version, the coordinates it was resolved from and
// the digest of the archive that it makes; then one line per artifact, sorted:
//
//	group:artifact[:classifier]:version sha256 size file
type Lock struct {
	Product, Version string
	// From are the coordinates that were resolved to make the lock.
	From []string
	// Root is the top folder of the archive.
	Root string
	// Archive is the digest of the assembled archive; empty if it was never assembled.
	Archive Digest
	Entries []LockEntry
}

// LockEntry is one jar.
type LockEntry struct {
	Group, Artifact, Classifier, Version string
	// SHA256 is 64 lower-case hexadecimal digits; Size is in bytes.
	SHA256 string
	Size   int64
	// File is the jar's name in the archive's libs folder.
	File string
}

// Coordinates is group:artifact[:classifier]:version.
func (e LockEntry) Coordinates() string {
	if e.Classifier != "" {
		return e.Group + ":" + e.Artifact + ":" + e.Classifier + ":" + e.Version
	}
	return e.Group + ":" + e.Artifact + ":" + e.Version
}

const lockTitle = "# castellan package lock 1"

// Size is the sum of the jars' sizes in bytes.
func (l Lock) Size() int64 {
	var sum int64
	for _, e := range l.Entries {
		sum += e.Size
	}
	return sum
}

// String is the lock's text form; ParseLock reads it.
func (l Lock) String() string {
	var b strings.Builder
	b.WriteString(lockTitle + "\n")
	fmt.Fprintf(&b, "product %s\nversion %s\nroot %s\n", l.Product, l.Version, l.Root)
	for _, c := range l.From {
		fmt.Fprintf(&b, "from %s\n", c)
	}
	if l.Archive != "" {
		fmt.Fprintf(&b, "archive %s\n", l.Archive)
	}
	b.WriteString(l.entriesText())
	return b.String()
}

// entriesText is what decides the archive's bytes: the folder and the jars, nothing of how they were found.
func (l Lock) entriesText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s %s in %s\n", l.Product, l.Version, l.Root)
	lines := make([]string, 0, len(l.Entries))
	for _, e := range l.Entries {
		lines = append(lines, fmt.Sprintf("%s %s %d %s\n", e.Coordinates(), e.SHA256, e.Size, e.File))
	}
	slices.Sort(lines)
	b.WriteString(strings.Join(lines, ""))
	return b.String()
}

// ParseLock reads the text form of a lock and checks it.
func ParseLock(text string) (Lock, error) {
	var l Lock
	if !strings.HasPrefix(text, lockTitle+"\n") {
		return Lock{}, fmt.Errorf("not a package lock: the first line must be %q", lockTitle)
	}
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := l.parseLine(strings.Fields(line)); err != nil {
			return Lock{}, fmt.Errorf("package lock, line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return Lock{}, fmt.Errorf("read package lock: %w", err)
	}
	if err := l.validate(); err != nil {
		return Lock{}, fmt.Errorf("package lock: %w", err)
	}
	return l, nil
}

func (l *Lock) parseLine(words []string) error {
	switch {
	case len(words) == 2 && words[0] == "product":
		l.Product = words[1]
	case len(words) == 2 && words[0] == "version":
		l.Version = words[1]
	case len(words) == 2 && words[0] == "root":
		l.Root = words[1]
	case len(words) == 2 && words[0] == "from":
		l.From = append(l.From, words[1])
	case len(words) == 2 && words[0] == "archive":
		digest, err := ParseDigest(words[1])
		l.Archive = digest
		return err
	case len(words) == 4:
		entry, err := parseEntry(words)
		l.Entries = append(l.Entries, entry)
		return err
	default:
		return fmt.Errorf("%q: want a header or coordinates, sha256, size and file", strings.Join(words, " "))
	}
	return nil
}

func parseEntry(words []string) (LockEntry, error) {
	e := LockEntry{SHA256: words[1], File: words[3]}
	// The words go into a pom and into file names.
	parts := strings.Split(words[0], ":")
	word := regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]*$`)
	for _, part := range append(slices.Clone(parts), e.File) {
		if !word.MatchString(part) {
			return e, fmt.Errorf("%q in %s: want letters, digits and ._+-", part, words[0])
		}
	}
	switch len(parts) {
	case 3:
		e.Group, e.Artifact, e.Version = parts[0], parts[1], parts[2]
	case 4:
		e.Group, e.Artifact, e.Classifier, e.Version = parts[0], parts[1], parts[2], parts[3]
	default:
		return e, fmt.Errorf("%q: want group:artifact[:classifier]:version", words[0])
	}
	if !isHex(e.SHA256, sha256.Size) {
		return e, fmt.Errorf("%s: sha256 %q: want 64 lower-case hexadecimal digits", words[0], e.SHA256)
	}
	size, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil || size < 0 {
		return e, fmt.Errorf("%s: size %q: want a number of bytes", words[0], words[2])
	}
	e.Size = size
	if path.Ext(e.File) != ".jar" {
		return e, fmt.Errorf("%s: file %q: want a .jar", words[0], e.File)
	}
	return e, nil
}

func (l Lock) validate() error {
	word := regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]*$`)
	for name, v := range map[string]string{"product": l.Product, "version": l.Version, "root": l.Root} {
		if !word.MatchString(v) {
			return fmt.Errorf("%s %q: want a word of letters, digits and ._+-", name, v)
		}
	}
	if len(l.Entries) == 0 {
		return errors.New("it names no artifact")
	}
	seen := map[string]string{}
	for _, e := range l.Entries {
		if other, twice := seen[e.File]; twice {
			return fmt.Errorf("%s and %s both want to be the file %s", other, e.Coordinates(), e.File)
		}
		seen[e.File] = e.Coordinates()
	}
	return nil
}
