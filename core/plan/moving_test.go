package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/core/sim"
)

// scaled is a settled cluster under revision r1 whose nodes come and go and whose replicas move.
type scaled struct {
	t         *testing.T
	w         *sim.World
	m         cluster.Model
	revisions int
	forgets   bool // the memo is lost after every pass
	last      plan.Plan
	steps     []plan.Step
}

// newScaled has a topic of RF 3 over all brokers.
func newScaled(t *testing.T, m cluster.Model) *scaled {
	t.Helper()
	s := &scaled{t: t, m: m, w: sim.New(hosts(3, "a", "b", "c")), revisions: 1}
	s.w.MetadataVersion = "4.3-IV0"
	s.w.FenceTicks = 2
	s.w.Accept("r1", m)
	s.settle(80)
	spread(s.w, "t", 2, 10, idsOf(m, api.RoleBroker))
	s.settle(20)
	return s
}

func five() cluster.Model { return model(controllers(3), brokers(5)) }

func (s *scaled) pass() plan.Plan { return s.cut(-1) }

// cut is a pass whose shell dies after so many steps.
func (s *scaled) cut(steps int) plan.Plan {
	s.t.Helper()
	have := s.w.SeeFor(s.m)
	if s.forgets {
		have.Memo = nil
	}
	s.last = plan.Compute(s.m, have, s.w.Now)
	for i, step := range s.last.Steps {
		if steps >= 0 && i >= steps {
			break
		}
		s.steps = append(s.steps, step)
		s.w.Do(step)
	}
	s.w.Memo = s.last.Memo
	if steps < 0 {
		s.w.Report(s.last.Operations)
	} else {
		s.w.Memo = nil
	}
	s.w.Tick()
	if len(s.w.Violations) > 0 {
		s.t.Fatalf("the plan broke what it must keep:\n%s\nafter %v", strings.Join(s.w.Violations, "\n"), kinds(s.last))
	}
	return s.last
}

func (s *scaled) settle(most int) int {
	s.t.Helper()
	for i := range most {
		if s.pass().Done() {
			return i
		}
	}
	s.t.Fatalf("not settled after %d passes: %s", most, s.said())
	return 0
}

// atRest settles and looks for what was left behind.
func (s *scaled) atRest(most int) {
	s.t.Helper()
	s.settle(most)
	s.rest(8) // replicas come back into sync, and what Operations wait for is seen
	s.settle(most)
	if left := s.w.Leftovers(); len(left) > 0 {
		s.t.Errorf("left behind: %v", left)
	}
	for _, op := range s.w.Operations() {
		if !op.Status.Phase.Final() {
			s.t.Errorf("operation %s is %s: %s", op.Name, op.Status.Phase, op.Status.Message)
		}
	}
}

func (s *scaled) until(what string, so func() bool) {
	s.t.Helper()
	for range 400 {
		if so() {
			return
		}
		s.pass()
	}
	s.t.Fatalf("never: %s; %s", what, s.said())
}

func (s *scaled) rest(passes int) plan.Plan {
	s.t.Helper()
	for range passes {
		s.pass()
	}
	return s.last
}

func (s *scaled) said() string {
	out := []string{fmt.Sprintf("steps %v", kinds(s.last)), s.w.String()}
	for _, b := range s.last.Blocked {
		out = append(out, fmt.Sprintf("blocked %d %s: %s", b.Node, b.Reason, b.Message))
	}
	for _, op := range s.w.Operations() {
		out = append(out, fmt.Sprintf("%s %s (%s) %+v", op.Name, op.Status.Phase, op.Status.Message, op.Status.Nodes))
	}
	out = append(out, fmt.Sprintf("in flight %d, left %v", s.w.InFlight(), s.w.Leftovers()))
	return strings.Join(out, "\n")
}

// spec makes a new revision.
func (s *scaled) spec(change func(*cluster.Model)) {
	s.m.Nodes = slices.Clone(s.m.Nodes)
	change(&s.m)
	s.revisions++
	s.w.Accept(fmt.Sprintf("r%d", s.revisions), s.m)
}

func without(ids ...int32) func(*cluster.Model) {
	return func(m *cluster.Model) {
		m.Nodes = slices.DeleteFunc(m.Nodes, func(n cluster.Node) bool { return slices.Contains(ids, n.ID) })
	}
}

// with adds nodes like the first of a pool.
func with(pool string, ids ...int32) func(*cluster.Model) {
	return func(m *cluster.Model) {
		like := m.Nodes[slices.IndexFunc(m.Nodes, func(n cluster.Node) bool { return n.Pool == pool })]
		for _, id := range ids {
			like.ID = id
			m.Nodes = append(m.Nodes, like)
		}
		slices.SortFunc(m.Nodes, func(a, b cluster.Node) int { return int(a.ID - b.ID) })
	}
}

func rated(m cluster.Model, bytes int64) cluster.Model {
	m.Balance.BytesPerSecond = resource.NewQuantity(bytes, resource.BinarySI)
	return m
}

func (s *scaled) op(name string) *api.Operation {
	s.t.Helper()
	op := s.w.Operation(name)
	if op == nil {
		s.t.Fatalf("there is no operation %s: %s", name, s.said())
	}
	return op
}

func (s *scaled) ask(name string, spec api.OperationSpec) {
	spec.ClusterRef.Name = "orders"
	s.w.AddOperation(api.Operation{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec})
}

func (s *scaled) is(name string, phase api.OperationPhase) func() bool {
	return func() bool { op := s.w.Operation(name); return op != nil && op.Status.Phase == phase }
}

func (s *scaled) phase(name string, want api.OperationPhase, word string) {
	s.t.Helper()
	if op := s.op(name); op.Status.Phase != want || !strings.Contains(op.Status.Message, word) {
		s.t.Errorf("operation %s is %s (%s), want %s (%s)", name, op.Status.Phase, op.Status.Message, want, word)
	}
}

func (s *scaled) gone(ids ...int32) {
	s.t.Helper()
	for _, id := range ids {
		if _, deleted := s.w.Deleted[id]; !deleted || !s.w.Retired[id] || s.w.On(id) > 0 || s.w.Voters()[id] != "" {
			s.t.Errorf("node %d has not left: retired %v, deleted %v, %d replicas", id, s.w.Retired, s.w.Deleted, s.w.On(id))
		}
	}
}

// stays says that a node is as ever.
func (s *scaled) stays(id int32) {
	s.t.Helper()
	if _, deleted := s.w.Deleted[id]; deleted || s.w.Retired[id] || !s.w.Serving(id) {
		s.t.Errorf("node %d does not stay: %s", id, s.said())
	}
}

func (s *scaled) begun() bool { return s.w.InFlight() > 0 }

// count the steps of a kind.
func (s *scaled) count(kind plan.Kind) int {
	n := 0
	for _, step := range s.steps {
		if step.Kind == kind {
			n++
		}
	}
	return n
}

const scale2 = "orders-scale-r2"
