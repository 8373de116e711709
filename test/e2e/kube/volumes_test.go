package kube

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/test/e2e/kube/stand"
)

// TestMoreVolumes tells of volumes that grow, are added and are lost.
func TestMoreVolumes(t *testing.T) {
	k := shared.For(t)
	k.Operator()
	tell(t, k.Cluster(stand.Small("kube-volumes", 3)),
		story{"volumes grow, are added, and never shrink", volumes},
		story{"a machine is declared out of service", outOfService},
		story{"a node is replaced while its machine is dead", replaceDead},
	)
}

// outOfService says by a taint what `castellan node replace` says by name.
func outOfService(t *testing.T, c *stand.Cluster) {
	t.Helper()
	const id = 2
	traffic := c.Traffic("out-of-service")
	machine := c.Pod(id).Spec.NodeName
	lost := claimOf(t, c, id)
	const taint = "node.kubernetes.io/out-of-service"
	c.PowerOff(machine)
	c.Eventually("Kubernetes sees that "+machine+" is gone", 2*time.Minute, c.MachineReady(machine, false))
	c.MustKubectl("taint", "node", machine, taint+"=nodeshutdown:NoExecute")
	t.Cleanup(func() { c.KubectlAnyway("taint", "node", machine, taint+"-") })
	began := time.Now()
	c.Eventually("the node is given a fresh volume", 2*time.Minute, func(context.Context) error {
		if now := claimOf(t, c, id); now == lost {
			return fmt.Errorf("it still has the claim %s", now)
		}
		return nil
	})
	t.Logf("declared out of service: a fresh volume after %s", time.Since(began).Round(100*time.Millisecond))
	c.PowerOn(machine, true)
	c.Eventually("the machine that replaces it is ready", 2*time.Minute, c.MachineReady(machine, true))
	c.MustKubectl("taint", "node", machine, taint+"-")
	c.Eventually("node 2 is back with an empty volume", stand.RollTimeout, c.Ready())
	c.Eventually("every replica is in sync", stand.ReadyTimeout, c.InSync())
	traffic.End()
}

// volumes grows one, adds one, and tries to shrink one.
func volumes(t *testing.T, c *stand.Cluster) {
	t.Helper()
	traffic := c.Traffic("volumes")
	pods := c.WatchPods()
	size := func(text string) func(*api.KafkaClusterSpec) {
		q := resource.MustParse(text)
		return func(s *api.KafkaClusterSpec) { s.Pools[0].Volumes[0].Size = &q }
	}
	began := time.Now()
	c.Edit(size("1Gi"))
	for id := range int32(3) {
		c.Eventually(fmt.Sprintf("the volume of node %d has grown", id), 2*time.Minute, func(context.Context) error {
			if have := capacity(t, c, id, "data"); have < 900<<20 {
				return fmt.Errorf("the file system has %d MiB", have>>20)
			}
			return nil
		})
	}
	t.Logf("three volumes grown from 512Mi to 1Gi after %s", time.Since(began).Round(100*time.Millisecond))
	c.WaitReady()
	c.ExpectUntouched(pods)

	if _, err := c.TryEdit(size("512Mi")); err == nil || !strings.Contains(err.Error(), "512Mi") || !strings.Contains(err.Error(), "1Gi") {
		t.Errorf("shrinking a volume is not refused with both sizes: %v", err)
	}

	more := resource.MustParse("512Mi")
	c.Edit(func(s *api.KafkaClusterSpec) {
		s.Pools[0].Volumes = append(s.Pools[0].Volumes, api.Volume{Name: "more", Size: &more})
	})
	c.WaitRolled()
	c.ExpectRolled(pods, 0, 1, 2)
	for id := range int32(3) {
		dirs := strings.Fields(c.Exec(id, "find", "/var/lib/kafka", "-name", "meta.properties"))
		if len(dirs) != 2 {
			t.Errorf("node %d uses %v, want two log directories", id, dirs)
		}
	}
	var seen struct{ Missing int64 }
	c.Outside(time.Minute, &seen, "records", "-brokers", c.Bootstrap(stand.Outside), "-topic", "wide", "-partitions", "12", "-count", "1200")
	if seen.Missing != 0 {
		t.Errorf("%d records are missing", seen.Missing)
	}
	for id := range int32(3) {
		if c.Exec(id, "find", "/var/lib/kafka/more", "-type", "d", "-name", "wide-*") == "" {
			t.Errorf("no partition of a new topic is on the second volume of node %d", id)
		}
	}
	c.ExpectMinISR(traffic.End())
}

// replaceDead says by name that a machine is lost while it is silent, so that nobody can end its pod but by force.
func replaceDead(t *testing.T, c *stand.Cluster) {
	t.Helper()
	const id = 1
	traffic := c.Traffic("replace-dead")
	before := c.Pod(id)
	machine, lost := before.Spec.NodeName, claimOf(t, c, id)
	c.PowerOff(machine)
	c.Eventually("Kubernetes sees that "+machine+" is gone", 2*time.Minute, c.MachineReady(machine, false))
	if out := c.Castellan("node", "replace", fmt.Sprintf("%s-%d", c.Name, id), "-n", c.Namespace, "--context", c.Context(), "--yes"); out.Code != 0 {
		t.Fatalf("castellan node replace: %s", out)
	}
	took := c.Eventually("the node says that no other machine takes its new pod", 2*time.Minute, c.NodeSays(id, func(s api.KafkaNodeStatus) bool {
		return s.Reason == corev1.PodReasonUnschedulable
	}))
	after := c.Pod(id)
	if after.UID == before.UID || slices.Contains(claims(after), lost) {
		t.Errorf("the new pod has the claims %v, one of which is on the dead machine", claims(after))
	}
	t.Logf("replaced by name: a new pod with a fresh volume after %s: %s", took.Round(100*time.Millisecond), c.Node(id).Status.Message)
	c.MustKubectl("get", "pvc", "-n", c.Namespace, lost) // kept: it may be all that is left of somebody's data
	c.Eventually("records go on", time.Minute, traffic.GoesOn())
	c.PowerOn(machine, true)
	c.Eventually("node 1 is back with an empty volume", stand.RollTimeout, c.Ready())
	c.Eventually("every replica is in sync", stand.ReadyTimeout, c.InSync())
	traffic.End()
}

// capacity of the file system of a volume in bytes, as the pod sees it.
func capacity(t *testing.T, c *stand.Cluster, id int32, volume string) int64 {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(c.Exec(id, "df", "-kP", "/var/lib/kafka/"+volume)), "\n")
	fields := strings.Fields(lines[len(lines)-1])
	if len(fields) < 2 {
		t.Fatalf("df says %q", lines)
	}
	blocks, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		t.Fatalf("df says %q", lines)
	}
	return blocks << 10
}
