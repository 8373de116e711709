package agent

import (
	"errors"
	"fmt"
	"time"
)

// Reasons in the status of a HostProcess.
const (
	ReasonArchive         = "ArchiveMissing"  // the archive cannot be had
	ReasonUnpacking       = "Unpacking"       // the archive is on its way
	ReasonSecretMissing   = "SecretMissing"   // a Secret does not exist yet
	ReasonRefused         = "Refused"         // the agent may not do what is asked
	ReasonDataRootMissing = "DataRootMissing" // a data root is not there: a disk is not mounted
	ReasonFiles           = "FilesFailed"     // a file or directory cannot be written
	ReasonStartFailed     = "StartFailed"     // the program cannot be executed
	ReasonExited          = "Exited"          // it ended by itself
	ReasonKilled          = "Killed"          // a signal ended it
	ReasonHostRestarted   = "HostRestarted"   // the host went down with it
	ReasonNoAnswer        = "NoAnswer"        // it runs and does not answer on its socket
	ReasonStopTimeout     = "StopTimedOut"    // it had to be killed after the grace
	ReasonRemoveFailed    = "RemoveFailed"    // something of it cannot be removed
	ReasonProgramChanged  = "ProgramChanged"  // it is being replaced
	ReasonStopping        = "Stopping"        // it was told to end before that was taken back
	ReasonDeleted         = "Deleted"         // it is being removed
	ReasonStopped         = "Stopped"         // as asked
)

// problem is what keeps the agent from doing what is asked: for the status, and when to
// try again by itself (never if zero: an event will come).
type problem struct {
	Reason, Message string
	Retry           time.Duration
}

func (p *problem) Error() string { return p.Reason + ": " + p.Message }

func refused(format string, args ...any) *problem {
	return &problem{Reason: ReasonRefused, Message: fmt.Sprintf(format, args...)}
}

// asProblem keeps a problem and turns any other error into one about files.
func asProblem(err error) *problem {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	return &problem{Reason: ReasonFiles, Message: err.Error(), Retry: 5 * time.Second}
}
