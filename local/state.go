package local

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Phase is how far the server is.
type Phase string

// The phases of a server.
const (
	PhaseStarting Phase = "Starting"
	PhaseReady    Phase = "Ready"
	PhaseStopping Phase = "Stopping"
	PhaseStopped  Phase = "Stopped"
)

// Names of the server's children, in the order in which they start.
const (
	ControlPlane = "controlplane"
	Operator     = "operator"
	Agent        = "agent"
)

// State is what the server says of itself and its children, in a file that others read.
type State struct {
	Server identity `json:"server"`
	// Program tells one build from another, see [fingerprint].
	Program string `json:"program"`
	Version string `json:"version"`
	Phase   Phase  `json:"phase"`
	// Message says what the server is doing or waits for.
	Message  string                `json:"message,omitempty"`
	Children map[string]ChildState `json:"children,omitempty"`
}

// ChildState is one child of the server.
type ChildState struct {
	Running   bool      `json:"running"`
	PID       int       `json:"pid,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	// Exits counts ends that nobody asked for; LastExit says how the last one was.
	Exits    int    `json:"exits,omitempty"`
	LastExit string `json:"lastExit,omitempty"`
}

// board keeps the State and writes it down when it changes.
type board struct {
	dir   Dir
	mu    sync.Mutex
	state State
}

func (b *board) update(change func(*State)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.Children = maps.Clone(b.state.Children)
	if b.state.Children == nil {
		b.state.Children = map[string]ChildState{}
	}
	change(&b.state)
	return writeJSON(b.dir.stateFile(), b.state)
}

// readState returns the last State of a server in the folder and whether that server runs.
func readState(d Dir) (State, bool) {
	var s State
	if !readJSON(d.stateFile(), &s) {
		return State{}, false
	}
	return s, s.Server.alive()
}

// childNames lists the children on record in the order in which they start.
func (s State) childNames() []string {
	order := []string{ControlPlane, Operator, Agent}
	return slices.DeleteFunc(order, func(name string) bool {
		_, ok := s.Children[name]
		return !ok
	})
}
