package snapshot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"castellan.dev/castellan/controlplane/internal/datadir"
)

// archive writes an archive as Backup does, after change had its way with the manifest and the parts.
func archive(t *testing.T, name string, change func(m *Manifest, from *[]part)) string {
	t.Helper()
	source := datadir.Dir(t.TempDir())
	etcd := part{name: etcdName, path: filepath.Join(string(source), etcdName)}
	all := append([]part{etcd}, parts(source)...)
	for _, p := range all {
		if err := datadir.WriteFile(p.path, []byte("content of "+p.name)); err != nil {
			t.Fatal(err)
		}
	}
	m := Manifest{Format: format, Created: time.Unix(0, 0)}
	from, err := m.add(all)
	if err != nil {
		t.Fatal(err)
	}
	change(&m, &from)
	path := filepath.Join(t.TempDir(), name)
	if err := m.write(path, from); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnpackReadsBothFormats(t *testing.T) {
	for _, name := range []string{"b.tar.zst", "b.tar.gz"} {
		stage := datadir.Dir(t.TempDir())
		if _, err := unpack(archive(t, name, func(*Manifest, *[]part) {}), stage); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got, err := os.ReadFile(stage.CAKey())
		if err != nil || string(got) != "content of pki/ca.key" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestUnpackRefuses(t *testing.T) {
	tests := []struct {
		reason string
		change func(m *Manifest, from *[]part)
		want   string
	}{
		{"a wrong sum", func(m *Manifest, _ *[]part) { m.Files[2].SHA256 = strings.Repeat("0", 64) }, "damaged"},
		{"a foreign file", func(m *Manifest, _ *[]part) { m.Files[2].Name = "../../etc/passwd" }, "does not belong"},
		{"a missing file", func(m *Manifest, from *[]part) { m.Files, *from = m.Files[1:], (*from)[1:] }, "lacks etcd.snapshot"},
		{"a promised file that is not there", func(_ *Manifest, from *[]part) { *from = (*from)[:3] }, "incomplete"},
		{"a newer format", func(m *Manifest, _ *[]part) { m.Format = 99 }, "format 99"},
	}
	for _, test := range tests {
		t.Run(test.reason, func(t *testing.T) {
			_, err := unpack(archive(t, "b.tar.gz", test.change), datadir.Dir(t.TempDir()))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestFailedRestoreLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	broken := archive(t, "b.tar.zst", func(m *Manifest, _ *[]part) { m.Files[1].SHA256 = "00" })
	if _, err := Restore(broken, filepath.Join(parent, "new")); err == nil {
		t.Fatal("a damaged archive was restored")
	}
	left, err := os.ReadDir(parent)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestNamesMustTellTheFormat(t *testing.T) {
	if err := checkSuffix("backup.zip"); err == nil {
		t.Error("backup.zip passed")
	}
}
