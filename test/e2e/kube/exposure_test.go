package kube

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/test/e2e/kube/stand"
)

// TestMoreExposure tells of load balancers that take their time, and of growing under the eyes of clients outside.
func TestMoreExposure(t *testing.T) {
	k := shared.For(t)
	k.Operator()
	k.Namespace("kube-exposure")
	k.LoadBalancers(false)
	t.Cleanup(func() { k.LoadBalancersAnyway(true) })

	want := stand.Small("kube-exposure", 1)
	// What Castellan derives from the number of brokers would change with the third one, and restart nodes for that.
	for _, topic := range []string{"transaction.state.log", "share.coordinator.state.topic"} {
		want.Spec.Config[topic+".replication.factor"], want.Spec.Config[topic+".min.isr"] = "1", "1"
	}
	want.Spec.Listeners = append(want.Spec.Listeners, api.Listener{Name: "balanced", Port: 9095, Exposure: api.Exposure{Type: api.ExposureLoadBalancer}})
	want.Spec.Pools = append(want.Spec.Pools, stand.Shrink(api.Pool{
		Name: "brokers", Roles: []api.Role{api.RoleBroker}, Replicas: 1, FirstNodeID: new(int32(100)),
		Placement: api.Placement{Kubernetes: &api.KubernetesPlacement{}},
	}))
	c := &stand.Cluster{Kubernetes: k, Namespace: want.Namespace, Name: want.Name}
	c.Apply(want)
	tell(t, c,
		story{"a load balancer that takes its time", balancer},
		story{"a broker more", scaleOut},
	)
}

func balancer(t *testing.T, c *stand.Cluster) {
	t.Helper()
	c.Eventually("the cluster says that it waits for load balancers", 2*time.Minute, c.Says(api.ConditionReady, func(now metav1.Condition) bool {
		return now.Status == metav1.ConditionFalse && strings.Contains(strings.ToLower(now.Message), "load balancer")
	}))
	c.LoadBalancers(true)
	c.WaitReady()
	brokers := c.Bootstrap("balanced")
	if !strings.HasPrefix(brokers, "10.91.0.") {
		t.Errorf("clients are sent to %s, which is no load balancer", brokers)
	}
	var seen struct{ Written, Missing int64 }
	c.Outside(time.Minute, &seen, "records", "-brokers", brokers, "-topic", "balanced", "-count", "10000")
	if seen.Written != 10000 || seen.Missing != 0 {
		t.Errorf("through load balancers: %+v", seen)
	}
}

func scaleOut(t *testing.T, c *stand.Cluster) {
	t.Helper()
	pods := c.WatchPods()
	traffic := c.Traffic("scale-out")
	c.Edit(func(s *api.KafkaClusterSpec) { s.Pools[1].Replicas = 2 })
	c.WaitReady()
	c.ExpectUntouched(pods)
	if n := len(c.Nodes()); n != 3 {
		t.Errorf("there are %d nodes, want 3", n)
	}
	var seen struct{ Written, Missing int64 }
	c.Outside(time.Minute, &seen, "records", "-brokers", c.Bootstrap("balanced"), "-topic", "wide", "-partitions", "12", "-count", "10000")
	if seen.Written != 10000 || seen.Missing != 0 {
		t.Errorf("through three brokers: %+v", seen)
	}
	traffic.End()
}
