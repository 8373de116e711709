package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	corekube "castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/pki"
	kubesub "castellan.dev/castellan/substrate/kube"
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

// certificatesPort issues certificates as Secrets.
type certificatesPort struct {
	pki  pki.Store
	pods *kubesub.Realizer
}

// Ensure implements engine.Certificates.
func (c certificatesPort) Ensure(ctx context.Context, of *api.KafkaCluster, want cluster.Model, nodes []plan.Node) (engine.Issued, error) {
	begin, err := c.bootstrapNames(ctx, of, nodes)
	if err != nil {
		return engine.Issued{}, err
	}
	wanted := make([]pki.Node, 0, len(nodes))
	for _, n := range nodes {
		w := pki.Node{
			ID: n.Spec.NodeID, Address: n.Spec.Address, Broker: slices.Contains(n.Spec.Roles, api.RoleBroker),
			Needs: layout.SecretKeys(n.Spec.Process, n.Spec.Roles),
		}
		if n.Spec.Host == "" {
			w.Names = append(exposedNames(n), begin...)
		}
		wanted = append(wanted, w)
	}
	got, err := c.pki.Ensure(ctx, of, want.Listeners, wanted)
	if err != nil {
		return engine.Issued{}, err
	}
	out := engine.Issued{Nodes: make(map[int32]api.NodeCertificates, len(got.Nodes)), OwnTrust: got.OwnTrust}
	for id, cert := range got.Nodes {
		out.Nodes[id] = api.NodeCertificates{Digest: cert.Digest, NotAfter: metav1Time(cert.NotAfter)}
	}
	for _, f := range got.Faults {
		out.Faults = append(out.Faults, engine.SecretFault{
			Problem: cluster.Problem{Path: f.Path, Severity: cluster.Warning, Reason: f.Reason, Remedy: f.Remedy}, Key: f.Key, Held: f.Held,
		})
	}
	return out, nil
}

// exposedNames are the addresses under which clients reach one broker from outside.
func exposedNames(n plan.Node) []string {
	var names []string
	for _, e := range n.Spec.Exposures {
		names = append(names, e.Host, e.Address)
		if at := n.Status.Placement; e.AddressType != "" && at != nil {
			names = append(names, at.Addresses[string(e.AddressType)])
		}
	}
	return names
}

// bootstrapNames are those under which clients reach any broker of pods to begin with.
func (c certificatesPort) bootstrapNames(ctx context.Context, of *api.KafkaCluster, nodes []plan.Node) ([]string, error) {
	if c.pods == nil {
		return nil, nil
	}
	names := []string{corekube.BootstrapAddress(of.Namespace, of.Name), corekube.BootstrapService(of.Name)}
	shared, err := sharedPort{c.pods}.Observe(ctx, of, engine.Cached)
	if err != nil {
		return nil, err
	}
	for _, l := range of.Spec.Listeners {
		host, _ := cluster.FillBootstrap(of.Namespace, of.Name, l)
		names = append(names, host, shared.Bootstrap[l.Name].Address)
	}
	for _, n := range nodes { // a NodePort is open on every machine
		for _, e := range n.Spec.Exposures {
			if at := n.Status.Placement; e.AddressType != "" && at != nil {
				names = append(names, at.Addresses[string(e.AddressType)])
			}
		}
	}
	return names, nil
}

// Delete implements engine.Certificates.
func (c certificatesPort) Delete(ctx context.Context, of *api.KafkaCluster) error {
	if err := c.pki.Delete(ctx, of); err != nil {
		return fmt.Errorf("delete the certificates: %w", err)
	}
	return nil
}
