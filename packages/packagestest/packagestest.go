// Package packagestest makes small packages for the tests of others: archives of a few files that no JVM could
// run, with the checksums their sources would publish. It never fetches anything.
package packagestest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"castellan.dev/castellan/packages"
)

// Archive is a package's archive on disk.
type Archive struct {
	// Path is absolute; the file's name is the one that a cache folder wants.
	Path string
	// SHA512 and SHA256 are hexadecimal.
	SHA512, SHA256 string
}

// Source is the archive as the source of a package.
func (a Archive) Source() packages.Source {
	return packages.Source{URL: a.Path, SHA512: a.SHA512}
}

// Kafka makes a .tgz in dir that looks like Kafka's of that version: a folder with a few libs, bin and a config file.
func Kafka(tb testing.TB, dir, version string) (packages.Spec, Archive) {
	tb.Helper()
	root := "kafka_2.13-" + version
	a := Tgz(tb, filepath.Join(dir, "kafka-"+version+".tgz"), map[string]string{
		root + "/libs/kafka-clients-" + version + ".jar": "the clients of " + version,
		root + "/libs/kafka_2.13-" + version + ".jar":    "the server of " + version,
		root + "/bin/kafka-run-class.sh":                 "#!/bin/sh\n",
		root + "/config/server.properties":               "# nothing\n",
	})
	return packages.Spec{Product: "Kafka", Version: version, Sources: []packages.Source{a.Source()}}, a
}

// Tgz writes the files, by their slash-separated path, into a gzipped tar.
func Tgz(tb testing.TB, file string, files map[string]string) Archive {
	tb.Helper()
	var headers []*tar.Header
	for _, name := range slices.Sorted(maps.Keys(files)) {
		mode := int64(0o644)
		if path.Ext(name) == ".sh" {
			mode = 0o755
		}
		headers = append(headers, &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(files[name]))})
	}
	return Write(tb, file, Gzip(tb, Tar(tb, headers, files)))
}

// Tar makes a tar of any headers, also of those that no package should have, and the contents by name.
func Tar(tb testing.TB, headers []*tar.Header, contents map[string]string) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write([]byte(contents[h.Name])); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// Gzip compresses.
func Gzip(tb testing.TB, plain []byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(plain); err != nil {
		tb.Fatal(err)
	}
	if err := z.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// Write puts an archive's bytes on disk.
func Write(tb testing.TB, file string, content []byte) Archive {
	tb.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	s512, s256 := sha512.Sum512(content), sha256.Sum256(content)
	return Archive{Path: file, SHA512: hex.EncodeToString(s512[:]), SHA256: hex.EncodeToString(s256[:])}
}

// FlipByte changes the byte in the middle of a file and nothing else.
func FlipByte(tb testing.TB, file string) {
	tb.Helper()
	content, err := os.ReadFile(file) //nolint:gosec // to open what the caller or the store names is its task
	if err != nil {
		tb.Fatal(err)
	}
	if len(content) == 0 {
		tb.Fatalf("%s has no byte to flip", file)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(file, content, 0o600); err != nil { //nolint:gosec // a test names its own file
		tb.Fatal(err)
	}
}

// RealKafka provides the real Kafka of a built-in version from the store that all commands of this user share, so
// that only the first test on a machine fetches it. It needs mvn then.
func RealKafka(tb testing.TB, version string) packages.Tree {
	tb.Helper()
	dir, err := packages.DefaultDir()
	if err != nil {
		tb.Fatal(err)
	}
	catalog, err := packages.Builtin()
	if err != nil {
		tb.Fatal(err)
	}
	spec, err := catalog.Find("Kafka", version)
	if err != nil {
		tb.Fatal(err)
	}
	store := &packages.Store{Dir: dir}
	p, err := store.Provide(tb.Context(), spec, func(u packages.Update) {
		if u.Done == 0 {
			tb.Log(u.Text)
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return p.Tree
}
