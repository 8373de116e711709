package deploy

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// user is the image's own, without a name on the machine.
const user = 65532

// pod is one replica; it passes the restricted Pod Security Standard.
func (o Options) pod() corev1.PodSpec {
	id, grace := int64(user), int64(45) // longer than the operator gives its own parts to end
	return corev1.PodSpec{
		ServiceAccountName:            operatorName,
		TerminationGracePeriodSeconds: &grace,
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: &id, RunAsGroup: &id,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Affinity:   apart(),
		Containers: []corev1.Container{o.container()},
	}
}

// apart asks for replicas on different machines, in different zones if there are.
func apart() *corev1.Affinity {
	away := func(weight int32, key string) corev1.WeightedPodAffinityTerm {
		return corev1.WeightedPodAffinityTerm{Weight: weight, PodAffinityTerm: corev1.PodAffinityTerm{
			TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: selector()},
		}}
	}
	return &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
		away(100, corev1.LabelHostname), away(50, corev1.LabelTopologyZone),
	}}}
}

func (o Options) container() corev1.Container {
	args := []string{
		"operator", "--substrates=kubernetes", "--webhook-service=" + serviceName, "--webhook-address=:9443", "--health-address=:8081", "--log-level=info",
	}
	for _, n := range o.WatchNamespaces {
		args = append(args, "--watch-namespace="+n)
	}
	return corev1.Container{
		Name: "operator", Image: o.Image, Args: args,
		Ports: []corev1.ContainerPort{{Name: "webhook", ContainerPort: 9443}, {Name: "health", ContainerPort: 8081}},
		Env: []corev1.EnvVar{
			{Name: "CASTELLAN_NAMESPACE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}},
			{Name: "CASTELLAN_IMAGE", Value: o.Image},
			{Name: "CASTELLAN_MEMORY_LIMIT", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1")}}},
		},
		LivenessProbe:  probe("/healthz", 20),
		ReadinessProbe: probe("/readyz", 5),
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
		},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
}

func probe(path string, period int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:        corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("health")}},
		InitialDelaySeconds: 2, PeriodSeconds: period, TimeoutSeconds: 3,
	}
}
