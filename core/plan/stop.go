package plan

import (
	"fmt"
	"slices"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

// Stop decides the next steps of a whole stop and nothing else; it is what remains of a
// plan when a cluster is being deleted.
func Stop(want cluster.Model, have World, now time.Time) Plan {
	p := newPass(want, have, now)
	p.stopAll()
	return p.plan
}

// stopAll stops pure brokers together, then the other nodes one at a time, the active
// controller last, so that as long as possible somebody can approve a controlled shutdown.
func (p *pass) stopAll() {
	var brokers, others []*Node
	for _, n := range p.existing() {
		if p.wanted[n.Spec.NodeID].Controller() {
			others = append(others, n)
		} else {
			brokers = append(brokers, n)
		}
	}
	if p.stopThese(brokers) {
		return
	}
	leader := p.activeController()
	slices.SortStableFunc(others, func(a, b *Node) int {
		return boolCompare(a.Spec.NodeID == leader, b.Spec.NodeID == leader)
	})
	for _, n := range others {
		if p.stopThese([]*Node{n}) {
			return
		}
	}
}

// stopThese says whether one of the nodes still has to stop.
func (p *pass) stopThese(nodes []*Node) bool {
	waiting := false
	for _, n := range nodes {
		if p.spec(n.Spec.NodeID).State != api.StateStopped {
			spec := p.spec(n.Spec.NodeID)
			spec.State = api.StateStopped
			p.write(StopNode, spec, "spec.state is Stopped")
		}
		if !stopped(n) {
			p.block(n.Spec.NodeID, "Stopping", fmt.Sprintf("node %d is shutting down", n.Spec.NodeID), false)
			waiting = true
		}
	}
	return waiting
}

func stopped(n *Node) bool {
	return n.Spec.State == api.StateStopped && n.Status.State == api.NodeStopped
}

// startAll starts every stopped node.
func (p *pass) startAll() {
	for _, n := range p.existing() {
		if spec := p.spec(n.Spec.NodeID); spec.State == api.StateStopped {
			spec.State = api.StateRunning
			p.write(StartNode, spec, "spec.state is Running")
		}
	}
}

// activeController is the leader of the metadata quorum, -1 when unknown.
func (p *pass) activeController() int32 {
	if !p.have.Kafka.Known {
		return -1
	}
	return p.have.Kafka.Quorum.Leader
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}
