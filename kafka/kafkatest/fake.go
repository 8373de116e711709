package kafkatest

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
)

// Config of a fake cluster.
type Config struct {
	// Brokers and Controllers are how many. Without brokers 3 are made, without controllers there are no controller
	// listeners. Brokers number from 0, controllers from FirstController: with 0 they are combined nodes.
	Brokers, Controllers int
	FirstController      int32
	// ClusterID that it has; empty means fake.
	ClusterID string
	// Topics to begin with, and the partitions of each (1 if 0).
	Topics     []string
	Partitions int32
	// DescribeCluster is its highest version; 0 means 2, which knows fenced brokers (Kafka 4.0). Kafka 3.9 has 1.
	DescribeCluster int16
	// UpdateFeatures is its highest version; 0 means 2, which tells one answer for all features (Kafka 4.0). Kafka
	// 3.9 has 1.
	UpdateFeatures int16
	// TLS of the brokers' listeners, and of the controllers'; nil means plaintext.
	TLS, ControllerTLS *tls.Config
	// Options for kfake's brokers, for example kfake.EnableACLs.
	Options []kfake.Opt
}

// Fake is a cluster of kfake brokers, and of more kfake brokers that act as controllers. What kfake lacks
// is added: DescribeQuorum, AddRaftVoter, RemoveRaftVoter, UnregisterBroker, DescribeCluster on controllers, fenced brokers.
type Fake struct {
	Brokers *kfake.Cluster
	// Controllers is nil without any.
	Controllers *kfake.Cluster

	clusterID       string
	firstController int32

	mu     sync.Mutex
	quorum plan.Quorum
	fenced []int32
	// allowed is what DescribeCluster says we may do, silent who never answers it until when.
	allowed int32
	// dynamic keys by node; -1 is the cluster-wide level.
	dynamic map[int32]map[string]string
	// features are the levels that were finalized since the start, supported what kfake says.
	features  map[string]int16
	supported map[string][2]int16
	checks    []bool
	silent    []int32
	until     <-chan struct{}
	// gone are unregistered brokers.
	gone []int32

	requests map[kmsg.Key]int
	scripts  map[kmsg.Key]*script

	describeClusterVersion, updateFeaturesVersion int16
}

// NewFake starts a fake cluster that ends with the test. Its quorum is the controllers, or without any the
// brokers, with the first as leader and directory ids of [DirectoryID].
func NewFake(tb testing.TB, config Config) *Fake {
	tb.Helper()
	if config.Brokers == 0 {
		config.Brokers = 3
	}
	if config.Partitions == 0 {
		config.Partitions = 1
	}
	if config.ClusterID == "" {
		config.ClusterID = "fake"
	}
	opts := append([]kfake.Opt{kfake.NumBrokers(config.Brokers), kfake.ClusterID(config.ClusterID)}, config.Options...)
	if len(config.Topics) > 0 {
		opts = append(opts, kfake.SeedTopics(config.Partitions, config.Topics...))
	}
	if config.DescribeCluster == 0 {
		config.DescribeCluster = 2
	}
	if config.TLS != nil {
		opts = append(opts, kfake.TLS(config.TLS))
	}
	f := &Fake{
		Brokers: start(tb, opts...), clusterID: config.ClusterID, firstController: config.FirstController,
		allowed: math.MinInt32, dynamic: map[int32]map[string]string{}, features: map[string]int16{}, supported: map[string][2]int16{}, requests: map[kmsg.Key]int{}, scripts: map[kmsg.Key]*script{},
		describeClusterVersion: config.DescribeCluster, updateFeaturesVersion: cmp.Or(config.UpdateFeatures, 2),
	}
	first, voters := int32(0), config.Brokers
	if config.Controllers > 0 {
		first, voters = config.FirstController, config.Controllers
		own := []kfake.Opt{kfake.NumBrokers(config.Controllers), kfake.ClusterID(config.ClusterID)}
		if config.ControllerTLS != nil {
			own = append(own, kfake.TLS(config.ControllerTLS))
		}
		f.Controllers = start(tb, own...)
	}
	f.quorum = plan.Quorum{Leader: first, LeaderEpoch: 1, HighWater: 100}
	for i := range int32(voters) { //nolint:gosec // a handful
		f.quorum.Voters = append(f.quorum.Voters, plan.Replica{ID: first + i, DirectoryID: DirectoryID(first + i), LogEnd: 100})
	}
	if config.Controllers > 0 {
		for i := range int32(config.Brokers) { //nolint:gosec // a handful
			f.quorum.Observers = append(f.quorum.Observers, plan.Replica{ID: i, DirectoryID: DirectoryID(i), LogEnd: 100})
		}
	}
	f.control(f.Brokers, false, config.TLS != nil)
	if f.Controllers != nil {
		f.control(f.Controllers, true, config.ControllerTLS != nil)
	}
	return f
}

func start(tb testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	tb.Helper()
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		tb.Fatalf("start a fake Kafka cluster: %v", err)
	}
	tb.Cleanup(c.Close)
	return c
}

// DirectoryID is the one that the fake's voter of that id has.
func DirectoryID(id int32) string {
	raw := [16]byte{0: 0xca, 15: byte(id)} //nolint:gosec // a handful
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// Target of the fake's listeners, without TLS.
func (f *Fake) Target() kafka.Target {
	t := kafka.Target{Brokers: f.Brokers.ListenAddrs()}
	if f.Controllers != nil {
		t.Controllers = f.Controllers.ListenAddrs()
	}
	return t
}

// Client is a connected client that ends with the test.
func (f *Fake) Client(tb testing.TB) *kafka.Client {
	tb.Helper()
	c, err := kafka.Dial(tb.Context(), kafka.ClientConfig{Brokers: f.Brokers.ListenAddrs()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

// Quorum as it now is.
func (f *Fake) Quorum() plan.Quorum {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.quorum
	q.Voters, q.Observers = slices.Clone(q.Voters), slices.Clone(q.Observers)
	return q
}

// SetQuorum replaces the quorum. Of the controllers only the leader answers for it.
func (f *Fake) SetQuorum(q plan.Quorum) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quorum = q
}

// Fence lists brokers as fenced from now on, instead of those fenced before.
func (f *Fake) Fence(ids ...int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fenced = ids
}

// Authorize makes DescribeCluster say that these operations on the cluster are allowed, as a bit field.
func (f *Fake) Authorize(operations int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allowed = operations
}

// Silence lets the brokers of those ids accept connections and answer no DescribeCluster until the channel closes.
func (f *Fake) Silence(until <-chan struct{}, ids ...int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silent, f.until = ids, until
}

// Requests of each kind that came so far, at brokers and controllers together.
func (f *Fake) Requests() map[kmsg.Key]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.requests)
}

func (f *Fake) count(r kmsg.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests[kmsg.Key(r.Key())]++
}

// waitOut keeps a silent node silent.
func (f *Fake) waitOut(c *kfake.Cluster) {
	f.mu.Lock()
	silent, until := slices.Contains(f.silent, c.CurrentNode()), f.until
	f.mu.Unlock()
	if silent {
		c.SleepControl(func() { <-until })
	}
}

// Answer makes resp the answer to every request of that key that comes to a broker or controller. Of the requests
// that kfake answers itself only Metadata and those that this package adds can be answered so.
func (f *Fake) Answer(key kmsg.Key, resp kmsg.Response) { f.script(key, resp, -1) }

// AnswerOnce makes it the answer to the next one.
func (f *Fake) AnswerOnce(key kmsg.Key, resp kmsg.Response) { f.script(key, resp, 1) }

func (f *Fake) script(key kmsg.Key, resp kmsg.Response, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.scripts[key] = &script{resp, times}
}

type script struct {
	answer kmsg.Response
	left   int
}

// scripted is the answer that a test has set, if any.
func (f *Fake) scripted(r kmsg.Request) kmsg.Response { //nolint:ireturn // what kfake takes
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.scripts[kmsg.Key(r.Key())]
	if s == nil || s.left == 0 {
		return nil
	}
	s.left--
	s.answer.SetVersion(r.GetVersion())
	return s.answer
}

// keep runs handle for every request of its key from now on. An answer of nil leaves the request to kfake.
func keep[R kmsg.Request](f *Fake, c *kfake.Cluster, key kmsg.Key, handle func(R) kmsg.Response) {
	c.ControlKey(key.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		r, ok := req.(R)
		if !ok {
			return nil, nil, false
		}
		answer := f.scripted(r)
		if answer == nil {
			answer = handle(r)
		}
		if answer != nil {
			f.count(r)
		}
		return answer, nil, answer != nil
	})
}

func (f *Fake) control(c *kfake.Cluster, controllers, encrypted bool) {
	f.advertise(c, encrypted)
	c.Control(func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		f.count(r)
		return nil, nil, false
	})
	node := func() int32 {
		if controllers {
			return f.firstController + c.CurrentNode()
		}
		return c.CurrentNode()
	}
	keep(f, c, kmsg.DescribeQuorum, func(r *kmsg.DescribeQuorumRequest) kmsg.Response {
		return f.describeQuorum(r, node(), controllers)
	})
	keep(f, c, kmsg.AddRaftVoter, func(r *kmsg.AddRaftVoterRequest) kmsg.Response {
		return f.addVoter(r, node(), controllers)
	})
	keep(f, c, kmsg.RemoveRaftVoter, func(r *kmsg.RemoveRaftVoterRequest) kmsg.Response {
		return f.removeVoter(r, node(), controllers)
	})
	keep(f, c, kmsg.UnregisterBroker, f.unregister)
	keep(f, c, kmsg.IncrementalAlterConfigs, func(r *kmsg.IncrementalAlterConfigsRequest) kmsg.Response {
		return f.alterConfigs(r, node(), controllers)
	})
	keep(f, c, kmsg.UpdateFeatures, func(r *kmsg.UpdateFeaturesRequest) kmsg.Response {
		return f.updateFeatures(r, node(), controllers)
	})
	keep(f, c, kmsg.DescribeConfigs, func(r *kmsg.DescribeConfigsRequest) kmsg.Response {
		return f.describeConfigs(r, node())
	})
	keep(f, c, kmsg.Metadata, func(*kmsg.MetadataRequest) kmsg.Response { return nil })
	addrs := c.ListenAddrs()
	keep(f, c, kmsg.DescribeCluster, func(r *kmsg.DescribeClusterRequest) kmsg.Response {
		f.waitOut(c)
		return f.describeCluster(r, addrs, controllers)
	})
}

// advertise adds to kfake's ApiVersions what this package answers.
func (f *Fake) advertise(c *kfake.Cluster, encrypted bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	opts := []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}
	if encrypted {
		opts = append(opts, kgo.DialTLSConfig(&tls.Config{InsecureSkipVerify: true})) //nolint:gosec // our own fake
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		panic(err) // impossible: the addresses are kfake's own
	}
	defer client.Close()
	asked := kmsg.NewPtrApiVersionsRequest()
	own, err := asked.RequestWith(ctx, client)
	if err != nil {
		panic(err)
	}
	for key, highest := range map[kmsg.Key]int16{kmsg.DescribeQuorum: 2, kmsg.AddRaftVoter: 1, kmsg.RemoveRaftVoter: 0, kmsg.UnregisterBroker: 0} {
		one := kmsg.NewApiVersionsResponseApiKey()
		one.ApiKey, one.MaxVersion = key.Int16(), highest
		own.ApiKeys = append(own.ApiKeys, one)
	}
	highest := map[int16]int16{kmsg.DescribeCluster.Int16(): f.describeClusterVersion, kmsg.UpdateFeatures.Int16(): f.updateFeaturesVersion}
	for i := range own.ApiKeys {
		if version, ok := highest[own.ApiKeys[i].ApiKey]; ok {
			own.ApiKeys[i].MaxVersion = version
		}
	}
	f.support(own)
	keep(f, c, kmsg.ApiVersions, func(r *kmsg.ApiVersionsRequest) kmsg.Response {
		if r.Version > own.Version {
			return nil
		}
		answer := *own
		answer.Version = r.Version
		answer.FinalizedFeatures = f.finalizedFeatures()
		return &answer
	})
}

func (f *Fake) describeQuorum(r *kmsg.DescribeQuorumRequest, node int32, controllers bool) kmsg.Response { //nolint:ireturn // what kfake takes
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := kmsg.NewPtrDescribeQuorumResponse()
	resp.Version = r.Version
	if controllers && node != f.quorum.Leader {
		resp.ErrorCode = kerr.NotLeaderForPartition.Code
		return resp
	}
	p := kmsg.NewDescribeQuorumResponseTopicPartition()
	p.LeaderID, p.LeaderEpoch, p.HighWatermark = f.quorum.Leader, f.quorum.LeaderEpoch, f.quorum.HighWater
	p.CurrentVoters, p.Observers = states(f.quorum.Voters), states(f.quorum.Observers)
	t := kmsg.NewDescribeQuorumResponseTopic()
	t.Topic = "__cluster_metadata"
	t.Partitions = append(t.Partitions, p)
	resp.Topics = append(resp.Topics, t)
	return resp
}

func states(replicas []plan.Replica) []kmsg.DescribeQuorumResponseTopicPartitionReplicaState {
	const leaderClock = 1_700_000_000_000
	var out []kmsg.DescribeQuorumResponseTopicPartitionReplicaState
	for _, r := range replicas {
		s := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		s.ReplicaID, s.LogEndOffset = r.ID, r.LogEnd
		if raw, err := base64.RawURLEncoding.DecodeString(r.DirectoryID); err == nil {
			copy(s.ReplicaDirectoryID[:], raw)
		}
		s.LastCaughtUpTimestamp = -1
		if r.LastCaughtUp >= 0 {
			s.LastCaughtUpTimestamp = leaderClock - r.LastCaughtUp.Milliseconds()
		}
		out = append(out, s)
	}
	return out
}

func (f *Fake) addVoter(r *kmsg.AddRaftVoterRequest, node int32, controllers bool) kmsg.Response { //nolint:ireturn // what kfake takes
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := kmsg.NewPtrAddRaftVoterResponse()
	resp.Version = r.Version
	switch {
	case controllers && node != f.quorum.Leader:
		resp.ErrorCode = kerr.NotLeaderForPartition.Code
	case r.ClusterID != nil && *r.ClusterID != f.clusterID:
		resp.ErrorCode = kerr.InconsistentClusterID.Code
	case f.voter(r.VoterID) >= 0:
		resp.ErrorCode = kerr.DuplicateVoter.Code
	default:
		f.quorum.Voters = append(f.quorum.Voters, plan.Replica{
			ID: r.VoterID, DirectoryID: base64.RawURLEncoding.EncodeToString(r.VoterDirectoryID[:]), LogEnd: f.quorum.HighWater,
		})
	}
	return resp
}

func (f *Fake) removeVoter(r *kmsg.RemoveRaftVoterRequest, node int32, controllers bool) kmsg.Response { //nolint:ireturn // what kfake takes
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := kmsg.NewPtrRemoveRaftVoterResponse()
	resp.Version = r.Version
	i := f.voter(r.VoterID)
	switch {
	case controllers && node != f.quorum.Leader:
		resp.ErrorCode = kerr.NotLeaderForPartition.Code
	case r.ClusterID != nil && *r.ClusterID != f.clusterID:
		resp.ErrorCode = kerr.InconsistentClusterID.Code
	case i < 0 || f.quorum.Voters[i].DirectoryID != base64.RawURLEncoding.EncodeToString(r.VoterDirectoryID[:]):
		resp.ErrorCode = kerr.VoterNotFound.Code
	default:
		f.quorum.Voters = slices.Delete(f.quorum.Voters, i, i+1)
	}
	return resp
}

func (f *Fake) voter(id int32) int {
	return slices.IndexFunc(f.quorum.Voters, func(v plan.Replica) bool { return v.ID == id })
}
