package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// await follows a cluster until it is Ready, or says at the deadline what it waits for.
func (s *session) await(ctx context.Context, key client.ObjectKey) (*api.KafkaCluster, error) {
	last := &api.KafkaCluster{}
	doing, told := "waiting for the operator", map[string]bool{}
	for {
		c := &api.KafkaCluster{}
		err := s.client.Get(ctx, key, c)
		switch {
		case err == nil:
			last = c
			if isReady(c) || c.Spec.State == api.StateStopped {
				return c, nil
			}
			if refused := conditionNow(c, api.ConditionAccepted, metav1.ConditionFalse); refused != nil {
				return nil, &RefusedError{Message: fmt.Sprintf("the spec of KafkaCluster %s is not accepted: %s", key, refused.Message)}
			}
			for _, problem := range s.problems(ctx, c) {
				if !told[problem.id] {
					told[problem.id] = true
					s.Done("KafkaCluster %s: %s", key, problem.text)
				}
			}
			doing = s.describe(ctx, c)
		case absent(err):
			return nil, fmt.Errorf("KafkaCluster %s was deleted", key)
		case ctx.Err() == nil:
			doing = fmt.Sprintf("the API server does not answer: %v", err)
		}
		s.Doing("KafkaCluster %s: %s", key, doing)
		if !pause(ctx) {
			return nil, s.unfinished(ctx, key, last)
		}
	}
}

// unfinished says how far a cluster is when waiting ends, and what its pods were told.
func (s *session) unfinished(ctx context.Context, key client.ObjectKey, c *api.KafkaCluster) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("KafkaCluster %s is not Ready yet, and goes on by itself: %w", key, ctx.Err())
	}
	return fmt.Errorf("KafkaCluster %s is not Ready after %s: %w; it goes on by itself, see `castellan status %s -n %s --context %s`\n%s",
		key, s.Timeout, ctx.Err(), key.Name, key.Namespace, s.Context, s.trouble(context.WithoutCancel(ctx), c))
}

func isReady(c *api.KafkaCluster) bool {
	return conditionNow(c, api.ConditionReady, metav1.ConditionTrue) != nil
}

// conditionNow returns a condition that speaks of the newest generation and has that status.
func conditionNow(c *api.KafkaCluster, kind string, status metav1.ConditionStatus) *metav1.Condition {
	condition := meta.FindStatusCondition(c.Status.Conditions, kind)
	if condition == nil || condition.Status != status || condition.ObservedGeneration != c.Generation {
		return nil
	}
	return condition
}

// problem is something that may not go away by itself; its id stays while its words change.
type problem struct{ id, text string }

// problems are what a person may have to do something about.
func (s *session) problems(ctx context.Context, c *api.KafkaCluster) []problem {
	var found []problem
	if stalled := conditionNow(c, api.ConditionStalled, metav1.ConditionTrue); stalled != nil {
		found = append(found, problem{stalled.Reason + stalled.Message, stalled.Message})
	}
	for _, n := range s.waiting(ctx, c) {
		if n.Status.State == api.NodeFailed || n.Status.Reason == corev1.PodReasonUnschedulable {
			found = append(found, problem{n.Name + n.Status.Reason, describeNode(&n)})
		}
	}
	return found
}

// nodes are the nodes of a cluster by id.
func (s *session) nodes(ctx context.Context, c *api.KafkaCluster) []api.KafkaNode {
	var list api.KafkaNodeList
	if err := s.client.List(ctx, &list, client.InNamespace(c.Namespace)); err != nil {
		return nil // it is asked again soon
	}
	nodes := slices.DeleteFunc(list.Items, func(n api.KafkaNode) bool { return n.Spec.ClusterName != c.Name })
	slices.SortFunc(nodes, func(a, b api.KafkaNode) int { return cmp.Compare(a.Spec.NodeID, b.Spec.NodeID) })
	return nodes
}

// waiting are those that are not ready.
func (s *session) waiting(ctx context.Context, c *api.KafkaCluster) []api.KafkaNode {
	return slices.DeleteFunc(s.nodes(ctx, c), func(n api.KafkaNode) bool { return n.Status.Ready })
}

// describe says in a line which nodes a cluster waits for and what it does.
func (s *session) describe(ctx context.Context, c *api.KafkaCluster) string {
	if len(c.Status.Conditions) == 0 {
		return "waiting for the operator to look at it"
	}
	nodes := s.nodes(ctx, c)
	ready := 0
	parts := []string{""}
	for _, n := range nodes {
		if n.Status.Ready {
			ready++
			continue
		}
		parts = append(parts, fmt.Sprintf("%d %s", n.Spec.NodeID, cmp.Or(n.Status.Reason, string(n.Status.State), string(api.NodePending))))
	}
	parts[0] = fmt.Sprintf("%d of %d nodes ready", ready, max(int(c.Status.Nodes.Desired), len(nodes)))
	text := strings.Join(parts, ", ")
	if now := meta.FindStatusCondition(c.Status.Conditions, api.ConditionReconciling); now != nil && now.Status == metav1.ConditionTrue {
		return text + "; " + now.Message
	}
	if c.Status.Doing != "" {
		text += "; " + c.Status.Doing
	}
	return text
}

func describeNode(n *api.KafkaNode) string {
	text := fmt.Sprintf("node %d %s", n.Spec.NodeID, cmp.Or(n.Status.State, api.NodePending))
	if n.Status.Reason != "" {
		text += " (" + n.Status.Reason + ")"
	}
	if n.Status.Message != "" {
		text += ": " + n.Status.Message
	}
	return text
}

// trouble is everything that is known of why a cluster is not Ready: its conditions, what
// its nodes wait for, and what was last told of their pods and volumes.
func (s *session) trouble(ctx context.Context, c *api.KafkaCluster) string {
	if c.Name == "" {
		return "  nothing is known of it"
	}
	var lines []string
	for _, condition := range c.Status.Conditions {
		bad := condition.Status != metav1.ConditionTrue
		if condition.Type == api.ConditionReconciling || condition.Type == api.ConditionStalled {
			bad = !bad
		}
		if bad {
			lines = append(lines, fmt.Sprintf("  %s=%s %s: %s", condition.Type, condition.Status, condition.Reason, condition.Message))
		}
	}
	if len(c.Status.Conditions) == 0 {
		lines = append(lines, "  the operator has not looked at it")
	}
	for _, n := range s.waiting(ctx, c) {
		lines = append(lines, "  "+describeNode(&n))
	}
	if events := s.warningEvents(ctx, c.Namespace, ofCluster(c.Name)); events != "" {
		lines = append(lines, events)
	}
	return strings.Join(lines, "\n")
}

// ofCluster knows the objects of a cluster's nodes by name: pods, claims, sets.
func ofCluster(cluster string) func(name string) bool {
	return func(name string) bool {
		return strings.HasPrefix(name, cluster+"-") || strings.Contains(name, "-"+cluster+"-")
	}
}

// lastEvents is how many warnings stand in a message.
const lastEvents = 10

// warningEvents are the last warnings of a namespace about certain objects.
func (s *session) warningEvents(ctx context.Context, namespace string, wanted func(name string) bool) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*poll)
	defer cancel()
	var list corev1.EventList
	if err := s.client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return fmt.Sprintf("  the events cannot be listed: %v", err)
	}
	var found []corev1.Event
	for _, e := range list.Items {
		if e.Type == corev1.EventTypeWarning && wanted(e.InvolvedObject.Name) {
			found = append(found, e)
		}
	}
	slices.SortStableFunc(found, func(a, b corev1.Event) int { return when(&a).Compare(when(&b).Time) })
	var lines []string
	for _, e := range found[max(0, len(found)-lastEvents):] {
		lines = append(lines, fmt.Sprintf("  %s %s %s: %s: %s", when(&e).UTC().Format("15:04:05"),
			strings.ToLower(e.InvolvedObject.Kind), e.InvolvedObject.Name, e.Reason, strings.Join(strings.Fields(e.Message), " ")))
	}
	return strings.Join(lines, "\n")
}

func when(e *corev1.Event) *metav1.Time {
	switch {
	case e.Series != nil:
		return &metav1.Time{Time: e.Series.LastObservedTime.Time}
	case !e.LastTimestamp.IsZero():
		return &e.LastTimestamp
	case !e.EventTime.IsZero():
		return &metav1.Time{Time: e.EventTime.Time}
	default:
		return &e.CreationTimestamp
	}
}
