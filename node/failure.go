package node

import (
	"errors"
	"fmt"

	"castellan.dev/castellan/core/layout"
)

// Exit codes of `castellan node` when Kafka was never started (as sysexits.h has them);
// else the code is that of the Java virtual machine, 128+n for signal n.
const (
	ExitFiles   = 64 // node.json is missing or nonsense
	ExitData    = 65 // the disks hold what is not this node's
	ExitJava    = 69 // there is no Java, or it is too old
	ExitHost    = 71 // the host lacks something: a free port, disk space
	ExitStorage = 74 // a disk cannot be read or formatted
	ExitBusy    = 75 // another supervisor runs on this folder or its disks
	ExitConfig  = 78 // the node's configuration cannot be used
)

// Reasons of a report or a termination message.
const (
	ReasonJavaMissing       = "JavaMissing"
	ReasonJavaTooOld        = "JavaTooOld"
	ReasonPortInUse         = "PortInUse"
	ReasonDiskFull          = "DiskFull"
	ReasonClusterIDMismatch = "ClusterIDMismatch"
	ReasonNodeIDMismatch    = "NodeIDMismatch"
	ReasonVolumeForeign     = "VolumeForeign"
	ReasonVolumeUnreadable  = "VolumeUnreadable"
	ReasonBadFiles          = "BadFiles"
	ReasonBadConfig         = "BadConfig"
	ReasonPackageBroken     = "PackageBroken"
	ReasonFormatFailed      = "FormatFailed"
	ReasonAnswerRefused     = "StorageAnswerRefused"
	ReasonAlreadyRunning    = "AlreadyRunning"

	ReasonWaitingForStorage      = "WaitingForStorage"
	ReasonWaitingForCertificates = "WaitingForCertificates"
	ReasonWaitingForControllers  = "WaitingForControllers"
	ReasonWaitingForPlacement    = "WaitingForPlacement"
	ReasonWaitingForAddress      = "WaitingForAddress"
	ReasonStarting               = "Starting"
	ReasonLogRecovery            = "LogRecovery"
	ReasonNotResponding          = "NotResponding"
	// ReasonNotInSync stands only in the answer to a kubelet's question for readiness.
	ReasonNotInSync = "NotInSync"

	ReasonStopped     = "Stopped"
	ReasonKafkaExited = "KafkaExited"
	ReasonKilled      = "Killed"
	ReasonStopTimeout = "StopTimeout"
	ReasonOutOfMemory = "OutOfMemory"
	ReasonDisksFailed = "DisksFailed"
)

// failure is why Kafka cannot be started: for the termination message.
type failure struct {
	code    int
	reason  string
	message string
}

func (f *failure) Error() string { return f.reason + ": " + f.message }

func fail(code int, reason, format string, args ...any) *failure {
	return &failure{code: code, reason: reason, message: fmt.Sprintf(format, args...)}
}

// asFailure makes a failure of any error; one that nobody foresaw is the host's.
func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	return fail(ExitHost, ReasonBadFiles, "%v; see the log of castellan node and the files beside %s", err, layout.StaticFile)
}
