package operator

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/pki"
)

// kafkaPort lets the engine speak to Kafka as the cluster's operator.
type kafkaPort struct {
	clients *kafka.Clients
	pki     pki.Store
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
func (k kafkaPort) Observe(ctx context.Context, of *api.KafkaCluster, at engine.Endpoints, perBroker []int32) plan.Kafka {
	c, err := k.cluster(ctx, of, at)
	if err != nil {
		return plan.Kafka{Why: err.Error()}
	}
	seen, err := c.Observe(ctx, perBroker)
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
	default:
		return errors.New("no step of Kafka: " + string(step.Kind))
	}
}

// certificatesPort issues certificates as Secrets.
type certificatesPort struct{ pki pki.Store }

// Ensure implements engine.Certificates.
func (c certificatesPort) Ensure(ctx context.Context, of *api.KafkaCluster, nodes []plan.Node) (map[int32]api.NodeCertificates, error) {
	wanted := make([]pki.Node, 0, len(nodes))
	for _, n := range nodes {
		wanted = append(wanted, pki.Node{ID: n.Spec.NodeID, Address: n.Spec.Address})
	}
	got, err := c.pki.Ensure(ctx, of, wanted)
	if err != nil {
		return nil, err
	}
	out := make(map[int32]api.NodeCertificates, len(got))
	for id, cert := range got {
		out[id] = api.NodeCertificates{Digest: cert.Digest, NotAfter: metav1Time(cert.NotAfter)}
	}
	return out, nil
}

// Delete implements engine.Certificates.
func (c certificatesPort) Delete(ctx context.Context, of *api.KafkaCluster) error {
	if err := c.pki.Delete(ctx, of); err != nil {
		return fmt.Errorf("delete the certificates: %w", err)
	}
	return nil
}
