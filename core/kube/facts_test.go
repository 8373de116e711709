package kube_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/layout"
)

func at(clock string) metav1.Time {
	parsed, err := time.Parse(time.RFC3339, "2026-11-21T"+clock+"Z")
	if err != nil {
		panic(err)
	}
	return metav1.NewTime(parsed)
}

// running is a node whose pod runs on machine m1 and was just heard.
func running(t *testing.T) kube.Seen {
	t.Helper()
	set := objectsOf(t, node()).StatefulSet
	started := at("12:00:00")
	pod := &corev1.Pod{ObjectMeta: set.Spec.Template.ObjectMeta, Spec: set.Spec.Template.Spec}
	pod.Name, pod.UID, pod.Spec.NodeName = "orders-100-0", "p-1", "m1"
	pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")}
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", ContainerStatuses: []corev1.ContainerStatus{{
		Name: "kafka", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}},
	}}}
	return kube.Seen{
		StatefulSet: set, Pod: pod, MachinesKnown: true,
		Machines: []*corev1.Node{machine("m1"), machine("m2")},
		Claims: map[string]*corev1.PersistentVolumeClaim{"data-orders-100": {
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"volume.kubernetes.io/selected-node": "m1"}},
			Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv-1", Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			}},
			Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		}},
		Volumes: map[string]*corev1.PersistentVolume{"pv-1": pinned("kubernetes.io/hostname", "m1")},
		Report: &layout.Report{
			ProcessHash: "sha256:1", State: api.NodeRunning, Ready: true, Version: "4.3.1", Rack: "a", PID: 7, StartedAt: &started,
			Volumes: []api.VolumeStatus{{Name: "data", State: api.VolumeFormatted}},
		},
	}
}

func machine(name string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": "z-" + name, "csi.example/zone": "z-" + name, "csi.example/node": name,
		}},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.1.0.1"}, {Type: corev1.NodeInternalIP, Address: "fd00::1"}},
		},
	}
}

func pinned(key, value string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}}}},
	}}}}
}

func (s *story) waiting(reason, message string) {
	s.seen.Report = nil
	s.seen.Pod.Status.Phase = corev1.PodPending
	s.container().Ready = false
	s.container().State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func (s *story) ended(reason, message string) {
	s.container().RestartCount = 2
	s.container().LastTerminationState = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: 137, Reason: reason, Message: message, FinishedAt: at("12:30:00"),
	}}
}

func (s *story) unscheduled(message string) {
	s.seen.Report, s.seen.Pod.Spec.NodeName, s.seen.Pod.Status = nil, "", corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: message},
	}}
}

func (s *story) silence() {
	s.seen.Report = nil
	s.seen.Machines[0].Status.Conditions[0].Status = corev1.ConditionUnknown
}

// story is a node and what is seen of it.
type story struct {
	node api.KafkaNode
	seen kube.Seen
}

func (s *story) container() *corev1.ContainerStatus { return &s.seen.Pod.Status.ContainerStatuses[0] }

func TestFacts(t *testing.T) {
	type words struct {
		State   api.NodeState
		Ready   bool
		Reason  string
		Message string // a part of it
	}
	for name, test := range map[string]struct {
		change func(*story)
		want   words
	}{
		"ready": {func(*story) {}, words{State: api.NodeRunning, Ready: true}},
		"ready for Kafka alone": {
			func(s *story) { s.container().Ready = false },
			words{State: api.NodeStarting, Reason: "PodNotReady", Message: "Kafka serves, but the pod is not ready yet: its replicas are on their way back into the ISR, or its probe comes within seconds"},
		},
		"no StatefulSet": {func(s *story) { s.seen = kube.Seen{} }, words{State: api.NodePending, Reason: "NoStatefulSet", Message: "not made"}},
		"no pod": {
			func(s *story) { s.seen.Pod, s.seen.Report, s.seen.Warning = nil, nil, "FailedCreate: exceeded quota" },
			words{State: api.NodePending, Reason: "NoPod", Message: "FailedCreate: exceeded quota"},
		},
		"stopped": {
			func(s *story) { s.node.Spec.State, s.seen.Pod, s.seen.Report = api.StateStopped, nil, nil },
			words{State: api.NodeStopped, Reason: "Stopped"},
		},
		"stopping": {
			func(s *story) {
				s.node.Spec.State = api.StateStopped
				s.seen.Pod.DeletionTimestamp = new(at("12:40:00"))
			},
			words{State: api.NodeStopping, Reason: "Terminating", Message: "told to end"},
		},
		"restarting": { // no failure, though the pod ended before the next one comes
			func(s *story) {
				s.seen.Report, s.seen.Pod.DeletionTimestamp, s.seen.Pod.Status.Phase = nil, new(at("12:40:00")), corev1.PodSucceeded
			},
			words{State: api.NodeStopping, Reason: "Terminating", Message: "another one follows"},
		},
		"unschedulable": {
			func(s *story) { s.unscheduled("0/3 nodes are available: 3 Insufficient memory.") },
			words{State: api.NodePending, Reason: "Unschedulable", Message: "3 Insufficient memory"},
		},
		"volume not provisioned": {
			func(s *story) {
				s.unscheduled("pod has unbound immediate PersistentVolumeClaims")
				s.seen.Claims["data-orders-100"].Status.Phase, s.seen.Warning = corev1.ClaimPending, "ProvisioningFailed: storageclass \"fast\" not found"
			},
			words{State: api.NodePending, Reason: "ClaimPending", Message: `data-orders-100 is pending: ProvisioningFailed: storageclass "fast" not found`},
		},
		"volume waits for the pod": {
			func(s *story) {
				s.unscheduled("0/3 nodes are available")
				s.seen.Claims["data-orders-100"].Status.Phase = corev1.ClaimPending
			},
			words{State: api.NodePending, Reason: "Unschedulable", Message: "0/3 nodes"},
		},
		"volume lost": {
			func(s *story) { s.unscheduled("x"); s.seen.Claims["data-orders-100"].Status.Phase = corev1.ClaimLost },
			words{State: api.NodePending, Reason: "ClaimLost", Message: "castellan node replace"},
		},
		"image cannot be pulled": {
			func(s *story) { s.waiting("ImagePullBackOff", `Back-off pulling image "x"`) },
			words{State: api.NodeFailed, Reason: "ImagePullBackOff", Message: `Back-off pulling image "x"`},
		},
		"image of the supervisor cannot be pulled": {
			func(s *story) {
				s.waiting("PodInitializing", "")
				s.seen.Pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{
					Name: "install-supervisor", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not found"}},
				}}
			},
			words{State: api.NodeFailed, Reason: "ErrImagePull", Message: "not found"},
		},
		"bad container": {
			func(s *story) { s.waiting("CreateContainerConfigError", "container has runAsNonRoot") },
			words{State: api.NodeFailed, Reason: "CreateContainerConfigError", Message: "runAsNonRoot"},
		},
		"being made": {
			func(s *story) { s.waiting("ContainerCreating", ""); s.seen.Warning = "FailedMount: timed out" },
			words{State: api.NodePending, Reason: "ContainerCreating", Message: "FailedMount: timed out"},
		},
		"no certificate yet": {
			func(s *story) { s.waiting("ContainerCreating", ""); s.seen.SecretMissing = true },
			words{State: api.NodePending, Reason: "SecretMissing", Message: "orders-100-tls"},
		},
		"out of memory": {
			func(s *story) { s.waiting("CrashLoopBackOff", "back-off 20s"); s.ended("OOMKilled", "") },
			words{State: api.NodeFailed, Reason: "OOMKilled", Message: "its limit of 2Gi: raise resources.limits.memory"},
		},
		"the supervisor's last word": {
			func(s *story) {
				s.waiting("CrashLoopBackOff", "back-off 20s")
				s.ended("Error", `{"code":1,"reason":"BadConfig","message":"Kafka refuses its configuration"}`)
			},
			words{State: api.NodeFailed, Reason: "BadConfig", Message: "Kafka refuses its configuration (container kafka has ended 3 times"},
		},
		"no last word": {
			func(s *story) { s.waiting("CrashLoopBackOff", "back-off"); s.ended("Error", "") },
			words{State: api.NodeFailed, Reason: "Error", Message: "signal 9"},
		},
		"evicted": {
			func(s *story) {
				s.seen.Report = nil
				s.seen.Pod.Status.Phase, s.seen.Pod.Status.Reason, s.seen.Pod.Status.Message = corev1.PodFailed, "Evicted", "low on memory"
			},
			words{State: api.NodeFailed, Reason: "Evicted", Message: "low on memory"},
		},
		"starts": {
			func(s *story) {
				s.seen.Report = nil
				s.container().Ready, s.seen.ReportErr = false, "connection refused"
			},
			words{State: api.NodeStarting, Reason: "Starting", Message: "connection refused"},
		},
		"asks": {
			func(s *story) { s.seen.Report = &layout.Report{State: api.NodeAsking, Nonce: "n", Reason: "Empty"} },
			words{State: api.NodeAsking, Reason: "Empty"},
		},
		"not reached": {
			func(s *story) { s.seen.Report, s.seen.ReportErr = nil, "i/o timeout" },
			words{State: api.NodeUnknown, Reason: "NoAnswer", Message: "i/o timeout"},
		},
		"machine silent":                      {(*story).silence, words{State: api.NodeUnknown, Reason: "MachineSilent", Message: "castellan node replace"}},
		"machine silent, but the node is not": {func(s *story) { r := s.seen.Report; s.silence(); s.seen.Report = r }, words{State: api.NodeRunning, Ready: true}},
		"machine gone":                        {func(s *story) { s.seen.Report, s.seen.Machines = nil, s.seen.Machines[1:] }, words{State: api.NodeUnknown, Reason: "MachineSilent", Message: "does not exist any more"}},
		"machine silent and cannot be read": {func(s *story) {
			s.seen.Report, s.seen.MachinesKnown, s.seen.Machines, s.seen.Pod.Status.Reason = nil, false, nil, "NodeLost"
		}, words{State: api.NodeUnknown, Reason: "MachineSilent", Message: "m1 is lost"}},
		"machine's address cannot be read": {
			func(s *story) {
				s.seen.MachinesKnown, s.seen.Machines, s.seen.Report = false, nil, &layout.Report{State: api.NodePending, Reason: "NoAddress", Message: "waits"}
				s.node.Spec.Exposures = []api.NodeExposure{{Listener: "plain", Type: api.ExposureNodePort}}
			},
			words{State: api.NodePending, Reason: "NoAddress", Message: "waits; the operator may not read nodes"},
		},
		"volumes lost": {
			func(s *story) {
				s.unscheduled("0/3 nodes are available")
				s.seen.Machines = s.seen.Machines[1:]
			},
			words{State: api.NodePending, Reason: "Unschedulable", Message: "0/3 nodes are available; its volumes are on machine m1"},
		},
		"terminating on a machine that is silent": {
			func(s *story) { s.silence(); s.seen.Pod.DeletionTimestamp = new(at("12:40:00")) },
			words{State: api.NodeUnknown, Reason: "MachineSilent", Message: "does not report"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &story{node: node(), seen: running(t)}
			test.change(s)
			got := kube.Facts(s.node, s.seen)
			found := words{State: got.State, Ready: got.Ready, Reason: got.Reason, Message: test.want.Message}
			if !strings.Contains(got.Message, test.want.Message) || test.want.Ready && got.Message != "" {
				found.Message = got.Message
			}
			if diff := cmp.Diff(test.want, found); diff != "" {
				t.Errorf("facts differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFactsInFull(t *testing.T) {
	s := running(t)
	n := node()
	n.Spec.Exposures = []api.NodeExposure{{Listener: "plain", Type: api.ExposureLoadBalancer}}
	service := *objectsOf(t, n).Services[0]
	service.Spec.Ports[0].NodePort = 31000
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.7"}}
	s.Services = []corev1.Service{service}
	s.Claims["data-orders-100"].Status.Capacity[corev1.ResourceStorage] = resource.MustParse("512Mi")
	s.Claims["data-orders-100"].Status.Conditions = []corev1.PersistentVolumeClaimCondition{{
		Type: corev1.PersistentVolumeClaimFileSystemResizePending, Status: corev1.ConditionTrue, Message: "waiting",
	}}
	want := api.KafkaNodeStatus{
		State: api.NodeRunning, Ready: true, Roles: "combined", Version: "4.3.1", Rack: "a",
		Process:   &api.ProcessStatus{Hash: "sha256:1", PID: 7, StartedAt: at("12:00:00")},
		Placement: &api.NodePlacement{Node: "m1", Zone: "z-m1", Addresses: map[string]string{"InternalIP": "10.1.0.1"}},
		Exposures: []api.ExposureStatus{{Listener: "plain", NodePort: 31000, Address: "203.0.113.7"}},
		Volumes:   []api.VolumeStatus{{Name: "data", State: api.VolumeFormatted, Message: "grows from 512Mi to 1Gi: FileSystemResizePending waiting"}},
	}
	if diff := cmp.Diff(want, kube.Facts(n, s)); diff != "" {
		t.Errorf("facts differ (-want +got):\n%s", diff)
	}
	if s.Report.Volumes[0].Message != "" {
		t.Error("the report itself was changed")
	}
	s.Report = nil
	if got := kube.Facts(n, s).Process; got == nil || got.Hash != s.Pod.Annotations[kube.ProcessAnnotation] {
		t.Errorf("without a report the process is %+v, want the one of the pod", got)
	}
}

// TestEndWithoutATime: of a container that was lost with its machine nobody knows when it ended, and the status needs a time.
func TestEndWithoutATime(t *testing.T) {
	s := story{node: node(), seen: running(t)}
	s.ended("ContainerStatusUnknown", "The container could not be located when the pod was terminated")
	s.container().LastTerminationState.Terminated.FinishedAt = metav1.Time{}
	s.seen.Pod.CreationTimestamp = at("11:00:00")
	if got := kube.Facts(s.node, s.seen).LastExit; got == nil || !got.At.Equal(new(at("11:00:00"))) {
		t.Errorf("the last exit is %+v, want the pod's creation as its time", got)
	}
	s.seen.Pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: at("12:40:00")}}
	if got := kube.Facts(s.node, s.seen).LastExit; got == nil || !got.At.Equal(new(at("12:40:00"))) {
		t.Errorf("the last exit is %+v, want the time at which the pod became unready", got)
	}
}

func TestLost(t *testing.T) {
	outOfService := func(m *corev1.Node) {
		m.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute}}
	}
	for name, test := range map[string]struct {
		change func(*kube.Seen)
		want   bool
	}{
		"healthy":                        {func(*kube.Seen) {}, false},
		"silent only":                    {func(s *kube.Seen) { s.Machines[0].Status.Conditions[0].Status = corev1.ConditionUnknown }, false},
		"out of service":                 {func(s *kube.Seen) { outOfService(s.Machines[0]) }, true},
		"gone":                           {func(s *kube.Seen) { s.Machines = s.Machines[1:] }, true},
		"gone, machines unknown":         {func(s *kube.Seen) { s.Machines, s.MachinesKnown = nil, false }, false},
		"another machine out of service": {func(s *kube.Seen) { outOfService(s.Machines[1]) }, false},
		"volume of the network":          {func(s *kube.Seen) { outOfService(s.Machines[0]); s.Volumes["pv-1"] = &corev1.PersistentVolume{} }, false},
		"volume of a zone": {func(s *kube.Seen) {
			outOfService(s.Machines[0])
			s.Volumes["pv-1"] = pinned("csi.example/zone", "z-m1")
		}, false},
		"volume of a driver's own machine": {func(s *kube.Seen) { outOfService(s.Machines[0]); s.Volumes["pv-1"] = pinned("csi.example/node", "m1") }, true},
		"volume that may not be read":      {func(s *kube.Seen) { outOfService(s.Machines[0]); s.Volumes = nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, pod := range []bool{true, false} {
				s := running(t)
				s.Report = nil
				test.change(&s)
				if !pod {
					s.Pod = nil
				}
				got := kube.Facts(node(), s).Placement
				if lost := got != nil && got.Lost; lost != test.want || lost && got.Node != "m1" {
					t.Errorf("with a pod %v: placement %+v, want lost %v", pod, got, test.want)
				}
			}
		})
	}
}

func TestPlacementText(t *testing.T) {
	got := kube.PlacementText(&api.NodePlacement{Node: "m1", Zone: "a", Addresses: map[string]string{"InternalIP": "10.1.0.1", "Hostname": "m1"}, Lost: true})
	if want := `{"node":"m1","zone":"a","addresses":{"Hostname":"m1","InternalIP":"10.1.0.1"}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestObsoleteConfigMaps(t *testing.T) {
	s := running(t)
	want := objectsOf(t, node())
	older := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "orders-100-0123456789"}}
	found := []corev1.ConfigMap{*want.Static, *want.Live, older}
	if got := kube.ObsoleteConfigMaps(want, s.Pod, found); len(got) != 1 || got[0].Name != older.Name {
		t.Errorf("obsolete are %v", got)
	}
	s.Pod.Spec.Volumes[1].ConfigMap.Name = older.Name
	if got := kube.ObsoleteConfigMaps(want, s.Pod, found); len(got) != 0 {
		t.Errorf("the pod still needs %v", got)
	}
}

func TestShared(t *testing.T) {
	in := kube.SharedInput{
		Namespace: "kafka", Cluster: "orders", UID: "c", Nodes: 3, Spare: true,
		Listeners: []api.Listener{
			{Name: "plain", Port: 9092},
			{Name: "internal", Port: 9094, Exposure: api.Exposure{Type: api.ExposureNodePort}},
		},
		BootstrapNodePorts: map[string]int32{"internal": 31999},
	}
	shared := kube.Shared(in)
	var names []string
	for _, s := range shared.Services {
		names = append(names, s.Name)
		for i, p := range s.Spec.Ports {
			for _, other := range s.Spec.Ports[:i] {
				if other.Name == p.Name {
					t.Errorf("Service %s has two ports %s", s.Name, p.Name)
				}
			}
		}
	}
	if diff := cmp.Diff([]string{"orders-nodes", "orders-bootstrap", "orders-bootstrap-internal"}, names); diff != "" {
		t.Error(diff)
	}
	if got := shared.Services[2].Spec.Ports[0].NodePort; got != 31999 {
		t.Errorf("the port that was given is %d now", got)
	}
	for _, test := range []struct {
		nodes int32
		spare bool
		want  string
	}{{3, true, "min 2"}, {3, false, "min 3"}, {0, true, "max 0"}, {1, true, "min 0"}} {
		in.Nodes, in.Spare = test.nodes, test.spare
		got, spec := "", kube.Shared(in).Budget.Spec
		if spec.MinAvailable != nil {
			got += "min " + spec.MinAvailable.String()
		}
		if spec.MaxUnavailable != nil {
			got += "max " + spec.MaxUnavailable.String()
		}
		if got != test.want {
			t.Errorf("%d nodes, spare %v: %s available, want %s", test.nodes, test.spare, got, test.want)
		}
	}
}
