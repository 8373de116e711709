package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan.dev/castellan/core/balance"
)

// mostAhead is how many topics are recorded and throttled ahead of their moves, so that these
// wait for no further pass.
const mostAhead = 50

// mostThrottled is how many throttled replicas of a topic are named; a topic with more
// throttles all of its replicas, of which Kafka holds up only those that are not in sync.
const mostThrottled = 1000

// doMoves begins what may move now, takes back what nobody wants any more, and cleans up behind.
func (p *pass) doMoves() {
	m := &p.moving
	p.keepMemo()
	if !m.needed {
		return
	}
	p.again(moveAgain)
	if m.facts == nil {
		p.block(-1, "PlacementUnknown", "nothing is moved while it is not known where replicas are: "+p.whyNoPlacement(), false)
		return
	}
	p.takeBack()
	starts := p.starts()
	p.recordMoves(starts)
	if len(starts) > 0 {
		p.step(Step{Kind: MoveReplicas, Node: -1, Moves: starts, Reason: fmt.Sprintf("operation %s moves replicas", p.op.active.Name)})
	}
	if len(m.ours) > 0 && len(p.plan.Blocked) == 0 { // whoever wanted them is gone, or cancelled
		p.block(-1, "Moving", "replicas that are on their way come to their end", false)
	}
	if m.asked && p.refused() == "" && len(m.step.Elect) > 0 && p.moveGate().wait == nil {
		p.step(Step{Kind: ElectLeaders, Node: -1, Reason: "replicas have moved; leadership goes to the preferred ones"})
	}
}

func (p *pass) whyNoPlacement() string {
	if !p.have.Kafka.Known || !p.have.Kafka.PartitionsKnown {
		return p.whyUnknown()
	}
	if p.have.Kafka.PlacementWhy != "" {
		return p.have.Kafka.PlacementWhy
	}
	return "it is read in the next pass"
}

// starts are the moves to begin now.
func (p *pass) starts() []balance.Move {
	m, op := &p.moving, p.op.active
	if !m.asked || m.done {
		return nil
	}
	if m.settling && m.memo.Request == "" {
		p.block(-1, "Settling", fmt.Sprintf("operation %s looks at disks when brokers have deleted what was moved away a moment ago", op.Name), false)
		return nil
	}
	if why := p.refused(); why != "" {
		p.block(-1, "CannotMove", fmt.Sprintf("operation %s moves nothing: %s", op.Name, why), true)
		return nil
	}
	if g := p.moveGate(); g.wait != nil {
		p.plan.Blocked = append(p.plan.Blocked, *g.wait)
		return nil
	}
	if op.Spec.Begun == nil {
		p.begun()
		return nil
	}
	if m.step.Halted {
		p.block(-1, "UnderMinISR", fmt.Sprintf("operation %s begins no further move: more partitions are under min.insync.replicas than when it began; see which broker is down or behind", op.Name), false)
		return nil
	}
	if id, pending := p.throttlePending(); pending {
		p.block(id, "ThrottlePending", fmt.Sprintf("replicas move when the throttle of broker %d is in force", id), false)
		return nil
	}
	p.block(-1, "Moving", fmt.Sprintf("replicas are being moved; how far it is says operation %s", op.Name), false)
	if m.rate == 0 {
		return m.step.Start
	}
	return slices.DeleteFunc(slices.Clone(m.step.Start), func(move balance.Move) bool { return !slices.Contains(p.have.Moving, move.Topic) })
}

// begun records that moving was let begin: what was approved then holds to the end.
func (p *pass) begun() {
	op := p.op.active
	if op.Spec.Begun != nil || p.op.created || p.moving.begins {
		return
	}
	p.moving.begins = true
	next := op.DeepCopy()
	next.Spec.Begun = new(metaNow(p.now))
	p.step(Step{Kind: RecordOperation, Node: -1, Operation: next, Reason: "it begins"})
}

// throttlePending is a live broker whose throttle is not in force yet.
func (p *pass) throttlePending() (int32, bool) {
	if p.moving.rate == 0 {
		return 0, false
	}
	for _, n := range p.existing() {
		id := n.Spec.NodeID
		b := p.brokers[id]
		if b == nil || b.Fenced || !n.Status.Ready {
			continue
		}
		if p.moving.unread[id] {
			return id, true
		}
		for _, key := range []string{leaderRate, followerRate, logDirRate} {
			if want, ok := p.wanted[id].Dynamic[key]; ok && p.have.Kafka.BrokerConfig[id][key] != want {
				return id, true
			}
		}
	}
	return 0, false
}

// takeBack ends moves that nobody wants any more, and those that cannot go on.
func (p *pass) takeBack() {
	m := &p.moving
	if m.memo != nil && !m.memo.StalledSince.IsZero() && p.now.Sub(m.memo.StalledSince) >= stalledPatience {
		for _, ref := range m.step.Stalled {
			m.takeBack[ref] = true
		}
		memo := *p.plan.Memo
		memo.Request, memo.StalledSince = "", time.Time{} // planned anew without what is gone
		p.plan.Memo = &memo
	}
	if len(m.takeBack) == 0 {
		return
	}
	back := balance.Revert(m.facts, func(ref balance.PartitionRef) bool { return m.takeBack[ref] })
	if len(back.Cancel)+len(back.Return) > 0 {
		p.step(Step{Kind: CancelMoves, Node: -1, Cancel: back.Cancel, Return: back.Return, Reason: "moves that were under way are taken back"})
	}
}

// recordMoves keeps the list of topics that are ours, and their throttled replicas.
func (p *pass) recordMoves(starts []balance.Move) {
	k := &p.have.Kafka
	needed := p.topicsAhead(starts)
	moving, throttled := map[string]bool{}, map[string]bool{}
	for _, t := range p.have.Throttled {
		throttled[t] = true
	}
	set := map[string]TopicThrottle{}
	for topic := range needed {
		moving[topic] = true
		p.throttleTopic(topic, throttled, set)
	}
	for _, topic := range p.have.Moving {
		if needed[topic] {
			continue
		}
		now, there := k.TopicThrottles[topic]
		switch {
		case k.TopicThrottles == nil:
			moving[topic] = true // unknown is not clean
		case throttled[topic] && there && now != (TopicThrottle{}):
			moving[topic] = true
			set[topic] = TopicThrottle{}
		default:
			delete(throttled, topic)
		}
	}
	p.recordTopics(moving, throttled, set)
}

// throttleTopic throttles the replicas of a topic that move.
func (p *pass) throttleTopic(topic string, throttled map[string]bool, set map[string]TopicThrottle) {
	now, read := p.have.Kafka.TopicThrottles[topic]
	if p.moving.rate == 0 || !read || !slices.Contains(p.have.Moving, topic) || !throttled[topic] && now != (TopicThrottle{}) {
		return // nothing to throttle, not looked at yet, or somebody else's throttle
	}
	throttled[topic] = true
	if want := p.throttled(topic); want != now && want != (TopicThrottle{}) {
		set[topic] = want
	}
}

func (p *pass) recordTopics(moving, throttled map[string]bool, set map[string]TopicThrottle) {
	now, nowThrottled := slices.Sorted(maps.Keys(moving)), slices.Sorted(maps.Keys(throttled))
	if !slices.Equal(now, slices.Sorted(slices.Values(p.have.Moving))) || !slices.Equal(nowThrottled, slices.Sorted(slices.Values(p.have.Throttled))) {
		p.step(Step{Kind: RecordMoves, Node: -1, Moving: now, Throttled: nowThrottled, Reason: "the topics whose replicas are on their way are noted"})
	}
	if len(set) > 0 {
		p.step(Step{Kind: ThrottleTopics, Node: -1, Throttles: set, Reason: "the throttle follows the replicas that are on their way"})
	}
}

// topicsAhead are the topics of which something is on its way, or will be soon.
func (p *pass) topicsAhead(starts []balance.Move) map[string]bool {
	m := &p.moving
	needed := map[string]bool{}
	for _, ref := range m.ours {
		needed[ref.Topic] = true
	}
	for i := range starts {
		needed[starts[i].Topic] = true
	}
	op := p.op.active
	if !m.asked || m.done || m.memo == nil || op == nil || op.Spec.Begun == nil || m.rate == 0 || op.Spec.Paused {
		return needed
	}
	for i := range m.step.Start {
		needed[m.step.Start[i].Topic] = true
	}
	for _, topic := range m.step.Ahead {
		if len(needed) >= mostAhead {
			break
		}
		needed[topic] = true
	}
	return needed
}

// throttled are the replicas of a topic that a move reads from and writes to.
func (p *pass) throttled(topic string) TopicThrottle {
	leader, follower := map[string]bool{}, map[string]bool{}
	pair := func(partition int, broker int32) string {
		return strconv.Itoa(partition) + ":" + strconv.Itoa(int(broker))
	}
	if m := p.moving.memo; m != nil {
		for i := range m.Proposal.Moves {
			move := &m.Proposal.Moves[i]
			if move.Topic != topic {
				continue
			}
			for _, b := range move.From {
				leader[pair(int(move.Partition), b)] = true
			}
			for _, b := range move.To {
				if !slices.Contains(move.From, b) {
					follower[pair(int(move.Partition), b)] = true
				}
			}
		}
	}
	c := p.moving.facts
	for i := range c.Topics {
		if c.Topics[i].Name != topic {
			continue
		}
		for j := range c.Topics[i].Partitions {
			part := &c.Topics[i].Partitions[j]
			if !slices.ContainsFunc(part.Replicas, onItsWay) {
				continue
			}
			for _, r := range part.Replicas {
				if r.State.Has(balance.Adding) {
					follower[pair(j, r.Broker)] = true
				} else {
					leader[pair(j, r.Broker)] = true
				}
			}
		}
	}
	return TopicThrottle{Leader: pairs(leader), Follower: pairs(follower)}
}

func pairs(set map[string]bool) string {
	if len(set) > mostThrottled {
		return "*"
	}
	return strings.Join(slices.Sorted(maps.Keys(set)), ",")
}
