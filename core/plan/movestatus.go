package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/balance"
)

// moveGate is what a user and the policy have to say before anything moves or leaves.
func (p *pass) moveGate() gate {
	op := p.op.active
	if !moves(op) {
		return p.gate()
	}
	shut := func(phase api.OperationPhase, reason, format string, args ...any) gate {
		return gate{phase: phase, wait: &Block{Node: -1, Reason: reason, Message: fmt.Sprintf(format, args...), Stalled: true}}
	}
	switch {
	case op.Spec.Paused:
		return shut(api.OperationPaused, "OperationPaused", "operation %s is paused: go on with castellan resume %s", op.Name, op.Name)
	case p.want.Rollout.Approval == api.ApprovalManual && op.Spec.Begun == nil && op.Spec.ApprovedPlan != p.moveDigest(op):
		return shut(api.OperationPending, "WaitingForApproval", "operation %s waits for approval: castellan approve %s shows its plan", op.Name, op.Name)
	default:
		return p.windows()
	}
}

// moveDigest names what an Operation is going to move, for approval.
func (p *pass) moveDigest(op *api.Operation) string {
	text := digest(op)
	if m := p.moving.memo; m != nil {
		text += " " + m.Request + " " + m.Proposal.Digest()
	}
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// cancelMoves ends an Operation that moves replicas when nothing of it is left.
func (p *pass) cancelMoves(op *api.Operation, word string) {
	if op.Spec.Type == api.OperationScale && p.op.hold == nil && len(p.leaving) > 0 && op.Spec.ToRevision == p.have.Revision {
		p.holdRevision(&api.RevisionHold{Operation: op.Name, Reason: fmt.Sprintf("operation %s %s", op.Name, word), Since: metaNow(p.now)}, word)
	}
	m := &p.moving
	switch {
	case !p.leftovers(), p.otherMoves(op):
		p.over(op, api.OperationCancelled, "it "+word)
	case m.facts == nil:
		p.report(op, api.OperationRunning, fmt.Sprintf("it %s; what of it is under way is not known: %s", word, p.whyNoPlacement()))
	case op.Spec.Revert && len(m.ours) > 0:
		for _, ref := range m.ours {
			if p.begunBy(op, ref) {
				m.takeBack[ref] = true
			}
		}
		p.report(op, api.OperationRunning, fmt.Sprintf("it %s; its moves are taken back", word))
	case len(m.ours) > 0:
		p.report(op, api.OperationRunning, fmt.Sprintf("it %s; moves that were under way come to their end: castellan cancel %s --revert takes them back", word, op.Name))
	default:
		p.report(op, api.OperationRunning, fmt.Sprintf("it %s; its throttles are removed", word))
	}
}

// begunBy says whether a move that is under way is an Operation's. A topic of ours may have
// others, which somebody else began; after a start nobody can tell them apart.
func (p *pass) begunBy(op *api.Operation, ref balance.PartitionRef) bool {
	memo := p.have.Memo
	return memo == nil || memo.Operation != op.Name || slices.ContainsFunc(memo.Proposal.Moves, func(m balance.Move) bool {
		return m.Topic == ref.Topic && m.Partition == ref.Partition && p.leadsTo(ref, m.To)
	})
}

// leadsTo says whether a partition's new replicas are all among those of a list.
func (p *pass) leadsTo(ref balance.PartitionRef, to []int32) bool {
	part := p.moving.partition(ref)
	return part != nil && !slices.ContainsFunc(part.Replicas, func(r balance.Replica) bool {
		return r.State.Has(balance.Adding) && !slices.Contains(to, r.Broker)
	})
}

// otherMoves says whether another Operation that moves replicas goes on, which cleans up after both.
func (p *pass) otherMoves(op *api.Operation) bool {
	return slices.ContainsFunc(p.have.Operations, func(o api.Operation) bool {
		return o.Name != op.Name && moves(&o) && !o.Status.Phase.Final() && !cancelled(&o)
	})
}

// leftovers says whether anything that moving needed is still there.
func (p *pass) leftovers() bool {
	if len(p.have.Moving)+len(p.have.Throttled) > 0 {
		return true
	}
	return slices.ContainsFunc(p.have.Nodes, func(n Node) bool {
		return slices.ContainsFunc(ownKeys(), func(key string) bool {
			_, has := n.Spec.Dynamic[key]
			return has && !p.fromSpec(n.Spec.NodeID, key)
		})
	})
}

// fromSpec says whether a user's own spec sets a key, so that it stays.
func (p *pass) fromSpec(id int32, key string) bool {
	spec, changed := p.moving.spec[id]
	if !changed {
		spec = p.wanted[id].Dynamic
	}
	_, ok := spec[key]
	return ok
}

// supersedeMoves takes back what is under way for nodes that do not leave any more, and says
// whether that was possible.
func (p *pass) supersedeMoves(op *api.Operation) bool {
	m := &p.moving
	if !m.needed || len(m.ours) == 0 && m.facts != nil {
		return true
	}
	if m.facts == nil {
		p.report(op, api.OperationRunning, fmt.Sprintf("superseded by revision %s; what of it is under way is not known: %s", p.have.Revision, p.whyNoPlacement()))
		return false
	}
	for _, ref := range m.ours {
		if !p.offLeaving(ref) {
			m.takeBack[ref] = true
		}
	}
	return true
}

// offLeaving says whether a partition is on its way off a node that leaves.
func (p *pass) offLeaving(ref balance.PartitionRef) bool {
	part := p.moving.partition(ref)
	return part != nil && slices.ContainsFunc(part.Replicas, func(r balance.Replica) bool {
		return r.State.Has(balance.Removing) && p.leaving[r.Broker]
	})
}

// moveState is how far an Operation that moves replicas is with a node.
func (p *pass) moveState(op *api.Operation, id int32) api.OperationNodeState {
	n, exists := p.nodes[id]
	begun := op.Spec.Begun != nil
	switch {
	case slices.Contains(op.Spec.IgnoredNodes, id):
		return api.OperationNodeIgnored
	case op.Spec.Type == api.OperationScale && !exists && p.wanted[id] == nil:
		return api.OperationNodeSucceeded // it has left
	case !exists || !begun:
		return api.OperationNodeWaiting
	case p.leaving[id]:
		return api.OperationNodeRunning
	case op.Spec.Type == api.OperationDrain:
		if p.have.Kafka.PartitionsKnown && !p.holdsReplica(id) {
			return api.OperationNodeSucceeded
		}
		return api.OperationNodeRunning
	case !settled(n) || p.moving.asked && !p.moving.done && op == p.op.active:
		return api.OperationNodeRunning
	default:
		return api.OperationNodeSucceeded
	}
}

// moveStatus is the status of an Operation that moves replicas.
func (p *pass) moveStatus(op *api.Operation, phase api.OperationPhase, message string) api.OperationStatus {
	before := op.Status
	st := api.OperationStatus{
		ObservedGeneration: op.Generation, Phase: phase, Message: message, StartedAt: op.Spec.Begun, FinishedAt: before.FinishedAt,
		Moves: before.Moves, Proposal: before.Proposal,
	}
	for _, id := range op.Spec.Nodes {
		st.Nodes = append(st.Nodes, p.moveNode(op, id, phase))
		st.Steps.Total++
		if s := st.Nodes[len(st.Nodes)-1].State; s == api.OperationNodeSucceeded || s == api.OperationNodeIgnored {
			st.Steps.Done++
		}
	}
	switch {
	case op == p.op.active && p.moving.asked:
		p.tellMoves(op, &st)
	case op == p.op.active && p.moving.facts != nil && st.Moves != nil && len(p.moving.ours) == 0:
		st.Moves = &api.OperationMoves{Done: st.Moves.Total, Total: st.Moves.Total}
	}
	p.percent(&st)
	return st
}

// percent counts nodes, and the moves as another step where there are any.
func (p *pass) percent(st *api.OperationStatus) {
	if st.Moves == nil || st.Moves.Total == 0 {
		if st.Steps.Total > 0 {
			st.Steps.Percent = 100 * st.Steps.Done / st.Steps.Total
		}
		return
	}
	if st.Steps.Total == 0 {
		st.Steps.Total, st.Steps.Done = st.Moves.Total, st.Moves.Done
	}
	st.Steps.Percent = 100 * st.Moves.Done / st.Moves.Total
	if st.Phase == api.OperationSucceeded {
		st.Steps.Percent = 100
	}
	if st.Steps.Percent == 100 && !st.Phase.Final() {
		st.Steps.Percent = 99 // nodes are still to be stopped, or leaders elected
	}
}

func (p *pass) moveNode(op *api.Operation, id int32, phase api.OperationPhase) api.OperationNode {
	out := api.OperationNode{ID: id, State: p.moveState(op, id)}
	if phase == api.OperationSucceeded && out.State != api.OperationNodeIgnored {
		out.State = api.OperationNodeSucceeded // also where there was nothing to move
	}
	for _, before := range op.Status.Nodes {
		if before.ID == id {
			out.StartedAt = before.StartedAt
			if before.State == out.State {
				out.FinishedAt = before.FinishedAt
			}
		}
	}
	out.Reason = p.moveReason(op, id, out.State)
	if out.StartedAt == nil && out.State != api.OperationNodeWaiting {
		out.StartedAt = op.Spec.Begun
	}
	if out.State == api.OperationNodeSucceeded && out.FinishedAt == nil {
		out.FinishedAt = new(metaNow(p.now))
	}
	return out
}

// moveReason says what a node waits for, or what became of it.
func (p *pass) moveReason(op *api.Operation, id int32, state api.OperationNodeState) string {
	switch word := p.blockWord(id); {
	case p.leaving[id] && word == "" && !p.holdsReplica(id):
		return "it holds no replica and is taken out"
	case state == api.OperationNodeSucceeded && op.Spec.Type == api.OperationScale && p.nodes[id] == nil:
		return "it has left"
	default:
		return word
	}
}

// tellMoves says how far the moves are and what they are to bring.
func (p *pass) tellMoves(op *api.Operation, st *api.OperationStatus) {
	m := &p.moving
	if m.settling && m.memo.Request == "" {
		return // what was moved stands until there is another proposal
	}
	s, proposal := &m.step, &m.memo.Proposal
	st.Moves = &api.OperationMoves{
		Done: count(m.memo.Done + s.Done), Running: count(s.Running), Total: count(m.memo.Done + len(proposal.Moves)), LeftBytes: s.LeftBytes, Foreign: count(s.Foreign),
	}
	if proposal.Empty() {
		st.Moves = op.Status.Moves // the last round found nothing: what was moved stands
		if st.Moves != nil {
			st.Moves = &api.OperationMoves{Done: st.Moves.Total, Total: st.Moves.Total}
		}
		return
	}
	st.Proposal = shownProposal(proposal, p.rate(op))
	st.EstimatedEnd = p.movesEnd(op, st)
}

func count(n int) int32 {
	return int32(min(n, math.MaxInt32)) //nolint:gosec // bounded just here
}

// movesEnd is when the moves end if they go on as fast as they went. It is rounded, so that it
// changes seldom.
func (p *pass) movesEnd(op *api.Operation, st *api.OperationStatus) *metav1.Time {
	total := st.Proposal.Bytes
	copied := total - st.Moves.LeftBytes
	if op.Spec.Begun == nil || total == 0 || copied <= 0 || st.Moves.LeftBytes <= 0 {
		return nil
	}
	went := p.now.Sub(op.Spec.Begun.Time)
	left := time.Duration(float64(went) * float64(st.Moves.LeftBytes) / float64(copied))
	return new(metav1.NewTime(p.now.Add(left).Round(max(10*time.Second, left/10))))
}

// mostShown is how many brokers a proposal shows.
const mostShown = 100

func shownProposal(p *balance.Proposal, rate int64) *api.OperationProposal {
	out := &api.OperationProposal{
		Moves: count(len(p.Moves)), Bytes: p.Bytes, LocalBytes: p.LocalBytes, LeastBytes: p.LeastBytes, Seconds: int64(p.Estimate(rate).Seconds()),
	}
	rows := slices.Clone(p.Brokers)
	change := func(r balance.BrokerRow) float64 { return math.Abs(float64(r.After.Bytes - r.Before.Bytes)) }
	slices.SortStableFunc(rows, func(a, b balance.BrokerRow) int {
		switch d := change(b) - change(a); {
		case d > 0:
			return 1
		case d < 0:
			return -1
		default:
			return int(a.Broker - b.Broker)
		}
	})
	rows = rows[:min(len(rows), mostShown)]
	slices.SortFunc(rows, func(a, b balance.BrokerRow) int { return int(a.Broker - b.Broker) })
	for _, r := range rows {
		out.Brokers = append(out.Brokers, api.ProposalBroker{ID: r.Broker, Rack: r.Rack, Before: load(r.Before), After: load(r.After)})
	}
	for _, o := range p.Objectives {
		words := func(v float64) string { return fmt.Sprintf("%.3g %s", v, o.Unit) }
		out.Objectives = append(out.Objectives, api.ProposalObjective{Name: o.Name, Met: o.Met, Before: words(o.Before), After: words(o.After), Limit: words(o.Limit)})
	}
	return out
}

func load(u balance.Use) api.ProposalLoad {
	return api.ProposalLoad{Bytes: u.Bytes, Percent: int32(math.Round(100 * u.Fraction)), Replicas: count(u.Replicas), Leaders: count(u.Leaders)}
}

// shownMoves is what an Operation is going to do, in lines.
func (p *pass) shownMoves(op *api.Operation) []string {
	var lines []string
	if m := p.moving.memo; m != nil && len(m.Proposal.Moves) > 0 {
		lines = append(lines, fmt.Sprintf("move replicas of %d partitions: %d bytes between brokers, %d between log dirs", len(m.Proposal.Moves), m.Proposal.Bytes, m.Proposal.LocalBytes))
	}
	if op.Spec.Type != api.OperationScale {
		return lines
	}
	for _, n := range p.leavers() {
		id := n.Spec.NodeID
		if !about(op, id) {
			continue
		}
		var words []string
		if slices.Contains(n.Spec.Roles, api.RoleController) {
			words = append(words, "take it out of the voters")
		}
		words = append(words, "stop it")
		if slices.Contains(n.Spec.Roles, api.RoleBroker) {
			words = append(words, "unregister it")
		}
		data := "keep its data"
		if p.wanted[id].WhenScaled == api.DeletionDelete {
			data = "delete its data"
		}
		lines = append(lines, fmt.Sprintf("node %d: %s, %s", id, strings.Join(words, ", "), data))
	}
	return lines
}

// movePhase says how the active Operation that moves replicas is, and whether it is over.
func (p *pass) movePhase(op *api.Operation) (phase api.OperationPhase, message string, ended bool) {
	m := &p.moving
	if why := p.refused(); why != "" {
		return p.refusedPhase(op, why)
	}
	if g := p.moveGate(); g.wait != nil {
		return g.phase, g.wait.Message, false
	}
	left := m.facts == nil || m.asked && !m.done || len(m.ours) > 0 || op.Spec.Type == api.OperationScale && p.nodesLeft(op)
	switch {
	case left && len(p.plan.Blocked) > 0:
		return api.OperationRunning, p.moveWords(), false
	case left:
		return api.OperationRunning, "the next step is being taken", false
	case p.leftovers() || p.op.created:
		return api.OperationRunning, "everything is in its place; throttles are removed", false
	case op.Spec.Type == api.OperationDrain:
		return api.OperationSucceeded, "the brokers hold no replica; topics that are made from now on may be placed there again", true
	default:
		return api.OperationSucceeded, "everything is in its place", true
	}
}

// refusedPhase is an Operation that cannot move as it was asked to. Nodes that leave wait, for
// the spec wants them to; what a user asked for once has failed.
func (p *pass) refusedPhase(op *api.Operation, why string) (phase api.OperationPhase, message string, ended bool) {
	if op.Spec.Type != api.OperationScale && len(p.moving.ours) == 0 && !p.leftovers() {
		return api.OperationFailed, why, true
	}
	return api.OperationPaused, why, false
}

// nodesLeft says whether a node has still to leave or to be ready.
func (p *pass) nodesLeft(op *api.Operation) bool {
	if slices.ContainsFunc(p.leavers(), func(n *Node) bool { return about(op, n.Spec.NodeID) }) {
		return true
	}
	return slices.ContainsFunc(op.Spec.Nodes, func(id int32) bool {
		w := p.wanted[id]
		return w != nil && about(op, id) && (p.nodes[id] == nil || !settled(p.nodes[id]))
	})
}

// moveWords says what moving waits for, or how far it is.
func (p *pass) moveWords() string {
	m := &p.moving
	i := slices.IndexFunc(p.plan.Blocked, func(b Block) bool { return b.Reason != "Moving" && b.Reason != "Draining" })
	switch {
	case i >= 0:
		return p.plan.Blocked[i].Message
	case !m.asked || m.done:
		return p.plan.Blocked[0].Message
	case m.step.Running+m.step.Foreign == 0 && len(m.step.Waiting) > 0:
		return m.step.Waiting[0]
	default:
		word := fmt.Sprintf("%d of %d partitions are where they belong, %d are on their way", m.step.Done, len(m.memo.Proposal.Moves), m.step.Running)
		if len(m.theirs) > 0 {
			word += fmt.Sprintf("; throttles and cordons that somebody else set on brokers %v stay as they are", m.theirs)
		}
		return word
	}
}
