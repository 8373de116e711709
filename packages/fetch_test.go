package packages_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"castellan.dev/castellan/packages"
	"castellan.dev/castellan/packages/packagestest"
)

func newStore(t *testing.T) *packages.Store {
	t.Helper()
	return &packages.Store{Dir: filepath.Join(t.TempDir(), "store")}
}

// leftovers are files that only a running fetch may have.
func leftovers(t *testing.T, s *packages.Store) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Dir, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func refused(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("not refused")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v\ndoes not tell of %q", err, w)
		}
	}
}

func TestFetchTakesAPathAFileURLAndAServer(t *testing.T) {
	dir := t.TempDir()
	spec, archive := packagestest.Kafka(t, dir, "4.3.1")
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	for _, url := range []string{archive.Path, "file://" + archive.Path, server.URL + "/" + filepath.Base(archive.Path)} {
		s := newStore(t)
		spec.Sources = []packages.Source{{URL: url, SHA512: strings.ToUpper(archive.SHA512)}}
		a, err := s.Fetch(t.Context(), spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.Digest != packages.Digest("sha256:"+archive.SHA256) || a.Root != "kafka_2.13-4.3.1" || a.Size == 0 {
			t.Errorf("%s: got %+v", url, a)
		}
		leftovers(t, s)
	}
}

func TestFetchAsksTheSourceOnce(t *testing.T) {
	dir := t.TempDir()
	spec, archive := packagestest.Kafka(t, dir, "4.3.1")
	s := newStore(t)
	first, err := s.Fetch(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(archive.Path); err != nil {
		t.Fatal(err)
	}
	again, err := s.Fetch(t.Context(), spec, nil)
	if err != nil || again != first {
		t.Errorf("got %+v, %v; want %+v", again, err, first)
	}
	// A node pinned to the archive needs no source that still works.
	spec.Digest, spec.Sources = first.Digest, []packages.Source{{Cache: "/nowhere"}}
	if pinned, err := s.Fetch(t.Context(), spec, nil); err != nil || pinned != first {
		t.Errorf("pinned: got %+v, %v", pinned, err)
	}
}

func TestFetchTriesSourcesInOrderAndTellsAllThatFailed(t *testing.T) {
	dir := t.TempDir()
	spec, archive := packagestest.Kafka(t, dir, "4.3.1")
	good := spec.Sources[0]
	missing := packages.Source{URL: filepath.Join(dir, "missing.tgz"), SHA512: archive.SHA512}
	empty := packages.Source{Cache: t.TempDir()}
	s := newStore(t)

	spec.Sources = []packages.Source{missing, empty}
	_, err := s.Fetch(t.Context(), spec, nil)
	refused(t, err, "Kafka 4.3.1 could not be fetched: neither from "+missing.URL, "; nor from cache folder", "put one of kafka-4.3.1.tgz")
	var sources *packages.SourcesError
	if !errors.As(err, &sources) || len(sources.Causes) != 2 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %#v", err)
	}

	spec.Sources = []packages.Source{missing, good}
	if _, err := s.Fetch(t.Context(), spec, nil); err != nil {
		t.Error(err)
	}
}

func TestFetchRefusesADamagedSource(t *testing.T) {
	dir := t.TempDir()
	spec, archive := packagestest.Kafka(t, dir, "4.3.1")
	packagestest.FlipByte(t, archive.Path)
	s := newStore(t)
	_, err := s.Fetch(t.Context(), spec, nil)
	refused(t, err, archive.Path, "expected sha512:"+archive.SHA512, "found sha512:", "get it again")
	if _, ok := errors.AsType[*packages.DigestError](err); !ok {
		t.Errorf("got %#v", err)
	}
	if all, err := s.Artifacts(); err != nil || len(all) != 0 {
		t.Errorf("kept %v, %v", all, err)
	}
	leftovers(t, s)
}

func TestFetchNoticesATruncatedDownload(t *testing.T) {
	spec, archive := packagestest.Kafka(t, t.TempDir(), "4.3.1")
	content, err := os.ReadFile(archive.Path)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/promised": // the connection ends early
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write(content[:len(content)/2])
		case "/silent": // the server thinks that this is all
			_, _ = w.Write(content[:len(content)/2])
		case "/page":
			http.Error(w, "gone", http.StatusGone)
		}
	}))
	defer server.Close()
	for path, want := range map[string]string{"/promised": "cut off after", "/silent": "expected sha512:", "/page": "410 Gone"} {
		s := newStore(t)
		spec.Sources = []packages.Source{{URL: server.URL + path, SHA512: archive.SHA512}}
		_, err := s.Fetch(t.Context(), spec, nil)
		refused(t, err, want, server.URL+path)
		leftovers(t, s)
	}
}

func TestFetchGivesUpOnASilentServer(t *testing.T) {
	spec, archive := packagestest.Kafka(t, t.TempDir(), "4.3.1")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("a few bytes"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	s := newStore(t)
	s.Idle = 50 * time.Millisecond
	spec.Sources = []packages.Source{{URL: server.URL, SHA512: archive.SHA512}}
	_, err := s.Fetch(t.Context(), spec, nil)
	refused(t, err, "nothing was received for 50ms")
}

func TestFetchRefusesWhatIsTooLargeAndWhatHasNoRoom(t *testing.T) {
	spec, archive := packagestest.Kafka(t, t.TempDir(), "4.3.1")
	s := newStore(t)
	s.Limits = packages.DefaultLimits()
	s.Limits.ArchiveBytes = 10
	_, err := s.Fetch(t.Context(), spec, nil)
	refused(t, err, "more than the limit of 10")

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush() // no Content-Length
		_, _ = w.Write(make([]byte, 100))
	}))
	defer server.Close()
	spec.Sources = []packages.Source{{URL: server.URL, SHA512: archive.SHA512}}
	_, err = s.Fetch(t.Context(), spec, nil)
	refused(t, err, "more than the limit of 10")
}

func TestFetchHealsADamagedArchiveFromItsSource(t *testing.T) {
	spec, archive := packagestest.Kafka(t, t.TempDir(), "4.3.1")
	s := newStore(t)
	a, err := s.Fetch(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	packagestest.FlipByte(t, a.Path)
	var told []string
	again, err := s.Fetch(t.Context(), spec, func(u packages.Update) { told = append(told, u.Text) })
	if err != nil || again != a {
		t.Errorf("got %+v, %v", again, err)
	}
	if all := strings.Join(told, "\n"); !strings.Contains(all, a.Path) || !strings.Contains(all, "expected "+string(a.Digest)) {
		t.Errorf("told %s", all)
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "damaged", filepath.Base(a.Path))); err != nil {
		t.Errorf("not set aside: %v", err)
	}

	packagestest.FlipByte(t, a.Path)
	if err := os.Remove(archive.Path); err != nil {
		t.Fatal(err)
	}
	_, err = s.Fetch(t.Context(), spec, nil)
	refused(t, err, archive.Path, a.Path, "expected "+string(a.Digest))
}

func TestFetchRefusesAnArchiveOfAnotherVersion(t *testing.T) {
	spec, _ := packagestest.Kafka(t, t.TempDir(), "4.2.1")
	spec.Version = "4.3.1"
	_, err := newStore(t).Fetch(t.Context(), spec, nil)
	refused(t, err, "is not Kafka 4.3.1", "libs/kafka_2.1[0-9]-4.3.1.jar", "correct the package's version or its source")
}

func TestFetchHealsALostOrDamagedRecord(t *testing.T) {
	spec, _ := packagestest.Kafka(t, t.TempDir(), "4.3.1")
	s := newStore(t)
	a, err := s.Fetch(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(s.Dir, "records", filepath.Base(a.Path)+".json")
	for reason, harm := range map[string]func(){
		"damaged": func() { packagestest.FlipByte(t, record) },
		"lost":    func() { _ = os.Remove(record) },
	} {
		harm()
		if _, err := s.Artifact(a.Digest); err == nil {
			t.Errorf("%s: not noticed", reason)
		}
		if again, err := s.Fetch(t.Context(), spec, nil); err != nil || again != a {
			t.Errorf("%s: got %+v, %v", reason, again, err)
		}
	}
}

func TestFetchFromACacheFolder(t *testing.T) {
	dir := t.TempDir()
	spec, archive := packagestest.Kafka(t, dir, "4.3.1")
	spec.Sources = []packages.Source{{Cache: dir}}
	s := newStore(t)
	_, err := s.Fetch(t.Context(), spec, nil)
	refused(t, err, "kafka-4.3.1.tgz.sha512", "put the published checksum file there")

	sum := filepath.Join(dir, "kafka-4.3.1.tgz.sha512")
	if err := os.WriteFile(sum, []byte("kafka-4.3.1.tgz: "+strings.ToUpper(archive.SHA512)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := s.Fetch(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}

	// That store is a cache folder for another one.
	other := newStore(t)
	spec.Sources = []packages.Source{{Cache: s.Dir}}
	b, err := other.Fetch(t.Context(), spec, nil)
	if err != nil || b.Digest != a.Digest || b.Path == a.Path {
		t.Errorf("got %+v, %v", b, err)
	}
	packagestest.FlipByte(t, a.Path)
	_, err = newStore(t).Fetch(t.Context(), spec, nil)
	refused(t, err, a.Path, "expected "+string(a.Digest))
}

func TestFetchKeepsToThePinnedArchive(t *testing.T) {
	spec, archive := packagestest.Kafka(t, t.TempDir(), "4.3.1")
	spec.Digest = packages.Digest("sha256:" + strings.Repeat("ab", 32))
	s := newStore(t)
	_, err := s.Fetch(t.Context(), spec, nil)
	refused(t, err, "expected "+string(spec.Digest), "found sha256:"+archive.SHA256, "another build")

	catalog, err := packages.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	builtin, err := catalog.Find("Kafka", "4.3.1")
	if err != nil {
		t.Fatal(err)
	}
	builtin.Digest = spec.Digest
	s.Mvn = "false" // must not even be asked
	_, err = s.Fetch(t.Context(), builtin, nil)
	refused(t, err, "it makes the archive sha256:", "wanted is "+string(spec.Digest))
}

func TestArchivesOfEveryFormat(t *testing.T) {
	dir := t.TempDir()
	_, tgz := packagestest.Kafka(t, dir, "4.3.1")
	plain := untgz(t, tgz.Path)
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"k.tar": plain, "k.tar.zst": z.EncodeAll(plain, nil)} {
		a := packagestest.Write(t, filepath.Join(dir, name), content)
		s := newStore(t)
		spec := packages.Spec{Product: "Kafka", Version: "4.3.1", Sources: []packages.Source{a.Source()}}
		p, err := s.Provide(t.Context(), spec, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(p.Libs(), "kafka-clients-4.3.1.jar")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConcurrentUsersFetchOnce(t *testing.T) {
	dir := t.TempDir()
	spec, archive := packagestest.Kafka(t, dir, "4.3.1")
	var mu sync.Mutex
	requests := 0
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		requests++
		mu.Unlock()
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	spec.Sources = []packages.Source{{URL: server.URL + "/kafka-4.3.1.tgz", SHA512: archive.SHA512}}
	folder := newStore(t).Dir
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			// A store of its own shares nothing but the folder, as another process would.
			s := &packages.Store{Dir: folder}
			if _, err := s.Provide(t.Context(), spec, nil); err != nil {
				t.Error(err)
			}
		})
	}
	users.Wait()
	if requests != 1 {
		t.Errorf("the server was asked %d times", requests)
	}
}
