package kube

import (
	"strings"
	"testing"
	"time"

	"castellan.dev/castellan/test/e2e/kube/stand"
)

// drain empties each machine in turn under load, as before an upgrade of its kernel.
func drain(t *testing.T, c *stand.Cluster) {
	t.Helper()
	traffic := c.Traffic("drain")
	machines := make([]string, 3)
	for id := range machines {
		machines[id] = c.Pod(int32(id)).Spec.NodeName
	}
	drained := ""
	t.Cleanup(func() {
		for _, m := range machines {
			c.KubectlAnyway("uncordon", m)
		}
	})
	for i, machine := range machines {
		began := time.Now()
		if drained != "" {
			// Begins while the broker before is still on its way back: the budget holds this drain up until then.
			c.MustKubectl("uncordon", drained)
		}
		out := drainOf(c, machine, "4m")
		if out.Code != 0 {
			t.Fatalf("drain %s: %s", machine, out)
		}
		t.Logf("%s drained after %s, refused %d times", machine, time.Since(began).Round(100*time.Millisecond), refusals(out))
		if i > 0 && refusals(out) == 0 {
			t.Errorf("the drain of %s was never held up, though the broker on %s was only coming back: %s", machine, drained, out)
		}
		if next := machines[(i+1)%3]; i == 0 {
			if out := drainOf(c, next, "15s"); out.Code == 0 || refusals(out) == 0 {
				t.Errorf("%s could be drained beside %s: %s", next, machine, out)
			}
			c.MustKubectl("uncordon", next)
		}
		drained = machine
	}
	c.MustKubectl("uncordon", drained)
	c.WaitReady()
	c.ExpectMinISR(traffic.End())
	allThere(t, c)
}

func drainOf(c *stand.Cluster, machine, timeout string) stand.Output {
	return c.KubectlWithin(5*time.Minute, "drain", machine, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout="+timeout)
}

// refusals counts how often a budget said no to a drain.
func refusals(out stand.Output) int {
	return strings.Count(out.Stdout+out.Stderr, "Cannot evict pod as it would violate the pod's disruption budget")
}
