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

// stopAll stops pure brokers together, while controllers can approve their shutdown, and
// then all other nodes together: one by one the last of them would wait for a controller
// that is gone (measured on 4.3.1: signalled together they end within 6 s, the last one
// alone still ran after 48 s).
func (p *pass) stopAll() {
	var brokers, others []*Node
	for i := range p.have.Nodes { // also those that are not wanted any more
		n := &p.have.Nodes[i]
		if slices.Contains(n.Spec.Roles, api.RoleController) {
			others = append(others, n)
		} else {
			brokers = append(brokers, n)
		}
	}
	if !p.stopThese(brokers) {
		p.stopThese(others)
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
		if stopped(n) {
			continue
		}
		waiting = true
		if n.Status.State == api.NodeUnknown {
			p.block(n.Spec.NodeID, "HostSilent", unknownStop(n), true)
			continue
		}
		p.block(n.Spec.NodeID, "Stopping", fmt.Sprintf("node %d is shutting down", n.Spec.NodeID), false)
	}
	return waiting
}

func unknownStop(n *Node) string {
	if n.Spec.Host == "" {
		return fmt.Sprintf("whether node %d has stopped cannot be known: %s", n.Spec.NodeID, nodeWord(n))
	}
	return fmt.Sprintf("whether node %d has stopped cannot be known: the agent of its host %s is silent; start the agent, or take the host out of use", n.Spec.NodeID, n.Spec.Host)
}

func stopped(n *Node) bool {
	return n.Spec.State == api.StateStopped && n.Status.State == api.NodeStopped
}

// startAll starts every stopped node.
func (p *pass) startAll() {
	for i := range p.have.Nodes {
		if spec := p.spec(p.have.Nodes[i].Spec.NodeID); spec.State == api.StateStopped && !p.leaving[spec.NodeID] {
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
