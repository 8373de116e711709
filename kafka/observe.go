package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"castellan.dev/castellan/core/plan"
)

// Observe reads the cluster once. The number of requests depends on the numbers of brokers in what.PerBroker and of
// thousands of topics, never on single topics or partitions; all but those to PerBroker go to one broker.
//
// What cannot be read completely comes back as Known=false with Why. An error means that nothing was tried:
// the target is unusable or ctx is done.
//
// Where no broker answers but the active controller does, PartitionsKnown is false, and Brokers and Topics are
// empty because they were not read.
//
// what.PerBroker names the nodes whose own dynamic configuration is wanted, each by a request to that node.
// One that is down or silent has no entry in BrokerConfig, one without any such key an empty entry.
//
// what.Placement asks live brokers for their log dirs too, each at most once in 5 s plus 20 ms per broker, and at once
// after a move between log dirs was begun or taken back. Where one does not answer, only Placement is missing.
func (c *Cluster) Observe(ctx context.Context, what plan.Ask) (plan.Kafka, error) {
	var seen plan.Kafka
	err := c.use(ctx, func(bounded context.Context, conn *conn) error {
		k, err := conn.observe(bounded, what)
		if ctx.Err() != nil {
			return fmt.Errorf("observe the Kafka cluster %s: %w", c.name, ctx.Err())
		}
		if err != nil {
			k = plan.Kafka{Why: err.Error()}
		}
		if what.Placement && k.Placement == nil && k.PlacementWhy == "" {
			k.PlacementWhy = k.Why
		}
		seen = k
		return nil
	})
	return seen, err
}

func (c *conn) observe(ctx context.Context, what plan.Ask) (plan.Kafka, error) {
	choosing, cancel := c.timeForControllers(ctx)
	defer cancel()
	current, err := c.chooseCurrent(choosing, ctx)
	if err == nil {
		return c.observeBrokers(ctx, current, what)
	}
	if errors.Is(err, errNoQuorum) {
		return plan.Kafka{}, err
	}
	if c.controllers == nil {
		return plan.Kafka{}, fmt.Errorf("no broker answers: %w", err)
	}
	k, byController := c.observeControllers(ctx, what.PerBroker)
	if byController != nil {
		return plan.Kafka{}, fmt.Errorf("neither a broker nor the active controller answers: %w; %w", err, byController)
	}
	k.Why = fmt.Sprintf("no broker answers that is up to date: %v", err)
	return k, nil
}

// timeForControllers leaves time to ask the controllers where brokers keep silent.
func (c *conn) timeForControllers(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || c.controllers == nil {
		return context.WithCancel(ctx)
	}
	left := time.Until(deadline)
	return context.WithDeadline(ctx, deadline.Add(-min(answerTimeout+dialTimeout, left/2)))
}

// current is a broker that is up to date, with its first answers.
type current struct {
	*kgo.Broker
	cluster *kmsg.DescribeClusterResponse
	quorum  plan.Quorum
}

// errNoQuorum says that brokers answer but nobody tells the quorum.
var errNoQuorum = errors.New("no active controller is found")

// mostOutdated is how many brokers that are cut off from the controllers are looked at.
const mostOutdated = 5

// chooseCurrent finds a broker whose metadata are up to date, as the active controller sees it.
// One that is cut off answers as well, and would show replicas in sync that have long left.
func (c *conn) chooseCurrent(choosing, ctx context.Context) (current, error) {
	outdated := map[*kgo.Broker]error{}
	ask := func(ctx context.Context, b *kgo.Broker) (*kmsg.DescribeClusterResponse, error) {
		if why := outdated[b]; why != nil {
			return nil, why
		}
		return c.itsBrokers(ctx, b)
	}
	for {
		b, cluster, err := choose(choosing, c.brokers, ask)
		if err != nil {
			return current{}, err
		}
		found := current{Broker: b, cluster: cluster}
		var itself bool
		if found.quorum, itself, err = c.quorumThrough(ctx, b); err != nil {
			return current{}, err
		}
		outdated[b] = found.outdated(c.brokers.address(b), itself)
		if outdated[b] == nil {
			return found, nil
		}
		if len(outdated) >= mostOutdated {
			return current{}, joinFew(slices.Collect(maps.Values(outdated)))
		}
	}
}

// outdated is why the broker at an address is not believed. One that does not list itself
// (3.9 lists no fenced ones) is if it reached the active controller itself.
func (c current) outdated(address string, itself bool) error {
	i := slices.IndexFunc(c.cluster.Brokers, func(b kmsg.DescribeClusterResponseBroker) bool { return hostPort(b.Host, b.Port) == address })
	if i < 0 && itself {
		return nil
	}
	if i < 0 {
		return errors.New("the broker does not reach the active controller")
	}
	id := c.cluster.Brokers[i].NodeID
	for _, r := range slices.Concat(c.quorum.Voters, c.quorum.Observers) {
		if r.ID == id && r.LastCaughtUp >= 0 && r.LastCaughtUp <= caughtUpWithin {
			return nil
		}
	}
	return fmt.Errorf("broker %d has not caught up with the metadata of active controller %d for %s", id, c.quorum.Leader, caughtUpWithin)
}

func (c *conn) observeBrokers(ctx context.Context, b current, what plan.Ask) (plan.Kafka, error) {
	k := plan.Kafka{
		Known:           true,
		PartitionsKnown: true,
		ClusterID:       b.cluster.ClusterID,
		Brokers:         brokersOf(b.cluster),
		ControllerID:    b.quorum.Leader,
		Quorum:          b.quorum,
	}
	var err error
	if err = describeFeatures(ctx, b.Broker, &k); err != nil {
		return plan.Kafka{}, err
	}
	var moving *kmsg.ListPartitionReassignmentsResponse
	var unread error
	if what.Placement { // before the partitions, see markMoving
		moving, unread = readReassignments(ctx, b.Broker)
	}
	var offline []replicaRef
	if k.Topics, offline, err = readTopics(ctx, b.Broker, k.ClusterID); err != nil {
		return plan.Kafka{}, err
	}
	k.FailedLogDirs = failedLogDirs(k.Brokers, offline)
	if k.ClusterConfig, err = readDynamic(ctx, b.Broker, clusterWide); err != nil {
		return plan.Kafka{}, err
	}
	k.BrokerConfig = c.readEach(ctx, b.cluster, what.PerBroker)
	if unread == nil && what.Throttles != nil {
		k.TopicThrottles, unread = readThrottles(ctx, b.Broker, what.Throttles)
	}
	if unread == nil && what.Placement {
		k.Placement, unread = c.readPlacement(ctx, b, placing{brokers: k.Brokers, topics: k.Topics, offline: offline, moving: moving})
	}
	if unread != nil {
		k.PlacementWhy = unread.Error()
	}
	if what.Controllers {
		k.Controllers = c.registeredControllers(ctx)
	}
	return k, nil
}

// registeredControllers are all that ever registered and that Kafka still knows (measured on
// 4.3.1: also those that left); nil when no controller answers.
func (c *conn) registeredControllers(ctx context.Context) []int32 {
	if c.controllers == nil {
		return nil
	}
	_, cluster, err := choose(ctx, c.controllers, c.itsControllers)
	if err != nil {
		return nil
	}
	ids := make([]int32, 0, len(cluster.Brokers))
	for _, b := range cluster.Brokers {
		ids = append(ids, b.NodeID)
	}
	return ids
}

// quorumThrough asks a broker, and the controllers themselves where it cannot tell: right after a change of leader a
// broker may forward to the old one (measured on 3.9.2). itself says that the broker could.
func (c *conn) quorumThrough(ctx context.Context, b *kgo.Broker) (quorum plan.Quorum, itself bool, err error) {
	one, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	q, err := readQuorum(one, b)
	if err == nil {
		return q, true, nil
	}
	if c.controllers == nil {
		return plan.Quorum{}, false, fmt.Errorf("%w: %w", errNoQuorum, err)
	}
	_, q, byController := choose(ctx, c.controllers, c.activeOfCluster)
	if byController != nil {
		return plan.Quorum{}, false, fmt.Errorf("%w: a broker says %w; %w", errNoQuorum, err, byController)
	}
	return q, false, nil
}

// observeControllers reads what the active controller knows (KIP-919): no brokers, no partitions.
func (c *conn) observeControllers(ctx context.Context, perBroker []int32) (plan.Kafka, error) {
	b, quorum, err := choose(ctx, c.controllers, readQuorum)
	if err != nil {
		return plan.Kafka{}, err
	}
	cluster, err := c.itsControllers(ctx, b)
	if err != nil {
		return plan.Kafka{}, err
	}
	k := plan.Kafka{Known: true, ClusterID: cluster.ClusterID, ControllerID: quorum.Leader, Quorum: quorum}
	if err = describeFeatures(ctx, b, &k); err != nil {
		return plan.Kafka{}, err
	}
	if k.ClusterConfig, err = readDynamic(ctx, b, clusterWide); err != nil {
		return plan.Kafka{}, err
	}
	k.BrokerConfig = readNodes(ctx, nodesAt(c.controllers, cluster, perBroker))
	return k, nil
}

// Endpoint types of DescribeCluster (KIP-919).
const (
	brokerEndpoints     = 1
	controllerEndpoints = 2
)

// itsBrokers describes the cluster at a broker, if it is the one that is meant.
func (c *conn) itsBrokers(ctx context.Context, b *kgo.Broker) (*kmsg.DescribeClusterResponse, error) {
	return c.ours(describeBrokers(ctx, b))
}

// itsControllers does so at a controller.
func (c *conn) itsControllers(ctx context.Context, b *kgo.Broker) (*kmsg.DescribeClusterResponse, error) {
	return c.ours(describeControllers(ctx, b))
}

func (c *conn) ours(resp *kmsg.DescribeClusterResponse, err error) (*kmsg.DescribeClusterResponse, error) {
	switch {
	case err != nil:
		return nil, err
	case c.clusterID != "" && resp.ClusterID != c.clusterID:
		return nil, fmt.Errorf("cluster %s answers where %s is expected; another cluster uses this address", resp.ClusterID, c.clusterID)
	}
	return resp, seesAll(resp.ClusterAuthorizedOperations)
}

func describeBrokers(ctx context.Context, b *kgo.Broker) (*kmsg.DescribeClusterResponse, error) {
	return describeCluster(ctx, b, brokerEndpoints)
}

func describeControllers(ctx context.Context, b *kgo.Broker) (*kmsg.DescribeClusterResponse, error) {
	return describeCluster(ctx, b, controllerEndpoints)
}

// describeCluster includes fenced brokers from Kafka 4.0 on (KIP-1073); 3.9 does not list them at all.
func describeCluster(ctx context.Context, b *kgo.Broker, endpointType int8) (*kmsg.DescribeClusterResponse, error) {
	const doing = "describe the cluster"
	req := kmsg.NewPtrDescribeClusterRequest()
	req.EndpointType = endpointType
	req.IncludeFencedBrokers = endpointType == brokerEndpoints
	req.IncludeClusterAuthorizedOperations = true
	resp, err := ask[*kmsg.DescribeClusterResponse](ctx, b, req)
	if err != nil {
		return nil, err
	}
	if err := refused(doing, resp.ErrorCode, resp.ErrorMessage); err != nil {
		return nil, err
	}
	if resp.ClusterID == "" {
		return nil, fmt.Errorf("%s: the answer has no cluster id", doing)
	}
	return resp, nil
}

// seesAll is an error for who may not alter the cluster. To a client that may not see a topic, Kafka's answers are
// silently shorter; a super user may do everything, so who may not alter is none, and must not believe what it does not see.
func seesAll(operations int32) error {
	const alter = int32(1) << int32(kmsg.ACLOperationAlter)
	if operations == math.MinInt32 || operations&alter != 0 {
		return nil
	}
	return errors.New("our principal is no super user there, so topics may be hidden from us; check super.users and the principal mapping of the listener")
}

func brokersOf(cluster *kmsg.DescribeClusterResponse) []plan.Broker {
	brokers := make([]plan.Broker, 0, len(cluster.Brokers))
	for _, b := range cluster.Brokers {
		rack := ""
		if b.Rack != nil {
			rack = *b.Rack
		}
		brokers = append(brokers, plan.Broker{ID: b.NodeID, Fenced: b.IsFenced, Rack: rack})
	}
	slices.SortFunc(brokers, func(a, b plan.Broker) int { return int(a.ID) - int(b.ID) })
	return brokers
}

// readEach reads the own dynamic configuration of live brokers directly, and of the other nodes as controllers.
func (c *conn) readEach(ctx context.Context, cluster *kmsg.DescribeClusterResponse, ids []int32) map[int32]map[string]string {
	if len(ids) == 0 {
		return nil
	}
	nodes := nodesAt(c.brokers, cluster, ids)
	var others []int32
	for _, id := range ids {
		if !slices.ContainsFunc(cluster.Brokers, func(b kmsg.DescribeClusterResponseBroker) bool { return b.NodeID == id }) {
			others = append(others, id)
		}
	}
	if len(others) > 0 && c.controllers != nil {
		if _, registered, err := choose(ctx, c.controllers, c.itsControllers); err == nil {
			maps.Copy(nodes, nodesAt(c.controllers, registered, others))
		}
	}
	return readNodes(ctx, nodes)
}

// nodesAt finds those of ids that are listed and not fenced.
func nodesAt(e *endpoints, cluster *kmsg.DescribeClusterResponse, ids []int32) map[int32]*kgo.Broker {
	nodes := make(map[int32]*kgo.Broker, len(ids))
	for _, b := range cluster.Brokers {
		if !b.IsFenced && slices.Contains(ids, b.NodeID) {
			nodes[b.NodeID] = e.at(b.NodeID, b.Host, b.Port)
		}
	}
	return nodes
}

// readNodes asks each node for its own dynamic configuration; a node that fails is left out.
func readNodes(ctx context.Context, nodes map[int32]*kgo.Broker) map[int32]map[string]string {
	const atOnce = 32
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var (
		mu      sync.Mutex
		group   errgroup.Group
		configs = make(map[int32]map[string]string, len(nodes))
	)
	group.SetLimit(atOnce)
	for id, node := range nodes {
		group.Go(func() error {
			if config, err := readDynamic(ctx, node, id); err == nil {
				mu.Lock()
				defer mu.Unlock()
				configs[id] = config
			}
			return nil
		})
	}
	_ = group.Wait() // none returns an error: the one that failed is missing
	return configs
}
