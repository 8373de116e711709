package plan_test

import (
	"testing"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/core/sim"
)

// cutPass is a pass whose shell dies after so many steps.
func cutPass(w *sim.World, m cluster.Model, steps int) plan.Plan {
	p := plan.Compute(m, w.See(), w.Now)
	for i, s := range p.Steps {
		if i < steps {
			w.Do(s)
		}
	}
	w.Tick()
	return p
}

func TestLastCopyHoldsAnEmptiedBrokerWhoseISRIsEmpty(t *testing.T) {
	m := model(controllers(3), brokers(3))
	w := born(t, m)
	w.ELR = true
	w.AddTopic("lonely", 1, []int32{101})
	w.AddTopic("pair", 1, []int32{101, 102})
	w.LoseDisk(101)
	var p plan.Plan
	for range 20 {
		p = pass(w, m)
	}
	clean(t, w)
	if !blockedBecause(p, "LastCopyLost") {
		t.Fatalf("blocked %v, want LastCopyLost", p.Blocked)
	}
}

func TestEmptyISRIsWaitedForUntilAnotherCopyIsBack(t *testing.T) {
	m := model(controllers(3), brokers(3))
	w := born(t, m)
	w.ELR = true
	w.AddTopic("t", 2, []int32{100, 101, 102})
	for id := range int32(3) {
		w.Break(100+id, true)
	}
	w.Tick()
	w.LoseDisk(101)
	for range 20 {
		pass(w, m)
	}
	clean(t, w)
	for id := range int32(3) {
		w.Break(100+id, false)
	}
	settle(t, w, m, 100)
}

// A shell that dies between any two steps of a bootstrap must not strand the cluster.
func TestBootstrapThatIsCutOffAnywhereIsFinished(t *testing.T) {
	brokersFirst := model(group{"brokers", 0, 3, []api.Role{api.RoleBroker}}, group{"controllers", 100, 3, []api.Role{api.RoleController}})
	for _, m := range []cluster.Model{brokersFirst, model(combined(3)), model(controllers(1), brokers(2))} {
		for cut := 1; cut < 12; cut++ {
			w := sim.New(hosts(1))
			for range 3 {
				cutPass(w, m, cut)
			}
			for range 2 {
				cutPass(w, m, 1)
			}
			settle(t, w, m, 80)
		}
	}
}

func TestControllerEmptiedBeforeTheClusterIDIsRecordedVotesUnderANewDirectory(t *testing.T) {
	m := model(combined(3))
	w := sim.New(hosts(1))
	for w.See().Nodes == nil || w.See().Nodes[0].Spec.Storage == nil {
		for _, s := range plan.Compute(m, w.See(), w.Now).Steps {
			w.Do(s)
		}
		if n := w.See().Nodes; n[0].Spec.Storage == nil {
			w.Tick()
		}
	}
	w.Silence(2, true) // one host is slow, so the id is not recorded; the other two are a quorum
	for range 12 {
		pass(w, m)
	}
	w.LoseDisk(0)
	w.Silence(2, false)
	settle(t, w, m, 100)
}

func TestRevisionsDeletedByHandBringNoVoterBackWithoutItsLog(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	spread(w, "t", 2, 3, idsOf(m, api.RoleBroker))
	id := w.ClusterID
	w.LoseDisk(1)
	w.ClusterID = ""
	settle(t, w, m, 100)
	if w.ClusterID != id {
		t.Errorf("cluster id %q, want %q", w.ClusterID, id)
	}
}

func TestRevisionsDeletedByHandAndAllDisksEmptiedIsMetadataLost(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	w.ClusterID = ""
	for id := range int32(3) {
		w.LoseDisk(id)
	}
	var p plan.Plan
	for range 20 {
		p = pass(w, m)
	}
	clean(t, w)
	if !blockedBecause(p, "MetadataLost") {
		t.Fatalf("steps %v, blocked %v", kinds(p), p.Blocked)
	}
}

func TestNodesDeletedByHandFindTheirDisks(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	spread(w, "t", 2, 3, idsOf(m, api.RoleBroker))
	voters := w.Voters()[1]
	for id := range int32(3) {
		w.Delete(id)
	}
	settle(t, w, m, 100)
	if w.Voters()[1] != voters {
		t.Errorf("node 1 votes under %s, was %s", w.Voters()[1], voters)
	}
}

func TestSwappedAndForeignDisksAreNoLostDisks(t *testing.T) {
	m := model(controllers(5), brokers(3))
	w := born(t, m)
	spread(w, "t", 2, 3, idsOf(m, api.RoleBroker))
	w.Swap(0, 1)
	for range 20 {
		pass(w, m)
	}
	if len(w.Voters()) != 5 {
		t.Errorf("%d voters are left of 5", len(w.Voters()))
	}
	w.Swap(0, 1)
	settle(t, w, m, 60)
	back := w.Mount(2, "another")
	for range 20 {
		pass(w, m)
	}
	if len(w.Voters()) != 5 {
		t.Errorf("%d voters are left of 5", len(w.Voters()))
	}
	back()
	settle(t, w, m, 60)
}
