package plan_test

import (
	"slices"
	"testing"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
)

// changesOf are the steps that change the set of voters, in their order.
func (s *scaled) changesOf() (added, removed []int32) {
	for _, step := range s.steps {
		switch step.Kind {
		case plan.AddVoter:
			added = append(added, step.Node)
		case plan.RemoveVoter:
			removed = append(removed, step.Node)
		default:
		}
	}
	return added, removed
}

func TestControllersGrowAndShrink(t *testing.T) {
	s := newScaled(t, model(controllers(3), brokers(3)))
	s.spec(with("controllers", 3, 4))
	s.atRest(100)
	if len(s.w.Voters()) != 5 {
		t.Fatalf("voters %v", s.w.Voters())
	}
	active := s.w.See().Kafka.Quorum.Leader
	gone := []int32{active, 3}
	s.spec(without(gone...))
	s.atRest(150)
	s.gone(gone...)
	if _, removed := s.changesOf(); !slices.Equal(removed, []int32{3, active}) {
		t.Errorf("removed %v, the active one was %d", removed, active)
	}
	if s.count(plan.UnregisterBroker) > 0 || len(s.w.Voters()) != 3 {
		t.Errorf("voters %v", s.w.Voters())
	}
}

// Every controller for a new one: the new ones vote before an old one goes.
func TestControllersAreReplaced(t *testing.T) {
	s := newScaled(t, model(controllers(3), brokers(3)))
	s.spec(func(m *cluster.Model) {
		with("controllers", 10, 11, 12)(m)
		without(0, 1, 2)(m)
	})
	s.atRest(250)
	s.gone(0, 1, 2)
	first := slices.IndexFunc(s.steps, func(step plan.Step) bool { return step.Kind == plan.RemoveVoter })
	if added, _ := s.changesOf(); len(added) != 3 {
		t.Errorf("added %v", added)
	}
	if slices.ContainsFunc(s.steps[first:], func(step plan.Step) bool { return step.Kind == plan.AddVoter }) {
		t.Errorf("a voter was removed before all new ones voted: %v", kinds(plan.Plan{Steps: s.steps}))
	}
}

// Two of those that stay are down: without one more there is no majority left.
func TestControllersAreDownWhileOthersLeave(t *testing.T) {
	s := newScaled(t, model(controllers(5), brokers(3)))
	s.w.Break(1, true)
	s.w.Break(2, true)
	s.spec(without(3, 4))
	p := s.rest(60)
	if len(s.w.Voters()) != 5 || blockFor(p, "QuorumAtRisk") == nil {
		t.Errorf("voters %v: %s", s.w.Voters(), s.said())
	}
	s.w.Break(1, false)
	s.w.Break(2, false)
	s.atRest(150)
	s.gone(3, 4)
}

func TestCombinedNodesLeave(t *testing.T) {
	s := newScaled(t, model(combined(5)))
	s.spec(without(0, 3))
	s.atRest(250)
	s.gone(0, 3)
	if len(s.w.Voters()) != 3 {
		t.Errorf("voters %v", s.w.Voters())
	}
}

// A pool of which every node is replaced one by one keeps its size at every step.
func TestPoolIsReplacedNodeByNode(t *testing.T) {
	s := newScaled(t, five())
	for i := range int32(5) {
		s.spec(func(m *cluster.Model) {
			with("brokers", 105+i)(m)
			without(100 + i)(m)
		})
		s.atRest(200)
		s.gone(100 + i)
		s.stays(105 + i)
	}
}

func TestPoolGoes(t *testing.T) {
	m := model(controllers(3), brokers(3), group{"more", 200, 3, []api.Role{api.RoleBroker}})
	s := newScaled(t, m)
	s.spec(without(100, 101, 102))
	s.atRest(250)
	s.gone(100, 101, 102)
}

// What comes is there before others go; what was there and is down holds nobody up.
func TestWhatComesIsThereBeforeOthersGo(t *testing.T) {
	s := newScaled(t, five())
	s.spec(func(m *cluster.Model) {
		with("brokers", 105)(m)
		without(102)(m)
	})
	s.until("the new one exists", func() bool { return s.count(plan.CreateNode) > 8 })
	s.w.Break(105, true)
	p := s.rest(60)
	if blockFor(p, "WaitingForNode") == nil || s.count(plan.MoveReplicas) > 0 {
		t.Errorf("it does not wait: %s", s.said())
	}
	s.stays(102)
	s.w.Break(105, false)
	s.w.Break(104, true)
	s.rest(100)
	s.w.Break(104, false)
	s.atRest(200)
	s.gone(102)
}

// One that leaves and never answers again has to be given up by hand; what it held is moved all the same.
func TestDeadBrokerLeaves(t *testing.T) {
	s := newScaled(t, five())
	s.w.Break(102, true)
	s.rest(5)
	s.spec(without(102))
	s.atRest(250)
	s.gone(102)
}
