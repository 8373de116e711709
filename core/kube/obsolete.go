package kube

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// ObsoleteServices are those of a node's exposures that are no more.
func ObsoleteServices(want NodeObjects, found []corev1.Service) []corev1.Service {
	return slices.DeleteFunc(slices.Clone(found), func(s corev1.Service) bool {
		return slices.ContainsFunc(want.Services, func(w *corev1.Service) bool { return w.Name == s.Name })
	})
}

// ObsoleteConfigMaps are the contents of earlier processes that no pod is started with any
// more: neither the one that runs nor the one that the StatefulSet makes next.
func ObsoleteConfigMaps(want NodeObjects, pod *corev1.Pod, found []corev1.ConfigMap) []corev1.ConfigMap {
	return slices.DeleteFunc(slices.Clone(found), func(m corev1.ConfigMap) bool {
		return m.Name == want.Static.Name || m.Name == want.Live.Name || pod != nil && mounts(pod, m.Name)
	})
}

func mounts(pod *corev1.Pod, configMap string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.ConfigMap != nil && v.ConfigMap.Name == configMap
	})
}

// MustRestart says why a pod is another one than its node's spec permits now; empty when it
// is the right one.
func MustRestart(want NodeObjects, pod *corev1.Pod) string {
	if have, wanted := pod.Annotations[ProcessAnnotation], want.StatefulSet.Spec.Template.Annotations[ProcessAnnotation]; have != wanted {
		return "its process is another one"
	}
	have, wanted := ClaimsOf(pod.Spec), ClaimsOf(want.StatefulSet.Spec.Template.Spec)
	for volume, claim := range wanted {
		if have[volume] != claim {
			return "its volumes are other ones"
		}
	}
	return ""
}
