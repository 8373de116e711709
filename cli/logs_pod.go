package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kube"
)

// nodePod is the pod of a KafkaNode.
type nodePod struct {
	config *rest.Config
	node   *api.KafkaNode
}

// findPod looks for the node among those that are pods; nothing when it is none.
func (l *logOptions) findPod(ctx context.Context, name string) (*nodePod, error) {
	c, config, namespace, err := l.objects()
	if err != nil {
		return nil, err
	}
	node, err := findNode(ctx, c, namespace, l.cluster, name)
	if err != nil || !isPod(node) {
		return nil, err
	}
	return &nodePod{config: config, node: node}, nil
}

// isPod says whether a node runs as a pod.
func isPod(n *api.KafkaNode) bool {
	return n.Spec.Host == "" && n.Spec.Process.Image != ""
}

// findNode reads a KafkaNode by its name, by CLUSTER/ID, or by its id.
func findNode(ctx context.Context, c client.Client, namespace, cluster, name string) (*api.KafkaNode, error) {
	if before, id, ok := strings.Cut(name, "/"); ok {
		cluster, name = before, id
	}
	var list api.KafkaNodeList
	if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list the KafkaNodes of namespace %s: %w", namespace, err)
	}
	var found []*api.KafkaNode
	var all, names []string
	for i := range list.Items {
		n := &list.Items[i]
		if cluster != "" && n.Spec.ClusterName != cluster {
			continue
		}
		all = append(all, n.Name)
		if n.Name == name || strconv.Itoa(int(n.Spec.NodeID)) == name {
			found, names = append(found, n), append(names, n.Name)
		}
	}
	slices.Sort(all)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		there := "there is none"
		if len(all) > 0 {
			there = "there are: " + strings.Join(all, ", ")
		}
		return nil, &NotFoundError{Message: fmt.Sprintf("no KafkaNode %s in namespace %s; %s", name, namespace, there)}
	default:
		return nil, usagef("several KafkaNodes have the id %s: name one of %s", name, strings.Join(names, ", "))
	}
}

// printPod prints the log of the pod's container, or says why there is none.
func (l *logOptions) printPod(ctx context.Context, p *nodePod, err error) error {
	if err != nil {
		return err
	}
	if l.supervisor {
		return usagef("node %s is a pod, where Kafka and its supervisor write one log: leave --supervisor out", p.node.Name)
	}
	clientset, err := kubernetes.NewForConfig(p.config)
	if err != nil {
		return fmt.Errorf("connect to the API server: %w", err)
	}
	pods := clientset.CoreV1().Pods(p.node.Namespace)
	name := kube.PodName(p.node.Spec.ClusterName, p.node.Spec.NodeID)
	pod, err := pods.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return &NotFoundError{Message: fmt.Sprintf("node %s has no pod now: %s %s", p.node.Name, p.node.Status.Reason, p.node.Status.Message)}
	}
	if err != nil {
		return fmt.Errorf("read the pod of node %s: %w", p.node.Name, err)
	}
	options := &corev1.PodLogOptions{Container: logContainer(pod), Follow: l.follow, Previous: l.previous}
	if l.tail >= 0 {
		options.TailLines = new(int64(l.tail))
	}
	stream, err := pods.GetLogs(name, options).Stream(ctx)
	if err != nil {
		return l.noLog(p.node, pod, err)
	}
	defer func() { _ = stream.Close() }()
	if _, err := io.Copy(l.Out, stream); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("print the log of node %s: %w", p.node.Name, err)
	}
	return nil
}

// logContainer is Kafka's container, or the one before it while that is still at work.
func logContainer(pod *corev1.Pod) string {
	for _, s := range pod.Status.InitContainerStatuses {
		if s.State.Running != nil || s.State.Terminated != nil && s.State.Terminated.ExitCode != 0 {
			return s.Name
		}
	}
	return kube.KafkaContainer
}

// noLog says why there is no log in the words of the pod's own containers.
func (l *logOptions) noLog(node *api.KafkaNode, pod *corev1.Pod, err error) error {
	if l.previous && apierrors.IsBadRequest(err) {
		return &NotFoundError{Message: fmt.Sprintf("the container of node %s was not restarted in its pod: there is no log of before (%v)", node.Name, err)}
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if w := s.State.Waiting; w != nil && w.Reason != "PodInitializing" {
			return &NotFoundError{Message: fmt.Sprintf("node %s has no log yet: container %s waits: %s %s", node.Name, s.Name, w.Reason, w.Message)}
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return &NotFoundError{Message: fmt.Sprintf("node %s has no log yet: its pod is not scheduled: %s", node.Name, c.Message)}
		}
	}
	return fmt.Errorf("read the log of node %s: %w", node.Name, err)
}
