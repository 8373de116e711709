package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/kafka/kafkatest"
	"castellan.dev/castellan/test/e2e/stand"
)

const (
	// everywhere has a replica on every broker, pair on two of three.
	everywhere = "everywhere"
	pair       = "pair"
	// moreVolume is the second volume of a node.
	moreVolume = "more"
	// firstDisk is the file system of the first volumes of all nodes, secondDisk that of a second one: so much larger
	// that what neighbours have on it is little.
	firstDisk  = 6 << 30
	secondDisk = 3 << 29
)

// jbod is three combined nodes with volumes.
func jbod(volumes ...string) string {
	var list []string
	for _, v := range volumes {
		list = append(list, "{name: "+v+"}")
	}
	return strings.Replace(stand.Combined(version, 3), "    jvm:", "    volumes: ["+strings.Join(list, ", ")+"]\n    jvm:", 1)
}

// TestLogDirs tells of a second log dir that every broker gets, of replicas that move into it, of the way back, and of
// one that fails.
func TestLogDirs(t *testing.T) {
	s := stand.New(t, stand.Options{Cluster: jbod("data"), DataSize: firstDisk})
	traffic := s.StartTraffic("jbod", 6)
	isr := kafkatest.WatchISR(t.Context(), s.BrokerTarget(), 250*time.Millisecond, func(topic string) bool { return topic == "jbod" || topic == everywhere })
	fillDirs(t, s)
	ends := endsOf(t, s, everywhere, pair)

	for _, story := range []struct {
		name string
		tell func(*testing.T, *stand.Stand)
	}{
		{"a log dir is added and filled", dirAdded},
		{"a log dir fails", dirFails},
		{"a log dir is taken away", dirRemoved},
		{"a topic is in the way of a restart", topicsInTheWay},
	} {
		began := time.Now()
		if !t.Run(story.name, func(t *testing.T) { story.tell(t, s.For(t)) }) {
			break // what follows would only say it again
		}
		t.Logf("%s: %s", story.name, time.Since(began).Round(time.Second))
	}

	if diff := gocmp.Diff(ends, endsOf(t, s, everywhere, pair)); diff != "" {
		t.Errorf("ends of partitions (- before, + after):\n%s", diff)
	}
	report := isr.Stop()
	if len(report.Under) > 0 || report.Samples == 0 {
		t.Errorf("%d samples (%d not answered: %s); under min ISR: %+v", report.Samples, report.Unknown, report.Why, report.Under)
	}
	traffic.End()
}

// fillDirs makes the topics, each with some MiB a partition.
func fillDirs(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Must("topics", "create", everywhere, "--partitions", "6", "--replicas", "3")
	makePlain(t, s, pair, 9, 2, "1")
	client, err := kgo.NewClient(kgo.SeedBrokers(s.ClientConfig("plain").Brokers...), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.UnknownTopicRetries(20))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	value := make([]byte, 256<<10)
	if _, err := rand.Read(value); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, topic := range []string{everywhere, pair} {
		for range 90 {
			if err := client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: value}).FirstErr(); err != nil {
				t.Fatalf("fill %s: %v", topic, err)
			}
		}
	}
}

// makePlain makes a topic with a min.insync.replicas of its own.
func makePlain(t *testing.T, s *stand.Stand, topic string, partitions int32, replicas int16, minISR string) {
	t.Helper()
	if _, err := adminOf(t, s).CreateTopic(t.Context(), partitions, replicas, map[string]*string{"min.insync.replicas": &minISR}, topic); err != nil {
		t.Fatalf("make %s: %v", topic, err)
	}
}

// endsOf are the end offsets of topics.
func endsOf(t *testing.T, s *stand.Stand, topics ...string) map[partition]int64 {
	t.Helper()
	offsets, err := adminOf(t, s).ListEndOffsets(t.Context(), topics...)
	if err != nil {
		t.Fatal(err)
	}
	ends := map[partition]int64{}
	offsets.Each(func(o kadm.ListedOffset) {
		if o.Err != nil {
			t.Errorf("end of %s-%d: %v", o.Topic, o.Partition, o.Err)
		}
		ends[partition{Topic: o.Topic, ID: o.Partition}] = o.Offset
	})
	return ends
}

// dirOf is the log dir of a node's volume.
func dirOf(t *testing.T, s *stand.Stand, id int32, volume string) string {
	t.Helper()
	n := s.Node(id)
	i := slices.IndexFunc(n.Spec.Volumes, func(v api.NodeVolume) bool { return v.Name == volume })
	if i < 0 {
		t.Fatalf("node %d has no volume %s: %+v", id, volume, n.Spec.Volumes)
	}
	return filepath.Join(n.Spec.Volumes[i].Path, layout.LogFolder)
}

// inDirs are the partitions in each log dir of each broker; a log dir that failed is nil.
func inDirs(ctx context.Context, admin *kadm.Client) (map[int32]map[string]map[partition]bool, error) {
	described, err := admin.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("describe log dirs: %w", err)
	}
	all := map[int32]map[string]map[partition]bool{}
	described.Each(func(d kadm.DescribedLogDir) {
		if all[d.Broker] == nil {
			all[d.Broker] = map[string]map[partition]bool{}
		}
		if d.Err != nil {
			all[d.Broker][d.Dir] = nil
			return
		}
		in := map[partition]bool{}
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if !p.IsFuture { // what is being copied is not there yet
				in[partition{Topic: p.Topic, ID: p.Partition}] = true
			}
		})
		all[d.Broker][d.Dir] = in
	})
	return all, nil
}

// rolled applies a spec and waits until every node runs it.
func rolled(t *testing.T, s *stand.Stand, yaml string) *api.Operation {
	t.Helper()
	before := s.JVMPIDs()
	s.Apply(yaml)
	op := operation(t, s)
	took := s.Eventually("every node runs it", 12*time.Minute, phase(s, op.Name, api.OperationSucceeded, ""))
	s.WaitReady()
	s.Eventually("every replica is in sync", 2*time.Minute, s.InSync())
	t.Logf("rolled out in %s", took.Round(time.Second))
	for id, pid := range s.JVMPIDs() {
		if before[id] == pid {
			t.Errorf("node %d was not restarted", id)
		}
	}
	return op
}

// rebalanced runs castellan rebalance and gives the Operation that it was.
func rebalanced(t *testing.T, s *stand.Stand, args ...string) (*api.Operation, stand.Output) {
	t.Helper()
	out := s.Run(5*time.Minute, "", append([]string{"rebalance", "kafka", "--wait"}, args...)...)
	var list api.OperationList
	if err := s.Client().List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	var newest *api.Operation
	for i := range list.Items {
		op := &list.Items[i]
		if op.Spec.Type == api.OperationRebalance && (newest == nil || newest.CreationTimestamp.Before(&op.CreationTimestamp)) {
			newest = op
		}
	}
	if newest == nil {
		t.Fatalf("castellan rebalance made no Operation: %s", out)
	}
	return newest, out
}

// seen is a path of the data folder as the stand's own processes see it.
func seen(s *stand.Stand, path string) string {
	return filepath.Join(s.DataSeen(), strings.TrimPrefix(path, s.Dir().DataRoot()))
}

// mountDisks gives each node a file system of its own for its second volume.
func mountDisks(t *testing.T, s *stand.Stand) {
	t.Helper()
	for _, id := range nodeIDs(s) {
		path := filepath.Join(filepath.Dir(s.Node(id).Spec.Volumes[0].Path), moreVolume)
		if err := os.Mkdir(seen(s, path), 0o700); err != nil {
			t.Fatal(err)
		}
		pid := fmt.Sprint(s.MustPID(stand.Server))
		args := []string{"--target", pid, "--mount", "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=700", secondDisk), "tmpfs", path}
		if os.Geteuid() != 0 {
			args = append([]string{"--user", "--preserve-credentials"}, args...)
		}
		if out, err := exec.CommandContext(t.Context(), "nsenter", args...).CombinedOutput(); err != nil {
			t.Fatalf("mount a disk for node %d: %v: %s", id, err, out)
		}
	}
}

func dirAdded(t *testing.T, s *stand.Stand) {
	t.Helper()
	mountDisks(t, s)
	rolled(t, s, jbod("data", moreVolume))
	filledDirs(t, s)
}

// filledDirs lets replicas move into the second log dirs, and wants none to be copied between brokers.
func filledDirs(t *testing.T, s *stand.Stand) {
	t.Helper()
	before := placed(t, s)
	watch := watchMoves(t, s, everywhere)
	op, out := rebalanced(t, s, "--mode", "disks")
	moves := watch.end()
	if out.Code != 0 || op.Status.Phase != api.OperationSucceeded {
		t.Fatalf("operation %s is %s: %s; castellan rebalance: %s", op.Name, op.Status.Phase, op.Status.Message, out)
	}
	if diff := gocmp.Diff(before, placed(t, s)); diff != "" || len(moves.To) > 0 {
		t.Errorf("replicas were copied to brokers %v; (- before, + after):\n%s", slices.Collect(maps.Keys(moves.To)), diff)
	}
	if p := op.Status.Proposal; p == nil || p.Bytes != 0 || p.LocalBytes == 0 {
		t.Errorf("the proposal was %+v", p)
	}
	all, err := inDirs(t.Context(), adminOf(t, s))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range nodeIDs(s) {
		data, more := len(all[id][dirOf(t, s, id, "data")]), len(all[id][dirOf(t, s, id, moreVolume)])
		t.Logf("broker %d: %d and %d replicas (%s)", id, data, more, out.Took.Round(time.Second))
		if data == 0 || more == 0 {
			t.Errorf("broker %d has %d replicas in its first log dir and %d in the second", id, data, more)
		}
	}
}

// dirWatch records how many replicas were in a log dir of each broker when its process was last seen.
type dirWatch struct {
	stop  context.CancelFunc
	ended sync.WaitGroup
	first map[int32]int // process ids at the beginning
	held  map[int32]int
}

func watchDirs(t *testing.T, s *stand.Stand, dirs map[int32]string) *dirWatch {
	t.Helper()
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w := &dirWatch{stop: stop, first: s.JVMPIDs(), held: map[int32]int{}}
	admin := adminOf(t, s)
	w.ended.Go(func() {
		tick := time.NewTicker(votersEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			all, err := inDirs(ctx, admin)
			pids := s.JVMPIDs() // after the answer: who has another process by now has not told of the first
			for id, dir := range dirs {
				if in, told := all[id][dir]; err == nil && told && pids[id] == w.first[id] {
					w.held[id] = len(in)
				}
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return w
}

// end returns how many replicas each log dir held last.
func (w *dirWatch) end() map[int32]int {
	w.stop()
	w.ended.Wait()
	return w.held
}

func dirRemoved(t *testing.T, s *stand.Stand) {
	t.Helper()
	dirs := map[int32]string{}
	for _, id := range nodeIDs(s) {
		dirs[id] = dirOf(t, s, id, moreVolume)
	}
	before := placed(t, s)
	watch := watchDirs(t, s, dirs)
	defer watch.stop()
	rolled(t, s, jbod("data"))
	held := watch.end()
	all, err := inDirs(t.Context(), adminOf(t, s))
	if err != nil {
		t.Fatal(err)
	}
	for id, dir := range dirs {
		if n, seen := held[id]; !seen || n > 0 {
			t.Errorf("broker %d was restarted with %d replicas in %s (seen: %t)", id, n, dir, seen)
		}
		if _, used := all[id][dir]; used {
			t.Errorf("broker %d still has %s", id, dir)
		}
		entries := folder(t, seen(s, dir))
		logs := slices.DeleteFunc(slices.Clone(entries), func(name string) bool { return !partitionFolder.MatchString(name) })
		if !slices.Contains(entries, "meta.properties") || len(logs) > 0 {
			t.Errorf("%s holds %v", dir, entries)
		}
		if keys := s.Node(id).Spec.Dynamic; len(keys) > 0 {
			t.Errorf("node %d keeps %v", id, keys)
		}
	}
	if diff := gocmp.Diff(before, placed(t, s)); diff != "" {
		t.Errorf("replicas changed brokers (- before, + after):\n%s", diff)
	}
}

// partitionFolder is the folder of a replica that is not deleted.
var partitionFolder = regexp.MustCompile(`^.+-\d+$`)

// dirFails takes a log dir from under a broker, has its replicas restored where there is another broker for them, and
// gives it back.
func dirFails(t *testing.T, s *stand.Stand) {
	t.Helper()
	intoSecondDir(t, s, pair, everywhere)
	victim, lost := holderOf(t, s, pair)
	dir := dirOf(t, s, victim, moreVolume)
	pid := s.JVMPIDs()[victim]
	kept := filepath.Join(filepath.Dir(dir), "taken-away")
	if err := os.Rename(seen(s, dir), seen(s, kept)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(seen(s, dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	admin := adminOf(t, s)
	took := s.Eventually("Kafka gives the log dir up", 2*time.Minute, func(ctx context.Context) error {
		all, err := inDirs(ctx, admin)
		if err == nil && all[victim][dir] != nil {
			err = fmt.Errorf("it holds %d replicas", len(all[victim][dir]))
		}
		return err
	})
	t.Logf("broker %d lost %s with %d replicas after %s", victim, dir, len(lost), took.Round(time.Second))
	s.Eventually("what was there is led elsewhere, all else is in sync", time.Minute, servesWithout(s, victim, lost))
	s.Throughout("the broker serves on", 10*time.Second, servesWithout(s, victim, lost))
	s.Eventually("castellan status says so", time.Minute, func(context.Context) error {
		if said := s.Must("status"); !strings.Contains(said, fmt.Sprintf("a log dir of broker %d has failed", victim)) {
			return errors.New(said)
		}
		return nil
	})

	op, out := rebalanced(t, s, "--mode", "disks", "--repair-log-dirs", "--topics", pair)
	if out.Code != 0 || op.Status.Phase != api.OperationSucceeded {
		t.Fatalf("operation %s is %s: %s; castellan rebalance: %s", op.Name, op.Status.Phase, op.Status.Message, out)
	}
	t.Logf("%s is repaired after %s", pair, out.Took.Round(time.Second))
	maps.DeleteFunc(lost, func(p partition, _ bool) bool { return p.Topic == pair })
	s.Eventually("the topic is whole again", time.Minute, servesWithout(s, victim, lost))
	s.Eventually("no throttle and no move is left", time.Minute, unthrottled(t, s))
	op, out = rebalanced(t, s, "--mode", "disks", "--repair-log-dirs")
	if out.Code == 0 || op.Status.Phase != api.OperationFailed || !strings.Contains(op.Status.Message, "add brokers") {
		t.Errorf("where every broker has a replica already, operation %s is %s: %s; castellan rebalance: %s", op.Name, op.Status.Phase, op.Status.Message, out)
	}
	if now := s.JVMPIDs()[victim]; now != pid {
		t.Errorf("the JVM of broker %d was %d and is %d", victim, pid, now)
	}

	if err := os.Remove(seen(s, dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(seen(s, kept), seen(s, dir)); err != nil {
		t.Fatal(err)
	}
	s.Kill(pid) // as a machine that gets its disk back
	s.Eventually("the broker is back", 3*time.Minute, func(context.Context) error {
		if n := s.Node(victim); n.Status.Process == nil || int(n.Status.Process.PID) == pid || !n.Status.Ready {
			return fmt.Errorf("it is %s: %s", n.Status.State, n.Status.Message)
		}
		return nil
	})
	s.Eventually("every replica is in sync", 2*time.Minute, s.InSync())
}

// intoSecondDir moves a replica of each topic into the second log dir of one broker, where the balance left it in the first.
func intoSecondDir(t *testing.T, s *stand.Stand, topics ...string) {
	t.Helper()
	admin := adminOf(t, s)
	all, err := inDirs(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	has := func(in map[partition]bool, topic string) *partition {
		for p := range in {
			if p.Topic == topic {
				return &p
			}
		}
		return nil
	}
	for _, id := range nodeIDs(s) {
		first, second := all[id][dirOf(t, s, id, "data")], dirOf(t, s, id, moreVolume)
		var move kadm.AlterReplicaLogDirsReq
		missing := false
		for _, topic := range topics {
			p := has(first, topic)
			switch {
			case has(all[id][second], topic) != nil:
			case p == nil:
				missing = true
			default:
				move.Add(second, kadm.TopicsSet{topic: {p.ID: {}}})
			}
		}
		if missing {
			continue
		}
		if len(move) > 0 {
			moved, err := admin.AlterBrokerReplicaLogDirs(t.Context(), id, move)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range moved.Sorted() {
				if r.Err != nil {
					t.Fatalf("move %s-%d into %s: %v", r.Topic, r.Partition, second, r.Err)
				}
			}
		}
		s.Eventually(fmt.Sprintf("%s of broker %d holds replicas of %v", second, id, topics), time.Minute, func(ctx context.Context) error {
			now, err := inDirs(ctx, admin)
			for _, topic := range topics {
				if err == nil && has(now[id][second], topic) == nil {
					err = fmt.Errorf("it holds %v", now[id][second])
				}
			}
			return err
		})
		return
	}
	t.Fatalf("no broker has a replica of each of %v: %v", topics, all)
}

// holderOf is a broker with a replica of a topic in its second log dir, and all that is there.
func holderOf(t *testing.T, s *stand.Stand, topic string) (int32, map[partition]bool) {
	t.Helper()
	all, err := inDirs(t.Context(), adminOf(t, s))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range nodeIDs(s) {
		in := all[id][dirOf(t, s, id, moreVolume)]
		topics := map[string]bool{}
		for p := range in {
			topics[p.Topic] = true
		}
		if topics[topic] && len(topics) > 1 {
			return id, in
		}
	}
	t.Fatalf("no second log dir holds a replica of %s and another one: %v", topic, all)
	return 0, nil
}

// servesWithout is the fact that a broker neither leads nor follows what it has lost, and that all else is in sync.
func servesWithout(s *stand.Stand, broker int32, lost map[partition]bool) stand.Fact {
	return func(ctx context.Context) error {
		now, err := s.Observe(ctx)
		if err != nil {
			return err
		}
		led := 0
		for _, topic := range now.Topics {
			for i, p := range topic.Partitions {
				gone := 0
				if lost[partition{Topic: topic.Name, ID: int32(i)}] {
					gone = 1
				}
				if p.Leader == broker {
					led++
				}
				if p.Leader < 0 || len(p.ISR) != len(p.Replicas)-gone || gone == 1 && slices.Contains(p.ISR, broker) {
					return fmt.Errorf("partition %s-%d: leader %d, replicas %v, in sync %v", topic.Name, i, p.Leader, p.Replicas, p.ISR)
				}
			}
		}
		if led == 0 {
			return fmt.Errorf("broker %d leads nothing any more", broker)
		}
		return nil
	}
}

// topicsInTheWay has topics that can spare no replica in the way of a restart.
func topicsInTheWay(t *testing.T, s *stand.Stand) {
	t.Helper()
	const strict, single = "strict", "single"
	makePlain(t, s, strict, 1, 3, "3")
	s.Must("restart", "kafka", "--nodes", "1")
	op := restarting(t, s)
	s.Eventually("the operation names the topic", 2*time.Minute, says(s, op.Name, strict+"-0", "min.insync.replicas"))
	unmoved(t, s, "nothing is restarted while the topic is in the way")
	s.Must("topics", "delete", strict)
	s.Eventually("it goes on when the topic is mended", 4*time.Minute, phase(s, op.Name, api.OperationSucceeded, ""))
	var volumes []string
	for _, v := range s.Node(0).Spec.Volumes {
		volumes = append(volumes, v.Name)
	}
	s.Apply(jbod(volumes...) + "  rollout: {noSpareReplica: {then: Restart, after: 20s}}\n")
	s.WaitReady()

	makePlain(t, s, single, 1, 1, "1")
	holder := placed(t, s)[partition{Topic: single}][0]
	before := s.JVMPIDs()
	s.Must("restart", "kafka", "--nodes", stand.IDs(holder))
	op = restarting(t, s)
	s.Eventually("the operation names the topic and the time", 2*time.Minute, says(s, op.Name, single+"-0", "it is restarted all the same"))
	if s.JVMPIDs()[holder] != before[holder] {
		t.Errorf("broker %d was restarted before its time", holder)
	}
	took := s.Eventually("it goes on by itself", 4*time.Minute, phase(s, op.Name, api.OperationSucceeded, ""))
	t.Logf("over %s after it was named", took.Round(time.Second))
	s.WaitReady()
	for id, pid := range s.JVMPIDs() {
		if restarted := before[id] != pid; restarted != (id == holder) {
			t.Errorf("node %d: restarted is %t", id, restarted)
		}
	}
	s.Must("topics", "delete", single)
}

// restarting is the Restart that is active.
func restarting(t *testing.T, s *stand.Stand) *api.Operation {
	t.Helper()
	return moving(t, s, api.OperationRestart)
}

// says is the fact that an operation's status has words in its message, or in that of one of its nodes.
func says(s *stand.Stand, name string, words ...string) stand.Fact {
	return func(ctx context.Context) error {
		var op api.Operation
		if err := s.Client().Get(ctx, s.KeyOf(name), &op); err != nil {
			return err
		}
		said := op.Status.Message
		for _, n := range op.Status.Nodes {
			said += "\n" + n.Reason
		}
		for _, word := range words {
			if !strings.Contains(said, word) {
				return fmt.Errorf("it is %s and does not say %q: %s", op.Status.Phase, word, said)
			}
		}
		return nil
	}
}
