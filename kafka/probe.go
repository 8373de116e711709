package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/plan"
)

// Reasons why a node is not ready, see [NodeHealth].
const (
	NodeNotRegistered = "NotRegistered"
	NodeFenced        = "Fenced"
	NodeNoQuorum      = "NoQuorum"
	NodeNotInQuorum   = "NotInQuorum"
	NodeCatchingUp    = "CatchingUp"
)

// caughtUpWithin is how far behind a caught-up controller may be. An idle quorum writes a
// no-op record every 500 ms (metadata.max.idle.interval.ms).
const caughtUpWithin = 10 * time.Second

// Self is one node, seen from its own host.
type Self struct {
	ID int32
	// Broker and Controller are host:port of the node's own INTERNAL and CONTROLLER
	// listeners; empty without that role.
	Broker, Controller string
	// ServerName that the certificates of these two carry.
	ServerName string
	// DirectoryID of the log directory with the metadata log: a node that lost its disk is
	// still a voter under its old one.
	DirectoryID string
	// TLS is the node's own identity; other controllers are verified by their host names.
	TLS *tls.Config
}

// NodeHealth is what Kafka says of a node.
type NodeHealth struct {
	// Ready is true when the broker is not fenced, and the controller caught up.
	Ready bool
	// Reason and Message say why not.
	Reason, Message string
}

// Probe asks a node, and where only it can know the active controller, how the node is. It is
// for one goroutine.
type Probe struct {
	self    Self
	clients map[string]*kgo.Client
}

// NewProbe dials nothing yet.
func NewProbe(self Self) *Probe { return &Probe{self: self, clients: map[string]*kgo.Client{}} }

// Close ends all connections.
func (p *Probe) Close() {
	for _, client := range p.clients {
		client.Close()
	}
	clear(p.clients)
}

// Health asks once; ctx bounds it. An error means that Kafka gave no answer.
func (p *Probe) Health(ctx context.Context) (NodeHealth, error) {
	if p.self.Broker != "" {
		h, err := p.brokerHealth(ctx)
		if err != nil || !h.Ready || p.self.Controller == "" {
			return h, err
		}
	}
	return p.controllerHealth(ctx)
}

func (p *Probe) brokerHealth(ctx context.Context) (NodeHealth, error) {
	b, err := p.at(p.self.Broker)
	if err != nil {
		return NodeHealth{}, err
	}
	cluster, err := p.describe(ctx, b, brokerEndpoints)
	if err != nil {
		return NodeHealth{}, err
	}
	for _, broker := range brokersOf(cluster) {
		switch {
		case broker.ID != p.self.ID:
		case broker.Fenced:
			return NodeHealth{Reason: NodeFenced, Message: "the broker is registered but fenced: it catches up with the metadata, or its heartbeats do not reach the active controller"}, nil
		default:
			return NodeHealth{Ready: true}, nil
		}
	}
	return NodeHealth{Reason: NodeNotRegistered, Message: "the broker is not registered and unfenced with the controllers yet"}, nil
}

// controllerHealth reads the quorum from the active controller, which alone knows.
func (p *Probe) controllerHealth(ctx context.Context) (NodeHealth, error) {
	own, err := p.at(p.self.Controller)
	if err != nil {
		return NodeHealth{}, err
	}
	cluster, err := p.describe(ctx, own, controllerEndpoints)
	if err != nil {
		return NodeHealth{}, err
	}
	leader := leaderAddress(cluster, p.self)
	if leader == "" {
		return NodeHealth{Reason: NodeNoQuorum, Message: "there is no active controller: a majority of the controllers must run and reach each other"}, nil
	}
	active, err := p.at(leader)
	if err != nil {
		return NodeHealth{}, err
	}
	quorum, err := readQuorum(ctx, active)
	if err != nil {
		return NodeHealth{}, fmt.Errorf("ask the active controller %s: %w", leader, err)
	}
	p.keepOnly(p.self.Broker, p.self.Controller, leader)
	return quorumHealth(quorum, p.self), nil
}

// describe includes fenced brokers from Kafka 4.0 on (KIP-1073); 3.9 does not list them.
func (p *Probe) describe(ctx context.Context, b *kgo.Broker, endpointType int8) (*kmsg.DescribeClusterResponse, error) {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.EndpointType = endpointType
	req.IncludeFencedBrokers = endpointType == brokerEndpoints
	resp, err := ask[*kmsg.DescribeClusterResponse](ctx, b, req)
	if err != nil {
		return nil, err
	}
	return resp, refused("describe the cluster", resp.ErrorCode, resp.ErrorMessage)
}

func leaderAddress(cluster *kmsg.DescribeClusterResponse, self Self) string {
	if cluster.ControllerID == self.ID {
		return self.Controller
	}
	for _, c := range cluster.Brokers {
		if c.NodeID == cluster.ControllerID {
			return hostPort(c.Host, c.Port)
		}
	}
	return ""
}

func quorumHealth(q plan.Quorum, self Self) NodeHealth {
	for _, replicas := range [][]plan.Replica{q.Voters, q.Observers} {
		for _, r := range replicas {
			if r.ID != self.ID || (self.DirectoryID != "" && r.DirectoryID != "" && r.DirectoryID != self.DirectoryID) {
				continue
			}
			if r.LastCaughtUp >= 0 && r.LastCaughtUp <= caughtUpWithin {
				return NodeHealth{Ready: true}
			}
			return NodeHealth{Reason: NodeCatchingUp, Message: fmt.Sprintf("the controller is behind: it has the metadata log up to %d of %d", r.LogEnd, q.HighWater)}
		}
	}
	return NodeHealth{Reason: NodeNotInQuorum, Message: "the active controller does not see this controller fetch the metadata log yet"}
}

// at is the broker or controller behind an address.
func (p *Probe) at(addr string) (*kgo.Broker, error) {
	client, ok := p.clients[addr]
	if !ok {
		var err error
		client, err = kgo.NewClient(
			kgo.ClientID("castellan-node"),
			kgo.SoftwareNameAndVersion("castellan", "1"),
			kgo.SeedBrokers(addr),
			kgo.Dialer(p.dial),
			kgo.RequestTimeoutOverhead(answerTimeout),
			kgo.RequestRetries(0),
			kgo.DisableClientMetrics(),
			kgo.MetadataMaxAge(time.Hour),
		)
		if err != nil {
			return nil, fmt.Errorf("set up the client of %s: %w", addr, err)
		}
		p.clients[addr] = client
	}
	return client.SeedBrokers()[0], nil
}

func (p *Probe) keepOnly(addrs ...string) {
	for addr, client := range p.clients {
		if !slices.Contains(addrs, addr) {
			client.Close()
			delete(p.clients, addr)
		}
	}
}

func (p *Probe) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if p.self.TLS == nil {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
	config := p.self.TLS.Clone()
	config.ServerName = p.self.ServerName
	if addr != p.self.Broker && addr != p.self.Controller {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", addr, err)
		}
		config.ServerName = host
	}
	d := tls.Dialer{Config: config}
	return d.DialContext(ctx, network, addr)
}

// Leaderless asks a controller itself whether it knows no active controller: then nobody can
// approve the controlled shutdown of the broker beside it (measured on 4.3.1: it waits for
// minutes). A node without the controller role cannot tell and is never leaderless.
func (p *Probe) Leaderless(ctx context.Context) (bool, error) {
	if p.self.Controller == "" {
		return false, nil
	}
	own, err := p.at(p.self.Controller)
	if err != nil {
		return false, err
	}
	cluster, err := p.describe(ctx, own, controllerEndpoints)
	if err != nil {
		return false, err
	}
	return leaderAddress(cluster, p.self) == "", nil
}
