package debian_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"castellan.dev/castellan/images/debian"
	"castellan.dev/castellan/images/rootfs"
)

// withoutApt takes apt-get away: what the cache has must be enough.
func withoutApt(t *testing.T) {
	t.Helper()
	t.Setenv("PATH", t.TempDir())
}

func put(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCachedPackagesAreUsedWithoutApt(t *testing.T) {
	withoutApt(t)
	cache := t.TempDir()
	put(t, cache, "libc6_2.36-9_amd64.deb", "libc6-dev_2.36-9_amd64.deb", "zlib1g_1%3a1.2_amd64.deb", "zlib1g_1%3a1.2_arm64.deb")
	files, err := debian.Fetch(t.Context(), cache, []string{"zlib1g", "libc6"})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 2 || filepath.Base(files[0]) != "zlib1g_1%3a1.2_amd64.deb" || filepath.Base(files[1]) != "libc6_2.36-9_amd64.deb" {
		t.Errorf("files %q", files)
	}
}

func TestAMissingPackageAndTwoVersionsOfOneSayWhatToDo(t *testing.T) {
	withoutApt(t)
	cache := t.TempDir()
	if _, err := debian.Fetch(t.Context(), cache, []string{"libc6"}); err == nil || !strings.Contains(err.Error(), "put libc6_*_amd64.deb into "+cache) {
		t.Errorf("no package: %v", err)
	}
	put(t, cache, "libc6_1_amd64.deb", "libc6_2_amd64.deb")
	if _, err := debian.Fetch(t.Context(), cache, []string{"libc6"}); err == nil || !strings.Contains(err.Error(), "delete all but one") {
		t.Errorf("two versions: %v", err)
	}
}

func TestWhatIsNoPackageIsNamed(t *testing.T) {
	cache := t.TempDir()
	put(t, cache, "libc6_1_amd64.deb")
	file := filepath.Join(cache, "libc6_1_amd64.deb")
	err := debian.Unpack(t.Context(), rootfs.New(), file, func(name string) string { return name })
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("error %v, want one that names %s", err, file)
	}
}

func TestUsrIsMerged(t *testing.T) {
	for from, want := range map[string]string{
		"lib/x86_64-linux-gnu/libc.so.6": "usr/lib/x86_64-linux-gnu/libc.so.6", "lib64/ld.so": "usr/lib64/ld.so", "bin": "usr/bin",
		"usr/lib/x": "usr/lib/x", "library/x": "library/x",
	} {
		if got := debian.MergeUsr(from); got != want {
			t.Errorf("%s goes to %s, want %s", from, got, want)
		}
	}
}
