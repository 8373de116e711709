package stand

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Listeners of the stand's clusters.
const (
	Inside  = "internal"
	Outside = "outside"
)

// Cluster is a KafkaCluster of a test, in a namespace of its own.
type Cluster struct {
	*Kubernetes
	Namespace, Name string
}

// For is the same cluster for a subtest, which then is what fails.
func (c *Cluster) For(tb testing.TB) *Cluster {
	tb.Helper()
	return &Cluster{Kubernetes: c.Kubernetes.For(tb), Namespace: c.Namespace, Name: c.Name}
}

// Pod0 names the pod of node 0.
func (c *Cluster) Pod0() metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: c.Namespace, Name: PodName(c.Name, 0)}
}

func (c *Cluster) key() types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
}

// Namespace makes a namespace that takes only pods of the restricted Pod Security Standard. It is removed when the test
// ends; when the test has failed, what is in it is shown first.
func (k *Kubernetes) Namespace(name string) {
	k.tb.Helper()
	c := k.Client()
	old := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if os.Getenv(EnvKeep) != "" {
		k.tb.Cleanup(func() {
			if k.tb.Failed() && !k.dumped[name] {
				k.Dump(name)
			}
		})
		if c.Get(k.tb.Context(), types.NamespacedName{Name: name}, old) == nil {
			return
		}
	} else {
		k.tb.Cleanup(func() { k.endNamespace(c, name) })
	}
	// A test that was killed may have left it behind.
	k.removeNamespace(k.tb.Context(), c, name)
	k.Eventually("the namespace "+name+" of an earlier test is gone", ReadyTimeout, k.Gone(old))
	k.MakeNamespace(name)
}

// MakeNamespace makes one as Namespace does, and leaves its end to others.
func (k *Kubernetes) MakeNamespace(name string) {
	k.tb.Helper()
	labels := map[string]string{}
	for _, mode := range []string{"enforce", "warn"} {
		labels["pod-security.kubernetes.io/"+mode] = "restricted"
	}
	if err := k.Client().Create(k.tb.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}); err != nil {
		k.tb.Fatalf("create the namespace %s: %v", name, err)
	}
}

func (k *Kubernetes) endNamespace(c client.Client, name string) {
	k.tb.Helper()
	if k.tb.Failed() && !k.dumped[name] {
		k.Dump(name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	k.removeNamespace(ctx, c, name)
}

func (k *Kubernetes) removeNamespace(ctx context.Context, c client.Client, name string) {
	k.tb.Helper()
	if err := client.IgnoreNotFound(c.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})); err != nil {
		k.tb.Errorf("delete the namespace %s: %v", name, err)
	}
}

// Small is a cluster of combined nodes that fits into a test, with a listener for each of [Inside] and [Outside].
func Small(namespace string, nodes int32) *api.KafkaCluster {
	copies := api.ConfigValue(fmt.Sprint(min(nodes, 3)))
	return &api.KafkaCluster{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.GroupVersion.String(), Kind: "KafkaCluster"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "orders"},
		Spec: api.KafkaClusterSpec{
			Version: Version,
			Config: api.Config{
				"default.replication.factor": copies, "offsets.topic.replication.factor": copies,
				"min.insync.replicas": api.ConfigValue(fmt.Sprint(max(1, min(nodes, 3)-1))),
			},
			Pools: []api.Pool{Shrink(api.Pool{
				Name: "nodes", Roles: []api.Role{api.RoleBroker, api.RoleController}, Replicas: nodes,
				Placement: api.Placement{Kubernetes: &api.KubernetesPlacement{}},
			})},
			Listeners: []api.Listener{
				{Name: Inside, Port: 9092},
				{Name: Outside, Port: 9094, Exposure: api.Exposure{Type: api.ExposureNodePort}},
			},
		},
	}
}

// Shrink gives a pool the sizes of a test.
func Shrink(p api.Pool) api.Pool {
	p.JVM.Heap = quantity("256Mi")
	p.Resources = corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("512Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("768Mi")},
	}
	p.Volumes = []api.Volume{{Name: "data", Size: quantity("512Mi")}}
	return p
}

func quantity(text string) *resource.Quantity {
	q := resource.MustParse(text)
	return &q
}

// Cluster applies a KafkaCluster in a namespace of its own and waits until it is Ready. Both are removed when the test ends.
func (k *Kubernetes) Cluster(want *api.KafkaCluster) *Cluster {
	k.tb.Helper()
	k.Namespace(want.Namespace)
	c := &Cluster{Kubernetes: k, Namespace: want.Namespace, Name: want.Name}
	began := time.Now()
	c.Apply(want)
	c.WaitReady()
	k.tb.Logf("%d nodes of %s are Ready %s after apply", want.Spec.Pools[0].Replicas, c.key(), time.Since(began).Round(100*time.Millisecond))
	return c
}

// YAML of an object as a user writes it.
func YAML(tb testing.TB, object any) string {
	tb.Helper()
	text, err := yaml.Marshal(object)
	if err != nil {
		tb.Fatalf("write YAML: %v", err)
	}
	return string(text)
}

// Apply runs `kubectl apply`, which has to work.
func (c *Cluster) Apply(want *api.KafkaCluster) {
	c.tb.Helper()
	must(c.tb, c.TryApply(want))
}

// TryApply is Apply for a test that wants to see it fail.
func (c *Cluster) TryApply(want *api.KafkaCluster) Output {
	c.tb.Helper()
	plain := api.KafkaCluster{TypeMeta: want.TypeMeta, Spec: want.Spec}
	plain.Namespace, plain.Name = want.Namespace, want.Name
	return c.KubectlIn(YAML(c.tb, plain), "apply", "-f", "-")
}

// Edit changes the spec and returns the new generation. What admission refuses fails the test.
func (c *Cluster) Edit(change func(*api.KafkaClusterSpec)) int64 {
	c.tb.Helper()
	generation, err := c.TryEdit(change)
	if err != nil {
		c.tb.Fatalf("change KafkaCluster %s: %v", c.key(), err)
	}
	return generation
}

// TryEdit is Edit for a test that wants to see it fail.
func (c *Cluster) TryEdit(change func(*api.KafkaClusterSpec)) (generation int64, err error) {
	c.tb.Helper()
	to := c.Client()
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		k := &api.KafkaCluster{}
		if err := to.Get(c.tb.Context(), c.key(), k); err != nil {
			return err
		}
		change(&k.Spec)
		err := to.Update(c.tb.Context(), k)
		generation = k.Generation
		return err
	})
	return generation, err
}

// Exec runs a command in the Kafka container of a node, which has to work, and returns its standard output.
func (c *Cluster) Exec(id int32, args ...string) string {
	c.tb.Helper()
	return must(c.tb, c.TryExec(id, args...))
}

// TryExec is Exec for a command that may fail.
func (c *Cluster) TryExec(id int32, args ...string) Output {
	c.tb.Helper()
	return c.Kubectl(append([]string{"exec", "-n", c.Namespace, PodName(c.Name, id), "-c", "kafka", "--"}, args...)...)
}

// Bootstrap is the comma-separated bootstrap servers of a client listener.
func (c *Cluster) Bootstrap(listener string) string {
	c.tb.Helper()
	for _, l := range c.Object().Status.Listeners {
		if l.Name == listener {
			return l.BootstrapServers
		}
	}
	c.tb.Fatalf("KafkaCluster %s shows no listener %s", c.key(), listener)
	return ""
}
