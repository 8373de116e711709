package kube

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// Bounds of a stop under layout 1, in seconds: the supervisor ends Kafka after the first
// one, the kubelet ends the supervisor after the second one, so that the supervisor always
// has time to say what happened.
const (
	nodeStopGrace = 60
	podStopGrace  = 75
)

// user is what everything in a pod runs as, and the group that its files belong to; the
// official image has it as appuser.
const user = int64(1000)

// KafkaContainer is the container that Kafka runs in, installContainer the one before it.
const (
	KafkaContainer   = "kafka"
	installContainer = "install-supervisor"
)

// Names of the pod's own volumes. Those of a node have a prefix, so that none is called the
// same.
const (
	binVolume    = "bin"
	staticVolume = "static"
	liveVolume   = "live"
	tlsVolume    = "tls"
	infoVolume   = "pod"
	stateVolume  = "state"
	tmpVolume    = "tmp"
	volumePrefix = "volume-"
)

// podTemplate renders layouts 1 and 2, which differ in what the supervisor renders. What the API server would fill in by default is written
// out, so that a template that was edited by hand differs from this one.
func podTemplate(node *api.KafkaNode, static string) (corev1.PodTemplateSpec, error) {
	spec := &node.Spec
	settings := spec.Process.Pod
	if settings == nil {
		settings = &api.PodSettings{}
	}
	volumes, mounts, err := dataVolumes(node)
	if err != nil {
		return corev1.PodTemplateSpec{}, err
	}
	pod := corev1.PodSpec{
		InitContainers:                []corev1.Container{installer(spec)},
		Containers:                    []corev1.Container{kafka(spec, mounts)},
		Volumes:                       append(ownVolumes(node, static), volumes...),
		RestartPolicy:                 corev1.RestartPolicyAlways,
		DNSPolicy:                     corev1.DNSClusterFirst,
		SchedulerName:                 corev1.DefaultSchedulerName,
		TerminationGracePeriodSeconds: new(int64(podStopGrace)),
		AutomountServiceAccountToken:  new(false),
		EnableServiceLinks:            new(false),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsUser: new(user), RunAsGroup: new(user), RunAsNonRoot: new(true), FSGroup: new(user),
			FSGroupChangePolicy: new(corev1.FSGroupChangeOnRootMismatch), // a walk through a full disk takes hours
			SeccompProfile:      &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		ImagePullSecrets:  settings.ImagePullSecrets,
		NodeSelector:      settings.NodeSelector,
		Tolerations:       settings.Tolerations,
		PriorityClassName: settings.PriorityClassName,
	}
	spread(&pod, settings, podPeers(spec))
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{
			Labels:      podLabels(node),
			Annotations: map[string]string{ProcessAnnotation: layout.ProcessHash(spec.Process)},
		},
		Spec: pod,
	}, nil
}

func containerSecurity() *corev1.SecurityContext {
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: new(false),
		ReadOnlyRootFilesystem:   new(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
}

// installer copies the supervisor into the pod. It has the resources of Kafka, which costs
// nothing beside it and leaves the pod the class of quality that the user meant.
func installer(spec *api.KafkaNodeSpec) corev1.Container {
	return corev1.Container{
		Name:                     installContainer,
		Image:                    spec.Process.Supervisor,
		ImagePullPolicy:          corev1.PullIfNotPresent,
		Args:                     []string{"install-supervisor", layout.PodBinDir},
		Resources:                spec.Process.Resources,
		SecurityContext:          containerSecurity(),
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		VolumeMounts:             []corev1.VolumeMount{{Name: binVolume, MountPath: layout.PodBinDir}},
	}
}

func kafka(spec *api.KafkaNodeSpec, data []corev1.VolumeMount) corev1.Container {
	mounts := []corev1.VolumeMount{
		{Name: binVolume, MountPath: layout.PodBinDir, ReadOnly: true},
		{Name: staticVolume, MountPath: layout.PodStaticDir, ReadOnly: true},
		{Name: liveVolume, MountPath: layout.PodLiveDir, ReadOnly: true},
		{Name: tlsVolume, MountPath: layout.PodTLSDir, ReadOnly: true},
		{Name: infoVolume, MountPath: layout.PodInfoDir, ReadOnly: true},
		{Name: stateVolume, MountPath: layout.PodStateDir},
		{Name: tmpVolume, MountPath: "/tmp"},
	}
	return corev1.Container{
		Name:            KafkaContainer,
		Image:           spec.Process.Image,
		ImagePullPolicy: corev1.PullIfNotPresent, // a pod comes back without a registry too
		Command:         []string{layout.PodSupervisor, "node", "--pod", fmt.Sprintf("--stop-grace=%ds", nodeStopGrace)},
		WorkingDir:      layout.PodStateDir,
		Env: []corev1.EnvVar{{
			Name:      layout.NodeNameVariable,
			ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "spec.nodeName"}},
		}},
		Ports:     containerPorts(spec),
		Resources: spec.Process.Resources,
		// The supervisor answers all along a start: it is killed only when it itself is
		// dead for two minutes, never a broker in a long log recovery.
		LivenessProbe:            probe("/livez", 10, 10, 12),
		ReadinessProbe:           probe("/readyz", 0, 5, 3),
		SecurityContext:          containerSecurity(),
		TerminationMessagePath:   layout.PodStateDir + "/" + layout.TerminationMessageFile,
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		VolumeMounts:             append(mounts, data...),
	}
}

// probe asks the supervisor; the times are in seconds.
func probe(path string, delay, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.FromInt32(layout.ProbePort), Scheme: corev1.URISchemeHTTP,
		}},
		InitialDelaySeconds: delay, PeriodSeconds: period, FailureThreshold: failures,
		TimeoutSeconds: 10, SuccessThreshold: 1,
	}
}

// longestPortName is what Kubernetes allows for a port of a container.
const longestPortName = 15

// containerPorts are for people and for monitoring; nothing depends on them.
func containerPorts(spec *api.KafkaNodeSpec) []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	add := func(name string, port int32) {
		// A port is as good without a name.
		taken := slices.ContainsFunc(ports, func(p corev1.ContainerPort) bool { return p.Name == name })
		if taken || len(name) > longestPortName {
			name = ""
		}
		ports = append(ports, corev1.ContainerPort{Name: name, ContainerPort: port, Protocol: corev1.ProtocolTCP})
	}
	add("report", layout.ReportPort)
	add("probe", layout.ProbePort)
	if slices.Contains(spec.Roles, api.RoleController) {
		add("controller", spec.Ports[layout.ControllerListener])
	}
	if slices.Contains(spec.Roles, api.RoleBroker) {
		add("internal", spec.Ports[layout.InternalListener])
		for _, l := range spec.Process.Listeners {
			add(l.Name, spec.Ports[l.Name])
		}
	}
	return ports
}

func ownVolumes(node *api.KafkaNode, static string) []corev1.Volume {
	cluster, id := node.Spec.ClusterName, node.Spec.NodeID
	readable := new(int32(0o444))
	configMap := func(name string) corev1.VolumeSource {
		return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: name}, DefaultMode: readable,
		}}
	}
	field := func(file, path string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: file, FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}
	}
	return []corev1.Volume{
		{Name: binVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: staticVolume, VolumeSource: configMap(static)},
		{Name: liveVolume, VolumeSource: configMap(LiveName(cluster, id))},
		{Name: tlsVolume, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: SecretName(cluster, id), DefaultMode: new(int32(0o440)), Optional: new(false),
		}}},
		{Name: infoVolume, VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
			DefaultMode: readable,
			Items: []corev1.DownwardAPIVolumeFile{
				field(layout.PlacementFile, "metadata.annotations['"+layout.PlacementAnnotation+"']"),
				field(layout.ZoneFile, "metadata.labels['"+zoneLabel+"']"),
			},
		}}},
		// Kafka's own logs rotate well below; whatever goes beyond is a runaway.
		{Name: stateVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: resource.NewQuantity(1<<30, resource.BinarySI)}}},
		{Name: tmpVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
}

// dataVolumes are those that the process has permission to use.
func dataVolumes(node *api.KafkaNode) (volumes []corev1.Volume, mounts []corev1.VolumeMount, err error) {
	for _, name := range node.Spec.Process.Volumes {
		claim := claimOf(node, name)
		if claim == "" {
			return nil, nil, fmt.Errorf("node %s/%s: volume %s has no claim: the plan must name one", node.Namespace, node.Name, name)
		}
		at := slices.IndexFunc(node.Spec.Volumes, func(v api.NodeVolume) bool { return v.Name == name })
		volumes = append(volumes, corev1.Volume{Name: volumePrefix + name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}})
		mounts = append(mounts, corev1.VolumeMount{Name: volumePrefix + name, MountPath: node.Spec.Volumes[at].Path})
	}
	return volumes, mounts, nil
}

// ClaimsOf are the claims that a pod uses, by volume name.
func ClaimsOf(pod corev1.PodSpec) map[string]string {
	out := map[string]string{}
	for _, v := range pod.Volumes {
		if v.PersistentVolumeClaim != nil && len(v.Name) > len(volumePrefix) {
			out[v.Name[len(volumePrefix):]] = v.PersistentVolumeClaim.ClaimName
		}
	}
	return out
}
