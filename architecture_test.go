// Package castellan_test holds ARCHITECTURE.md and the tree against each other.
package castellan_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	page   = "ARCHITECTURE.md"
	module = "castellan.dev/castellan/"
	franz  = "github.com/twmb/franz-go"
)

// nested are the folders of modules of their own.
var nested = []string{"controlplane", "images", "test/kube"}

// moduleOf is the nested module that a folder belongs to; empty is the main one.
func moduleOf(folder string) string {
	for _, m := range nested {
		if within(folder, m) {
			return m
		}
	}
	return ""
}

// pure is all that core may import from outside this project, in code that ships.
var pure = []string{
	"github.com/robfig/cron/v3", // its parser only
	"bytes", "cmp", "container/heap", "crypto/sha256", "encoding/hex", "encoding/json", "errors", "fmt", "iter", "maps", "math",
	"math/bits", "net/netip", "path", "regexp", "slices", "sort", "strconv", "strings", "time", "unicode", "unicode/utf16", "unicode/utf8",
	"k8s.io/api/apps/v1",
	"k8s.io/api/core/v1",
	"k8s.io/api/policy/v1",
	"k8s.io/apimachinery/pkg/api/resource",
	"k8s.io/apimachinery/pkg/apis/meta/v1",
	"k8s.io/apimachinery/pkg/labels",
	"k8s.io/apimachinery/pkg/types",
	"k8s.io/apimachinery/pkg/util/intstr",
}

// source is one Go file.
type source struct {
	file    string
	folder  string
	imports []string
}

func (s source) test() bool { return strings.HasSuffix(s.file, "_test.go") }

// room is the folder below the module's root that a folder lies in; a nested module is one.
func room(folder string) string {
	if m := moduleOf(folder); m != "" {
		return m
	}
	first, _, _ := strings.Cut(folder, "/")
	return first
}

func within(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

func TestEveryPackageStandsOnThePageAndNoOther(t *testing.T) {
	var found []string
	for _, s := range sources(t) {
		if s.folder != "." {
			found = append(found, s.folder)
		}
	}
	slices.Sort(found)
	var named []string
	for _, cells := range rows(t, "Packages of ") {
		named = append(named, words(cells[0])...)
	}
	slices.Sort(named)
	if diff := cmp.Diff(slices.Compact(found), named); diff != "" {
		t.Errorf("%s and the tree differ (- in the tree, + on the page); a package needs its line there:\n%s", page, diff)
	}
}

func TestImportsKeepToThePage(t *testing.T) {
	allowed := map[string][]string{}
	for _, cells := range rows(t, "Imports") {
		allowed[words(cells[0])[0]] = words(cells[1])
	}
	for _, s := range sources(t) {
		if s.folder == "." || s.test() {
			continue
		}
		may, known := allowed[room(s.folder)]
		if !known {
			t.Errorf("%s: room %s is missing in the table of imports of %s", s.file, room(s.folder), page)
			continue
		}
		may = append([]string{room(s.folder)}, may...)
		for _, imported := range ours(s) {
			if !slices.ContainsFunc(may, func(m string) bool { return within(imported, m) }) {
				t.Errorf("%s imports %s, but %s may import only %s", s.file, imported, room(s.folder), strings.Join(may, ", "))
			}
		}
	}
}

func TestCoreIsPure(t *testing.T) {
	for _, s := range sources(t) {
		if !within(s.folder, "core") || s.test() {
			continue
		}
		for _, i := range s.imports {
			if !strings.HasPrefix(i, module) && !slices.Contains(pure, i) {
				t.Errorf("%s imports %s: core takes what it needs to know as arguments", s.file, i)
			}
		}
	}
}

func TestOnlyKafkaSpeaksToBrokers(t *testing.T) {
	for _, s := range sources(t) {
		if within(s.folder, "kafka") || s.test() {
			continue
		}
		for _, i := range s.imports {
			if strings.HasPrefix(i, franz) {
				t.Errorf("%s imports %s: only package kafka does", s.file, i)
			}
		}
	}
}

func TestModulesMeetOnlyInTheAPI(t *testing.T) {
	for _, s := range sources(t) {
		for _, imported := range ours(s) {
			if moduleOf(s.folder) != moduleOf(imported) {
				t.Errorf("%s imports %s of the other module", s.file, imported)
			}
		}
	}
}

func TestNobodyImportsAMain(t *testing.T) {
	for _, s := range sources(t) {
		for _, imported := range ours(s) {
			if m := moduleOf(imported); within(imported, path.Join(m, "cmd")) || within(imported, "hack") {
				t.Errorf("%s imports %s: a main is nobody's library", s.file, imported)
			}
		}
	}
}

// ours are the folders of this project that a file imports.
func ours(s source) []string {
	var out []string
	for _, i := range s.imports {
		if folder, ok := strings.CutPrefix(i, module); ok {
			out = append(out, folder)
		}
	}
	return out
}

// sources are all Go files of all modules.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); name == "testdata" || name == "bin" || name != "." && strings.HasPrefix(name, ".") {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(file, ".go") {
			out = append(out, source{file: file, folder: path.Dir(file), imports: importsOf(t, file)})
		}
		return nil
	})
	if err != nil {
		t.Fatalf("walk the tree: %v", err)
	}
	if len(out) == 0 {
		t.Fatal("no Go file was found")
	}
	return out
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash(file), nil, parser.ImportsOnly)
	if err != nil {
		t.Fatalf("parse imports: %v", err)
	}
	var out []string
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("%s: unquote import %s: %v", file, spec.Path.Value, err)
		}
		out = append(out, imported)
	}
	return out
}

// rows are the cells of every table row below the page's headings that begin so.
func rows(t *testing.T, heading string) [][]string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatalf("read the page: %v", err)
	}
	var out [][]string
	inside := false
	for line := range strings.Lines(string(text)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			inside = strings.HasPrefix(title, heading)
		}
		if inside && strings.HasPrefix(line, "| `") {
			out = append(out, strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|"))
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no table below a heading %q", page, heading)
	}
	return out
}

// words are what stands in backquotes.
func words(cell string) []string {
	var out []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}
