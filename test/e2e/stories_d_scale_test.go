package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/kafka/kafkatest"
	"castellan.dev/castellan/test/e2e/stand"
)

const (
	// bulk is the topic that gives moves something to copy: so many partitions and bytes of each replica.
	bulk           = "bulk"
	bulkPartitions = 24
	bulkBytes      = 150 << 20
	// moveRate is what each broker may receive and send for moves, a second.
	moveRate = 3 << 20
)

// scaled are three controllers and so many brokers in three racks; removed are brokers that left or leave. Its
// metadata.version is one that knows no cordons, so that a topic can still be made on a broker that leaves.
func scaled(brokers int, rate string, removed ...int32) string {
	yaml := stand.OnRacks(stand.Dedicated(version, 3, brokers), 2)
	if len(removed) > 0 {
		yaml = strings.Replace(yaml, "    firstNodeID: 100\n", fmt.Sprintf("    firstNodeID: 100\n    remove: [%s]\n", stand.IDs(removed...)), 1)
	}
	return yaml + "  metadataVersion: 4.2-IV1\n  balance: {fillNewBrokers: true, bytesPerSecond: " + rate + "}\n"
}

// TestScale tells of brokers that come, are emptied, and leave, with traffic all the time.
func TestScale(t *testing.T) {
	s := stand.New(t, stand.Options{Racks: true, VolumeSize: 1 << 30, Cluster: scaled(3, "3Mi")})
	traffic := s.StartTraffic("scaled", 6)
	isr := kafkatest.WatchISR(t.Context(), s.BrokerTarget(), 250*time.Millisecond, func(topic string) bool { return topic == "scaled" || topic == bulk })
	fillBulk(t, s)
	ends := bulkEnds(t, s)

	for _, story := range []struct {
		name string
		tell func(*testing.T, *stand.Stand)
	}{
		{"three brokers come and are filled", brokersFilled},
		{"the middle broker leaves", leaving(5, 102)},
		{"a drain is deleted", drainDeleted},
		{"operator and broker are killed, and the spec is taken back", leaveTakenBack},
		{"two brokers leave at once", leaving(3, 100, 104)},
	} {
		if !t.Run(story.name, func(t *testing.T) { story.tell(t, s.For(t)) }) {
			break // what follows would only say it again
		}
	}

	if diff := gocmp.Diff(ends, bulkEnds(t, s)); diff != "" {
		t.Errorf("ends of %s (- before, + after):\n%s", bulk, diff)
	}
	report := isr.Stop()
	if len(report.Under) > 0 || report.Samples == 0 {
		t.Errorf("%d samples (%d not answered: %s); under min ISR: %+v", report.Samples, report.Unknown, report.Why, report.Under)
	}
	traffic.End()
}

// fillBulk writes what cannot be compressed, evenly over the partitions.
func fillBulk(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Must("topics", "create", bulk, "--partitions", fmt.Sprint(bulkPartitions), "--replicas", "3")
	client, err := kgo.NewClient(kgo.SeedBrokers(s.ClientConfig("plain").Brokers...), kgo.DefaultProduceTopic(bulk),
		kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(64))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	value := make([]byte, 128<<10)
	if _, err := rand.Read(value); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var failed error
	for range bulkBytes / len(value) {
		client.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err // callbacks come one after the other
			}
		})
	}
	if err := client.Flush(ctx); err != nil || failed != nil {
		t.Fatalf("fill %s: %v, %v", bulk, err, failed)
	}
}

// bulkEnds are the end offsets of what moves.
func bulkEnds(t *testing.T, s *stand.Stand) map[int32]int64 {
	t.Helper()
	offsets, err := adminOf(t, s).ListEndOffsets(t.Context(), bulk)
	if err != nil {
		t.Fatal(err)
	}
	ends := map[int32]int64{}
	offsets.Each(func(o kadm.ListedOffset) {
		if o.Err != nil {
			t.Errorf("end of %s-%d: %v", o.Topic, o.Partition, o.Err)
		}
		ends[o.Partition] = o.Offset
	})
	return ends
}

// moving is the Operation of a type that is active.
func moving(t *testing.T, s *stand.Stand, want api.OperationType) *api.Operation {
	t.Helper()
	var op *api.Operation
	s.Eventually(fmt.Sprintf("a %s is active", want), 4*time.Minute, func(context.Context) error {
		kc := s.Cluster()
		if kc.Status.Operation == "" || kc.Status.ObservedGeneration != kc.Generation {
			return fmt.Errorf("generation %d of %d was looked at, and its operation is %q; %s", kc.Status.ObservedGeneration, kc.Generation, kc.Status.Operation, conditions(kc))
		}
		op = operationNow(t, s, kc.Status.Operation)
		if op.Spec.Type != want || op.Spec.ToRevision != "" && op.Spec.ToRevision != kc.Status.Revision {
			return fmt.Errorf("operation %s is a %s to revision %s", op.Name, op.Spec.Type, op.Spec.ToRevision)
		}
		return nil
	})
	return op
}

// conditions are those of a cluster in short.
func conditions(kc *api.KafkaCluster) string {
	var words []string
	for _, c := range kc.Status.Conditions {
		words = append(words, fmt.Sprintf("%s=%s: %s", c.Type, c.Status, c.Message))
	}
	return strings.Join(words, "; ")
}

// placed are the replicas of all partitions now.
func placed(t *testing.T, s *stand.Stand) map[partition][]int32 {
	t.Helper()
	all, err := replicasOf(t.Context(), adminOf(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// apartInRacks fails the test if a partition has two replicas in one rack.
func apartInRacks(t *testing.T, s *stand.Stand) {
	t.Helper()
	racks := map[int32]string{}
	for _, n := range s.Nodes() {
		racks[n.Spec.NodeID] = n.Spec.Rack
	}
	for p, replicas := range placed(t, s) {
		in := map[string]bool{}
		for _, id := range replicas {
			in[racks[id]] = true
		}
		if len(in) != len(replicas) {
			t.Errorf("%s-%d has replicas %v in the racks %v", p.Topic, p.ID, replicas, in)
		}
	}
}

func brokersFilled(t *testing.T, s *stand.Stand) {
	t.Helper()
	added := []int32{103, 104, 105}
	before := placed(t, s)
	watch := watchMoves(t, s, bulk)
	s.Apply(scaled(6, "3Mi"))
	op := moving(t, s, api.OperationScale)
	if diff := gocmp.Diff(added, slices.Sorted(slices.Values(op.Spec.Nodes))); diff != "" {
		t.Errorf("the operation is about (- want, + got):\n%s", diff)
	}
	took := s.Eventually("they are filled", 8*time.Minute, filled(t, s, added))
	s.Eventually("no throttle and no move is left", 5*time.Second, unthrottled(t, s))
	seen := watch.end()
	s.WaitReady()

	for to, partitions := range seen.To {
		if !slices.Contains(added, to) {
			t.Errorf("%d partitions were moved to broker %d, which is not new", len(partitions), to)
		}
	}
	held := map[int32]int{}
	for p, now := range placed(t, s) {
		for _, id := range now {
			if !slices.Contains(before[p], id) {
				held[id]++
			}
		}
	}
	t.Logf("filled in %s; brokers took %v replicas", took.Round(time.Second), held)
	for id := range held {
		if !slices.Contains(added, id) {
			t.Errorf("broker %d took replicas, and is not new: %v", id, held)
		}
	}
	if len(held) != len(added) {
		t.Errorf("brokers took replicas: %v; new are %v", held, added)
	}
	apartInRacks(t, s)
	if all := scales(t, s); len(all) != 1 {
		t.Errorf("%d operations for one wish", len(all))
	}
	if m := operationNow(t, s, op.Name).Status.Moves; m == nil || m.Total == 0 || m.Done != m.Total || m.LeftBytes != 0 {
		t.Errorf("the operation says of its moves: %+v", m)
	}
	throttledAsAsked(t, &seen, added)
}

// filled is the fact that brokers hold replicas and that every operation of that is over.
func filled(t *testing.T, s *stand.Stand, ids []int32) stand.Fact {
	t.Helper()
	admin, c := adminOf(t, s), s.Client()
	return func(ctx context.Context) error {
		var list api.OperationList
		if err := c.List(ctx, &list); err != nil {
			return err
		}
		for i := range list.Items {
			if op := &list.Items[i]; !op.Status.Phase.Final() {
				return fmt.Errorf("operation %s is %s: %s", op.Name, op.Status.Phase, op.Status.Message)
			}
		}
		bytes, err := bytesOn(ctx, admin, bulk)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if bytes[id] == 0 {
				return fmt.Errorf("broker %d holds nothing: %v", id, bytes)
			}
		}
		return nil
	}
}

// throttledAsAsked wants the brokers that were filled to have got what was allowed, within 15 %.
func throttledAsAsked(t *testing.T, seen *moves, added []int32) {
	t.Helper()
	rates := 0
	for throttle := range seen.Throttled {
		if key, rate, _ := strings.Cut(throttle, "="); strings.HasSuffix(key, "throttled.rate") {
			rates++
			if rate != fmt.Sprint(moveRate) {
				t.Errorf("throttle %s, asked were %d bytes/s", throttle, moveRate)
			}
		}
	}
	if rates == 0 {
		t.Errorf("no throttle was seen in %d samples (%d not answered: %s)", len(seen.Samples), seen.Unknown, seen.Why)
	}
	// What a broker gets at once is what was allowed over Kafka's window of eleven samples of a second; the mean to the end
	// also tells of the time in which nothing was left that it could get.
	fastest := 0.0
	for _, id := range added {
		rate, during := seen.rateTo(id)
		sustained := seen.sustained(id, 12*time.Second)
		t.Logf("broker %d got %+.1f %% of what was asked in its best twelve seconds, %+.1f %% in the mean of %s", id, 100*(sustained/moveRate-1), 100*(rate/moveRate-1), during.Round(100*time.Millisecond))
		fastest = max(fastest, sustained)
	}
	if math.Abs(fastest/moveRate-1) > 0.15 {
		t.Errorf("brokers got up to %.0f bytes/s, asked were %d:\n%s", fastest, moveRate, seen.timeline(added))
	}
}

// leaving is the story of brokers that leave.
func leaving(left int, ids ...int32) func(*testing.T, *stand.Stand) {
	return func(t *testing.T, s *stand.Stand) {
		t.Helper()
		brokersLeave(t, s, left, ids...)
	}
}

// brokersLeave takes brokers out, so that so many are left, while a topic is made on one of them.
func brokersLeave(t *testing.T, s *stand.Stand, left int, ids ...int32) {
	t.Helper()
	var volumes []string
	for _, id := range ids {
		n := s.Node(id)
		volumes = append(volumes, s.SeenIn(n.Spec.Rack, filepath.Join(n.Spec.Volumes[0].Path, layout.LogFolder, "meta.properties")))
	}
	history := len(scales(t, s))
	watch := watchMoves(t, s, bulk, ids...)
	s.Must("scale", "kafka", "--pool", "brokers", "--replicas", fmt.Sprint(left), "--remove", stand.IDs(ids...))
	op := moving(t, s, api.OperationScale)
	s.Eventually("replicas are on their way", 2*time.Minute, watch.began(1))
	late := fmt.Sprintf("late-%d", ids[0])
	makeOn(t, s, late, ids[0], 103)
	took := s.Eventually("they have left", 8*time.Minute, phase(s, op.Name, api.OperationSucceeded, ""))
	s.Eventually("no throttle and no move is left", 5*time.Second, unthrottled(t, s))
	seen := watch.end()
	s.WaitReady()
	t.Logf("%v left in %s; %d samples, %d not answered (%s)", ids, took.Round(time.Second), len(seen.Samples), seen.Unknown, seen.Why)

	for _, early := range seen.Early {
		t.Error(early)
	}
	for _, id := range ids {
		if to := seen.To[id]; len(to) > 0 {
			t.Errorf("partitions %v were moved to broker %d, which left", to, id)
		}
	}
	forgotten(t, s, ids...)
	for _, file := range volumes {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("the data of a broker that left was to be kept: %v", err)
		}
	}
	if on := placed(t, s)[partition{Topic: late}]; len(on) != 2 {
		t.Errorf("%s, made on a broker that left, has replicas %v", late, on)
	}
	apartInRacks(t, s)
	if now := len(scales(t, s)); now != history+1 {
		t.Errorf("%d operations for one wish", now-history)
	}
}

// forgotten wants neither Kafka nor the API nor a host to know brokers any more.
func forgotten(t *testing.T, s *stand.Stand, ids ...int32) {
	t.Helper()
	known, running, nodes := registeredBrokers(t, s), s.JVMPIDs(), nodeIDs(s)
	for _, id := range ids {
		if slices.Contains(known, id) || slices.Contains(nodes, id) || running[id] != 0 {
			t.Errorf("broker %d left: registered are %v, nodes %v, JVMs %v", id, known, nodes, running)
		}
	}
	for p, on := range placed(t, s) {
		for _, id := range on {
			if slices.Contains(ids, id) {
				t.Errorf("%s-%d has replicas %v", p.Topic, p.ID, on)
			}
		}
	}
}

// scales are the Operations of that type there are.
func scales(t *testing.T, s *stand.Stand) []api.Operation {
	t.Helper()
	var list api.OperationList
	if err := s.Client().List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(op api.Operation) bool { return op.Spec.Type != api.OperationScale })
}

// makeOn makes a topic of one partition on these brokers, which only who names them can.
func makeOn(t *testing.T, s *stand.Stand, topic string, brokers ...int32) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.ClientConfig("plain").Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	partition := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
	partition.Replicas = brokers
	made := kmsg.NewCreateTopicsRequestTopic()
	made.Topic, made.NumPartitions, made.ReplicationFactor = topic, -1, -1
	made.ReplicaAssignment = append(made.ReplicaAssignment, partition)
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = 30_000
	request.Topics = append(request.Topics, made)
	response, err := request.RequestWith(t.Context(), client)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		t.Fatalf("make %s on brokers %v: %v", topic, brokers, err)
	}
}
