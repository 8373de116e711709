package plan_test

import (
	"slices"
	"testing"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
)

// A log dir that has failed can never be emptied, so a broker loses its volume as it is, but for what nobody else has.
func TestFailedVolumeIsLetGo(t *testing.T) {
	const broker int32 = 101
	for _, only := range []bool{false, true} {
		s := newScaled(t, model(controllers(3), brokers(3))) // each has a replica of everything
		s.spec(onTwoVolumes)
		s.atRest(150)
		s.ask("even", api.OperationSpec{Type: api.OperationRebalance, Rebalance: &api.Rebalance{Mode: api.RebalanceDisks}})
		s.atRest(150)
		s.spec(onOneVolume)
		letGo, lost := false, 0
		for range 100 {
			have := s.w.SeeFor(s.m)
			if c := have.Kafka.Placement; c != nil {
				lost = max(lost, failSecondDir(c, broker, only))
			}
			s.last = plan.Compute(s.m, have, s.w.Now)
			letGo = letGo || slices.ContainsFunc(s.last.Steps, func(step plan.Step) bool { return step.Kind == plan.UpdateProcess && step.Node == broker })
			if letGo {
				break
			}
			for _, step := range s.last.Steps {
				s.w.Do(step)
			}
			s.w.Memo = s.last.Memo
			s.w.Report(s.last.Operations)
			s.w.Tick()
		}
		if lost == 0 {
			t.Fatal("the log dir that failed held nothing")
		}
		if letGo == only {
			t.Errorf("nobody else has what was there: %t; the volume is let go: %t; blocked %+v", only, letGo, s.last.Blocked)
		}
	}
}

// failSecondDir makes the second log dir of a broker one that has failed, and says how many replicas were there. Where
// nobody else has them, their partitions have no leader.
func failSecondDir(c *balance.Cluster, broker int32, only bool) int {
	b := slices.IndexFunc(c.Brokers, func(b balance.Broker) bool { return b.ID == broker })
	if b < 0 || len(c.Brokers[b].LogDirs) < 2 {
		return 0
	}
	c.Brokers[b].LogDirs[1].Offline = true
	lost := 0
	for i := range c.Topics {
		for j := range c.Topics[i].Partitions {
			part := &c.Topics[i].Partitions[j]
			for k := range part.Replicas {
				if r := &part.Replicas[k]; r.Broker == broker && r.Dir == 1 {
					r.State, r.Dir, r.Bytes = balance.Offline, balance.NoDir, 0
					lost++
					if only {
						part.Leader = -1
					} else if part.Leader == broker {
						part.Leader = part.Replicas[(k+1)%len(part.Replicas)].Broker
					}
				}
			}
		}
	}
	return lost
}

// A volume keeps its place until its data has left, also when its pool had it no more for a moment.
func TestVolumeThatComesBackElsewhere(t *testing.T) {
	s := newScaled(t, model(controllers(3), brokers(3)))
	s.spec(onTwoVolumes)
	s.atRest(150)
	s.spec(onOneVolume)
	s.spec(func(m *cluster.Model) {
		onTwoVolumes(m)
		inPool(m, "brokers", func(n *cluster.Node) { n.Volumes[1].Path = "/elsewhere" })
	})
	s.rest(20)
	if b := blockFor(s.last, "VolumeMoved"); b == nil || !b.Stalled || b.Node != 100 {
		t.Errorf("blocked %+v", s.last.Blocked)
	}
	s.spec(onTwoVolumes)
	s.atRest(150)
}
