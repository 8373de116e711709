package plan_test

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
)

func TestMovesWaitForApproval(t *testing.T) {
	m := five()
	m.Rollout.Approval = api.ApprovalManual
	s := newScaled(t, m)
	s.spec(without(102))
	p := s.rest(30)
	st := s.op(scale2).Status
	if s.count(plan.MoveReplicas)+s.count(plan.SetConfig) > 0 || blockFor(p, "WaitingForApproval") == nil || st.PlanDigest == "" || len(st.Plan) < 2 {
		t.Fatalf("it does not wait: %s, plan %v", s.said(), st.Plan)
	}
	if st.Proposal == nil || st.Proposal.Moves == 0 || st.Proposal.Bytes == 0 {
		t.Errorf("proposal %+v", st.Proposal)
	}
	s.phase(scale2, api.OperationPending, "castellan approve")
	// What is approved is what was shown: meanwhile there is more to move.
	s.w.CreateTopic("late", 2, 5, 3)
	s.rest(25)
	s.op(scale2).Spec.ApprovedPlan = "sha256:another"
	s.rest(5)
	if s.begun() {
		t.Fatal("it began with the approval of something else")
	}
	s.op(scale2).Spec.ApprovedPlan = s.op(scale2).Status.PlanDigest
	s.atRest(120)
	s.gone(102)
}

func TestMovesArePausedAndGoOn(t *testing.T) {
	m := rated(five(), 10<<20)
	m.Balance.CopiesPerBroker = 1
	s := newScaled(t, m)
	s.spec(without(102))
	s.until("replicas move", s.begun)
	s.op(scale2).Spec.Paused = true
	s.until("what was under way has ended", func() bool { return s.w.InFlight() == 0 })
	moved := s.count(plan.MoveReplicas)
	p := s.rest(30)
	if s.count(plan.MoveReplicas) != moved || blockFor(p, "OperationPaused") == nil || s.w.On(102) == 0 {
		t.Errorf("it goes on: %s", s.said())
	}
	s.phase(scale2, api.OperationPaused, "castellan resume")
	s.stays(102)
	s.op(scale2).Spec.Paused = false
	s.atRest(250)
	s.gone(102)
}

func TestMovesKeepToTheWindow(t *testing.T) {
	m := five()
	m.Rollout.Windows = []api.Window{{Schedule: "30 0 * * *", Duration: metav1.Duration{Duration: time.Hour}}}
	s := newScaled(t, m)
	s.spec(without(102))
	p := s.rest(30)
	if s.count(plan.MoveReplicas) > 0 || blockFor(p, "OutsideWindow") == nil || p.Again == 0 {
		t.Errorf("it begins outside of the window: %s", s.said())
	}
	s.w.Now = s.w.Now.Truncate(24 * time.Hour).Add(31 * time.Minute)
	s.atRest(120)
	s.gone(102)
}

func TestCopiesAreLimited(t *testing.T) {
	m := five()
	m.Balance.CopiesPerBroker, m.Balance.CopiesPerCluster = 2, 3
	s := newScaled(t, m)
	spread(s.w, "many", 2, 30, idsOf(m, api.RoleBroker))
	s.spec(without(102, 104))
	most := 0
	for range 300 {
		if s.pass().Done() {
			break
		}
		most = max(most, s.w.InFlight())
	}
	if most != 3 {
		t.Errorf("at most %d moves ran at once, want 3", most)
	}
	s.atRest(50)
	s.gone(102, 104)
}

// A rollout that a new spec needs as well goes first, and the nodes leave afterwards; one that comes
// during the drain makes a drain of its own after it.
func TestRolloutGoesFirst(t *testing.T) {
	s := newScaled(t, rated(five(), 10<<20))
	s.spec(without(102))
	s.until("replicas move", s.begun)
	s.spec(func(m *cluster.Model) { setConfig(m, "brokers", "num.io.threads", "16") })
	s.until("the rollout is over", s.is("orders-rollout-r3", api.OperationSucceeded))
	s.stays(102)
	s.atRest(250)
	s.gone(102)
	s.phase("orders-scale-r3", api.OperationSucceeded, "")
	for _, id := range []int32{100, 101, 103, 104} {
		if s.w.Restarts[id] != 1 {
			t.Errorf("broker %d was restarted %d times", id, s.w.Restarts[id])
		}
	}
	if s.w.Restarts[102] > 0 {
		t.Error("a node that leaves was restarted")
	}
}

func TestRestartGoesBeforeADrain(t *testing.T) {
	s := newScaled(t, rated(five(), 10<<20))
	s.spec(without(102))
	s.until("replicas move", s.begun)
	s.ask("restart", api.OperationSpec{Type: api.OperationRestart, Nodes: []int32{100, 103}})
	s.until("the restart is over", s.is("restart", api.OperationSucceeded))
	s.atRest(250)
	s.gone(102)
	if s.w.Restarts[100] != 1 || s.w.Restarts[103] != 1 {
		t.Errorf("restarts %v", s.w.Restarts)
	}
}

func TestDrainOperation(t *testing.T) {
	s := newScaled(t, rated(five(), 20<<20))
	s.ask("drain", api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{102}})
	s.until("replicas move", s.begun)
	s.rest(2)
	if s.w.CreateTopic("late", 2, 5, 3); slices.Contains(slices.Concat(s.w.Replicas("late")...), 102) {
		t.Error("a topic was placed on a broker that is drained")
	}
	s.atRest(150)
	s.phase("drain", api.OperationSucceeded, "hold no replica")
	s.stays(102)
	if s.w.On(102) != 0 || s.count(plan.StopNode) > 0 {
		t.Errorf("it holds %d replicas", s.w.On(102))
	}
	if st := s.op("drain").Status; st.Steps.Percent != 100 || st.FinishedAt == nil || st.Moves == nil || st.Moves.Done != st.Moves.Total {
		t.Errorf("status %+v, moves %+v", st, st.Moves)
	}
	// Afterwards it may hold replicas again.
	if s.w.CreateTopic("later", 2, 5, 3); !slices.Contains(slices.Concat(s.w.Replicas("later")...), 102) {
		t.Error("it takes no replica any more")
	}
}

func TestDrainOfTooManyIsRefused(t *testing.T) {
	s := newScaled(t, five())
	s.ask("drain", api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{101, 102, 103}})
	s.rest(40)
	s.phase("drain", api.OperationFailed, "")
	if s.count(plan.MoveReplicas) > 0 || len(s.w.Leftovers()) > 0 {
		t.Errorf("left: %v", s.w.Leftovers())
	}
	s.atRest(5)
}

func TestRebalanceOperation(t *testing.T) {
	three := int32(3)
	for name, ask := range map[string]api.Rebalance{
		"full":    {Mode: api.RebalanceFull},
		"fill":    {Mode: api.RebalanceFill, Brokers: []int32{104}},
		"leaders": {Mode: api.RebalanceLeaders},
		"factor":  {Mode: api.RebalanceReplicationFactor, Topics: []string{"lopsided"}, ReplicationFactor: &three},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScaled(t, rated(five(), 20<<20))
			var replicas [][]int32
			for range 20 {
				replicas = append(replicas, []int32{100, 101})
			}
			s.w.AddTopic("lopsided", 1, replicas...)
			s.ask("rebalance", api.OperationSpec{Type: api.OperationRebalance, Rebalance: &ask})
			s.atRest(300)
			s.phase("rebalance", api.OperationSucceeded, "in its place")
			for _, r := range s.w.Replicas("lopsided") {
				if name == "factor" && len(r) != 3 {
					t.Errorf("replicas %v", r)
				}
			}
			if (name == "full" || name == "fill") && s.w.On(104) < 8 {
				t.Errorf("broker 104 holds %d", s.w.On(104))
			}
		})
	}
}

func TestRebalanceIsCancelled(t *testing.T) {
	for _, revert := range []bool{false, true} {
		s := newScaled(t, rated(five(), 10<<20))
		var replicas [][]int32
		for range 20 {
			replicas = append(replicas, []int32{100, 101})
		}
		s.w.AddTopic("lopsided", 1, replicas...)
		s.ask("rebalance", api.OperationSpec{Type: api.OperationRebalance, Rebalance: &api.Rebalance{Mode: api.RebalanceFull}})
		s.until("replicas move", s.begun)
		s.op("rebalance").Spec.Cancelled, s.op("rebalance").Spec.Revert = true, revert
		for s.w.InFlight() > 0 {
			if s.pass().Done() {
				t.Fatalf("at rest with moves on their way: %s", s.said())
			}
		}
		s.atRest(100)
		s.phase("rebalance", api.OperationCancelled, "cancelled")
		if (s.count(plan.CancelMoves) > 0) != revert {
			t.Errorf("taken back %d times", s.count(plan.CancelMoves))
		}
	}
}

// A second Operation waits for the first.
func TestOperationsThatMoveQueue(t *testing.T) {
	s := newScaled(t, rated(five(), 20<<20))
	s.ask("one", api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{102}})
	s.ask("two", api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{103}})
	s.until("replicas move", s.begun)
	s.phase("two", api.OperationPending, "one is over")
	s.atRest(200)
	s.phase("one", api.OperationSucceeded, "")
	s.phase("two", api.OperationSucceeded, "")
}

func onTwoVolumes(m *cluster.Model) {
	inPool(m, "brokers", func(n *cluster.Node) {
		n.Volumes = []api.Volume{{Name: "data"}, {Name: "more", Path: "/more"}}
		n.Process.Volumes = []string{"data", "more"}
	})
}

func onOneVolume(m *cluster.Model) {
	inPool(m, "brokers", func(n *cluster.Node) { n.Volumes, n.Process.Volumes = []api.Volume{{Name: "data"}}, []string{"data"} })
}

func TestVolumeComesAndGoes(t *testing.T) {
	for _, forgets := range []bool{false, true} {
		s := newScaled(t, rated(five(), 20<<20))
		s.forgets = forgets
		s.spec(onTwoVolumes)
		s.atRest(150)
		s.ask("even", api.OperationSpec{Type: api.OperationRebalance, Rebalance: &api.Rebalance{Mode: api.RebalanceDisks}})
		s.atRest(150)
		more := func() (n int) {
			for id := range int32(5) {
				n += s.w.InDir(100+id, layout.DataDir(layout.Volume{Path: "/more/default/orders/10" + string('0'+id) + "/more"}))
			}
			return n
		}
		if more() < 10 {
			t.Fatalf("%d replicas are on the new volumes", more())
		}
		s.spec(onOneVolume)
		s.until("the volumes are emptied", func() bool { return more() == 0 })
		s.atRest(200)
		for _, n := range s.w.See().Nodes {
			if len(n.Spec.Volumes) != 1 || len(n.Spec.Process.Volumes) != 1 {
				t.Errorf("node %d has volumes %v", n.Spec.NodeID, n.Spec.Volumes)
			}
		}
	}
}

// A volume that comes back before it was emptied is kept.
func TestVolumeComesBack(t *testing.T) {
	s := newScaled(t, five())
	s.spec(onTwoVolumes)
	s.atRest(150)
	s.ask("even", api.OperationSpec{Type: api.OperationRebalance, Rebalance: &api.Rebalance{Mode: api.RebalanceDisks}})
	s.atRest(150)
	s.spec(onOneVolume)
	s.until("replicas move", s.begun)
	s.spec(onTwoVolumes)
	s.atRest(200)
}

// What lies in the log dirs of a broker that is down is not known, so it loses none.
func TestBrokerThatIsDownLosesNoVolume(t *testing.T) {
	s := newScaled(t, five())
	s.spec(onTwoVolumes)
	s.atRest(150)
	s.ask("even", api.OperationSpec{Type: api.OperationRebalance, Rebalance: &api.Rebalance{Mode: api.RebalanceDisks}})
	s.atRest(150)
	s.w.Break(101, true)
	s.rest(5)
	s.spec(onOneVolume)
	if p := s.rest(60); blockFor(p, "EmptyingLogDir") == nil {
		t.Errorf("nothing waits for it: %s", s.said())
	}
	s.w.Break(101, false)
	s.atRest(250)
}

// A node that a user ignores stays when the Operation is over, until somebody takes it up again.
func TestIgnoredNodeDoesNotLeave(t *testing.T) {
	s := newScaled(t, rated(five(), 10<<20))
	s.spec(without(101, 102))
	s.until("replicas move", s.begun)
	s.op(scale2).Spec.IgnoredNodes = []int32{102}
	p := s.rest(100)
	s.gone(101)
	s.stays(102)
	s.phase(scale2, api.OperationSucceeded, "")
	if b := blockFor(p, "Ignored"); b == nil || b.Node != 102 || !b.Stalled || len(p.Steps) > 0 {
		t.Errorf("blocked %+v", p.Blocked)
	}
	s.ask("again", api.OperationSpec{Type: api.OperationScale, ToRevision: "r2", Nodes: []int32{102}})
	s.atRest(150)
	s.gone(102)
}

func TestStoppedOrPausedInTheMiddleOfADrain(t *testing.T) {
	for passes := range 14 {
		for _, paused := range []bool{false, true} {
			s := newScaled(t, rated(five(), 10<<20))
			s.spec(without(102))
			s.rest(passes)
			if paused {
				s.m.Paused = true
			} else {
				s.m.State = api.StateStopped
			}
			s.rest(20)
			s.m.Paused, s.m.State = false, api.StateRunning
			s.atRest(250)
			s.gone(102)
		}
	}
}

// Somebody moves another partition of a topic of which we move some, and ours are taken back.
func TestForeignReassignmentOfATopicOfOurs(t *testing.T) {
	s := newScaled(t, rated(five(), 10<<20))
	s.w.Size("t", 400<<20)
	s.spec(without(102))
	s.until("replicas move", s.begun)
	s.w.Reassign("t", 3, 103, 104, 101)
	s.rest(2)
	s.op(scale2).Spec.Cancelled, s.op(scale2).Spec.Revert = true, true
	s.rest(100)
	if got := s.w.Replicas("t")[3]; !slices.Equal(got, []int32{103, 104, 101}) {
		t.Errorf("theirs came to %v", got)
	}
	if left := s.w.Leftovers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
