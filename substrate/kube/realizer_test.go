package kube_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/layout"
)

func TestRestCostsNothing(t *testing.T) {
	y, n := newYard(t), testNode()
	y.create(n)
	y.machine("m1", corev1.ConditionTrue)
	y.wantRequests("first", 5, func() { y.apply(n) })
	y.wantRequests("rest without a pod", 0, func() { y.apply(n) })
	y.started(true)
	y.wantRequests("the pod learns its place", 1, func() { y.apply(n) })
	y.wantRequests("rest", 0, func() {
		y.apply(n)
		if _, err := y.r.Status(t.Context(), *n, false); err != nil {
			t.Error(err)
		}
	})
	for _, o := range y.everything() {
		if cluster, _ := corekube.ClusterOf(o); cluster.Name != "orders" {
			t.Errorf("%T %s is not the cluster's", o, o.GetName())
		}
	}
}

func TestWhatIsDeletedOrEditedComesBack(t *testing.T) {
	y, n := newYard(t), testNode()
	y.create(n)
	y.apply(n)
	before := y.everything()
	for _, o := range before {
		if err := y.c.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		y.wantRequests(fmt.Sprintf("%T %s deleted", o, o.GetName()), 1, func() { y.apply(n) })
	}
	for name, edit := range map[string]func(o client.Object) bool{
		"label removed": func(o client.Object) bool { delete(o.GetLabels(), "castellan.dev/pool"); return true },
		"owner removed": func(o client.Object) bool {
			had := len(o.GetOwnerReferences()) > 0
			o.SetOwnerReferences(nil)
			return had
		},
		"content": func(o client.Object) bool {
			switch o := o.(type) {
			case *corev1.ConfigMap:
				o.Data[layout.LiveFile] = "{}"
				return o.Immutable == nil
			case *corev1.Service:
				o.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
			case *appsv1.StatefulSet:
				o.Spec.Replicas = new(int32(3))
			default:
				return false
			}
			return true
		},
		"added": func(o client.Object) bool {
			switch o := o.(type) {
			case *corev1.Service:
				o.Spec.Selector["more"] = "less"
			case *appsv1.StatefulSet:
				c := &o.Spec.Template.Spec.Containers[0]
				c.Env = append(c.Env, corev1.EnvVar{Name: "KAFKA_OPTS", Value: "-x"})
			default:
				return false
			}
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, o := range y.everything() {
				want := plain(t, o)
				if !edit(o) {
					continue
				}
				y.update(o)
				y.apply(n)
				y.get(o, o.GetName())
				if diff := cmp.Diff(want, plain(t, o)); diff != "" {
					t.Errorf("%T %s was not put back:\n%s", o, o.GetName(), diff)
				}
				y.wantRequests("rest afterwards", 0, func() { y.apply(n) })
			}
		})
	}
}

// plain is an object as text, without what each write changes.
func plain(t *testing.T, o client.Object) string {
	t.Helper()
	o, _ = o.DeepCopyObject().(client.Object)
	o.SetResourceVersion("")
	o.SetManagedFields(nil)
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWhatIsWantedNoMoreGoes(t *testing.T) {
	y, n := newYard(t), testNode()
	y.create(n)
	y.apply(n)
	n.Spec.Exposures[0].Annotations = nil
	y.save(n)
	y.apply(n)
	var service corev1.Service
	if y.get(&service, "orders-1-plain"); service.Annotations["a"] != "" {
		t.Errorf("the annotation stays: %v", service.Annotations)
	}
	n.Spec.Exposures = nil
	y.save(n)
	y.apply(n)
	if y.exists(&service, "orders-1-plain") {
		t.Error("the Service stays")
	}
}

func TestRestartNeedsPermission(t *testing.T) {
	y, n := newYard(t), testNode()
	y.create(n)
	y.machine("m1", corev1.ConditionTrue)
	y.apply(n)
	y.started(true)
	y.apply(n)
	pod := &corev1.Pod{}

	n.Spec.ClusterID, n.Spec.Rack, n.Spec.Exposures[0].NodePort = "MkU3OEVBNTcwNTJENDM2Qg", "b", 31000
	y.save(n)
	before := pod.Annotations[layout.LiveAnnotation]
	y.apply(n)
	if y.get(pod, "orders-1-0"); pod.Annotations[layout.LiveAnnotation] == before {
		t.Error("the kubelet was not told that live.json changed")
	}

	old := n.DeepCopy()
	n.Spec.Process.HeapBytes++
	y.save(n)
	stale := n.DeepCopy()
	stale.Generation--
	y.wantRequests("a stale cache", 0, func() { y.lives.Add(-1); y.apply(stale) })
	set := &appsv1.StatefulSet{}
	y.get(set, "orders-1")
	set.Generation = 7 // its controller has not looked yet
	y.update(set)
	y.apply(n)
	if !y.exists(pod, "orders-1-0") {
		t.Fatal("the pod ended before its StatefulSet would make the new one")
	}
	y.get(set, "orders-1")
	set.Status.ObservedGeneration = 7
	if err := y.c.Status().Update(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	y.deletes = nil
	y.apply(n)
	if y.exists(pod, "orders-1-0") {
		t.Fatal("the pod was not restarted")
	}
	if d := y.deletes[0]; d.GracePeriodSeconds != nil || d.Preconditions == nil || *d.Preconditions.UID != "p-1" {
		t.Errorf("the pod ended without its grace, or whichever it was: %+v", d)
	}
	y.started(true)
	y.apply(n)
	if !y.exists(pod, "orders-1-0") {
		t.Fatal("the new pod was restarted, too")
	}
	y.wantRequests("an operator that comes back from the past", 0, func() { y.lives.Add(-1); y.apply(old) })
}

// TestEditedPodIsNoReasonToRestart: a pod of the very template that is wanted gets back what somebody took away.
func TestEditedPodIsNoReasonToRestart(t *testing.T) {
	y, n := newYard(t), testNode()
	y.create(n)
	y.machine("m1", corev1.ConditionTrue)
	y.apply(n)
	y.started(true)
	y.apply(n)
	set, pod := &appsv1.StatefulSet{}, &corev1.Pod{}
	y.get(set, "orders-1")
	set.Status.ObservedGeneration, set.Status.UpdateRevision = set.Generation, "template-1"
	if err := y.c.Status().Update(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	for _, revision := range []string{"template-1", "template-0"} {
		kept := revision == set.Status.UpdateRevision
		y.get(pod, "orders-1-0")
		pod.Labels[appsv1.ControllerRevisionHashLabelKey] = revision
		wanted := pod.Annotations[corekube.ProcessAnnotation]
		delete(pod.Annotations, corekube.ProcessAnnotation)
		y.update(pod)
		y.apply(n)
		if y.exists(pod, "orders-1-0") != kept {
			t.Fatalf("a pod of %s: kept is %t", revision, !kept)
		}
		if kept && pod.Annotations[corekube.ProcessAnnotation] != wanted {
			t.Errorf("the pod says %q, want %q", pod.Annotations[corekube.ProcessAnnotation], wanted)
		}
	}
}

func TestPodLearnsItsPlace(t *testing.T) {
	y, n := newYard(t), testNode()
	y.create(n)
	y.machine("m1", corev1.ConditionTrue)
	y.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-1-tls"}, Data: map[string][]byte{"node.pem": []byte("1")}})
	y.apply(n)
	y.started(false)
	y.apply(n)
	pod := &corev1.Pod{}
	y.get(pod, "orders-1-0")
	if got, want := pod.Annotations[layout.PlacementAnnotation], `{"node":"m1","zone":"a","addresses":{"InternalIP":"10.1.0.1"}}`; got != want {
		t.Errorf("placement %s, want %s", got, want)
	}
	first := pod.Annotations[layout.LiveAnnotation]
	var secret corev1.Secret
	y.get(&secret, "orders-1-tls")
	secret.Data["node.pem"] = []byte("2")
	y.update(&secret)
	y.wantRequests("a renewed certificate", 1, func() { y.apply(n) })
	if y.get(pod, "orders-1-0"); pod.Annotations[layout.LiveAnnotation] == first || !strings.HasPrefix(first, "sha256:") {
		t.Errorf("the kubelet was not told of the certificate: %s", first)
	}
}

func TestDeadPodIsForcedOnlyOntoOtherVolumes(t *testing.T) {
	for name, test := range map[string]struct {
		ready  corev1.ConditionStatus
		moved  bool
		forced bool
	}{
		"dead machine, other volumes":   {corev1.ConditionUnknown, true, true},
		"dead machine, other process":   {corev1.ConditionUnknown, false, false},
		"living machine, other volumes": {corev1.ConditionTrue, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			y, n := newYard(t), testNode()
			y.create(n)
			y.machine("m1", test.ready)
			y.apply(n)
			pod := y.started(true)
			pod.Finalizers = []string{"test/kubelet"} // what is told to end stays for now
			y.update(pod)
			if err := y.c.Delete(t.Context(), pod); err != nil {
				t.Fatal(err)
			}
			n.Spec.Process.HeapBytes++
			if test.moved {
				n.Spec.Volumes[0].Claim, n.Spec.Replaced = "data-orders-1-r2", "token"
			}
			y.save(n)
			y.deletes = nil
			y.apply(n)
			forced := len(y.deletes) == 1 && y.deletes[0].GracePeriodSeconds != nil && *y.deletes[0].GracePeriodSeconds == 0
			if forced != test.forced {
				t.Errorf("forced %v, want %v: %+v", forced, test.forced, y.deletes)
			}
			var claim corev1.PersistentVolumeClaim
			if !y.exists(&claim, "data-orders-1") || test.moved != y.exists(&claim, "data-orders-1-r2") {
				t.Error("the old claim must stay, and a new one stand beside it")
			}
		})
	}
}

func TestClaims(t *testing.T) {
	y, n := newYard(t), testNode()
	y.create(n)
	// Restored by hand: without our labels, of another class, larger.
	y.create(&corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "data-orders-1"},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: new("old"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: *quantity("2Gi")}},
		},
	})
	y.apply(n)
	var claim corev1.PersistentVolumeClaim
	want := func(size, class string) {
		t.Helper()
		y.get(&claim, "data-orders-1")
		if got := claim.Spec.Resources.Requests[corev1.ResourceStorage]; got.Cmp(*quantity(size)) != 0 || *claim.Spec.StorageClassName != class {
			t.Errorf("the claim is %s of %s, want %s of %s", got.String(), *claim.Spec.StorageClassName, size, class)
		}
	}
	want("2Gi", "old")
	if claim.Labels[corekube.LabelVolume] != "data" || claim.Spec.AccessModes[0] != corev1.ReadWriteOncePod {
		t.Errorf("not adopted: %+v", claim)
	}
	n.Spec.Volumes[0].Size = quantity("3Gi")
	y.save(n)
	y.apply(n)
	want("3Gi", "old")
	y.wantRequests("rest", 0, func() { y.apply(n) })
}

func TestWhatIsAnothersIsLeftAlone(t *testing.T) {
	y, n := newYard(t), testNode()
	y.create(n)
	y.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-1-plain"}, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.9"}})
	err := y.r.Apply(t.Context(), *n)
	if err == nil || !strings.Contains(err.Error(), "Service orders-1-plain exists and is not one of this cluster") {
		t.Errorf("got error %v", err)
	}
	if !y.exists(&appsv1.StatefulSet{}, "orders-1") {
		t.Error("one Service kept the node from being made")
	}
}

func TestRemove(t *testing.T) {
	for _, data := range []api.DeletionPolicy{api.DeletionRetain, api.DeletionDelete} {
		t.Run(string(data), func(t *testing.T) {
			y, n := newYard(t), testNode()
			y.create(n)
			y.apply(n)
			pod := y.started(true)
			remove := func() bool {
				t.Helper()
				gone, err := y.r.Remove(t.Context(), *n, data)
				if err != nil {
					t.Fatal(err)
				}
				return gone
			}
			set := &appsv1.StatefulSet{}
			for range 3 {
				if remove() {
					t.Fatal("gone while its pod runs")
				}
			}
			if y.get(set, "orders-1"); *set.Spec.Replicas != 0 {
				t.Error("its StatefulSet still makes pods")
			}
			if !y.exists(&corev1.PersistentVolumeClaim{}, "data-orders-1") || !y.exists(&corev1.ConfigMap{}, "orders-1-live") {
				t.Error("something went before the pod")
			}
			if err := y.c.Delete(t.Context(), pod); err != nil {
				t.Fatal(err)
			}
			if remove() {
				t.Error("gone in the moment in which it is deleted")
			}
			if !remove() {
				t.Error("not gone")
			}
			var left []string
			for _, o := range y.everything() {
				left = append(left, o.GetName())
			}
			var want []string
			if data == api.DeletionRetain {
				want = []string{"data-orders-1"}
			}
			if diff := cmp.Diff(want, left); diff != "" {
				t.Errorf("what is left (-want +got):\n%s", diff)
			}
		})
	}
}

func TestShared(t *testing.T) {
	y := newYard(t)
	in := corekube.SharedInput{
		Namespace: "kafka", Cluster: "orders", UID: "c", Nodes: 3, Spare: true,
		Listeners: []api.Listener{{Name: "plain", Port: 9092, Exposure: api.Exposure{Type: api.ExposureNodePort}}},
	}
	closed := false
	apply := func() {
		t.Helper()
		var err error
		if closed, err = y.r.ApplyShared(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	same := func() bool { return y.r.SameShared(t.Context(), in) }
	y.wantRequests("first", 4, apply)
	if closed || !same() {
		t.Errorf("closed %t, same %t", closed, same())
	}
	y.wantRequests("rest", 0, func() { same() })
	in.Spare = false
	y.wantRequests("a look", 0, func() {
		if same() {
			t.Error("an open budget is the same as a closed one")
		}
	})
	y.wantRequests("no node to spare", 1, apply)
	if !closed || !same() {
		t.Errorf("closed %t, same %t", closed, same())
	}
	if apply(); closed {
		t.Error("what is closed is closed again")
	}
	var budget policyv1.PodDisruptionBudget
	if y.get(&budget, "orders"); budget.Spec.MinAvailable.IntValue() != 3 {
		t.Errorf("budget %+v", budget.Spec)
	}
	var service corev1.Service
	y.get(&service, "orders-bootstrap-plain")
	service.Spec.Ports[0].NodePort = 31234
	y.update(&service)
	for _, name := range []string{"data-orders-1", "data-orders-1-r2", "data-orders-1-r10", "other-orders-1"} {
		volume, _, _ := strings.Cut(name, "-")
		y.create(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: name, Labels: map[string]string{
			corekube.LabelCluster: "orders", corekube.LabelNodeID: "1", corekube.LabelVolume: volume,
		}}})
	}
	budget.Status.DisruptedPods = map[string]metav1.Time{"orders-2-0": metav1.Now(), "orders-1-0": metav1.Now(), "other-0": metav1.Now()}
	if err := y.c.Status().Update(t.Context(), &budget); err != nil {
		t.Fatal(err)
	}
	got, err := y.r.ObserveShared(t.Context(), "kafka", "orders", true)
	if err != nil {
		t.Fatal(err)
	}
	want := corekube.SharedFacts{
		Bootstrap: map[string]api.ExposureStatus{"plain": {Listener: "plain", NodePort: 31234}},
		Claims:    map[int32]map[string]string{1: {"data": "data-orders-1-r10", "other": "other-orders-1"}},
		Evicting:  []int32{1, 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("facts differ (-want +got):\n%s", diff)
	}
	in.Listeners[0].Exposure.Type = api.ExposureInternal
	apply()
	if y.exists(&service, "orders-bootstrap-plain") {
		t.Error("the Service of a listener that is not exposed any more stays")
	}
	y.create(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "users-own", Labels: map[string]string{corekube.LabelCluster: "orders"}}})
	for _, c := range []struct {
		policy api.DeletionPolicy
		left   int
	}{{api.DeletionRetain, 5}, {api.DeletionDelete, 1}} {
		if err := y.r.DeleteShared(t.Context(), "kafka", "orders", c.policy); err != nil {
			t.Fatal(err)
		}
		left := y.everything()
		for _, o := range left {
			if _, claim := o.(*corev1.PersistentVolumeClaim); !claim {
				t.Errorf("%T %s is left", o, o.GetName())
			}
		}
		if len(left) != c.left {
			t.Errorf("%s: %d claims are left, want %d", c.policy, len(left), c.left)
		}
	}
}

// A KafkaNode that only says that it is another one has nothing of that one's.
func TestAnImpostorHasNothing(t *testing.T) {
	y, n := newYard(t), testNode()
	y.create(n)
	y.apply(n)
	y.started(true)
	before := len(y.everything())
	impostor := testNode()
	impostor.Name, impostor.UID = "evil", "e"
	y.create(impostor)
	if err := y.r.Apply(t.Context(), *impostor); err == nil {
		t.Error("it is realized")
	}
	if gone, err := y.r.Remove(t.Context(), *impostor, api.DeletionDelete); err != nil || !gone {
		t.Errorf("gone %t, %v", gone, err)
	}
	set := &appsv1.StatefulSet{}
	if y.get(set, "orders-1"); *set.Spec.Replicas != 1 || set.OwnerReferences[0].Name != "orders-1" || len(y.everything()) != before {
		t.Errorf("the node is not what it was: %+v", set.ObjectMeta)
	}
}

func TestWhyAPodWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, n := newYard(t), testNode()
		y.waitsForPod(n, "s-1")
		event := func(name, uid, kind, reason string) {
			y.create(&corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{Namespace: "kafka", Name: name},
				InvolvedObject: corev1.ObjectReference{UID: types.UID(uid)}, Type: kind, Reason: reason, Message: "m",
			})
		}
		event("1", "s-1", corev1.EventTypeWarning, "FailedCreate")
		event("2", "s-1", corev1.EventTypeNormal, "Created")
		event("3", "another", corev1.EventTypeWarning, "Unrelated")
		y.wantRequests("a pod that was just asked for", 0, func() { y.status(n) })
		time.Sleep(15 * time.Second)
		if status := y.status(n); status.Reason != "NoPod" || !strings.HasSuffix(status.Message, "FailedCreate: m") {
			t.Errorf("status %+v", status)
		}
		y.wantRequests("looks within a minute", 0, func() {
			for range 3 {
				time.Sleep(15 * time.Second)
				if status := y.status(n); !strings.HasSuffix(status.Message, "FailedCreate: m") {
					t.Errorf("the reason is forgotten: %+v", status)
				}
			}
		})
		event("4", "s-1", corev1.EventTypeWarning, "FailedAgain")
		time.Sleep(15 * time.Second)
		if status := y.status(n); !strings.HasSuffix(status.Message, "FailedAgain: m") {
			t.Errorf("after a minute the newest is not looked for: %+v", status)
		}
	})
}

func TestManyThatWaitAskLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t)
		var nodes []*api.KafkaNode
		for id := range int32(25) {
			n := testNode()
			n.Name, n.Spec.NodeID = fmt.Sprintf("orders-%d", id), id
			y.create(&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: n.Name, UID: types.UID(n.Name)}})
			nodes = append(nodes, n)
		}
		for range 2 {
			for _, n := range nodes {
				y.status(n)
			}
			time.Sleep(10 * time.Second)
		}
		if asked := y.lives.Load(); asked != 10 {
			t.Errorf("%d requests for events at a time", asked)
		}
	})
}

// waitsForPod applies a node whose StatefulSet makes no pod.
func (y *yard) waitsForPod(n *api.KafkaNode, uid types.UID) {
	y.t.Helper()
	y.create(n)
	y.apply(n)
	set := &appsv1.StatefulSet{}
	y.get(set, n.Name)
	set.UID = uid
	y.update(set)
}

func (y *yard) status(n *api.KafkaNode) api.KafkaNodeStatus {
	y.t.Helper()
	status, err := y.r.Status(y.t.Context(), *n, false)
	if err != nil {
		y.t.Fatal(err)
	}
	return status
}

func TestObservedGeneration(t *testing.T) {
	y, n := newYard(t), testNode()
	y.create(n)
	y.machine("m1", corev1.ConditionTrue)
	observed := func() int64 {
		t.Helper()
		status, err := y.r.Status(t.Context(), *n, true)
		if err != nil {
			t.Fatal(err)
		}
		return status.ObservedGeneration
	}
	y.apply(n)
	y.started(true)
	if got := observed(); got != 0 {
		t.Errorf("generation %d counts as observed before the pod was told", got)
	}
	y.apply(n)
	if got := observed(); got != n.Generation {
		t.Errorf("observed is %d, want %d", got, n.Generation)
	}
	n.Spec.Process.HeapBytes++
	if got := observed(); got != 0 {
		t.Errorf("observed is %d though the pod is of another process", got)
	}
}
