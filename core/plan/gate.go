package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

// gate is what an Operation has to say before each node.
type gate struct {
	// wait is why nodes are not begun, nil when all may be.
	wait *Block
	// repairs says that nodes that are down anyway may be begun all the same.
	repairs bool
	// also must let them; nil is nothing more.
	also *gate
	// some may be begun all the same; nil is none.
	some func(*Node) bool
	// failed are nodes that are to be given back what they ran before.
	failed []*Node
	// phase of the Operation while it waits.
	phase api.OperationPhase
	// point is the canary point that it waits at.
	point string
}

func (g gate) lets(n *Node, down bool) bool {
	repair := down && g.repairs && (g.also == nil || g.also.lets(n, down))
	return g.wait == nil || repair || g.some != nil && g.some(n)
}

// gate looks at what a user decided and at the policy of the rollout.
func (p *pass) gate() gate {
	op, policy := p.op.active, &p.want.Rollout
	shut := func(phase api.OperationPhase, reason, format string, args ...any) gate {
		return gate{phase: phase, wait: &Block{Node: -1, Reason: reason, Message: fmt.Sprintf(format, args...), Stalled: true}}
	}
	if op.Spec.Paused {
		return shut(api.OperationPaused, "OperationPaused", "operation %s is paused: go on with castellan resume %s", op.Name, op.Name)
	}
	if policy.Approval == api.ApprovalManual && op.Spec.ApprovedPlan != digest(op) {
		return shut(api.OperationPending, "WaitingForApproval", "operation %s waits for approval: castellan approve %s shows its plan", op.Name, op.Name)
	}
	if g, ok := p.failures(shut); ok {
		return g
	}
	canary, at := p.canary(shut)
	if at && canary.some == nil {
		return canary
	}
	if window := p.windows(); window.wait != nil {
		window.also = &canary
		return window
	}
	return canary
}

// failures stop an Operation when there are more of them than are tolerated.
func (p *pass) failures(shut func(api.OperationPhase, string, string, ...any) gate) (gate, bool) {
	op := p.op.active
	var failed []*Node
	for _, id := range p.nodesOf(op) {
		if s := p.op.states[id]; s == api.OperationNodeFailed || s == api.OperationNodeTimedOut {
			failed = append(failed, p.nodes[id])
		}
	}
	if len(failed) <= int(p.want.Rollout.MaxFailures) {
		return gate{}, false
	}
	var words []string
	for _, n := range failed {
		words = append(words, fmt.Sprintf("node %d (%s)", n.Spec.NodeID, nodeWord(n)))
	}
	who := someOf(words)
	if p.want.Rollout.OnFailure == api.OnFailureRollback && rolls(op) {
		g := shut(api.OperationRunning, "GivingBack", "%s failed under revision %s and gets back what it ran before; no other node is begun", who, p.have.Revision)
		g.failed = failed
		return g, true
	}
	g := shut(api.OperationPaused, "NodeFailed", "%s failed, so no further node is begun: mend the spec, castellan retry %s, or castellan ignore %s --node %d", who, op.Name, op.Name, failed[0].Spec.NodeID)
	g.wait.Node = failed[0].Spec.NodeID
	g.some = func(n *Node) bool {
		return attemptOf(op, n.Spec.NodeID) > 0 && p.op.states[n.Spec.NodeID] == api.OperationNodeWaiting && !n.Status.Ready
	}
	return g, true
}

// giveBackFailed gives nodes what they ran before, and holds the revision.
func (p *pass) giveBackFailed(g gate) {
	if len(g.failed) == 0 {
		return
	}
	for _, n := range g.failed {
		p.giveBack(n)
	}
	hold := &api.RevisionHold{Operation: p.op.active.Name, Reason: g.wait.Message, Since: metaNow(p.now)}
	p.holdRevision(hold, "a node failed")
}

// tolerated says whether a node failed, or is ignored, and is not waited for.
func (p *pass) tolerated(n *Node) bool {
	if p.op.active == nil || n.Status.Ready {
		return false
	}
	switch p.op.states[n.Spec.NodeID] {
	case api.OperationNodeFailed, api.OperationNodeTimedOut:
		return p.want.Rollout.MaxFailures > 0
	case api.OperationNodeIgnored:
		return true
	default:
		return false
	}
}

// canary stops an Operation at points until somebody lets it pass.
func (p *pass) canary(shut func(api.OperationPhase, string, string, ...any) gate) (gate, bool) {
	op := p.op.active
	begun, done, left := p.progress()
	if len(left) == 0 {
		return gate{}, false
	}
	at := func(point, after string) (gate, bool) {
		if slices.Contains(op.Spec.Passed, point) {
			return gate{}, false
		}
		g := shut(api.OperationPaused, "CanaryPoint", "operation %s waits %s: castellan resume %s lets it go on", op.Name, after, op.Name)
		g.point = point
		return g, true
	}
	for _, point := range canaryOrder(p.want.Rollout.PauseAfter) {
		switch point {
		case cluster.FirstNode:
			if slices.Contains(op.Spec.Passed, cluster.FirstNode) {
				continue
			}
			if len(done) > 0 {
				return at(cluster.FirstNode, fmt.Sprintf("after its first node, %d", done[0]))
			}
			return p.alone(begun, left), true
		case cluster.EachRack:
			return p.eachRack(begun, left, at), true
		default:
			if id, err := strconv.ParseInt(point, 10, 32); err == nil && slices.Contains(done, int32(id)) {
				if g, ok := at("Node/"+point, "after node "+point); ok {
					return g, true
				}
			}
		}
	}
	return gate{}, false
}

// canaryOrder takes the first node before all, and racks, which are a rule for every node, last.
func canaryOrder(points []string) []string {
	rank := func(point string) int {
		switch point {
		case cluster.FirstNode:
			return 0
		case cluster.EachRack:
			return 2
		default:
			return 1
		}
	}
	return slices.SortedStableFunc(slices.Values(points), func(a, b string) int { return rank(a) - rank(b) })
}

// progress sorts the nodes of the active Operation: being changed, succeeded, and waiting.
func (p *pass) progress() (begun, done, left []int32) {
	for _, id := range p.nodesOf(p.op.active) {
		switch p.op.states[id] {
		case api.OperationNodeWaiting:
			left = append(left, id)
		case api.OperationNodeSucceeded:
			done = append(done, id)
		case api.OperationNodeRunning, api.OperationNodeFailed, api.OperationNodeTimedOut:
			begun = append(begun, id)
		case api.OperationNodeIgnored, api.OperationNodeCancelled:
		}
	}
	return begun, done, left
}

// alone lets one node begin before the first has succeeded.
func (p *pass) alone(begun, left []int32) gate {
	if len(begun) > 0 {
		return gate{phase: api.OperationRunning, wait: &Block{Node: begun[0], Reason: "CanaryPoint", Message: fmt.Sprintf("waiting for node %d, the first one, before another is begun", begun[0])}}
	}
	first := left[0]
	for _, n := range p.outdated() {
		if slices.Contains(left, n.Spec.NodeID) {
			first = n.Spec.NodeID
			break
		}
	}
	return gate{phase: api.OperationRunning, wait: &Block{Node: first, Reason: "CanaryPoint", Message: fmt.Sprintf("node %d is the first one, and alone", first)}, some: func(n *Node) bool { return n.Spec.NodeID == first }}
}

// eachRack keeps an Operation to one rack at a time, and stops it after each.
func (p *pass) eachRack(begun, left []int32, at func(point, after string) (gate, bool)) gate {
	rack := func(id int32) string { return p.nodes[id].Rack }
	open := slices.Concat(begun, left)
	for _, id := range p.nodesOf(p.op.active) {
		if p.op.states[id] != api.OperationNodeSucceeded || slices.ContainsFunc(open, func(o int32) bool { return rack(o) == rack(id) }) {
			continue
		}
		if g, ok := at(cluster.EachRack+"/"+rack(id), "after rack "+rack(id)); ok {
			return g
		}
	}
	// The rack that was begun is ended first.
	current := ""
	for _, id := range p.nodesOf(p.op.active) {
		s := p.op.states[id]
		if s != api.OperationNodeWaiting && s != api.OperationNodeIgnored && slices.ContainsFunc(left, func(o int32) bool { return rack(o) == rack(id) }) {
			current = rack(id)
			break
		}
	}
	if current == "" {
		current = rack(left[0])
	}
	return gate{
		phase: api.OperationRunning,
		wait:  &Block{Node: -1, Reason: "CanaryPoint", Message: fmt.Sprintf("only nodes of rack %s are begun before it is ended", current)},
		some:  func(n *Node) bool { return n.Rack == current },
	}
}

// windows keep nodes that are well from being changed outside of them.
func (p *pass) windows() gate {
	open, next := cluster.InWindow(p.want.Rollout.Windows, p.now)
	if open {
		return gate{}
	}
	p.again(max(time.Second, next.Sub(p.now)))
	return gate{
		phase: api.OperationPending, repairs: true,
		wait: &Block{Node: -1, Reason: "OutsideWindow", Message: fmt.Sprintf("nodes are changed only in the windows of spec.rollout.windows; the next one opens at %s", next.UTC().Format(time.RFC3339))},
	}
}

// blockWord is what a plan says about one node.
func (p *pass) blockWord(id int32) string {
	i := slices.IndexFunc(p.plan.Blocked, func(b Block) bool { return b.Node == id })
	if i < 0 {
		return ""
	}
	return strings.TrimSpace(p.plan.Blocked[i].Message)
}
