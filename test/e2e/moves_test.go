package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/test/e2e/stand"
)

// adminOf asks Kafka through the listener "plain", as anybody could.
func adminOf(t *testing.T, s *stand.Stand) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.ClientConfig("plain").Brokers...), kgo.MetadataMinAge(250*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

// partition is one of a topic's.
type partition struct {
	Topic string
	ID    int32
}

// replicasOf are the brokers of every partition, those of Kafka's own topics too.
func replicasOf(ctx context.Context, admin *kadm.Client) (map[partition][]int32, error) {
	topics, err := admin.ListTopicsWithInternal(ctx)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	all := map[partition][]int32{}
	topics.EachPartition(func(p kadm.PartitionDetail) { all[partition{p.Topic, p.Partition}] = p.Replicas })
	return all, nil
}

// bytesOn is how much of topics lies in the log dirs of each broker.
func bytesOn(ctx context.Context, admin *kadm.Client, topics ...string) (map[int32]int64, error) {
	dirs, err := admin.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("describe log dirs: %w", err)
	}
	bytes := map[int32]int64{}
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if slices.Contains(topics, p.Topic) {
				bytes[d.Broker] += p.Size
			}
		})
	})
	return bytes, nil
}

// throttlesOf are all throttles of replication that are set, on brokers, for all of them and on topics.
func throttlesOf(ctx context.Context, admin *kadm.Client) ([]string, error) {
	var brokers []int32
	topics, err := admin.ListTopicsWithInternal(ctx)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	live, err := admin.ListBrokers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	for _, b := range live {
		brokers = append(brokers, b.NodeID)
	}
	wide, err := admin.DescribeBrokerConfigs(ctx)
	if err != nil {
		return nil, fmt.Errorf("describe the configuration of all brokers: %w", err)
	}
	each, err := admin.DescribeBrokerConfigs(ctx, brokers...)
	if err != nil {
		return nil, fmt.Errorf("describe the configuration of brokers: %w", err)
	}
	ofTopics, err := admin.DescribeTopicConfigs(ctx, slices.Collect(maps.Keys(topics))...)
	if err != nil {
		return nil, fmt.Errorf("describe the configuration of topics: %w", err)
	}
	var found []string
	for _, r := range slices.Concat(wide, each, ofTopics) {
		for _, c := range r.Configs {
			set := c.Source == kmsg.ConfigSourceDynamicBrokerConfig || c.Source == kmsg.ConfigSourceDynamicDefaultBrokerConfig || c.Source == kmsg.ConfigSourceDynamicTopicConfig
			if set && strings.Contains(c.Key, "replication.throttled") {
				found = append(found, fmt.Sprintf("%s: %s=%s", r.Name, c.Key, c.MaybeValue()))
			}
		}
	}
	slices.Sort(found)
	return found, nil
}

// reassignments are those under way.
func reassignments(ctx context.Context, admin *kadm.Client) ([]kadm.ListPartitionReassignmentsResponse, error) {
	topics, err := admin.ListTopicsWithInternal(ctx)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	moving, err := admin.ListPartitionReassignments(ctx, topics.TopicsSet()) // of no topic it would be none
	if err != nil {
		return nil, fmt.Errorf("list reassignments: %w", err)
	}
	return moving.Sorted(), nil
}

// unthrottled is the fact that no throttle of replication is left, and no reassignment.
func unthrottled(t *testing.T, s *stand.Stand) stand.Fact {
	t.Helper()
	admin := adminOf(t, s)
	return func(ctx context.Context) error {
		moving, err := reassignments(ctx, admin)
		if err != nil {
			return err
		}
		if len(moving) > 0 {
			return fmt.Errorf("reassignments under way: %+v", moving)
		}
		left, err := throttlesOf(ctx, admin)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return fmt.Errorf("throttles: %s", strings.Join(left, "; "))
		}
		return nil
	}
}

// sample is what was seen of moves at one moment.
type sample struct {
	At time.Time
	// Moving partitions, and how much of the watched topics lies on each broker.
	Moving int
	Bytes  map[int32]int64
}

// moves is what a [watchMoves] has seen.
type moves struct {
	Samples []sample
	// To counts, by broker, the partitions of which it was seen to get a replica.
	To map[int32]map[partition]bool
	// Throttled are the throttles that were seen.
	Throttled map[string]bool
	// Early are leaving brokers whose process was seen to be gone while Kafka still had replicas on them.
	Early []string
	// Unknown samples, with the last reason.
	Unknown int
	Why     string
}

// moveWatch samples what moves, see [watchMoves].
type moveWatch struct {
	stop  context.CancelFunc
	ended sync.WaitGroup
	mu    sync.Mutex
	moves moves
}

// watchMoves samples reassignments, log dirs and throttles until its end, and whether the process of a leaving broker
// ends before Kafka has no replica on it.
func watchMoves(t *testing.T, s *stand.Stand, topic string, leaving ...int32) *moveWatch {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &moveWatch{stop: stop, moves: moves{To: map[int32]map[partition]bool{}, Throttled: map[string]bool{}}}
	admin := adminOf(t, s)
	alive := map[int32]func() bool{}
	for id, pid := range s.JVMPIDs() {
		if slices.Contains(leaving, id) {
			alive[id] = stand.Alive(pid)
		}
	}
	w.ended.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if err := w.sample(ctx, admin, topic, alive); err != nil && ctx.Err() == nil {
				w.mu.Lock()
				w.moves.Unknown, w.moves.Why = w.moves.Unknown+1, err.Error()
				w.mu.Unlock()
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return w
}

// end ends the watch and returns what it saw.
func (w *moveWatch) end() moves {
	w.stop()
	w.ended.Wait()
	return w.moves
}

// began is the fact that so many replicas were seen on their way.
func (w *moveWatch) began(count int) stand.Fact {
	return func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		seen := 0
		for _, partitions := range w.moves.To {
			seen += len(partitions)
		}
		if seen < count {
			return fmt.Errorf("%d replicas were seen on their way; %d samples were not answered (%s)", seen, w.moves.Unknown, w.moves.Why)
		}
		return nil
	}
}

func (w *moveWatch) sample(ctx context.Context, admin *kadm.Client, topic string, alive map[int32]func() bool) error {
	var gone []int32 // looked at before replicas are: what a process holds that ended since is not held against it
	for id, is := range alive {
		if !is() {
			gone = append(gone, id)
		}
	}
	replicas, err := replicasOf(ctx, admin)
	if err != nil {
		return err
	}
	moving, err := reassignments(ctx, admin)
	if err != nil {
		return err
	}
	now := sample{At: time.Now()}
	if now.Bytes, err = bytesOn(ctx, admin, topic); err != nil {
		return err
	}
	throttles, err := throttlesOf(ctx, admin)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now.Moving = len(moving)
	for _, r := range moving {
		for _, to := range r.AddingReplicas {
			if w.moves.To[to] == nil {
				w.moves.To[to] = map[partition]bool{}
			}
			w.moves.To[to][partition{r.Topic, r.Partition}] = true
		}
	}
	for _, t := range throttles {
		w.moves.Throttled[t] = true
	}
	for p, on := range replicas {
		for _, id := range on {
			if slices.Contains(gone, id) {
				w.moves.Early = append(w.moves.Early, fmt.Sprintf("broker %d was stopped with a replica of %s-%d", id, p.Topic, p.ID))
			}
		}
	}
	w.moves.Samples = append(w.moves.Samples, now)
	return nil
}

// rateTo is how many bytes a second a broker got between the first and the last growth that was seen, and for how long.
func (m *moves) rateTo(broker int32) (perSecond float64, during time.Duration) {
	first, last := -1, -1
	for i := 1; i < len(m.Samples); i++ {
		if m.Samples[i].Bytes[broker] > m.Samples[i-1].Bytes[broker] {
			last = i
			if first < 0 {
				first = i
			}
		}
	}
	if first < 0 || last == first {
		return 0, 0
	}
	during = m.Samples[last].At.Sub(m.Samples[first].At)
	return float64(m.Samples[last].Bytes[broker]-m.Samples[first].Bytes[broker]) / during.Seconds(), during
}

// sustained is the most bytes a second that a broker got over any such time.
func (m *moves) sustained(broker int32, over time.Duration) float64 {
	most, first := 0.0, 0
	for last := range m.Samples {
		for first < last && m.Samples[last].At.Sub(m.Samples[first+1].At) >= over {
			first++
		}
		if took := m.Samples[last].At.Sub(m.Samples[first].At); took >= over {
			most = max(most, float64(m.Samples[last].Bytes[broker]-m.Samples[first].Bytes[broker])/took.Seconds())
		}
	}
	return most
}

// timeline says how many KiB brokers held, second by second, and how many partitions moved.
func (m *moves) timeline(brokers []int32) string {
	var out strings.Builder
	var last time.Time
	for i := range m.Samples {
		now := &m.Samples[i]
		if now.At.Sub(last) < time.Second {
			continue
		}
		last = now.At
		fmt.Fprintf(&out, "%s %d moving", now.At.Format("04:05.0"), now.Moving)
		for _, id := range brokers {
			fmt.Fprintf(&out, " %d:%d", id, now.Bytes[id]>>10)
		}
		out.WriteString("\n")
	}
	return out.String()
}

// registeredBrokers are those that Kafka's controllers know, fenced ones too.
func registeredBrokers(t *testing.T, s *stand.Stand) []int32 {
	t.Helper()
	seen, err := s.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ids []int32
	for _, b := range seen.Brokers {
		ids = append(ids, b.ID)
	}
	slices.Sort(ids)
	return ids
}
