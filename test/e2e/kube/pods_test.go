package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/test/e2e/kube/stand"
)

func podsEnd(t *testing.T, c *stand.Cluster) {
	t.Helper()
	traffic := c.Traffic("pods-end")
	pods := c.WatchPods()
	before := c.Pod(1)
	began := time.Now()
	c.MustKubectl("delete", "pod", before.Name, "-n", c.Namespace, "--wait=false")
	c.Eventually("the deleted pod is there again and ready", stand.ReadyTimeout, c.PodReady(1, before.UID))
	t.Logf("pod deleted: ready again after %s", time.Since(began).Round(100*time.Millisecond))
	after := c.Pod(1)
	if got, want := claims(after), claims(before); !slices.Equal(got, want) {
		t.Errorf("the pod came back with the claims %v, had %v", got, want)
	}
	c.WaitReady()

	victim := c.Pod(2)
	began = time.Now()
	exhaustMemory(t, c, 2)
	c.Eventually("Kafka was killed and its pod is ready again", stand.ReadyTimeout, restarted(c, 2, victim))
	t.Logf("out of memory: ready again after %s", time.Since(began).Round(100*time.Millisecond))
	last := c.Pod(2).Status.ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.Reason != "OOMKilled" {
		t.Errorf("Kubernetes says that the container ended by %+v", last)
	}
	status := c.Node(2).Status
	if status.LastExit == nil || !strings.Contains(status.LastExit.Reason+status.LastExit.Message, "OOM") {
		t.Errorf("KafkaNode 2 says that it ended by %+v", status.LastExit)
	}
	c.WaitReady()
	seen := traffic.End()
	c.ExpectMinISR(seen)
	if diff := pods.Restarts(); diff["orders-1-0"] != 1 || diff["orders-2-0"] != 1 || len(diff) != 2 {
		t.Errorf("pods were restarted %v times", diff)
	}
	allThere(t, c)
}

func claims(p *corev1.Pod) []string {
	var names []string
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		}
	}
	return names
}

// exhaustMemory takes what memory the container may have beside Kafka, in pieces that are each smaller than Kafka, so that
// the kernel ends the largest: Kafka.
func exhaustMemory(t *testing.T, c *stand.Cluster, id int32) {
	t.Helper()
	const script = `for i in 1 2 3 4 5 6 7 8 9 10; do dd if=/dev/zero of=/dev/null bs=64M count=100000 & done; wait`
	out := c.TryExec(id, "sh", "-c", script)
	if out.Code == 0 {
		t.Fatalf("the container has memory for everybody: %s", out)
	}
}

// restarted is the fact that the container of a pod began again and is ready.
func restarted(c *stand.Cluster, id int32, before *corev1.Pod) stand.Fact {
	return func(context.Context) error {
		now := c.Pod(id)
		was, is := before.Status.ContainerStatuses[0], now.Status.ContainerStatuses[0]
		switch {
		case now.UID != before.UID:
			return fmt.Errorf("it is another pod")
		case is.RestartCount == was.RestartCount:
			return fmt.Errorf("the container runs on")
		case !is.Ready:
			return fmt.Errorf("the container is not ready: %+v", is.State)
		}
		return nil
	}
}

// withoutOperator deletes a pod while nobody of Castellan is there.
func withoutOperator(t *testing.T, c *stand.Cluster) {
	t.Helper()
	c.ScaleOperator(0)
	defer c.ScaleOperator(2)
	before := c.Pod(0)
	began := time.Now()
	c.MustKubectl("delete", "pod", before.Name, "-n", c.Namespace, "--wait=false")
	c.Eventually("the deleted pod is there again and ready without an operator", stand.ReadyTimeout, c.PodReady(0, before.UID))
	t.Logf("pod deleted without an operator: ready again after %s", time.Since(began).Round(100*time.Millisecond))
	if err := c.InSync()(t.Context()); err != nil {
		t.Errorf("the pod is ready, but: %v", err)
	}
	allThere(t, c)
}

// powerOff cuts the power of a machine with a broker for good: its disk never comes back. Nothing moves until the user
// says so; then the node comes back with an empty volume on a machine that replaces the lost one.
func powerOff(t *testing.T, c *stand.Cluster) {
	t.Helper()
	const id = 1
	traffic := c.Traffic("power-off")
	machine := c.Pod(id).Spec.NodeName
	lost := claimOf(t, c, id)
	began := time.Now()
	c.PowerOff(machine)
	c.Eventually("records are acknowledged without the lost machine", 2*time.Minute, traffic.GoesOn())
	c.Eventually("Kubernetes sees that "+machine+" is gone", 2*time.Minute, c.MachineReady(machine, false))
	c.Eventually("the KafkaNode says that its machine is silent", 2*time.Minute, c.NodeSays(id, func(s api.KafkaNodeStatus) bool {
		return !s.Ready && strings.Contains(s.Message, machine) && strings.Contains(s.Message, "castellan node replace")
	}))
	t.Logf("power off: said by the KafkaNode after %s: %s", time.Since(began).Round(time.Second), c.Node(id).Status.Message)
	c.Throughout("nothing moves before the user says so", 20*time.Second, func(context.Context) error {
		if now := claimOf(t, c, id); now != lost {
			return fmt.Errorf("node %d got the claim %s in place of %s", id, now, lost)
		}
		return nil
	})

	c.PowerOn(machine, true)
	c.Eventually("the machine that replaces it is ready", 2*time.Minute, c.MachineReady(machine, true))
	replaced := time.Now()
	if out := c.Castellan("node", "replace", fmt.Sprintf("%s-%d", c.Name, id), "-n", c.Namespace, "--context", c.Context(), "--yes"); out.Code != 0 {
		t.Fatalf("castellan node replace: %s", out)
	}
	c.Eventually("node 1 is back with an empty volume", stand.RollTimeout, c.Ready())
	t.Logf("node replaced: Ready again after %s", time.Since(replaced).Round(time.Second))
	if now := claimOf(t, c, id); now == lost {
		t.Errorf("node %d still has the lost claim %s", id, now)
	}
	c.Eventually("every replica is in sync", stand.ReadyTimeout, c.InSync())
	seen := traffic.End()
	t.Logf("power off to the first acknowledged record: %s", seen.LongestGap.Round(100*time.Millisecond))
	allThere(t, c)
	quorum := c.Object().Status.Quorum
	if quorum == nil || !slices.Equal(slices.Sorted(slices.Values(quorum.Voters)), []int32{0, 1, 2}) {
		t.Errorf("the quorum is %+v, want voters 0, 1 and 2", quorum)
	}
}

// claimOf is the claim that the plan gave the data volume of a node.
func claimOf(t *testing.T, c *stand.Cluster, id int32) string {
	t.Helper()
	return c.Node(id).Spec.Volumes[0].Claim
}
