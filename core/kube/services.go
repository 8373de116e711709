package kube

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "castellan.dev/castellan/api/v1alpha1"
)

// exposures are the Services of a node's exposed listeners. Clients go straight to the
// machine that the pod is on (Local), so that Kafka sees their own addresses, which its
// quotas and ACLs count by; and the node is found before it is ready, as another broker is.
func exposures(node *api.KafkaNode) []*corev1.Service {
	var out []*corev1.Service
	for i := range node.Spec.Exposures {
		e := &node.Spec.Exposures[i]
		port, ok := node.Spec.Ports[e.Listener]
		if !ok {
			continue // the plan gives the port before the process gets the listener
		}
		service := &corev1.Service{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: meta(node, ExposureService(node.Spec.ClusterName, node.Spec.NodeID, e.Listener)),
			Spec: corev1.ServiceSpec{
				Type: serviceType(e.Type), Selector: NodeSelector(node.Spec.ClusterName, node.Spec.NodeID),
				Ports:                    []corev1.ServicePort{servicePort(e.Listener, port, e.NodePort)},
				ExternalTrafficPolicy:    corev1.ServiceExternalTrafficPolicyLocal,
				PublishNotReadyAddresses: true,
			},
		}
		service.Annotations = e.Annotations
		setClass(&service.Spec, e.LoadBalancerClass)
		out = append(out, service)
	}
	return out
}

func serviceType(e api.ExposureType) corev1.ServiceType {
	if e == api.ExposureLoadBalancer {
		return corev1.ServiceTypeLoadBalancer
	}
	return corev1.ServiceTypeNodePort
}

func setClass(spec *corev1.ServiceSpec, class string) {
	if class != "" && spec.Type == corev1.ServiceTypeLoadBalancer {
		spec.LoadBalancerClass = &class
	}
}

func servicePort(name string, port, nodePort int32) corev1.ServicePort {
	return corev1.ServicePort{Name: strings.ToLower(name), Protocol: corev1.ProtocolTCP, Port: port, TargetPort: intstr.FromInt32(port), NodePort: nodePort}
}

// exposureStatus is what Kubernetes gave the Services of a node's listeners.
func exposureStatus(node *api.KafkaNode, services []corev1.Service) []api.ExposureStatus {
	var out []api.ExposureStatus
	for _, e := range node.Spec.Exposures {
		name := ExposureService(node.Spec.ClusterName, node.Spec.NodeID, e.Listener)
		at := slices.IndexFunc(services, func(s corev1.Service) bool { return s.Name == name })
		if at >= 0 {
			out = append(out, Given(e.Listener, services[at]))
		}
	}
	return out
}

// Given is what Kubernetes gave the Service of an exposed listener.
func Given(listener string, service corev1.Service) api.ExposureStatus {
	out := api.ExposureStatus{Listener: listener}
	for _, p := range service.Spec.Ports {
		if p.Name == strings.ToLower(listener) {
			out.NodePort = p.NodePort
		}
	}
	for _, i := range service.Status.LoadBalancer.Ingress {
		if out.Address == "" {
			out.Address = cmp.Or(i.Hostname, i.IP)
		}
	}
	return out
}
