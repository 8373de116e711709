package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Files in a process's folder. The process itself owns only the folder "run".
const (
	orderFile  = "spec.json"
	stateFile  = "state.json"
	outputFile = "output.log"
	runFolder  = "run"
)

// maxOutput is how long the output of a process may be at its start; what is longer is set
// aside, once.
const maxOutput = 1 << 20

// order is what the agent was last asked for, as it lies on disk.
type order struct {
	Name       string                `json:"name"`
	UID        types.UID             `json:"uid"`
	Generation int64                 `json:"generation"`
	Deleting   bool                  `json:"deleting,omitempty"`
	Spec       api.HostProcessSpec   `json:"spec"`
	Status     api.HostProcessStatus `json:"-"` // as the API last showed it
	// Secrets by name; nil as long as the API server was not asked. A Secret that does not
	// exist has no entry.
	Secrets map[string]map[string][]byte `json:"-"`
}

// identity is a process for all times: a pid alone is given again to others.
type identity struct {
	PID int `json:"pid,omitempty"`
	// Ticks is the start time (field 22 of /proc/PID/stat).
	Ticks uint64 `json:"ticks,omitempty"`
	// Boot is the kernel's boot id.
	Boot string `json:"boot,omitempty"`
}

// state is what the agent did, as it lies on disk.
type state struct {
	// Token marks the process that is, or is about to be, started; empty when none runs.
	Token    string   `json:"token,omitempty"`
	Identity identity `json:"identity,omitzero"`
	// Program and Archive (its unpacked root) that were last started.
	Program     *api.Program `json:"program,omitempty"`
	ProgramHash string       `json:"programHash,omitempty"`
	StartedAt   time.Time    `json:"startedAt,omitzero"`
	// StopSince is when the process was told to end.
	StopSince time.Time `json:"stopSince,omitzero"`
	// SecretFiles that were placed, by folder.
	SecretFiles   map[string][]string `json:"secretFiles,omitempty"`
	SecretsDigest string              `json:"secretsDigest,omitempty"`
	Restarts      int32               `json:"restarts,omitempty"`
	LastExit      *api.ExitStatus     `json:"lastExit,omitempty"`
	// Killed says that the last stop took a SIGKILL.
	Killed bool `json:"killed,omitempty"`
}

// folder is where one process lives: DIR/processes/NAME.
type folder struct{ path string }

func (f folder) run() string    { return filepath.Join(f.path, runFolder) }
func (f folder) output() string { return filepath.Join(f.path, outputFile) }

// make makes the folder; the process's user may pass through it, but owns only "run".
func (f folder) make(own owner) error {
	if err := os.MkdirAll(f.path, 0o711); err != nil { //nolint:gosec // other users pass through, the folders below are closed
		return fmt.Errorf("make the process's folder: %w", err)
	}
	if err := os.Mkdir(f.run(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the process's working directory: %w", err)
	}
	if own.uid < 0 {
		return nil
	}
	if err := os.Lchown(f.run(), own.uid, own.gid); err != nil {
		return fmt.Errorf("give the working directory to its user: %w", err)
	}
	return nil
}

func (f folder) saveOrder(o order) error { return f.save(orderFile, o) }
func (f folder) saveState(s state) error { return f.save(stateFile, s) }

func (f folder) save(name string, content any) error {
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if err := f.make(nobody()); err != nil {
		return err
	}
	// Orders may hold what only the process's user should see.
	if err := (grounds{own: f.path}).write(name, data, nobody()); err != nil {
		return fmt.Errorf("remember %s: %w", name, err)
	}
	return nil
}

// load reads what was saved; nothing saved is the zero order and state.
func (f folder) load() (order, state, error) {
	var o order
	var s state
	for name, into := range map[string]any{orderFile: &o, stateFile: &s} {
		data, err := os.ReadFile(filepath.Join(f.path, name)) //nolint:gosec // a path of the agent itself
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return order{}, state{}, fmt.Errorf("read %s: %w", name, err)
		}
		if err := json.Unmarshal(data, into); err != nil {
			return order{}, state{}, fmt.Errorf("read %s of %s: %w: the agent wrote it whole, so the disk is suspect", name, f.path, err)
		}
	}
	return o, s, nil
}

func (f folder) remove() error {
	if err := os.RemoveAll(f.path); err != nil {
		return fmt.Errorf("remove the process's folder: %w", err)
	}
	return nil
}

// openOutput opens the file for a process's standard output and error.
func (f folder) openOutput() (*os.File, error) {
	if info, err := os.Stat(f.output()); err == nil && info.Size() > maxOutput {
		if err := os.Rename(f.output(), f.output()+".1"); err != nil {
			return nil, fmt.Errorf("set the old output aside: %w", err)
		}
	}
	file, err := os.OpenFile(f.output(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the output: %w", err)
	}
	return file, nil
}

func readBounded(r *os.Root, rel string, limit int64) (data []byte, err error) {
	// Not blocking: the process may have put a pipe there.
	file, err := r.OpenFile(rel, os.O_RDONLY|openNonblock, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return io.ReadAll(io.LimitReader(file, limit))
}
