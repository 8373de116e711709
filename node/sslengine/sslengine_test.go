package sslengine

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The jar is committed, so nothing else notices that somebody changed the source and forgot `make generate`.
func TestJarIsBuiltFromTheSource(t *testing.T) {
	sources, err := filepath.Glob("java/dev/castellan/kafka/*.java")
	if err != nil || len(sources) == 0 {
		t.Fatalf("found sources %v, error %v", sources, err)
	}
	sum := sha256.New()
	for _, path := range sources {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(text)
	}
	want := hex.EncodeToString(sum.Sum(nil))
	if got := manifestValue(t, "Castellan-Source-SHA256"); got != want {
		t.Errorf("the jar was built from sources %s, these are %s: run `make generate`", got, want)
	}
}

func TestJarHandsOutACopy(t *testing.T) {
	Jar()[0] = 'x'
	if !bytes.HasPrefix(Jar(), []byte("PK")) {
		t.Error("a caller changed the embedded jar")
	}
}

func manifestValue(t *testing.T, key string) string {
	t.Helper()
	archive, err := zip.NewReader(bytes.NewReader(Jar()), int64(len(Jar())))
	if err != nil {
		t.Fatal(err)
	}
	file, err := archive.Open("META-INF/MANIFEST.MF")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	// Manifest lines are folded at 72 bytes.
	unfolded := strings.ReplaceAll(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n ", "")
	for line := range strings.Lines(unfolded) {
		if value, ok := strings.CutPrefix(line, key+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("the manifest has no %s:\n%s", key, unfolded)
	return ""
}
