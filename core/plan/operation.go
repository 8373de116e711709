package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
)

// OperationFinalizer turns the deletion of an Operation into a cancel.
const OperationFinalizer = "castellan.dev/operation"

// LabelCluster on an Operation names its cluster.
const LabelCluster = "castellan.dev/cluster"

// defaultNodeTimeout is how long a node may take to be ready again where no spec says.
const defaultNodeTimeout = 15 * time.Minute

// operating is what a pass knows of Operations.
type operating struct {
	// active is the one whose nodes may change now; nil when there is none.
	active *api.Operation
	// created says that this pass makes it.
	created bool
	// hold is why the revision is held, as it will stand after this pass.
	hold *api.RevisionHold
	// queued wait behind the active one.
	queued []*api.Operation
	// after are changes that the spec calls for and that wait until a restart is over.
	after []Step
	// states of the active one's nodes before anything is decided.
	states map[int32]api.OperationNodeState
}

// rolls says whether an Operation restarts nodes to bring them to a revision.
func rolls(op *api.Operation) bool { return op.Spec.Type != api.OperationRestart && !moves(op) }

func cancelled(op *api.Operation) bool { return op.Spec.Cancelled || op.DeletionTimestamp != nil }

// operations finds the Operation that is active, and lets those end that lead nowhere any more.
func (p *pass) operations() {
	p.lookAtMoves()
	for i := range p.have.Operations {
		op := &p.have.Operations[i]
		switch {
		case p.ends(op):
		case p.op.active == nil:
			p.op.active = op
		case p.before(op, p.op.active):
			p.op.queued, p.op.active = append(p.op.queued, p.op.active), op
		default:
			p.op.queued = append(p.op.queued, op)
		}
	}
	if op := p.op.active; op != nil && (rolls(op) || op.Spec.Type == api.OperationScale) && p.op.hold != nil {
		p.holdRevision(nil, fmt.Sprintf("operation %s takes it up again", op.Name))
	}
	p.keepRestarts()
	p.op.states = p.statesOf(p.op.active)
}

// ends says whether an Operation has come to its end, or is on its way there.
func (p *pass) ends(op *api.Operation) bool {
	switch {
	case op.Status.Phase.Final():
		if slices.Contains(op.Finalizers, OperationFinalizer) {
			p.over(op, op.Status.Phase, op.Status.Message)
		}
	case op.Spec.Type != api.OperationRestart && op.Spec.ToRevision != "" && op.Spec.ToRevision != p.have.Revision:
		if !moves(op) || p.supersedeMoves(op) {
			p.supersede(op)
		}
	case cancelled(op):
		p.cancel(op)
	case p.op.hold != nil && p.op.hold.Operation == op.Name:
		p.fail(op)
	default:
		return false
	}
	return true
}

// before says whether an Operation goes before an older one. What moves takes long, and its
// moves that are under way go on by themselves; but an upgrade that only waits to be finalized
// lets nodes leave first, whose version would be in its way.
func (p *pass) before(op, older *api.Operation) bool {
	if moves(op) {
		return op.Spec.Type == api.OperationScale && p.idleUpgrade(older)
	}
	return moves(older) && (older.Spec.Type != api.OperationScale || !p.idleUpgrade(op))
}

// idleUpgrade says whether an Operation is an upgrade with nothing left to restart.
func (p *pass) idleUpgrade(op *api.Operation) bool {
	return op.Spec.Type == api.OperationUpgrade && !p.differs() && !slices.ContainsFunc(p.existing(), func(n *Node) bool {
		return !p.leaving[n.Spec.NodeID] && !settled(n)
	})
}

// cancel ends an Operation when the nodes that it is changing have ended, and keeps its
// revision from further ones at once.
func (p *pass) cancel(op *api.Operation) {
	word := "was cancelled"
	if op.DeletionTimestamp != nil && !op.Spec.Cancelled {
		word = "was deleted"
	}
	if moves(op) {
		p.cancelMoves(op, word)
		return
	}
	if rolls(op) && p.op.hold == nil && p.differs() {
		p.holdRevision(&api.RevisionHold{Operation: op.Name, Reason: fmt.Sprintf("operation %s %s", op.Name, word), Since: metav1.NewTime(p.now.Truncate(time.Second))}, word)
	}
	for _, id := range p.nodesOf(op) {
		if p.changes(op, id) && p.stateOf(op, id) == api.OperationNodeRunning {
			p.report(op, api.OperationRunning, fmt.Sprintf("it %s; node %d, which was being changed, comes to its end", word, id))
			return
		}
	}
	p.over(op, api.OperationCancelled, "it "+word)
}

// changes says whether a node was last changed by an Operation.
func (p *pass) changes(op *api.Operation, id int32) bool {
	n, ok := p.nodes[id]
	return ok && n.Spec.Change != nil && n.Spec.Change.Operation == op.Name
}

// fail ends an Operation that was stopped by failures, when the nodes that it gave back are in order.
func (p *pass) fail(op *api.Operation) {
	for _, n := range p.existing() {
		c := n.Spec.Change
		if c != nil && c.RolledBack && c.Operation == op.Name && !settled(n) && p.now.Sub(c.Since.Time) < p.nodeTimeout() {
			p.report(op, api.OperationRunning, fmt.Sprintf("%s; node %d gets back what it ran before (%s)", p.op.hold.Reason, n.Spec.NodeID, nodeWord(n)))
			return
		}
	}
	p.over(op, api.OperationFailed, p.op.hold.Reason)
}

// differs says whether a node is not what the revision wants.
func (p *pass) differs() bool {
	return slices.ContainsFunc(p.existing(), func(n *Node) bool { return p.differing(n) })
}

func (p *pass) differing(n *Node) bool {
	w := p.wanted[n.Spec.NodeID].Process
	w.Restart = n.Spec.Process.Restart
	return layout.ProcessHash(n.Spec.Process) != layout.ProcessHash(w)
}

func (p *pass) holdRevision(hold *api.RevisionHold, reason string) {
	p.op.hold = hold
	p.step(Step{Kind: HoldRevision, Node: -1, Revision: p.have.Revision, Hold: hold, Reason: reason})
}

// keepRestarts lets nodes keep the last restart that was asked for, but for those that the
// active Operation restarts.
func (p *pass) keepRestarts() {
	op := p.op.active
	for i := range p.want.Nodes {
		w := &p.want.Nodes[i]
		n, ok := p.nodes[w.ID]
		if !ok {
			continue
		}
		mark := n.Spec.Process.Restart
		if op != nil && !moves(op) && about(op, w.ID) {
			mark = p.mark(op, n)
		}
		if op != nil && op.Spec.Type == api.OperationRestart {
			// A restart changes nothing else: what the spec calls for has an Operation of its own.
			if p.differing(n) {
				p.op.after = append(p.op.after, Step{Kind: UpdateProcess, Node: w.ID, Reason: fmt.Sprintf("%s, when operation %s is over", changeReason(n.Spec.Process, w.Process), op.Name)})
			}
			w.Process, w.PackageWait, w.SecretWait = *n.Spec.Process.DeepCopy(), "", ""
		}
		w.Process.Restart = mark
	}
}

// about says whether a node is one that an Operation may change.
func about(op *api.Operation, id int32) bool {
	return !slices.Contains(op.Spec.IgnoredNodes, id) && (len(op.Spec.Nodes) == 0 || slices.Contains(op.Spec.Nodes, id))
}

// mark is what a node's process names as its last restart once the Operation has come to it.
func (p *pass) mark(op *api.Operation, n *Node) string {
	if back := n.Spec.Change; back != nil && back.RolledBack && back.Operation == op.Name {
		return n.Spec.Process.Restart
	}
	attempt := attemptOf(op, n.Spec.NodeID)
	switch {
	case attempt > 0:
		return op.Name + "/" + strconv.Itoa(int(attempt))
	case op.Spec.Type == api.OperationRestart:
		return op.Name
	default:
		return n.Spec.Process.Restart
	}
}

// attemptOf is how often a node is to be tried again.
func attemptOf(op *api.Operation, id int32) int32 {
	for _, r := range op.Spec.Retry {
		if r.ID == id {
			return r.Attempt
		}
	}
	return 0
}

// begin decides on an Operation for nodes that differ from the revision.
func (p *pass) begin(outdated []*Node) {
	op := p.newOperation(p.rolloutType(outdated))
	var why []string
	for _, n := range outdated {
		op.Spec.From = append(op.Spec.From, api.OperationOrigin{ID: n.Spec.NodeID, Revision: p.origin(n)})
		if reason := changeReason(n.Spec.Process, p.wanted[n.Spec.NodeID].Process); !slices.Contains(why, reason) {
			why = append(why, reason)
		}
	}
	op.Spec.Reason = someOf(why)
	p.createOperation(op, fmt.Sprintf("%d nodes are to change: %s", len(outdated), op.Spec.Reason))
}

// createOperation makes an Operation that is the active one from now on.
func (p *pass) createOperation(op *api.Operation, reason string) {
	p.step(Step{Kind: CreateOperation, Node: -1, Reason: reason, Operation: op})
	if p.op.active != nil {
		p.op.queued = append(p.op.queued, p.op.active)
	}
	p.op.active, p.op.created = op, true
	p.op.states = p.statesOf(op)
}

// newOperation is one that the engine makes, to bring the cluster to its revision.
func (p *pass) newOperation(kind api.OperationType) *api.Operation {
	op := &api.Operation{}
	op.Namespace = p.want.Namespace
	op.Labels = map[string]string{LabelCluster: p.want.Name}
	op.Finalizers = []string{OperationFinalizer}
	op.Spec = api.OperationSpec{ClusterRef: api.ClusterRef{Name: p.want.Name}, Type: kind, ToRevision: p.have.Revision}
	op.Name = p.freeName(fmt.Sprintf("%s-%s-%s", p.want.Name, strings.ToLower(string(kind)), strings.TrimPrefix(p.have.Revision, p.want.Name+"-")))
	return op
}

// takeUp records where nodes come from in an Operation that a user made.
func (p *pass) takeUp(outdated []*Node) {
	op := p.op.active
	if !rolls(op) || len(op.Spec.From) > 0 || p.op.created {
		return
	}
	op = op.DeepCopy()
	for _, n := range outdated {
		op.Spec.From = append(op.Spec.From, api.OperationOrigin{ID: n.Spec.NodeID, Revision: p.origin(n)})
	}
	p.step(Step{Kind: RecordOperation, Node: -1, Operation: op, Reason: fmt.Sprintf("%d nodes are to change", len(outdated))})
	p.op.active = op
	p.op.states = p.statesOf(op)
}

func (p *pass) rolloutType(outdated []*Node) api.OperationType {
	switch {
	case p.have.Restores != "" || slices.ContainsFunc(outdated, func(n *Node) bool { return older(p.wanted[n.Spec.NodeID], &n.Spec) }):
		return api.OperationRollback
	case slices.ContainsFunc(outdated, func(n *Node) bool { return n.Spec.Process.Version != p.want.Version }):
		return api.OperationUpgrade
	default:
		return api.OperationRollout
	}
}

func (p *pass) freeName(name string) string {
	taken := func(name string) bool {
		return slices.ContainsFunc(p.have.Operations, func(op api.Operation) bool { return op.Name == name })
	}
	if !taken(name) {
		return name
	}
	for i := 2; ; i++ {
		if next := fmt.Sprintf("%s-%d", name, i); !taken(next) {
			return next
		}
	}
}

// origin is the revision at which a node was last in order: whatever was tried since, that is
// what it goes back to.
func (p *pass) origin(n *Node) string {
	change := n.Spec.Change
	if settled(n) || change == nil {
		return n.Spec.Revision
	}
	for i := range p.have.Operations {
		op := &p.have.Operations[i]
		if op.Name != change.Operation {
			continue
		}
		if r := recorded(op, n.Spec.NodeID); r != "" {
			return r
		}
	}
	if change.FromRevision != "" {
		return change.FromRevision
	}
	return n.Spec.Revision
}

func recorded(op *api.Operation, id int32) string {
	for _, from := range op.Spec.From {
		if from.ID == id {
			return from.Revision
		}
	}
	return ""
}

// ignored says whether a user wanted a node left as it is at this revision, and in which Operation.
func (p *pass) ignored(id int32) (op string, ok bool) {
	for i := len(p.have.Operations) - 1; i >= 0; i-- {
		o := &p.have.Operations[i]
		if rolls(o) && o.Spec.ToRevision == p.have.Revision {
			return o.Name, slices.Contains(o.Spec.IgnoredNodes, id)
		}
	}
	return "", false
}

// digest names what an Operation is going to do, for approval. It does not change while nodes
// are being done.
func digest(op *api.Operation) string {
	var text strings.Builder
	fmt.Fprintln(&text, op.Name, op.Spec.Type, op.Spec.ToRevision, op.Spec.Nodes, op.Spec.Order)
	for _, from := range op.Spec.From {
		fmt.Fprintln(&text, from.ID, from.Revision)
	}
	sum := sha256.Sum256([]byte(text.String()))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// nodesOf are the nodes that an Operation is about, in the order in which they were recorded.
func (p *pass) nodesOf(op *api.Operation) []int32 {
	var ids []int32
	for _, from := range op.Spec.From {
		ids = append(ids, from.ID)
	}
	if len(ids) == 0 {
		ids = slices.Clone(op.Spec.Nodes)
	}
	if len(ids) == 0 {
		for _, n := range p.existing() {
			ids = append(ids, n.Spec.NodeID)
		}
	}
	return slices.DeleteFunc(ids, func(id int32) bool {
		_, wanted := p.wanted[id]
		return !wanted
	})
}

// giveBack returns a node that failed to what it ran before, and keeps the revision from others.
func (p *pass) giveBack(n *Node) {
	op, id := p.op.active, n.Spec.NodeID
	from := recorded(op, id)
	if from == "" {
		from = p.origin(n)
	}
	earlier, ok := p.have.Earlier[from]
	i := slices.IndexFunc(earlier.Nodes, func(w cluster.Node) bool { return w.ID == id })
	if !ok || i < 0 {
		p.block(id, "NoWayBack", fmt.Sprintf("node %d failed, and what it ran before (revision %s) can no longer be had: mend the spec, or castellan retry %s", id, from, op.Name), true)
		return
	}
	spec := p.spec(id)
	spec.Process = *earlier.Nodes[i].Process.DeepCopy()
	spec.Process.Restart = op.Name + "/back"
	spec.Revision = from
	reason := fmt.Sprintf("it failed under revision %s (%s) and is given back revision %s", p.have.Revision, nodeWord(n), from)
	spec.Change = &api.NodeChange{
		Operation: op.Name, Reason: reason, Since: metav1.NewTime(p.now.Truncate(time.Second)), FromRevision: from, WasDown: true, RolledBack: true,
	}
	p.write(UpdateProcess, spec, reason)
}
