package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/cluster"
)

const (
	// moveAgain is how soon moves are looked at again.
	moveAgain = time.Second
	// fenceAgain is how soon a broker that is about to be fenced is.
	fenceAgain = 2 * time.Second
	// planAgain is how long a proposal stands that is refused or goes no further.
	planAgain = 20 * time.Second
	// stalledPatience is how long moves may wait for a broker that is gone before they are taken back.
	stalledPatience = time.Minute
	// settlePatience is how long brokers keep on disk what has moved away (file.delete.delay.ms, a
	// minute by default): until then it would be taken for somebody else's files.
	settlePatience = 70 * time.Second
	// mostRounds is how often a Rebalance is planned anew: what topics gain meanwhile could go on for ever.
	mostRounds = 5
)

// moving is what a pass knows of replicas on their way.
type moving struct {
	needed bool
	// facts with what leaves marked; nil when they are not known.
	facts *balance.Cluster
	// ours are the partitions on their way whose topics are recorded as ours.
	ours []balance.PartitionRef
	// request of the active Operation, if it has something to move; memo holds its proposal.
	asked   bool
	request balance.Request
	memo    *Memo
	step    balance.Step
	// done says that nothing is left to move for the active Operation.
	done bool
	// settling says that disks are looked at a little later.
	settling bool
	// begins says that this pass records that moving begins.
	begins bool
	// takeBack are partitions whose moves nobody wants any more.
	takeBack map[balance.PartitionRef]bool
	// spec is the configuration of nodes as the spec wants it, by node.
	spec map[int32]map[string]string
	// unread are brokers of which it is not known whether somebody else throttles them, theirs
	// those where somebody does.
	unread map[int32]bool
	theirs []int32
	// rate in bytes per second that each broker may receive and send; zero is no throttle.
	rate int64
}

// lookAtMoves finds what of ours is on its way.
func (p *pass) lookAtMoves() {
	m := &p.moving
	m.takeBack, m.spec, m.unread = map[balance.PartitionRef]bool{}, map[int32]map[string]string{}, map[int32]bool{}
	m.needed = len(p.leaving) > 0 || NeedsPlacement(p.want, p.have.Nodes, p.have.Operations, p.have.Moving)
	if !m.needed || !p.have.Kafka.Known || p.have.Kafka.Placement == nil {
		return
	}
	c := *p.have.Kafka.Placement
	c.Brokers = slices.Clone(c.Brokers)
	m.facts = &c
	recorded := map[string]bool{}
	for _, t := range p.have.Moving {
		recorded[t] = true
	}
	for i := range c.Topics {
		if !recorded[c.Topics[i].Name] {
			continue
		}
		for j := range c.Topics[i].Partitions {
			if slices.ContainsFunc(c.Topics[i].Partitions[j].Replicas, onItsWay) {
				m.ours = append(m.ours, balance.PartitionRef{Topic: c.Topics[i].Name, Partition: int32(j)})
			}
		}
	}
	for _, copied := range c.Copies {
		ref := balance.PartitionRef{Topic: copied.Topic, Partition: copied.Partition}
		if recorded[copied.Topic] && !slices.Contains(m.ours, ref) {
			m.ours = append(m.ours, ref)
		}
	}
}

// partition finds a partition in the facts, nil when it is gone.
func (m *moving) partition(ref balance.PartitionRef) *balance.Partition {
	for i := range m.facts.Topics {
		if t := &m.facts.Topics[i]; t.Name == ref.Topic && int(ref.Partition) < len(t.Partitions) {
			return &t.Partitions[ref.Partition]
		}
	}
	return nil
}

func onItsWay(r balance.Replica) bool { return r.State&(balance.Adding|balance.Removing) != 0 }

// prepareMoves plans the moves of the active Operation, and wants of brokers what moving needs.
func (p *pass) prepareMoves() {
	p.beginScale()
	m := &p.moving
	if m.facts != nil {
		p.markBrokers()
		p.markVolumes()
		if m.request, m.asked = p.request(p.op.active); m.asked {
			p.propose()
		}
	}
	p.wantOwnKeys()
}

// markBrokers says which brokers take no replica.
func (p *pass) markBrokers() {
	op := p.op.active
	for i := range p.moving.facts.Brokers {
		b := &p.moving.facts.Brokers[i]
		if !p.leaving[b.ID] && !p.drains(b.ID) {
			continue
		}
		b.Cordoned = true
		b.Leaving = p.leaving[b.ID] && op != nil && op.Spec.Type == api.OperationScale && about(op, b.ID)
	}
}

// drains says whether the active Operation empties a broker that stays.
func (p *pass) drains(id int32) bool {
	op := p.op.active
	return op != nil && op.Spec.Type == api.OperationDrain && slices.Contains(op.Spec.Nodes, id) && about(op, id)
}

// beginScale makes an Operation for nodes that leave, and for brokers that are to be filled.
func (p *pass) beginScale() {
	if p.op.active != nil && !p.idleUpgrade(p.op.active) || p.op.hold != nil || !p.have.Kafka.Known || p.have.ClusterID == "" || p.differs() {
		return
	}
	var nodes []int32
	var words []string
	for _, n := range p.leavers() {
		if _, left := p.leftByUser(n.Spec.NodeID); left {
			continue
		}
		nodes = append(nodes, n.Spec.NodeID)
		words = append(words, fmt.Sprintf("node %d leaves", n.Spec.NodeID))
	}
	empty := p.emptyBrokers()
	for i := range p.want.Nodes {
		id := p.want.Nodes[i].ID
		_, exists := p.nodes[id]
		switch {
		case slices.Contains(empty, id):
			words = append(words, fmt.Sprintf("broker %d is filled", id))
		case !exists && len(words) > 0:
			words = append(words, fmt.Sprintf("node %d comes", id))
		default:
			continue
		}
		nodes = append(nodes, id)
	}
	if len(words) == 0 {
		return
	}
	op := p.newOperation(api.OperationScale)
	op.Spec.Nodes, op.Spec.Reason = nodes, someOf(words)
	p.createOperation(op, op.Spec.Reason)
}

// emptyBrokers are brokers that hold nothing yet and are to be filled, once for each revision.
func (p *pass) emptyBrokers() []int32 {
	k := &p.have.Kafka
	if !p.want.Balance.FillNewBrokers || !k.PartitionsKnown || p.unready() != nil {
		return nil // all of them together: one plan for one wish
	}
	var out []int32
	holders := p.holders()
	if len(holders) == 0 {
		return nil
	}
	for _, n := range p.existing() {
		id := n.Spec.NodeID
		if p.leaving[id] || !p.wanted[id].Broker() || holders[id] || p.scaledBefore(id) {
			continue
		}
		if b := p.brokers[id]; !settled(n) || b == nil || b.Fenced {
			return nil
		}
		out = append(out, id)
	}
	return out
}

// scaledBefore says whether an Operation to this revision was about the node already, or one
// emptied it on purpose.
func (p *pass) scaledBefore(id int32) bool {
	return slices.ContainsFunc(p.have.Operations, func(op api.Operation) bool {
		scaled := op.Spec.Type == api.OperationScale && op.Spec.ToRevision == p.have.Revision
		return (scaled || op.Spec.Type == api.OperationDrain) && slices.Contains(op.Spec.Nodes, id)
	})
}

// holders are the brokers that hold a replica.
func (p *pass) holders() map[int32]bool {
	out := map[int32]bool{}
	topics := p.have.Kafka.Topics
	for i := range topics {
		for j := range topics[i].Partitions {
			for _, id := range topics[i].Partitions[j].Replicas {
				out[id] = true
			}
		}
	}
	return out
}

// request is what an Operation wants of replicas; false when there is nothing (more).
func (p *pass) request(op *api.Operation) (balance.Request, bool) {
	r := balance.Request{Headroom: p.headroom()}
	if op == nil || cancelled(op) {
		return r, false
	}
	switch op.Spec.Type {
	case api.OperationScale:
		return p.scaleRequest(op, r)
	case api.OperationDrain:
		r.Mode = balance.Drain
		for _, id := range op.Spec.Nodes {
			if w := p.wanted[id]; w != nil && w.Broker() && about(op, id) {
				r.Brokers = append(r.Brokers, id)
			}
		}
		return r, len(r.Brokers) > 0
	case api.OperationRebalance:
		return p.rebalanceRequest(op, r), true
	default:
		return p.emptyLogDirs(r)
	}
}

func (p *pass) scaleRequest(op *api.Operation, r balance.Request) (balance.Request, bool) {
	if p.unready() != nil {
		return r, false // it may be the very one that takes the replicas
	}
	for _, n := range p.leavers() {
		if id := n.Spec.NodeID; about(op, id) && slices.Contains(n.Spec.Roles, api.RoleBroker) && p.holdsReplica(id) {
			r.Mode = balance.Drain
			r.Brokers = append(r.Brokers, id)
		}
	}
	if len(r.Brokers) > 0 || !p.want.Balance.FillNewBrokers {
		slices.Sort(r.Brokers)
		return r, len(r.Brokers) > 0
	}
	r.Mode = balance.Fill
	for _, id := range op.Spec.Nodes {
		if w := p.wanted[id]; w != nil && !p.leaving[id] && w.Broker() && about(op, id) && p.nodes[id] != nil && settled(p.nodes[id]) {
			r.Brokers = append(r.Brokers, id)
		}
	}
	return r, len(r.Brokers) > 0
}

func (p *pass) rebalanceRequest(op *api.Operation, r balance.Request) balance.Request {
	ask := op.Spec.Rebalance
	if ask == nil { // the schema does not let it be; a request of no mode is refused with words
		return r
	}
	r.Mode, r.Brokers, r.Topics = balance.Mode(ask.Mode), ask.Brokers, ask.Topics
	if ask.ReplicationFactor != nil {
		r.Factors = map[string]int{}
		for _, t := range ask.Topics {
			r.Factors[t] = int(*ask.ReplicationFactor)
		}
		r.Topics = nil
	}
	if ask.RepairLogDirs {
		for _, b := range p.moving.facts.Brokers {
			for _, d := range b.LogDirs {
				if d.Offline && (len(ask.Brokers) == 0 || slices.Contains(ask.Brokers, b.ID)) {
					r.Empty = append(r.Empty, balance.DirRef{Broker: b.ID, Path: d.Path})
				}
			}
		}
	}
	return r
}

func (p *pass) headroom() float64 {
	percent := p.want.Balance.HeadroomPercent
	switch {
	case percent == nil:
		return balance.DefaultHeadroom
	case *percent == 0:
		return 1e-9 // zero means the default there
	default:
		return float64(*percent) / 100
	}
}

func (p *pass) limits() balance.Limits {
	b := &p.want.Balance
	perBroker, perCluster := int(b.CopiesPerBroker), int(b.CopiesPerCluster)
	if perBroker == 0 {
		perBroker = 10
	}
	if perCluster == 0 {
		perCluster = 100
	}
	return balance.Limits{
		In: perBroker, Out: perBroker, Cluster: perCluster, Orders: 1000,
		Headroom: p.headroom(), UnderMinISR: p.moving.memo.UnderMinISR,
	}
}

// propose plans the moves, or goes on with what an earlier pass planned, and says what may start.
func (p *pass) propose() {
	m := &p.moving
	key := fmt.Sprintf("%+v", m.request)
	old := p.have.Memo
	m.settling = m.request.Mode != balance.Drain && m.request.Mode != balance.Leaders && p.settles()
	switch {
	case old != nil && old.Operation == p.op.active.Name && old.Request == key:
		memo := *old
		m.memo = &memo
	case m.settling:
		m.memo = &Memo{Operation: p.op.active.Name}
		p.addDone(old)
		return
	default:
		m.memo = &Memo{Operation: p.op.active.Name, Request: key, UnderMinISR: balance.UnderMinISR(m.facts)}
		p.addDone(old)
		p.planMoves()
		m.settling = false
	}
	m.step = balance.Next(&m.memo.Proposal, m.facts, p.limits())
	p.replan()
	if len(m.step.Stalled) == 0 {
		m.memo.StalledSince = time.Time{}
	} else if m.memo.StalledSince.IsZero() {
		m.memo.StalledSince = p.now
	}
}

// addDone counts what the active Operation has moved by an earlier proposal.
func (p *pass) addDone(old *Memo) {
	if m := &p.moving; old != nil && old.Operation == m.memo.Operation {
		m.memo.Done = old.Done + balance.Next(&old.Proposal, m.facts, p.limits()).Done
	}
}

// settles says whether brokers still delete what has moved.
func (p *pass) settles() bool {
	return p.have.Memo != nil && p.now.Sub(p.have.Memo.MovedAt) < settlePatience
}

// keepMemo hands the memo to the next pass, and for a while longer that something has moved.
func (p *pass) keepMemo() {
	m := &p.moving
	p.plan.Memo = m.memo
	moving := len(m.ours) > 0 || m.step.Running > 0
	if m.memo == nil && (moving || m.needed && m.facts == nil) {
		p.plan.Memo = p.have.Memo // it tells which moves were whose
	}
	if p.plan.Memo == nil && (moving || p.settles()) {
		p.plan.Memo = &Memo{}
	}
	if p.plan.Memo == nil {
		return
	}
	memo := *p.plan.Memo
	if p.have.Memo != nil {
		memo.MovedAt = p.have.Memo.MovedAt
	}
	if moving {
		memo.MovedAt = p.now
	}
	p.plan.Memo = &memo
}

func (p *pass) planMoves() {
	m := &p.moving
	m.memo.Proposal, m.memo.Planned = balance.Plan(m.facts, m.request), p.now
}

// replan plans anew when the proposal is done, does not fit any more or was refused a while ago.
func (p *pass) replan() {
	m := &p.moving
	if !p.outlived() {
		m.done = p.nothingLeft()
		return
	}
	if m.settling {
		return
	}
	last := m.memo.Rounds >= mostRounds && m.request.Mode != balance.Drain && m.step.Finished
	m.memo.Rounds++
	m.memo.Done += m.step.Done
	p.planMoves()
	if last {
		m.memo.Proposal, m.done = balance.Proposal{}, true
	}
	m.step = balance.Next(&m.memo.Proposal, m.facts, p.limits())
	m.done = m.done || p.nothingLeft()
}

// outlived says whether a proposal is of no more use.
func (p *pass) outlived() bool {
	m := &p.moving
	s, waited := &m.step, p.now.Sub(m.memo.Planned) >= planAgain
	switch {
	case len(m.memo.Proposal.Problems) > 0:
		return waited
	case s.Finished:
		return !m.memo.Planned.Equal(p.now) && !p.nothingLeft()
	default:
		return waited && (s.Stuck || len(s.Stale) > 0 && s.Running == 0)
	}
}

// nothingLeft says whether a fresh look found nothing to move.
func (p *pass) nothingLeft() bool {
	m, proposal := &p.moving, &p.moving.memo.Proposal
	if !m.step.Finished || len(proposal.Problems)+len(proposal.Deferred)+proposal.LeftOut > 0 {
		return false
	}
	// What topics gain meanwhile on a broker that is emptied must go as well. Elsewhere another
	// plan could only correct what has changed since, and would never end.
	return proposal.Empty() || m.request.Mode != balance.Drain && len(m.request.Empty) == 0
}

// refused says why nothing can be moved as it was asked for, empty when it can.
func (p *pass) refused() string {
	m := &p.moving
	if m.memo == nil || len(m.memo.Proposal.Problems) == 0 {
		return ""
	}
	var words []string
	for _, problem := range m.memo.Proposal.Problems {
		words = append(words, problem.Message)
	}
	return someOf(words)
}

// wantOwnKeys wants of brokers what moving needs of them: throttles, and to take no replica.
// They are recorded in the nodes' specs before they are set, and forgotten after they are gone.
func (p *pass) wantOwnKeys() {
	m, op := &p.moving, p.op.active
	begun := op != nil && op.Spec.Begun != nil && !cancelled(op)
	if begun {
		m.rate = p.rate(op)
	}
	var involved map[int32]bool
	if m.rate > 0 && m.asked && !m.done {
		involved = involvedIn(&m.memo.Proposal)
	}
	keep := p.keepsRates(begun)
	for _, n := range p.existing() {
		own := map[string]string{}
		if begun && p.cordons() {
			p.cordon(n, own)
		}
		if involved[n.Spec.NodeID] {
			p.rates(own)
		}
		if keep {
			p.keepRates(n, own) // what is under way keeps its throttle to its end, also when its proposal is lost
		}
		p.leaveTheirs(n, own)
		p.addDynamic(n.Spec.NodeID, own)
	}
}

// leaveTheirs wants no key of a broker that somebody else has set in Kafka, or may have.
func (p *pass) leaveTheirs(n *Node, own map[string]string) {
	m, id := &p.moving, n.Spec.NodeID
	held, read := p.have.Kafka.BrokerConfig[id]
	for key := range own {
		if _, recorded := n.Spec.Dynamic[key]; recorded {
			continue
		}
		_, theirs := held[key]
		if !read || theirs {
			delete(own, key)
		}
		if !read {
			m.unread[id] = true
		} else if theirs && !slices.Contains(m.theirs, id) {
			m.theirs = append(m.theirs, id)
		}
	}
}

// keepsRates says whether throttles stay as they are: something of ours is under way that nobody
// wants to run free, or nobody knows.
func (p *pass) keepsRates(begun bool) bool {
	m := &p.moving
	unthrottled := begun && m.asked && m.rate == 0
	return len(m.ours) > 0 && !unthrottled || m.needed && m.facts == nil
}

// cordon lets a broker that is emptied, or the log dirs that it loses, take no new replica.
func (p *pass) cordon(n *Node, own map[string]string) {
	op, id := p.op.active, n.Spec.NodeID
	leaves := p.leaving[id] && op.Spec.Type == api.OperationScale && about(op, id)
	if leaves || p.drains(id) && !p.moving.done {
		own[cordonedDirs] = "*"
	} else if dirs := p.cordonedVolumes(n); dirs != "" {
		own[cordonedDirs] = dirs
	}
}

func (p *pass) rates(own map[string]string) {
	rate := strconv.FormatInt(p.moving.rate, 10)
	own[leaderRate], own[followerRate] = rate, rate
	if p.moving.memo.Proposal.LocalBytes > 0 {
		own[logDirRate] = rate
	}
}

// involvedIn are the brokers that send or receive something of a proposal.
func involvedIn(proposal *balance.Proposal) map[int32]bool {
	out := map[int32]bool{}
	for i := range proposal.Moves {
		for _, list := range [][]int32{proposal.Moves[i].From, proposal.Moves[i].To} {
			for _, id := range list {
				out[id] = true
			}
		}
	}
	return out
}

func (p *pass) keepRates(n *Node, own map[string]string) {
	for _, key := range []string{leaderRate, followerRate, logDirRate} {
		value, ok := n.Spec.Dynamic[key]
		if _, newer := own[key]; ok && !newer {
			own[key] = value
		}
	}
}

// addDynamic wants keys of a broker beside those of the spec, which come first.
func (p *pass) addDynamic(id int32, own map[string]string) {
	w := p.wanted[id]
	if len(own) == 0 || !w.Broker() {
		return
	}
	p.moving.spec[id] = w.Dynamic
	maps.Copy(own, w.Dynamic)
	w.Dynamic = own
}

func (p *pass) rate(op *api.Operation) int64 {
	switch {
	case op.Spec.BytesPerSecond != nil:
		return op.Spec.BytesPerSecond.Value()
	case p.want.Balance.BytesPerSecond != nil:
		return p.want.Balance.BytesPerSecond.Value()
	default:
		return 0
	}
}

// cordons says whether brokers know to take no new replica.
func (p *pass) cordons() bool {
	return cluster.CompareVersions(cluster.ReleaseLine(p.want.Version), "4.3") >= 0 && finalizedLine(p.have.Kafka.MetadataVersion, "4.3")
}

// finalizedLine says whether a metadata.version such as 4.3-IV0 is of a release line or a later one.
func finalizedLine(finalized, line string) bool {
	of, _, ok := strings.Cut(finalized, "-IV")
	return ok && cluster.CompareVersions(of, line) >= 0
}
