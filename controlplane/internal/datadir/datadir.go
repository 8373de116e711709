// Package datadir knows the layout of a control plane's data directory: where each file lies, who may read it, and which
// process holds it. It never decides what is written into a file.
package datadir

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxRoot keeps the etcd socket below the 108 bytes a Unix socket address may have.
const maxRoot = 95

// Dir is the absolute path of a data directory.
type Dir string

// Open creates the directory if needed, makes it accessible to its owner only and returns it as an absolute path.
func Open(root string) (Dir, error) {
	if root == "" {
		return "", errors.New("no data directory given: use --data DIR")
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("find the absolute path of %s: %w", root, err)
	}
	if len(abs) > maxRoot {
		return "", fmt.Errorf("data directory %s has %d characters, the etcd socket in it allows %d: choose a shorter path", abs, len(abs), maxRoot)
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return "", fmt.Errorf("create data directory: %w", err)
	}
	if err := os.Chmod(abs, 0o700); err != nil { //nolint:gosec // a directory needs its x bit
		return "", fmt.Errorf("make data directory private: %w (use a directory that this user owns)", err)
	}
	return Dir(abs), nil
}

// Existing returns a data directory that some start made, and changes nothing.
func Existing(root string) (Dir, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("find the absolute path of %s: %w", root, err)
	}
	if _, err := os.Stat(Dir(abs).CACert()); err != nil {
		return "", fmt.Errorf("%s is no data directory of a control plane: %w", abs, err)
	}
	return Dir(abs), nil
}

func (d Dir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// CACert is the certificate of the authority that signs every other one.
func (d Dir) CACert() string { return d.path("pki", "ca.crt") }

// CAKey is the authority's private key.
func (d Dir) CAKey() string { return d.path("pki", "ca.key") }

// ServingCert is the certificate the API server shows.
func (d Dir) ServingCert() string { return d.path("pki", "serving.crt") }

// ServingKey is the private key of ServingCert.
func (d Dir) ServingKey() string { return d.path("pki", "serving.key") }

// AdminCert is the administrator's client certificate.
func (d Dir) AdminCert() string { return d.path("pki", "admin.crt") }

// AdminKey is the private key of AdminCert.
func (d Dir) AdminKey() string { return d.path("pki", "admin.key") }

// ServiceAccountKey signs service account tokens.
func (d Dir) ServiceAccountKey() string { return d.path("pki", "sa.key") }

// ServiceAccountPub verifies service account tokens.
func (d Dir) ServiceAccountPub() string { return d.path("pki", "sa.pub") }

// Encryption is the EncryptionConfiguration with the key of Secrets at rest.
func (d Dir) Encryption() string { return d.path("pki", "encryption.yaml") }

// AuditPolicy is the audit policy in force; written at each start.
func (d Dir) AuditPolicy() string { return d.path("audit-policy.yaml") }

// AuditLog is where the audit log goes unless told otherwise.
func (d Dir) AuditLog() string { return d.path("audit", "audit.log") }

// Authentication is the AuthenticationConfiguration in force; written at each start.
func (d Dir) Authentication() string { return d.path("authentication.yaml") }

// AdminKubeconfig connects as administrator, with its certificates embedded.
func (d Dir) AdminKubeconfig() string { return d.path("admin.kubeconfig") }

// Etcd is etcd's own data directory.
func (d Dir) Etcd() string { return d.path("etcd") }

// EtcdSocket is the only address etcd listens on.
func (d Dir) EtcdSocket() string { return d.path("etcd.sock") }

// PortFile keeps the port chosen on the first start.
func (d Dir) PortFile() string { return d.path("secure-port") }

// InstanceFile keeps the name by which this instance holds leases.
func (d Dir) InstanceFile() string { return d.path("instance-id") }

// LockFile is held by the one process that serves this directory.
func (d Dir) LockFile() string { return d.path("lock") }

// HasState says whether etcd has ever run here.
func (d Dir) HasState() (bool, error) {
	_, err := os.Stat(filepath.Join(d.Etcd(), "member"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for etcd data: %w", err)
	}
	return true, nil
}

// KeptPort is the port chosen on an earlier start, 0 when there is none.
func (d Dir) KeptPort() (int, error) {
	raw, err := os.ReadFile(d.PortFile())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the kept port: %w", err)
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || port < 1 || port > 65535 {
		return 0, fmt.Errorf("%s holds %q, not a port: correct it or remove the file to pick a new port", d.PortFile(), strings.TrimSpace(string(raw)))
	}
	return port, nil
}

// KeepPort remembers the port for the next start.
func (d Dir) KeepPort(port int) error {
	return WriteFile(d.PortFile(), []byte(strconv.Itoa(port)+"\n"))
}

// Instance is the stable name of this instance, made on first use. It outlives a crash, so that a restarted process takes
// its own lease back at once instead of waiting for it to expire.
func (d Dir) Instance() (string, error) {
	raw, err := os.ReadFile(d.InstanceFile())
	if err == nil && strings.TrimSpace(string(raw)) != "" {
		return strings.TrimSpace(string(raw)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the instance name: %w", err)
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // crypto/rand.Read never fails since Go 1.24
	name := "controlplane-" + hex.EncodeToString(id)
	return name, WriteFile(d.InstanceFile(), []byte(name+"\n"))
}

// WriteFile replaces path at once and durably, readable by its owner only. Missing folders are made, private too.
func WriteFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("create folder of %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already when all went well
	if _, err := tmp.Write(data); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), tmp.Close())
	}
	if err := tmp.Sync(); err != nil {
		return errors.Join(fmt.Errorf("flush %s: %w", path, err), tmp.Close())
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("close %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("put %s in place: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes renames in a folder durable.
func SyncDir(path string) error {
	f, err := os.Open(path) //nolint:gosec // callers form the path
	if err != nil {
		return fmt.Errorf("open folder %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("flush folder %s: %w", path, err), f.Close())
	}
	return f.Close()
}
