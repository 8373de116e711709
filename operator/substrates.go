package operator

import (
	"context"
	"fmt"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/engine"
	hostsub "castellan.dev/castellan/substrate/host"
	kubesub "castellan.dev/castellan/substrate/kube"
)

// substrate realizes KafkaNodes and tells of them; it decides nothing.
type substrate interface {
	// Apply makes what a node's spec says, at once.
	Apply(ctx context.Context, node api.KafkaNode) error
	// Status is what is known of a node.
	Status(ctx context.Context, node api.KafkaNode, how engine.Freshness) (api.KafkaNodeStatus, error)
	// Remove takes a node away, in order; gone says that nothing of it runs any more.
	Remove(ctx context.Context, node api.KafkaNode, data api.DeletionPolicy) (gone bool, err error)
}

// substrates are those that this operator serves; nil ones it does not.
type substrates struct {
	hosts *hostsub.Realizer
	pods  *kubesub.Realizer
}

// isPod says whether a node is realized as a pod.
func isPod(node *api.KafkaNode) bool { return node.Spec.Host == "" && node.Spec.Process.Image != "" }

func (s substrates) of(node *api.KafkaNode) substrate { //nolint:ireturn // one of several, by the node
	switch {
	case isPod(node) && s.pods != nil:
		return onPods{s.pods}
	case !isPod(node) && s.hosts != nil:
		return onHosts{s.hosts}
	case isPod(node):
		return unserved{"pods", SubstrateKubernetes}
	default:
		return unserved{"hosts", SubstrateHost}
	}
}

type onHosts struct{ *hostsub.Realizer }

func (h onHosts) Status(ctx context.Context, node api.KafkaNode, _ engine.Freshness) (api.KafkaNodeStatus, error) {
	return h.Realizer.Status(ctx, node)
}

type onPods struct{ *kubesub.Realizer }

func (p onPods) Status(ctx context.Context, node api.KafkaNode, how engine.Freshness) (api.KafkaNodeStatus, error) {
	return p.Realizer.Status(ctx, node, how == engine.Fresh)
}

// unserved stands for a substrate that the operator was told not to serve.
type unserved struct{ what, flag string }

func (u unserved) err() error {
	return fmt.Errorf("this operator does not serve %s: start it with --substrates %s, or remove the cluster", u.what, u.flag)
}

func (u unserved) Apply(context.Context, api.KafkaNode) error { return u.err() }

func (u unserved) Status(context.Context, api.KafkaNode, engine.Freshness) (api.KafkaNodeStatus, error) {
	return api.KafkaNodeStatus{}, u.err()
}

func (u unserved) Remove(context.Context, api.KafkaNode, api.DeletionPolicy) (bool, error) {
	return false, u.err()
}
