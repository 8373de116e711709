package kube_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/substrate/kube"
)

// settle brings a node to rest, with its pod, and has that remembered.
func settle(t *testing.T) (*yard, *api.KafkaNode) {
	t.Helper()
	y, n := newYard(t), testNode()
	y.create(n)
	y.machine("m1", corev1.ConditionTrue)
	y.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-1-tls"}, Data: map[string][]byte{"node.pem": []byte("1")}})
	y.apply(n)
	y.started(true)
	y.apply(n)
	first := y.reads(func() { y.apply(n) }) + y.reads(func() { y.wantDone(n, true) })
	again := y.reads(func() { y.apply(n) }) + y.reads(func() { y.wantDone(n, true) })
	if again*2 > first {
		t.Fatalf("a look at what is remembered reads %d objects, the one before %d", again, first)
	}
	return y, n
}

// reads counts the objects that an act looks for in the cache.
func (y *yard) reads(act func()) int64 {
	before := y.cached.Load()
	act()
	return y.cached.Load() - before
}

func (y *yard) wantDone(n *api.KafkaNode, want bool) {
	y.t.Helper()
	if got := y.status(n).ObservedGeneration == n.Generation; got != want {
		y.t.Errorf("done is %t, want %t", got, want)
	}
}

func TestWhatIsRememberedHoldsUntilAnythingChanges(t *testing.T) {
	edit := func(o client.Object, name string, change func()) func(*yard, *api.KafkaNode) {
		return func(y *yard, _ *api.KafkaNode) {
			y.get(o, name)
			change()
			y.update(o)
		}
	}
	set, live, static, claim := &appsv1.StatefulSet{}, &corev1.ConfigMap{}, &corev1.ConfigMap{}, &corev1.PersistentVolumeClaim{}
	service, pod, secret, machine := &corev1.Service{}, &corev1.Pod{}, &corev1.Secret{}, &corev1.Node{}
	tests := map[string]struct {
		change func(*yard, *api.KafkaNode)
		// done says that the node has all that its spec asks for, even so.
		done bool
	}{
		"StatefulSet":           {change: edit(set, "orders-1", func() { set.Spec.Replicas = new(int32(3)) })},
		"live ConfigMap":        {change: edit(live, "orders-1-live", func() { live.Data[layout.LiveFile] = "{}" })},
		"PersistentVolumeClaim": {change: edit(claim, "data-orders-1", func() { delete(claim.Labels, corekube.LabelVolume) })},
		"Service":               {change: edit(service, "orders-1-plain", func() { service.Spec.Selector["more"] = "less" }), done: true},
		"Pod":                   {change: edit(pod, "orders-1-0", func() { delete(pod.Annotations, layout.PlacementAnnotation) })},
		"Secret":                {change: edit(secret, "orders-1-tls", func() { secret.Data["node.pem"] = []byte("2") })},
		"static ConfigMap": {change: func(y *yard, n *api.KafkaNode) {
			edit(static, staticName(y), func() { static.OwnerReferences = nil })(y, n)
		}},
		"machine": {change: func(y *yard, _ *api.KafkaNode) {
			y.get(pod, "orders-1-0")
			if err := y.c.Get(y.t.Context(), client.ObjectKey{Name: pod.Spec.NodeName}, machine); err != nil {
				y.t.Fatal(err)
			}
			machine.Labels[corev1.LabelTopologyZone] = "b"
			y.update(machine)
		}},
		"KafkaNode": {change: func(y *yard, n *api.KafkaNode) { n.Spec.Rack = "b"; y.save(n) }},
		"ConfigMap of an earlier process": {change: func(y *yard, _ *api.KafkaNode) {
			y.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-1-0123456789", Labels: labelsOf(y)}})
		}, done: true},
		"Service of an exposure that is no more": {change: func(y *yard, _ *api.KafkaNode) {
			y.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-1-other", Labels: labelsOf(y)}})
		}, done: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			y, n := settle(t)
			test.change(y, n)
			y.wantDone(n, test.done)
			writes := y.writes.Load()
			y.apply(n)
			if y.writes.Load() == writes {
				t.Error("nothing was done about it")
			}
			y.wantDone(n, true)
		})
	}
}

func TestANodeThatWaitsIsRememberedToo(t *testing.T) {
	y, n := newYard(t), testNode()
	y.create(n)
	y.machine("m1", corev1.ConditionTrue)
	y.apply(n)
	first, again := y.reads(func() { y.wantDone(n, false) }), y.reads(func() { y.wantDone(n, false) })
	if again*2 > first {
		t.Errorf("a look at what is remembered reads %d objects, the one before %d", again, first)
	}
	y.started(true)
	y.wantDone(n, false)
	y.apply(n)
	y.wantDone(n, true)
}

func TestWhatIsRememberedEndsWithWhatIsDeleted(t *testing.T) {
	y, n := settle(t)
	for _, o := range y.everything() {
		if err := y.c.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		_, service := o.(*corev1.Service)
		y.wantDone(n, service)
		y.wantRequests("deleted "+o.GetName(), 1, func() { y.apply(n) })
		y.apply(n)
		y.wantDone(n, true)
	}
	pod := &corev1.Pod{}
	y.get(pod, "orders-1-0")
	if err := y.c.Delete(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	y.wantDone(n, false)
}

func TestWhatIsRememberedIsLookedAtInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, n := settle(t)
		little := y.reads(func() { y.apply(n) })
		time.Sleep(11 * time.Minute)
		if again := y.reads(func() { y.apply(n) }); again <= little {
			t.Errorf("after 11 minutes %d objects are read, as little as at rest", again)
		}
		if again := y.reads(func() { y.apply(n) }); again != little {
			t.Errorf("%d objects are read at rest, before it were %d", again, little)
		}
	})
}

func staticName(y *yard) string {
	y.t.Helper()
	for _, o := range y.everything() {
		if m, ok := o.(*corev1.ConfigMap); ok && strings.HasPrefix(m.Name, "orders-1-") && m.Immutable != nil {
			return m.Name
		}
	}
	y.t.Fatal("there is no static ConfigMap")
	return ""
}

func labelsOf(y *yard) map[string]string {
	y.t.Helper()
	set := &appsv1.StatefulSet{}
	y.get(set, "orders-1")
	return set.Labels
}

func TestAPodThatIsOverdueIsForcedThoughNothingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		y, n := newYard(t), testNode()
		y.r.SetSight(kube.Sight{})
		y.create(n)
		y.apply(n)
		pod := y.started(true)
		pod.Finalizers = []string{"test/kubelet"} // what is told to end stays for now
		y.update(pod)
		if err := y.c.Delete(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		n.Spec.Volumes[0].Claim, n.Spec.Replaced = "data-orders-1-r2", "token"
		y.save(n)
		y.apply(n)
		y.wantRequests("in time", 0, func() { y.apply(n) })
		time.Sleep(2 * time.Minute)
		y.deletes = nil
		y.apply(n)
		if len(y.deletes) != 1 || *y.deletes[0].GracePeriodSeconds != 0 {
			t.Errorf("deleted %+v, want the pod without grace", y.deletes)
		}
	})
}
