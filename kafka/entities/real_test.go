package entities_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/entities"
	"castellan.dev/castellan/packages/packagestest" //nolint:depguard // only to get a real Kafka
)

const realVersion = "4.3.1"

// realKafka is one node that denies by default: on one listener we are the super user, on the
// other clients log in by SCRAM-SHA-512.
type realKafka struct {
	ended   <-chan struct{}
	cluster *kafka.Cluster
	clients string
}

func addresses(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // only its port was wanted
		out = append(out, l.Addr().String())
	}
	return out
}

func startReal(t *testing.T) realKafka {
	t.Helper()
	libs := filepath.Join(packagestest.RealKafka(t, realVersion).Libs(), "*")
	dir, at := t.TempDir(), addresses(t, 3)
	file := filepath.Join(dir, "server.properties")
	if err := os.WriteFile(file, fmt.Appendf(nil, `process.roles=broker,controller
node.id=1
listeners=INTERNAL://%s,CLIENTS://%s,CONTROLLER://%s
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listener.security.protocol.map=CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT,CLIENTS:SASL_PLAINTEXT
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.clients.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
controller.quorum.bootstrap.servers=%[3]s
log.dirs=%[4]s
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
num.network.threads=2
num.io.threads=4
`, at[0], at[1], at[2], filepath.Join(dir, "data")), 0o600); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(java(t, "-cp", libs, "kafka.tools.StorageTool", "random-uuid"))
	java(t, "-cp", libs, "kafka.tools.StorageTool", "format", "-t", id, "-c", file, "--standalone")
	logFile, err := os.Create(filepath.Join(dir, "kafka.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nice", "java", "-Xmx384m", "-cp", libs, "kafka.Kafka", file)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if text, err := os.ReadFile(logFile.Name()); err == nil && t.Failed() {
			t.Logf("the end of Kafka's log:\n%s", text[max(0, len(text)-8000):])
		}
	})
	all := kafka.NewClients(kafka.Options{Timeout: 10 * time.Second})
	t.Cleanup(all.Close)
	k := realKafka{ended, all.Cluster("default/real", kafka.Target{ClusterID: id, Brokers: at[:1], Controllers: at[2:]}), at[1]}
	k.until(t, "it answers", func(s *core.Snapshot) bool { return s.Brokers == 1 })
	return k
}

func java(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nice", append([]string{"java", "-Xmx256m", "-XX:TieredStopAtLevel=1"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("java %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// until reads everything until it is as wanted.
func (k realKafka) until(t *testing.T, what string, wanted func(*core.Snapshot) bool) *core.Snapshot {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := entities.Read(ctx, k.cluster, entities.Ask{})
		if err == nil && wanted(s) {
			return s
		}
		select {
		case <-tick.C:
		case <-k.ended:
			t.Fatal("Kafka ended")
		case <-ctx.Done():
			t.Fatalf("waited for: %s; last read %+v, %v", what, s, err)
		}
	}
}

// write says how Kafka answers a user who logs in and writes to a topic.
func (k realKafka) write(t *testing.T, user, password, topic string) error {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.clients), kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha512Mechanism()),
		kgo.RecordRetries(0), kgo.RequestRetries(0), kgo.UnknownTopicRetries(0), kgo.RecordDeliveryTimeout(30*time.Second), kgo.DisableIdempotentWrite())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr()
}

func (k realKafka) writes(t *testing.T, what, user, password, topic string, want error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute) // a broker takes up a change a moment after the controller
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := k.write(t, user, password, topic)
		if errors.Is(err, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: %v, want %v", what, err, want)
			return
		}
		<-tick.C
	}
}

// drive is what a reconciler does: holds, changes, settle, until nothing is left to do.
func (k realKafka) drive(t *testing.T, w *core.World, topics []*api.KafkaTopic, users []core.DesiredUser) core.Plan {
	t.Helper()
	for range 10 {
		w.BeginRead()
		s, err := entities.Read(t.Context(), k.cluster, entities.Ask{Keys: w.Keys})
		if err != nil {
			t.Fatal(err)
		}
		w.SetSnapshot(s)
		p := w.All(time.Now())
		for _, v := range p.Verdicts {
			hold(w, v, topics, users)
		}
		if len(p.Changes) == 0 {
			return p
		}
		w.Settle(p.Changes, entities.Apply(t.Context(), k.cluster, p.Changes, passwords), time.Now())
	}
	t.Fatal("there is always more to do")
	return core.Plan{}
}

func hold(w *core.World, v core.Verdict, topics []*api.KafkaTopic, users []core.DesiredUser) {
	if !v.Write {
		return
	}
	for _, o := range topics {
		if v.Ref.Kind == core.KindTopic && o.Name == v.Ref.Name {
			o.Annotations = map[string]string{api.HoldAnnotation: v.Hold}
			w.PutTopic(core.DesiredTopic{Object: o, Allowed: true})
		}
	}
	for _, d := range users {
		if v.Ref.Kind == core.KindUser && d.Object.Name == v.Ref.Name {
			d.Object.Annotations = map[string]string{api.HoldAnnotation: v.Hold}
			w.PutUser(d)
		}
	}
}

func objectMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "team", Name: name, UID: types.UID("uid-" + name), Generation: 1}
}

func TestRealKafka(t *testing.T) {
	k := startReal(t)
	t.Run("topics", func(t *testing.T) { realTopics(t, k) })
	t.Run("users", func(t *testing.T) { realUsers(t, k) })
	t.Run("each its own result", func(t *testing.T) { realResults(t, k) })
	t.Run("every word", func(t *testing.T) { realWords(t, k) })
	t.Run("many", func(t *testing.T) { realMany(t, k) })
}

func realTopics(t *testing.T, k realKafka) {
	t.Helper()
	two := int32(2)
	o := &api.KafkaTopic{ObjectMeta: objectMeta("orders"), Spec: api.KafkaTopicSpec{Partitions: &two, Config: api.Config{"retention.ms": " 60000", "cleanup.policy": "compact, delete", "min.cleanable.dirty.ratio": "0.50"}}}
	bad := &api.KafkaTopic{ObjectMeta: objectMeta("bad"), Spec: api.KafkaTopicSpec{Config: api.Config{"retention.msec": "1"}}}
	w := core.New(core.Policy{})
	topics := []*api.KafkaTopic{o, bad}
	for _, one := range topics {
		w.PutTopic(core.DesiredTopic{Object: one, Allowed: true})
	}
	p := k.drive(t, w, topics, nil)
	for _, v := range p.Verdicts {
		if v.Ref.Name == "bad" && (v.Reason != "RefusedByKafka" || !strings.Contains(v.Message, "retention.msec")) || v.Ref.Name == "orders" && v.State != core.InForce {
			t.Errorf("%+v", v)
		}
	}
	// What somebody else sets is left alone; what is ours is put back; what we let go of is unset.
	somebody := []core.Action{core.AlterConfig{Topic: "orders", Set: map[string]string{"leader.replication.throttled.replicas": "0:1", "segment.ms": "70000", "retention.ms": "1"}}}
	wantOutcomes(t, apply(t, k.cluster, of(owner(core.KindTopic, "x"), somebody...)...), core.Done)
	delete(o.Spec.Config, "cleanup.policy")
	five := int32(5)
	o.Generation, o.Spec.Partitions = 2, &five
	w.PutTopic(core.DesiredTopic{Object: o, Allowed: true})
	k.until(t, "the drift", func(s *core.Snapshot) bool { return s.Topics["orders"].Config["retention.ms"] == "1" })
	k.drive(t, w, topics, nil)
	s := k.until(t, "five partitions", func(s *core.Snapshot) bool { return s.Topics["orders"].Partitions == 5 })
	want := map[string]string{"leader.replication.throttled.replicas": "0:1", "segment.ms": "70000", "retention.ms": "60000", "min.cleanable.dirty.ratio": "0.5"}
	if diff := cmp.Diff(want, s.Topics["orders"].Config); diff != "" {
		t.Error(diff)
	}
	now := metav1.Now()
	o.DeletionTimestamp, o.Spec.DeletionPolicy = &now, api.DeletionDelete
	w.PutTopic(core.DesiredTopic{Object: o, Allowed: true})
	k.drive(t, w, topics, nil)
	k.until(t, "no topic", func(s *core.Snapshot) bool { return s.Topics["orders"] == nil })
}

func realUsers(t *testing.T, k realKafka) {
	t.Helper()
	const odd = `a=,+ "\b`
	wantOutcomes(t, apply(t, k.cluster, of(owner(core.KindTopic, "x"), core.CreateTopic{Name: "orders-1", Partitions: 1, Replicas: 1}, core.CreateTopic{Name: "other", Partitions: 1, Replicas: 1})...), core.Done, core.Done)
	o := &api.KafkaUser{ObjectMeta: objectMeta("odd"), Spec: api.KafkaUserSpec{
		Principal: odd, Authentication: api.UserAuthentication{Type: api.UserScramSha512},
		Presets: &api.ACLPresets{Producer: []api.ProducerPreset{{Topic: api.ACLPattern{Name: "orders-", PatternType: api.ACLPrefixed}}}},
	}}
	user := core.DesiredUser{Object: o, Allowed: true, Credential: core.Credential{Secret: core.SecretRef{Namespace: "team", Name: "pw", Key: "password", Digest: "one"}}}
	w := core.New(core.Policy{Reserved: []string{"ANONYMOUS"}})
	put := func() core.Plan {
		w.PutUser(user)
		return k.drive(t, w, nil, []core.DesiredUser{user})
	}
	if p := put(); !p.Verdicts[0].Verified {
		t.Errorf("%+v", p.Verdicts)
	}
	k.writes(t, "the first password", odd, "password of one", "orders-1", nil)
	k.writes(t, "another topic", odd, "password of one", "other", kerr.TopicAuthorizationFailed)
	user.Credential.Secret.Digest = "two"
	put()
	k.writes(t, "the second password", odd, "password of two", "orders-1", nil)
	k.writes(t, "the first password again", odd, "password of one", "orders-1", kerr.SaslAuthenticationFailed)
	o.Spec.Presets = nil
	o.Generation = 2
	put()
	k.writes(t, "the grant that was taken back", odd, "password of two", "orders-1", kerr.TopicAuthorizationFailed)
	now := metav1.Now()
	o.DeletionTimestamp = &now
	if p := put(); !p.Verdicts[0].Release {
		t.Errorf("%+v", p.Verdicts)
	}
	k.writes(t, "the user that was removed", odd, "password of two", "orders-1", kerr.SaslAuthenticationFailed)
	if s := k.until(t, "no principal", func(s *core.Snapshot) bool { return len(s.Principals) == 0 }); len(s.Quotas) != 0 {
		t.Errorf("%+v", s.Quotas)
	}
}

func realResults(t *testing.T, k realKafka) {
	t.Helper()
	x := owner(core.KindTopic, "x")
	results := apply(t, k.cluster, of(x,
		core.CreateTopic{Name: "orders-1", Partitions: 1, Replicas: 1},
		core.CreateTopic{Name: "wide", Partitions: 1, Replicas: 3},
		core.CreateTopic{Name: "defaults", Partitions: -1, Replicas: -1},
		core.AddPartitions{Topic: "orders-1", From: 1, To: 1},
		core.AlterConfig{Topic: "other", Set: map[string]string{"retention.ms": "soon"}},
		core.AlterConfig{Topic: "nowhere", Delete: []string{"retention.ms"}},
		core.DeleteTopic{Name: "nowhere"},
		core.DeleteCredential{Principal: "nobody", Mechanism: core.ScramSha512},
		core.DropGrants{Principal: "nobody"},
		core.DeleteGrant{Principal: "nobody", Grant: grant(api.ACLAllow, "x", api.ACLRead)},
		core.AlterQuota{Entity: core.QuotaEntity{Address: core.Named("not an address")}, To: core.Limits{ConnectionCreationRate: 1}},
	)...)
	want := "Denied TOPIC_ALREADY_EXISTS\nDenied INVALID_REPLICATION_FACTOR\nDone\nDenied INVALID_PARTITIONS\nDenied INVALID_CONFIG\nDenied UNKNOWN_TOPIC_OR_PARTITION\nDone\nDone\nDone\nDone\nDenied INVALID_REQUEST\n"
	if diff := cmp.Diff(want, outcomes(results)); diff != "" {
		t.Errorf("%s\n%+v", diff, results)
	}
	if results[2].Created.Partitions != 1 || results[2].Created.Replicas != 1 {
		t.Errorf("%+v", results[2])
	}
}

// realWords: every resource type, operation, pattern and effect, and every kind of quota, comes back as it was given.
func realWords(t *testing.T, k realKafka) {
	t.Helper()
	var grants []core.Grant
	for _, one := range []struct {
		of   api.ACLResourceType
		name string
		ops  []api.ACLOperation
	}{
		{api.ACLTopic, "t", []api.ACLOperation{api.ACLAll, api.ACLRead, api.ACLWrite, api.ACLCreate, api.ACLDescribe, api.ACLDelete, api.ACLAlter, api.ACLDescribeConfigs, api.ACLAlterConfigs}},
		{api.ACLGroup, "*", []api.ACLOperation{api.ACLRead}},
		{api.ACLTransactionalID, "x", []api.ACLOperation{api.ACLWrite, api.ACLTwoPhaseCommit}},
		{api.ACLCluster, "kafka-cluster", []api.ACLOperation{api.ACLClusterAction, api.ACLIdempotentWrite}},
		{api.ACLDelegationToken, "d", []api.ACLOperation{api.ACLDescribe}},
		{api.ACLUser, "u", []api.ACLOperation{api.ACLCreateTokens, api.ACLDescribeTokens}},
	} {
		for _, op := range one.ops {
			grants = append(grants, core.Grant{Type: one.of, Name: one.name, Pattern: api.ACLLiteral, Operation: op, Effect: api.ACLDeny, Host: "10.1.2.3"})
		}
	}
	quotas := map[core.QuotaEntity]core.Limits{
		{User: core.Named("words")}:                            {ProducerByteRate: 1, ConsumerByteRate: 2, RequestPercentage: 2.5, ControllerMutationRate: 0.5},
		{User: core.Named("words"), ClientID: core.Named("c")}: {ProducerByteRate: 5},
		{User: core.Named("words"), ClientID: core.Every}:      {ProducerByteRate: 6},
		{User: core.Every}:                                     {ProducerByteRate: 7},
		{ClientID: core.Named("c")}:                            {ProducerByteRate: 8},
		{ClientID: core.Every}:                                 {ProducerByteRate: 9},
		{Address: core.Named("127.0.0.9")}:                     {ConnectionCreationRate: 10},
		{Address: core.Every}:                                  {ConnectionCreationRate: 1000},
	}
	var actions []core.Action
	for _, g := range grants {
		actions = append(actions, core.CreateGrant{Principal: "words", Grant: g})
	}
	for e, l := range quotas {
		actions = append(actions, core.AlterQuota{Entity: e, To: l})
	}
	for _, r := range apply(t, k.cluster, of(owner(core.KindUser, "words"), actions...)...) {
		if r.Outcome != core.Done {
			t.Errorf("%+v", r)
		}
	}
	s := k.until(t, "all words", func(s *core.Snapshot) bool {
		return s.Principals["words"] != nil && len(s.Principals["words"].Grants) == len(grants)
	})
	sorted := cmpopts.SortSlices(func(a, b core.Grant) bool { return a.String() < b.String() })
	if diff := cmp.Diff(grants, s.Principals["words"].Grants, sorted); diff != "" {
		t.Error(diff)
	}
	got := s.Quotas
	for id, l := range s.Principals["words"].Quotas {
		got[core.QuotaEntity{User: core.Named("words"), ClientID: id}] = l
	}
	if diff := cmp.Diff(quotas, got); diff != "" {
		t.Error(diff)
	}
	again, err := entities.ReadPrincipals(t.Context(), k.cluster, []string{"words", "nobody"})
	if err != nil || len(again) != 1 || len(again["words"].Grants) != len(grants) || len(again["words"].Quotas) != 3 {
		t.Errorf("%v %+v", err, again)
	}
}

// realMany: full batches are taken, and end within their time.
func realMany(t *testing.T, k realKafka) {
	t.Helper()
	const n = 600
	changes := slices.Concat(
		many(n, func(i int) core.Change {
			return core.Change{Owner: owner(core.KindTopic, name("m", i)), Do: core.CreateTopic{Name: name("m", i), Partitions: 1, Replicas: 1, Config: map[string]string{"retention.ms": "60000"}}}
		}),
		many(3*n, func(i int) core.Change {
			return core.Change{Owner: owner(core.KindUser, name("m", i/3)), Do: core.CreateGrant{Principal: name("m", i/3), Grant: grant(api.ACLAllow, name("m", i), api.ACLRead)}}
		}),
		many(n, func(i int) core.Change {
			return core.Change{Owner: owner(core.KindUser, name("m", i)), Do: core.UpsertCredential{Principal: name("m", i), Iterations: 4097, Secret: core.SecretRef{Name: "pw"}}}
		}))
	begin := time.Now()
	for _, r := range apply(t, k.cluster, changes...) {
		if r.Outcome != core.Done {
			t.Fatalf("%+v", r)
		}
	}
	took := time.Since(begin)
	begin = time.Now()
	k.until(t, "all of them", func(s *core.Snapshot) bool { return len(s.Topics) >= n && len(s.Principals) >= n })
	t.Logf("%d topics, %d ACLs and %d passwords in %s, read with every key in %s", n, 3*n, n, took, time.Since(begin))
	var drop []core.Change
	for i := range n {
		drop = append(drop, core.Change{Owner: owner(core.KindTopic, name("m", i)), Do: core.DeleteTopic{Name: name("m", i)}})
		drop = append(drop, of(owner(core.KindUser, name("m", i)), core.DropGrants{Principal: name("m", i)}, core.DeleteCredential{Principal: name("m", i), Mechanism: core.ScramSha512})...)
	}
	for _, r := range apply(t, k.cluster, drop...) {
		if r.Outcome != core.Done {
			t.Fatalf("%+v", r)
		}
	}
	k.until(t, "none of them", func(s *core.Snapshot) bool { return s.Topics[name("m", 0)] == nil && len(s.Principals) < n })
}
