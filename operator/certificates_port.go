package operator

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/core/cluster"
	corekube "castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/endpoint"
	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/pki/secrets"
	kubesub "castellan.dev/castellan/substrate/kube"
)

const (
	// lookTimeoutOf one connection to a listener, and how many there are at a time.
	lookTimeoutOf   = 3 * time.Second
	lookConnections = 16
)

// certificatesPort issues certificates as Secrets, and looks at the nodes for it.
type certificatesPort struct {
	pki    secrets.Store
	pods   *kubesub.Realizer
	dial   kafka.DialFunc
	sights *sights
}

// sights is what was seen of each cluster.
type sights struct {
	mu sync.Mutex
	of map[types.NamespacedName]sight
}

type sight struct {
	uid types.UID
	*secrets.Sight
}

func newSights() *sights { return &sights{of: map[types.NamespacedName]sight{}} }

func (s *sights) sight(of *api.KafkaCluster) *secrets.Sight {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := types.NamespacedName{Namespace: of.Namespace, Name: of.Name}
	if s.of[name].uid != of.UID || s.of[name].Sight == nil {
		s.of[name] = sight{of.UID, &secrets.Sight{}}
	}
	return s.of[name].Sight
}

// Ensure implements engine.Certificates.
func (c certificatesPort) Ensure(ctx context.Context, of *api.KafkaCluster, want cluster.Model, nodes []plan.Node) (engine.Issued, error) {
	begin, err := c.bootstrapNames(ctx, of, nodes)
	if err != nil {
		return engine.Issued{}, err
	}
	wanted := secrets.Wanted{Listeners: want.Listeners, Certificates: want.Certificates}
	for _, n := range nodes {
		w := pki.Node{
			ID: n.Spec.NodeID, Address: n.Spec.Address, Broker: slices.Contains(n.Spec.Roles, api.RoleBroker),
			Needs: layout.SecretKeys(n.Spec.Process, n.Spec.Roles), Had: n.Spec.Certificates.Digest != "",
		}
		if n.Spec.Host == "" {
			w.Names = append(exposedNames(n), begin...)
		}
		wanted.Nodes = append(wanted.Nodes, w)
	}
	store := c.pki
	store.Sight = c.sights.sight(of)
	store.Look = func(ctx context.Context, probe secrets.Probe) map[string]certificates.Seen {
		return c.look(ctx, nodes, probe)
	}
	store.Users = func(ctx context.Context) ([]secrets.User, error) { return userSecrets(ctx, store.Client, of) }
	got, err := store.Ensure(ctx, of, wanted)
	return asIssued(got), err
}

func asIssued(got secrets.Issued) engine.Issued {
	out := engine.Issued{Nodes: make(map[int32]api.NodeCertificates, len(got.Nodes)), OwnTrust: got.OwnTrust, Done: inFew(got.Done)}
	for id, cert := range got.Nodes {
		out.Nodes[id] = api.NodeCertificates{Digest: cert.Digest, NotAfter: metav1Time(cert.NotAfter)}
	}
	for _, f := range got.Faults {
		out.Faults = append(out.Faults, engine.SecretFault{
			Problem: cluster.Problem{Path: f.Path, Severity: cluster.Warning, Reason: f.Reason, Remedy: f.Remedy}, Key: f.Key, Held: f.Held,
		})
	}
	if got.State.Reason != "" {
		out.State = &metav1.Condition{Type: api.ConditionCertificates, Status: metav1.ConditionFalse, Reason: got.State.Reason, Message: got.State.Message}
		if got.State.Settled {
			out.State.Status = metav1.ConditionTrue
		}
	}
	if wait := time.Until(got.Again); !got.Again.IsZero() && wait < resync {
		out.Again = max(wait, time.Second)
	}
	return out
}

// inFew says what was done to many parties in one sentence.
func inFew(steps []certificates.Step) []engine.CertificateStep {
	type kind struct {
		role   certificates.Role
		action certificates.Action
	}
	var out []engine.CertificateStep
	more, at := map[kind]int{}, map[kind]int{}
	for _, s := range steps {
		k := kind{s.Role, s.Action}
		if _, told := at[k]; told && s.Party != "" {
			more[k]++
			continue
		}
		at[k] = len(out)
		out = append(out, engine.CertificateStep{Action: string(s.Action), Reason: s.Reason})
	}
	for k, n := range more {
		out[at[k]].Reason += fmt.Sprintf("; likewise for %d more", n)
	}
	return out
}

// look looks at every listener with TLS of the nodes.
func (c certificatesPort) look(ctx context.Context, nodes []plan.Node, probe secrets.Probe) map[string]certificates.Seen {
	looker := endpoint.Looker{
		IssuerOf: probe.IssuerOf, Digest: pki.Digest, Dial: c.dial, By: "operator",
		Timeout: lookTimeoutOf, Connections: lookConnections, Now: time.Now,
	}
	for _, id := range probe.Identities {
		looker.Identities = append(looker.Identities, endpoint.Identity{Role: id.Role, Anchor: id.Anchor, Certificate: id.Certificate})
	}
	var at []endpoint.Endpoint
	for i := range nodes {
		at = append(at, endpointsOf(&nodes[i])...)
	}
	return looker.Look(ctx, at)
}

// endpointsOf are the listeners with TLS of a node's process.
func endpointsOf(n *plan.Node) []endpoint.Endpoint {
	var out []endpoint.Endpoint
	add := func(listener string, clients certificates.Role, foreign bool) {
		if port, ok := n.Spec.Ports[listener]; ok {
			out = append(out, endpoint.Endpoint{
				Party: secrets.NodeName(n.Spec.NodeID), Listener: listener, Address: layout.HostPort(n.Spec.Address, port), Clients: clients, Foreign: foreign,
			})
		}
	}
	add(layout.ControllerListener, certificates.Cluster, false)
	add(layout.InternalListener, certificates.Cluster, false)
	if !slices.Contains(n.Spec.Roles, api.RoleBroker) {
		return out
	}
	for _, l := range n.Spec.Process.Listeners {
		var clients certificates.Role
		if l.Authentication == api.AuthenticationMutualTLS {
			clients = certificates.Clients
		}
		if layout.Secured(l.Protocol) && (clients != "" || !l.OwnCertificate) {
			add(l.Name, clients, l.OwnCertificate)
		}
	}
	return out
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
