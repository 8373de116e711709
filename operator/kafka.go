package operator

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/pki/secrets"
)

// kafkaPort lets the engine speak to Kafka as the cluster's operator.
type kafkaPort struct {
	clients *kafka.Clients
	pki     secrets.Store
}

func (k kafkaPort) cluster(ctx context.Context, of *api.KafkaCluster, at engine.Endpoints) (*kafka.Cluster, error) {
	name := types.NamespacedName{Namespace: of.Namespace, Name: of.Name}
	config, err := k.pki.OperatorConfig(ctx, name)
	if err != nil {
		return nil, err
	}
	return k.clients.Cluster(name.String(), kafka.Target{Brokers: at.Brokers, Controllers: at.Controllers, ClusterID: at.ClusterID, TLS: config}), nil
}

// Observe implements engine.Kafka.
func (k kafkaPort) Observe(ctx context.Context, of *api.KafkaCluster, at engine.Endpoints, what plan.Ask) plan.Kafka {
	c, err := k.cluster(ctx, of, at)
	if err != nil {
		return plan.Kafka{Why: err.Error()}
	}
	seen, err := c.Observe(ctx, what)
	if err != nil {
		return plan.Kafka{Why: err.Error()}
	}
	return seen
}

// Do implements engine.Kafka.
func (k kafkaPort) Do(ctx context.Context, of *api.KafkaCluster, at engine.Endpoints, step plan.Step) error {
	c, err := k.cluster(ctx, of, at)
	if err != nil {
		return err
	}
	switch step.Kind {
	case plan.SetConfig:
		return c.SetConfig(ctx, step.Node, step.Set, step.Delete)
	case plan.AddVoter:
		return c.AddVoter(ctx, step.Node, step.DirectoryID, step.Endpoint)
	case plan.RemoveVoter:
		return c.RemoveVoter(ctx, step.Node, step.DirectoryID)
	case plan.ElectLeaders:
		return c.ElectPreferredLeaders(ctx)
	case plan.FinalizeFeatures:
		return c.FinalizeFeatures(ctx, step.Features)
	case plan.ThrottleTopics:
		return c.ThrottleTopics(ctx, step.Throttles)
	case plan.MoveReplicas:
		return c.MoveReplicas(ctx, step.Moves)
	case plan.CancelMoves:
		return c.CancelMoves(ctx, step.Cancel, step.Return)
	case plan.UnregisterBroker:
		return c.UnregisterBroker(ctx, step.Node)
	default:
		return errors.New("no step of Kafka: " + string(step.Kind))
	}
}
