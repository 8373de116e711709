package operator

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	quantity "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
)

// A lean pod tells what the whole one tells.
func TestALeanPodTellsTheSame(t *testing.T) {
	size := quantity.MustParse("1Gi")
	node := api.KafkaNode{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-1", UID: "u"},
		Spec: api.KafkaNodeSpec{
			ClusterName: "orders", NodeID: 1, Pool: "nodes", Roles: []api.Role{api.RoleBroker},
			Process: api.ProcessSpec{
				Version: "4.3.1", Image: "apache/kafka:4.3.1", Supervisor: "castellan:1", Layout: 1, HeapBytes: 1 << 28, Volumes: []string{"data"},
				Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: size}},
			},
			Volumes: []api.NodeVolume{{Name: "data", Path: "/data", Size: &size, Claim: "data-orders-1"}},
			Address: corekube.Address("kafka", "orders", 1), Ports: map[string]int32{"INTERNAL": 9091}, State: api.StateRunning,
		},
	}
	want, err := corekube.Objects(node)
	if err != nil {
		t.Fatal(err)
	}
	whole := &corev1.Pod{ObjectMeta: *want.StatefulSet.Spec.Template.ObjectMeta.DeepCopy(), Spec: *want.StatefulSet.Spec.Template.Spec.DeepCopy()}
	whole.Namespace, whole.Name, whole.UID, whole.Spec.NodeName = "kafka", "orders-1-0", "p", "m1"
	whole.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "castellan"}}
	whole.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
		Name: corekube.KafkaContainer, RestartCount: 2, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: corekube.ReasonOutOfMemory, ExitCode: 137}},
	}}}
	next := *node.DeepCopy()
	next.Spec.Process.HeapBytes++
	wantNext, err := corekube.Objects(next)
	if err != nil {
		t.Fatal(err)
	}
	facts := func(pod *corev1.Pod) string {
		status, err := json.Marshal(corekube.Facts(node, corekube.Seen{StatefulSet: want.StatefulSet, Pod: pod}))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s\n%v\n%q %q\n%d obsolete", status, corekube.ClaimsOf(pod.Spec), corekube.MustRestart(want, pod), corekube.MustRestart(wantNext, pod),
			len(corekube.ObsoleteConfigMaps(wantNext, pod, []corev1.ConfigMap{*want.Static})))
	}
	before := facts(whole)
	made, err := leanPod(whole.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	lean, ok := made.(*corev1.Pod)
	if !ok {
		t.Fatalf("a %T", made)
	}
	if diff := cmp.Diff(before, facts(lean)); diff != "" {
		t.Error(diff)
	}
	if lean.UID != types.UID("p") || lean.Spec.NodeName != "m1" || len(lean.ManagedFields) > 0 || lean.Size() > whole.Size()/2 {
		t.Errorf("%d bytes of %d: %+v", lean.Size(), whole.Size(), lean)
	}
}
