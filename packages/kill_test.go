package packages_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"castellan.dev/castellan/packages"
	"castellan.dev/castellan/packages/packagestest"
)

// victimEnv makes the test binary a process that provides a package and may be killed while it does.
const victimEnv = "CASTELLAN_TEST_VICTIM"

func TestMain(m *testing.M) {
	if job := os.Getenv(victimEnv); job != "" {
		os.Exit(victim(job))
	}
	os.Exit(m.Run())
}

type job struct {
	Dir  string
	Spec packages.Spec
}

func victim(text string) int {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return 2
	}
	s := &packages.Store{Dir: j.Dir}
	if _, err := s.Provide(context.Background(), j.Spec, nil); err != nil {
		return 1
	}
	return 0
}

func TestKilledAtAnyMomentNothingIsHalfDone(t *testing.T) {
	noise := make([]byte, 200<<10)
	random := rand.NewChaCha8([32]byte{1})
	files := map[string]string{}
	for i := range 50 {
		_, _ = random.Read(noise)
		files[fmt.Sprintf("probe/libs/%d.jar", i)] = string(noise)
	}
	archive := packagestest.Tgz(t, filepath.Join(t.TempDir(), "probe.tgz"), files)
	j := job{Dir: newStore(t).Dir, Spec: packages.Spec{Product: "Probe", Version: "1", Sources: []packages.Source{archive.Source()}}}
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	s := &packages.Store{Dir: j.Dir}
	digest := packages.Digest("sha256:" + archive.SHA256)
	killed := 0
	for wait := 5 * time.Millisecond; wait < 2*time.Second; wait += 15 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), victimEnv+"="+string(text))
		err := cmd.Run()
		timedOut := ctx.Err() != nil
		cancel()
		if err != nil && !timedOut {
			t.Fatalf("after %d kills it fails by itself: %v", killed, err)
		}
		if err := s.VerifyUnpacked(t.Context(), digest); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("killed after %s: %v", wait, err)
		}
		if err == nil {
			break
		}
		killed++
	}
	p := provide(t, s, j.Spec)
	if killed == 0 || len(p.Repaired) > 0 || p.Digest != digest {
		t.Errorf("killed %d times, then got %+v", killed, p)
	}
	leftovers(t, s)
}
