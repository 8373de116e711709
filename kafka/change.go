package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/plan"
)

// SetConfig sets and deletes dynamic keys of one node, or the cluster-wide ones with node -1. To repeat it
// changes nothing. Values appear in no error of ours.
//
// A live broker is asked itself, because it checks the values against its own listeners and stores. For a
// controller-only node, and for a broker that is down, the active controller takes the change.
func (c *Cluster) SetConfig(ctx context.Context, node int32, set map[string]string, del []string) error {
	if len(set)+len(del) == 0 {
		return nil
	}
	doing := fmt.Sprintf("set %d and delete %d dynamic keys of node %d", len(set), len(del), node)
	if node == clusterWide {
		doing = fmt.Sprintf("set %d and delete %d cluster-wide dynamic keys", len(set), len(del))
	}
	return c.use(ctx, func(ctx context.Context, conn *conn) error {
		b, err := conn.takerOfConfig(ctx, node)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		return alterConfigs(ctx, b, doing, node, set, del)
	})
}

// takerOfConfig is who accepts a change of that node's configuration.
func (c *conn) takerOfConfig(ctx context.Context, node int32) (*kgo.Broker, error) {
	choosing, cancel := c.timeForControllers(ctx)
	defer cancel()
	b, cluster, err := choose(choosing, c.brokers, c.itsBrokers)
	if err == nil && node == clusterWide {
		return b, nil
	}
	if err == nil {
		if live, ok := nodesAt(c.brokers, cluster, []int32{node})[node]; ok {
			return live, nil
		}
		err = fmt.Errorf("node %d is no live broker", node)
	}
	if c.controllers == nil {
		return nil, err
	}
	active, _, byController := choose(ctx, c.controllers, c.activeOfCluster)
	if byController != nil {
		return nil, fmt.Errorf("%w; %w", err, byController)
	}
	return active, nil
}

// activeOfCluster is the active controller of the cluster that is meant, or an error.
func (c *conn) activeOfCluster(ctx context.Context, b *kgo.Broker) (plan.Quorum, error) {
	q, err := readQuorum(ctx, b)
	if err != nil {
		return plan.Quorum{}, err
	}
	return q, c.verify(ctx, c.controllers, b)
}

// verify is an error unless b, one of from, belongs to the cluster that is meant.
func (c *conn) verify(ctx context.Context, from *endpoints, b *kgo.Broker) error {
	ask := c.itsBrokers
	if from == c.controllers {
		ask = c.itsControllers
	}
	_, err := ask(ctx, b)
	return err
}

func alterConfigs(ctx context.Context, b *kgo.Broker, doing string, node int32, set map[string]string, del []string) error {
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType = kmsg.ConfigResourceTypeBroker
	resource.ResourceName = resourceName(node)
	for _, name := range slices.Sorted(maps.Keys(set)) {
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name = name
		config.Op = kmsg.IncrementalAlterConfigOpSet
		config.Value = new(set[name])
		resource.Configs = append(resource.Configs, config)
	}
	for _, name := range del {
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name = name
		config.Op = kmsg.IncrementalAlterConfigOpDelete
		resource.Configs = append(resource.Configs, config)
	}
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Resources = append(req.Resources, resource)
	resp, err := ask[*kmsg.IncrementalAlterConfigsResponse](ctx, b, req)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if len(resp.Resources) != 1 {
		return fmt.Errorf("%s: %d resources came back instead of one", doing, len(resp.Resources))
	}
	return refused(doing, resp.Resources[0].ErrorCode, resp.Resources[0].ErrorMessage)
}

// AddVoter makes the controller with that id and directory id a voter (KIP-853); endpoint is its CONTROLLER
// listener, host:port. A voter that already is one, with the same directory id, is a success.
func (c *Cluster) AddVoter(ctx context.Context, id int32, directoryID, endpoint string) error {
	doing := fmt.Sprintf("add controller %d with directory %s at %s as a voter", id, directoryID, endpoint)
	directory, err := parseUUID(directoryID)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	listener := kmsg.NewAddRaftVoterRequestListener()
	listener.Name = "CONTROLLER"
	if listener.Host, listener.Port, err = splitEndpoint(endpoint); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return c.changeVoters(ctx, doing, func(ctx context.Context, at voterChange) error {
		if hasVoter(at.quorum, id, directoryID) {
			return nil
		}
		req := kmsg.NewPtrAddRaftVoterRequest()
		req.ClusterID = at.cluster()
		req.VoterID = id
		req.VoterDirectoryID = directory
		req.Listeners = append(req.Listeners, listener)
		req.TimeoutMillis = millisLeft(ctx)
		resp, err := ask[*kmsg.AddRaftVoterResponse](ctx, at.active, req)
		if err != nil {
			return err
		}
		return refused("ask for it", resp.ErrorCode, resp.ErrorMessage)
	})
}

// RemoveVoter takes that id and directory id out of the voters (KIP-853). One that is no voter is a success.
func (c *Cluster) RemoveVoter(ctx context.Context, id int32, directoryID string) error {
	doing := fmt.Sprintf("remove controller %d with directory %s from the voters", id, directoryID)
	directory, err := parseUUID(directoryID)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return c.changeVoters(ctx, doing, func(ctx context.Context, at voterChange) error {
		if !hasVoter(at.quorum, id, directoryID) {
			return nil
		}
		req := kmsg.NewPtrRemoveRaftVoterRequest()
		req.ClusterID = at.cluster()
		req.VoterID = id
		req.VoterDirectoryID = directory
		resp, err := ask[*kmsg.RemoveRaftVoterResponse](ctx, at.active, req)
		if err != nil {
			return err
		}
		return refused("ask for it", resp.ErrorCode, resp.ErrorMessage)
	})
}

// voterChange is where to change the voters, and which they are at this moment.
type voterChange struct {
	active    *kgo.Broker
	quorum    plan.Quorum
	clusterID string
}

// cluster lets Kafka refuse what was meant for another one.
func (v voterChange) cluster() *string {
	if v.clusterID == "" {
		return nil
	}
	return &v.clusterID
}

// changeVoters finds the active controller, at the controllers themselves where their addresses are known, lets do
// look at the voters of this moment, and goes on where leadership moved away in between.
func (c *Cluster) changeVoters(ctx context.Context, doing string, do func(context.Context, voterChange) error) error {
	const pause = 250 * time.Millisecond
	return c.use(ctx, func(ctx context.Context, conn *conn) error {
		from := conn.controllers
		if from == nil {
			from = conn.brokers
		}
		for {
			active, quorum, err := choose(ctx, from, readQuorum)
			if err == nil {
				err = conn.verify(ctx, from, active)
			}
			if err == nil {
				err = do(ctx, voterChange{active, quorum, conn.clusterID})
			}
			if err == nil {
				return nil
			}
			if !movedAway(err) {
				return fmt.Errorf("%s: %w", doing, err)
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return fmt.Errorf("%s: %w", doing, err)
			}
		}
	})
}

// movedAway is true when the one asked is not, or not yet, the active controller.
func movedAway(err error) bool {
	var no *RefusedError
	if !errors.As(err, &no) {
		return false
	}
	return no.Code == kerr.NotController.Code || no.Code == kerr.NotLeaderForPartition.Code
}

func hasVoter(q plan.Quorum, id int32, directoryID string) bool {
	return slices.ContainsFunc(q.Voters, func(v plan.Replica) bool {
		return v.ID == id && v.DirectoryID == directoryID
	})
}

func splitEndpoint(endpoint string) (string, uint16, error) {
	host, text, err := net.SplitHostPort(endpoint)
	if err != nil {
		return "", 0, fmt.Errorf("the endpoint is not host:port: %w", err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("the endpoint is not host:port: %w", err)
	}
	return host, uint16(port), nil
}

func millisLeft(ctx context.Context) int32 {
	left := 10 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		left = min(left, max(time.Until(deadline), time.Millisecond))
	}
	return int32(left.Milliseconds()) //nolint:gosec // at most 10 seconds
}

// ElectPreferredLeaders gives every partition its preferred leader back where that one is in sync. Partitions
// that need none, or whose preferred replica is not in sync, are no failure; others that got none are named in the error.
func (c *Cluster) ElectPreferredLeaders(ctx context.Context) error {
	const doing = "elect preferred leaders"
	return c.use(ctx, func(ctx context.Context, conn *conn) error {
		b, _, err := choose(ctx, conn.brokers, conn.itsBrokers)
		if err != nil {
			return fmt.Errorf("%s: no broker answers: %w", doing, err)
		}
		req := kmsg.NewPtrElectLeadersRequest() // no topics named: all partitions
		req.TimeoutMillis = millisLeft(ctx)
		resp, err := ask[*kmsg.ElectLeadersResponse](ctx, b, req)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		if err := refused(doing, resp.ErrorCode, nil); err != nil {
			return err
		}
		return electionErrors(doing, resp)
	})
}

func electionErrors(doing string, resp *kmsg.ElectLeadersResponse) error {
	var failed []error
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			// A preferred replica that is out of sync is no failure of the others: it gets
			// its leadership when it is back.
			if p.ErrorCode == kerr.ElectionNotNeeded.Code || p.ErrorCode == kerr.PreferredLeaderNotAvailable.Code {
				continue
			}
			if err := refused(fmt.Sprintf("%s of %s-%d", doing, t.Topic, p.Partition), p.ErrorCode, p.ErrorMessage); err != nil {
				failed = append(failed, err)
			}
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("%d partitions got no preferred leader: %w", len(failed), joinFew(failed))
}
