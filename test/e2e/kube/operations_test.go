package kube

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/test/e2e/kube/stand"
)

// TestMoreOperations tells that work on pods is watched, stopped, and taken back by the same commands as on hosts.
func TestMoreOperations(t *testing.T) {
	k := shared.For(t)
	k.Operator()
	const namespace = "kube-operations"
	k.Namespace(namespace)
	c := &stand.Cluster{Kubernetes: k, Namespace: namespace, Name: "orders"}
	c.Apply(stand.Small(namespace, 3))
	c.WaitReady()
	tell(t, c,
		story{"a rollout is paused and resumed", pausedRollout},
		story{"a rollout is deleted and taken back", deletedRollout},
		story{"one pod is restarted", restartedPod},
	)
}

func castellan(t *testing.T, c *stand.Cluster, args ...string) string {
	t.Helper()
	out := c.CastellanWithin(5*time.Minute, append(args, "-n", c.Namespace, "--context", c.Context())...)
	if out.Code != 0 {
		t.Fatalf("castellan %s: %s", strings.Join(args, " "), out)
	}
	return out.Stdout
}

// activeOperation is the one that leads to the newest spec.
func activeOperation(t *testing.T, c *stand.Cluster) *api.Operation {
	t.Helper()
	var op api.Operation
	c.Eventually("an operation is active", time.Minute, func(ctx context.Context) error {
		kc := c.Object()
		if kc.Status.Operation == "" || kc.Status.ObservedGeneration != kc.Generation {
			return fmt.Errorf("generation %d of %d was looked at, its operation is %q", kc.Status.ObservedGeneration, kc.Generation, kc.Status.Operation)
		}
		if err := c.Client().Get(ctx, types.NamespacedName{Namespace: c.Namespace, Name: kc.Status.Operation}, &op); err != nil {
			return err
		}
		if op.Spec.ToRevision != kc.Status.Revision {
			return fmt.Errorf("operation %s leads to %s", op.Name, op.Spec.ToRevision)
		}
		return nil
	})
	return &op
}

// done is the fact that so many nodes of an operation have succeeded.
func done(c *stand.Cluster, name string, count int32) stand.Fact {
	return func(ctx context.Context) error {
		var op api.Operation
		if err := c.Client().Get(ctx, types.NamespacedName{Namespace: c.Namespace, Name: name}, &op); err != nil {
			return err
		}
		if op.Status.Steps.Done != count {
			return fmt.Errorf("it is %s, %d of %d: %s", op.Status.Phase, op.Status.Steps.Done, op.Status.Steps.Total, op.Status.Message)
		}
		return nil
	}
}

func pausedRollout(t *testing.T, c *stand.Cluster) {
	t.Helper()
	traffic := c.Traffic("paused")
	pods := c.WatchPods()
	c.Edit(func(s *api.KafkaClusterSpec) { s.Config["queued.max.requests"] = "401" })
	op := activeOperation(t, c)
	c.Eventually("a pod is restarted", time.Minute, func(context.Context) error {
		if len(pods.Restarts()) == 0 {
			return fmt.Errorf("none yet")
		}
		return nil
	})
	castellan(t, c, "pause", op.Name)
	c.Eventually("the node under way comes to its end", 2*time.Minute, done(c, op.Name, 1))
	c.Throughout("no other pod is restarted while it is paused", 5*time.Second, func(context.Context) error {
		if n := len(pods.Restarts()); n != 1 {
			return fmt.Errorf("%d pods were", n)
		}
		return nil
	})
	castellan(t, c, "resume", op.Name)
	if said := castellan(t, c, "watch", op.Name); !strings.Contains(said, "Succeeded") {
		t.Errorf("castellan watch:\n%s", said)
	}
	c.WaitReady()
	c.ExpectRolled(pods, 0, 1, 2)
	c.ExpectMinISR(traffic.End())
}

func deletedRollout(t *testing.T, c *stand.Cluster) {
	t.Helper()
	pods := c.WatchPods()
	revision := c.Object().Status.Revision
	c.Edit(func(s *api.KafkaClusterSpec) { s.Config["queued.max.requests"] = "402" })
	op := activeOperation(t, c)
	c.Eventually("a pod is restarted", time.Minute, func(context.Context) error {
		if len(pods.Restarts()) == 0 {
			return fmt.Errorf("none yet")
		}
		return nil
	})
	c.MustKubectl("delete", "operation", op.Name, "-n", c.Namespace, "--timeout=2m")
	touched := len(pods.Restarts())
	c.Throughout("nothing goes on without it", 5*time.Second, func(context.Context) error {
		if n := len(pods.Restarts()); n != touched {
			return fmt.Errorf("%d pods were restarted, %d before", n, touched)
		}
		return nil
	})
	castellan(t, c, "rollback", c.Name, "--to", revision[strings.LastIndex(revision, "-")+1:], "--yes")
	c.WaitReady()
	if n := len(pods.Restarts()); touched == 3 || n != touched {
		t.Errorf("%d pods were restarted, %d of them before it was taken back", n, touched)
	}
	pods.Stop()
}

func restartedPod(t *testing.T, c *stand.Cluster) {
	t.Helper()
	pods := c.WatchPods()
	castellan(t, c, "restart", c.Name, "--nodes", "2", "--wait")
	c.WaitReady()
	c.ExpectRolled(pods, 2)
}
