package cli_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/cli"
)

// fakeForward stands for the way through the API server: every pod is the broker of
// $BROKERS, and who goes there is noted.
func fakeForward(*rest.Config) (cli.Forwarder, error) { return forwarder{}, nil } //nolint:ireturn // what cli takes

type forwarder struct{}

func (forwarder) Close() error {
	fmt.Fprintln(os.Stderr, "forwarder closed")
	return nil
}

func (forwarder) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if strings.Contains(address, ".svc:") {
		fmt.Fprintln(os.Stderr, "forwarded "+address)
		address = os.Getenv("BROKERS")
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// makePods makes what the operator would for a cluster of two nodes as pods, the second one
// of which waits for its volume.
func makePods(ctx context.Context, c client.Client, namespace, name string) error {
	cluster := &api.KafkaCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: api.KafkaClusterSpec{
			Version: "4.3.1",
			Pools: []api.Pool{{
				Name: "nodes", Roles: []api.Role{api.RoleBroker, api.RoleController}, Replicas: 2,
				Placement: api.Placement{Kubernetes: &api.KubernetesPlacement{}},
			}},
			Listeners: []api.Listener{{Name: "plain", Port: 9092}},
		},
	}
	space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if err := errors.Join(c.Create(ctx, space), c.Create(ctx, cluster)); err != nil {
		return err
	}
	cluster.Status = api.KafkaClusterStatus{
		Version: "4.3.1", Quorum: &api.QuorumStatus{Leader: 0, Voters: []int32{0, 1}},
		Listeners: []api.ListenerStatus{{Name: "plain", BootstrapServers: name + "-bootstrap." + namespace + ".svc:9092"}},
		Conditions: []metav1.Condition{
			{Type: api.ConditionReady, Status: metav1.ConditionFalse, Reason: "NodesNotReady", Message: "node 1 is not ready", LastTransitionTime: metav1.Now()},
			{Type: api.ConditionAvailable, Status: metav1.ConditionFalse, Reason: "UnderMinISR", Message: "partition t-0 is below min.insync.replicas", LastTransitionTime: metav1.Now()},
		},
	}
	if err := c.Status().Update(ctx, cluster); err != nil {
		return err
	}
	for id := range int32(2) {
		if err := makePod(ctx, c, namespace, name, id); err != nil {
			return err
		}
	}
	return c.Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: "e1"},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: name + "-1-0"},
		Type:           corev1.EventTypeWarning, Reason: "FailedScheduling", Message: "0/3 nodes are available", LastTimestamp: metav1.Now(), Count: 3,
	})
}

func makePod(ctx context.Context, c client.Client, namespace, cluster string, id int32) error {
	name := fmt.Sprintf("%s-%d", cluster, id)
	node := &api.KafkaNode{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: api.KafkaNodeSpec{
			ClusterName: cluster, NodeID: id, Pool: "nodes", Roles: []api.Role{api.RoleBroker, api.RoleController}, Revision: "r",
			Process: api.ProcessSpec{Version: "4.3.1", Image: "apache/kafka:4.3.1", Volumes: []string{"data"}, HeapBytes: 1, Layout: 1},
			Volumes: []api.NodeVolume{{Name: "data", Path: "/var/lib/kafka/data", Claim: "data-" + name, Size: new(resource.MustParse("1Gi"))}},
			Address: name + "-0." + cluster + "-nodes." + namespace + ".svc", Ports: map[string]int32{"plain": 9092},
		},
	}
	if err := c.Create(ctx, node); err != nil {
		return err
	}
	node.Status = api.KafkaNodeStatus{State: api.NodeRunning, Ready: true, Roles: "combined", Placement: &api.NodePlacement{Node: "worker-1", Zone: "a"}}
	if id == 1 {
		node.Status = api.KafkaNodeStatus{
			State: api.NodePending, Roles: "combined", Reason: "Unschedulable", Message: "its volume is on a machine that is gone",
			Placement: &api.NodePlacement{Node: "worker-2", Zone: "b", Lost: true},
			Volumes:   []api.VolumeStatus{{Name: "data", State: api.VolumeFormatted}},
			LastExit:  &api.ExitStatus{At: metav1.NewTime(time.Now())},
		}
	}
	return c.Status().Update(ctx, node)
}
