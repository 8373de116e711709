package plan_test

import (
	"slices"
	"testing"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/core/sim"
)

func TestNodeThatIsAskedToBeAnotherIsHeld(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	other := m
	other.Nodes = slices.Clone(m.Nodes)
	other.Nodes[1].Roles = []api.Role{api.RoleBroker}
	other.Nodes[1].Pool = "brokers"
	setConfig(&other, "brokers", "num.io.threads", "16")
	var p plan.Plan
	for range 10 {
		p = pass(w, other)
	}
	clean(t, w)
	if w.Restarts[1] != 0 || !blockedBecause(p, "OtherNode") {
		t.Fatalf("restarts %v, blocked %v", w.Restarts, p.Blocked)
	}
}

func TestControllersScaleOutOneVoterAtATime(t *testing.T) {
	for _, sizes := range [][2]int{{1, 3}, {3, 5}} {
		m := model(combined(sizes[0]))
		w := born(t, m)
		ids := idsOf(m, api.RoleBroker)
		w.AddTopic("t", 1, ids)
		m = model(combined(sizes[1]))
		settle(t, w, m, 100)
		if len(w.Voters()) != sizes[1] {
			t.Errorf("%d voters, want %d", len(w.Voters()), sizes[1])
		}
	}
}

func TestScaleOutWhileANodeIsLost(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	spread(w, "t", 2, 3, idsOf(m, api.RoleBroker))
	w.Silence(1, true)
	w.Crash(1)
	m = model(combined(5))
	for range 60 {
		pass(w, m)
	}
	clean(t, w)
	if len(w.Voters()) != 5 {
		t.Errorf("%d voters, want 5", len(w.Voters()))
	}
	w.Silence(1, false)
	settle(t, w, m, 60)
}

// Stopped and started again in the middle of everything: a bootstrap, a roll, a replacement.
func TestStopInTheMiddleAndBack(t *testing.T) {
	base := model(combined(3), brokers(2))
	for at := range 25 {
		w := sim.New(hosts(1))
		for range at {
			pass(w, base)
		}
		stopStart(t, w, base)
		spread(w, "t", 2, 4, idsOf(base, api.RoleBroker))
		m := base
		m.Nodes = slices.Clone(base.Nodes)
		setConfig(&m, "combined", "num.io.threads", "16")
		for range at {
			pass(w, m)
		}
		stopStart(t, w, m)
		w.LoseDisk(1)
		for range at {
			pass(w, m)
		}
		stopStart(t, w, m)
	}
}

func stopStart(t *testing.T, w *sim.World, m cluster.Model) {
	t.Helper()
	stop := m
	stop.State = api.StateStopped
	for range 15 {
		pass(w, stop)
	}
	settle(t, w, m, 200)
}

func TestPausedInTheMiddleChangesNothingUntilItGoesOn(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	spread(w, "t", 2, 3, idsOf(m, api.RoleBroker))
	setConfig(&m, "combined", "num.io.threads", "16")
	for w.Restarts[0]+w.Restarts[1]+w.Restarts[2] == 0 {
		pass(w, m)
	}
	paused := m
	paused.Paused = true
	w.LoseDisk(2)
	for range 20 {
		if p := pass(w, paused); len(p.Steps) > 0 {
			t.Fatalf("steps %v while paused", kinds(p))
		}
	}
	settle(t, w, m, 200)
}

func TestTwoControllersSayThatTheyCannotRoll(t *testing.T) {
	m := model(controllers(2), brokers(2))
	w := born(t, m)
	setConfig(&m, "controllers", "num.io.threads", "16")
	var p plan.Plan
	for range 40 {
		p = pass(w, m)
	}
	clean(t, w)
	if !slices.ContainsFunc(p.Blocked, func(b plan.Block) bool { return b.Reason == "QuorumAtRisk" && b.Stalled }) {
		t.Errorf("blocked %v, want a stalled QuorumAtRisk", p.Blocked)
	}
}

func TestStopSaysThatASilentHostCannotBeWaitedFor(t *testing.T) {
	m := model(controllers(3), brokers(2))
	w := born(t, m)
	w.Silence(100, true)
	m.State = api.StateStopped
	var p plan.Plan
	for range 10 {
		p = pass(w, m)
	}
	if !slices.ContainsFunc(p.Blocked, func(b plan.Block) bool { return b.Node == 100 && b.Stalled }) {
		t.Errorf("blocked %v, want node 100 stalled", p.Blocked)
	}
}

// A voter that has just come back may be the one that makes the majority, also while its
// host is silent and it has not caught up yet.
func TestSilentHostGetsNoPermissionToRestart(t *testing.T) {
	m := model(controllers(3), brokers(3))
	w := born(t, m)
	w.Silence(1, true)
	setConfig(&m, "controllers", "num.io.threads", "16")
	var p plan.Plan
	for range 20 {
		p = pass(w, m)
	}
	if w.Restarts[1] != 0 || !blockedBecause(p, "HostSilent") {
		t.Errorf("restarts %v, blocked %v", w.Restarts, p.Blocked)
	}
	w.Silence(1, false)
	settle(t, w, m, 60)
}

func TestNodeDeletedByHandIsNotCountedOn(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	spread(w, "t", 2, 3, idsOf(m, api.RoleBroker))
	setConfig(&m, "combined", "num.io.threads", "16")
	w.Delete(2) // Kafka has not noticed yet
	pass(w, m)
	clean(t, w)
	settle(t, w, m, 100)
}

func TestVersionGoesBackOnlyWithinItsReleaseLine(t *testing.T) {
	for version, restarts := range map[string]int{"4.3.0": 1, "4.2.0": 0} {
		m := model(combined(1))
		w := born(t, m)
		m.Nodes[0].Process.Version = version
		var p plan.Plan
		for range 20 {
			p = pass(w, m)
		}
		if w.Restarts[0] != restarts || blockedBecause(p, "OtherNode") != (restarts == 0) {
			t.Errorf("to %s: restarts %v, blocked %v", version, w.Restarts, p.Blocked)
		}
	}
}
