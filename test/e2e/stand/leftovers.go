package stand

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"castellan.dev/castellan/local"
)

const (
	folderPattern = "cst*"
	ownerFile     = "test.json" // the test process that a stand's folder belongs to
)

// makeFolder makes a stand's folder and writes down whose it is. Not a test's own folder: its path is too long for
// sockets.
func makeFolder(tb testing.TB) local.Dir {
	tb.Helper()
	path, err := os.MkdirTemp("", folderPattern) //nolint:usetesting // see above
	if err != nil {
		tb.Fatalf("make the stand's folder: %v", err)
	}
	owner, err := json.Marshal(self())
	if err == nil {
		err = os.WriteFile(filepath.Join(path, ownerFile), owner, 0o600)
	}
	if err != nil {
		tb.Fatalf("write down whose folder %s is: %v", path, err)
	}
	return local.Dir(path)
}

// endLeftovers ends what stands left behind whose test process was killed: their Castellan outlives it, as it should.
func endLeftovers(tb testing.TB) {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(os.TempDir(), folderPattern, ownerFile))
	if err != nil {
		tb.Fatal(err)
	}
	for _, file := range files {
		var owner process
		if !readJSON(file, &owner) || owner.alive() {
			continue
		}
		tb.Logf("ending what a killed test left behind in %s", filepath.Dir(file))
		old := &Stand{tb: tb, dir: local.Dir(filepath.Dir(file))}
		for _, p := range old.processes() {
			if err := p.kill(); err != nil {
				tb.Error(err)
			}
		}
		if err := os.RemoveAll(filepath.Dir(file)); err != nil {
			tb.Logf("remove what a killed test left behind: %v", err)
		}
	}
}
