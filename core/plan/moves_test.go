package plan_test

import (
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
)

func TestBrokersLeave(t *testing.T) {
	for name, ids := range map[string][]int32{"the middle one": {102}, "two at once": {101, 103}} {
		for _, forgets := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				s := newScaled(t, five())
				s.forgets = forgets
				s.spec(without(ids...))
				s.atRest(120)
				s.gone(ids...)
				s.phase(scale2, api.OperationSucceeded, "in its place")
				if len(s.w.Operations()) != 1 {
					t.Errorf("operations: %s", s.said())
				}
				for _, n := range s.op(scale2).Status.Nodes {
					if n.State != api.OperationNodeSucceeded {
						t.Errorf("node %d is %s", n.ID, n.State)
					}
				}
				if s.w.Deleted[ids[0]] {
					t.Error("its data is gone")
				}
			})
		}
	}
}

// A topic that somebody makes on the broker while it is emptied is moved too; a broker that
// knows cordons gets none.
func TestTopicMadeOnALeavingBroker(t *testing.T) {
	for _, metadata := range []string{"4.2-IV1", "4.3-IV0"} {
		s := newScaled(t, five())
		s.w.MetadataVersion = metadata
		s.w.Size("t", 200<<20)
		s.spec(without(102))
		s.until("replicas move", s.begun)
		s.rest(3) // it is cordoned
		if !s.w.CreateTopic("late", 2, 5, 3) {
			t.Fatal("no room for a topic")
		}
		if on := slices.Concat(s.w.Replicas("late")...); slices.Contains(on, 102) != (metadata == "4.2-IV1") {
			t.Errorf("under %s the topic is on %v", metadata, on)
		}
		s.atRest(150)
		s.gone(102)
	}
}

// A topic that comes between the last look and the stop brings the node back to be emptied.
func TestTopicMadeOnAStoppedBroker(t *testing.T) {
	s := newScaled(t, five())
	s.w.MetadataVersion = ""
	s.spec(without(102))
	s.until("it is stopped", func() bool { return s.count(plan.StopNode) > 0 })
	s.w.AddTopic("late", 1, []int32{100, 102})
	s.atRest(150)
	s.gone(102)
	if s.count(plan.StartNode) != 1 || s.count(plan.StopNode) != 2 {
		t.Errorf("it was stopped %d times and started %d times", s.count(plan.StopNode), s.count(plan.StartNode))
	}
}

func TestSpecTurnsRoundDuringADrain(t *testing.T) {
	for _, at := range []plan.Kind{plan.CreateOperation, plan.SetConfig, plan.MoveReplicas, plan.StopNode} {
		t.Run(string(at), func(t *testing.T) {
			s := newScaled(t, rated(five(), 10<<20))
			whole := slices.Clone(s.m.Nodes)
			s.spec(without(102))
			s.until(string(at), func() bool { return s.count(at) > 0 })
			s.spec(func(m *cluster.Model) { m.Nodes = whole })
			s.atRest(150)
			s.stays(102)
			if s.count(plan.UnregisterBroker)+s.count(plan.DeleteNode) > 0 {
				t.Errorf("it was taken out: %s", s.said())
			}
			if at == plan.MoveReplicas && (s.count(plan.CancelMoves) == 0 || s.w.On(102) != 6) {
				t.Errorf("moves were not taken back: %d cancels, %d replicas", s.count(plan.CancelMoves), s.w.On(102))
			}
			s.phase(scale2, api.OperationCancelled, "superseded")
			if len(s.w.Operations()) != 1 {
				t.Errorf("operations: %s", s.said())
			}
		})
	}
}

func TestDrainIsCalledOff(t *testing.T) {
	for name, off := range map[string]func(*scaled){
		"cancelled":           func(s *scaled) { s.op(scale2).Spec.Cancelled = true },
		"cancelled, reverted": func(s *scaled) { s.op(scale2).Spec.Cancelled, s.op(scale2).Spec.Revert = true, true },
		"deleted":             func(s *scaled) { s.w.DeleteOperation(scale2) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScaled(t, rated(five(), 10<<20))
			s.spec(without(102))
			s.until("replicas move", s.begun)
			off(s)
			p := s.rest(60)
			s.stays(102)
			if left := s.w.Leftovers(); len(left) > 0 || s.w.InFlight() > 0 {
				t.Errorf("left behind: %v", left)
			}
			if b := blockFor(p, "Held"); b == nil || !b.Stalled || s.w.Held("r2") == nil {
				t.Errorf("not held: %s", s.said())
			}
			if reverted := s.count(plan.CancelMoves) > 0; reverted != strings.Contains(name, "reverted") {
				t.Errorf("%d steps take moves back", s.count(plan.CancelMoves))
			}
			if op := s.w.Operation(scale2); (op == nil) != (name == "deleted") {
				t.Errorf("operation: %s", s.said())
			}
			// Somebody decides to go on.
			s.ask("again", api.OperationSpec{Type: api.OperationScale, ToRevision: "r2", Nodes: []int32{102}})
			s.atRest(150)
			s.gone(102)
			if s.w.Held("r2") != nil {
				t.Error("the revision is still held")
			}
		})
	}
}

func TestThrottleIsThereBeforeTheFirstMove(t *testing.T) {
	for name, forgets := range map[string]bool{"": false, "without a memo": true} {
		t.Run(name, func(t *testing.T) {
			s := newScaled(t, rated(five(), 15<<20))
			s.forgets = forgets
			s.spec(without(102))
			s.atRest(200)
			s.gone(102)
			if s.w.Unthrottled > 0 {
				t.Errorf("copies ran without a throttle for %d ticks", s.w.Unthrottled)
			}
		})
	}
}

func TestThrottlesOfOthersStay(t *testing.T) {
	s := newScaled(t, rated(five(), 15<<20))
	s.w.UserThrottle("t", plan.TopicThrottle{Leader: "*", Follower: "0:100"})
	s.spec(without(102))
	s.atRest(200)
	s.gone(102)
}

// Who throttles a broker by hand, or cordons it, has a reason, and takes it back himself.
func TestKeysSetByHandStay(t *testing.T) {
	s := newScaled(t, rated(five(), 15<<20))
	s.w.MetadataVersion = "4.3-IV0"
	hand := map[string]string{"follower.replication.throttled.rate": "20000000", "cordoned.log.dirs": "/elsewhere"}
	for key, value := range hand {
		s.w.UserKey(101, key, value)
		s.w.UserKey(102, key, value)
	}
	s.spec(without(102))
	s.until("it says so", func() bool {
		op := s.w.Operation(scale2)
		return op != nil && strings.Contains(op.Status.Message, "set on brokers [101 102] stay")
	})
	s.atRest(200)
	if diff := gocmp.Diff(hand, s.w.BrokerConfig(101)); diff != "" {
		t.Errorf("what somebody set on broker 101 (- before, + after):\n%s", diff)
	}
}

func TestThrottleOfTheSpecStays(t *testing.T) {
	m := rated(five(), 15<<20)
	m.Nodes[4].Dynamic = map[string]string{"follower.replication.throttled.rate": "20000000"}
	s := newScaled(t, m)
	s.spec(without(102))
	s.atRest(200)
	if got := s.w.BrokerConfig(101)["follower.replication.throttled.rate"]; got != "20000000" {
		t.Errorf("the throttle of the spec is %q", got)
	}
}

func TestForeignReassignmentsAreLeftAlone(t *testing.T) {
	s := newScaled(t, five())
	s.w.AddTopic("theirs", 2, []int32{102, 100, 101})
	s.w.Size("theirs", 600<<20)
	s.w.Reassign("theirs", 0, 102, 100, 103)
	s.spec(without(102))
	s.atRest(200)
	s.gone(102)
}

func TestBrokerCrashesDuringADrain(t *testing.T) {
	for _, id := range []int32{100, 102} {
		s := newScaled(t, rated(five(), 10<<20))
		s.spec(without(102))
		s.until("replicas move", s.begun)
		s.w.Crash(id)
		s.atRest(250)
		s.gone(102)
	}
}

// A receiver that does not come back has its moves taken back, and others receive instead.
func TestReceiverIsGoneForGood(t *testing.T) {
	s := newScaled(t, rated(five(), 10<<20))
	s.spec(without(102))
	s.until("replicas move", s.begun)
	s.w.Break(101, true)
	s.until("moves are taken back", func() bool { return s.count(plan.CancelMoves) > 0 })
	s.rest(30)
	s.stays(100)
	s.w.Break(101, false)
	s.atRest(300)
	s.gone(102)
}

func TestDrainSurvivesCutsAnywhere(t *testing.T) {
	for cut := range 6 {
		s := newScaled(t, rated(five(), 15<<20))
		s.spec(without(101, 103))
		for range 60 {
			s.cut(cut)
			s.pass()
		}
		s.atRest(200)
		s.gone(101, 103)
		if s.w.Unthrottled > 0 {
			t.Errorf("copies ran without a throttle for %d ticks", s.w.Unthrottled)
		}
	}
}

func TestNewBrokersAreFilled(t *testing.T) {
	m := model(controllers(3), brokers(3))
	m.Balance.FillNewBrokers = true
	s := newScaled(t, m)
	before := s.w.Replicas("t")
	s.spec(with("brokers", 103, 104, 105))
	s.atRest(200)
	for _, id := range []int32{103, 104, 105} {
		if s.w.On(id) == 0 {
			t.Errorf("broker %d is empty: %s", id, s.said())
		}
	}
	for i, now := range s.w.Replicas("t") {
		for _, id := range now {
			if id < 103 && !slices.Contains(before[i], id) {
				t.Errorf("t-%d was moved from %v to %v", i, before[i], now)
			}
		}
	}
	s.phase(scale2, api.OperationSucceeded, "")
	if n := s.count(plan.CreateOperation); n != 1 {
		t.Errorf("%d operations were made for one wish", n)
	}
}

// A broker that somebody empties on purpose is not new.
func TestDrainedBrokerIsNotFilledAgain(t *testing.T) {
	m := model(controllers(3), brokers(4))
	m.Balance.FillNewBrokers = true
	s := newScaled(t, m)
	s.ask("empty", api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{101}})
	s.until("it is empty", s.is("empty", api.OperationSucceeded))
	s.rest(100)
	if s.w.On(101) > 0 || s.count(plan.CreateOperation) > 0 {
		t.Errorf("broker 101 has %d replicas again: %s", s.w.On(101), s.said())
	}
}

func TestRefusedDrainGoesOnWhenThereIsSpace(t *testing.T) {
	s := newScaled(t, five())
	for id := range int32(5) {
		s.w.Capacity(100+id, 420<<20)
	}
	s.spec(without(102))
	p := s.rest(40)
	if b := blockFor(p, "CannotMove"); b == nil || !b.Stalled || s.count(plan.MoveReplicas) > 0 {
		t.Errorf("blocked %+v", p.Blocked)
	}
	s.phase(scale2, api.OperationPaused, "")
	s.stays(102)
	for id := range int32(5) {
		s.w.Capacity(100+id, 100<<30)
	}
	s.atRest(200)
	s.gone(102)
}

func TestDataGoesWhereTheSpecSaysSo(t *testing.T) {
	m := five()
	for i := range m.Nodes {
		m.Nodes[i].WhenScaled = api.DeletionDelete
	}
	s := newScaled(t, m)
	s.spec(without(102))
	s.atRest(120)
	s.gone(102)
	if !s.w.Deleted[102] {
		t.Error("its data was kept")
	}
}

// A further node leaves while one is on its way out, and neither comes back.
func TestFurtherNodeLeaves(t *testing.T) {
	s := newScaled(t, rated(five(), 10<<20))
	s.spec(without(102))
	s.until("replicas move", s.begun)
	s.spec(without(103))
	s.atRest(200)
	s.gone(102, 103)
}

func TestDiskIsLostDuringADrain(t *testing.T) {
	for _, id := range []int32{101, 102} {
		s := newScaled(t, rated(five(), 10<<20))
		s.spec(without(102))
		s.until("replicas move", s.begun)
		s.w.LoseDisk(id)
		s.atRest(250)
		s.gone(102)
	}
}

func TestHostIsSilentDuringADrain(t *testing.T) {
	s := newScaled(t, rated(five(), 10<<20))
	s.spec(without(102))
	s.until("replicas move", s.begun)
	s.w.Silence(102, true)
	p := s.rest(60)
	if blockFor(p, "HostSilent") == nil || s.count(plan.UnregisterBroker) > 0 {
		t.Errorf("whether it stopped is not known: %s", s.said())
	}
	s.w.Silence(102, false)
	s.atRest(200)
	s.gone(102)
}

// The only copy of a topic is on the leaving broker when that crashes.
func TestOnlyCopyIsOnALeavingBrokerThatCrashes(t *testing.T) {
	s := newScaled(t, rated(five(), 10<<20))
	s.w.ELR = true
	s.w.AddTopic("one", 1, []int32{102}, []int32{103})
	s.spec(without(102))
	s.until("replicas move", s.begun)
	s.w.Crash(102)
	s.atRest(200)
	s.gone(102)
}

// Everything at once: all brokers and a controller for new ones, which are filled.
func TestNodesAreExchanged(t *testing.T) {
	m := model(controllers(3), brokers(3))
	m.Balance.FillNewBrokers = true
	s := newScaled(t, rated(m, 20<<20))
	s.spec(func(m *cluster.Model) {
		with("brokers", 110, 111, 112)(m)
		with("controllers", 10)(m)
		without(1, 100, 101, 102)(m)
	})
	s.atRest(300)
	s.gone(1, 100, 101, 102)
	for _, id := range []int32{110, 111, 112} {
		if s.w.On(id) == 0 {
			t.Errorf("broker %d is empty", id)
		}
	}
}
