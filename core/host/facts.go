package host

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// Reasons that this package gives beside those of agent and supervisor.
const (
	ReasonHostSilent   = "HostSilent" // the agent's Lease has expired
	ReasonNoProcess    = "NoProcess"  // the host has not been told to run the node
	ReasonNoAnswer     = "NoAnswer"   // the supervisor runs and does not answer
	ReasonBadReport    = "BadReport"  // the supervisor's report cannot be read
	ReasonExited       = "Exited"     // the process ended and will be started again
	ReasonStopping     = "Stopping"   // the process was told to end
	ReasonStopped      = "Stopped"    // as asked
	ReasonNotYetTaken  = "Pending"    // the agent has not looked at the process yet
	ReasonStartingNode = "Starting"   // the supervisor has not said anything yet
)

// Facts is what a HostProcess tells of its node; process is nil when there is none, alive
// says whether the agent's Lease is in force. Without a living agent nothing is known for
// certain: the last facts stay, the state is Unknown. ObservedGeneration is left to the
// caller, who knows which generation of the node the HostProcess was made from.
func Facts(node api.KafkaNode, process *api.HostProcess, alive bool) api.KafkaNodeStatus {
	status := api.KafkaNodeStatus{Roles: layout.RolesWord(node.Spec.Roles)}
	if process == nil {
		status.State, status.Reason = api.NodePending, ReasonNoProcess
		status.Message = fmt.Sprintf("host %s has not been told to run this node yet", node.Spec.Host)
	} else {
		addProcess(&status, process.Status)
	}
	if !alive {
		status.State, status.Ready, status.Reason = api.NodeUnknown, false, ReasonHostSilent
		status.Message = fmt.Sprintf("the agent of host %s is silent: what is shown is what it last said; check the host and its castellan agent", node.Spec.Host)
	}
	return status
}

func addProcess(status *api.KafkaNodeStatus, found api.HostProcessStatus) {
	status.LastExit, status.Restarts = found.LastExit.DeepCopy(), found.Restarts
	report, reportErr := readReport(found)
	report.AddTo(status)
	addState(status, found, report, reportErr)
}

func readReport(found api.HostProcessStatus) (*layout.Report, error) {
	if found.Report == "" {
		return nil, nil
	}
	var report layout.Report
	if err := json.Unmarshal([]byte(found.Report), &report); err != nil {
		return nil, fmt.Errorf("read the supervisor's report: %w", err)
	}
	return &report, nil
}

func addState(status *api.KafkaNodeStatus, found api.HostProcessStatus, report *layout.Report, reportErr error) {
	status.Reason, status.Message = found.Reason, found.Message
	switch found.State {
	case api.ProcessRunning:
		addRunning(status, found, report, reportErr)
	case api.ProcessBackoff:
		status.State, status.Reason = api.NodeFailed, cmp.Or(exitReason(found.LastExit), found.Reason, ReasonExited)
		status.Message = cmp.Or(found.Message, layout.DescribeExit(found.LastExit))
	case api.ProcessStopping:
		status.State, status.Reason = api.NodeStopping, cmp.Or(found.Reason, ReasonStopping)
	case api.ProcessStopped:
		status.State, status.Reason = api.NodeStopped, cmp.Or(found.Reason, ReasonStopped)
	default:
		status.State, status.Reason = api.NodePending, cmp.Or(found.Reason, ReasonNotYetTaken)
	}
}

func addRunning(status *api.KafkaNodeStatus, found api.HostProcessStatus, report *layout.Report, reportErr error) {
	if reportErr != nil {
		status.State, status.Reason = api.NodeStarting, ReasonBadReport
		status.Message = reportErr.Error() + ": the supervisor may be of another version than the operator"
		return
	}
	if report == nil {
		status.State, status.Reason = api.NodeStarting, cmp.Or(found.Reason, ReasonStartingNode)
		status.Message = cmp.Or(found.Message, restartLine(found))
		return
	}
	status.State, status.Ready = report.State, report.Ready && found.Ready
	status.Reason = cmp.Or(report.Reason, found.Reason)
	status.Message = cmp.Or(report.Message, found.Message, restartLine(found))
	if report.Ready && !found.Ready {
		status.State, status.Reason = api.NodeStarting, cmp.Or(found.Reason, ReasonNoAnswer)
		status.Message = cmp.Or(found.Message, "the supervisor runs but does not answer on its socket")
	}
}

// restartLine says why the running process is not the one that was started by plan. The
// agent forgets the exit with the next start that was asked for.
func restartLine(found api.HostProcessStatus) string {
	if found.LastExit == nil || found.StartedAt == nil || found.StartedAt.Before(&found.LastExit.At) {
		return ""
	}
	return fmt.Sprintf("restarted at %s: %s", found.StartedAt.UTC().Format(time.RFC3339), layout.DescribeExit(found.LastExit))
}

func exitReason(exit *api.ExitStatus) string {
	if exit == nil {
		return ""
	}
	return exit.Reason
}
