package plan_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/core/sim"
)

// podsAtRest is a settled cluster of three combined pods with a topic.
func podsAtRest(t *testing.T) (*sim.World, cluster.Model) {
	t.Helper()
	m := asPods(model(combined(3)))
	w := born(t, m)
	spread(w, "t", 2, 6, idsOf(m, api.RoleBroker))
	settle(t, w, m, 20)
	return w, m
}

// stepOf is the only step of a kind for a node.
func stepOf(t *testing.T, p plan.Plan, kind plan.Kind, node int32) plan.Step {
	t.Helper()
	i := slices.IndexFunc(p.Steps, func(s plan.Step) bool { return s.Kind == kind && s.Node == node })
	if i < 0 {
		t.Fatalf("no %s %d in %v, blocked %v", kind, node, kinds(p), p.Blocked)
	}
	return p.Steps[i]
}

func blockOf(p plan.Plan, node int32) plan.Block {
	i := slices.IndexFunc(p.Blocked, func(b plan.Block) bool { return b.Node == node })
	if i < 0 {
		return plan.Block{}
	}
	return p.Blocked[i]
}

func claimsOf(spec api.KafkaNodeSpec) []string {
	var out []string
	for _, v := range spec.Volumes {
		out = append(out, v.Claim)
	}
	return out
}

func TestANewPodTakesTheClaimsThatExist(t *testing.T) {
	m := asPods(model(combined(3)))
	addVolume(&m, "combined")
	w := sim.New(nil)
	see := w.See()
	see.Shared.Claims = map[int32]map[string]string{1: {"data": "data-orders-1-r3"}}
	p := plan.Compute(m, see, w.Now)
	for node, want := range map[int32][]string{0: {"data-orders-0", "more-1-orders-0"}, 1: {"data-orders-1-r3", "more-1-orders-1"}} {
		spec := stepOf(t, p, plan.CreateNode, node).Spec
		if diff := cmp.Diff(want, claimsOf(*spec)); diff != "" || spec.Host != "" {
			t.Errorf("node %d (-want +got):\n%s", node, diff)
		}
	}
	spec := stepOf(t, p, plan.CreateNode, 0).Spec
	if spec.Address != "orders-0-0.orders-nodes.default.svc" || spec.BootstrapControllers[2] != "orders-2-0.orders-nodes.default.svc:9090" || spec.Volumes[0].Path != "/var/lib/kafka/data" {
		t.Errorf("%+v", spec)
	}
}

func TestVolumesGrowWithoutARestart(t *testing.T) {
	w, m := podsAtRest(t)
	inPool(&m, "combined", func(n *cluster.Node) { n.Volumes = []api.Volume{{Name: "data", Size: gigabytes(20)}} })
	settle(t, w, m, 20)
	for _, n := range w.See().Nodes {
		if n.Spec.Volumes[0].Size.Cmp(*gigabytes(20)) != 0 {
			t.Errorf("node %d has %s", n.Spec.NodeID, n.Spec.Volumes[0].Size)
		}
	}
	inPool(&m, "combined", func(n *cluster.Node) { n.Volumes = []api.Volume{{Name: "data", Size: gigabytes(5)}} })
	if p := pass(w, m); !p.Done() || len(w.Restarts) > 0 {
		t.Errorf("shrunk: %v, restarts %v", kinds(p), w.Restarts)
	}
}

func TestAnAddedVolumeIsFormattedAtOnceAfterItsRoll(t *testing.T) {
	w, m := podsAtRest(t)
	addVolume(&m, "combined")
	p := pass(w, m)
	if spec := stepOf(t, p, plan.UpdateLive, 1).Spec; len(spec.Volumes) != 2 || len(spec.Process.Volumes) != 1 {
		t.Errorf("the claim does not come first: %+v", spec.Volumes)
	}
	for range 60 {
		if w.See().Nodes[0].Status.Nonce != "" || w.See().Nodes[1].Status.Nonce != "" {
			break
		}
		pass(w, m)
	}
	w.Hidden = true // whether Kafka can be read does not matter to a volume that was never used
	asking := slices.IndexFunc(w.See().Nodes, func(n plan.Node) bool { return n.Status.Nonce != "" })
	if asking < 0 {
		t.Fatal("no node asks")
	}
	p = pass(w, m)
	if s := stepOf(t, p, plan.AnswerStorage, int32(asking)); s.Spec.Storage.Answer != api.StorageJoin {
		t.Errorf("%+v", s.Spec.Storage)
	}
	w.Hidden = false
	settle(t, w, m, 100)
	if diff := cmp.Diff(map[int32]int{0: 1, 1: 1, 2: 1}, w.Restarts); diff != "" {
		t.Errorf("restarts (-want +got):\n%s", diff)
	}
	for _, n := range w.See().Nodes {
		if n.Spec.Volumes[0].DirectoryID == "" || n.Spec.Volumes[1].DirectoryID == "" {
			t.Errorf("node %d: its directories are not noted: %+v", n.Spec.NodeID, n.Spec.Volumes)
		}
	}
}

// A volume that held data is not formatted because it lies beside the first one.
func TestAnEmptiedVolumeWaitsForKafkasWord(t *testing.T) {
	w, m := podsAtRest(t)
	addVolume(&m, "combined")
	settle(t, w, m, 100)
	w.AddTopic("lonely", 1, []int32{1}, []int32{1})
	w.EmptyVolume(1, 1)
	var p plan.Plan
	for range 20 {
		p = pass(w, m)
	}
	clean(t, w)
	if !blockedBecause(p, "LastCopyLost") {
		t.Fatalf("steps %v, blocked %v", kinds(p), p.Blocked)
	}
}

// The only controller needs its answer before Kafka can be read at all.
func TestTheOnlyControllerComesBackOnTheUsersWord(t *testing.T) {
	m := asPods(model(combined(1)))
	w := born(t, m)
	addVolume(&m, "combined")
	settle(t, w, m, 60)
	w.EmptyVolume(0, 1)
	for range 5 {
		pass(w, m)
	}
	p := plan.Compute(m, w.See(), w.Now)
	if b := blockOf(p, 0); b.Reason != "KafkaUnreadable" || !strings.Contains(b.Message, "accept-data-loss") {
		t.Fatalf("blocked %v", p.Blocked)
	}
	see := w.See()
	see.Accept = []int32{0}
	if s := stepOf(t, plan.Compute(m, see, w.Now), plan.AnswerStorage, 0); s.Spec.Storage.Answer != api.StorageJoin {
		t.Errorf("%+v", s.Spec.Storage)
	}
}

func TestPortsAreKeptAndAwaited(t *testing.T) {
	w, m := podsAtRest(t)
	w.Stingy(true)
	expose(&m, "combined", "out")
	var p plan.Plan
	for range 10 {
		p = pass(w, m)
	}
	if b := blockOf(p, 1); b.Reason != "WaitingForAddress" || b.Stalled || !strings.Contains(b.Message, "orders-1-out") || len(w.Restarts) > 0 {
		t.Fatalf("restarts %v, blocked %v", w.Restarts, p.Blocked)
	}
	w.Stingy(false)
	settle(t, w, m, 100)
	given := w.See().Nodes[1].Spec.Exposures
	if len(given) != 1 || given[0].NodePort == 0 || given[0].BootstrapNodePort == 0 {
		t.Fatalf("%+v", given)
	}
	see := w.See() // Services deleted by hand: the ports are asked for again, the same ones
	for i := range see.Nodes {
		see.Nodes[i].Status.Exposures = nil
	}
	see.Shared.Bootstrap = nil
	for _, s := range plan.Compute(m, see, w.Now).Steps {
		if s.Spec != nil {
			t.Errorf("%s %d: %+v", s.Kind, s.Node, s.Spec.Exposures)
		}
	}
	conceal(&m, "combined")
	for n := w.See().Nodes[0]; ; n = w.See().Nodes[0] {
		if len(n.Spec.Process.Listeners) > 0 && len(n.Spec.Exposures) == 0 {
			t.Fatal("the Service goes before the listener")
		}
		if pass(w, m).Done() {
			break
		}
	}
	clean(t, w)
	if left := w.See().Nodes[0].Spec.Exposures; left != nil {
		t.Errorf("left: %v", left)
	}
}

// A listener that never gets its address must not hold up its own removal.
func TestAListenerThatWaitsInVainCanBeTakenBack(t *testing.T) {
	m := asPods(model(combined(3)))
	expose(&m, "combined", "out")
	w := sim.New(nil)
	w.Stingy(true)
	for range 10 {
		pass(w, m)
	}
	conceal(&m, "combined")
	settle(t, w, m, 100)
}

// A pod has every port for itself, also one that an earlier listener had.
func TestAPortThatIsFreeAgainIsGivenAgain(t *testing.T) {
	w, m := podsAtRest(t)
	expose(&m, "combined", "a")
	settle(t, w, m, 100)
	expose(&m, "combined", "b") // in a's place
	settle(t, w, m, 100)
	inPool(&m, "combined", func(n *cluster.Node) {
		n.Process.Listeners = []api.NodeListener{{Name: "a", Protocol: "PLAINTEXT"}, {Name: "b", Protocol: "PLAINTEXT"}}
		n.Ports = map[string]int32{"INTERNAL": 9091, "CONTROLLER": 9090, "a": 9093, "b": 9092}
	})
	settle(t, w, m, 100)
	if got := w.See().Nodes[0].Spec.Ports; got["a"] != 9093 || got["b"] != 9092 {
		t.Errorf("ports %v", got)
	}
}

func TestLoadBalancersToBeginWithAreWaitedFor(t *testing.T) {
	w, m := podsAtRest(t)
	m.Listeners = []api.Listener{{Name: "out", Port: 9094, Exposure: api.Exposure{Type: api.ExposureLoadBalancer}}}
	see := w.See()
	if b := blockOf(plan.Compute(m, see, w.Now), -1); b.Reason != "WaitingForAddress" || !strings.Contains(b.Message, "orders-bootstrap-out") {
		t.Errorf("%+v", b)
	}
	see.Shared.Bootstrap = map[string]api.ExposureStatus{"out": {Address: "10.0.0.1"}}
	if p := plan.Compute(m, see, w.Now); !p.Done() {
		t.Errorf("%v", p.Blocked)
	}
	m.Listeners[0].Exposure.BootstrapHost = "kafka.example.com"
	if p := plan.Compute(m, w.See(), w.Now); !p.Done() {
		t.Errorf("%v", p.Blocked)
	}
}

func TestVolumesAreReplacedOnTheUsersWordOnce(t *testing.T) {
	w, m := podsAtRest(t)
	w.LoseMachine(1, false)
	for range 10 {
		pass(w, m)
	}
	if w.Replaced > 0 {
		t.Fatal("nobody asked")
	}
	w.Ask(1, "a")
	settle(t, w, m, 100)
	for range 5 { // the annotation stays
		pass(w, m)
	}
	w.LoseMachine(1, true) // and the machine after it is gone, which Kubernetes knows
	settle(t, w, m, 100)
	n := w.See().Nodes[1]
	if diff := cmp.Diff([]string{"data-orders-1-r3"}, claimsOf(n.Spec)); diff != "" || w.Replaced != 2 || n.Spec.Replaced != "a" || len(w.Voters()) != 3 {
		t.Errorf("replaced %d times, token %q, %d voters, claims %s", w.Replaced, n.Spec.Replaced, len(w.Voters()), diff)
	}
}

func TestReplacementThatWouldCostDataIsRefused(t *testing.T) {
	tests := map[string]struct {
		do     func(w *sim.World)
		reason string
	}{
		"it runs":               {func(*sim.World) {}, "StillRuns"},
		"its machine is silent": {func(w *sim.World) { w.Silence(1, true) }, "WaitingForFence"},
		"the last copy":         {func(w *sim.World) { w.AddTopic("lonely", 1, []int32{1}); w.LoseMachine(1, false) }, "LastCopyLost"},
		"no quorum":             {func(w *sim.World) { w.LoseMachine(1, false); w.Break(2, true) }, "KafkaUnreadable"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w, m := podsAtRest(t)
			tt.do(w)
			w.Ask(1, "a")
			var p plan.Plan
			for range 10 {
				p = pass(w, m)
			}
			clean(t, w)
			if b := blockOf(p, 1); b.Reason != tt.reason || w.Replaced > 0 {
				t.Errorf("replaced %d times, blocked %v", w.Replaced, p.Blocked)
			}
		})
	}
}

func TestAMachineThatIsDeclaredDeadButRunsIsNoReasonToWait(t *testing.T) {
	w, m := podsAtRest(t)
	see := w.See()
	see.Nodes[1].Status.Placement.Lost = true
	if p := plan.Compute(m, see, w.Now); !p.Done() {
		t.Errorf("steps %v, blocked %v", kinds(p), p.Blocked)
	}
}

func TestSpareTellsWhetherAnyNodeCouldGo(t *testing.T) {
	tests := map[string]struct {
		do   func(w *sim.World, m *cluster.Model)
		want bool
	}{
		"at rest":            {func(*sim.World, *cluster.Model) {}, true},
		"one is down":        {func(w *sim.World, _ *cluster.Model) { w.Break(1, true) }, false},
		"one is silent":      {func(w *sim.World, _ *cluster.Model) { w.Silence(1, true) }, false},
		"Kafka is not read":  {func(w *sim.World, _ *cluster.Model) { w.Hidden = true }, false},
		"one rolls":          {func(_ *sim.World, m *cluster.Model) { setConfig(m, "combined", "num.io.threads", "16") }, false},
		"one copy":           {func(w *sim.World, _ *cluster.Model) { w.AddTopic("lonely", 1, []int32{2}) }, false},
		"paused":             {func(_ *sim.World, m *cluster.Model) { m.Paused = true }, true},
		"stopped":            {func(_ *sim.World, m *cluster.Model) { m.State = api.StateStopped }, false},
		"a node is to come":  {func(_ *sim.World, m *cluster.Model) { *m = asPods(model(combined(4))) }, false},
		"a voter is removed": {func(w *sim.World, _ *cluster.Model) { w.LoseDisk(1); w.Tick() }, false},
	}
	for name, tt := range tests {
		w, m := podsAtRest(t)
		tt.do(w, &m)
		if p := plan.Compute(m, w.See(), w.Now); p.Spare != tt.want {
			t.Errorf("%s: spare %t (%v)", name, p.Spare, p.Blocked)
		}
	}
	w, m := podsAtRest(t)
	see := w.See()
	see.Kafka.Topics[0].Partitions[0].ISR = []int32{0, 1} // ready, but not back in sync
	if plan.Compute(m, see, w.Now).Spare {
		t.Error("spare while a replica is behind")
	}
}

// What keeps drains waiting for ever is said, also while nothing else is to be done.
func TestWhatHoldsDrainsIsSaid(t *testing.T) {
	w, m := podsAtRest(t)
	if p := plan.Compute(m, w.See(), w.Now); p.Held != "" {
		t.Errorf("held at rest: %s", p.Held)
	}
	w.AddTopic("lonely", 1, []int32{2})
	if p := plan.Compute(m, w.See(), w.Now); !p.Done() || !strings.Contains(p.Held, "lonely-0") {
		t.Errorf("done %t, held %q", p.Done(), p.Held)
	}
}

// Nobody is restarted beside a pod that a drain was allowed to end, though it still runs.
func TestAnEvictedPodIsNotCountedOn(t *testing.T) {
	w, m := podsAtRest(t)
	setConfig(&m, "combined", "num.io.threads", "16")
	see := w.See()
	see.Shared.Evicting = []int32{2}
	p := plan.Compute(m, see, w.Now)
	restarts := slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Kind == plan.UpdateProcess })
	if restarts || len(p.Blocked) == 0 || p.Blocked[0].Reason != "BeingEvicted" || p.Again == 0 {
		t.Errorf("steps %v, blocked %v", kinds(p), p.Blocked)
	}
}

func TestANewSupervisorComesAlongOnly(t *testing.T) {
	w, m := podsAtRest(t)
	supervisor := func(m cluster.Model) cluster.Model {
		inPool(&m, "combined", func(n *cluster.Node) { n.Process.Supervisor = "castellan:2" })
		return m
	}
	if p := plan.Compute(plan.KeepSupervisors(supervisor(m), w.See().Nodes), w.See(), w.Now); !p.Done() {
		t.Errorf("a new supervisor alone: %v", kinds(p))
	}
	for what, change := range map[string]func(n *cluster.Node){
		"config": func(n *cluster.Node) { n.Process.Config = map[string]string{"num.io.threads": "16"} },
		"layout": func(n *cluster.Node) { n.Process.Layout = 2 },
	} {
		other := supervisor(m)
		inPool(&other, "combined", change)
		p := plan.Compute(plan.KeepSupervisors(other, w.See().Nodes), w.See(), w.Now)
		i := slices.IndexFunc(p.Steps, func(s plan.Step) bool { return s.Kind == plan.UpdateProcess })
		if i < 0 || p.Steps[i].Spec.Process.Supervisor != "castellan:2" || !strings.Contains(p.Steps[i].Reason, "supervisor castellan:1 to castellan:2") {
			t.Errorf("%s: %v", what, kinds(p))
		}
	}
}

// What a pod has is left to it when the spec, judged without its history, asks for another one.
func TestAPodThatIsAskedToBeAnotherIsHeld(t *testing.T) {
	w, m := podsAtRest(t)
	addVolume(&m, "combined")
	expose(&m, "combined", "out")
	settle(t, w, m, 100)
	before := w.See().Nodes
	for what, change := range map[string]func(n *cluster.Node){
		"another first volume": func(n *cluster.Node) { n.Volumes, n.Process.Volumes = n.Volumes[1:], n.Process.Volumes[1:] },
		"other roles":          func(n *cluster.Node) { n.Roles, n.Exposures = []api.Role{api.RoleBroker}, nil },
		"a host": func(n *cluster.Node) {
			n.Kubernetes, n.Process.Image, n.Process.Package, n.Hosts.MaxPerHost = false, "", "sha256:1", 9
			n.Volumes = []api.Volume{{Name: "data"}, {Name: "more-1"}}
		},
	} {
		other := m
		inPool(&other, "combined", change)
		w.Ask(1, what)
		p := pass(w, other)
		if !blockedBecause(p, "OtherNode") || len(p.Steps) > 0 {
			t.Errorf("%s: steps %v, blocked %v", what, kinds(p), p.Blocked)
		}
		if diff := cmp.Diff(before[1].Spec, w.See().Nodes[1].Spec); diff != "" {
			t.Errorf("%s changed the node:\n%s", what, diff)
		}
	}
	clean(t, w)
}

func TestANodeOnAHostIsNoPodBecauseTheSpecSaysSo(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	w.Ask(1, "a")
	p := plan.Compute(asPods(m), w.See(), w.Now)
	if !blockedBecause(p, "OtherNode") || blockedBecause(p, "StillRuns") || len(p.Steps) > 0 {
		t.Errorf("steps %v, blocked %v", kinds(p), p.Blocked)
	}
}
