package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/test/e2e/kube/stand"
)

// TestMoreScale tells that pods come and go by the same commands as nodes on hosts.
func TestMoreScale(t *testing.T) {
	k := shared.For(t)
	k.Operator()
	want := stand.Small("kube-scale", 3)
	want.Spec.Pools[0].Placement.Kubernetes.Spread = api.SpreadNone // there are three machines
	tell(t, k.Cluster(want),
		story{"a fourth node comes and is filled", fourthNode},
		story{"the operation that takes a node out is deleted, and the node stays", deletedScale},
		story{"the second node leaves", secondNodeLeaves},
	)
}

// scaled waits until the newest Scale of a cluster has succeeded.
func scaled(t *testing.T, c *stand.Cluster) api.Operation {
	t.Helper()
	op := activeOperation(t, c)
	if op.Spec.Type != api.OperationScale {
		t.Fatalf("the operation is a %s", op.Spec.Type)
	}
	var now api.Operation
	c.Eventually("operation "+op.Name+" succeeds", 5*time.Minute, func(ctx context.Context) error {
		if err := c.Client().Get(ctx, types.NamespacedName{Namespace: c.Namespace, Name: op.Name}, &now); err != nil {
			return err
		}
		if now.Status.Phase != api.OperationSucceeded {
			return fmt.Errorf("it is %s: %s", now.Status.Phase, now.Status.Message)
		}
		return nil
	})
	return now
}

// replicasOn are the partitions that have a replica on a broker.
func replicasOn(t *testing.T, c *stand.Cluster, id int32) []string {
	t.Helper()
	topics, err := c.Topics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var on []string
	for _, topic := range topics {
		for i, p := range topic.Partitions {
			if slices.Contains(p.Replicas, id) {
				on = append(on, fmt.Sprintf("%s-%d", topic.Name, i))
			}
		}
	}
	return on
}

func fourthNode(t *testing.T, c *stand.Cluster) {
	t.Helper()
	traffic, pods := c.Traffic("grown"), c.WatchPods()
	c.Eventually("records flow", time.Minute, traffic.GoesOn())
	began := time.Now()
	castellan(t, c, "scale", c.Name, "--replicas", "4", "--fill")
	op := scaled(t, c)
	t.Logf("a fourth node was filled after %s: %+v", time.Since(began).Round(time.Second), op.Status.Moves)
	c.WaitReady()
	if len(replicasOn(t, c, 3)) == 0 {
		t.Error("node 3 holds no replica")
	}
	c.ExpectUntouched(pods)
	c.ExpectMinISR(traffic.End())
}

func deletedScale(t *testing.T, c *stand.Cluster) {
	t.Helper()
	pods := c.WatchPods()
	castellan(t, c, "scale", c.Name, "--remove", "1")
	op := activeOperation(t, c)
	c.MustKubectl("delete", "operation", op.Name, "-n", c.Namespace, "--timeout=3m")
	c.Eventually("the cluster says that its revision is held", time.Minute, c.Says(api.ConditionStalled, func(cond metav1.Condition) bool {
		return cond.Status == metav1.ConditionTrue && strings.Contains(cond.Message, "reaches no further node")
	}))
	if c.Node(1).Spec.State == api.StateStopped {
		t.Error("node 1 is stopped though nobody wants that any more")
	}
	c.ExpectUntouched(pods)
	// Back to where it was: the same nodes are wanted again.
	c.Edit(func(s *api.KafkaClusterSpec) { s.Pools[0].Remove, s.Pools[0].Replicas = nil, 4 })
	c.WaitReady()
}

func secondNodeLeaves(t *testing.T, c *stand.Cluster) {
	t.Helper()
	const id = 1
	claim := claimOf(t, c, id)
	traffic := c.Traffic("shrunk")
	c.Eventually("records flow", time.Minute, traffic.GoesOn())
	began := time.Now()
	castellan(t, c, "scale", c.Name, "--remove", fmt.Sprint(id))
	scaled(t, c)
	t.Logf("node %d has left after %s", id, time.Since(began).Round(time.Second))
	c.WaitReady()
	c.Eventually("its object is gone", time.Minute, c.Gone(&api.KafkaNode{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: kube.NodeName(c.Name, id)}}))
	c.Eventually("its StatefulSet is gone", time.Minute, c.Gone(&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: kube.NodeName(c.Name, id)}}))
	c.Eventually("its pod is gone", time.Minute, c.Gone(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: stand.PodName(c.Name, id)}}))
	var kept corev1.PersistentVolumeClaim
	if err := c.Client().Get(t.Context(), types.NamespacedName{Namespace: c.Namespace, Name: claim}, &kept); err != nil {
		t.Errorf("its data is not kept: %v", err)
	}
	if on := replicasOn(t, c, id); len(on) > 0 {
		t.Errorf("it still is a replica of %v", on)
	}
	voters := c.Object().Status.Quorum.Voters
	if slices.Contains(voters, id) || len(voters) != 3 {
		t.Errorf("the voters are %v", voters)
	}
	c.ExpectMinISR(traffic.End())
}
