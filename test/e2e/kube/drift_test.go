package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	corekube "castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/test/e2e/kube/stand"
)

// soon is how long the repair of what was deleted may take on two busy cores; five seconds are the goal.
const soon = 15 * time.Second

// drift deletes and edits what Castellan made, by hand.
func drift(t *testing.T, c *stand.Cluster) {
	t.Helper()
	traffic := c.Traffic("drift")
	pods := c.WatchPods()
	api := c.Client()
	for kind, list := range map[string]client.ObjectList{
		"Services": &corev1.ServiceList{}, "ConfigMaps": &corev1.ConfigMapList{}, "Secrets of nodes": &corev1.SecretList{},
		"StatefulSets": &appsv1.StatefulSetList{}, "PodDisruptionBudgets": &policyv1.PodDisruptionBudgetList{},
	} {
		before := ofCluster(t, c, api, list)
		if kind == "Secrets of nodes" {
			maps.DeleteFunc(before, func(name string, _ client.Object) bool { return !strings.HasSuffix(name, "-tls") })
		}
		if len(before) == 0 {
			t.Fatalf("the cluster has no %s", kind)
		}
		for _, o := range before {
			// Orphaned, so that a StatefulSet goes without its pod.
			if err := api.Delete(t.Context(), o, client.PropagationPolicy(metav1.DeletePropagationOrphan)); err != nil {
				t.Fatalf("delete %s %s: %v", kind, o.GetName(), err)
			}
		}
		took := c.Eventually(fmt.Sprintf("%d deleted %s are there again", len(before), kind), soon, func(ctx context.Context) error {
			now, err := listed(ctx, c, api, list)
			if err != nil {
				return err
			}
			for name, old := range before {
				if o := now[name]; o == nil || o.GetUID() == old.GetUID() || o.GetDeletionTimestamp() != nil {
					return fmt.Errorf("%s %s is not there again", kind, name)
				}
			}
			return nil
		})
		t.Logf("%d deleted %s were there again after %s", len(before), kind, took.Round(100*time.Millisecond))
		if kind == "Services" {
			samePorts(t, before, ofCluster(t, c, api, list))
		}
	}
	c.Eventually("records go on", time.Minute, traffic.GoesOn())
	edited(t, c, api)
	c.WaitReady()
	c.ExpectUntouched(pods)
	c.ExpectMinISR(traffic.End())
}

func ofCluster(t *testing.T, c *stand.Cluster, api client.Client, list client.ObjectList) map[string]client.Object {
	t.Helper()
	found, err := listed(t.Context(), c, api, list)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// listed are the objects of the cluster by name.
func listed(ctx context.Context, c *stand.Cluster, api client.Client, list client.ObjectList) (map[string]client.Object, error) {
	list = list.DeepCopyObject().(client.ObjectList)
	if err := api.List(ctx, list, client.InNamespace(c.Namespace), client.MatchingLabels{corekube.LabelCluster: c.Name}); err != nil {
		return nil, fmt.Errorf("list %T: %w", list, err)
	}
	found := map[string]client.Object{}
	switch l := list.(type) {
	case *corev1.ServiceList:
		index(found, l.Items)
	case *corev1.ConfigMapList:
		index(found, l.Items)
	case *corev1.SecretList:
		index(found, l.Items)
	case *appsv1.StatefulSetList:
		index(found, l.Items)
	case *policyv1.PodDisruptionBudgetList:
		index(found, l.Items)
	}
	return found, nil
}

func index[T any, P interface {
	*T
	client.Object
}](into map[string]client.Object, items []T) {
	for i := range items {
		o := P(&items[i])
		into[o.GetName()] = o
	}
}

// samePorts holds what clients were told against what they would be told now.
func samePorts(t *testing.T, before, after map[string]client.Object) {
	t.Helper()
	ports := func(of map[string]client.Object) map[string][]int32 {
		out := map[string][]int32{}
		for name, o := range of {
			for _, p := range o.(*corev1.Service).Spec.Ports {
				out[name] = append(out[name], p.NodePort)
			}
		}
		return out
	}
	if diff := cmp.Diff(ports(before), ports(after)); diff != "" {
		t.Errorf("Services came back with other ports (- before, + after):\n%s", diff)
	}
}

// edit is what somebody changes by hand in an object.
type edit struct {
	what, name string
	kind       client.Object
	change     func(client.Object)
	state      func(client.Object) any // of what the change touches
}

func edits(c *stand.Cluster) []edit {
	set := func(o client.Object) *appsv1.StatefulSetSpec { return &o.(*appsv1.StatefulSet).Spec }
	budget := func(o client.Object) *policyv1.PodDisruptionBudgetSpec {
		return &o.(*policyv1.PodDisruptionBudget).Spec
	}
	service := func(o client.Object) *corev1.ServiceSpec { return &o.(*corev1.Service).Spec }
	live := func(o client.Object) *map[string]string { return &o.(*corev1.ConfigMap).Data }
	secret := func(o client.Object) map[string][]byte { return o.(*corev1.Secret).Data }
	return []edit{
		{
			"a StatefulSet's image", corekube.NodeName(c.Name, 0), &appsv1.StatefulSet{},
			func(o client.Object) { set(o).Template.Spec.Containers[0].Image = "example.com/kafka:mine" }, func(o client.Object) any { return set(o) },
		},
		{
			"a StatefulSet's environment", corekube.NodeName(c.Name, 0), &appsv1.StatefulSet{},
			func(o client.Object) {
				k := &set(o).Template.Spec.Containers[0]
				k.Env = append(k.Env, corev1.EnvVar{Name: "MINE", Value: "1"})
			}, func(o client.Object) any { return set(o) },
		},
		{
			"the budget", corekube.BudgetName(c.Name), &policyv1.PodDisruptionBudget{},
			func(o client.Object) {
				budget(o).MinAvailable, budget(o).MaxUnavailable = nil, new(intstr.FromInt32(3))
			}, func(o client.Object) any { return budget(o) },
		},
		{
			"a Service's port", corekube.BootstrapService(c.Name), &corev1.Service{},
			func(o client.Object) { service(o).Ports[0].Port = 1 }, func(o client.Object) any { return service(o) },
		},
		{
			"a Service's selector", corekube.BootstrapService(c.Name), &corev1.Service{},
			func(o client.Object) { service(o).Selector["mine"] = "true" }, func(o client.Object) any { return service(o) },
		},
		{
			"a live ConfigMap", corekube.LiveName(c.Name, 2), &corev1.ConfigMap{},
			func(o client.Object) { *live(o) = map[string]string{"live.json": "{}"} }, func(o client.Object) any { return live(o) },
		},
		{
			"a certificate", corekube.SecretName(c.Name, 1), &corev1.Secret{},
			func(o client.Object) { clear(secret(o)) }, func(o client.Object) any { return slices.Sorted(maps.Keys(secret(o))) },
		},
	}
}

// edited makes each edit and wants it to be undone.
func edited(t *testing.T, c *stand.Cluster, api client.Client) {
	t.Helper()
	for _, e := range edits(c) {
		get := func(ctx context.Context) (client.Object, error) {
			o := e.kind.DeepCopyObject().(client.Object) // empty: what is read into a map stays beside what was in it
			return o, api.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: e.name}, o)
		}
		o, err := get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before := stand.YAML(t, e.state(o))
		e.change(o)
		if stand.YAML(t, e.state(o)) == before {
			t.Fatalf("%s: the edit changes nothing", e.what)
		}
		if err := api.Update(t.Context(), o); err != nil {
			t.Fatalf("edit %s: %v", e.what, err)
		}
		took := c.Eventually(e.what+" is put back", soon, func(ctx context.Context) error {
			now, err := get(ctx)
			if err != nil {
				return err
			}
			if diff := cmp.Diff(before, stand.YAML(t, e.state(now))); diff != "" {
				return fmt.Errorf("it is another one (- before, + now):\n%s", diff)
			}
			return nil
		})
		t.Logf("%s was put back after %s", e.what, took.Round(100*time.Millisecond))
	}
}
