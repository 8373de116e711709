package forward

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Labels of the pods behind <cluster>-bootstrap.
const (
	labelCluster = "castellan.dev/cluster"
	labelBroker  = "castellan.dev/role-broker"
	bootstrap    = "-bootstrap"
)

// pod is a pod by name.
type pod struct{ namespace, name string }

func (p pod) String() string { return p.namespace + "/" + p.name }

// end is where a connection leads to.
type end struct {
	pod
	port int32
}

// target is an address in the cluster's DNS. Without pod it is the Service itself.
type target struct {
	pod, service, namespace string
	port                    int32
}

// parse reads host:port; ok is false when host is no name of a Service or of a pod behind one.
func parse(address string) (_ target, ok bool, _ error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return target{}, false, fmt.Errorf("address %q is not host:port: %w", address, err)
	}
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	at := slices.Index(parts, "svc")
	if at != 2 && at != 3 || slices.Contains(parts, "") {
		return target{}, false, nil
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return target{}, false, fmt.Errorf("address %q has no port from 1 to 65535", address)
	}
	t := target{service: parts[at-2], namespace: parts[at-1], port: int32(port)}
	if at == 3 {
		t.pod = parts[0]
	}
	return t, true, nil
}

// resolve returns where to try, in order.
func (d *Dialer) resolve(ctx context.Context, t target) ([]end, error) {
	if t.pod != "" {
		return []end{{pod{t.namespace, t.pod}, t.port}}, nil
	}
	if cluster, ok := strings.CutSuffix(t.service, bootstrap); ok {
		// Brokers listen on the port that their bootstrap Service has.
		ends, _, err := d.ready(ctx, t, labels.Set{labelCluster: cluster, labelBroker: "true"}, intstr.FromInt32(t.port))
		if err != nil || len(ends) > 0 {
			return ends, err
		}
	}
	service, err := d.client.CoreV1().Services(t.namespace).Get(ctx, t.service, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is neither a Service %s/%s nor a ready pod for it: %w", t.namespace, t.service, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read Service %s/%s: %w", t.namespace, t.service, err)
	}
	port, err := targetPort(service, t.port)
	if err != nil {
		return nil, err
	}
	ends, waiting, err := d.ready(ctx, t, service.Spec.Selector, port)
	if err == nil && len(ends) == 0 {
		err = fmt.Errorf("no pod behind Service %s/%s is ready (not ready: %s)", t.namespace, t.service, orNone(waiting))
	}
	return ends, err
}

func targetPort(service *corev1.Service, port int32) (intstr.IntOrString, error) {
	if len(service.Spec.Selector) == 0 {
		return intstr.IntOrString{}, fmt.Errorf("the Service %s/%s selects no pods, so nothing can be forwarded to it", service.Namespace, service.Name)
	}
	var has []string
	for _, p := range service.Spec.Ports {
		if p.Port == port {
			if p.TargetPort == (intstr.IntOrString{}) {
				return intstr.FromInt32(port), nil
			}
			return p.TargetPort, nil
		}
		has = append(has, strconv.Itoa(int(p.Port)))
	}
	if service.Spec.ClusterIP == corev1.ClusterIPNone {
		return intstr.FromInt32(port), nil // a headless one is only a name
	}
	return intstr.IntOrString{}, fmt.Errorf("the Service %s/%s has no port %d; it has: %s", service.Namespace, service.Name, port, strings.Join(has, ", "))
}

// ready lists the ready pods with these labels, beginning with another one each time, and
// names those that are not ready.
func (d *Dialer) ready(ctx context.Context, t target, set labels.Set, port intstr.IntOrString) (_ []end, waiting []string, _ error) {
	list, err := d.client.CoreV1().Pods(t.namespace).List(ctx, metav1.ListOptions{LabelSelector: set.String()})
	if err != nil {
		return nil, nil, fmt.Errorf("list the pods with labels %s of namespace %s: %w", set, t.namespace, err)
	}
	var ends []end
	for i := range list.Items {
		p := &list.Items[i]
		number, ok := portOf(p, port)
		if !isReady(p) || !ok {
			waiting = append(waiting, p.Name)
			continue
		}
		ends = append(ends, end{pod{p.Namespace, p.Name}, number})
	}
	if len(ends) > 1 {
		first := int(d.turn.Add(1)-1) % len(ends)
		ends = append(ends[first:], ends[:first]...)
	}
	return ends, waiting, nil
}

func portOf(p *corev1.Pod, port intstr.IntOrString) (int32, bool) {
	if port.Type == intstr.Int {
		return port.IntVal, true
	}
	for _, c := range p.Spec.Containers {
		for _, declared := range c.Ports {
			if declared.Name == port.StrVal {
				return declared.ContainerPort, true
			}
		}
	}
	return 0, false
}

func isReady(p *corev1.Pod) bool {
	if p.DeletionTimestamp != nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "there is none"
	}
	return strings.Join(names, ", ")
}
