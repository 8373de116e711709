package kube

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/test/e2e/kube/stand"
)

// rollWithoutLeader changes what only a restart brings into force, and kills the operator that leads in the middle of it.
func rollWithoutLeader(t *testing.T, c *stand.Cluster) {
	t.Helper()
	traffic := c.Traffic("roll")
	pods := c.WatchPods()
	began := time.Now()
	c.Edit(func(s *api.KafkaClusterSpec) { s.Config["queued.max.requests"] = "400" })
	c.Eventually("the roll has begun", time.Minute, func(context.Context) error {
		if len(pods.Restarts()) == 0 {
			return fmt.Errorf("no pod was restarted")
		}
		return nil
	})
	if len(pods.Restarts()) > 2 {
		t.Fatal("the roll is over before the leader could be killed")
	}
	leader := c.KillLeader()
	c.WaitRolled()
	if now := c.Leader().Name; now == leader {
		t.Errorf("%s leads again, which was killed", now)
	}
	t.Logf("three nodes rolled, with their leader killed, in %s", time.Since(began).Round(time.Second))
	c.ExpectRolled(pods, 0, 1, 2)
	c.ExpectMinISR(traffic.End())
}

// badOverride gives one node what cannot work, and takes it back.
func badOverride(t *testing.T, c *stand.Cluster) {
	t.Helper()
	const id = 2
	traffic := c.Traffic("bad-override")
	override := func(o api.NodeOverride) func(*api.KafkaClusterSpec) {
		o.NodeID = id
		return func(s *api.KafkaClusterSpec) { s.Pools[0].Overrides = []api.NodeOverride{o} }
	}
	heap := resource.MustParse("768Mi")
	if _, err := c.TryEdit(override(api.NodeOverride{JVM: &api.JVM{Heap: &heap}})); err == nil || !strings.Contains(err.Error(), "heap") {
		t.Errorf("a heap as large as the memory limit is not refused: %v", err)
	}
	greedy := c.Object().Spec.Pools[0].Resources.DeepCopy()
	greedy.Requests[corev1.ResourceCPU] = resource.MustParse("64")
	for _, bad := range []struct {
		what string
		o    api.NodeOverride
		says []string // one of them
	}{
		{"an image that nobody has", api.NodeOverride{Image: "apache/kafka:4.3.1-nobody-has-it"}, []string{"ErrImagePull", "ImagePullBackOff"}},
		{"more processors than there are", api.NodeOverride{Resources: greedy}, []string{"Insufficient cpu"}},
	} {
		pods := c.WatchPods()
		c.Edit(override(bad.o))
		says := func(text string) bool {
			for _, word := range bad.says {
				if strings.Contains(text, word) {
					return true
				}
			}
			return false
		}
		c.Eventually(bad.what+" is told by the KafkaNode", 2*time.Minute, c.NodeSays(id, func(s api.KafkaNodeStatus) bool {
			return !s.Ready && says(s.Reason+" "+s.Message)
		}))
		t.Logf("%s: %s: %s", bad.what, c.Node(id).Status.Reason, c.Node(id).Status.Message)
		c.Eventually(bad.what+" is told by the KafkaCluster", time.Minute, c.Says(api.ConditionReady, func(now metav1.Condition) bool {
			return now.Status == metav1.ConditionFalse && says(now.Message) && strings.Contains(now.Message, strconv.Itoa(id))
		}))
		c.Eventually("records go on", time.Minute, traffic.GoesOn())
		began := time.Now()
		c.Edit(func(s *api.KafkaClusterSpec) { s.Pools[0].Overrides = nil })
		c.WaitReady()
		t.Logf("%s taken back: Ready after %s", bad.what, time.Since(began).Round(time.Second))
		for pod, n := range pods.Restarts() {
			if pod != stand.PodName(c.Name, id) {
				t.Errorf("%s, which is another node, was restarted %d times", pod, n)
			}
		}
		pods.Stop()
	}
	c.ExpectMinISR(traffic.End())
}

// newOperator puts another build in the place of the operator.
func newOperator(t *testing.T, c *stand.Cluster) {
	t.Helper()
	traffic := c.Traffic("new-operator")
	pods := c.WatchPods()
	tag := c.Tag("next")
	c.LoadCastellan(tag)
	// The definitions that came with the chart before were older: the upgrade brings them along.
	c.MustKubectl("patch", "crd", "kafkaclusters.castellan.dev", "--type=json", `-p=[{"op":"remove","path":"/spec/versions/0/additionalPrinterColumns"}]`)
	c.Upgrade(tag)
	if columns := c.MustKubectl("get", "crd", "kafkaclusters.castellan.dev", "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}"); !strings.Contains(columns, "DOING") {
		t.Errorf("the definition of KafkaCluster was not upgraded: its columns are %q", columns)
	}
	c.Eventually("the new operator leads", stand.ReadyTimeout, func(context.Context) error {
		if image := c.Leader().Spec.Containers[0].Image; !strings.HasSuffix(image, tag) {
			return fmt.Errorf("the leader runs %s", image)
		}
		return nil
	})
	// A change that needs no restart shows that the new one is at work, and would have restarted what it wants restarted.
	c.Edit(func(s *api.KafkaClusterSpec) { s.Config["log.retention.ms"] = "360000000" })
	c.WaitReady()
	c.ExpectUntouched(pods)
	c.ExpectMinISR(traffic.End())
}
