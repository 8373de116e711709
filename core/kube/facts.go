package kube

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// Reasons that this package gives beside Kubernetes' own and the supervisor's.
const (
	ReasonNoStatefulSet = "NoStatefulSet" // not made yet
	ReasonNoPod         = "NoPod"         // the StatefulSet has no pod yet
	ReasonUnschedulable = "Unschedulable" // no machine takes the pod
	ReasonClaimPending  = "ClaimPending"  // a volume was not provisioned yet
	ReasonClaimLost     = "ClaimLost"     // the PersistentVolume of a claim is gone
	ReasonSecretMissing = "SecretMissing" // the node's certificate was not issued yet
	ReasonMachineSilent = "MachineSilent" // the kubelet does not report, or the machine is gone
	ReasonPodNotReady   = "PodNotReady"   // Kafka is ready, Kubernetes does not count on it yet
	ReasonNoAnswer      = "NoAnswer"      // the supervisor does not answer the operator
	ReasonTerminating   = "Terminating"   // the pod was told to end
	ReasonStopped       = "Stopped"       // as asked
	ReasonStarting      = "Starting"      // the supervisor has not said anything yet
	ReasonOutOfMemory   = "OOMKilled"     // Kubernetes' word: beyond the memory limit
	ReasonExited        = "Exited"        // the process ended and will be started again
)

// Seen is what was found of a node. What does not exist is nil.
type Seen struct {
	StatefulSet *appsv1.StatefulSet
	Pod         *corev1.Pod
	// Claims by name, with those of the node's spec.
	Claims   map[string]*corev1.PersistentVolumeClaim
	Services []corev1.Service
	// SecretMissing says that the node's Secret does not exist.
	SecretMissing bool
	// MachinesKnown says that machines (Kubernetes' nodes) may be read; Machines are all.
	MachinesKnown bool
	Machines      []*corev1.Node
	// Volumes that the claims are bound to, by name, as far as they may be read.
	Volumes map[string]*corev1.PersistentVolume
	// Report is what the supervisor of this very pod said a moment ago; else ReportErr says
	// why there is none.
	Report    *layout.Report
	ReportErr string
	// Warning is the newest Warning event of the pod, of a claim or of the StatefulSet,
	// where one was looked for.
	Warning string
}

// Facts is what the objects in Kubernetes and the supervisor's report tell of a node.
// ObservedGeneration is left to the caller, who knows what was applied.
func Facts(node api.KafkaNode, seen Seen) api.KafkaNodeStatus {
	status := api.KafkaNodeStatus{
		Roles: layout.RolesWord(node.Spec.Roles), Placement: placement(&node, &seen), Exposures: exposureStatus(&node, seen.Services),
	}
	if seen.Pod != nil {
		addPod(&status, seen.Pod)
	}
	seen.Report.AddTo(&status)
	addClaims(&status, &node, &seen)
	f := facts{node: &node, seen: &seen, status: &status}
	f.addState()
	f.addMore()
	return status
}

// addPod adds what the pod itself tells: how its process last ended, and what it runs.
func addPod(status *api.KafkaNodeStatus, pod *corev1.Pod) {
	kafka := containerStatus(pod.Status.ContainerStatuses, KafkaContainer)
	if kafka == nil {
		return
	}
	status.Restarts = kafka.RestartCount
	asked := pod.DeletionTimestamp != nil && kafka.State.Terminated != nil
	if last := lastEnd(kafka); last != nil && !asked {
		status.LastExit = exitOf(pod, last)
	}
	if kafka.State.Running != nil {
		status.Process = &api.ProcessStatus{Hash: pod.Annotations[ProcessAnnotation], StartedAt: kafka.State.Running.StartedAt}
	}
}

func containerStatus(list []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	at := slices.IndexFunc(list, func(c corev1.ContainerStatus) bool { return c.Name == name })
	if at < 0 {
		return nil
	}
	return &list[at]
}

func lastEnd(c *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if c.State.Terminated != nil {
		return c.State.Terminated
	}
	return c.LastTerminationState.Terminated
}

// exitOf is the supervisor's own word in the termination message, with what only Kubernetes
// knows: that the memory limit was the reason.
func exitOf(pod *corev1.Pod, ended *corev1.ContainerStateTerminated) *api.ExitStatus {
	exit := api.ExitStatus{Code: ended.ExitCode, Reason: ended.Reason, Message: ended.Message, At: endedAt(pod, ended)}
	var told api.ExitStatus
	if err := json.Unmarshal([]byte(ended.Message), &told); err == nil && told.Message != "" {
		exit = told
		exit.Code, exit.At = ended.ExitCode, endedAt(pod, ended)
	}
	if ended.Reason == ReasonOutOfMemory {
		exit.Reason = ReasonOutOfMemory
		exit.Message = fmt.Sprintf("the pod needed more memory than its limit of %s: raise resources.limits.memory of the node's pool, or lower jvm.heap", memoryLimit(pod))
	}
	return &exit
}

// endedAt is when a container ended. Of one that was lost with its machine (reason
// ContainerStatusUnknown) nobody knows: then it is when its pod last became unready.
func endedAt(pod *corev1.Pod, ended *corev1.ContainerStateTerminated) metav1.Time {
	at := ended.FinishedAt
	if !at.IsZero() {
		return at
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			at = c.LastTransitionTime
		}
	}
	if at.IsZero() {
		return pod.CreationTimestamp
	}
	return at
}

func memoryLimit(pod *corev1.Pod) string {
	for _, c := range pod.Spec.Containers {
		if limit, ok := c.Resources.Limits[corev1.ResourceMemory]; ok && c.Name == KafkaContainer {
			return limit.String()
		}
	}
	return "its machine"
}

// addClaims says of volumes that grow what Kubernetes does about it.
func addClaims(status *api.KafkaNodeStatus, node *api.KafkaNode, seen *Seen) {
	status.Volumes = slices.Clone(status.Volumes)
	for i := range status.Volumes {
		v := &status.Volumes[i]
		if claim := seen.Claims[claimOf(node, v.Name)]; claim != nil && v.Message == "" {
			v.Message = resizing(claim)
		}
	}
}

// resizing is what stands between a claim and its wanted size; empty when nothing does.
func resizing(claim *corev1.PersistentVolumeClaim) string {
	want := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	have, known := claim.Status.Capacity[corev1.ResourceStorage]
	if !known || have.Cmp(want) >= 0 {
		return ""
	}
	words := []string{fmt.Sprintf("grows from %s to %s", have.String(), want.String())}
	for _, c := range claim.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			words = append(words, strings.TrimSpace(string(c.Type)+" "+c.Message))
		}
	}
	return strings.Join(words, ": ")
}

// facts finds the state and its reason.
type facts struct {
	node   *api.KafkaNode
	seen   *Seen
	status *api.KafkaNodeStatus
}

func (f *facts) say(state api.NodeState, reason, message string) {
	f.status.State, f.status.Ready, f.status.Reason, f.status.Message = state, false, reason, message
}

func (f *facts) addState() {
	pod := f.seen.Pod
	switch {
	case pod == nil:
		f.addNoPod()
	case ended(pod) && pod.DeletionTimestamp.IsZero():
		f.say(api.NodeFailed, cmp.Or(pod.Status.Reason, ReasonExited),
			cmp.Or(pod.Status.Message, layout.DescribeExit(f.status.LastExit), "the pod ended")+": its StatefulSet makes another one")
	case !ended(pod) && f.silent() != "":
		f.say(api.NodeUnknown, ReasonMachineSilent, f.silent())
	case !pod.DeletionTimestamp.IsZero():
		f.addTerminating()
	case pod.Spec.NodeName == "":
		f.addUnscheduled()
	default:
		f.addContainers()
	}
}

// ended says that a pod is over: none of its containers runs, or will again.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func (f *facts) addNoPod() {
	set := f.seen.StatefulSet
	switch {
	case f.node.Spec.State == api.StateStopped:
		f.say(api.NodeStopped, ReasonStopped, "")
	case set == nil:
		f.say(api.NodePending, ReasonNoStatefulSet, "its StatefulSet was not made yet")
	default:
		f.say(api.NodePending, ReasonNoPod, "its StatefulSet has no pod yet"+f.because("kubectl describe statefulset "+set.Name+" says why if none comes"))
	}
}

// because adds the newest Warning, or else where to look.
func (f *facts) because(otherwise string) string {
	if f.seen.Warning != "" {
		return ": " + f.seen.Warning
	}
	return "; " + otherwise
}

// silent says why nothing is known of the pod; empty when its machine is there, or when the
// supervisor itself was just heard.
func (f *facts) silent() string {
	pod := f.seen.Pod
	if pod.Spec.NodeName == "" || f.seen.Report != nil {
		return ""
	}
	const remedy = "Bring the machine back; if it is lost for good, run castellan node replace for this node, or taint the machine with node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
	machine := machineNamed(f.seen.Machines, pod.Spec.NodeName)
	switch {
	case f.seen.MachinesKnown && machine == nil:
		return fmt.Sprintf("machine %s, where its pod was, does not exist any more. %s", pod.Spec.NodeName, remedy)
	case machine != nil && !machineReady(machine):
		return fmt.Sprintf("the kubelet of machine %s does not report, so what its pod does is not known. %s", pod.Spec.NodeName, remedy)
	case !f.seen.MachinesKnown && (pod.Status.Reason == "NodeLost" || unreachable(pod)):
		return fmt.Sprintf("Kubernetes says that machine %s is lost, so what its pod does is not known. %s", pod.Spec.NodeName, remedy)
	}
	return ""
}

// unreachable says whether Kubernetes asked for the pod's end because its machine is silent.
func unreachable(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == "DeletionByTaintManager"
	})
}

func (f *facts) addTerminating() {
	message := "its pod was told to end"
	if f.node.Spec.State != api.StateStopped {
		message += ", another one follows"
	}
	if r := f.seen.Report; r != nil {
		f.say(api.NodeStopping, cmp.Or(r.Reason, ReasonTerminating), cmp.Or(r.Message, message))
		return
	}
	f.say(api.NodeStopping, ReasonTerminating, message)
}

func (f *facts) addUnscheduled() {
	if reason, message := f.claims(); reason != "" {
		f.say(api.NodePending, reason, message)
		return
	}
	for _, c := range f.seen.Pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			f.say(api.NodePending, cmp.Or(c.Reason, ReasonUnschedulable), cmp.Or(c.Message, "no machine takes the pod yet"))
			return
		}
	}
	f.say(api.NodePending, ReasonNoPod, "its pod waits for the scheduler")
}

// claims says what is wrong with a claim of the process. One that merely waits for its pod
// to be scheduled is no reason of its own.
func (f *facts) claims() (reason, message string) {
	for _, volume := range f.node.Spec.Process.Volumes {
		name := claimOf(f.node, volume)
		claim := f.seen.Claims[name]
		switch {
		case claim == nil:
			return ReasonClaimPending, fmt.Sprintf("PersistentVolumeClaim %s does not exist yet", name)
		case claim.Status.Phase == corev1.ClaimLost:
			return ReasonClaimLost, fmt.Sprintf("the PersistentVolume of claim %s is gone: restore it, or run castellan node replace for this node", name)
		case claim.Status.Phase != corev1.ClaimBound && f.seen.Warning != "":
			return ReasonClaimPending, fmt.Sprintf("PersistentVolumeClaim %s is pending: %s", name, f.seen.Warning)
		}
	}
	return "", ""
}

// addContainers tells of a pod that is on a machine.
func (f *facts) addContainers() {
	pod := f.seen.Pod
	for _, c := range []*corev1.ContainerStatus{
		containerStatus(pod.Status.InitContainerStatuses, installContainer),
		containerStatus(pod.Status.ContainerStatuses, KafkaContainer),
	} {
		if c == nil {
			continue
		}
		if w := c.State.Waiting; w != nil && w.Reason != "" && !making(w.Reason) {
			f.addWaiting(c, w)
			return
		}
	}
	kafka := containerStatus(pod.Status.ContainerStatuses, KafkaContainer)
	switch {
	case kafka != nil && kafka.State.Running != nil:
		f.addRunning(kafka.Ready)
	case kafka != nil && kafka.State.Terminated != nil:
		f.say(api.NodeFailed, cmp.Or(f.status.LastExit.Reason, ReasonExited), layout.DescribeExit(f.status.LastExit))
	case f.seen.SecretMissing:
		f.say(api.NodePending, ReasonSecretMissing, fmt.Sprintf("Secret %s with its certificate does not exist yet", SecretName(f.node.Spec.ClusterName, f.node.Spec.NodeID)))
	default:
		f.say(api.NodePending, "ContainerCreating", "its machine prepares the pod"+f.because("kubectl describe pod "+pod.Name+" says why if it takes long"))
	}
}

// making says that a container waits for nothing but its turn.
func making(reason string) bool {
	return reason == "ContainerCreating" || reason == "PodInitializing"
}

// addWaiting tells of a container that cannot start, in Kubernetes' own words: the image,
// the configuration, or the crash before.
func (f *facts) addWaiting(c *corev1.ContainerStatus, waiting *corev1.ContainerStateWaiting) {
	if waiting.Reason != "CrashLoopBackOff" || lastEnd(c) == nil {
		f.say(api.NodeFailed, waiting.Reason, cmp.Or(waiting.Message, "container "+c.Name+" cannot start"))
		return
	}
	exit := exitOf(f.seen.Pod, lastEnd(c))
	f.say(api.NodeFailed, cmp.Or(exit.Reason, waiting.Reason),
		fmt.Sprintf("%s (container %s has ended %d times and is started again)", layout.DescribeExit(exit), c.Name, c.RestartCount+1))
}

func (f *facts) addRunning(kubeletReady bool) {
	r := f.seen.Report
	switch {
	case r != nil && r.Ready && !kubeletReady:
		// Kubernetes counts on it only then, and so does the plan: never two at once.
		f.say(api.NodeStarting, ReasonPodNotReady, "Kafka serves, but the pod is not ready yet: its replicas are on their way back into the ISR, or its probe comes within seconds")
	case r != nil:
		f.status.State, f.status.Ready = r.State, r.Ready
		f.status.Reason, f.status.Message = r.Reason, cmp.Or(r.Message, f.restartLine())
	case kubeletReady:
		// Ready by the kubelet's word alone: in doubt nothing is done to it.
		f.say(api.NodeUnknown, ReasonNoAnswer, fmt.Sprintf("its pod is ready, but the operator cannot read its report (%s): look whether a NetworkPolicy keeps the operator from port %d of the pod",
			cmp.Or(f.seen.ReportErr, "none came yet"), layout.ReportPort))
	default:
		f.say(api.NodeStarting, ReasonStarting, cmp.Or(f.seen.ReportErr, f.restartLine(), "the supervisor has not reported yet"))
	}
}

// addMore says what a node that is not ready waits for beside its own reason.
func (f *facts) addMore() {
	var more []string
	if at := f.status.Placement; at != nil && at.Lost {
		more = append(more, fmt.Sprintf("its volumes are on machine %s, which is declared out of service or gone: it gets new ones when that costs no data", at.Node))
	}
	blind := func(e api.NodeExposure) bool { return e.Type == api.ExposureNodePort && e.Host == "" }
	if !f.seen.MachinesKnown && slices.ContainsFunc(f.node.Spec.Exposures, blind) {
		more = append(more, "the operator may not read nodes, so it cannot tell the pod the address of its machine: allow that, or set exposure.host of the NodePort listeners")
	}
	if len(more) > 0 && !f.status.Ready {
		f.status.Message = strings.TrimPrefix(strings.Join(append([]string{f.status.Message}, more...), "; "), "; ")
	}
}

// restartLine says why the running process is not the one that was started by plan.
func (f *facts) restartLine() string {
	if f.status.LastExit == nil || f.status.Restarts == 0 {
		return ""
	}
	return fmt.Sprintf("restarted after %s: %s", f.status.LastExit.At.UTC().Format(time.RFC3339), layout.DescribeExit(f.status.LastExit))
}
