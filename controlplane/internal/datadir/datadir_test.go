package datadir

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestOpenMakesPrivateDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(string(dir))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestOpenRefusesLongPath(t *testing.T) {
	_, err := Open("/tmp/" + strings.Repeat("x", 100))
	if err == nil || !strings.Contains(err.Error(), "shorter path") {
		t.Errorf("got %v", err)
	}
}

func TestLockNamesItsHolder(t *testing.T) {
	dir := Dir(t.TempDir())
	lock, err := dir.Lock()
	if err != nil {
		t.Fatal(err)
	}
	// Another open file is another holder, even within one process.
	_, err = dir.Lock()
	if err == nil || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := dir.Lock()
	if err != nil {
		t.Fatalf("a released directory stays locked: %v", err)
	}
	if err := again.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestKeptPort(t *testing.T) {
	dir := Dir(t.TempDir())
	if port, err := dir.KeptPort(); port != 0 || err != nil {
		t.Errorf("an empty directory gave %d, %v", port, err)
	}
	if err := dir.KeepPort(6443); err != nil {
		t.Fatal(err)
	}
	if port, err := dir.KeptPort(); port != 6443 || err != nil {
		t.Errorf("got %d, %v", port, err)
	}
	for _, bad := range []string{"", "x", "0", "70000"} {
		if err := os.WriteFile(dir.PortFile(), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := dir.KeptPort(); err == nil {
			t.Errorf("%q passed for a port", bad)
		}
	}
}

func TestInstanceIsStable(t *testing.T) {
	dir := Dir(t.TempDir())
	first, err := dir.Instance()
	if err != nil || first == "" {
		t.Fatalf("got %q, %v", first, err)
	}
	if second, err := dir.Instance(); second != first || err != nil {
		t.Errorf("got %q then %q, %v", first, second, err)
	}
}
