// Package cluster builds a Kubernetes of several nodes on one machine and runs it: one machine of namespaces for the control
// plane, one for each node, and a network that plays the world outside. All state is in one directory; nothing leaves the host.
package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"castellan.dev/castellan/test/kube/internal/machine"
)

// Dir is the state directory of one cluster, an absolute path. Machines see it at [machine.Home].
type Dir string

// maxSocket is what the kernel takes for the path of a Unix socket.
const maxSocket = 107

// NewDir checks that a directory can hold a cluster.
func NewDir(path string) (Dir, error) {
	if path == "" {
		return "", errors.New("--dir DIR is needed: the directory that holds all of the cluster")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find the directory %s: %w", path, err)
	}
	d := Dir(abs)
	if len(d.socket()) > maxSocket {
		return "", fmt.Errorf("the path %s is too long for a Unix socket in it: choose a directory with at most %d characters", abs, maxSocket-len("/daemon.sock"))
	}
	return d, nil
}

func (d Dir) path(elements ...string) string {
	return filepath.Join(append([]string{string(d)}, elements...)...)
}

// Kubeconfig is the administrator's, for the host's own network.
func (d Dir) Kubeconfig() string { return d.path("kubeconfig") }

// StatusFile is cluster.json.
func (d Dir) StatusFile() string { return d.path("cluster.json") }

// DaemonLog is where the daemon writes once the cluster is up.
func (d Dir) DaemonLog() string { return d.path("daemon.log") }

func (d Dir) socket() string         { return d.path("daemon.sock") }
func (d Dir) lock() string           { return d.path("lock") }
func (d Dir) pki() string            { return d.path("pki") }
func (d Dir) golden() string         { return d.path("golden") }
func (d Dir) node(n string) string   { return d.path("nodes", n) }
func (d Dir) logs(m string) string   { return d.path("logs", m) }
func (d Dir) log(m, p string) string { return d.path("logs", m, p+".log") }

// inside is where a machine sees a path of the directory.
func inside(elements ...string) string {
	return filepath.Join(append([]string{machine.Home}, elements...)...)
}

func makeDirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // containers of any user pass through
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	return nil
}
