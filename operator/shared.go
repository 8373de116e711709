package operator

import (
	"context"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	corekube "castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
	kubesub "castellan.dev/castellan/substrate/kube"
)

// sharedPort keeps what the nodes of a cluster of pods share; without pods there is nothing.
type sharedPort struct{ pods *kubesub.Realizer }

// Observe implements engine.Shared.
func (s sharedPort) Observe(ctx context.Context, of *api.KafkaCluster, how engine.Freshness) (plan.Shared, error) {
	if s.pods == nil {
		return plan.Shared{}, nil
	}
	found, err := s.pods.ObserveShared(ctx, of.Namespace, of.Name, how == engine.Fresh)
	if err != nil {
		return plan.Shared{}, err
	}
	return plan.Shared{Claims: found.Claims, Bootstrap: found.Bootstrap, Evicting: found.Evicting}, nil
}

// Same implements engine.Shared.
func (s sharedPort) Same(ctx context.Context, of *api.KafkaCluster, want cluster.Model, nodes []plan.Node, spare bool) bool {
	in, pods := s.input(of, want, nodes, spare)
	return !pods || s.pods.SameShared(ctx, in)
}

// Apply implements engine.Shared.
func (s sharedPort) Apply(ctx context.Context, of *api.KafkaCluster, want cluster.Model, nodes []plan.Node, spare bool) (closed bool, err error) {
	in, pods := s.input(of, want, nodes, spare)
	if !pods {
		return false, nil
	}
	return s.pods.ApplyShared(ctx, in)
}

// input is what the shared objects depend on; has is false where there are none.
func (s sharedPort) input(of *api.KafkaCluster, want cluster.Model, nodes []plan.Node, spare bool) (in corekube.SharedInput, has bool) {
	pods := int32(0)
	for i := range want.Nodes {
		if want.Nodes[i].Kubernetes {
			pods++
		}
	}
	if s.pods == nil || pods == 0 {
		return in, false
	}
	if want.State == api.StateStopped {
		pods = 0 // none is to be evicted, and none is there
	}
	in = corekube.SharedInput{
		Namespace: of.Namespace, Cluster: of.Name, UID: of.UID, Listeners: want.Listeners, Nodes: pods, Spare: spare,
		BootstrapAnnotations: map[string]map[string]string{}, BootstrapNodePorts: map[string]int32{},
	}
	for _, l := range want.Listeners {
		_, in.BootstrapAnnotations[l.Name] = cluster.FillBootstrap(of.Namespace, of.Name, l)
	}
	for _, n := range nodes {
		for _, e := range n.Spec.Exposures {
			if e.BootstrapNodePort != 0 {
				in.BootstrapNodePorts[e.Listener] = e.BootstrapNodePort
			}
		}
	}
	return in, true
}

// Delete implements engine.Shared.
func (s sharedPort) Delete(ctx context.Context, of *api.KafkaCluster, withData bool) error {
	if s.pods == nil {
		return nil
	}
	data := api.DeletionRetain
	if withData {
		data = api.DeletionDelete
	}
	return s.pods.DeleteShared(ctx, of.Namespace, of.Name, data)
}
