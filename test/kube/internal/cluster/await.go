package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"castellan.dev/castellan/test/kube/internal/csi/driver"
)

const (
	pollInterval = 300 * time.Millisecond
	dnsReplicas  = 2 // as addons.yaml says
)

// poll calls check until it succeeds; its last error says why not when time is over.
func poll(ctx context.Context, limit time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last seen: %w)", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// awaitAll waits for the parts in order; what fails is told with the logs that matter.
func (c *Cluster) awaitAll(ctx context.Context) error {
	// What a kept cluster says of the time before its last end counts for nothing. API times are whole seconds.
	begun := time.Now().Truncate(time.Second)
	var names []string
	for _, p := range places(c.config.Nodes) {
		names = append(names, p.name())
	}
	nodeLogs := func(process string) []string {
		var logs []string
		for _, n := range names {
			logs = append(logs, c.dir.log(n, process))
		}
		return logs
	}
	for _, stage := range []struct {
		name  string
		check func(context.Context) error
		logs  []string
	}{
		{"API server", c.apiReady, []string{c.dir.log(controlPlane, "machine"), c.dir.log(controlPlane, "etcd"), c.dir.log(controlPlane, "kube-apiserver")}},
		{"DNS and storage classes", c.applyAddons, []string{c.dir.log(controlPlane, "kube-apiserver")}},
		{"nodes", func(ctx context.Context) error { return nodesReady(ctx, c.client, names, begun) }, append(append(nodeLogs("machine"), nodeLogs("kubelet")...), nodeLogs("containerd")...)},
		{"volumes", func(ctx context.Context) error { return driverReady(ctx, c.client, names) }, nodeLogs("csi")},
		{"DNS", func(ctx context.Context) error { return dnsReady(ctx, c.client, begun) }, append(nodeLogs("kubelet"), c.dir.log(controlPlane, "kube-scheduler"))},
	} {
		entered := time.Now()
		if err := poll(ctx, c.config.Timeout, stage.check); err != nil {
			var logs strings.Builder
			for _, path := range stage.logs {
				logs.WriteString(tail(path, tailLines))
			}
			return fmt.Errorf("%s not ready within %s: %w\n%s", stage.name, c.config.Timeout, err, logs.String())
		}
		c.say("%s ready (%s)", stage.name, time.Since(entered).Round(100*time.Millisecond))
	}
	return nil
}

func (c *Cluster) apiReady(ctx context.Context) error {
	return c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() //nolint:wrapcheck // shown as it is
}

func nodesReady(ctx context.Context, client kubernetes.Interface, names []string, since time.Time) error {
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	missing := slices.Clone(names)
	for _, n := range nodes.Items {
		if isReady(n, since) {
			missing = slices.DeleteFunc(missing, func(m string) bool { return m == n.Name })
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not Ready: %s", strings.Join(missing, ", "))
	}
	return nil
}

// isReady reports whether the kubelet said so since that time.
func isReady(n corev1.Node, since time.Time) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && !c.LastHeartbeatTime.Time.Before(since)
	})
}

func driverReady(ctx context.Context, client kubernetes.Interface, names []string) error {
	for _, name := range names {
		node, err := client.StorageV1().CSINodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("the CSI driver of %s: %w", name, err)
		}
		if len(node.Spec.Drivers) == 0 || node.Spec.Drivers[0].Name != driver.Name {
			return fmt.Errorf("the CSI driver of %s is not registered", name)
		}
	}
	return nil
}

func dnsReady(ctx context.Context, client kubernetes.Interface, since time.Time) error {
	pods, err := client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: "k8s-app=kube-dns"})
	if err != nil {
		return fmt.Errorf("list the pods of CoreDNS: %w", err)
	}
	ready := 0
	for _, p := range pods.Items {
		for _, s := range p.Status.ContainerStatuses {
			if s.Ready && s.State.Running != nil && !s.State.Running.StartedAt.Time.Before(since) {
				ready++
			}
		}
	}
	if ready < dnsReplicas {
		return fmt.Errorf("CoreDNS: %d of %d pods ready%s", ready, dnsReplicas, podTrouble(pods.Items))
	}
	return nil
}

// podTrouble says what keeps pods from being ready, as far as they tell.
func podTrouble(pods []corev1.Pod) string {
	var all strings.Builder
	for _, p := range pods {
		for _, s := range p.Status.ContainerStatuses {
			if s.State.Waiting != nil {
				fmt.Fprintf(&all, "; %s: %s %s", p.Name, s.State.Waiting.Reason, s.State.Waiting.Message)
			}
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status != corev1.ConditionTrue {
				fmt.Fprintf(&all, "; %s: %s", p.Name, c.Message)
			}
		}
	}
	return all.String()
}
