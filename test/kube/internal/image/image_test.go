package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestAnImageNamesItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.tar")
	s := Static{Name: "testkube.local/one:1", Files: map[string][]byte{"one": []byte("x")}, Entrypoint: []string{"/one"}}
	if err := s.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	names, err := Names(f)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(names, []string{"testkube.local/one:1"}) {
		t.Errorf("got %v", names)
	}
}

func TestAnOCILayoutNamesItsImages(t *testing.T) {
	index := `{"schemaVersion":2,"manifests":[
		{"annotations":{"io.containerd.image.name":"example.org/apache/kafka:4.3.1"}},
		{"annotations":{"org.opencontainers.image.ref.name":"example.org/castellan:dev"}},
		{"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}`
	archive, err := tarOf(map[string][]byte{"index.json": []byte(index)}, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	names, err := Names(strings.NewReader(string(archive)))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(names, []string{"example.org/apache/kafka:4.3.1", "example.org/castellan:dev"}) {
		t.Errorf("got %v", names)
	}
}

func TestAnArchiveWithoutNamesIsRefused(t *testing.T) {
	archive, err := tarOf(map[string][]byte{"manifest.json": []byte(`[{"Config":"x","Layers":[]}]`)}, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if names, err := Names(strings.NewReader(string(archive))); err == nil {
		t.Errorf("got %v", names)
	}
}

// TestPauseWaitsUntilKilled runs the program as the kernel sees it.
func TestPauseWaitsUntilKilled(t *testing.T) {
	program, err := Pause()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// SIGCONT ends the system call early, so the loop must begin it again.
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended by itself: %v", cmd.ProcessState)
	}
}
