package entities_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/entities"
)

func TestTopics(t *testing.T) {
	cases := []struct {
		reason string
		have   *entities.Snapshot
		topics []entities.DesiredTopic
		want   []string
	}{
		{
			reason: "one that is not there is created, and held before",
			have:   snapshot(),
			topics: allowed(topic(meta("a"), partitions(3), replicas(2), config("retention.ms", "5"))),
			want: []string{
				"a: entities.CreateTopic {Name:a Partitions:3 Replicas:2 Config:map[retention.ms:5]}",
				`a is Working Applying, write "uid-a config=retention.ms"`,
			},
		},
		{
			reason: "defaults are the cluster's, not ours",
			have:   snapshot(),
			topics: allowed(topic(meta("a"), named("A_b.c"))),
			want: []string{
				"a: entities.CreateTopic {Name:A_b.c Partitions:-1 Replicas:-1 Config:map[]}",
				`a is Working Applying, write "uid-a"`,
			},
		},
		{
			reason: "one that is as it is wanted is left alone, however Kafka writes its values",
			have:   snapshot(has("a", 3, 2, "retention.ms", "5", "cleanup.policy", "compact,delete", "min.cleanable.dirty.ratio", "0.5", "preallocate", "true")),
			topics: allowed(topic(meta("a", held(" config=cleanup.policy,min.cleanable.dirty.ratio,preallocate,retention.ms")), partitions(3), replicas(2),
				config("retention.ms", " 5", "cleanup.policy", "compact, delete", "min.cleanable.dirty.ratio", "0.50", "preallocate", "TRUE"))),
			want: []string{"a is InForce InForce"},
		},
		{
			reason: "partitions are added, keys set and unset, and what it never set is left alone",
			have:   snapshot(has("a", 3, 1, "retention.ms", "5", "segment.ms", "9", "leader.replication.throttled.replicas", "0:1", "max.message.bytes", "7")),
			topics: allowed(topic(meta("a", held(" config=retention.ms,segment.ms")), partitions(6), config("retention.ms", "6"))),
			want: []string{
				"a: entities.AddPartitions {Topic:a From:3 To:6}",
				"a: entities.AlterConfig {Topic:a Set:map[retention.ms:6] Delete:[segment.ms]}",
				"a is Working Applying",
			},
		},
		{
			reason: "a key that is gone in Kafka is no longer held",
			have:   snapshot(has("a", 3, 1)),
			topics: allowed(topic(meta("a", held(" config=segment.ms")))),
			want:   []string{`a is InForce InForce, write "uid-a"`},
		},
		{
			reason: "a key that was not looked at is unset, and held until that is known",
			have: snapshot(has("a", 3, 1), func(s *entities.Snapshot) {
				s.Topics["a"].AskedAll = false
			}),
			topics: allowed(topic(meta("a", held(" config=segment.ms")))),
			want: []string{
				"a: entities.AlterConfig {Topic:a Set:map[] Delete:[segment.ms]}",
				"a is Working Applying",
			},
		},
		{
			reason: "the balancer's throttles are not unset even where a hold names them",
			have:   snapshot(has("a", 3, 1, "leader.replication.throttled.replicas", "0:1")),
			topics: allowed(topic(meta("a", held(" config=leader.replication.throttled.replicas")))),
			want:   []string{`a is InForce InForce, write "uid-a"`},
		},
		{
			reason: "the hold of another object, copied with it, is none",
			have:   snapshot(has("a", 3, 1)),
			topics: allowed(topic(meta("a", func(m *metav1.ObjectMeta) { m.Annotations = map[string]string{api.HoldAnnotation: "uid-other"} }))),
			want:   []string{"a is Refused TopicExists"},
		},
		{
			reason: "adoption takes a topic as it is, and its foreign keys stay",
			have:   snapshot(has("a", 3, 1, "segment.ms", "9")),
			topics: allowed(topic(meta("a"), adoptTopic, partitions(3), config("retention.ms", "5"))),
			want: []string{
				"a: entities.AlterConfig {Topic:a Set:map[retention.ms:5] Delete:[]}",
				`a is Working Applying, write "uid-a config=retention.ms"`,
			},
		},
		{
			reason: "replicas are the balancer's work; the rest is done at once",
			have:   snapshot(has("a", 3, 1)),
			topics: allowed(topic(meta("a", held("")), replicas(3), partitions(4))),
			want:   []string{"a: entities.AddPartitions {Topic:a From:3 To:4}", "a is Working ChangingReplicas", "a gets 3 replicas"},
		},
		{
			reason: "more replicas than brokers are refused, but only where that would be a change",
			have:   snapshot(has("a", 3, 1), has("b", 3, 5)),
			topics: allowed(topic(meta("a", held("")), replicas(4)), topic(meta("b", held("")), replicas(5)), topic(meta("c"), replicas(4))),
			want:   []string{"a is Refused TooFewBrokers", "b is InForce InForce", "c is Refused TooFewBrokers"},
		},
		{
			reason: "with fewer partitions nothing of the spec is changed",
			have:   snapshot(has("a", 3, 1)),
			topics: allowed(topic(meta("a", held("")), partitions(2), config("retention.ms", "5"))),
			want:   []string{"a is Refused FewerPartitions"},
		},
		{
			reason: "of two the oldest wins, and both say so",
			have:   snapshot(has("t", 1, 1)),
			topics: allowed(topic(meta("x", younger), named("t")), topic(meta("y", held("")), named("t"))),
			want:   []string{"x is Refused Conflict", "y is InForce InForce"},
		},
		{
			reason: "who holds it is not put out by an older one that came to be allowed later",
			have:   snapshot(has("t", 1, 1)),
			topics: allowed(topic(meta("x", younger, held("")), named("t")), topic(meta("y"), named("t"))),
			want:   []string{"y is Refused Conflict", "x is InForce InForce"},
		},
		{
			reason: "a namespace that is not allowed changes nothing, and is in nobody's way",
			have:   snapshot(),
			topics: append(allowed(topic(meta("x", younger), named("t"))), entities.DesiredTopic{Object: topic(meta("y"), named("t"))}),
			want: []string{
				"x: entities.CreateTopic {Name:t Partitions:-1 Replicas:-1 Config:map[]}",
				"y is Refused NamespaceNotAllowed", `x is Working Applying, write "uid-x"`,
			},
		},
		{
			reason: "deletion retains by default",
			have:   snapshot(has("a", 3, 1)),
			topics: allowed(topic(meta("a", held(""), leaving))),
			want:   []string{"a is Working Released, release"},
		},
		{
			reason: "deletion with Delete deletes that very topic",
			have:   snapshot(has("a", 3, 1)),
			topics: allowed(topic(meta("a", held(""), leaving), deleteTopic)),
			want:   []string{"a: entities.DeleteTopic {Name:a ID:id-a}", "a is Working Applying"},
		},
		{
			reason: "what is held is deleted even where the snapshot lacks it: it may have been made since",
			have:   snapshot(),
			topics: allowed(topic(meta("a", held(""), leaving), deleteTopic)),
			want:   []string{"a: entities.DeleteTopic {Name:a ID:}", "a is Working Applying"},
		},
		{
			reason: "what is not held is never deleted",
			have:   snapshot(has("a", 3, 1)),
			topics: allowed(topic(meta("a", leaving), deleteTopic)),
			want:   []string{"a is Working Released, release"},
		},
		{
			reason: "Kafka's own topics are nobody's",
			have:   snapshot(has("__consumer_offsets", 50, 1)),
			topics: allowed(topic(meta("a", held("")), named("__consumer_offsets"), adoptTopic)),
			want:   []string{"a is Refused ReservedTopic"},
		},
		{
			reason: "paused says what would be done and does nothing",
			have:   snapshot(has("a", 3, 1, "retention.ms", "1")),
			topics: allowed(topic(meta("a", held(" config=retention.ms")), pauseTopic, config("retention.ms", "5"))),
			want:   []string{"a is Refused Paused"},
		},
		{
			reason: "before Kafka was read nothing is known",
			topics: allowed(topic(meta("a"))),
			want:   []string{"a is Unknown KafkaNotRead"},
		},
	}
	for _, c := range cases {
		t.Run(c.reason, func(t *testing.T) {
			got := words(world(t, entities.Policy{}, c.have, c.topics, nil).All(noon))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTopicThatSomebodyElseMadeMeanwhile(t *testing.T) {
	o := topic(meta("a", held("")), deleteTopic)
	w := world(t, entities.Policy{}, snapshot(), allowed(o), nil)
	p := w.Topic("a", noon)
	w.Settle(p.Changes, []entities.Result{{Outcome: entities.Denied, Code: entities.CodeTopicExists}}, noon)
	if !w.ReadAgain() {
		t.Error("it is not read again")
	}
	p = w.Topic("a", noon)
	if diff := cmp.Diff([]string{`a is Refused TopicExists, write ""`}, words(p)); diff != "" {
		t.Error(diff)
	}
	w.SetSnapshot(snapshot(has("a", 1, 1)))
	gone := o.DeepCopy()
	leaving(&gone.ObjectMeta)
	w.PutTopic(allowed(gone)[0])
	if diff := cmp.Diff([]string{"a is Working Released, release"}, words(w.Topic("a", noon))); diff != "" {
		t.Errorf("a topic of somebody else is in danger: %s", diff)
	}
}

// A create that nobody answered may have made the topic: then it is the object's own.
func TestTopicThatWasMadeWithoutAnAnswer(t *testing.T) {
	w := world(t, entities.Policy{}, snapshot(), allowed(topic(meta("a", held("")), partitions(2))), nil)
	p := w.Topic("a", noon)
	w.Settle(p.Changes, []entities.Result{{Outcome: entities.Unanswered, Reason: "timeout"}}, noon)
	p = w.Topic("a", noon)
	if len(p.Changes) != 0 || p.Again.IsZero() || p.Verdicts[0].Reason != "KafkaDidNotAnswer" {
		t.Errorf("%+v", p)
	}
	p = w.Topic("a", p.Again)
	w.Settle(p.Changes, []entities.Result{{Outcome: entities.Denied, Code: entities.CodeTopicExists}}, noon)
	if diff := cmp.Diff([]string{"a is Working Reading"}, words(w.Topic("a", noon))); diff != "" {
		t.Error(diff)
	}
	w.SetSnapshot(snapshot(has("a", 2, 1)))
	if diff := cmp.Diff([]string{"a is InForce InForce"}, words(w.Topic("a", noon))); diff != "" {
		t.Error(diff)
	}
}

func TestDeletedTopicIsReleasedOnlyWhenKafkaSaidSo(t *testing.T) {
	w := world(t, entities.Policy{}, snapshot(has("a", 1, 1)), allowed(topic(meta("a", held(""), leaving), deleteTopic)), nil)
	p := w.Topic("a", noon)
	w.Settle(p.Changes, []entities.Result{{Outcome: entities.Denied, Code: "TOPIC_DELETION_DISABLED", Reason: "Topic deletion is disabled."}}, noon)
	p = w.Topic("a", noon)
	if diff := cmp.Diff([]string{"a is Refused RefusedByKafka"}, words(p)); diff != "" {
		t.Error(diff)
	}
	p = w.Topic("a", p.Again)
	w.Settle(p.Changes, done(p.Changes), noon)
	if diff := cmp.Diff([]string{"a is Working Released, release"}, words(w.Topic("a", noon))); diff != "" {
		t.Error(diff)
	}
}

// What Kafka refused waits its time, and is tried at once when the object changes.
func TestRefusedChangeWaits(t *testing.T) {
	o := topic(meta("a", held(" config=retention.ms")), config("retention.ms", "x"))
	w := world(t, entities.Policy{}, snapshot(has("a", 1, 1)), allowed(o), nil)
	now := noon
	var waits []string
	for range 7 {
		p := w.Topic("a", now)
		if len(p.Changes) != 1 {
			t.Fatalf("%+v", p)
		}
		w.Settle(p.Changes, []entities.Result{{Outcome: entities.Denied, Code: "INVALID_CONFIG", Reason: "Invalid value x"}}, now)
		p = w.Topic("a", now)
		if len(p.Changes) != 0 || p.Verdicts[0].State != entities.Refused {
			t.Fatalf("%+v", p)
		}
		waits = append(waits, p.Again.Sub(now).String())
		now = p.Again
	}
	if diff := cmp.Diff([]string{"1m0s", "2m0s", "4m0s", "8m0s", "16m0s", "30m0s", "30m0s"}, waits); diff != "" {
		t.Error(diff)
	}
	better := o.DeepCopy()
	better.Generation, better.Spec.Config["retention.ms"] = 2, "5"
	w.PutTopic(allowed(better)[0])
	if p := w.Topic("a", noon); len(p.Changes) != 1 || p.Verdicts[0].Reason != "Applying" {
		t.Errorf("%+v", p)
	}
}

// An answer that is older than a change does not undo it.
func TestChangeWhileKafkaIsRead(t *testing.T) {
	o := topic(meta("a", held("")), partitions(4))
	w := world(t, entities.Policy{}, snapshot(), allowed(o), nil)
	w.BeginRead()
	p := w.Topic("a", noon)
	w.Settle(p.Changes, []entities.Result{{Outcome: entities.Done, Created: entities.TopicFacts{ID: "new", Partitions: 4, Replicas: 2}}}, noon)
	w.SetSnapshot(snapshot())
	p = w.Topic("a", noon)
	if len(p.Changes) != 0 || p.Verdicts[0].Topic != (entities.TopicFacts{ID: "new", Partitions: 4, Replicas: 2}) {
		t.Errorf("%+v", p)
	}
}

func TestPruneLeavesKafkasOwn(t *testing.T) {
	have := snapshot(has("left", 1, 1), has("named", 1, 1), has("refused", 1, 1), has("kept-1", 1, 1), has("__consumer_offsets", 1, 1), has("__remote_log_metadata", 1, 1), has("own", 1, 1),
		hasUser("admin", entities.Principal{Grants: []entities.Grant{grant(api.ACLAllow, api.ACLTopic, "*", api.ACLAll)}, Scram512: 4096}),
		hasUser("old", entities.Principal{Grants: []entities.Grant{grant(api.ACLDeny, api.ACLTopic, "s", api.ACLRead), grant(api.ACLAllow, api.ACLTopic, "*", api.ACLRead)}, Scram256: 4096}),
		func(s *entities.Snapshot) { s.Topics["own"].Internal = true })
	topics := append(allowed(topic(meta("named", held("")))), entities.DesiredTopic{Object: topic(meta("refused"))})
	policy := entities.Policy{Reserved: []string{"admin"}}
	users := allowedUser(user(meta("somebody", held("")), api.UserExternal))
	w := world(t, policy, have, topics, users)
	p := w.All(noon)
	want := api.EntityCounts{Total: 6, Topics: 3, ACLs: 2, Credentials: 1}
	if diff := cmp.Diff(want, p.Unmanaged); diff != "" || len(p.Changes) != 0 {
		t.Errorf("%v %s", p.Changes, diff)
	}
	policy.Prune, policy.Keep = true, []string{"kept-*"}
	w.SetPolicy(policy)
	var got []string
	for _, c := range w.All(noon).Changes {
		got = append(got, c.Owner.String()+" "+typeOf(c.Do))
	}
	wanted := []string{
		"KafkaCluster / DeleteTopic left", "KafkaCluster / DeleteCredential old", "KafkaCluster / DeleteGrant old Allow", "KafkaCluster / DeleteGrant old Deny",
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Error(diff)
	}
	// An API server that was set up anew has no objects: that is no reason to delete anything.
	if p := world(t, policy, have, nil, nil).All(noon); len(p.Changes) != 0 {
		t.Errorf("%+v", p.Changes)
	}
}

func typeOf(a entities.Action) string {
	switch do := a.(type) {
	case entities.DeleteTopic:
		return "DeleteTopic " + do.Name
	case entities.DeleteCredential:
		return "DeleteCredential " + do.Principal
	case entities.DeleteGrant:
		return "DeleteGrant " + do.Principal + " " + string(do.Grant.Effect)
	default:
		return "?"
	}
}

// A topic that is created while its object goes is deleted before the object is let go.
func TestTopicThatIsMadeWhileItsObjectGoes(t *testing.T) {
	o := topic(meta("a", held("")), deleteTopic)
	w := world(t, entities.Policy{}, snapshot(), allowed(o), nil)
	p := w.Topic("a", noon)
	gone := o.DeepCopy()
	leaving(&gone.ObjectMeta)
	w.PutTopic(allowed(gone)[0])
	w.Settle(p.Changes, done(p.Changes), noon)
	if diff := cmp.Diff([]string{"a: entities.DeleteTopic {Name:a ID:}", "a is Working Applying"}, words(w.Topic("a", noon))); diff != "" {
		t.Error(diff)
	}
}
