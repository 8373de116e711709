package plan_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
)

// FuzzMoves plays what users do while nodes come and go and replicas move, beside crashes, lost
// memos and passes that are cut off anywhere: no step may take away what it must keep, and once
// somebody decides, everything comes to rest with nothing left behind.
func FuzzMoves(f *testing.F) {
	f.Add([]byte("scale in, scale out, and all of it again"))
	f.Add([]byte("a drain that is cancelled while its broker crashes"))
	f.Add([]byte{0x00, 0x10, 0x21, 0x32, 0x43, 0x54, 0x65, 0x76, 0x87, 0x98, 0xa9, 0xba, 0xcb, 0xdc, 0xed, 0xfe})
	f.Add([]byte{0x04, 0x40, 0x02, 0x60, 0x05, 0x80, 0x00, 0x31, 0x64, 0x0f, 0x09})
	f.Add([]byte{0x01, 0x02, 0xa4, 0x15, 0x27, 0x31, 0x49, 0x5b, 0x6d, 0x7f, 0x81, 0x93, 0x14, 0x26})
	f.Fuzz(func(t *testing.T, events []byte) {
		if len(events) > 100 {
			events = events[:100]
		}
		m := newMover(t, events)
		for _, e := range events {
			m.event(e)
			if steps := int(e>>5) % 4; steps > 0 {
				m.cut(steps)
			} else {
				m.rest(1 + int(e>>4)%4)
			}
		}
		m.end()
	})
}

// mover is what users do.
type mover struct {
	*scaled
	next, asked, topics int32
	broken              int32
}

func newMover(t *testing.T, events []byte) *mover {
	t.Helper()
	shapes := []cluster.Model{five(), model(combined(3), brokers(3)), model(controllers(3), brokers(4))}
	m := shapes[len(events)%len(shapes)]
	if len(events)%2 == 0 {
		m = rated(m, 15<<20)
	}
	m.Balance.FillNewBrokers = len(events)%5 < 2
	m.Balance.CopiesPerBroker = int32(len(events) % 4)
	if len(events)%7 == 0 {
		m.Rollout.Approval = api.ApprovalManual
	}
	if len(events)%11 == 0 {
		m.Rollout.Windows = []api.Window{{Schedule: "*/2 * * * *", Duration: metav1.Duration{Duration: time.Minute}}}
	}
	s := newScaled(t, m)
	if len(events)%3 == 0 {
		s.w.MetadataVersion = "4.2-IV1"
	}
	return &mover{scaled: s, next: 300, broken: -1}
}

func (m *mover) event(e byte) {
	n := m.m.Nodes[int(e>>4)%len(m.m.Nodes)]
	switch e % 16 {
	case 0, 1:
		m.remove(n)
	case 2:
		m.next++
		m.spec(with(n.Pool, m.next))
	case 3: // one for another
		m.next++
		m.spec(with(n.Pool, m.next))
		m.remove(n)
	case 4:
		m.spec(func(c *cluster.Model) { setConfig(c, n.Pool, "num.io.threads", fmt.Sprint(8+m.revisions%3)) })
	case 5:
		if e&16 != 0 {
			m.spec(onTwoVolumes)
		} else {
			m.spec(onOneVolume)
		}
	case 6:
		if n.Broker() {
			m.demand(api.OperationSpec{Type: api.OperationDrain, Nodes: []int32{n.ID}})
		}
	case 7:
		mode := []api.RebalanceMode{api.RebalanceFull, api.RebalanceDisks, api.RebalanceLeaders}[int(e>>4)%3]
		m.demand(api.OperationSpec{Type: api.OperationRebalance, Rebalance: &api.Rebalance{Mode: mode}})
	case 8:
		m.w.Crash(n.ID)
	case 9:
		if m.broken < 0 {
			m.broken = n.ID
			m.w.Break(n.ID, true)
		} else {
			m.w.Break(m.broken, false)
			m.broken = -1
		}
	case 10:
		m.w.Memo = nil
		m.forgets = e&64 != 0
	case 11:
		m.w.Hidden, m.w.Unplaced = e&16 != 0, e&32 != 0
	case 12:
		if e&16 != 0 {
			m.foreign(n)
			break
		}
		m.topics++
		m.w.CreateTopic(fmt.Sprintf("late-%d", m.topics), 1+int(e>>6)%2, 4, 2+int(e>>6)%2)
	case 13:
		m.m.Paused = e&16 != 0
	default:
		m.touch(e)
	}
}

// remove takes a node out of the spec, as far as enough are left to hold what there is.
func (m *mover) remove(n cluster.Node) {
	if n.Broker() && len(idsOf(m.m, api.RoleBroker)) <= 3 || n.Controller() && len(idsOf(m.m, api.RoleController)) <= 3 { // two can never be restarted
		return
	}
	m.spec(without(n.ID))
}

// foreign moves a partition as somebody else does, and throttles a topic.
func (m *mover) foreign(n cluster.Node) {
	topics := m.w.See().Kafka.Topics
	if !n.Broker() || !m.w.Serving(n.ID) || len(topics) == 0 {
		return
	}
	topic := topics[int(n.ID)%len(topics)].Name
	for i, now := range m.w.Replicas(topic) {
		if !slices.Contains(now, n.ID) {
			m.w.Reassign(topic, i, append([]int32{n.ID}, now[1:]...)...)
			return
		}
	}
}

func (m *mover) demand(spec api.OperationSpec) {
	if m.asked < 6 {
		m.asked++
		m.ask(fmt.Sprintf("asked-%d", m.asked), spec)
	}
}

// touch decides something about the Operation that is not over.
func (m *mover) touch(e byte) {
	open := m.open()
	if len(open) == 0 {
		return
	}
	op := open[int(e>>7)%len(open)]
	switch e >> 4 & 7 {
	case 0, 1:
		op.Spec.Paused = !op.Spec.Paused
	case 2:
		op.Spec.Cancelled = true
	case 3:
		op.Spec.Cancelled, op.Spec.Revert = true, true
	case 4:
		m.w.DeleteOperation(op.Name)
	case 5:
		op.Spec.IgnoredNodes = op.Spec.Nodes
	default:
		op.Spec.ApprovedPlan = op.Status.PlanDigest
	}
}

func (m *mover) open() []*api.Operation {
	var out []*api.Operation
	for _, listed := range m.w.Operations() {
		if op := m.w.Operation(listed.Name); !op.Status.Phase.Final() {
			out = append(out, op)
		}
	}
	return out
}

// end mends what is broken and lets somebody decide what he is asked.
func (m *mover) end() {
	m.t.Helper()
	m.w.Mend()
	m.w.Hidden, m.w.Unplaced, m.forgets, m.m.Paused = false, false, false, false
	if len(idsOf(m.m, api.RoleBroker)) < 4 { // room for what a drain moves
		m.next++
		m.spec(with(m.m.Nodes[len(m.m.Nodes)-1].Pool, m.next))
	} else {
		m.spec(func(*cluster.Model) {})
	}
	rest := 0
	for range 1500 {
		if p := m.pass(); p.Done() {
			rest++
		} else {
			rest = 0
		}
		open := m.open()
		if rest > 10 && len(open) == 0 {
			break
		}
		m.decide(open)
	}
	if rest <= 10 || len(m.open()) > 0 {
		m.t.Fatalf("never at rest: %s", m.said())
	}
	if left := m.w.Leftovers(); len(left) > 0 {
		m.t.Errorf("left behind: %v", left)
	}
	for _, n := range m.w.See().Nodes {
		if !slices.ContainsFunc(m.m.Nodes, func(w cluster.Node) bool { return w.ID == n.Spec.NodeID }) {
			m.t.Errorf("node %d is still there", n.Spec.NodeID)
		}
	}
	for _, n := range m.m.Nodes {
		if !m.w.Serving(n.ID) {
			m.t.Errorf("node %d does not serve", n.ID)
		}
	}
	if got, want := len(m.w.Voters()), len(idsOf(m.m, api.RoleController)); got != want {
		m.t.Errorf("%d voters, want %d", got, want)
	}
}

func (m *mover) decide(open []*api.Operation) {
	for _, op := range open {
		op.Spec.Paused, op.Spec.IgnoredNodes = false, nil
		if op.Status.PlanDigest != "" {
			op.Spec.ApprovedPlan = op.Status.PlanDigest
		}
		if p := op.Status.Point; p != "" && !slices.Contains(op.Spec.Passed, p) {
			op.Spec.Passed = append(op.Spec.Passed, p)
		}
		if op.Status.Phase == api.OperationPaused && op.Spec.Type == api.OperationDrain {
			op.Spec.Cancelled = true // it asks for what is not possible
		}
	}
	if len(open) == 0 && m.w.Held(m.w.Revision) != nil && blockedBecause(m.last, "Held") {
		kind := api.OperationRollout
		if !slices.ContainsFunc(m.last.Upcoming, func(s plan.Step) bool { return s.Kind == plan.UpdateProcess }) {
			kind = api.OperationScale
		}
		m.asked++
		m.ask(fmt.Sprintf("asked-%d", m.asked), api.OperationSpec{Type: kind, ToRevision: m.w.Revision})
	}
}
