package snapshot

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"castellan.dev/castellan/controlplane/internal/datadir"
	"castellan.dev/castellan/controlplane/internal/etcdserver"
)

// revisionBump lifts the store above every revision a client of the lost control plane may have seen; together with
// marking everything before it compacted, running watches start over instead of missing events.
const revisionBump = 1_000_000_000

// Restore makes the data directory newDir from an archive. newDir must not exist or be empty; it appears complete or not
// at all.
func Restore(archive, newDir string) (Manifest, error) {
	if err := checkSuffix(archive); err != nil {
		return Manifest{}, err
	}
	target, err := emptyTarget(newDir)
	if err != nil {
		return Manifest{}, err
	}
	stage, err := os.MkdirTemp(filepath.Dir(target), ".restoring-*")
	if err != nil {
		return Manifest{}, fmt.Errorf("create a working folder beside %s: %w", target, err)
	}
	defer func() { _ = os.RemoveAll(stage) }()

	m, err := unpack(archive, datadir.Dir(stage))
	if err != nil {
		return Manifest{}, fmt.Errorf("restore from %s: %w", archive, err)
	}
	if err := restoreEtcd(datadir.Dir(stage)); err != nil {
		return Manifest{}, err
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, fmt.Errorf("replace the empty folder %s: %w", target, err)
	}
	if err := os.Rename(stage, target); err != nil {
		return Manifest{}, fmt.Errorf("put %s in place: %w", target, err)
	}
	return m, datadir.SyncDir(filepath.Dir(target))
}

func emptyTarget(newDir string) (string, error) {
	if newDir == "" {
		return "", errors.New("no data directory given: use --data NEWDIR")
	}
	target, err := filepath.Abs(newDir)
	if err != nil {
		return "", fmt.Errorf("find the absolute path of %s: %w", newDir, err)
	}
	entries, err := os.ReadDir(target)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look into %s: %w", target, err)
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("%s is not empty: restore into a new directory, nothing is ever overwritten", target)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return "", fmt.Errorf("create the parent of %s: %w", target, err)
	}
	return target, nil
}

func restoreEtcd(stage datadir.Dir) error {
	path := filepath.Join(string(stage), etcdName)
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath:        path,
		Name:                etcdserver.MemberName,
		OutputDataDir:       stage.Etcd(),
		PeerURLs:            []string{etcdserver.PeerURL},
		InitialCluster:      etcdserver.MemberName + "=" + etcdserver.PeerURL,
		InitialClusterToken: "castellan-restored",
		RevisionBump:        revisionBump,
		MarkCompacted:       true,
	})
	if err != nil {
		return fmt.Errorf("restore etcd: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the unpacked snapshot: %w", err)
	}
	return nil
}

// unpack writes the archive's files below stage, each checked against the manifest.
func unpack(archive string, stage datadir.Dir) (Manifest, error) {
	f, err := os.Open(archive) //nolint:gosec // the file the user named
	if err != nil {
		return Manifest{}, fmt.Errorf("open archive: %w", err)
	}
	defer func() { _ = f.Close() }()
	plain, err := decompressor(archive, f)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = plain.Close() }()
	entries := tar.NewReader(plain)
	m, err := readManifest(entries)
	if err != nil {
		return Manifest{}, err
	}
	missing, err := expected(m, stage)
	if err != nil {
		return Manifest{}, err
	}
	for {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Manifest{}, fmt.Errorf("read archive: %w", err)
		}
		want, ok := missing[header.Name]
		if !ok {
			return Manifest{}, fmt.Errorf("archive entry %q is not in its manifest: the archive was changed", header.Name)
		}
		delete(missing, header.Name)
		if err := want.extract(entries); err != nil {
			return Manifest{}, err
		}
	}
	for name := range missing {
		return Manifest{}, fmt.Errorf("archive lacks %s: it is incomplete", name)
	}
	return m, nil
}

func readManifest(entries *tar.Reader) (Manifest, error) {
	header, err := entries.Next()
	if err != nil {
		return Manifest{}, fmt.Errorf("read archive: %w", err)
	}
	if header.Name != manifestName {
		return Manifest{}, fmt.Errorf("first entry is %q, not %s: this is no backup of a control plane", header.Name, manifestName)
	}
	var m Manifest
	if err := json.NewDecoder(io.LimitReader(entries, maxManifest)).Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("decode manifest: %w", err)
	}
	if m.Format != format {
		return Manifest{}, fmt.Errorf("archive has format %d, this version reads %d: use the version that wrote it (Kubernetes %s)", m.Format, format, m.Kubernetes)
	}
	return m, nil
}

// destination is a file of the manifest and where it goes. Paths never come from the archive.
type destination struct {
	File
	path string
}

func expected(m Manifest, stage datadir.Dir) (map[string]destination, error) {
	known := map[string]string{etcdName: filepath.Join(string(stage), etcdName)}
	required := []string{etcdName}
	for _, p := range parts(stage) {
		known[p.name] = p.path
		if !p.optional {
			required = append(required, p.name)
		}
	}
	out := make(map[string]destination, len(m.Files))
	for _, file := range m.Files {
		path, ok := known[file.Name]
		if !ok {
			return nil, fmt.Errorf("manifest names %q, which does not belong into a backup", file.Name)
		}
		out[file.Name] = destination{file, path}
	}
	for _, name := range required {
		if _, ok := out[name]; !ok {
			return nil, fmt.Errorf("manifest lacks %s: the archive is incomplete", name)
		}
	}
	return out, nil
}

func (d destination) extract(from io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(d.path), 0o700); err != nil {
		return fmt.Errorf("create folder of %s: %w", d.Name, err)
	}
	f, err := os.OpenFile(d.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create %s: %w", d.Name, err)
	}
	sum := sha256.New()
	// One byte more than promised is enough to notice a longer file.
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(from, d.Size+1))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", d.Name, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n != d.Size || got != d.SHA256 {
		return fmt.Errorf("%s is damaged: it has sha256 %s, the manifest says %s; use another backup", d.Name, got, d.SHA256)
	}
	return nil
}
