package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
)

// realPair is a cluster of two brokers with two log dirs each.
type realPair struct {
	*kafka.Cluster
	client *kafka.Client
	nodes  []realNode
	kill   []func()
}

func startPair(t *testing.T) *realPair {
	t.Helper()
	libs, controller := realLibs(t), freePort(t)
	id := strings.TrimSpace(java(t, "-cp", libs, "kafka.tools.StorageTool", "random-uuid"))
	p := &realPair{}
	target := kafka.Target{ClusterID: id, Controllers: []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(controller))}}
	for i, roles := range []string{"broker,controller", "broker"} {
		dir := t.TempDir()
		n := realNode{id: int32(i + 1), roles: roles, controller: controller, port: freePort(t), dirs: []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}}
		var format []string
		if i == 0 {
			format = []string{"--standalone"}
		}
		p.nodes = append(p.nodes, n)
		p.kill = append(p.kill, n.start(t, libs, id, format...))
		target.Brokers = append(target.Brokers, n.address())
	}
	// A clock that leaps lets no answer of the log dirs be kept.
	var leaps atomic.Int64
	all := kafka.NewClients(kafka.Options{Now: func() time.Time { return time.Unix(leaps.Add(60), 0) }})
	t.Cleanup(all.Close)
	p.Cluster = all.Cluster("default/pair", target)
	observed(t, p.Cluster, nil, func(k plan.Kafka) bool {
		return k.Known && len(k.Brokers) == 2 && !k.Brokers[0].Fenced && !k.Brokers[1].Fenced
	})
	var err error
	if p.client, err = kafka.Dial(t.Context(), kafka.ClientConfig{Brokers: target.Brokers}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.Close)
	return p
}

// seen waits until the placement is as wanted.
func (p *realPair) seen(t *testing.T, what string, wanted func(*balance.Cluster) bool) *balance.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		k, err := p.Observe(ctx, plan.Ask{Placement: true})
		if err != nil {
			t.Fatalf("not seen that %s: %v", what, err)
		}
		if k.Placement != nil && wanted(k.Placement) {
			return k.Placement
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not seen that %s: %+v, %s%s", what, k.Placement, k.Why, k.PlacementWhy)
		}
	}
}

func (p *realPair) create(t *testing.T, name string, partitions int32) {
	t.Helper()
	if err := p.client.CreateTopic(t.Context(), kafka.NewTopic{Name: name, Partitions: partitions, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
}

// topicIn is nil where the topic is not there with so many partitions.
func topicIn(c *balance.Cluster, name string, partitions int) *balance.Topic {
	for i := range c.Topics {
		if c.Topics[i].Name == name && len(c.Topics[i].Partitions) == partitions {
			return &c.Topics[i]
		}
	}
	return nil
}

// in says that the only replica of a partition is in that log dir of that node, and nothing is in flight.
func (p *realPair) in(c *balance.Cluster, topic string, partition int, d balance.DirRef) bool {
	for _, t := range c.Topics {
		if t.Name != topic {
			continue
		}
		r := t.Partitions[partition].Replicas
		return len(r) == 1 && r[0].Broker == d.Broker && r[0].State == balance.InSync && r[0].Dir >= 0 &&
			p.nodes[d.Broker-1].dirs[r[0].Dir] == d.Path && len(c.Copies) == 0
	}
	return false
}

func (p *realPair) dir(node, dir int) balance.DirRef {
	return balance.DirRef{Broker: int32(node), Path: p.nodes[node-1].dirs[dir]}
}

func (p *realPair) move(t *testing.T, topic string, partition int32, from, to []int32, dirs ...balance.DirRef) {
	t.Helper()
	if err := p.MoveReplicas(t.Context(), []balance.Move{{Topic: topic, Partition: partition, From: from, To: to, Dirs: dirs}}); err != nil {
		t.Fatal(err)
	}
}

// What Kafka 4.3.1 does is measured here; what the planner rests on is said at each step.
func TestRealMoves(t *testing.T) {
	p := startPair(t)
	t.Run("new replicas land in the log dir that was asked for before", p.landing)
	t.Run("sizes, copies between log dirs and their end", p.copying)
	t.Run("throttled reassignment and its end", p.throttled)
	t.Run("cordoned", p.cordoned)
	t.Run("unregister", p.unregister)
}

func (p *realPair) landing(t *testing.T) {
	const partitions = 8
	p.create(t, "landing", partitions)
	c := p.seen(t, "landing is there", func(c *balance.Cluster) bool { return topicIn(c, "landing", partitions) != nil })
	var moves []balance.Move
	for i, part := range topicIn(c, "landing", partitions).Partitions {
		from := part.Replicas[0].Broker
		moves = append(moves, balance.Move{Topic: "landing", Partition: int32(i), From: []int32{from}, To: []int32{3 - from}, Dirs: []balance.DirRef{p.dir(int(3-from), 1)}})
	}
	moves = append(moves, balance.Move{Topic: "gone", From: []int32{1}, To: []int32{2}, Dirs: []balance.DirRef{p.dir(2, 1)}})
	if err := p.MoveReplicas(t.Context(), moves); err != nil {
		t.Fatal(err)
	}
	p.seen(t, "every replica is in log dir b of the other broker", func(c *balance.Cluster) bool {
		for _, m := range moves[:partitions] {
			if !p.in(c, "landing", int(m.Partition), m.Dirs[0]) {
				return false
			}
		}
		return true
	})
	err := p.MoveReplicas(t.Context(), []balance.Move{{Topic: "landing", From: []int32{1}, To: []int32{2}, Dirs: []balance.DirRef{{Broker: 2, Path: "/nowhere"}}}})
	if err == nil || !strings.Contains(err.Error(), "landing-0") || !strings.Contains(err.Error(), "LOG_DIR_NOT_FOUND") {
		t.Errorf("a log dir that is none: %v", err)
	}
}

// fill writes more than Kafka lets through before a throttle holds.
func (p *realPair) fill(t *testing.T, topic string) {
	t.Helper()
	const records = 4000
	noise := make([]byte, 1000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	var all iter.Seq2[kafka.Record, error] = func(yield func(kafka.Record, error) bool) {
		for range records {
			rand.Shuffle(len(noise), func(i, j int) { noise[i], noise[j] = noise[j], noise[i] })
			if !yield(kafka.Record{Partition: 0, Value: slices.Clone(noise)}, nil) {
				return
			}
		}
	}
	if n, err := p.client.Produce(t.Context(), kafka.ProduceOptions{Topic: topic}, all); n != records || err != nil {
		t.Fatalf("%d written, %v", n, err)
	}
}

// home moves the only partition of a topic to log dir a of broker 1.
func (p *realPair) home(t *testing.T, topic string) {
	t.Helper()
	c := p.seen(t, topic+" is there", func(c *balance.Cluster) bool { return topicIn(c, topic, 1) != nil })
	p.move(t, topic, 0, []int32{topicIn(c, topic, 1).Partitions[0].Replicas[0].Broker}, []int32{1}, p.dir(1, 0))
	p.seen(t, topic+" is at home", func(c *balance.Cluster) bool { return p.in(c, topic, 0, p.dir(1, 0)) })
}

func (p *realPair) copying(t *testing.T) {
	p.create(t, "sized", 1)
	p.home(t, "sized")
	p.fill(t, "sized")
	file, err := os.Stat(filepath.Join(p.dir(1, 0).Path, "sized-0", "00000000000000000000.log"))
	if err != nil {
		t.Fatal(err)
	}
	c := p.seen(t, "all of it is counted", func(c *balance.Cluster) bool {
		return topicIn(c, "sized", 1).Partitions[0].Replicas[0].Bytes == file.Size()
	})
	for _, d := range c.Brokers[0].LogDirs {
		if d.Total <= 0 || d.Usable <= 0 || d.Usable > d.Total || d.Offline || d.Cordoned {
			t.Errorf("log dir %+v", d)
		}
	}

	mustSet(t, p.Cluster, 1, map[string]string{"replica.alter.log.dirs.io.max.bytes.per.second": "1"})
	p.move(t, "sized", 0, []int32{1}, []int32{1}, p.dir(1, 1))
	want := balance.Copy{Topic: "sized", Broker: 1, Dir: 1}
	p.seen(t, "a copy to b is in flight", func(c *balance.Cluster) bool {
		return len(c.Copies) == 1 && c.Copies[0].Topic == want.Topic && c.Copies[0].Broker == want.Broker && c.Copies[0].Dir == want.Dir && topicIn(c, "sized", 1).Partitions[0].Replicas[0].Dir == 0
	})
	back := []balance.Return{{PartitionRef: balance.PartitionRef{Topic: "sized"}, DirRef: p.dir(1, 0)}}
	for range 2 { // to repeat it is a success
		if err := p.CancelMoves(t.Context(), nil, back); err != nil {
			t.Fatal(err)
		}
		p.seen(t, "it is taken back", func(c *balance.Cluster) bool { return p.in(c, "sized", 0, p.dir(1, 0)) })
	}
	if err := p.SetConfig(t.Context(), 1, nil, []string{"replica.alter.log.dirs.io.max.bytes.per.second"}); err != nil {
		t.Fatal(err)
	}
	p.move(t, "sized", 0, []int32{1}, []int32{1}, p.dir(1, 1))
	p.seen(t, "it is in b", func(c *balance.Cluster) bool { return p.in(c, "sized", 0, p.dir(1, 1)) })
}

func (p *realPair) throttled(t *testing.T) {
	p.create(t, "slow", 1)
	p.home(t, "slow")
	p.fill(t, "slow")
	throttle := map[string]plan.TopicThrottle{"slow": {Leader: "0:1,0:2", Follower: "0:2"}, "gone": {Leader: "0:1"}}
	if err := p.ThrottleTopics(t.Context(), throttle); err != nil {
		t.Fatal(err)
	}
	p.throttles(t, throttle["slow"])
	for _, id := range []int32{1, 2} {
		mustSet(t, p.Cluster, id, map[string]string{"leader.replication.throttled.rate": "1", "follower.replication.throttled.rate": "1"})
	}
	p.move(t, "slow", 0, []int32{1}, []int32{2}, p.dir(2, 1))
	p.seen(t, "1 leaves and 2 comes, in b", func(c *balance.Cluster) bool {
		r := topicIn(c, "slow", 1).Partitions[0].Replicas
		at := func(id int32) balance.Replica {
			return r[max(0, slices.IndexFunc(r, func(one balance.Replica) bool { return one.Broker == id }))]
		}
		return len(r) == 2 && at(1).State == balance.InSync|balance.Removing && at(2).State == balance.Adding && at(2).Dir == 1
	})
	ref := balance.PartitionRef{Topic: "slow"}
	for range 2 { // what does not run is a success
		if err := p.CancelMoves(t.Context(), []balance.Cancel{{PartitionRef: ref, To: []int32{1}}, {PartitionRef: balance.PartitionRef{Topic: "gone"}}}, nil); err != nil {
			t.Fatal(err)
		}
		p.seen(t, "it is taken back", func(c *balance.Cluster) bool { return p.in(c, "slow", 0, p.dir(1, 0)) })
	}
	if err := p.ThrottleTopics(t.Context(), map[string]plan.TopicThrottle{"slow": {}}); err != nil {
		t.Fatal(err)
	}
	p.throttles(t, plan.TopicThrottle{})
}

// throttles waits until that is what the topic slow says, and that a missing one is missing.
func (p *realPair) throttles(t *testing.T, want plan.TopicThrottle) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		k, err := p.Observe(ctx, plan.Ask{Throttles: []string{"slow", "gone"}})
		if err != nil {
			t.Fatalf("want %+v: %v", want, err)
		}
		if got, ok := k.TopicThrottles["slow"]; ok && got == want && len(k.TopicThrottles) == 1 {
			return
		}
	}
}

// cordoned.log.dirs=* is taken as a broker's own dynamic key, and shows at once in DescribeLogDirs (KIP-1066).
func (p *realPair) cordoned(t *testing.T) {
	mustSet(t, p.Cluster, 2, map[string]string{"cordoned.log.dirs": "*"})
	p.seen(t, "2 is cordoned", func(c *balance.Cluster) bool {
		return !c.Brokers[0].Cordoned && c.Brokers[1].Cordoned && c.Brokers[1].LogDirs[0].Cordoned && c.Brokers[1].LogDirs[1].Cordoned
	})
	p.create(t, "avoids", 8)
	c := p.seen(t, "avoids is there", func(c *balance.Cluster) bool { return topicIn(c, "avoids", 8) != nil })
	for i, part := range topicIn(c, "avoids", 8).Partitions {
		if part.Replicas[0].Broker != 1 {
			t.Errorf("partition %d is on %d", i, part.Replicas[0].Broker)
		}
	}
	// A log dir that is cordoned cannot be asked for, but a reassignment to the broker is taken all the same.
	err := p.MoveReplicas(t.Context(), []balance.Move{{Topic: "avoids", From: []int32{1}, To: []int32{2}, Dirs: []balance.DirRef{p.dir(2, 1)}}})
	if err == nil || !strings.Contains(err.Error(), "ask broker 2 for its log dir: Kafka answered INVALID_REPLICA_ASSIGNMENT") {
		t.Errorf("a cordoned log dir: %v", err)
	}
	p.move(t, "avoids", 0, []int32{1}, []int32{2})
	p.seen(t, "the move was taken", func(c *balance.Cluster) bool {
		return p.in(c, "avoids", 0, p.dir(2, 0)) || p.in(c, "avoids", 0, p.dir(2, 1))
	})
	p.move(t, "avoids", 0, []int32{2}, []int32{1}, p.dir(1, 0))
	p.seen(t, "it is back", func(c *balance.Cluster) bool { return p.in(c, "avoids", 0, p.dir(1, 0)) })
	if err := p.SetConfig(t.Context(), 2, nil, []string{"cordoned.log.dirs"}); err != nil {
		t.Fatal(err)
	}
	p.seen(t, "2 is free again", func(c *balance.Cluster) bool { return !c.Brokers[1].Cordoned })
}

func (p *realPair) unregister(t *testing.T) {
	refused := func(why string) {
		t.Helper()
		var no *kafka.RefusedError
		if err := p.UnregisterBroker(t.Context(), 2); !errors.As(err, &no) || !strings.Contains(err.Error(), why) {
			t.Fatalf("error %v, want %q", err, why)
		}
	}
	refused("not fenced")
	p.kill[1]()
	observed(t, p.Cluster, nil, func(k plan.Kafka) bool { return len(k.Brokers) == 2 && k.Brokers[1].Fenced })
	c := p.seen(t, "2 is dead", func(c *balance.Cluster) bool { return !c.Brokers[1].Alive && len(c.Brokers[1].LogDirs) == 0 })
	offline := 0
	for _, part := range topicIn(c, "landing", 8).Partitions {
		if r := part.Replicas[0]; r.Broker == 2 && r.State.Has(balance.Offline) && r.Dir == balance.NoDir {
			offline++
		}
	}
	if offline == 0 {
		t.Errorf("no replica is offline: %+v", c)
	}
	refused(fmt.Sprintf("replicas of %d partitions", offline))
	if err := p.client.DeleteTopic(t.Context(), "landing"); err != nil {
		t.Fatal(err)
	}
	p.seen(t, "landing is gone", func(c *balance.Cluster) bool { return topicIn(c, "landing", 8) == nil })
	for range 2 { // to repeat it is a success
		if err := p.UnregisterBroker(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		observed(t, p.Cluster, nil, func(k plan.Kafka) bool { return k.Known && len(k.Brokers) == 1 })
	}
}
