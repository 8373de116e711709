package kube

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"castellan.dev/castellan/test/e2e/kube/stand"
)

// TestMoreNamespaced tells of an operator that may touch one namespace, and of data that outlives its cluster.
func TestMoreNamespaced(t *testing.T) {
	k := shared.For(t)
	const served, other = "kube-served", "kube-other"
	k.Operator()
	k.Namespace(other)
	k.Namespace(served)
	// Namespaces are gone, and their clusters with them, before all are served again.
	k.Upgrade(k.Tag("e2e"), served)
	t.Cleanup(func() { k.UpgradeAnyway(k.Tag("e2e")) })

	untouched := stand.Small(other, 1)
	must(t, k.KubectlIn(stand.YAML(t, untouched), "apply", "-f", "-"))
	c := &stand.Cluster{Kubernetes: k, Namespace: served, Name: "orders"}
	c.Apply(stand.Small(served, 1))
	c.WaitReady()
	tell(t, c,
		story{"nothing of another namespace is touched", func(t *testing.T, c *stand.Cluster) {
			t.Helper()
			onlyServed(t, c, served, other)
		}},
		story{"data outlives its cluster", dataOutlives},
		story{"data outlives its namespace", dataOutlivesNamespace},
		story{"a served namespace is deleted", servedNamespaceEnds},
	)
}

// servedNamespaceEnds deletes the namespace in which alone the operator has rights, and which takes them along.
func servedNamespaceEnds(t *testing.T, c *stand.Cluster) {
	t.Helper()
	c.MustKubectl("delete", "namespace", c.Namespace, "--timeout=2m")
}

func onlyServed(t *testing.T, c *stand.Cluster, served, other string) {
	t.Helper()
	list := func(namespace string) string {
		return must(t, c.Kubectl("auth", "can-i", "--list", "--no-headers", "-n", namespace, "--as", "system:serviceaccount:"+stand.OperatorNamespace+":"+stand.OperatorAccount))
	}
	if !strings.Contains(list(served), "statefulsets.apps") {
		t.Errorf("the operator has no rights where it serves:\n%s", list(served))
	}
	for line := range strings.Lines(list(other)) {
		for _, right := range []string{"create", "update", "patch", "delete", "*"} {
			about := strings.Fields(line)
			// Everybody may ask what he may do.
			if strings.Contains(line[strings.LastIndex(line, "["):], right) && !strings.HasPrefix(about[0], "self") && !strings.HasPrefix(line, "validatingwebhook") {
				t.Errorf("the operator may, in a namespace that it does not serve: %s", line)
			}
		}
		for _, secret := range []string{"secrets", "pods", "configmaps"} {
			if strings.HasPrefix(line, secret) {
				t.Errorf("the operator may, in a namespace that it does not serve: %s", line)
			}
		}
	}
	them := &stand.Cluster{Kubernetes: c.Kubernetes, Namespace: other, Name: "orders"}
	if k := them.Object(); len(k.Status.Conditions) > 0 || len(k.Finalizers) > 0 || k.Status.ObservedGeneration != 0 {
		t.Errorf("a KafkaCluster of another namespace was looked at: %+v", k.Status)
	}
	if made := c.MustKubectl("get", "kafkanodes,statefulsets,secrets,services,pvc", "-n", other, "-o", "name"); made != "" {
		t.Errorf("made in another namespace: %s", made)
	}
}

// dataOutlives deletes the KafkaCluster and applies it again.
func dataOutlives(t *testing.T, c *stand.Cluster) {
	t.Helper()
	write(t, c)
	id := c.Object().Status.ClusterID
	c.MustKubectl("delete", "kafkacluster", c.Name, "-n", c.Namespace, "--timeout=2m")
	c.Eventually("the pod is gone", 2*time.Minute, c.Gone(&corev1.Pod{ObjectMeta: c.Pod0()}))
	c.Eventually("nothing but the volume is left", time.Minute, func(context.Context) error {
		left := c.MustKubectl("get", "kafkanodes,statefulsets,services,poddisruptionbudgets", "-n", c.Namespace, "-o", "name")
		if strings.TrimSpace(left) != "" {
			return fmt.Errorf("there are still %s", strings.Fields(left))
		}
		return nil
	})
	if left := c.MustKubectl("get", "pvc", "-n", c.Namespace, "-o", "name"); !strings.Contains(left, "data-orders-0") {
		t.Fatalf("the volume is gone: %q", left)
	}
	c.Apply(stand.Small(c.Namespace, 1))
	c.WaitReady()
	if now := c.Object().Status.ClusterID; now != id {
		t.Errorf("the cluster has the id %s, had %s", now, id)
	}
	there(t, c)
}

// dataOutlivesNamespace keeps the PersistentVolumes of a namespace that is deleted and binds them again.
func dataOutlivesNamespace(t *testing.T, c *stand.Cluster) {
	t.Helper()
	id := c.Object().Status.ClusterID
	claim := &corev1.PersistentVolumeClaim{}
	to := c.Client()
	if err := to.Get(t.Context(), types.NamespacedName{Namespace: c.Namespace, Name: c.Node(0).Spec.Volumes[0].Claim}, claim); err != nil {
		t.Fatal(err)
	}
	volume := claim.Spec.VolumeName
	c.Upgrade(c.Tag("e2e")) // who serves all namespaces keeps the rights that this one takes along
	c.MustKubectl("patch", "pv", volume, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`)
	c.MustKubectl("delete", "namespace", c.Namespace, "--timeout=150s")
	c.MustKubectl("patch", "pv", volume, "--type=json", `-p=[{"op":"remove","path":"/spec/claimRef"}]`)
	c.MakeNamespace(c.Namespace)
	c.Upgrade(c.Tag("e2e"), c.Namespace)
	again := &corev1.PersistentVolumeClaim{Spec: claim.Spec}
	again.Namespace, again.Name, again.Labels = claim.Namespace, claim.Name, claim.Labels
	if err := to.Create(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	c.Apply(stand.Small(c.Namespace, 1))
	c.WaitReady()
	if now := c.Object().Status.ClusterID; now != id {
		t.Errorf("the cluster has the id %s, had %s", now, id)
	}
	there(t, c)
	c.MustKubectl("patch", "pv", volume, "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`)
}

const keptRecords = "1000"

func write(t *testing.T, c *stand.Cluster) {
	t.Helper()
	c.Eventually("clients outside reach the cluster", time.Minute, c.InSync()) // a NodePort is served a moment after the pod is ready
	var seen struct{ Written, Missing int64 }
	c.Outside(time.Minute, &seen, "records", "-brokers", c.Bootstrap(stand.Outside), "-topic", "kept", "-count", keptRecords)
	if seen.Missing != 0 || seen.Written == 0 {
		t.Fatalf("records are written: %+v", seen)
	}
}

func there(t *testing.T, c *stand.Cluster) {
	t.Helper()
	c.Eventually("clients outside reach the cluster", time.Minute, c.InSync())
	var seen struct{ Read, Missing int64 }
	c.Outside(time.Minute, &seen, "records", "-keep", "-brokers", c.Bootstrap(stand.Outside), "-topic", "kept", "-count", keptRecords)
	if seen.Missing != 0 {
		t.Errorf("records are lost: %+v", seen)
	}
}
