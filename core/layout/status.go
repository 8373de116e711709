package layout

import (
	"fmt"
	"slices"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
)

// RolesWord is the table's word for a set of roles: broker, controller or combined.
func RolesWord(set []api.Role) string {
	switch {
	case slices.Contains(set, api.RoleBroker) && slices.Contains(set, api.RoleController):
		return "combined"
	case len(set) == 0:
		return ""
	default:
		return string(set[0])
	}
}

// AddTo copies what stays true whatever the state of the process; a nil report adds nothing.
func (r *Report) AddTo(status *api.KafkaNodeStatus) {
	if r == nil {
		return
	}
	status.Version, status.Rack = r.Version, r.Rack
	status.Nonce, status.Volumes = r.Nonce, r.Volumes
	status.CertificateDigest = r.CertificateDigest
	if r.StartedAt != nil {
		status.Process = &api.ProcessStatus{Hash: r.ProcessHash, PID: r.PID, StartedAt: *r.StartedAt}
	}
}

// DescribeExit is how a process ended, in one line; empty for nil.
func DescribeExit(exit *api.ExitStatus) string {
	switch {
	case exit == nil:
		return ""
	case exit.Message != "":
		line, _, _ := strings.Cut(exit.Message, "\n")
		return line
	case exit.Code > 128:
		return fmt.Sprintf("the process was killed (signal %d)", exit.Code-128)
	default:
		return fmt.Sprintf("the process exited with code %d", exit.Code)
	}
}
