package stand

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kube"
)

const poll = 200 * time.Millisecond

// Bounds of what a test waits for, wide enough for a busy machine of two cores.
const (
	ReadyTimeout = 4 * time.Minute
	RollTimeout  = 6 * time.Minute
)

// Fact looks at how things are. Nil means that it holds; the error says how things are instead.
type Fact func(ctx context.Context) error

// Eventually waits until a fact holds, and fails the test with what was last seen when it does not in time. It returns
// how long that took.
func (k *Kubernetes) Eventually(what string, within time.Duration, fact Fact) time.Duration {
	k.tb.Helper()
	began := time.Now()
	if err := k.Within(within, fact); err != nil {
		k.tb.Fatalf("%s: not within %s; last seen: %v", what, within, err)
	}
	return time.Since(began)
}

// Within waits until a fact holds, and returns what was last seen when it does not in time.
func (k *Kubernetes) Within(within time.Duration, fact Fact) error {
	k.tb.Helper()
	ctx, cancel := context.WithTimeout(k.tb.Context(), within)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var last error
	for {
		err := fact(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // what the end of ctx broke off says nothing
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}

// Throughout fails the test at the first moment at which a fact does not hold.
func (k *Kubernetes) Throughout(what string, during time.Duration, fact Fact) {
	k.tb.Helper()
	end := time.NewTimer(during)
	defer end.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if err := fact(k.tb.Context()); err != nil {
			k.tb.Fatalf("%s: %v", what, err)
		}
		select {
		case <-end.C:
			return
		case <-tick.C:
		}
	}
}

// All is the fact that each of some facts holds.
func All(facts ...Fact) Fact {
	return func(ctx context.Context) error {
		for _, fact := range facts {
			if err := fact(ctx); err != nil {
				return err
			}
		}
		return nil
	}
}

// Gone is the fact that an object does not exist.
func (k *Kubernetes) Gone(object client.Object) Fact {
	k.tb.Helper()
	c := k.Client()
	return func(ctx context.Context) error {
		err := c.Get(ctx, client.ObjectKeyFromObject(object), object)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %T %s: %w", object, object.GetName(), err)
		}
		return fmt.Errorf("%T %s still exists", object, object.GetName())
	}
}

// Object is the KafkaCluster as it is now.
func (c *Cluster) Object() *api.KafkaCluster {
	c.tb.Helper()
	k := &api.KafkaCluster{}
	if err := c.Client().Get(c.tb.Context(), c.key(), k); err != nil {
		c.tb.Fatalf("read KafkaCluster %s: %v", c.key(), err)
	}
	return k
}

// Nodes are the cluster's KafkaNodes by node id.
func (c *Cluster) Nodes() []api.KafkaNode {
	c.tb.Helper()
	nodes, err := c.nodes(c.tb.Context(), c.Client())
	if err != nil {
		c.tb.Fatal(err)
	}
	return nodes
}

// Node is one of Nodes.
func (c *Cluster) Node(id int32) *api.KafkaNode {
	c.tb.Helper()
	n := &api.KafkaNode{}
	if err := c.Client().Get(c.tb.Context(), types.NamespacedName{Namespace: c.Namespace, Name: kube.NodeName(c.Name, id)}, n); err != nil {
		c.tb.Fatalf("read the KafkaNode of node %d: %v", id, err)
	}
	return n
}

func (c *Cluster) nodes(ctx context.Context, from client.Client) ([]api.KafkaNode, error) {
	var list api.KafkaNodeList
	if err := from.List(ctx, &list, client.InNamespace(c.Namespace)); err != nil {
		return nil, fmt.Errorf("list the KafkaNodes: %w", err)
	}
	nodes := slices.DeleteFunc(list.Items, func(n api.KafkaNode) bool { return n.Spec.ClusterName != c.Name })
	slices.SortFunc(nodes, func(a, b api.KafkaNode) int { return int(a.Spec.NodeID - b.Spec.NodeID) })
	return nodes, nil
}

// NodeSays is the fact that the status of a KafkaNode is as a test wants it.
func (c *Cluster) NodeSays(id int32, ok func(api.KafkaNodeStatus) bool) Fact {
	c.tb.Helper()
	from := c.Client()
	return func(ctx context.Context) error {
		n := &api.KafkaNode{}
		if err := from.Get(ctx, types.NamespacedName{Namespace: c.Namespace, Name: kube.NodeName(c.Name, id)}, n); err != nil {
			return fmt.Errorf("read the KafkaNode of node %d: %w", id, err)
		}
		if s := n.Status; !ok(s) {
			return fmt.Errorf("node %d is %s, ready %t: %s: %s", id, s.State, s.Ready, s.Reason, s.Message)
		}
		return nil
	}
}

// Says is the fact that a condition of the KafkaCluster is as a test wants it, for its newest generation.
func (c *Cluster) Says(condition string, ok func(metav1.Condition) bool) Fact {
	c.tb.Helper()
	from := c.Client()
	return func(ctx context.Context) error {
		k := &api.KafkaCluster{}
		if err := from.Get(ctx, c.key(), k); err != nil {
			return fmt.Errorf("read KafkaCluster %s: %w", c.key(), err)
		}
		now := meta.FindStatusCondition(k.Status.Conditions, condition)
		switch {
		case now == nil:
			return fmt.Errorf("no condition %s yet", condition)
		case now.ObservedGeneration != k.Generation:
			return fmt.Errorf("generation %d is not looked at yet, %d is", k.Generation, now.ObservedGeneration)
		case !ok(*now):
			return fmt.Errorf("%s is %s: %s: %s", condition, now.Status, now.Reason, now.Message)
		}
		return nil
	}
}

// Ready is the fact that the cluster is Ready with everything its newest spec says.
func (c *Cluster) Ready() Fact {
	c.tb.Helper()
	from := c.Client()
	says := c.Says(api.ConditionReady, func(now metav1.Condition) bool { return now.Status == metav1.ConditionTrue })
	return func(ctx context.Context) error {
		if err := says(ctx); err != nil {
			return err
		}
		k := &api.KafkaCluster{}
		if err := from.Get(ctx, c.key(), k); err != nil {
			return fmt.Errorf("read KafkaCluster %s: %w", c.key(), err)
		}
		if n := k.Status.Nodes; n.Ready != n.Desired || n.Updated != n.Desired {
			return fmt.Errorf("it says Ready with %d ready and %d updated of %d nodes", n.Ready, n.Updated, n.Desired)
		}
		return nil
	}
}

// WaitReady waits until the cluster is Ready with everything its newest spec says.
func (c *Cluster) WaitReady() time.Duration {
	c.tb.Helper()
	return c.Eventually("KafkaCluster "+c.key().String()+" is Ready", ReadyTimeout, c.Ready())
}

// WaitRolled is WaitReady after a change that restarts every node.
func (c *Cluster) WaitRolled() time.Duration {
	c.tb.Helper()
	return c.Eventually("KafkaCluster "+c.key().String()+" is Ready again", RollTimeout, c.Ready())
}

// Pod of a node as it is now.
func (c *Cluster) Pod(id int32) *corev1.Pod {
	c.tb.Helper()
	p := &corev1.Pod{}
	if err := c.Client().Get(c.tb.Context(), c.podKey(id), p); err != nil {
		c.tb.Fatalf("read the pod of node %d: %v", id, err)
	}
	return p
}

func (c *Cluster) podKey(id int32) types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: PodName(c.Name, id)}
}

// PodName is the name of the pod of a node.
func PodName(cluster string, id int32) string { return kube.NodeName(cluster, id) + "-0" }

// PodReady is the fact that a node has a ready pod other than that of a UID.
func (c *Cluster) PodReady(id int32, but types.UID) Fact {
	c.tb.Helper()
	from := c.Client()
	return func(ctx context.Context) error {
		p := &corev1.Pod{}
		if err := from.Get(ctx, c.podKey(id), p); err != nil {
			return fmt.Errorf("read the pod of node %d: %w", id, err)
		}
		if p.UID == but {
			return fmt.Errorf("the pod of node %d is still the one from before", id)
		}
		if !ready(p) {
			return fmt.Errorf("the pod of node %d is %s on %q and not ready", id, p.Status.Phase, p.Spec.NodeName)
		}
		return nil
	}
}

func ready(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// MachineReady is the fact that a machine is a Kubernetes node that is ready, or not.
func (k *Kubernetes) MachineReady(machine string, want bool) Fact {
	k.tb.Helper()
	from := k.Client()
	return func(ctx context.Context) error {
		n := &corev1.Node{}
		if err := from.Get(ctx, types.NamespacedName{Name: machine}, n); err != nil {
			return fmt.Errorf("read the node %s: %w", machine, err)
		}
		is := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
		if is != want {
			return fmt.Errorf("the node %s is ready: %t", machine, is)
		}
		return nil
	}
}

// Deployed is the fact that a Deployment runs its newest template with all replicas.
func (k *Kubernetes) Deployed(namespace, name string) Fact {
	k.tb.Helper()
	from := k.Client()
	return func(ctx context.Context) error {
		d := &appsv1.Deployment{}
		if err := from.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, d); err != nil {
			return fmt.Errorf("read the Deployment %s/%s: %w", namespace, name, err)
		}
		want, s := *d.Spec.Replicas, d.Status
		if s.ObservedGeneration != d.Generation || s.UpdatedReplicas != want || s.AvailableReplicas != want || s.Replicas != want {
			return fmt.Errorf("the Deployment %s has %d replicas, %d new ones, %d available, and wants %d", name, s.Replicas, s.UpdatedReplicas, s.AvailableReplicas, want)
		}
		return nil
	}
}
