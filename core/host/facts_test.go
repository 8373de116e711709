package host_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/host"
	"castellan.dev/castellan/core/layout"
)

func mustUnmarshal(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(data, into); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func at(clock string) metav1.Time {
	parsed, err := time.Parse(time.RFC3339, "2026-11-21T"+clock+"Z")
	if err != nil {
		panic(err)
	}
	return metav1.NewTime(parsed)
}

func reportText(t *testing.T, r layout.Report) string {
	t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFacts(t *testing.T) {
	started := at("12:03:07")
	killed := &api.ExitStatus{Code: 137, Reason: "Killed", Message: "the JVM was killed (signal 9)", At: at("12:03:05")}
	ready := layout.Report{
		ProcessHash: "sha256:1", State: api.NodeRunning, Ready: true, Version: "4.3.1", Rack: "a", PID: 42, StartedAt: &started,
		Volumes: []api.VolumeStatus{{Name: "data-0", State: api.VolumeFormatted}}, CertificateDigest: "sha256:c",
	}
	running := &api.ProcessStatus{Hash: "sha256:1", PID: 42, StartedAt: started}
	full := api.KafkaNodeStatus{
		State: api.NodeRunning, Ready: true, Roles: "combined", Version: "4.3.1", Rack: "a",
		Process: running, Volumes: ready.Volumes, CertificateDigest: "sha256:c",
	}
	with := func(change func(*api.KafkaNodeStatus)) api.KafkaNodeStatus {
		s := full
		change(&s)
		return s
	}
	for name, test := range map[string]struct {
		found  *api.HostProcessStatus
		silent bool
		want   api.KafkaNodeStatus
	}{
		"no HostProcess": {
			want: api.KafkaNodeStatus{State: api.NodePending, Roles: "combined", Reason: "NoProcess", Message: "host h1 has not been told to run this node yet"},
		},
		"not taken up yet": {
			found: &api.HostProcessStatus{},
			want:  api.KafkaNodeStatus{State: api.NodePending, Roles: "combined", Reason: "Pending"},
		},
		"the agent waits": {
			found: &api.HostProcessStatus{State: api.ProcessPending, Reason: "SecretMissing", Message: "wait"},
			want:  api.KafkaNodeStatus{State: api.NodePending, Roles: "combined", Reason: "SecretMissing", Message: "wait"},
		},
		"supervisor just started": {
			found: &api.HostProcessStatus{State: api.ProcessRunning, StartedAt: &started},
			want:  api.KafkaNodeStatus{State: api.NodeStarting, Roles: "combined", Reason: "Starting"},
		},
		"ready": {
			found: &api.HostProcessStatus{State: api.ProcessRunning, Ready: true, StartedAt: &started, Report: reportText(t, ready)},
			want:  full,
		},
		"killed and back": {
			found: &api.HostProcessStatus{State: api.ProcessRunning, Ready: true, StartedAt: &started, Restarts: 1, LastExit: killed, Report: reportText(t, ready)},
			want: with(func(s *api.KafkaNodeStatus) {
				s.Restarts, s.LastExit = 1, killed
				s.Message = "restarted at 2026-11-21T12:03:07Z: the JVM was killed (signal 9)"
			}),
		},
		"supervisor does not answer any more": {
			found: &api.HostProcessStatus{State: api.ProcessRunning, StartedAt: &started, Report: reportText(t, ready)},
			want: with(func(s *api.KafkaNodeStatus) {
				s.State, s.Ready, s.Reason = api.NodeStarting, false, "NoAnswer"
				s.Message = "the supervisor runs but does not answer on its socket"
			}),
		},
		"crash loop": {
			found: &api.HostProcessStatus{State: api.ProcessBackoff, Reason: "Exited", Restarts: 4, LastExit: killed},
			want: api.KafkaNodeStatus{
				State: api.NodeFailed, Roles: "combined", Reason: "Killed", Message: "the JVM was killed (signal 9)", Restarts: 4, LastExit: killed,
			},
		},
		"stopping still says what runs": {
			found: &api.HostProcessStatus{State: api.ProcessStopping, Report: reportText(t, ready)},
			want: with(func(s *api.KafkaNodeStatus) {
				s.State, s.Ready, s.Reason = api.NodeStopping, false, "Stopping"
			}),
		},
		"stopped": {
			found: &api.HostProcessStatus{State: api.ProcessStopped},
			want:  api.KafkaNodeStatus{State: api.NodeStopped, Roles: "combined", Reason: "Stopped"},
		},
		"silent host": {
			found:  &api.HostProcessStatus{State: api.ProcessRunning, Ready: true, StartedAt: &started, Report: reportText(t, ready)},
			silent: true,
			want: with(func(s *api.KafkaNodeStatus) {
				s.State, s.Ready, s.Reason = api.NodeUnknown, false, "HostSilent"
				s.Message = "the agent of host h1 is silent: what is shown is what it last said; check the host and its castellan agent"
			}),
		},
		"unreadable report": {
			found: &api.HostProcessStatus{State: api.ProcessRunning, Ready: true, Report: "{"},
			want: api.KafkaNodeStatus{
				State: api.NodeStarting, Roles: "combined", Reason: "BadReport",
				Message: "read the supervisor's report: unexpected end of JSON input: the supervisor may be of another version than the operator",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var hp *api.HostProcess
			if test.found != nil {
				hp = &api.HostProcess{Status: *test.found}
			}
			if diff := cmp.Diff(test.want, host.Facts(node(), hp, !test.silent)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestPorts(t *testing.T) {
	ranged := api.HostSpec{PortRange: &api.PortRange{From: 9092, To: 9095}}
	three := map[string]int32{"CONTROLLER": 9090, "INTERNAL": 9091, "PLAIN": 9092}
	for name, test := range map[string]struct {
		host    api.HostSpec
		claimed []int32
		want    map[string]int32
		problem string
	}{
		"all free": {host: ranged, want: three},
		"own port taken": {
			host: ranged, claimed: []int32{9090},
			want: map[string]int32{"CONTROLLER": 9093, "INTERNAL": 9091, "PLAIN": 9092},
		},
		"from range": {
			host: api.HostSpec{PortRange: ranged.PortRange, ListenerPorts: api.PortsFromRange}, claimed: []int32{9093},
			want: map[string]int32{"CONTROLLER": 9092, "INTERNAL": 9094, "PLAIN": 9095},
		},
		"no range": {
			claimed: []int32{9092},
			problem: "port 9092 of listener PLAIN is taken on the host and the host has no port range: give the Host a spec.portRange or the listener another port",
		},
		"range exhausted": {
			host: ranged, claimed: []int32{9090, 9091, 9093, 9094, 9095},
			problem: "no port for listener CONTROLLER: every port of the host's range 9092-9095 is taken: widen the Host's spec.portRange or place fewer nodes on it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := host.Ports(test.host, test.claimed, three)
			if problem := errorText(err); problem != test.problem {
				t.Fatalf("got problem %q, want %q", problem, test.problem)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
