package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

// keepLeaving takes nodes that exist and are not wanted into the model, as they are: they get
// certificates and are counted on and waited for like any other until they are gone.
func (p *pass) keepLeaving() {
	p.want.Nodes = slices.Clone(p.want.Nodes)
	for i := range p.have.Nodes {
		is := &p.have.Nodes[i].Spec
		if nodeOf(p.want, is.NodeID) != nil {
			continue
		}
		w := asItIs(is)
		if at := slices.IndexFunc(p.want.Nodes, func(o cluster.Node) bool { return o.Pool == is.Pool && !p.leaving[o.ID] }); at >= 0 {
			w.WhenScaled, w.Hosts = p.want.Nodes[at].WhenScaled, p.want.Nodes[at].Hosts
		}
		p.leaving[is.NodeID] = true
		p.want.Nodes = append(p.want.Nodes, w)
	}
	slices.SortFunc(p.want.Nodes, func(a, b cluster.Node) int { return cmp.Compare(a.ID, b.ID) })
}

// leavers are the nodes that leave: brokers first, controllers then, the active one last.
func (p *pass) leavers() []*Node {
	var out []*Node
	for _, n := range p.existing() {
		if p.leaving[n.Spec.NodeID] && !p.retired(n.Spec.NodeID) {
			out = append(out, n)
		}
	}
	slices.SortStableFunc(out, func(a, b *Node) int { return p.rankLeaving(a) - p.rankLeaving(b) })
	return out
}

func (p *pass) rankLeaving(n *Node) int {
	switch {
	case !slices.Contains(n.Spec.Roles, api.RoleController):
		return 0
	case n.Spec.NodeID != p.activeController():
		return 1
	default:
		return 2
	}
}

// outOfQuorum says whether a controller leaves and votes no more, so that nobody needs to find it.
func (p *pass) outOfQuorum(id int32) bool {
	k := &p.have.Kafka
	return p.leaving[id] && (p.nodes[id].Spec.State == api.StateStopped || k.Known && k.Quorum.Leader >= 0 && voter(k, id) == nil)
}

// leave takes nodes out: emptied, no voter any more, stopped, and looked at once more before
// each is forgotten. What moves their replicas is doMoves.
func (p *pass) leave() {
	leavers := p.leavers()
	if op := p.op.active; op == nil || op.Spec.Type != api.OperationScale {
		leavers = slices.DeleteFunc(leavers, p.isLeft)
	}
	if len(leavers) == 0 {
		return
	}
	if why := p.mayLeave(); why != nil {
		p.plan.Blocked = append(p.plan.Blocked, *why)
		p.bringBack(leavers)
		return
	}
	if p.op.active.Spec.Begun == nil {
		p.begun()
		return
	}
	for _, n := range leavers {
		p.leaveOne(n)
	}
}

// isLeft says whether a user wanted a node that leaves left as it is, and names what takes it out.
func (p *pass) isLeft(n *Node) bool {
	id := n.Spec.NodeID
	op, left := p.leftByUser(id)
	if left {
		p.block(id, "Ignored", fmt.Sprintf("node %d is not in the spec and is left as it is, as operation %s was told to: castellan retry %s takes it out", id, op, op), true)
	}
	return left
}

// leftByUser names the last operation that was to take a node out under this revision, and says
// whether a user had it leave that one alone.
func (p *pass) leftByUser(id int32) (op string, left bool) {
	for i := len(p.have.Operations) - 1; i >= 0; i-- {
		o := &p.have.Operations[i]
		if o.Spec.Type == api.OperationScale && o.Spec.ToRevision == p.have.Revision && slices.Contains(o.Spec.Nodes, id) {
			return o.Name, slices.Contains(o.Spec.IgnoredNodes, id)
		}
	}
	return "", false
}

// mayLeave says why no node is taken out now, nil when they may go.
func (p *pass) mayLeave() *Block {
	op := p.op.active
	if op == nil || op.Spec.Type != api.OperationScale {
		switch {
		case p.op.hold != nil:
			return &Block{Node: -1, Reason: "Held", Message: p.heldWords(), Stalled: true}
		case op != nil:
			return &Block{Node: -1, Reason: "WaitingForOperation", Message: fmt.Sprintf("nodes leave when operation %s is over", op.Name)}
		default:
			return &Block{Node: -1, Reason: "WaitingForOperation", Message: "nodes leave as soon as an operation for it is made"}
		}
	}
	if g := p.moveGate(); g.wait != nil {
		return g.wait
	}
	k := &p.have.Kafka
	if !k.Known || !k.PartitionsKnown {
		return &Block{Node: -1, Reason: "KafkaUnreadable", Message: "no node is taken out while Kafka cannot be read: " + p.whyUnknown()}
	}
	return p.unready()
}

// unready is the first node that comes and is not there yet, with what is waited for. One that
// was there and is down now is another matter: nothing is moved to it, and nothing waits for it.
func (p *pass) unready() *Block {
	for i := range p.want.Nodes {
		w := &p.want.Nodes[i]
		n, ok := p.nodes[w.ID]
		if p.leaving[w.ID] || ok && (settled(n) || p.brokers[w.ID] != nil || voter(&p.have.Kafka, w.ID) != nil) {
			continue
		}
		word := "it does not exist yet"
		if ok {
			word = nodeWord(n)
		}
		return &Block{Node: w.ID, Reason: "WaitingForNode", Message: fmt.Sprintf("waiting for node %d, which is to come, to be ready before others are taken out (%s)", w.ID, word)}
	}
	return nil
}

// bringBack starts nodes that were stopped to leave and now may not.
func (p *pass) bringBack(leavers []*Node) {
	if op := p.op.active; op != nil && op.Spec.Type == api.OperationScale {
		return // it only waits
	}
	for _, n := range leavers {
		if spec := p.spec(n.Spec.NodeID); spec.State == api.StateStopped {
			spec.State = api.StateRunning
			p.write(StartNode, spec, "it was stopped to leave, and does not leave now")
		}
	}
}

func (p *pass) leaveOne(n *Node) {
	id := n.Spec.NodeID
	if slices.Contains(p.op.active.Spec.IgnoredNodes, id) {
		p.block(id, "Ignored", fmt.Sprintf("node %d is left as it is, as operation %s was told to", id, p.op.active.Name), true)
		return
	}
	broker := slices.Contains(n.Spec.Roles, api.RoleBroker)
	held := broker && p.holdsReplica(id)
	if n.Spec.State == api.StateStopped {
		p.forget(n, broker, held)
		return
	}
	if held {
		p.block(id, "Draining", fmt.Sprintf("node %d is stopped when it holds no replica any more", id), false)
		return
	}
	if v := voter(&p.have.Kafka, id); v != nil {
		p.leaveQuorum(v)
		return
	}
	spec := p.spec(id)
	spec.State = api.StateStopped
	p.write(StopNode, spec, fmt.Sprintf("operation %s takes it out: it holds no replica and does not vote", p.op.active.Name))
}

// holdsReplica says whether a replica of any partition is on a broker, also one on its way to or from it.
func (p *pass) holdsReplica(id int32) bool {
	topics := p.have.Kafka.Topics
	for i := range topics {
		for j := range topics[i].Partitions {
			if slices.Contains(topics[i].Partitions[j].Replicas, id) {
				return true
			}
		}
	}
	return false
}

// leaveQuorum takes a controller that leaves out of the voters, one at a time and after every
// controller that stays votes.
func (p *pass) leaveQuorum(v *Replica) {
	k := &p.have.Kafka
	for i := range p.want.Nodes {
		w := &p.want.Nodes[i]
		if w.Controller() && !p.leaving[w.ID] && voter(k, w.ID) == nil {
			p.block(v.ID, "VotersChange", fmt.Sprintf("controller %d stays a voter until controller %d has become one", v.ID, w.ID), false)
			return
		}
	}
	if p.changesVoters() {
		p.block(v.ID, "VotersChange", fmt.Sprintf("controller %d stays a voter until the change of voters that is under way is over", v.ID), false)
		return
	}
	if v.DirectoryID == "" {
		p.block(v.ID, "StaticQuorum", fmt.Sprintf("controller %d cannot leave a static quorum (kraft.version 0): its voters stand in every node's configuration", v.ID), true)
		return
	}
	if others, need := p.majorityWithout(v.ID); others < need {
		p.block(v.ID, "QuorumAtRisk", fmt.Sprintf("controller %d stays a voter: without it the caught-up controllers would be no majority", v.ID), false)
		return
	}
	p.step(Step{
		Kind: RemoveVoter, Node: v.ID, DirectoryID: v.DirectoryID,
		Reason: fmt.Sprintf("operation %s takes controller %d out", p.op.active.Name, v.ID),
	})
}

// forget removes a node that was stopped, once Kafka shows that nothing counts on it.
func (p *pass) forget(n *Node, broker, held bool) {
	id := n.Spec.NodeID
	if held {
		spec := p.spec(id)
		spec.State = api.StateRunning
		p.write(StartNode, spec, "a replica was placed on it meanwhile: it is started to be emptied again")
		return
	}
	if n.Status.State == api.NodeUnknown {
		p.block(id, "HostSilent", unknownStop(n), true)
		return
	}
	if !stopped(n) {
		p.block(id, "Stopping", fmt.Sprintf("node %d is shutting down", id), false)
		return
	}
	if b := p.brokers[id]; broker && b != nil && !b.Fenced {
		p.block(id, "WaitingForFence", fmt.Sprintf("node %d has stopped; waiting until Kafka has fenced it", id), false)
		p.again(fenceAgain)
		return
	}
	if keys := slices.Sorted(maps.Keys(n.Spec.Dynamic)); broker && len(keys) > 0 {
		p.step(Step{Kind: SetConfig, Node: id, Delete: keys, Reason: "its own configuration goes with it: " + strings.Join(keys, ", ")})
	}
	if broker {
		p.step(Step{Kind: UnregisterBroker, Node: id, Reason: "it is fenced and holds no replica"})
	}
	data := p.wanted[id].WhenScaled == api.DeletionDelete
	word := "its data is kept"
	if data {
		word = "its data goes too (whenScaled: Delete)"
	}
	spec := p.spec(id)
	p.step(Step{Kind: RetireNode, Node: id, Spec: &spec, Reason: "its id is never given again"})
	p.step(Step{Kind: DeleteNode, Node: id, RemoveData: data, Reason: "it has left; " + word})
}
