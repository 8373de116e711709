package kube

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
)

// podPeers select the pods that a node is spread against: its pool's.
func podPeers(spec *api.KafkaNodeSpec) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{LabelCluster: spec.ClusterName, LabelPool: spec.Pool}}
}

// spread adds what keeps nodes of one pool apart to what the user asks for.
//
// Two of a pool on one machine are refused: that machine would take both away. Zones are a
// strong wish instead: machines without a zone label, as in small clusters, would take no
// pod at all under DoNotSchedule, and a volume that a storage class made at once in another
// zone would leave its pod pending for ever. A broker in the wrong zone is worse than in
// the right one and better than none; its rack says where it is. The wish stands there
// twice, as even spread and as anti-affinity, which together outweigh the scheduler's
// liking for idle machines and present images.
func spread(pod *corev1.PodSpec, settings *api.PodSettings, peers *metav1.LabelSelector) {
	pod.Affinity = settings.Affinity.DeepCopy()
	if settings.Spread == api.SpreadNone {
		return
	}
	if pod.Affinity == nil {
		pod.Affinity = &corev1.Affinity{}
	}
	if pod.Affinity.PodAntiAffinity == nil {
		pod.Affinity.PodAntiAffinity = &corev1.PodAntiAffinity{}
	}
	anti := pod.Affinity.PodAntiAffinity
	anti.RequiredDuringSchedulingIgnoredDuringExecution = append(slices.Clone(anti.RequiredDuringSchedulingIgnoredDuringExecution),
		corev1.PodAffinityTerm{LabelSelector: peers, TopologyKey: hostnameLabel})
	if settings.Spread == api.SpreadNode {
		return
	}
	anti.PreferredDuringSchedulingIgnoredDuringExecution = append(slices.Clone(anti.PreferredDuringSchedulingIgnoredDuringExecution),
		corev1.WeightedPodAffinityTerm{Weight: 100, PodAffinityTerm: corev1.PodAffinityTerm{LabelSelector: peers, TopologyKey: zoneLabel}})
	pod.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: zoneLabel, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: peers,
	}}
}
