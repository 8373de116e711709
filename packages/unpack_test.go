package packages_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/packages"
	"castellan.dev/castellan/packages/packagestest"
)

func untgz(t *testing.T, file string) []byte {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func provide(t *testing.T, s *packages.Store, spec packages.Spec) packages.Provided {
	t.Helper()
	p, err := s.Provide(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProvideUnpacksAndKeeps(t *testing.T) {
	spec, _ := packagestest.Kafka(t, t.TempDir(), "4.3.1")
	s := newStore(t)
	p := provide(t, s, spec)
	text, err := os.ReadFile(filepath.Join(p.Libs(), "kafka-clients-4.3.1.jar"))
	if err != nil || string(text) != "the clients of 4.3.1" {
		t.Errorf("got %q, %v", text, err)
	}
	info, err := os.Stat(filepath.Join(p.Dir, "bin", "kafka-run-class.sh"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("script: %v, %v", info, err)
	}
	if err := s.VerifyUnpacked(t.Context(), p.Digest); err != nil {
		t.Error(err)
	}
	if again := provide(t, s, spec); !cmp.Equal(p, again) {
		t.Errorf("again: %s", cmp.Diff(p, again))
	}
	leftovers(t, s)
}

func TestProvideFindsAndReplacesADamagedTree(t *testing.T) {
	const jar = "kafka_2.13-4.3.1.jar"
	for _, c := range []struct {
		reason string
		harm   func(t *testing.T, p packages.Provided) error
		want   string
	}{
		{"a flipped byte", func(t *testing.T, p packages.Provided) error {
			t.Helper()
			packagestest.FlipByte(t, filepath.Join(p.Libs(), jar))
			return nil
		}, jar + " is damaged or is not the file it should be: expected sha256:"},
		{"a flipped byte in the manifest", func(t *testing.T, p packages.Provided) error {
			t.Helper()
			packagestest.FlipByte(t, filepath.Join(p.Dir, "../../manifest.json"))
			return nil
		}, "manifest.json"},
		{"no manifest", func(_ *testing.T, p packages.Provided) error {
			return os.Remove(filepath.Join(p.Dir, "../../manifest.json"))
		}, "manifest.json"},
		{"an emptied file", func(_ *testing.T, p packages.Provided) error {
			return os.Truncate(filepath.Join(p.Libs(), jar), 0)
		}, "found 0 bytes"},
		{"a missing file", func(_ *testing.T, p packages.Provided) error {
			return os.Remove(filepath.Join(p.Libs(), jar))
		}, "found no such file"},
		{"no files at all", func(_ *testing.T, p packages.Provided) error {
			return os.RemoveAll(filepath.Dir(p.Dir))
		}, "and 1 more files"},
		{"a file where a folder was", func(_ *testing.T, p packages.Provided) error {
			return errors.Join(os.RemoveAll(p.Libs()), os.WriteFile(p.Libs(), nil, 0o600))
		}, jar},
		{"a jar too many", func(_ *testing.T, p packages.Provided) error {
			return os.WriteFile(filepath.Join(p.Libs(), "planted.jar"), nil, 0o600)
		}, "planted.jar"},
		{"a link in place of a jar", func(_ *testing.T, p packages.Provided) error {
			path := filepath.Join(p.Libs(), jar)
			return errors.Join(os.Rename(path, filepath.Join(p.Dir, "../../moved")), os.Symlink("../../../moved", path))
		}, jar},
	} {
		t.Run(c.reason, func(t *testing.T) {
			spec, archive := packagestest.Kafka(t, t.TempDir(), "4.3.1")
			s := newStore(t)
			p := provide(t, s, spec)
			if err := os.Remove(archive.Path); err != nil { // the archive in the store must do
				t.Fatal(err)
			}
			if err := c.harm(t, p); err != nil {
				t.Fatal(err)
			}
			err := s.VerifyUnpacked(t.Context(), p.Digest)
			var bad *packages.DamageError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("verify: %v, want it to tell of %q", err, c.want)
			}
			again := provide(t, s, spec)
			if len(again.Repaired) != 1 || !strings.Contains(again.Repaired[0], c.want) || again.Dir != p.Dir {
				t.Errorf("got %+v", again)
			}
			if err := s.VerifyUnpacked(t.Context(), p.Digest); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestProvideReplacesBothADamagedTreeAndArchive(t *testing.T) {
	spec, _ := packagestest.Kafka(t, t.TempDir(), "4.3.1")
	s := newStore(t)
	p := provide(t, s, spec)
	a, err := s.Artifact(p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	packagestest.FlipByte(t, a.Path)
	packagestest.FlipByte(t, filepath.Join(p.Libs(), "kafka_2.13-4.3.1.jar"))
	again := provide(t, s, spec)
	if len(again.Repaired) != 2 || !strings.Contains(again.Repaired[1], "fetched again") {
		t.Errorf("got %q", again.Repaired)
	}
}

func TestUnpackRefusesADamagedArchive(t *testing.T) {
	for _, c := range []struct {
		reason string
		harm   func(path string) error
	}{
		{"flipped", func(path string) error { packagestest.FlipByte(t, path); return nil }},
		{"truncated", func(path string) error { return os.Truncate(path, 40) }},
	} {
		spec, _ := packagestest.Kafka(t, t.TempDir(), "4.3.1")
		s := newStore(t)
		a, err := s.Fetch(t.Context(), spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.harm(a.Path); err != nil {
			t.Fatal(err)
		}
		_, err = s.Unpack(t.Context(), a.Digest, nil)
		var wrong *packages.DigestError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), a.Path) || !strings.Contains(err.Error(), "must be fetched again") {
			t.Errorf("%s: got %v", c.reason, err)
		}
		if _, err := os.Stat(a.Path); err == nil {
			t.Errorf("%s: not set aside", c.reason)
		}
		leftovers(t, s)
	}
}

func TestWhatAKilledProcessLeftIsNeverUsed(t *testing.T) {
	spec, _ := packagestest.Kafka(t, t.TempDir(), "4.3.1")
	s := newStore(t)
	a, err := s.Fetch(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Half an archive, half a tree, and a tree that was set aside but not yet replaced.
	half := filepath.Join(s.Dir, "tmp", "unpack-1", "files", a.Root, "libs")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{filepath.Join(half, "kafka-clients-4.3.1.jar"), filepath.Join(s.Dir, "tmp", "archive")} {
		if err := os.WriteFile(file, []byte("ha"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := provide(t, s, spec)
	if err := s.VerifyUnpacked(t.Context(), p.Digest); err != nil {
		t.Error(err)
	}
	leftovers(t, s)
}

func TestUnsafeArchivesAreRefused(t *testing.T) {
	jar := &tar.Header{Typeflag: tar.TypeReg, Name: "k/libs/a.jar", Mode: 0o644, Size: 1}
	contents := map[string]string{"k/libs/a.jar": "a", "../evil": "e", "/evil": "e", "k/../../evil": "e", "k/in/evil": "e"}
	file := func(name string) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: 1}
	}
	link := func(name, target string) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
	}
	for _, c := range []struct {
		reason  string
		headers []*tar.Header
		want    string
	}{
		{"out by dot-dot", []*tar.Header{jar, file("../evil")}, "out of the tree"},
		{"out by dot-dot within", []*tar.Header{jar, file("k/../../evil")}, "out of the tree"},
		{"absolute", []*tar.Header{jar, file("/evil")}, "out of the tree"},
		{"link out", []*tar.Header{jar, link("k/l", "../../etc")}, "out of the tree"},
		{"absolute link", []*tar.Header{jar, link("k/l", "/etc/passwd")}, "out of the tree"},
		{"link that climbs from another", []*tar.Header{jar, link("k/x/l", "../libs"), link("k/m", "x/l/../../..")}, "out of the tree"},
		{"file written through a link", []*tar.Header{jar, link("k/in", "libs"), file("k/in/evil")}, "exists"},
		{"hard link", []*tar.Header{jar, {Typeflag: tar.TypeLink, Name: "k/l", Linkname: "k/libs/a.jar"}}, "only files"},
		{"device", []*tar.Header{jar, {Typeflag: tar.TypeChar, Name: "k/null", Devmajor: 1, Devminor: 3}}, "only files"},
		{"pipe", []*tar.Header{jar, {Typeflag: tar.TypeFifo, Name: "k/pipe"}}, "only files"},
		{"same file twice", []*tar.Header{jar, jar}, "exists"},
		{"nothing", nil, "no file"},
	} {
		t.Run(c.reason, func(t *testing.T) {
			dir := t.TempDir()
			a := packagestest.Write(t, filepath.Join(dir, "k.tgz"), packagestest.Gzip(t, packagestest.Tar(t, c.headers, contents)))
			s := newStore(t)
			_, err := s.Provide(t.Context(), packages.Spec{Product: "Probe", Version: "1", Sources: []packages.Source{a.Source()}}, nil)
			refused(t, err, c.want)
			leftovers(t, s)
			for _, out := range []string{filepath.Join(filepath.Dir(s.Dir), "evil"), filepath.Join(s.Dir, "evil"), filepath.Join(s.Dir, "tmp", "evil"), "/evil"} {
				if _, err := os.Lstat(out); err == nil {
					t.Errorf("%s was written", out)
				}
			}
		})
	}
}

func TestLinksWithinTheTreeAreKept(t *testing.T) {
	headers := []*tar.Header{
		{Typeflag: tar.TypeReg, Name: "jre/legal/base/LICENSE", Mode: 0o644, Size: 1},
		{Typeflag: tar.TypeSymlink, Name: "jre/legal/other/LICENSE", Linkname: "../base/LICENSE"},
		{Typeflag: tar.TypeDir, Name: "jre/empty/", Mode: 0o700},
	}
	a := packagestest.Write(t, filepath.Join(t.TempDir(), "jre.tar"), packagestest.Tar(t, headers, map[string]string{"jre/legal/base/LICENSE": "x"}))
	s := newStore(t)
	p := provide(t, s, packages.Spec{Product: "JRE", Version: "17", Sources: []packages.Source{a.Source()}})
	text, err := os.ReadFile(filepath.Join(p.Dir, "legal/other/LICENSE"))
	if err != nil || string(text) != "x" {
		t.Errorf("got %q, %v", text, err)
	}
	if err := s.VerifyUnpacked(t.Context(), p.Digest); err != nil {
		t.Error(err)
	}
}

func TestAbsurdSizesAreRefused(t *testing.T) {
	spec, _ := packagestest.Kafka(t, t.TempDir(), "4.3.1")
	for _, limits := range []packages.Limits{
		{ArchiveBytes: 1 << 20, FileBytes: 5, UnpackedBytes: 1 << 20, Entries: 100},
		{ArchiveBytes: 1 << 20, FileBytes: 1 << 20, UnpackedBytes: 20, Entries: 100},
		{ArchiveBytes: 1 << 20, FileBytes: 1 << 20, UnpackedBytes: 1 << 20, Entries: 2},
	} {
		s := newStore(t)
		s.Limits = limits
		_, err := s.Fetch(t.Context(), spec, nil)
		refused(t, err, "more than")
	}
}

func TestPruneRemovesOnlyWhatIsUnreferencedAndOld(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t)
	var digests []packages.Digest
	for _, version := range []string{"1.0", "2.0", "3.0"} {
		spec, _ := packagestest.Kafka(t, dir, version)
		digests = append(digests, provide(t, s, spec).Digest)
	}
	now := time.Now()
	if removed, err := s.Prune(t.Context(), nil, now.Add(-time.Hour)); err != nil || len(removed) != 0 {
		t.Errorf("young packages: removed %v, %v", removed, err)
	}
	removed, err := s.Prune(t.Context(), digests[:2], now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(digests[2:], removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	for i, d := range digests {
		err := s.VerifyUnpacked(t.Context(), d)
		if (err == nil) != (i < 2) {
			t.Errorf("%d: %v", i, err)
		}
	}
	for folder, want := range map[string]int{"archives": 2, "records": 2, "refs": 2, "unpacked": 2, "damaged": 0, "tmp": 0} {
		entries, err := os.ReadDir(filepath.Join(s.Dir, folder))
		if err != nil || len(entries) != want {
			t.Errorf("%s: %d entries, want %d (%v)", folder, len(entries), want, err)
		}
	}
}

func TestIntactMendsATreeFromTheStoreAlone(t *testing.T) {
	sources := t.TempDir()
	spec, _ := packagestest.Kafka(t, sources, "4.3.1")
	s := newStore(t)
	p := provide(t, s, spec)
	if err := os.RemoveAll(sources); err != nil {
		t.Fatal(err)
	}
	packagestest.FlipByte(t, filepath.Join(p.Libs(), "kafka-clients-4.3.1.jar"))
	mended, err := s.Intact(t.Context(), p.Digest, nil)
	if err != nil || len(mended.Repaired) != 1 || !strings.Contains(mended.Repaired[0], "kafka-clients-4.3.1.jar") {
		t.Fatalf("got %+v, %v: want one repair that names the jar", mended, err)
	}
	if err := s.VerifyUnpacked(t.Context(), p.Digest); err != nil {
		t.Error(err)
	}
	again, err := s.Intact(t.Context(), p.Digest, nil)
	if err != nil || len(again.Repaired) != 0 || again.Dir != p.Dir {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := s.Intact(t.Context(), "sha256:"+packages.Digest(strings.Repeat("0", 64)), nil); err == nil {
		t.Error("an archive that is not in the store was given")
	}
}
