// Package machine makes machines out of Linux namespaces: processes of their own, mounts, host name and network, and a first
// process that supervises the others. Killing that first process is a power cut: the kernel ends every process of the
// machine and takes its mounts, loop devices and network along. It knows nothing of Kubernetes.
package machine

import (
	"encoding/json"
	"fmt"
	"os"
)

// Home is where a machine sees the directory that it shares with its host. The path is short because Unix sockets lie in it.
const Home = "/run/testkube"

// Spec is what the first process of a machine sets up and keeps running.
type Spec struct {
	Hostname string `json:"hostname"`
	// Home is the host's directory that appears as [Home].
	Home string `json:"home"`
	// Overlays are directories of the host which the machine sees, and whose changes stay its own and vanish with it.
	Overlays []string `json:"overlays,omitempty"`
	// Binds show directories below Home at fixed places.
	Binds     []Bind    `json:"binds,omitempty"`
	Processes []Process `json:"processes,omitempty"`
}

// Bind shows Home/From at To, an absolute path.
type Bind struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Process is restarted whenever it ends, with a growing pause.
type Process struct {
	Name string   `json:"name"`
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	// Log is a file; output is appended.
	Log string `json:"log"`
	// After are Unix sockets and host:port that must accept a connection before each start.
	After []string `json:"after,omitempty"`
}

func (s Spec) write(path string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the machine %s: %w", s.Hostname, err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write the machine %s: %w", s.Hostname, err)
	}
	return nil
}

func readSpec(path string) (Spec, error) {
	var s Spec
	data, err := os.ReadFile(path) //nolint:gosec // written by the process that starts the machine
	if err != nil {
		return s, fmt.Errorf("read the machine: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read the machine %s: %w", path, err)
	}
	return s, nil
}
