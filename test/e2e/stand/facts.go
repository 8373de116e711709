package stand

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

const poll = 200 * time.Millisecond

// Fact looks at how things are. Nil means that it holds; the error says how things are instead.
type Fact func(ctx context.Context) error

// Eventually waits until a fact holds, and fails the test with what was last seen when it does not in time. It returns
// how long that took.
func (s *Stand) Eventually(what string, within time.Duration, fact Fact) time.Duration {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(s.tb.Context(), within)
	defer cancel()
	began := time.Now()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var last error
	for {
		err := fact(ctx)
		if err == nil {
			return time.Since(began)
		}
		if ctx.Err() == nil || last == nil {
			last = err // what the end of ctx broke off says nothing
		}
		select {
		case <-ctx.Done():
			s.tb.Fatalf("%s: not within %s; last seen: %v", what, within, last)
		case <-tick.C:
		}
	}
}

// Throughout fails the test at the first moment at which a fact does not hold.
func (s *Stand) Throughout(what string, during time.Duration, fact Fact) {
	s.tb.Helper()
	end := time.NewTimer(during)
	defer end.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if err := fact(s.tb.Context()); err != nil {
			s.tb.Fatalf("%s: %v", what, err)
		}
		select {
		case <-end.C:
			return
		case <-tick.C:
		}
	}
}

// Cluster is the stand's KafkaCluster as it is now.
func (s *Stand) Cluster() *api.KafkaCluster {
	s.tb.Helper()
	c := &api.KafkaCluster{}
	if err := s.Client().Get(s.tb.Context(), s.cluster, c); err != nil {
		s.tb.Fatalf("read KafkaCluster %s: %v", s.cluster, err)
	}
	return c
}

// Nodes are the KafkaNodes of the stand's cluster, by node id.
func (s *Stand) Nodes() []api.KafkaNode {
	s.tb.Helper()
	nodes, err := s.nodes(s.tb.Context(), s.Client())
	if err != nil {
		s.tb.Fatal(err)
	}
	return nodes
}

// Node is one of Nodes.
func (s *Stand) Node(id int32) *api.KafkaNode {
	s.tb.Helper()
	nodes := s.Nodes()
	for i := range nodes {
		if nodes[i].Spec.NodeID == id {
			return &nodes[i]
		}
	}
	s.tb.Fatalf("there is no KafkaNode of node %d", id)
	return nil
}

func (s *Stand) nodes(ctx context.Context, c client.Client) ([]api.KafkaNode, error) {
	var list api.KafkaNodeList
	if err := c.List(ctx, &list, client.InNamespace(s.cluster.Namespace)); err != nil {
		return nil, fmt.Errorf("list the KafkaNodes: %w", err)
	}
	nodes := slices.DeleteFunc(list.Items, func(n api.KafkaNode) bool { return n.Spec.ClusterName != s.cluster.Name })
	slices.SortFunc(nodes, func(a, b api.KafkaNode) int { return int(a.Spec.NodeID - b.Spec.NodeID) })
	return nodes, nil
}

// WaitReady waits until the cluster is Ready with everything its newest spec says.
func (s *Stand) WaitReady() time.Duration {
	s.tb.Helper()
	c := s.Client()
	return s.Eventually("KafkaCluster "+s.cluster.String()+" is Ready", ReadyTimeout, func(ctx context.Context) error {
		return s.ready(ctx, c)
	})
}

func (s *Stand) ready(ctx context.Context, c client.Client) error {
	var k api.KafkaCluster
	if err := c.Get(ctx, s.cluster, &k); err != nil {
		return fmt.Errorf("read KafkaCluster %s: %w", s.cluster, err)
	}
	r := meta.FindStatusCondition(k.Status.Conditions, api.ConditionReady)
	n := k.Status.Nodes
	switch {
	case r == nil:
		return fmt.Errorf("no condition %s yet", api.ConditionReady)
	case r.ObservedGeneration != k.Generation:
		return fmt.Errorf("generation %d is not looked at yet, %d is", k.Generation, r.ObservedGeneration)
	case r.Status != metav1.ConditionTrue:
		return fmt.Errorf("%s: %s (%d of %d nodes ready)", r.Reason, r.Message, n.Ready, n.Desired)
	case n.Ready != n.Desired || n.Updated != n.Desired:
		return fmt.Errorf("it says Ready with %d ready and %d updated of %d nodes", n.Ready, n.Updated, n.Desired)
	}
	return nil
}

// Gone is the fact that an object does not exist.
func (s *Stand) Gone(object client.Object) Fact {
	s.tb.Helper()
	c := s.Client()
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
