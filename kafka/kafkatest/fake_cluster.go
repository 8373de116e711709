package kafkatest

import (
	"net"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Endpoint types of DescribeCluster (KIP-919).
const (
	brokerEndpoints     = 1
	controllerEndpoints = 2
)

// describeCluster answers as Kafka does: each listener for its own kind only, fenced brokers on demand.
func (f *Fake) describeCluster(r *kmsg.DescribeClusterRequest, addrs []string, controllers bool) kmsg.Response { //nolint:ireturn // what kfake takes
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := kmsg.NewPtrDescribeClusterResponse()
	resp.Version = r.Version
	resp.EndpointType = r.EndpointType
	resp.ClusterAuthorizedOperations = f.allowed
	if own := map[bool]int8{false: brokerEndpoints, true: controllerEndpoints}[controllers]; r.EndpointType != own {
		resp.ErrorCode = kerr.MismatchedEndpointType.Code
		return resp
	}
	resp.ClusterID, resp.ControllerID = f.clusterID, f.quorum.Leader
	for i, addr := range addrs {
		id := int32(i)
		if controllers {
			id += f.firstController
		}
		fenced := !controllers && slices.Contains(f.fenced, id)
		if fenced && !r.IncludeFencedBrokers || !controllers && slices.Contains(f.gone, id) {
			continue
		}
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(port, 10, 32)
		if err != nil {
			continue
		}
		b := kmsg.NewDescribeClusterResponseBroker()
		b.NodeID, b.Host, b.Port, b.IsFenced = id, host, int32(n), fenced
		rack := "rack-" + strconv.Itoa(i)
		b.Rack = &rack
		resp.Brokers = append(resp.Brokers, b)
	}
	return resp
}

// Unregistered brokers, in their order.
func (f *Fake) Unregistered() []int32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.gone)
}

func (f *Fake) unregister(r *kmsg.UnregisterBrokerRequest) kmsg.Response { //nolint:ireturn // what kfake takes
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := kmsg.NewPtrUnregisterBrokerResponse()
	resp.Version = r.Version
	if slices.Contains(f.gone, r.BrokerID) || r.BrokerID < 0 || int(r.BrokerID) >= len(f.Brokers.ListenAddrs()) {
		resp.ErrorCode = kerr.BrokerIDNotRegistered.Code
		return resp
	}
	f.gone = append(f.gone, r.BrokerID)
	return resp
}
