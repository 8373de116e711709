package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"castellan.dev/castellan/core/balance"
)

// MoveReplicas begins moves: it asks the brokers for the log dirs first, and then the controller for all
// reassignments in one request. To repeat it changes nothing. A move whose To is its From is not reassigned, one whose
// log dir was refused neither: it would fill another one. A topic that is gone is a success.
//
// A broker remembers, in memory, the log dir of a replica that comes later. It refuses one that is cordoned
// (INVALID_REPLICA_ASSIGNMENT); the controller lets replicas move to a cordoned broker (all measured on 4.3.1).
//
// Everything is asked before it returns; the error names up to five partitions that did not begin.
func (c *Cluster) MoveReplicas(ctx context.Context, moves []balance.Move) error {
	if len(moves) == 0 {
		return nil
	}
	return c.use(ctx, func(ctx context.Context, conn *conn) error {
		b, cluster, err := choose(ctx, conn.brokers, conn.itsBrokers)
		if err != nil {
			return fmt.Errorf("move %d partitions: no broker answers: %w", len(moves), err)
		}
		var wishes []dirWish
		for i := range moves {
			for _, d := range moves[i].Dirs {
				wishes = append(wishes, dirWish{balance.PartitionRef{Topic: moves[i].Topic, Partition: moves[i].Partition}, d})
			}
		}
		failed := conn.wishDirs(ctx, cluster, wishes)
		var orders []reassignment
		for i := range moves {
			m := &moves[i]
			ref := balance.PartitionRef{Topic: m.Topic, Partition: m.Partition}
			if slices.Equal(m.From, m.To) || failed.has(ref) {
				continue
			}
			if len(m.To) == 0 { // to Kafka that would be a cancellation
				failed = append(failed, partitionFailure{ref, errors.New("the move names no replicas; plan again")})
				continue
			}
			orders = append(orders, reassignment{ref, m.To})
		}
		failed = append(failed, reassign(ctx, b, "reassign", orders)...)
		return failed.of("move", len(moves))
	})
}

// CancelMoves takes reassignments back, and then copies between log dirs. What no longer runs is a success.
// Everything is asked before it returns; the error names up to five partitions that were not taken back.
func (c *Cluster) CancelMoves(ctx context.Context, cancel []balance.Cancel, back []balance.Return) error {
	if len(cancel)+len(back) == 0 {
		return nil
	}
	return c.use(ctx, func(ctx context.Context, conn *conn) error {
		b, cluster, err := choose(ctx, conn.brokers, conn.itsBrokers)
		if err != nil {
			return fmt.Errorf("take back the moves of %d partitions: no broker answers: %w", len(cancel)+len(back), err)
		}
		orders := make([]reassignment, 0, len(cancel))
		for _, one := range cancel {
			orders = append(orders, reassignment{ref: one.PartitionRef})
		}
		failed := reassign(ctx, b, "cancel the reassignment", orders)
		wishes := make([]dirWish, 0, len(back))
		for _, one := range back {
			wishes = append(wishes, dirWish{one.PartitionRef, one.DirRef})
		}
		failed = append(failed, conn.wishDirs(ctx, cluster, wishes)...)
		return failed.of("take back", len(cancel)+len(back))
	})
}

// partitionFailure is why something was not done for a partition.
type partitionFailure struct {
	ref balance.PartitionRef
	err error
}

type failures []partitionFailure

func (f failures) has(ref balance.PartitionRef) bool {
	return slices.ContainsFunc(f, func(one partitionFailure) bool { return one.ref == ref })
}

// of is nil without failures.
func (f failures) of(doing string, all int) error {
	const named = 5
	if len(f) == 0 {
		return nil
	}
	errs := make([]error, 0, len(f))
	for _, one := range f {
		errs = append(errs, fmt.Errorf("%s-%d: %w", one.ref.Topic, one.ref.Partition, one.err))
	}
	return fmt.Errorf("%s: %d of %d partitions failed; look at the cluster and try again: %w", doing, len(f), all, joinUpTo(named, errs))
}

// dirWish is a log dir wanted for a replica.
type dirWish struct {
	balance.PartitionRef
	balance.DirRef
}

// wishDirs asks every broker in question once, for all of its replicas.
func (c *conn) wishDirs(ctx context.Context, cluster *kmsg.DescribeClusterResponse, wishes []dirWish) failures {
	slices.SortFunc(wishes, func(a, b dirWish) int {
		return cmp.Or(cmp.Compare(a.Broker, b.Broker), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	nodes := liveBrokers(c.brokers, cluster)
	var (
		mu     sync.Mutex
		group  errgroup.Group
		failed failures
	)
	group.SetLimit(brokersAtOnce)
	for len(wishes) > 0 {
		id := wishes[0].Broker
		n := slices.IndexFunc(wishes, func(w dirWish) bool { return w.Broker != id })
		if n < 0 {
			n = len(wishes)
		}
		its := wishes[:n]
		wishes = wishes[n:]
		group.Go(func() error {
			one := c.wishDirsOf(ctx, id, nodes[id], its)
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, one...)
			return nil
		})
	}
	_ = group.Wait() // none returns an error: failures are by partition
	return failed
}

func (c *conn) wishDirsOf(ctx context.Context, id int32, b *kgo.Broker, wishes []dirWish) failures {
	all := func(err error) failures {
		var out failures
		for _, w := range wishes {
			out = append(out, partitionFailure{w.PartitionRef, err})
		}
		return out
	}
	if b == nil {
		return all(fmt.Errorf("broker %d is not alive; wait until it is back, or plan without it", id))
	}
	resp, err := ask[*kmsg.AlterReplicaLogDirsResponse](ctx, b, wishRequest(wishes))
	c.dirs.forget(id) // the copies that begin or end are to be seen at once
	if err != nil {
		return all(fmt.Errorf("broker %d: %w", id, err))
	}
	var out failures
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			// Of a replica that is not there yet the broker remembers the wish (LogManager.maybeUpdatePreferredLogDir).
			if p.ErrorCode == kerr.ReplicaNotAvailable.Code || p.ErrorCode == kerr.UnknownTopicOrPartition.Code {
				continue
			}
			if err := refused(fmt.Sprintf("ask broker %d for its log dir", id), p.ErrorCode, nil); err != nil {
				out = append(out, partitionFailure{balance.PartitionRef{Topic: t.Topic, Partition: p.Partition}, err})
			}
		}
	}
	return out
}

// wishRequest takes wishes sorted by path and topic.
func wishRequest(wishes []dirWish) *kmsg.AlterReplicaLogDirsRequest {
	req := kmsg.NewPtrAlterReplicaLogDirsRequest()
	for _, w := range wishes {
		if n := len(req.Dirs); n == 0 || req.Dirs[n-1].Dir != w.Path {
			dir := kmsg.NewAlterReplicaLogDirsRequestDir()
			dir.Dir = w.Path
			req.Dirs = append(req.Dirs, dir)
		}
		dir := &req.Dirs[len(req.Dirs)-1]
		if n := len(dir.Topics); n == 0 || dir.Topics[n-1].Topic != w.Topic {
			topic := kmsg.NewAlterReplicaLogDirsRequestDirTopic()
			topic.Topic = w.Topic
			dir.Topics = append(dir.Topics, topic)
		}
		topic := &dir.Topics[len(dir.Topics)-1]
		topic.Partitions = append(topic.Partitions, w.Partition)
	}
	return req
}

// reassignment of a partition to replicas, or with none back to where it was.
type reassignment struct {
	ref balance.PartitionRef
	to  []int32
}

// reassign asks the controller in one request, through a broker.
func reassign(ctx context.Context, b *kgo.Broker, doing string, orders []reassignment) failures {
	if len(orders) == 0 {
		return nil
	}
	all := func(err error) failures {
		var out failures
		for _, o := range orders {
			out = append(out, partitionFailure{o.ref, err})
		}
		return out
	}
	req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	req.TimeoutMillis, req.AllowReplicationFactorChange = millisLeft(ctx), true
	topics := map[string]int{}
	for _, o := range orders {
		i, ok := topics[o.ref.Topic]
		if !ok {
			i = len(req.Topics)
			topics[o.ref.Topic] = i
			topic := kmsg.NewAlterPartitionAssignmentsRequestTopic()
			topic.Topic = o.ref.Topic
			req.Topics = append(req.Topics, topic)
		}
		one := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		one.Partition, one.Replicas = o.ref.Partition, o.to
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, one)
	}
	resp, err := ask[*kmsg.AlterPartitionAssignmentsResponse](ctx, b, req)
	if err == nil {
		err = refused(doing, resp.ErrorCode, resp.ErrorMessage)
	}
	if err != nil {
		return all(err)
	}
	return notReassigned(doing, resp)
}

func notReassigned(doing string, resp *kmsg.AlterPartitionAssignmentsResponse) failures {
	var out failures
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			// Gone meanwhile, or nothing to cancel any more.
			if p.ErrorCode == kerr.UnknownTopicOrPartition.Code || p.ErrorCode == kerr.NoReassignmentInProgress.Code {
				continue
			}
			if err := refused(doing, p.ErrorCode, p.ErrorMessage); err != nil {
				out = append(out, partitionFailure{balance.PartitionRef{Topic: t.Topic, Partition: p.Partition}, err})
			}
		}
	}
	return out
}
