package health_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/health"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
)

// served is Kafka with one topic that is well.
func served() plan.Kafka {
	return plan.Kafka{
		Known: true, PartitionsKnown: true, ClusterID: "id",
		Topics: []plan.Topic{{Name: "t", MinISR: 2, Partitions: []plan.Partition{{Leader: 1, Replicas: []int32{1, 2}, ISR: []int32{1, 2}}}}},
	}
}

// well is the end of a pass over a cluster where all is as wanted.
func well() health.Input {
	return health.Input{Generation: 7, Resolved: true, Have: plan.World{Kafka: served()}, Want: cluster.Model{State: api.StateRunning}}
}

func blocked(stalled bool, reason, message string) plan.Block {
	return plan.Block{Node: -1, Reason: reason, Message: message, Stalled: stalled}
}

// said is every condition in one line: type=status reason: message.
func said(in health.Input) []string {
	var out []string
	for _, c := range health.Conditions(in) {
		out = append(out, c.Type+"="+string(c.Status)+" "+c.Reason+": "+c.Message)
	}
	return out
}

const (
	isAccepted  = "Accepted=True Accepted: the spec is in force"
	isAvailable = "Available=True Served: every partition has a leader and enough in-sync replicas"
	isDone      = "Reconciling=False Done: nothing is to be done"
	isMoving    = "Stalled=False Moving: nothing blocks"
)

func TestConditions(t *testing.T) {
	bad := []cluster.Problem{
		{Path: "spec.a", Severity: cluster.Error, Reason: "is wrong", Remedy: "mend it"},
		{Path: "spec.b", Severity: cluster.Warning, Reason: "is unwise"},
		{Path: "spec.c", Severity: cluster.Error, Reason: "too"},
	}
	roll := plan.Step{Kind: plan.UpdateProcess, Node: 101, Reason: "config num.io.threads"}
	tests := map[string]struct {
		change func(*health.Input)
		want   []string
	}{
		"all is well": {func(*health.Input) {}, []string{
			isAccepted, isAvailable, isDone, isMoving,
			"Ready=True Ready: the newest spec is in force and every partition is served",
		}},
		"drains are held": {func(in *health.Input) { in.Plan.Held = "one copy" }, []string{
			isAccepted, isAvailable + "; but no pod can be evicted, so a drain of its machine waits for ever: one copy", isDone, isMoving,
			"Ready=True Ready: the newest spec is in force and every partition is served",
		}},
		"warnings": {func(in *health.Input) { in.Problems = bad[1:2] }, []string{
			"Accepted=True AcceptedWithWarnings: spec.b: is unwise", isAvailable, isDone, isMoving,
			"Ready=True Ready: the newest spec is in force and every partition is served",
		}},
		"a bad spec over a good one": {func(in *health.Input) { in.Problems = bad }, []string{
			"Accepted=False InvalidSpec: the last good spec stays in force: spec.a: is wrong; mend it | spec.c: too",
			isAvailable, isDone,
			"Stalled=True InvalidSpec: the last good spec stays in force: spec.a: is wrong; mend it | spec.c: too",
			"Ready=False InvalidSpec: the last good spec stays in force: spec.a: is wrong; mend it | spec.c: too",
		}},
		"a bad spec at first": {func(in *health.Input) { *in = health.Input{Generation: 7, Problems: bad} }, []string{
			"Accepted=False InvalidSpec: spec.a: is wrong; mend it | spec.c: too",
			"Available=Unknown NotAccepted: no spec could be accepted: see Accepted",
			"Reconciling=False NotAccepted: no spec could be accepted: see Accepted",
			"Stalled=True NotAccepted: no spec could be accepted: see Accepted",
			"Ready=False InvalidSpec: spec.a: is wrong; mend it | spec.c: too",
		}},
		"a step": {func(in *health.Input) { in.Plan.Steps = []plan.Step{roll, roll} }, []string{
			isAccepted, isAvailable,
			"Reconciling=True UpdateProcess: restarting node 101: config num.io.threads", isMoving,
			"Ready=False Reconciling: restarting node 101: config num.io.threads",
		}},
		"waiting": {func(in *health.Input) {
			in.Plan.Blocked = []plan.Block{blocked(false, "WaitingForNode", "waiting for node 1")}
			in.Plan.Upcoming = []plan.Step{roll}
		}, []string{
			isAccepted, isAvailable, "Reconciling=True WaitingForNode: waiting for node 1", isMoving,
			"Ready=False Reconciling: waiting for node 1",
		}},
		"only what comes next is known": {func(in *health.Input) { in.Plan.Upcoming = []plan.Step{roll} }, []string{
			isAccepted, isAvailable, "Reconciling=True UpdateProcess: next: restarting node 101: config num.io.threads", isMoving,
			"Ready=False Reconciling: next: restarting node 101: config num.io.threads",
		}},
		"several stalls": {func(in *health.Input) {
			in.Plan.Blocked = []plan.Block{blocked(true, "NoHost", "node 1 has no place"), blocked(true, "NoHost", "node 1 has no place"), blocked(true, "LastCopyLost", "node 2 is empty")}
		}, []string{
			isAccepted, isAvailable,
			"Reconciling=False Stalled: nothing can be done before what blocks is gone: see Stalled",
			"Stalled=True NoHost: node 1 has no place | node 2 is empty",
			"Ready=False Stalled: node 1 has no place | node 2 is empty",
		}},
		"a stall beside work": {func(in *health.Input) {
			in.Plan.Steps, in.Plan.Blocked = []plan.Step{roll}, []plan.Block{blocked(true, "NoHost", "node 1 has no place")}
		}, []string{
			isAccepted, isAvailable, "Reconciling=True UpdateProcess: restarting node 101: config num.io.threads",
			"Stalled=True NoHost: node 1 has no place", "Ready=False Stalled: node 1 has no place",
		}},
		"a step that failed": {func(in *health.Input) { in.Plan.Steps, in.Failed = []plan.Step{roll}, "UpdateProcess: no way" }, []string{
			isAccepted, isAvailable, "Reconciling=True UpdateProcess: restarting node 101: config num.io.threads",
			"Stalled=True StepFailed: UpdateProcess: no way", "Ready=False Stalled: UpdateProcess: no way",
		}},
		"paused": {func(in *health.Input) {
			in.Want.Paused, in.Plan.Blocked = true, []plan.Block{blocked(false, "Paused", "p")}
		}, []string{
			isAccepted, isAvailable, "Reconciling=False Paused: spec.paused is true: nothing is changed until it is false", isMoving,
			"Ready=False Paused: spec.paused is true: nothing is changed until it is false",
		}},
		"stopping": {func(in *health.Input) {
			in.Want.State, in.Plan.Blocked = api.StateStopped, []plan.Block{blocked(false, "Stopping", "node 1 is shutting down")}
		}, []string{
			isAccepted, "Available=False Stopped: spec.state is Stopped", "Reconciling=True Stopping: node 1 is shutting down", isMoving,
			"Ready=False Reconciling: node 1 is shutting down",
		}},
		"stopped": {func(in *health.Input) { in.Want.State = api.StateStopped }, []string{
			isAccepted, "Available=False Stopped: spec.state is Stopped", isDone, isMoving,
			"Ready=False Stopped: spec.state is Stopped, and every node has stopped",
		}},
		"Kafka is silent": {func(in *health.Input) { in.Have.Kafka = plan.Kafka{Why: "no broker answers: timeout"} }, []string{
			isAccepted, "Available=Unknown KafkaUnreadable: no broker answers: timeout", isDone, isMoving,
			"Ready=False NotAvailable: no broker answers: timeout",
		}},
		"Kafka was not asked": {func(in *health.Input) { in.Have.Kafka = plan.Kafka{} }, []string{
			isAccepted, "Available=Unknown KafkaUnreadable: Kafka has not been asked yet", isDone, isMoving,
			"Ready=False NotAvailable: Kafka has not been asked yet",
		}},
		"only controllers answer": {func(in *health.Input) { in.Have.Kafka.PartitionsKnown = false }, []string{
			isAccepted, "Available=Unknown KafkaUnreadable: no broker answers, only controllers do", isDone, isMoving,
			"Ready=False NotAvailable: no broker answers, only controllers do",
		}},
		"partitions offline": {func(in *health.Input) {
			for range 7 {
				in.Have.Kafka.Topics[0].Partitions = append(in.Have.Kafka.Topics[0].Partitions, plan.Partition{Leader: -1})
			}
		}, []string{
			isAccepted, "Available=False PartitionsOffline: no leader: t-1, t-2, t-3, t-4, t-5 and others", isDone, isMoving,
			"Ready=False NotAvailable: no leader: t-1, t-2, t-3, t-4, t-5 and others",
		}},
		"partitions under min ISR": {func(in *health.Input) { in.Have.Kafka.Topics[0].Partitions[0].ISR = []int32{1} }, []string{
			isAccepted, "Available=False UnderMinISR: fewer in-sync replicas than min.insync.replicas: t-0", isDone, isMoving,
			"Ready=False NotAvailable: fewer in-sync replicas than min.insync.replicas: t-0",
		}},
		"replicas out of sync": {func(in *health.Input) { in.Have.Kafka.Topics[0].Partitions[0].Replicas = []int32{1, 2, 4, 3} }, []string{
			isAccepted, "Available=True Degraded: every partition has a leader and enough in-sync replicas; but the replicas of broker 3, 4 are not all in sync", isDone, isMoving,
			"Ready=True Ready: the newest spec is in force and every partition is served",
		}},
		"a failed log dir": {func(in *health.Input) { in.Have.Kafka.FailedLogDirs, in.Want.Name = []int32{2}, "orders" }, []string{
			isAccepted, "Available=True Degraded: every partition has a leader and enough in-sync replicas; but a log dir of broker 2 has failed: mend it and restart the broker, or have its replicas made anew beside it with castellan rebalance orders --mode disks --repair-log-dirs", isDone, isMoving,
			"Ready=True Ready: the newest spec is in force and every partition is served",
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := well()
			tt.change(&in)
			if diff := cmp.Diff(tt.want, said(in)); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			for _, c := range health.Conditions(in) {
				if c.ObservedGeneration != 7 {
					t.Errorf("%s speaks of generation %d", c.Type, c.ObservedGeneration)
				}
			}
		})
	}
}

// TestKstatus computes what kstatus (and so Flux, Argo CD and kubectl wait) would: the first
// of Reconciling and Stalled that is True decides, else Ready.
func TestKstatus(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*health.Input)
		want   string
	}{
		"well":     {func(*health.Input) {}, "Current"},
		"working":  {func(in *health.Input) { in.Plan.Steps = make([]plan.Step, 1) }, "InProgress"},
		"stalled":  {func(in *health.Input) { in.Plan.Blocked = []plan.Block{blocked(true, "X", "x")} }, "Failed"},
		"bad spec": {func(in *health.Input) { in.Problems = []cluster.Problem{{Severity: cluster.Error}} }, "Failed"},
		"paused":   {func(in *health.Input) { in.Want.Paused, in.Plan.Blocked = true, make([]plan.Block, 1) }, "InProgress"},
		"offline":  {func(in *health.Input) { in.Have.Kafka = plan.Kafka{} }, "InProgress"},
	} {
		in := well()
		tt.change(&in)
		if got := kstatus(health.Conditions(in)); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func kstatus(conditions []metav1.Condition) string {
	for _, c := range conditions {
		switch {
		case c.Type == "Reconciling" && c.Status == metav1.ConditionTrue:
			return "InProgress"
		case c.Type == "Stalled" && c.Status == metav1.ConditionTrue:
			return "Failed"
		}
	}
	for _, c := range conditions {
		if c.Type == "Ready" && c.Status != metav1.ConditionTrue {
			return "InProgress"
		}
	}
	return "Current"
}

// Every kind of step has words of its own for a person.
func TestStepWords(t *testing.T) {
	for kind, want := range map[plan.Kind]string{
		plan.CreateNode: "creating node 1: why", plan.AnswerStorage: "answering for the disks of node 1: why",
		plan.UpdateLive: "updating node 1: why", plan.StopNode: "stopping node 1: why", plan.StartNode: "starting node 1: why",
		plan.DeleteNode: "removing node 1: why", plan.AddVoter: "adding voter 1: why", plan.RemoveVoter: "removing voter 1: why",
		plan.SetConfig: "why", plan.ElectLeaders: "why", plan.RecordClusterID: "why",
	} {
		in := well()
		in.Plan.Steps = []plan.Step{{Kind: kind, Node: 1, Reason: "why"}}
		if got := health.Conditions(in)[2]; got.Message != want || got.Reason != string(kind) {
			t.Errorf("%s: %s: %q, want %q", kind, got.Reason, got.Message, want)
		}
	}
}

func TestStatus(t *testing.T) {
	process := api.ProcessSpec{Version: "4.3.1"}
	in := well()
	in.CASecret = "orders-ca"
	in.Want.Nodes = []cluster.Node{{ID: 1, Process: process}, {ID: 2, Process: process}, {ID: 3, Process: process}}
	in.Want.Listeners = []api.Listener{{Name: "plain"}, {Name: "tls", TLS: &api.ListenerTLS{}}, {Name: "new"}}
	in.Have.ClusterID, in.Have.Revision, in.Have.Kafka.MetadataVersion = "recorded", "orders-4", "4.3-IV0"
	in.Have.Kafka.Quorum = plan.Quorum{Leader: 2, LeaderEpoch: 9, Voters: []plan.Replica{{ID: 3}, {ID: 2}}, Observers: []plan.Replica{{ID: 3, DirectoryID: "old"}, {ID: 1}, {ID: 1, DirectoryID: "old"}}}
	for i, version := range []string{"4.10.0", "4.3.1", ""} {
		in.Have.Nodes = append(in.Have.Nodes, plan.Node{
			Spec:   api.KafkaNodeSpec{NodeID: int32(i) + 1, Address: []string{"h2", "::1", "h1"}[i], Ports: map[string]int32{"plain": 9092, "tls": 9093}},
			Status: api.KafkaNodeStatus{Version: version, Ready: i > 0, Process: &api.ProcessStatus{Hash: "old"}},
		})
	}
	in.Have.Nodes = append(in.Have.Nodes, plan.Node{ // it leaves: no client is sent there
		Spec:   api.KafkaNodeSpec{NodeID: 9, Address: "h9", Ports: map[string]int32{"plain": 9092}},
		Status: api.KafkaNodeStatus{Version: "4.3.1", Ready: true},
	})
	in.Have.Nodes[1].Status.Process.Hash = layout.ProcessHash(process)
	in.Have.Nodes[2].Status.Process = nil
	got := health.Status(in)
	got.Conditions = nil
	want := api.KafkaClusterStatus{
		ObservedGeneration: 7, ClusterID: "recorded", Version: "4.3.1", MetadataVersion: "4.3-IV0", Revision: "orders-4",
		Nodes:  api.NodeCounts{Desired: 3, Ready: 2, Updated: 1},
		Quorum: &api.QuorumStatus{Leader: 2, Epoch: 9, Voters: []int32{2, 3}, Observers: []int32{1}},
		Listeners: []api.ListenerStatus{
			{Name: "plain", BootstrapServers: "[::1]:9092,h1:9092,h2:9092"},
			{Name: "tls", BootstrapServers: "[::1]:9093,h1:9093,h2:9093", CASecretRef: &corev1.LocalObjectReference{Name: "orders-ca"}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestDoing(t *testing.T) {
	if doing := health.Status(well()).Doing; doing != "" {
		t.Errorf("a cluster that is well is doing %q", doing)
	}
	in := well()
	in.Failed = strings.Repeat("ä", 20000) // longer than the API server takes as a message, in bytes
	st := health.Status(in)
	if n := len([]rune(st.Doing)); n != 121 || !strings.HasSuffix(st.Doing, "…") {
		t.Errorf("doing has %d characters", n)
	}
	for _, c := range st.Conditions {
		if len(c.Message) > 32768 {
			t.Errorf("the message of %s has %d bytes", c.Type, len(c.Message))
		}
	}
}

// A pass that could not be made keeps what was known.
func TestPassFailed(t *testing.T) {
	st := health.Status(well())
	then := metav1.Unix(1, 0)
	for i := range st.Conditions {
		st.Conditions[i].LastTransitionTime = then
	}
	health.PassFailed(&st, 8, "the API server is away")
	if st.ObservedGeneration != 7 || len(st.Conditions) != 5 || st.Doing != "the API server is away" {
		t.Errorf("status %+v", st)
	}
	for _, c := range st.Conditions {
		failed := c.Reason == "PassFailed"
		if failed != (c.Type == api.ConditionReady || c.Type == api.ConditionStalled) || !c.LastTransitionTime.Equal(&then) {
			t.Errorf("condition %+v", c)
		}
	}
	var empty api.KafkaClusterStatus
	health.PassFailed(&empty, 1, "no")
	if len(empty.Conditions) != 2 {
		t.Errorf("conditions %+v", empty.Conditions)
	}
}

// Where clients begin with a listener of pods depends on how it is exposed.
func TestListenersOfPods(t *testing.T) {
	in := well()
	in.Want.Namespace, in.Want.Name = "kafka", "orders"
	in.Want.Nodes = []cluster.Node{{ID: 1, Kubernetes: true}}
	exposed := func(name string, e api.Exposure) api.Listener {
		return api.Listener{Name: name, Port: 9094, Exposure: e}
	}
	in.Want.Listeners = []api.Listener{
		exposed("inside", api.Exposure{}),
		exposed("ports", api.Exposure{Type: api.ExposureNodePort}),
		exposed("outer", api.Exposure{Type: api.ExposureNodePort, AddressType: corev1.NodeExternalIP}),
		exposed("named", api.Exposure{Type: api.ExposureNodePort, BootstrapHost: "{cluster}.{namespace}"}),
		exposed("early", api.Exposure{Type: api.ExposureNodePort, BootstrapHost: "x"}),
		exposed("balanced", api.Exposure{Type: api.ExposureLoadBalancer}),
		exposed("balanced-name", api.Exposure{Type: api.ExposureLoadBalancer, BootstrapHost: "b"}),
		exposed("balanced-early", api.Exposure{Type: api.ExposureLoadBalancer}),
	}
	in.Have.Shared.Bootstrap = map[string]api.ExposureStatus{
		"ports": {NodePort: 30001}, "outer": {NodePort: 30002}, "named": {NodePort: 30003}, "balanced": {Address: "fd00::1"},
	}
	for id, role := range []api.Role{api.RoleController, api.RoleBroker, api.RoleBroker} {
		at := &api.NodePlacement{Addresses: map[string]string{"InternalIP": fmt.Sprintf("10.0.0.%d", id)}}
		if id == 2 {
			at.Addresses["ExternalIP"] = "1.2.3.4"
		}
		in.Have.Nodes = append(in.Have.Nodes, plan.Node{Spec: api.KafkaNodeSpec{NodeID: int32(id), Roles: []api.Role{role}}, Status: api.KafkaNodeStatus{Placement: at}})
	}
	in.Have.Nodes = append(in.Have.Nodes, plan.Node{Spec: api.KafkaNodeSpec{NodeID: 3, Roles: []api.Role{api.RoleBroker}}})
	got := map[string]string{}
	for _, l := range health.Status(in).Listeners {
		got[l.Name] = l.BootstrapServers
	}
	want := map[string]string{
		"inside": "orders-bootstrap.kafka.svc:9094", "ports": "10.0.0.1:30001,10.0.0.2:30001", "outer": "1.2.3.4:30002",
		"named": "orders.kafka:30003", "balanced": "[fd00::1]:9094", "balanced-name": "b:9094",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
