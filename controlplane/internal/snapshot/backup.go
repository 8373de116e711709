package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/v3/snapshot"
	"go.uber.org/zap"

	"castellan.dev/castellan/controlplane/internal/datadir"
	"castellan.dev/castellan/controlplane/internal/etcdserver"
)

// Backup saves the control plane that is serving dir into a new archive of mode 0600.
func Backup(ctx context.Context, dir datadir.Dir, out, kubernetes string, now time.Time) (Manifest, error) {
	if err := checkSuffix(out); err != nil {
		return Manifest{}, err
	}
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, fmt.Errorf("%s exists already: choose another name", out)
	}
	if err := serving(ctx, dir); err != nil {
		return Manifest{}, err
	}
	work, err := os.MkdirTemp(filepath.Dir(out), ".castellan-backup-*")
	if err != nil {
		return Manifest{}, fmt.Errorf("create a working folder beside %s: %w", out, err)
	}
	defer func() { _ = os.RemoveAll(work) }()

	etcd := part{name: etcdName, path: filepath.Join(work, etcdName)}
	log := zap.NewNop()
	version, err := snapshot.SaveWithVersion(ctx, log, etcdserver.ClientConfig(dir, log), etcd.path)
	if err != nil {
		return Manifest{}, fmt.Errorf("take a snapshot of etcd: %w", err)
	}
	m := Manifest{Format: format, Created: now.UTC(), Kubernetes: kubernetes, Etcd: version}
	included, err := m.add(append([]part{etcd}, parts(dir)...))
	if err != nil {
		return Manifest{}, err
	}
	archive := filepath.Join(work, filepath.Base(out))
	if err := m.write(archive, included); err != nil {
		return Manifest{}, err
	}
	// A link, unlike a rename, fails when somebody created the file meanwhile.
	if err := os.Link(archive, out); err != nil {
		return Manifest{}, fmt.Errorf("put %s in place: %w", out, err)
	}
	return m, datadir.SyncDir(filepath.Dir(out))
}

func serving(ctx context.Context, dir datadir.Dir) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", dir.EtcdSocket())
	if err != nil {
		return fmt.Errorf("no control plane is serving %s: start it first, a backup is taken while it runs (%w)", dir, err)
	}
	return conn.Close()
}

// add describes the files that exist and returns them.
func (m *Manifest) add(all []part) ([]part, error) {
	var included []part
	for _, p := range all {
		file, err := describe(p.name, p.path)
		if p.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m.Files = append(m.Files, file)
		included = append(included, p)
	}
	return included, nil
}

func (m *Manifest) write(path string, from []part) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // in our own working folder
	if err != nil {
		return fmt.Errorf("create archive: %w", err)
	}
	compressed, err := compressor(path, f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	archive := tar.NewWriter(compressed)
	err = m.entries(archive, from)
	err = errors.Join(err, closeAll(archive, compressed), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func (m *Manifest) entries(archive *tar.Writer, from []part) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	if err := writeEntry(archive, File{Name: manifestName, Size: int64(len(data))}, bytes.NewReader(data), m.Created); err != nil {
		return err
	}
	for i, p := range from {
		f, err := os.Open(p.path)
		if err != nil {
			return fmt.Errorf("open %s: %w", p.path, err)
		}
		if err := errors.Join(writeEntry(archive, m.Files[i], f, m.Created), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
