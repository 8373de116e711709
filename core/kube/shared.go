package kube

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// SharedInput is what the objects of a whole cluster depend on.
type SharedInput struct {
	Namespace, Cluster string
	// UID of the KafkaCluster, the owner.
	UID       types.UID
	Listeners []api.Listener
	// BootstrapAnnotations of the Service to begin with, by listener, ready to use.
	BootstrapAnnotations map[string]map[string]string
	// BootstrapNodePorts that were once given, by listener.
	BootstrapNodePorts map[string]int32
	// Nodes is how many pods the cluster should have.
	Nodes int32
	// Spare says that any one of them, whichever it is, could be stopped now.
	Spare bool
}

// SharedObjects is what the nodes of a cluster share.
type SharedObjects struct {
	Services []*corev1.Service
	Budget   *policyv1.PodDisruptionBudget
}

// SharedFacts is what is found of it.
type SharedFacts struct {
	// Bootstrap is what the Services to begin with were given, by exposed listener.
	Bootstrap map[string]api.ExposureStatus
	// Claims are the newest PersistentVolumeClaims that exist, by node id and volume.
	Claims map[int32]map[string]string
	// Evicting are the ids of nodes, in ascending order, whose pods the budget let go and
	// that were not seen to end yet. It is known only with facts of this moment.
	Evicting []int32
}

// Evicting are the nodes whose pods a cluster's budget let go a moment ago.
func Evicting(cluster string, budget *policyv1.PodDisruptionBudget) []int32 {
	if budget == nil {
		return nil
	}
	var ids []int32
	for pod := range budget.Status.DisruptedPods {
		id, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(pod, cluster+"-"), "-0"), 10, 32)
		if err == nil && pod == PodName(cluster, int32(id)) {
			ids = append(ids, int32(id))
		}
	}
	slices.Sort(ids)
	return ids
}

// BudgetName is the name of the one PodDisruptionBudget.
func BudgetName(cluster string) string { return cluster }

// Exposed says whether a listener is reached through Services of its own.
func Exposed(l api.Listener) bool {
	return l.Exposure.Type == api.ExposureNodePort || l.Exposure.Type == api.ExposureLoadBalancer
}

// Shared says what a cluster needs beside its nodes.
func Shared(in SharedInput) SharedObjects {
	out := SharedObjects{Services: []*corev1.Service{headless(in)}, Budget: budget(in)}
	if len(in.Listeners) > 0 {
		out.Services = append(out.Services, bootstrap(in))
	}
	for _, l := range in.Listeners {
		if Exposed(l) {
			out.Services = append(out.Services, bootstrapExposure(in, l))
		}
	}
	return out
}

func sharedMeta(in SharedInput, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: in.Namespace, Name: name, Labels: ClusterLabels(in.Cluster),
		OwnerReferences: owner("KafkaCluster", in.Cluster, in.UID),
	}
}

func service(in SharedInput, name string, spec corev1.ServiceSpec) *corev1.Service {
	return &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: sharedMeta(in, name), Spec: spec}
}

// headless gives every pod its name, ready or not: the nodes must find each other before
// anyone is ready.
func headless(in SharedInput) *corev1.Service {
	ports := []corev1.ServicePort{
		servicePort(layout.ControllerListener, layout.ControllerPort, 0),
		servicePort(layout.InternalListener, layout.InternalPort, 0),
	}
	for _, p := range listenerPorts(in) {
		if p.Name == "controller" || p.Name == "internal" {
			p.Name = "client-" + p.Name // a listener of the user's that is called like ours
		}
		ports = append(ports, p)
	}
	return service(in, NodesService(in.Cluster), corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: corev1.ClusterIPNone,
		Selector: ClusterSelector(in.Cluster), PublishNotReadyAddresses: true, Ports: ports,
	})
}

func listenerPorts(in SharedInput) []corev1.ServicePort {
	ports := make([]corev1.ServicePort, 0, len(in.Listeners))
	for _, l := range in.Listeners {
		ports = append(ports, servicePort(l.Name, l.Port, 0))
	}
	return ports
}

func brokers(in SharedInput) map[string]string {
	selector := ClusterSelector(in.Cluster)
	selector[LabelRole+string(api.RoleBroker)] = "true"
	return selector
}

func bootstrap(in SharedInput) *corev1.Service {
	return service(in, BootstrapService(in.Cluster), corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, Selector: brokers(in), Ports: listenerPorts(in),
	})
}

// bootstrapExposure may be entered through any machine: what clients learn there sends
// them on.
func bootstrapExposure(in SharedInput, l api.Listener) *corev1.Service {
	s := service(in, BootstrapExposure(in.Cluster, l.Name), corev1.ServiceSpec{
		Type: serviceType(l.Exposure.Type), Selector: brokers(in),
		Ports:                 []corev1.ServicePort{servicePort(l.Name, l.Port, in.BootstrapNodePorts[l.Name])},
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
	})
	s.Annotations = in.BootstrapAnnotations[l.Name]
	setClass(&s.Spec, l.Exposure.LoadBalancerClass)
	return s
}

// budget lets one pod be evicted while the cluster has one to spare, else none.
//
// It says so with minAvailable: maxUnavailable counts from the scale of the controllers
// of the pods that exist, and a StatefulSet whose one pod is gone for the moment does not
// count, so that a second pod could be evicted beside it. Without a number of nodes nothing
// may be evicted.
//
// A pod that runs and is not ready is evicted by the same rule as a ready one
// (IfHealthyBudget), since it may lead partitions or hold the last complete copy of one;
// AlwaysAllow would let a drain stop it at any time.
func budget(in SharedInput) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
		ObjectMeta: sharedMeta(in, BudgetName(in.Cluster)),
		Spec: policyv1.PodDisruptionBudgetSpec{
			Selector:                   &metav1.LabelSelector{MatchLabels: ClusterSelector(in.Cluster)},
			UnhealthyPodEvictionPolicy: new(policyv1.IfHealthyBudget),
		},
	}
	switch {
	case in.Nodes <= 0:
		b.Spec.MaxUnavailable = new(intstr.FromInt32(0))
	case in.Spare:
		b.Spec.MinAvailable = new(intstr.FromInt32(in.Nodes - 1))
	default:
		b.Spec.MinAvailable = new(intstr.FromInt32(in.Nodes))
	}
	return b
}
