package kafka

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"castellan.dev/castellan/core/balance"
)

// brokersAtOnce bounds requests to brokers that cost them work.
const brokersAtOnce = 8

// logDirs keeps what brokers said of their log dirs: sizes change slowly, and to tell them all is dear.
type logDirs struct {
	mu   sync.Mutex
	kept map[int32]*brokerDirs
}

// keepLogDirs is how long an answer is good where there are so many brokers.
func keepLogDirs(brokers int) time.Duration {
	return 5*time.Second + time.Duration(brokers)*20*time.Millisecond
}

// brokerDirs is what one broker said, in 16 bytes a replica.
type brokerDirs struct {
	asked time.Time
	// dirs by path.
	dirs []balance.LogDir
	// topics say how many of logs are theirs, in their order.
	topics []dirTopic
	logs   []dirLog
}

type dirTopic struct {
	name unique.Handle[string]
	logs int
}

type dirLog struct {
	bytes     int64
	partition int32
	dir       int16
	// future is the copy on its way to dir.
	future bool
}

// fill writes log dirs and bytes into the broker's replicas, and appends its copies.
func (d *brokerDirs) fill(index map[string]*balance.Topic, broker int32, copies []balance.Copy) []balance.Copy {
	logs := d.logs
	for _, t := range d.topics {
		topic := index[t.name.Value()]
		for _, log := range logs[:t.logs] {
			at := replicaAt(topic, log.partition, broker)
			switch {
			case at == nil: // moved away or deleted meanwhile
			case log.future:
				copies = append(copies, balance.Copy{Topic: topic.Name, Partition: log.partition, Broker: broker, Dir: log.dir, Bytes: log.bytes})
			default:
				at.Dir, at.Bytes = log.dir, log.bytes
			}
		}
		logs = logs[t.logs:]
	}
	return copies
}

// readLogDirs gives the log dirs of every live broker, or an error. It asks those whose last answer is too old.
func (c *conn) readLogDirs(ctx context.Context, cluster *kmsg.DescribeClusterResponse) (map[int32]*brokerDirs, error) {
	nodes := liveBrokers(c.brokers, cluster)
	all := c.dirs.fresh(c.now().Add(-keepLogDirs(len(cluster.Brokers))), nodes)
	var (
		mu     sync.Mutex
		group  errgroup.Group
		failed []error
	)
	group.SetLimit(brokersAtOnce)
	for id, node := range nodes {
		if all[id] != nil {
			continue
		}
		group.Go(func() error {
			one, err := c.describeLogDirs(ctx, node)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, fmt.Errorf("broker %d: %w", id, err))
				return nil
			}
			all[id] = one
			return nil
		})
	}
	_ = group.Wait() // none returns an error: all that failed are told together
	c.dirs.keep(all)
	return all, joinFew(failed)
}

// liveBrokers are those that are listed and not fenced.
func liveBrokers(e *endpoints, cluster *kmsg.DescribeClusterResponse) map[int32]*kgo.Broker {
	ids := make([]int32, 0, len(cluster.Brokers))
	for _, b := range cluster.Brokers {
		ids = append(ids, b.NodeID)
	}
	return nodesAt(e, cluster, ids)
}

// fresh are the answers of nodes that are not older; the others are dropped.
func (l *logDirs) fresh(since time.Time, nodes map[int32]*kgo.Broker) map[int32]*brokerDirs {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[int32]*brokerDirs, len(nodes))
	for id, one := range l.kept {
		if _, lives := nodes[id]; lives && one.asked.After(since) {
			out[id] = one
		} else {
			delete(l.kept, id)
		}
	}
	return out
}

func (l *logDirs) keep(answers map[int32]*brokerDirs) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept == nil {
		l.kept = make(map[int32]*brokerDirs, len(answers))
	}
	maps.Copy(l.kept, answers)
}

// forget the answer of a broker whose log dirs were just changed.
func (l *logDirs) forget(broker int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.kept, broker)
}

// describeLogDirs reads all log dirs of b: since version 4 with the size of their volumes (KIP-827), since version 5,
// which is in Kafka 4.3, with whether they are cordoned (KIP-1066). Measured on 4.3.1: cordoned.log.dirs, * or a list of
// paths, is a key of one broker and never cluster-wide; below metadata.version 4.3-IV0 it can be neither set nor deleted
// (INVALID_CONFIG). New topics and partitions avoid such a broker, or are refused (INVALID_REPLICATION_FACTOR).
func (c *conn) describeLogDirs(ctx context.Context, b *kgo.Broker) (*brokerDirs, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	asked := c.now()
	req := kmsg.NewPtrDescribeLogDirsRequest() // no topics named: all of them
	resp, err := ask[*kmsg.DescribeLogDirsResponse](ctx, b, req)
	if err != nil {
		return nil, err
	}
	if err := refused("describe its log dirs", resp.ErrorCode, nil); err != nil {
		return nil, err
	}
	return keptDirs(asked, resp), nil
}

func keptDirs(asked time.Time, resp *kmsg.DescribeLogDirsResponse) *brokerDirs {
	slices.SortFunc(resp.Dirs, func(a, b kmsg.DescribeLogDirsResponseDir) int { return strings.Compare(a.Dir, b.Dir) })
	out := &brokerDirs{asked: asked, dirs: make([]balance.LogDir, 0, len(resp.Dirs))}
	logs := 0
	for i := range resp.Dirs {
		for t := range resp.Dirs[i].Topics {
			logs += len(resp.Dirs[i].Topics[t].Partitions)
		}
	}
	out.logs = make([]dirLog, 0, logs)
	for i, d := range resp.Dirs {
		// A lost log dir comes with KAFKA_STORAGE_ERROR; one that cannot be described is as good as lost.
		out.dirs = append(out.dirs, balance.LogDir{Path: d.Dir, Total: d.TotalBytes, Usable: d.UsableBytes, Offline: d.ErrorCode != 0, Cordoned: d.IsCordoned})
		for _, t := range d.Topics {
			out.topics = append(out.topics, dirTopic{unique.Make(t.Topic), len(t.Partitions)})
			for _, p := range t.Partitions {
				out.logs = append(out.logs, dirLog{p.Size, p.Partition, int16(i), p.IsFuture})
			}
		}
	}
	return out
}
