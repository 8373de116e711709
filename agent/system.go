package agent

import (
	"os"
	"syscall"
)

// command is a process to start.
type command struct {
	Path string
	Args []string // Args[0] is the name that the process sees
	Env  []string
	Dir  string
	// Output takes standard output and error; the caller closes it.
	Output *os.File
	// OpenFiles is the limit of open files, as far as the agent may give it; 0 is its own.
	OpenFiles int64
	User      credential
}

// exit is how a process ended.
type exit struct {
	// Known is false for an adopted process: only its parent learns the code.
	Known bool
	// Code of the exit; 128+n for signal n.
	Code int32
}

// system starts and finds processes.
type system interface {
	// Start starts a process in a session of its own.
	Start(command) (process, error)
	// Adopt watches a process that runs already; nil if it does not run any more.
	Adopt(identity) (process, error)
	// Find looks for the process that was started with a token.
	Find(token string) (identity, bool)
	// Boot is the id of this boot.
	Boot() string
}

// process is a running process.
type process interface {
	Identity() identity
	// Terminate asks the process to end.
	Terminate() error
	// Kill ends the process and what else is in its group.
	Kill() error
	// Done is closed when the process has ended.
	Done() <-chan struct{}
	// Exit is how it ended, once Done.
	Exit() exit
	// Release stops watching; the process goes on.
	Release()
}

// openNonblock keeps the agent from waiting on a pipe.
const openNonblock = syscall.O_NONBLOCK
