package kube_test

import (
	"context"
	"sync/atomic"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/substrate/kube"
)

// yard is a realizer on a fake API server, whose controllers and kubelets are played by
// the test. The real ones play in test/e2e.
type yard struct {
	t       *testing.T
	c       client.Client // the test's own, not counted
	r       *kube.Realizer
	reports *kube.Reports
	// writes and lives count the realizer's requests: what is read from a cache costs none.
	writes, lives, cached atomic.Int64
	deletes               []client.DeleteOptions
}

func newYard(t *testing.T) *yard {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, api.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	builder := fake.NewClientBuilder().WithScheme(scheme)
	if err := kube.Index(t.Context(), indexer{builder}); err != nil {
		t.Fatal(err)
	}
	store := builder.
		WithStatusSubresource(&corev1.Pod{}, &appsv1.StatefulSet{}, &corev1.PersistentVolumeClaim{}, &corev1.Service{}).
		WithIndex(&corev1.Event{}, "involvedObject.uid", func(o client.Object) []string {
			if e, ok := o.(*corev1.Event); ok {
				return []string{string(e.InvolvedObject.UID)}
			}
			return nil
		}).Build()
	y := &yard{t: t, c: store}
	cached := interceptor.NewClient(store, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			y.cached.Add(1)
			return c.Get(ctx, key, o, opts...)
		},
		Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			y.writes.Add(1)
			return c.Apply(ctx, o, opts...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			y.writes.Add(1)
			return c.Patch(ctx, o, p, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			y.writes.Add(1)
			y.deletes = append(y.deletes, *(&client.DeleteOptions{}).ApplyOptions(opts))
			return c.Delete(ctx, o, opts...)
		},
	})
	live := interceptor.NewClient(store, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			y.lives.Add(1)
			return c.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			y.lives.Add(1)
			return c.List(ctx, list, opts...)
		},
	})
	y.reports = kube.NewReports(nil, nil, nil)
	y.r = kube.New(cached, live, y.reports)
	y.r.SetSight(kube.Sight{Machines: true, Volumes: true})
	return y
}

// indexer indexes what a fake API server serves as the operator does its cache.
type indexer struct{ builder *fake.ClientBuilder }

func (i indexer) IndexField(_ context.Context, o client.Object, field string, value client.IndexerFunc) error {
	i.builder.WithIndex(o, field, value)
	return nil
}

func quantity(text string) *resource.Quantity {
	q := resource.MustParse(text)
	return &q
}

func testNode() *api.KafkaNode {
	return &api.KafkaNode{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-1", UID: "u", Generation: 3},
		Spec: api.KafkaNodeSpec{
			ClusterName: "orders", NodeID: 1, Pool: "nodes", Roles: []api.Role{api.RoleBroker}, Revision: "orders-1",
			Process: api.ProcessSpec{
				Version: "4.3.1", Image: "apache/kafka:4.3.1", Supervisor: "castellan:1", Layout: 1, HeapBytes: 1 << 28, Volumes: []string{"data"},
				Listeners: []api.NodeListener{{Name: "plain", Protocol: "PLAINTEXT"}},
			},
			Volumes:   []api.NodeVolume{{Name: "data", Path: "/var/lib/kafka/data", Size: quantity("1Gi"), Claim: "data-orders-1"}},
			Address:   corekube.Address("kafka", "orders", 1),
			Ports:     map[string]int32{"INTERNAL": 9091, "plain": 9092},
			Exposures: []api.NodeExposure{{Listener: "plain", Type: api.ExposureNodePort, Annotations: map[string]string{"a": "b"}}},
			State:     api.StateRunning,
		},
	}
}

func (y *yard) create(o client.Object) {
	y.t.Helper()
	if err := y.c.Create(y.t.Context(), o); err != nil {
		y.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

func (y *yard) get(o client.Object, name string) {
	y.t.Helper()
	if err := y.c.Get(y.t.Context(), client.ObjectKey{Namespace: "kafka", Name: name}, o); err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) exists(o client.Object, name string) bool {
	y.t.Helper()
	err := y.c.Get(y.t.Context(), client.ObjectKey{Namespace: "kafka", Name: name}, o)
	if client.IgnoreNotFound(err) != nil {
		y.t.Fatal(err)
	}
	return err == nil
}

func (y *yard) update(o client.Object) {
	y.t.Helper()
	if err := y.c.Update(y.t.Context(), o); err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) apply(n *api.KafkaNode) {
	y.t.Helper()
	if err := y.r.Apply(y.t.Context(), *n); err != nil {
		y.t.Fatal(err)
	}
}

// save writes a node as the plan does: a new spec is a new generation.
func (y *yard) save(n *api.KafkaNode) {
	y.t.Helper()
	n.Generation++
	y.update(n)
}

// wantRequests says how many requests an act took.
func (y *yard) wantRequests(what string, writes int64, act func()) {
	y.t.Helper()
	w, l := y.writes.Load(), y.lives.Load()
	act()
	if got := y.writes.Load() - w; got != writes {
		y.t.Errorf("%s: %d writes, want %d", what, got, writes)
	}
	if got := y.lives.Load() - l; writes == 0 && got != 0 {
		y.t.Errorf("%s: %d reads past the cache, want none", what, got)
	}
}

// started plays the StatefulSet's controller and the scheduler: a pod on machine m1.
func (y *yard) started(ready bool) *corev1.Pod {
	y.t.Helper()
	var set appsv1.StatefulSet
	y.get(&set, "orders-1")
	pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.Name, pod.UID, pod.Spec.NodeName = "kafka", "orders-1-0", "p-1", "m1"
	y.create(pod)
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", ContainerStatuses: []corev1.ContainerStatus{{
		Name: "kafka", Ready: ready, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}}
	if err := y.c.Status().Update(y.t.Context(), pod); err != nil {
		y.t.Fatal(err)
	}
	return pod
}

func (y *yard) machine(name string, ready corev1.ConditionStatus) *corev1.Node {
	y.t.Helper()
	m := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"topology.kubernetes.io/zone": "a"}},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}},
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.1.0.1"}},
		},
	}
	y.create(m)
	return m
}

// everything are the objects of the test's node.
func (y *yard) everything() []client.Object {
	y.t.Helper()
	var all []client.Object
	for _, list := range []client.ObjectList{&appsv1.StatefulSetList{}, &corev1.ConfigMapList{}, &corev1.ServiceList{}, &corev1.PersistentVolumeClaimList{}, &policyv1.PodDisruptionBudgetList{}} {
		if err := y.c.List(y.t.Context(), list, client.InNamespace("kafka")); err != nil {
			y.t.Fatal(err)
		}
		switch l := list.(type) {
		case *appsv1.StatefulSetList:
			for i := range l.Items {
				all = append(all, &l.Items[i])
			}
		case *corev1.ConfigMapList:
			for i := range l.Items {
				all = append(all, &l.Items[i])
			}
		case *corev1.ServiceList:
			for i := range l.Items {
				all = append(all, &l.Items[i])
			}
		case *corev1.PersistentVolumeClaimList:
			for i := range l.Items {
				all = append(all, &l.Items[i])
			}
		case *policyv1.PodDisruptionBudgetList:
			for i := range l.Items {
				all = append(all, &l.Items[i])
			}
		}
	}
	return all
}
