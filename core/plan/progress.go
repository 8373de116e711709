package plan

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

func metaNow(now time.Time) metav1.Time { return metav1.NewTime(now.Truncate(time.Second)) }

func (p *pass) nodeTimeout() time.Duration {
	if t := p.want.Rollout.NodeTimeout; t != nil && t.Duration > 0 {
		return t.Duration
	}
	return defaultNodeTimeout
}

// statesOf says how far an Operation is with each of its nodes, from facts alone.
func (p *pass) statesOf(op *api.Operation) map[int32]api.OperationNodeState {
	if op == nil {
		return nil
	}
	states := map[int32]api.OperationNodeState{}
	if moves(op) {
		for _, id := range op.Spec.Nodes {
			states[id] = p.moveState(op, id)
		}
		return states
	}
	for _, id := range p.nodesOf(op) {
		states[id] = p.stateOf(op, id)
	}
	return states
}

func (p *pass) stateOf(op *api.Operation, id int32) api.OperationNodeState {
	n, exists := p.nodes[id]
	switch {
	case slices.Contains(op.Spec.IgnoredNodes, id):
		return api.OperationNodeIgnored
	case !exists:
		return api.OperationNodeWaiting
	}
	spec := p.peek(id)
	change := spec.Change
	mine := change != nil && change.Operation == op.Name
	if mine && change.RolledBack {
		return api.OperationNodeFailed
	}
	if layout.ProcessHash(spec.Process) != layout.ProcessHash(p.wanted[id].Process) {
		return api.OperationNodeWaiting
	}
	begunNow := layout.ProcessHash(spec.Process) != layout.ProcessHash(n.Spec.Process)
	switch {
	case begunNow:
		return api.OperationNodeRunning
	case settled(n):
		return api.OperationNodeSucceeded
	case !mine:
		return api.OperationNodeRunning
	case p.broken(n, change):
		return api.OperationNodeFailed
	case p.now.Sub(change.Since.Time) > p.nodeTimeout():
		return api.OperationNodeTimedOut
	default:
		return api.OperationNodeRunning
	}
}

// failedPatience is how long a node may show the failure of what it ran before.
const failedPatience = 10 * time.Second

// broken says whether a node's process cannot start, or ended since it was changed: a process
// that is started again and again counts as failed in between as well.
func (p *pass) broken(n *Node, change *api.NodeChange) bool {
	if change.WasDown && change.Attempt == 0 {
		return false // it was broken before
	}
	failed := n.Status.State == api.NodeFailed
	if exit := n.Status.LastExit; exit != nil && exit.At.After(change.Since.Time) {
		return failed || upToDate(n)
	}
	return failed && p.now.Sub(change.Since.Time) > failedPatience
}

// over reports an Operation that has come to its end.
func (p *pass) over(op *api.Operation, phase api.OperationPhase, message string) {
	st := p.statusOf(op, phase, message)
	if st.FinishedAt == nil {
		st.FinishedAt = new(metaNow(p.now))
	}
	st.EstimatedEnd, st.Point, st.Plan = nil, "", nil
	for i := range st.Nodes {
		if n := &st.Nodes[i]; n.State == api.OperationNodeRunning || n.State == api.OperationNodeWaiting {
			n.State = api.OperationNodeCancelled
		}
	}
	p.plan.Operations = append(p.plan.Operations, OperationReport{Name: op.Name, Status: st, Free: true})
}

// supersede ends an Operation to a revision that is not wanted any more. How far it came was
// said when it was: by now other things are wanted of its nodes.
func (p *pass) supersede(op *api.Operation) {
	st := op.Status.DeepCopy()
	for _, id := range p.nodesOf(op) {
		if !slices.ContainsFunc(st.Nodes, func(n api.OperationNode) bool { return n.ID == id }) {
			st.Nodes = append(st.Nodes, api.OperationNode{ID: id, State: api.OperationNodeCancelled})
		}
	}
	for i := range st.Nodes {
		if n := &st.Nodes[i]; n.State == api.OperationNodeRunning || n.State == api.OperationNodeWaiting {
			n.State = api.OperationNodeCancelled
		}
	}
	st.ObservedGeneration, st.Phase, st.FinishedAt = op.Generation, api.OperationCancelled, new(metaNow(p.now))
	st.Message = fmt.Sprintf("superseded by revision %s; nodes that were being changed go on to that", p.have.Revision)
	st.EstimatedEnd, st.Point, st.Plan, st.PlanDigest = nil, "", nil, ""
	p.plan.Operations = append(p.plan.Operations, OperationReport{Name: op.Name, Status: *st, Free: true})
}

func (p *pass) report(op *api.Operation, phase api.OperationPhase, message string) {
	p.plan.Operations = append(p.plan.Operations, OperationReport{Name: op.Name, Status: p.statusOf(op, phase, message)})
}

// statusOf is the status of an Operation. Times that were said before stand; they are for
// people, and nothing is decided by them.
func (p *pass) statusOf(op *api.Operation, phase api.OperationPhase, message string) api.OperationStatus {
	if op.Status.Phase.Final() {
		return *op.Status.DeepCopy() // history is not written anew
	}
	if moves(op) {
		return p.moveStatus(op, phase, message)
	}
	before := op.Status
	st := api.OperationStatus{ObservedGeneration: op.Generation, Phase: phase, Message: message, StartedAt: before.StartedAt, FinishedAt: before.FinishedAt}
	for _, id := range p.nodesOf(op) {
		n := p.operationNode(op, id)
		st.Nodes = append(st.Nodes, n)
		st.Steps.Total++
		if n.State == api.OperationNodeSucceeded || n.State == api.OperationNodeIgnored {
			st.Steps.Done++
		}
		if n.StartedAt != nil && (st.StartedAt == nil || n.StartedAt.Before(st.StartedAt)) {
			st.StartedAt = n.StartedAt
		}
	}
	if op == p.op.active && p.moving.asked {
		p.tellMoves(op, &st)
	}
	p.countFinalization(op, &st)
	if st.Steps.Total > 0 {
		st.Steps.Percent = 100 * st.Steps.Done / st.Steps.Total
	}
	st.EstimatedEnd = estimate(&st)
	return st
}

func (p *pass) operationNode(op *api.Operation, id int32) api.OperationNode {
	state := p.stateOf(op, id)
	out := api.OperationNode{ID: id, State: state}
	n, ok := p.nodes[id]
	if !ok {
		out.Reason = "it does not exist yet"
		return out
	}
	spec := p.peek(id)
	if c := spec.Change; c != nil && c.Operation == op.Name {
		out.StartedAt, out.Attempt, out.Reason = new(c.Since), c.Attempt, c.Reason
	}
	for _, before := range op.Status.Nodes {
		if before.ID == id && before.State == state {
			out.FinishedAt, out.Log = before.FinishedAt, before.Log // what was given back has no last exit any more
		}
	}
	p.tellNode(&out, n)
	return out
}

// tellNode says why a node waits or failed.
func (p *pass) tellNode(out *api.OperationNode, n *Node) {
	switch out.State {
	case api.OperationNodeWaiting:
		out.Reason = p.blockWord(out.ID)
		if out.Reason == "" {
			out.Reason = changeReason(n.Spec.Process, p.wanted[out.ID].Process)
		}
	case api.OperationNodeFailed, api.OperationNodeTimedOut:
		out.Reason = nodeWord(n)
		if c := p.peek(out.ID).Change; c != nil && c.RolledBack {
			out.Reason = c.Reason
		}
		if n.Status.LastExit != nil {
			out.Log = n.Status.LastExit.LogTail
		}
	case api.OperationNodeRunning:
		if n.Status.Message != "" {
			out.Reason = n.Status.Message
		}
	case api.OperationNodeSucceeded:
		if out.FinishedAt == nil && out.StartedAt != nil {
			out.FinishedAt = new(metaNow(p.now))
		}
	case api.OperationNodeIgnored, api.OperationNodeCancelled:
	}
}

// estimate is when an Operation ends if nodes go on to take as long as they did. It changes
// only when a node ends.
func estimate(st *api.OperationStatus) *metav1.Time {
	var last *metav1.Time
	done := 0
	for i := range st.Nodes {
		if end := st.Nodes[i].FinishedAt; st.Nodes[i].State == api.OperationNodeSucceeded && end != nil {
			done++
			if last == nil || last.Before(end) {
				last = end
			}
		}
	}
	left := int(st.Steps.Total) - int(st.Steps.Done)
	if st.StartedAt == nil || done == 0 || left <= 0 {
		return nil
	}
	each := last.Sub(st.StartedAt.Time) / time.Duration(done)
	return new(metav1.NewTime(last.Add(each * time.Duration(left)).Truncate(time.Second)))
}

// reportActive says how the active Operation and those behind it are, at the end of a pass.
func (p *pass) reportActive() {
	op := p.op.active
	if op == nil {
		return
	}
	p.plan.Upcoming = append(p.plan.Upcoming, p.op.after...)
	for _, q := range p.op.queued {
		p.report(q, api.OperationPending, fmt.Sprintf("waits until operation %s is over", op.Name))
	}
	phase, message, ended := p.phaseOf(op)
	if ended {
		p.over(op, phase, message)
		return
	}
	p.report(op, phase, message)
	st := &p.plan.Operations[len(p.plan.Operations)-1].Status
	if moves(op) {
		if p.moveGate().phase == api.OperationPending && !p.moving.settling && p.want.Rollout.Approval == api.ApprovalManual && op.Spec.Begun == nil {
			st.PlanDigest, st.Plan = p.moveDigest(op), p.shownMoves(op)
		}
		return
	}
	st.Point = p.gate().point
	if p.want.Rollout.Approval == api.ApprovalManual && op.Spec.ApprovedPlan != digest(op) {
		st.PlanDigest, st.Plan = digest(op), p.shown(op)
	}
}

// shown is what an Operation is going to do, a line for each node.
func (p *pass) shown(op *api.Operation) []string {
	var lines []string
	for _, id := range p.nodesOf(op) {
		n, ok := p.nodes[id]
		if !ok || p.op.states[id] != api.OperationNodeWaiting {
			continue
		}
		lines = append(lines, fmt.Sprintf("restart node %d: %s", id, changeReason(n.Spec.Process, p.wanted[id].Process)))
	}
	if op.Spec.Type == api.OperationUpgrade {
		lines = append(lines, "then finalize the features of "+p.want.Version+", as spec.rollout.upgrade says")
	}
	return lines
}

// phaseOf says how the active Operation is, and whether it has come to its end.
func (p *pass) phaseOf(op *api.Operation) (phase api.OperationPhase, message string, ended bool) {
	if p.want.State == api.StateStopped {
		return api.OperationPending, "the cluster is stopped; it goes on when spec.state is Running", false
	}
	if p.op.hold != nil && p.op.hold.Operation == op.Name {
		return api.OperationRunning, p.op.hold.Reason, false
	}
	if moves(op) {
		return p.movePhase(op)
	}
	waiting, running := 0, []int32{}
	for id, state := range p.statesOf(op) {
		switch state {
		case api.OperationNodeWaiting:
			waiting++
		case api.OperationNodeRunning, api.OperationNodeFailed, api.OperationNodeTimedOut:
			running = append(running, id)
		case api.OperationNodeSucceeded, api.OperationNodeIgnored, api.OperationNodeCancelled:
		}
	}
	if waiting+len(running) == 0 {
		return p.ending(op)
	}
	if g := p.gate(); g.wait != nil && g.phase != api.OperationRunning {
		return g.phase, g.wait.Message, false
	}
	if len(running) > 0 {
		slices.Sort(running)
		n := p.nodes[running[0]]
		return api.OperationRunning, fmt.Sprintf("changing node %d (%s)", running[0], nodeWord(n)), false
	}
	for _, b := range p.plan.Blocked {
		return api.OperationRunning, b.Message, false
	}
	return api.OperationRunning, "the next node is being chosen", false
}

// ending is an Operation whose nodes are all done.
func (p *pass) ending(op *api.Operation) (phase api.OperationPhase, message string, ended bool) {
	if id, behind := p.lagging(); behind {
		return api.OperationRunning, fmt.Sprintf("every node runs; the replicas of broker %d are not back in sync yet", id), false
	}
	if wait := p.finalization(op); wait != "" {
		return api.OperationRunning, wait, false
	}
	if op.Spec.Type == api.OperationUpgrade && !p.have.Kafka.Known {
		return api.OperationRunning, "every node runs; which features are finalized is not known: " + p.whyUnknown(), false
	}
	if op.Spec.Type == api.OperationUpgrade && len(p.unfinalized()) > 0 {
		if i := slices.IndexFunc(p.plan.Blocked, func(b Block) bool { return b.Reason == "StaleController" }); i >= 0 {
			return api.OperationRunning, p.plan.Blocked[i].Message, false
		}
		return api.OperationRunning, "the features of the new version are being finalized", false
	}
	return api.OperationSucceeded, "every node is as it was asked for", true
}

// pausedOperations says of all Operations that nothing is done. One that is being deleted ends
// as ever, which touches no node.
func (p *pass) pausedOperations() {
	for i := range p.have.Operations {
		switch op := &p.have.Operations[i]; {
		case op.DeletionTimestamp != nil:
			p.cancel(op)
		case !op.Status.Phase.Final():
			p.report(op, api.OperationPaused, "spec.paused of the cluster is true: nothing is changed until it is false")
		}
	}
}
