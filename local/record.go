package local

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// ExecCommand is the hidden command that children of the server are started through:
// castellan exec-recorded FILE PROGRAM [ARGS...]
const ExecCommand = "exec-recorded"

// ExecRecorded writes the identity of this process to a file and then becomes another
// program. Pid and start time stay, so a child is on record before it does anything, and a
// server that is killed between two lines leaves no child behind that its successor cannot
// name. It refuses while the process on record still runs, and returns only to say why it
// could not go on.
func ExecRecorded(file string, argv []string) error {
	var old identity
	if readJSON(file, &old) && old.PID != os.Getpid() && old.alive() {
		return fmt.Errorf("process %d of %s still runs", old.PID, file)
	}
	id, err := identify(os.Getpid())
	if err != nil {
		return err
	}
	if err := writeJSON(file, id); err != nil {
		return err
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("find the program to run: %w", err)
	}
	if err := syscall.Exec(program, argv, os.Environ()); err != nil { //nolint:gosec // the server chooses the program
		return fmt.Errorf("become %s: %w", program, err)
	}
	return nil
}
