package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
)

// startingPatience is how long a JVM that cannot be judged (Kafka unreadable) is left
// starting before another process may replace it.
const startingPatience = 2 * time.Minute

// roll gives nodes the permission to restart, as many as the checks allow at once.
func (p *pass) roll() {
	outdated := p.outdated()
	if len(outdated) == 0 {
		if p.op.active != nil && !moves(p.op.active) {
			p.giveBackFailed(p.gate()) // it may be the last one that failed
		}
		p.waitForUnsettled()
		return
	}
	held := p.op.hold != nil && (p.op.active == nil || moves(p.op.active))
	if held {
		p.block(-1, "Held", p.heldWords(), true)
		return
	}
	if p.op.active == nil || moves(p.op.active) {
		p.begin(outdated)
	}
	p.takeUp(outdated)
	gate := p.gate()
	healthy := p.mend(outdated, gate)
	p.giveBackFailed(gate)
	if gate.wait != nil {
		p.plan.Blocked = append(p.plan.Blocked, *gate.wait)
	}
	p.round(slices.DeleteFunc(healthy, func(n *Node) bool { return !gate.lets(n, false) }))
	for _, n := range outdated {
		if p.specs[n.Spec.NodeID] == nil || !p.updating(n) {
			w := p.wanted[n.Spec.NodeID]
			p.plan.Upcoming = append(p.plan.Upcoming, Step{Kind: UpdateProcess, Node: w.ID, Reason: changeReason(n.Spec.Process, w.Process)})
		}
	}
}

// mend lets nodes change on which nothing rests, and returns the others.
func (p *pass) mend(outdated []*Node, gate gate) (healthy []*Node) {
	for _, n := range outdated {
		switch free := p.free(n); {
		case p.holdsLeftVolume(n):
			p.block(n.Spec.NodeID, "EmptyingLogDir", fmt.Sprintf("node %d loses its volume when no replica is left there", n.Spec.NodeID), false)
		case gate.lets(n, free) && free:
			p.update(n)
		case !free:
			healthy = append(healthy, n)
		}
	}
	return healthy
}

func (p *pass) heldWords() string {
	return fmt.Sprintf("revision %s reaches no further node: %s; change the spec, go back with castellan rollback %s, or go on with castellan retry %s", p.have.Revision, p.op.hold.Reason, p.want.Name, p.op.hold.Operation)
}

// updating says whether this pass already decided the node's new process.
func (p *pass) updating(n *Node) bool {
	return layout.ProcessHash(p.peek(n.Spec.NodeID).Process) == layout.ProcessHash(p.wanted[n.Spec.NodeID].Process)
}

// outdated are the nodes whose permitted process is not the wanted one, in the order in
// which they may change: unready ones, controllers with the active one last, brokers.
func (p *pass) outdated() []*Node {
	var out []*Node
	for _, n := range p.existing() {
		w := p.wanted[n.Spec.NodeID]
		if layout.ProcessHash(n.Spec.Process) == layout.ProcessHash(w.Process) {
			continue
		}
		if op, ok := p.ignored(w.ID); ok && (p.op.active == nil || rolls(p.op.active)) {
			p.block(w.ID, "Ignored", fmt.Sprintf("node %d is left as it is, as operation %s was told to: castellan retry %s --node %d brings it along", w.ID, op, op, w.ID), true)
			continue
		}
		if p.waits(w) {
			continue
		}
		if wait := p.ungiven(n); wait != "" {
			p.block(w.ID, "WaitingForAddress", wait, false)
			continue
		}
		if wait := p.unformatted(n); wait != "" {
			p.block(w.ID, "WaitingForDisks", wait, false)
			continue
		}
		out = append(out, n)
	}
	if len(out) < 2 {
		return out
	}
	back := p.back()
	slices.SortStableFunc(out, func(a, b *Node) int {
		byID := 0
		if back {
			byID = int(b.Spec.NodeID - a.Spec.NodeID)
		}
		return cmp.Or(p.asked(a)-p.asked(b), p.rank(a, back)-p.rank(b, back), byID)
	})
	return out
}

// back says whether nodes go back to what they were: brokers first then, since an older broker
// understands a newer controller's metadata only as long as nothing of it is new.
func (p *pass) back() bool {
	if slices.ContainsFunc(p.existing(), func(n *Node) bool { return older(p.wanted[n.Spec.NodeID], &n.Spec) }) {
		return true
	}
	if p.op.active != nil {
		return p.op.active.Spec.Type == api.OperationRollback
	}
	return p.have.Restores != ""
}

// asked is the place of a node in the order that a user asked for.
func (p *pass) asked(n *Node) int {
	if p.op.active == nil {
		return 0
	}
	order := p.op.active.Spec.Order
	if i := slices.Index(order, n.Spec.NodeID); i >= 0 {
		return i
	}
	return len(order)
}

func (p *pass) rank(n *Node, back bool) int {
	w := p.wanted[n.Spec.NodeID]
	brokers := 3
	if back {
		brokers = 0
	}
	switch {
	case !n.Status.Ready:
		return -1
	case w.Controller() && n.Spec.NodeID == p.activeController():
		return 2
	case w.Controller():
		return 1
	default:
		return brokers
	}
}

// free says whether a node may be restarted whatever the others do, because stopping it
// takes nothing away: its JVM does not run, or Kafka itself counts it neither in an ISR
// nor among the caught-up voters. Otherwise a fix could never reach a broken node.
func (p *pass) free(n *Node) bool {
	if n.Status.Ready || n.Status.State == api.NodeUnknown {
		return false
	}
	if !running(n) {
		return true
	}
	if n.Status.Reason == "LogRecovery" {
		return false
	}
	k := &p.have.Kafka
	if k.Known && k.PartitionsKnown {
		if v := voter(k, n.Spec.NodeID); v != nil && caughtUp(&k.Quorum, v) {
			return false
		}
		return !inAnyISR(k.Topics, n.Spec.NodeID)
	}
	if k.Known && !p.wanted[n.Spec.NodeID].Broker() {
		v := voter(k, n.Spec.NodeID)
		return v == nil || !caughtUp(&k.Quorum, v)
	}
	return !p.anyReady() && p.startingFor(n) > startingPatience
}

func (p *pass) anyReady() bool {
	return slices.ContainsFunc(p.have.Nodes, func(n Node) bool { return n.Status.Ready })
}

func (p *pass) startingFor(n *Node) time.Duration {
	if n.Status.Process == nil {
		return 0
	}
	return p.now.Sub(n.Status.Process.StartedAt.Time)
}

// update decides the step that lets a node restart.
func (p *pass) update(n *Node) {
	w := p.wanted[n.Spec.NodeID]
	spec := p.spec(n.Spec.NodeID)
	reason := changeReason(spec.Process, w.Process)
	op := p.op.active
	from := recorded(op, w.ID)
	if from == "" {
		from = p.origin(n)
	}
	spec.Change = &api.NodeChange{
		Operation: op.Name, Attempt: attemptOf(op, w.ID), Reason: reason, Since: metav1.NewTime(p.now.Truncate(time.Second)),
		FromRevision: from, WasDown: !n.Status.Ready,
	}
	spec.Process, spec.Roles = w.Process, w.Roles
	if rolls(op) {
		spec.Revision = p.have.Revision
	}
	p.write(UpdateProcess, spec, reason)
}

// round lets healthy nodes restart: the rest of the round that runs, or a new one.
func (p *pass) round(healthy []*Node) {
	if len(healthy) == 0 {
		return
	}
	down := p.down()
	if healthy = p.atRest(healthy, down); len(healthy) == 0 {
		return
	}
	k := &p.have.Kafka
	rack, hasRack := p.roundRack(down)
	budget := p.budget(healthy, rack, hasRack) - len(down)
	impact := newImpact(k, healthy, p.absent())
	var first *Block
	for _, n := range healthy {
		if budget <= 0 {
			break
		}
		if hasRack && n.Rack != rack {
			continue
		}
		if why := p.mayStop(n, impact); why != nil {
			if first == nil {
				first = why
			}
			continue
		}
		p.update(n)
		impact.stop(n.Spec.NodeID)
		down[n.Spec.NodeID] = true
		rack, hasRack = n.Rack, true
		budget--
		if p.wanted[n.Spec.NodeID].Controller() {
			break // voters change one at a time
		}
		if budget > 0 {
			budget = min(budget, p.budget(healthy, rack, hasRack)-len(down))
		}
	}
	if first != nil && len(down) == 0 {
		p.plan.Blocked = append(p.plan.Blocked, *first)
	}
}

// atRest are the healthy nodes of which one may be stopped now, if everything has come to rest.
func (p *pass) atRest(healthy []*Node, down map[int32]bool) []*Node {
	if wait := p.waitBeforeRound(down); wait != nil {
		if healthy = behindItself(healthy, wait); len(healthy) == 0 {
			p.plan.Blocked = append(p.plan.Blocked, *wait)
			p.again(2 * time.Second)
			return nil
		}
	}
	if k := &p.have.Kafka; !k.Known || !k.PartitionsKnown {
		p.block(-1, "KafkaUnreadable", "no healthy node is restarted while Kafka cannot be read: "+p.whyUnknown(), false)
		p.again(2 * time.Second)
		return nil
	}
	return healthy
}

// behindItself is the broker whose own replicas all others wait for, if it is to be restarted: those
// of a log dir that failed come back by a restart at most.
func behindItself(healthy []*Node, wait *Block) []*Node {
	i := slices.IndexFunc(healthy, func(n *Node) bool { return wait.Reason == "CatchingUp" && n.Spec.NodeID == wait.Node })
	if i < 0 {
		return nil
	}
	return healthy[i : i+1]
}

func (p *pass) whyUnknown() string {
	if !p.have.Kafka.Known {
		return p.have.Kafka.Why
	}
	return "only controllers answer"
}

// down are the nodes that are not serving now because of a change of ours, or that are
// about to be: every node that is not settled, but for those that were down before they
// were changed and those whose host is silent. The partition checks see all of them anyway.
func (p *pass) down() map[int32]bool {
	down := map[int32]bool{}
	for _, n := range p.existing() {
		if p.leaving[n.Spec.NodeID] && (n.Spec.State == api.StateStopped || n.Status.Nonce != "") {
			continue // it is not coming back, and held nothing
		}
		if p.updatingNow(n) || p.evicting(n) || (!settled(n) && !p.lame(n)) {
			down[n.Spec.NodeID] = true
		}
	}
	return down
}

// absent are all nodes whose copies must not be counted on, whatever the reason: Kafka
// takes seconds to notice that one is gone, and of a node whose host is silent nobody knows.
func (p *pass) absent() map[int32]bool {
	absent := map[int32]bool{}
	for i := range p.have.Nodes {
		n := &p.have.Nodes[i]
		if !p.present(n) {
			absent[n.Spec.NodeID] = true
		}
	}
	for id := range p.brokers { // registered, but its node is gone: deleted by hand
		if p.nodes[id] == nil {
			absent[id] = true
		}
	}
	for id := range p.wanted {
		if p.nodes[id] == nil {
			absent[id] = true
		}
	}
	return absent
}

func (p *pass) present(n *Node) bool {
	if p.updatingNow(n) || n.Spec.State == api.StateStopped || p.evicting(n) {
		return false
	}
	return settled(n)
}

// evicting says whether somebody else is about to end the node's pod.
func (p *pass) evicting(n *Node) bool {
	return slices.Contains(p.have.Shared.Evicting, n.Spec.NodeID)
}

// updatingNow says whether this pass decided to restart the node.
func (p *pass) updatingNow(n *Node) bool {
	s, ok := p.specs[n.Spec.NodeID]
	return ok && layout.ProcessHash(s.Process) != layout.ProcessHash(n.Spec.Process) && n.Status.Ready
}

// lame nodes were broken before this rollout touched them, or are tolerated; they do not stop
// it. One that it broke itself, and tries again, does.
func (p *pass) lame(n *Node) bool {
	if n.Status.State == api.NodeUnknown || p.tolerated(n) {
		return true
	}
	if p.triedAgain(n) {
		return false
	}
	if p.specs[n.Spec.NodeID] != nil && p.specs[n.Spec.NodeID].Change != nil && p.specs[n.Spec.NodeID].Change.WasDown {
		return !n.Status.Ready
	}
	return !n.Status.Ready && n.Spec.Change != nil && n.Spec.Change.WasDown && upToDate(n)
}

// triedAgain says whether the active Operation changed a node another time, or does so now.
func (p *pass) triedAgain(n *Node) bool {
	c := p.peek(n.Spec.NodeID).Change
	return p.op.active != nil && c != nil && c.Operation == p.op.active.Name && c.Attempt > 0 && !c.RolledBack
}

// waitBeforeRound says what must come to rest before a further healthy node is stopped.
func (p *pass) waitBeforeRound(down map[int32]bool) *Block {
	for _, n := range p.existing() {
		id := n.Spec.NodeID
		if !down[id] {
			continue
		}
		if p.evicting(n) && settled(n) {
			return &Block{Node: id, Reason: "BeingEvicted", Message: fmt.Sprintf("waiting for the pod of node %d, which is being evicted, as by a drain of its machine, to be back before the next node is restarted", id)}
		}
		if p.wanted[id].Controller() || !p.manyAllowed() {
			return &Block{Node: id, Reason: "WaitingForNode", Message: fmt.Sprintf("waiting for node %d to be ready before the next one is restarted (%s)", id, nodeWord(n)), Stalled: n.Status.State == api.NodeFailed}
		}
		if n.Status.State == api.NodeFailed {
			return &Block{Node: id, Reason: "NodeFailed", Message: fmt.Sprintf("node %d failed after its change, so no further node is restarted: %s", id, nodeWord(n)), Stalled: true}
		}
	}
	if len(down) > 0 {
		return nil // the rest of the same round; replicas are checked when it is over
	}
	if id, ok := p.lagging(); ok {
		return &Block{Node: id, Reason: "CatchingUp", Message: fmt.Sprintf("waiting for the replicas of broker %d to be back in sync before the next node is restarted", id)}
	}
	if id, ok := p.laggingVoter(); ok {
		return &Block{Node: id, Reason: "CatchingUp", Message: fmt.Sprintf("waiting for controller %d to catch up with the metadata log before the next node is restarted", id)}
	}
	return nil
}

// lagging is the first ready broker with a replica that is out of sync.
func (p *pass) lagging() (int32, bool) {
	k := &p.have.Kafka
	if !k.Known || !k.PartitionsKnown {
		return 0, false
	}
	found := int32(-1)
	for i := range k.Topics {
		for j := range k.Topics[i].Partitions {
			part := &k.Topics[i].Partitions[j]
			if len(part.ISR) == len(part.Replicas) {
				continue
			}
			for _, r := range part.Replicas {
				if n := p.nodes[r]; n != nil && n.Status.Ready && !slices.Contains(part.ISR, r) && (found < 0 || r < found) {
					found = r
				}
			}
		}
	}
	return found, found >= 0
}

func (p *pass) laggingVoter() (int32, bool) {
	q := &p.have.Kafka.Quorum
	for i := range q.Voters {
		v := &q.Voters[i]
		if n := p.nodes[v.ID]; n != nil && n.Status.Ready && !caughtUp(q, v) {
			return v.ID, true
		}
	}
	return 0, false
}

// manyAllowed says whether the rollout policy lets more than one broker be down.
func (p *pass) manyAllowed() bool {
	m := p.want.MaxUnavailable
	return m.Type == intstr.String || m.IntVal > 1
}

// roundRack is the rack of the round that runs.
func (p *pass) roundRack(down map[int32]bool) (string, bool) {
	for _, n := range p.existing() {
		if down[n.Spec.NodeID] {
			return n.Rack, true
		}
	}
	return "", false
}

// budget is how many brokers may be down together. A new round may first take as many as
// the largest rack has; once it has a rack, that rack's size counts.
func (p *pass) budget(healthy []*Node, rack string, hasRack bool) int {
	m := p.want.MaxUnavailable
	brokers, byRack := 0, map[string]int{}
	for _, n := range p.existing() {
		if p.wanted[n.Spec.NodeID].Broker() {
			brokers++
			byRack[n.Rack]++
		}
	}
	switch {
	case m.Type == intstr.Int:
		return max(1, int(m.IntVal))
	case m.StrVal == cluster.WholeRack:
		if !hasRack {
			rack = healthy[0].Rack
		}
		if rack == "" {
			return 1 // without racks a "rack" would be the whole cluster
		}
		return max(1, byRack[rack])
	default:
		percent, err := intstr.GetScaledValueFromIntOrPercent(&m, brokers, false)
		if err != nil {
			return 1
		}
		return max(1, percent)
	}
}

// mayStop says why a healthy node may not be stopped now, nil when it may.
func (p *pass) mayStop(n *Node, impact *impact) *Block {
	id, w := n.Spec.NodeID, p.wanted[n.Spec.NodeID]
	if n.Status.State == api.NodeUnknown {
		// The permission would be taken up at a moment that nobody can foresee.
		return &Block{Node: id, Reason: "HostSilent", Message: silentWords(n)}
	}
	if w.Controller() {
		if p.changesVoters() {
			return &Block{Node: id, Reason: "VotersChange", Message: fmt.Sprintf("controller %d is not restarted while the set of voters changes", id)}
		}
		if why := p.quorumWithout(id); why != "" {
			return &Block{Node: id, Reason: "QuorumAtRisk", Message: why, Stalled: p.twoControllers()}
		}
	}
	if !slices.Contains(n.Spec.Roles, api.RoleBroker) {
		return nil
	}
	never, names := impact.never(id)
	if never {
		if why := p.noSpare(id, names); why != nil {
			return why
		}
	}
	if names := impact.hurt(id, never); names != "" {
		return &Block{Node: id, Reason: "PartitionsAtRisk", Message: fmt.Sprintf("broker %d is not restarted now: it would take %s below min.insync.replicas or offline", id, names)}
	}
	return nil
}

// silentWords says what a node waits for of which nothing is heard.
func silentWords(n *Node) string {
	if n.Spec.Host == "" {
		return fmt.Sprintf("node %d is changed when its machine is heard again (%s)", n.Spec.NodeID, nodeWord(n))
	}
	return fmt.Sprintf("node %d is changed when the agent of its host %s is heard again", n.Spec.NodeID, n.Spec.Host)
}

// quorumWithout says why stopping this controller would endanger the metadata quorum.
func (p *pass) quorumWithout(id int32) string {
	q := &p.have.Kafka.Quorum
	if q.Leader < 0 {
		return "the metadata quorum has no leader"
	}
	if voter(&p.have.Kafka, id) == nil {
		return ""
	}
	if len(q.Voters) == 1 {
		return "" // the only controller: a restart is a short stop, and there is no other way
	}
	up := 0
	for i := range q.Voters {
		o := &q.Voters[i]
		if n := p.nodes[o.ID]; o.ID != id && n != nil && p.present(n) && caughtUp(q, o) {
			up++
		}
	}
	if need := len(q.Voters)/2 + 1; up < need {
		why := fmt.Sprintf("controller %d is not restarted now: the other caught-up controllers would be no majority", id)
		if p.twoControllers() {
			why += "; one of two never is: add a third controller"
		}
		return why
	}
	return ""
}

// changesVoters says whether this pass adds or removes a voter, so that what it knows of the
// quorum no longer holds.
func (p *pass) changesVoters() bool {
	return slices.ContainsFunc(p.plan.Steps, func(s Step) bool { return s.Kind == AddVoter || s.Kind == RemoveVoter })
}

// twoControllers says whether two controllers are wanted, of which none can ever be spared.
func (p *pass) twoControllers() bool {
	count := 0
	for i := range p.want.Nodes {
		if p.want.Nodes[i].Controller() {
			count++
		}
	}
	return count == 2
}

// waitForUnsettled names what runs as permitted but is not ready yet.
func (p *pass) waitForUnsettled() {
	for _, n := range p.existing() {
		if settled(n) || n.Spec.State == api.StateStopped {
			continue
		}
		if slices.ContainsFunc(p.plan.Blocked, func(b Block) bool { return b.Node == n.Spec.NodeID }) {
			continue
		}
		p.block(n.Spec.NodeID, "WaitingForNode", fmt.Sprintf("waiting for node %d to be ready (%s)", n.Spec.NodeID, nodeWord(n)), n.Status.State == api.NodeFailed)
	}
}

// leaders elects preferred leaders once everything has come to rest.
func (p *pass) leaders() {
	k := &p.have.Kafka
	if len(p.plan.Steps) > 0 || len(p.plan.Blocked) > 0 || len(p.plan.Upcoming) > 0 || !k.Known || !k.PartitionsKnown {
		return
	}
	if _, behind := p.lagging(); behind {
		p.again(5 * time.Second) // its leadership returns as soon as it is back in sync
	}
	for i := range k.Topics {
		for j := range k.Topics[i].Partitions {
			part := &k.Topics[i].Partitions[j]
			if len(part.Replicas) == 0 || part.Leader == part.Replicas[0] || !slices.Contains(part.ISR, part.Replicas[0]) {
				continue
			}
			if b := p.brokers[part.Replicas[0]]; b == nil || b.Fenced {
				continue
			}
			p.step(Step{Kind: ElectLeaders, Node: -1, Reason: "all nodes are in sync; leadership returns to the preferred replicas"})
			return
		}
	}
}
