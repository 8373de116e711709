package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Session is one broker that is up to date, and the one that takes changes, for the packages
// below this one. It is good for the call that it was given to.
type Session struct {
	broker, controller *kgo.Broker
	clusterID          string
}

// Bounds of one request of a session.
const (
	readTimeout   = 30 * time.Second
	changeTimeout = 40 * time.Second
	// ChangeWithin is how long Kafka itself shall try at most, less than changeTimeout so that
	// its answer arrives.
	ChangeWithin = 30 * time.Second
)

// Session lets do work on the cluster. Options.Timeout bounds only the choice of a broker: what do
// asks is bounded request by request, and in all by ctx.
func (c *Cluster) Session(ctx context.Context, do func(context.Context, *Session) error) error {
	conn, release, err := c.clients.acquire(c.name, c.target)
	if err != nil {
		return err
	}
	defer release()
	choosing, cancel := context.WithTimeout(ctx, c.clients.opts.Timeout)
	b, err := conn.forSession(choosing)
	cancel()
	if err != nil {
		return fmt.Errorf("ask the Kafka cluster %s: %w", c.name, err)
	}
	s := &Session{broker: b.Broker, controller: b.Broker, clusterID: b.cluster.ClusterID}
	// Before KRaft only the controller took changes. With KRaft a broker names any one of them.
	for _, one := range b.cluster.Brokers {
		if one.NodeID == b.cluster.ControllerID && !one.IsFenced {
			s.controller = conn.brokers.at(one.NodeID, one.Host, one.Port)
		}
	}
	return do(ctx, s)
}

// forSession is a broker that is up to date. Where nobody tells the quorum, and no controllers of ours
// are known, the cluster is somebody else's and any broker of it has to do.
func (c *conn) forSession(ctx context.Context) (current, error) {
	b, err := c.chooseCurrent(ctx, ctx)
	if err == nil || !errors.Is(err, errNoQuorum) || c.controllers != nil {
		return b, err
	}
	any, cluster, err := choose(ctx, c.brokers, c.itsBrokers)
	return current{Broker: any, cluster: cluster}, err
}

// ClusterID of the cluster that answers.
func (s *Session) ClusterID() string { return s.clusterID }

// Read asks for something that may be asked twice.
func (s *Session) Read(ctx context.Context, req kmsg.Request) (kmsg.Response, error) { //nolint:ireturn // as the client gives it
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return ask[kmsg.Response](ctx, s.broker, req)
}

// Change asks for a change, once: after an error nobody knows whether it was done.
func (s *Session) Change(ctx context.Context, req kmsg.Request) (kmsg.Response, error) { //nolint:ireturn // as the client gives it
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	resp, err := s.controller.Request(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", kmsg.NameForKey(req.Key()), err)
	}
	return resp, nil
}

// Refused is nil for code 0, else a [RefusedError].
func Refused(doing string, code int16, message *string) error { return refused(doing, code, message) }
