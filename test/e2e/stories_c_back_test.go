package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/kafka/kafkatest"
	"castellan.dev/castellan/packages/packagestest"
	"castellan.dev/castellan/test/e2e/stand"
)

const (
	// brokenVersion is a version whose package is given by the test and cannot start.
	brokenVersion = "4.3.99"
	// apartNode keeps its own value of the read-only key, so that five of six nodes differ when the others' is changed.
	apartNode  int32 = 102
	apartValue       = readOnlyKey + ": 500"
)

// TestSixNodes tells of work on six nodes in three racks that is stopped, and taken back, before it has come to all of
// them, with traffic all the time: what had not been begun is never touched.
func TestSixNodes(t *testing.T) {
	privateCache(t) // a package that cannot start is not for anybody else
	s := stand.New(t, stand.Options{Racks: true, Cluster: sixNodes(version)})
	traffic := s.StartTraffic("six", 12)
	isr := kafkatest.WatchISR(t.Context(), s.BrokerTarget(), 250*time.Millisecond, func(topic string) bool { return topic == "six" })

	t.Run("a version that does not start is taken back from one node", func(t *testing.T) { badPackage(t, s.For(t)) })
	t.Run("two of five nodes go back in reverse order", func(t *testing.T) { backFromTheMiddle(t, s.For(t)) })
	t.Run("a node that failed and was retried goes back to where it came from", func(t *testing.T) { backFromFailure(t, s.For(t)) })
	t.Run("a rack is waited after, and nodes are ignored", func(t *testing.T) { heldAfterRack(t, s.For(t)) })
	t.Run("a closed window lets a repair through", func(t *testing.T) { repairedOutsideWindow(t, s.For(t)) })

	report := isr.Stop()
	if len(report.Under) > 0 || report.Samples == 0 {
		t.Errorf("%d samples (%d not answered: %s); under min ISR: %+v", report.Samples, report.Unknown, report.Why, report.Under)
	}
	traffic.End()
}

// sixNodes are three combined nodes and three brokers, one of each in every rack, with lines of spec.rollout.
func sixNodes(release string, rollout ...string) string {
	yaml := stand.OnRacks(stand.Mixed(release, 3, 3), 1) + "  rollout: {" + strings.Join(rollout, ", ") + "}\n"
	return overrideBroker(yaml, apartValue)
}

// overrideBroker gives the node that stands apart a configuration of its own.
func overrideBroker(yaml string, lines ...string) string {
	before, after, _ := strings.Cut(yaml, "    firstNodeID: 100\n")
	if was, rest, ok := strings.Cut(after, "\n"); ok && strings.Contains(was, "overrides:") {
		after = rest
	}
	own := fmt.Sprintf("    overrides: [{nodeID: %d, config: {%s}}]\n", apartNode, strings.Join(lines, ", "))
	return before + "    firstNodeID: 100\n" + own + after
}

// fiveAt are six nodes of which five get a value of the read-only key.
func fiveAt(value string, rollout ...string) string {
	return strings.Replace(sixNodes(version, rollout...), "  config:\n", "  config:\n    "+readOnlyKey+": "+value+"\n", 1)
}

// jvm is one process of Kafka, and what it runs.
type jvm struct {
	PID     int32
	Started time.Time
	Process api.ProcessSpec
}

// jvms are the processes of all nodes, by node id.
func jvms(t *testing.T, s *stand.Stand) map[int32]jvm {
	t.Helper()
	all := map[int32]jvm{}
	for _, n := range s.Nodes() {
		if n.Status.Process == nil {
			t.Fatalf("node %d has no process: %s", n.Spec.NodeID, n.Status.Message)
		}
		process := *n.Spec.Process.DeepCopy()
		process.Restart = "" // says when, not what
		all[n.Spec.NodeID] = jvm{PID: n.Status.Process.PID, Started: n.Status.Process.StartedAt.Time, Process: process}
	}
	return all
}

// sameBut fails the test unless exactly these nodes have another process than before, and every node runs what it ran.
func sameBut(t *testing.T, s *stand.Stand, before map[int32]jvm, restarted ...int32) {
	t.Helper()
	for id, now := range jvms(t, s) {
		was := before[id]
		if moved := now.PID != was.PID || !now.Started.Equal(was.Started); moved != slices.Contains(restarted, id) {
			t.Errorf("node %d: restarted is %t (pid %d of %s, now %d of %s)", id, moved, was.PID, was.Started, now.PID, now.Started)
		}
		if diff := gocmp.Diff(was.Process, now.Process); diff != "" {
			t.Errorf("node %d does not run what it ran (- before, + after):\n%s", id, diff)
		}
	}
}

// revisionNumber is the number of the revision in force.
func revisionNumber(s *stand.Stand) string {
	revision := s.Cluster().Status.Revision
	return revision[strings.LastIndex(revision, "-")+1:]
}

// inOrder are the two nodes that change first: controllers, the active one last.
func inOrder(t *testing.T, s *stand.Stand) (first, second int32) {
	t.Helper()
	active := activeController(t, s)
	voters := slices.DeleteFunc([]int32{0, 1, 2}, func(id int32) bool { return id == active })
	return voters[0], voters[1]
}

func badPackage(t *testing.T, s *stand.Stand) {
	t.Helper()
	before, number := jvms(t, s), revisionNumber(s)
	first, _ := inOrder(t, s)
	_, archive := packagestest.Kafka(t, t.TempDir(), brokenVersion)
	s.Apply(fmt.Sprintf(`apiVersion: castellan.dev/v1alpha1
kind: Package
metadata: {name: kafka-broken}
spec: {product: Kafka, version: %s, sources: [{url: %s, sha512: %s}]}
---
%s`, brokenVersion, archive.Path, archive.SHA512, sixNodes(brokenVersion, "onFailure: Rollback")))
	op := operation(t, s)
	if op.Spec.Type != api.OperationUpgrade {
		t.Errorf("the operation is a %s", op.Spec.Type)
	}
	s.Eventually("the operation fails, and the node is given back", 4*time.Minute, phase(s, op.Name, api.OperationFailed, "gets back what it ran before"))
	s.Eventually("the node is ready as before", time.Minute, func(context.Context) error {
		if n := s.Node(first); !n.Status.Ready || n.Status.Version != version {
			return fmt.Errorf("node %d is %s with Kafka %s: %s", first, n.Status.State, n.Status.Version, n.Status.Message)
		}
		return nil
	})
	s.Eventually("every replica is in sync again", 2*time.Minute, s.InSync())
	sameBut(t, s, before, first)
	for _, n := range operationNow(t, s, op.Name).Status.Nodes {
		want := api.OperationNodeCancelled
		if n.ID == first {
			want = api.OperationNodeFailed
		}
		if n.State != want {
			t.Errorf("node %d of the operation is %s: %s", n.ID, n.State, n.Reason)
		}
		if n.ID == first && !strings.Contains(n.Log, "kafka.Kafka") {
			t.Errorf("the operation does not show why node %d failed: %q", first, n.Log)
		}
	}
	given := jvms(t, s)
	s.Must("rollback", "kafka", "--to", number, "--yes")
	s.WaitReady()
	if got := s.Cluster().Spec.Version; got != version {
		t.Errorf("the spec names version %s after the rollback", got)
	}
	sameBut(t, s, given)
}

// operationNow is an Operation as it is now.
func operationNow(t *testing.T, s *stand.Stand, name string) *api.Operation {
	t.Helper()
	var op api.Operation
	if err := s.Client().Get(t.Context(), s.KeyOf(name), &op); err != nil {
		t.Fatal(err)
	}
	return &op
}

func backFromTheMiddle(t *testing.T, s *stand.Stand) {
	t.Helper()
	before, number := jvms(t, s), revisionNumber(s)
	first, second := inOrder(t, s)
	s.Apply(fiveAt("701", fmt.Sprintf("pauseAfter: [%q]", fmt.Sprint(second))))
	op := operation(t, s)
	s.Eventually("it waits after the node that was named", 5*time.Minute, phase(s, op.Name, api.OperationPaused, fmt.Sprintf("after node %d", second)))
	if changed := valued(s, "701"); !slices.Equal(changed, []int32{first, second}) {
		t.Errorf("nodes %v were changed, the first two were to be %d and %d", changed, first, second)
	}
	if now := operationNow(t, s, op.Name); len(now.Status.Nodes) != 5 || now.Status.Point != fmt.Sprintf("Node/%d", second) {
		t.Errorf("the operation is at %q, and is about %+v", now.Status.Point, now.Status.Nodes)
	}
	unmoved(t, s, "nothing is begun at a canary point")
	rolledBack(t, s, before, number, second, first)
}

// rolledBack goes back to a revision and wants these nodes, and no others, to return to what they ran, in this order.
func rolledBack(t *testing.T, s *stand.Stand, before map[int32]jvm, number string, order ...int32) {
	t.Helper()
	s.Must("rollback", "kafka", "--to", number, "--yes")
	op := operation(t, s)
	if op.Spec.Type != api.OperationRollback {
		t.Errorf("the operation is a %s", op.Spec.Type)
	}
	s.Eventually("they are back", 4*time.Minute, phase(s, op.Name, api.OperationSucceeded, ""))
	s.WaitReady()
	s.Eventually("every replica is in sync again", 2*time.Minute, s.InSync())
	sameBut(t, s, before, order...)
	after := jvms(t, s)
	if !slices.IsSortedFunc(order, func(a, b int32) int { return after[a].Started.Compare(after[b].Started) }) {
		t.Errorf("nodes were not given back in the order %v: %+v", order, after)
	}
	var did []int32
	for _, n := range operationNow(t, s, op.Name).Status.Nodes {
		did = append(did, n.ID)
	}
	if diff := gocmp.Diff(slices.Sorted(slices.Values(order)), slices.Sorted(slices.Values(did))); diff != "" {
		t.Errorf("the operation was about (- want, + got):\n%s", diff)
	}
}

func backFromFailure(t *testing.T, s *stand.Stand) {
	t.Helper()
	before, number, revision := jvms(t, s), revisionNumber(s), s.Cluster().Status.Revision
	first, second := inOrder(t, s)
	s.Apply(override(fiveAt("702"), second, "replica.selector.class: com.example.Missing"))
	op := operation(t, s)
	failed := phase(s, op.Name, api.OperationPaused, "castellan retry "+op.Name)
	s.Eventually("it waits since the second node failed", 4*time.Minute, failed)
	s.Must("retry", op.Name)
	s.Eventually("it was tried again", 4*time.Minute, func(context.Context) error {
		if c := s.Node(second).Spec.Change; c == nil || c.Attempt != 1 {
			return fmt.Errorf("node %d was changed %+v", second, c)
		}
		return nil
	})
	s.Eventually("it waits again", 4*time.Minute, failed)
	if c := s.Node(second).Spec.Change; c.FromRevision != revision {
		t.Errorf("node %d came from %s, says the node now", second, c.FromRevision)
	}
	if diff := gocmp.Diff(op.Spec.From, operationNow(t, s, op.Name).Spec.From); diff != "" || !slices.Contains(op.Spec.From, api.OperationOrigin{ID: second, Revision: revision}) {
		t.Errorf("where nodes came from, once %s for node %d (- before, + after the retry):\n%s", revision, second, diff)
	}
	if changed := valued(s, "702"); !slices.Equal(changed, []int32{first, second}) {
		t.Errorf("nodes %v were changed", changed)
	}
	rolledBack(t, s, before, number, second, first)
}

// heldAfterRack also ignores all nodes that are left but one, which then is the only one that a resume brings along.
func heldAfterRack(t *testing.T, s *stand.Stand) {
	t.Helper()
	before := jvms(t, s)
	s.Apply(fiveAt("801", "pauseAfter: [EachRack]"))
	op := operation(t, s)
	s.Eventually("it waits after the first rack", 3*time.Minute, phase(s, op.Name, api.OperationPaused, "after rack"))
	changed, rack := valued(s, "801"), ""
	for _, n := range s.Nodes() {
		id := n.Spec.NodeID
		switch is := slices.Contains(changed, id); {
		case is && rack == "":
			rack = n.Spec.Rack
		case is && n.Spec.Rack != rack, !is && rack == n.Spec.Rack && id != apartNode:
			t.Errorf("nodes %v were changed, and node %d is in rack %s", changed, id, n.Spec.Rack)
		}
	}
	if point := operationNow(t, s, op.Name).Status.Point; point != "EachRack/"+rack {
		t.Errorf("it waits at %q after nodes %v of rack %s", point, changed, rack)
	}
	unmoved(t, s, "nothing is begun after the first rack")

	left := slices.DeleteFunc(nodeIDs(s), func(id int32) bool { return id == apartNode || slices.Contains(changed, id) })
	ignored := left[1:]
	s.Must("ignore", op.Name, "--node", stand.IDs(ignored...))
	s.Must("resume", op.Name)
	s.Eventually("it ends without the nodes that are ignored", 2*time.Minute, phase(s, op.Name, api.OperationSucceeded, ""))
	for _, n := range operationNow(t, s, op.Name).Status.Nodes {
		want := api.OperationNodeSucceeded
		if slices.Contains(ignored, n.ID) {
			want = api.OperationNodeIgnored
		}
		if n.State != want {
			t.Errorf("node %d of the operation is %s: %s", n.ID, n.State, n.Reason)
		}
	}
	changed = slices.Sorted(slices.Values(append(changed, left[0])))
	if now := valued(s, "801"); !slices.Equal(now, changed) {
		t.Errorf("nodes %v are changed, want %v", now, changed)
	}
	s.Apply(sixNodes(version))
	s.WaitReady()
	sameBut(t, s, before, changed...)
}

// repairedOutsideWindow has a broker fail, and then a spec that mends it and changes five others, while no window is open.
func repairedOutsideWindow(t *testing.T, s *stand.Stand) {
	t.Helper()
	before := jvms(t, s)
	s.Apply(overrideBroker(sixNodes(version), apartValue, "replica.selector.class: com.example.Missing"))
	op := operation(t, s)
	s.Eventually("it waits since the broker failed", 4*time.Minute, phase(s, op.Name, api.OperationPaused, "castellan retry "+op.Name))
	begun := time.Now().UTC().Add(-time.Hour)
	s.Apply(fiveAt("803", fmt.Sprintf("windows: [{schedule: \"%d %d * * *\", duration: 1m}]", begun.Minute(), begun.Hour())))
	s.Eventually("the broker is repaired", 2*time.Minute, func(context.Context) error {
		if n := s.Node(apartNode); !n.Status.Ready {
			return fmt.Errorf("node %d is %s: %s", apartNode, n.Status.State, n.Status.Message)
		}
		return nil
	})
	op = operation(t, s)
	s.Eventually("the others wait for the window", time.Minute, phase(s, op.Name, api.OperationPending, "the next one opens at"))
	unmoved(t, s, "nothing else is begun outside the window")
	if ids := valued(s, "803"); len(ids) > 0 {
		t.Errorf("nodes %v were changed", ids)
	}
	s.Apply(sixNodes(version))
	s.WaitReady()
	sameBut(t, s, before, apartNode)
}
