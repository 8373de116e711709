package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/test/e2e/kube/stand"
)

// versionBefore is what is upgraded, to [stand.Version].
const versionBefore = "4.2.1"

// TestMoreUpgrade tells that another version reaches pods step by step, and is taken back like on hosts.
func TestMoreUpgrade(t *testing.T) {
	k := shared.For(t)
	k.LoadKafka(versionBefore)
	k.Operator()
	want := stand.Small("kube-upgrade", 3)
	want.Spec.Version = versionBefore
	tell(t, k.Cluster(want),
		story{"an image that cannot be had is taken back from one pod", badImage},
		story{"two of three pods go back in reverse order", backFromSecond},
		story{"an upgrade waits after its first pod, is taken back, made again, and finalized", upgraded},
	)
}

// newestOperation of a type, as it is now.
func newestOperation(t *testing.T, c *stand.Cluster, name string) *api.Operation {
	t.Helper()
	var op api.Operation
	if err := c.Client().Get(t.Context(), types.NamespacedName{Namespace: c.Namespace, Name: name}, &op); err != nil {
		t.Fatal(err)
	}
	return &op
}

// phased is the fact that an operation is in a phase, with a word in its message.
func phased(c *stand.Cluster, name string, phase api.OperationPhase, word string) stand.Fact {
	return func(ctx context.Context) error {
		var op api.Operation
		if err := c.Client().Get(ctx, types.NamespacedName{Namespace: c.Namespace, Name: name}, &op); err != nil {
			return err
		}
		if op.Status.Phase != phase || !strings.Contains(op.Status.Message, word) {
			return fmt.Errorf("operation %s is %s: %s", name, op.Status.Phase, op.Status.Message)
		}
		return nil
	}
}

// rollBackTo goes back to a revision, and returns the operation that does it.
func rollBackTo(t *testing.T, c *stand.Cluster, revision string) *api.Operation {
	t.Helper()
	castellan(t, c, "rollback", c.Name, "--to", revision[strings.LastIndex(revision, "-")+1:], "--yes")
	return activeOperation(t, c)
}

func badImage(t *testing.T, c *stand.Cluster) {
	t.Helper()
	traffic, pods := c.Traffic("image"), c.WatchPods()
	revision := c.Object().Status.Revision
	c.Edit(func(s *api.KafkaClusterSpec) {
		s.Pools[0].Placement.Kubernetes.Image = "castellan.test/none:1"
		s.Rollout = api.Rollout{OnFailure: api.OnFailureRollback, NodeTimeout: &metav1.Duration{Duration: 2 * time.Minute}}
	})
	op := activeOperation(t, c)
	c.Eventually("the operation fails, and the pod is given back", 5*time.Minute, phased(c, op.Name, api.OperationFailed, "gets back what it ran before"))
	var failed []int32
	for _, n := range newestOperation(t, c, op.Name).Status.Nodes {
		if n.State == api.OperationNodeFailed || n.State == api.OperationNodeTimedOut {
			failed = append(failed, n.ID)
			if !strings.Contains(n.Reason, "Pull") && !strings.Contains(n.Reason, "castellan.test/none:1") {
				t.Errorf("why node %d failed is not said: %s", n.ID, n.Reason)
			}
		} else if n.State != api.OperationNodeCancelled {
			t.Errorf("node %d of the operation is %s: %s", n.ID, n.State, n.Reason)
		}
	}
	if len(failed) != 1 {
		t.Fatalf("nodes %v failed", failed)
	}
	c.Eventually("its pod is ready as before", 2*time.Minute, c.PodReady(failed[0], ""))
	castellan(t, c, "rollback", c.Name, "--to", revision[strings.LastIndex(revision, "-")+1:], "--yes")
	c.WaitReady()
	for name := range pods.Restarts() {
		if name != stand.PodName(c.Name, failed[0]) {
			t.Errorf("pod %s was restarted too: %v", name, pods.Restarts())
		}
	}
	c.ExpectMinISR(traffic.End())
}

func backFromSecond(t *testing.T, c *stand.Cluster) {
	t.Helper()
	traffic, pods := c.Traffic("second"), c.WatchPods()
	kc := c.Object()
	revision, active := kc.Status.Revision, kc.Status.Quorum.Leader
	voters := slices.DeleteFunc([]int32{0, 1, 2}, func(id int32) bool { return id == active })
	c.Edit(func(s *api.KafkaClusterSpec) {
		s.Config["queued.max.requests"] = "411"
		s.Rollout.PauseAfter = []string{fmt.Sprint(voters[1])}
	})
	op := activeOperation(t, c)
	c.Eventually("it waits after the second pod", 4*time.Minute, phased(c, op.Name, api.OperationPaused, fmt.Sprintf("after node %d", voters[1])))
	back := rollBackTo(t, c, revision)
	if back.Spec.Type != api.OperationRollback {
		t.Errorf("the operation is a %s", back.Spec.Type)
	}
	c.Eventually("they are back", 4*time.Minute, phased(c, back.Name, api.OperationSucceeded, ""))
	c.WaitReady()
	want := map[string]int{stand.PodName(c.Name, voters[0]): 2, stand.PodName(c.Name, voters[1]): 2}
	if got := pods.Restarts(); !maps.Equal(got, want) {
		t.Errorf("pods were restarted %v times, want %v", got, want)
	}
	begun := map[int32]time.Time{}
	for _, n := range newestOperation(t, c, back.Name).Status.Nodes {
		begun[n.ID] = n.StartedAt.Time
	}
	if len(begun) != 2 || !begun[voters[1]].Before(begun[voters[0]]) {
		t.Errorf("they went back at %v, want %d before %d", begun, voters[1], voters[0])
	}
	c.ExpectMinISR(traffic.End())
}

func upgraded(t *testing.T, c *stand.Cluster) {
	t.Helper()
	traffic, pods := c.Traffic("upgraded"), c.WatchPods()
	revision := c.Object().Status.Revision
	to := func(s *api.KafkaClusterSpec) {
		s.Version = stand.Version
		s.Rollout = api.Rollout{Upgrade: api.UpgradePolicy{Soak: &metav1.Duration{Duration: time.Second}, Finalize: api.ApprovalManual}}
	}
	c.Edit(func(s *api.KafkaClusterSpec) {
		to(s)
		s.Rollout.PauseAfter = []string{"FirstNode"}
	})
	op := activeOperation(t, c)
	if op.Spec.Type != api.OperationUpgrade {
		t.Errorf("the operation is a %s", op.Spec.Type)
	}
	c.Eventually("it waits after its first pod", 4*time.Minute, phased(c, op.Name, api.OperationPaused, "after its first node"))
	castellan(t, c, "resume", op.Name)
	c.Eventually("every pod runs the new version, and it waits to be finalized", 6*time.Minute, phased(c, op.Name, api.OperationRunning, "castellan approve "+op.Name))
	back := rollBackTo(t, c, revision)
	c.Eventually("they are back", 6*time.Minute, phased(c, back.Name, api.OperationSucceeded, ""))
	c.WaitReady()
	if v := c.Object().Status.Version; v != versionBefore {
		t.Errorf("version %s runs", v)
	}
	c.Edit(to)
	op = activeOperation(t, c)
	c.Eventually("it waits to be finalized again", 6*time.Minute, phased(c, op.Name, api.OperationRunning, "castellan approve "+op.Name))
	castellan(t, c, "approve", op.Name, "--yes")
	c.Eventually("it is over", 2*time.Minute, phased(c, op.Name, api.OperationSucceeded, ""))
	c.WaitReady()
	if st := c.Object().Status; st.Version != stand.Version || st.MetadataVersion != "4.3-IV0" {
		t.Errorf("version %s runs with metadata.version %s", st.Version, st.MetadataVersion)
	}
	if most, which := pods.Unready(); most > 1 {
		t.Errorf("%d pods were not ready at once: %s", most, which)
	}
	if _, err := c.TryEdit(func(s *api.KafkaClusterSpec) { s.Version = versionBefore }); err == nil || !strings.Contains(err.Error(), "4.3-IV0") {
		t.Errorf("going back is not refused with what is finalized: %v", err)
	}
	c.ExpectMinISR(traffic.End())
}
