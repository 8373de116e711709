package packages

import (
	"cmp"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

//go:embed locks/*.lock
var lockFiles embed.FS

// Catalog is a set of packages to choose from.
type Catalog []Spec

// UnknownVersionError says that a catalog has no such package, and what it has.
type UnknownVersionError struct {
	Product, Version string
	// Known are the versions there are of the product, oldest first.
	Known []string
}

func (e *UnknownVersionError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("no Package provides %s %s, nor any other version of %s: add a Package with its sources", e.Product, e.Version, e.Product)
	}
	return fmt.Sprintf("no Package provides %s %s: use one of %s, or add a Package with its sources",
		e.Product, e.Version, strings.Join(e.Known, ", "))
}

// Builtin is the catalog of the packages whose locks Castellan carries, oldest version first.
func Builtin() (Catalog, error) {
	locks, err := BuiltinLocks()
	if err != nil {
		return nil, err
	}
	var specs Catalog
	for _, l := range locks {
		specs = append(specs, Spec{Product: l.Product, Version: l.Version, Sources: []Source{{Maven: lockName(l)}}})
	}
	return specs, nil
}

// BuiltinLocks returns the locks that Castellan carries, by product and version, oldest first.
func BuiltinLocks() ([]Lock, error) {
	names, err := fs.Glob(lockFiles, "locks/*.lock")
	if err != nil {
		return nil, fmt.Errorf("list built-in locks: %w", err)
	}
	locks := make([]Lock, 0, len(names))
	for _, name := range names {
		text, err := lockFiles.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read built-in lock: %w", err)
		}
		lock, err := ParseLock(string(text))
		if err != nil {
			return nil, fmt.Errorf("built-in lock %s: %w", name, err)
		}
		locks = append(locks, lock)
	}
	slices.SortFunc(locks, func(a, b Lock) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), compareVersions(a.Version, b.Version))
	})
	return locks, nil
}

// BuiltinLock returns the lock of that name, "kafka-4.3.1".
func BuiltinLock(name string) (Lock, error) {
	locks, err := BuiltinLocks()
	if err != nil {
		return Lock{}, err
	}
	names := make([]string, 0, len(locks))
	for _, l := range locks {
		if lockName(l) == name {
			return l, nil
		}
		names = append(names, lockName(l))
	}
	return Lock{}, fmt.Errorf("no built-in lock %q: use one of %s, or the text of a lock", name, strings.Join(names, ", "))
}

func lockName(l Lock) string {
	return strings.ToLower(l.Product) + "-" + l.Version
}

// Versions are the product's versions in the catalog, each once, oldest first.
func (c Catalog) Versions(product string) []string {
	var versions []string
	for _, s := range c {
		if s.Product == product {
			versions = append(versions, s.Version)
		}
	}
	slices.SortFunc(versions, compareVersions)
	return slices.Compact(versions)
}

// Find returns the catalog's first package of that product and version, else an [*UnknownVersionError].
func (c Catalog) Find(product, version string) (Spec, error) {
	for _, s := range c {
		if s.Product == product && s.Version == version {
			return s, nil
		}
	}
	return Spec{}, &UnknownVersionError{Product: product, Version: version, Known: c.Versions(product)}
}

// compareVersions orders 3.9.2 before 3.10.0 and 4.0.0 before 4.0.0.1; what is no number compares as text.
func compareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		an, aerr := strconv.Atoi(as[i])
		bn, berr := strconv.Atoi(bs[i])
		order := strings.Compare(as[i], bs[i])
		if aerr == nil && berr == nil {
			order = cmp.Compare(an, bn)
		}
		if order != 0 {
			return order
		}
	}
	return cmp.Compare(len(as), len(bs))
}
