package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxDir leaves room for the sockets below the folder: a unix socket's path has at most 107 bytes.
const maxDir = 80

// Dir is the folder of one local Castellan.
type Dir string

// DefaultDir is ~/.castellan.
func DefaultDir() (Dir, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the home folder: %w; name a folder with --dir", err)
	}
	return Dir(filepath.Join(home, ".castellan")), nil
}

// OpenDir makes the folder if needed, for its owner only.
func OpenDir(path string) (Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the absolute path of %s: %w", path, err)
	}
	if len(abs) > maxDir {
		return "", fmt.Errorf("the path %s has %d characters; at most %d leave room for the sockets in it: choose a shorter --dir", abs, len(abs), maxDir)
	}
	d := Dir(abs)
	for _, folder := range []string{abs, d.runDir(), d.LogDir(), d.credentialDir()} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return "", fmt.Errorf("make the folder of the local Castellan: %w; choose another with --dir", err)
		}
	}
	if err := os.Chmod(abs, 0o700); err != nil { //nolint:gosec // a folder needs its x bit
		return "", fmt.Errorf("make %s private: %w; choose a folder that you own with --dir", abs, err)
	}
	return d, nil
}

// Exists says whether a local Castellan was ever started in the folder.
func (d Dir) Exists() bool {
	_, err := os.Stat(d.runDir())
	return err == nil
}

func (d Dir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// Kubeconfig connects as administrator, with any client.
func (d Dir) Kubeconfig() string { return d.path("kubeconfig") }

// OperatorKubeconfig connects as the operator.
func (d Dir) OperatorKubeconfig() string { return d.path("operator.kubeconfig") }

// AgentKubeconfig connects as the agent of this machine: only its own namespace.
func (d Dir) AgentKubeconfig() string { return d.path("agent.kubeconfig") }

// AgentDir is where the agent keeps its state.
func (d Dir) AgentDir() string { return d.path("agent") }

// DataRoot is where Kafka's data goes.
func (d Dir) DataRoot() string { return d.path("data") }

// LogDir holds the logs of the server and its children.
func (d Dir) LogDir() string { return d.path("logs") }

// Log is the log file of the server or one of its children.
func (d Dir) Log(name string) string { return d.path("logs", name+".log") }

// ControlPlaneDir is the control plane's data directory.
func (d Dir) ControlPlaneDir() string { return d.path("controlplane") }

func (d Dir) adminKubeconfig() string   { return d.path("controlplane", "admin.kubeconfig") }
func (d Dir) runDir() string            { return d.path("run") }
func (d Dir) credentialDir() string     { return d.path("credentials") }
func (d Dir) token(name string) string  { return d.path("credentials", name+".token") }
func (d Dir) record(name string) string { return d.path("run", name+".json") }
func (d Dir) stateFile() string         { return d.path("run", "state.json") }
func (d Dir) lockFile() string          { return d.path("run", "server.lock") }
func (d Dir) linkKubeconfig() error {
	return replaceSymlink(filepath.Join("controlplane", "admin.kubeconfig"), d.Kubeconfig())
}

// lock is the claim of one server on a folder. The kernel drops it when the process ends, however it ends.
type lock struct{ file *os.File }

// errLocked says that a server holds the folder.
var errLocked = errors.New("a server is running")

func (d Dir) lock() (*lock, error) {
	f, err := os.OpenFile(d.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the server: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		err = errors.Join(err, f.Close())
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", d.lockFile(), err)
	}
	return &lock{file: f}, nil
}

func (l *lock) release() error { return l.file.Close() }

// serverRuns says whether a server holds the folder now.
func (d Dir) serverRuns() (bool, error) {
	l, err := d.lock()
	if errors.Is(err, errLocked) {
		return true, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return false, l.release()
}

// writeFile replaces a file at once, readable by its owner only, unless it is the same already.
func writeFile(path string, data []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) { //nolint:gosec // a file of the folder
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() //nolint:gosec // its own; gone already when all went well
	if _, err := tmp.Write(data); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), tmp.Close())
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("close %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil { //nolint:gosec // a file of the folder
		return fmt.Errorf("put %s in place: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFile(path, append(data, '\n'))
}

// readJSON reports false when the file does not exist or cannot be read as what it should be.
func readJSON(path string, v any) bool {
	data, err := os.ReadFile(path) //nolint:gosec // a file of our own folder //nolint:gosec // a file of the folder
	return err == nil && json.Unmarshal(data, v) == nil
}

func replaceSymlink(target, path string) error {
	if old, err := os.Readlink(path); err == nil && old == target {
		return nil
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	if err := os.Symlink(target, tmp); err != nil {
		return fmt.Errorf("link %s to %s: %w", path, target, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("put %s in place: %w", path, err)
	}
	return nil
}
