package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/kafka/kafkatest"
	"castellan.dev/castellan/test/e2e/stand"
)

// TestOperations tells how a user watches work on nodes, stops it, lets it go on and takes it back, with traffic all the time.
func TestOperations(t *testing.T) {
	s := stand.New(t, stand.Options{Cluster: stand.Combined(version, 3)})
	traffic := s.StartTraffic("operated", 6)
	isr := kafkatest.WatchISR(t.Context(), s.BrokerTarget(), 250*time.Millisecond, func(topic string) bool { return topic == "operated" })

	t.Run("a rollout is paused, resumed and recorded", func(t *testing.T) { pausedAndResumed(t, s.For(t)) })
	t.Run("a plan is approved, and waits after its first node", func(t *testing.T) { approvedWithCanary(t, s.For(t)) })
	t.Run("nothing is changed outside a window", func(t *testing.T) { outsideWindow(t, s.For(t)) })
	t.Run("a rollout is cancelled and taken back", func(t *testing.T) { cancelledAndTakenBack(t, s.For(t)) })
	t.Run("one node is restarted, and nothing else", func(t *testing.T) { oneNodeRestarted(t, s.For(t)) })
	t.Run("a node that does not start gets back what it ran", func(t *testing.T) { givenBack(t, s.For(t)) })
	t.Run("a node that does not start is retried", func(t *testing.T) { failedAndRetried(t, s.For(t)) })

	report := isr.Stop()
	if len(report.Under) > 0 || report.Samples == 0 {
		t.Errorf("%d samples (%d not answered: %s); under min ISR: %+v", report.Samples, report.Unknown, report.Why, report.Under)
	}
	traffic.End()
}

// rolledOut is the stand's cluster with a value of the read-only key and lines of spec.rollout.
func rolledOut(value string, rollout ...string) string {
	return configured(readOnlyKey+": "+value) + "  rollout: {" + strings.Join(rollout, ", ") + "}\n"
}

// operation is the one that is active.
func operation(t *testing.T, s *stand.Stand) *api.Operation {
	t.Helper()
	var op api.Operation
	s.Eventually("an operation is active", time.Minute, func(ctx context.Context) error {
		kc := s.Cluster()
		if kc.Status.Operation == "" || kc.Status.ObservedGeneration != kc.Generation {
			return fmt.Errorf("generation %d of %d was looked at, and its operation is %q", kc.Status.ObservedGeneration, kc.Generation, kc.Status.Operation)
		}
		if err := s.Client().Get(ctx, types.NamespacedName{Namespace: "default", Name: kc.Status.Operation}, &op); err != nil {
			return err
		}
		if op.Spec.ToRevision != kc.Status.Revision {
			return fmt.Errorf("operation %s leads to revision %s, in force is %s", op.Name, op.Spec.ToRevision, kc.Status.Revision)
		}
		return nil
	})
	return &op
}

// phase is the fact that an operation is in a phase, and says so with a word.
func phase(s *stand.Stand, name string, want api.OperationPhase, word string) stand.Fact {
	return func(ctx context.Context) error {
		var op api.Operation
		if err := s.Client().Get(ctx, types.NamespacedName{Namespace: "default", Name: name}, &op); err != nil {
			return err
		}
		if op.Status.Phase != want || !strings.Contains(op.Status.Message, word) {
			return fmt.Errorf("it is %s: %s", op.Status.Phase, op.Status.Message)
		}
		return nil
	}
}

// valued are the nodes whose process has a value of the read-only key.
func valued(s *stand.Stand, value string) []int32 {
	var ids []int32
	for _, n := range s.Nodes() {
		if n.Spec.Process.Config[readOnlyKey] == value {
			ids = append(ids, n.Spec.NodeID)
		}
	}
	return ids
}

// touched is the fact that so many nodes have a value and are ready.
func touched(s *stand.Stand, value string, count int) stand.Fact {
	return func(context.Context) error {
		ids := valued(s, value)
		if len(ids) != count {
			return fmt.Errorf("nodes %v have %s=%s", ids, readOnlyKey, value)
		}
		for _, id := range ids {
			n := s.Node(id)
			if p := n.Status.Process; !n.Status.Ready || p == nil || p.Hash != layout.ProcessHash(n.Spec.Process) {
				return fmt.Errorf("node %d is %s: %s", id, n.Status.State, n.Status.Message)
			}
		}
		return nil
	}
}

// unmoved fails the test if a JVM is another one within a while.
func unmoved(t *testing.T, s *stand.Stand, what string) {
	t.Helper()
	before := s.JVMPIDs()
	s.Throughout(what, 5*time.Second, func(context.Context) error {
		if diff := gocmp.Diff(before, s.JVMPIDs()); diff != "" {
			return fmt.Errorf("JVMs (- before, + after):\n%s", diff)
		}
		return nil
	})
}

func pausedAndResumed(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Apply(rolledOut("601"))
	op := operation(t, s)
	s.Eventually("the first node is begun", time.Minute, func(context.Context) error {
		if len(valued(s, "601")) == 0 {
			return fmt.Errorf("no node")
		}
		return nil
	})
	s.Must("pause", op.Name)
	s.Eventually("the node under way comes to its end", time.Minute, touched(s, "601", 1))
	s.Eventually("the operation says that it is paused", time.Minute, phase(s, op.Name, api.OperationPaused, "castellan resume "+op.Name))
	unmoved(t, s, "no other node is begun while it is paused")
	if table := s.Must("ops", "kafka"); !strings.Contains(table, "Paused") || !strings.Contains(table, "1/3") {
		t.Errorf("castellan ops:\n%s", table)
	}
	// A word of the operator's own death: it goes on where it was.
	killOperator(t, s, 0)
	s.Must("resume", op.Name)
	if out := s.Run(4*time.Minute, "", "watch", op.Name); out.Code != 0 || !strings.Contains(out.Stdout, "Succeeded") {
		t.Errorf("castellan watch: %s", out)
	}
	s.WaitReady()
	if table := s.Must("ops", "kafka"); !strings.Contains(table, "Succeeded") || !strings.Contains(table, "3/3") {
		t.Errorf("castellan ops:\n%s", table)
	}
}

func approvedWithCanary(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Apply(rolledOut("602", "approval: Manual", "pauseAfter: [FirstNode]"))
	op := operation(t, s)
	s.Eventually("the plan waits for approval", time.Minute, phase(s, op.Name, api.OperationPending, "castellan approve "+op.Name))
	unmoved(t, s, "nothing is begun before it is approved")
	if shown := s.Must("approve", op.Name, "--yes"); strings.Count(shown, "restart node") != 3 || !strings.Contains(shown, readOnlyKey) {
		t.Errorf("the plan that is shown:\n%s", shown)
	}
	s.Eventually("it waits after its first node", 2*time.Minute, phase(s, op.Name, api.OperationPaused, "after its first node"))
	s.Eventually("one node is changed", time.Second, touched(s, "602", 1))
	unmoved(t, s, "nothing is begun at a canary point")
	s.Must("resume", op.Name)
	s.Eventually("it goes on to its end", 4*time.Minute, phase(s, op.Name, api.OperationSucceeded, ""))
	s.WaitReady()
}

func outsideWindow(t *testing.T, s *stand.Stand) {
	t.Helper()
	// A window that opened an hour ago, for a minute.
	begun := time.Now().UTC().Add(-time.Hour)
	window := fmt.Sprintf("windows: [{schedule: \"%d %d * * *\", duration: 1m}]", begun.Minute(), begun.Hour())
	s.Apply(rolledOut("603", window))
	op := operation(t, s)
	s.Eventually("it waits for the window", time.Minute, phase(s, op.Name, api.OperationPending, "the next one opens at"))
	unmoved(t, s, "nothing is begun outside the window")
	s.Apply(rolledOut("602"))
	s.WaitReady()
	if ids := valued(s, "603"); len(ids) > 0 {
		t.Errorf("nodes %v were changed", ids)
	}
	if out := s.TryApply(rolledOut("603", `windows: [{schedule: "whenever", duration: 1m}]`)); out.Code == 0 || !strings.Contains(out.Stderr, "spec.rollout.windows[0]") {
		t.Errorf("a window that nobody can read is taken: %s", out)
	}
}

func cancelledAndTakenBack(t *testing.T, s *stand.Stand) {
	t.Helper()
	before := s.JVMPIDs()
	revision := s.Cluster().Status.Revision
	number := revision[strings.LastIndex(revision, "-")+1:]
	s.Apply(rolledOut("604"))
	op := operation(t, s)
	s.Eventually("the first node is begun", time.Minute, func(context.Context) error {
		if len(valued(s, "604")) == 0 {
			return fmt.Errorf("no node")
		}
		return nil
	})
	s.Must("cancel", op.Name)
	s.Eventually("it is over", 2*time.Minute, phase(s, op.Name, api.OperationCancelled, "cancelled"))
	changed := valued(s, "604")
	s.Eventually("the cluster says that the revision is held", time.Minute, func(context.Context) error {
		for _, c := range s.Cluster().Status.Conditions {
			if c.Type == api.ConditionStalled && c.Status == "True" && strings.Contains(c.Message, "castellan rollback kafka") {
				return nil
			}
		}
		return fmt.Errorf("conditions %+v", s.Cluster().Status.Conditions)
	})
	unmoved(t, s, "nothing is begun under a revision that is held")
	s.Must("rollback", "kafka", "--to", number, "--yes")
	s.WaitReady()
	after := s.JVMPIDs()
	for id, pid := range before {
		if moved := after[id] != pid; moved != slices.Contains(changed, id) {
			t.Errorf("node %d: restarted is %t; changed were %v", id, moved, changed)
		}
	}
	if ids := valued(s, "604"); len(ids) > 0 || len(changed) == 3 {
		t.Errorf("nodes %v were changed, %v still are", changed, ids)
	}
}

func oneNodeRestarted(t *testing.T, s *stand.Stand) {
	t.Helper()
	before := s.JVMPIDs()
	if out := s.Run(3*time.Minute, "", "restart", "kafka", "--nodes", "1", "--reason", "a story", "--wait"); out.Code != 0 {
		t.Fatalf("castellan restart: %s", out)
	}
	s.WaitReady()
	after := s.JVMPIDs()
	for id, pid := range before {
		if moved := after[id] != pid; moved != (id == 1) {
			t.Errorf("node %d: restarted is %t", id, moved)
		}
	}
	if out := s.Castellan("restart", "kafka", "--nodes", "9"); out.Code == 0 || !strings.Contains(out.Stderr, "9") {
		t.Errorf("a node that is not there is restarted: %s", out)
	}
}

// unstartable is a configuration that each key allows and that Kafka refuses at its start.
func unstartable(rollout ...string) string {
	return configured(readOnlyKey+": 605", "replica.fetch.wait.max.ms: 40000") + "  rollout: {" + strings.Join(rollout, ", ") + "}\n"
}

func givenBack(t *testing.T, s *stand.Stand) {
	t.Helper()
	before := s.JVMPIDs()
	s.Apply(unstartable("onFailure: Rollback"))
	op := operation(t, s)
	s.Eventually("the operation fails, and the node is given back", 4*time.Minute, phase(s, op.Name, api.OperationFailed, "gets back what it ran before"))
	s.Eventually("every replica is in sync again", 2*time.Minute, s.InSync())
	if ids := valued(s, "605"); len(ids) > 0 {
		t.Errorf("nodes %v still have what does not start", ids)
	}
	after, moved := s.JVMPIDs(), 0
	for id, pid := range before {
		if after[id] != pid {
			moved++
		}
	}
	if moved != 1 {
		t.Errorf("%d nodes were restarted: before %v, after %v", moved, before, after)
	}
	if said := s.Must("ops", op.Name, "-v"); !strings.Contains(said, "replica.fetch.wait.max.ms") {
		t.Errorf("castellan ops -v does not show why it failed:\n%s", said)
	}
	s.Apply(rolledOut("602"))
	s.WaitReady()
}

func failedAndRetried(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Apply(unstartable())
	op := operation(t, s)
	s.Eventually("the operation waits since a node failed", 4*time.Minute, phase(s, op.Name, api.OperationPaused, "castellan retry "+op.Name))
	failed := valued(s, "605")
	s.Must("retry", op.Name)
	s.Eventually("it was tried again", 2*time.Minute, func(context.Context) error {
		for _, id := range failed {
			if c := s.Node(id).Spec.Change; c == nil || c.Attempt != 1 {
				return fmt.Errorf("node %d was changed %+v", id, c)
			}
		}
		return nil
	})
	s.Eventually("it waits again", 4*time.Minute, phase(s, op.Name, api.OperationPaused, "castellan retry "+op.Name))
	if len(failed) != 1 || !slices.Equal(valued(s, "605"), failed) {
		t.Errorf("nodes %v have what does not start, first were %v", valued(s, "605"), failed)
	}
	s.Apply(rolledOut("602"))
	s.WaitReady()
	for _, n := range s.Nodes() {
		if len(valued(s, "602")) != 3 || !n.Status.Ready {
			t.Errorf("node %d is %s", n.Spec.NodeID, n.Status.State)
		}
	}
}
