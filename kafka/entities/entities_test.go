package entities_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/kafka/entities"
	"castellan.dev/castellan/kafka/kafkatest"
)

func TestWhatIsAppliedIsRead(t *testing.T) {
	c := cluster(t, kafkatest.NewFake(t, kafkatest.Config{Brokers: 1, Topics: []string{"old"}}))
	a, u := owner(core.KindTopic, "a"), owner(core.KindUser, "u")
	results := apply(t, c, slices.Concat(
		of(a, core.CreateTopic{Name: "a", Partitions: 2, Replicas: 1, Config: map[string]string{"retention.ms": "5"}}),
		of(u,
			core.UpsertCredential{Principal: "u", Iterations: 4099, Secret: core.SecretRef{Name: "pw", Digest: "d"}},
			core.CreateGrant{Principal: "u", Grant: grant(api.ACLDeny, "x", api.ACLRead)},
			core.CreateGrant{Principal: "u", Grant: grant(api.ACLAllow, "o", api.ACLRead)},
			core.AlterQuota{Entity: core.QuotaEntity{User: core.Named("u"), ClientID: core.Every}, To: core.Limits{ProducerByteRate: 5}},
			core.AlterQuota{Entity: core.QuotaEntity{Address: core.Named("10.0.0.1")}, To: core.Limits{ConnectionCreationRate: 7}}))...)
	for _, r := range results {
		if r.Outcome != core.Done {
			t.Errorf("%+v", r)
		}
	}
	if got := results[0].Created; got.Partitions != 2 || got.Replicas != 1 || len(got.ID) != 22 {
		t.Errorf("created %+v", got)
	}
	s := read(t, c, "retention.ms", "segment.ms")
	if t.Failed() {
		t.FailNow()
	}
	want := &core.Snapshot{
		Brokers: 1,
		Topics: map[string]*core.Topic{
			"old": {Partitions: 1, Replicas: 1, MostReplicas: 1, Asked: []string{"retention.ms", "segment.ms"}},
			"a":   {Partitions: 2, Replicas: 1, MostReplicas: 1, Asked: []string{"retention.ms", "segment.ms"}, Config: map[string]string{"retention.ms": "5"}},
		},
		Principals: map[string]*core.Principal{"u": {
			Scram512: 4099,
			Grants:   []core.Grant{grant(api.ACLDeny, "x", api.ACLRead), grant(api.ACLAllow, "o", api.ACLRead)},
			Quotas:   map[core.Part]core.Limits{core.Every: {ProducerByteRate: 5}},
		}},
		Quotas: map[core.QuotaEntity]core.Limits{{Address: core.Named("10.0.0.1")}: {ConnectionCreationRate: 7}},
	}
	ids := cmpopts.IgnoreFields(core.Topic{}, "ID")
	any := cmpopts.SortSlices(func(a, b core.Grant) bool { return a.String() < b.String() })
	if diff := cmp.Diff(want, s, ids, any); diff != "" {
		t.Error(diff)
	}
	if s.Topics["a"].ID != results[0].Created.ID {
		t.Errorf("id %s, created as %s", s.Topics["a"].ID, results[0].Created.ID)
	}
	for _, names := range [][]string{{"u", "nobody", "u"}, {"u", "1", "2", "3", "4", "5"}} {
		again, err := entities.ReadPrincipals(t.Context(), c, names)
		if diff := cmp.Diff(want.Principals, again, any); err != nil || diff != "" {
			t.Errorf("%v: %v %s", names, err, diff)
		}
	}
	results = apply(t, c, slices.Concat(
		of(a, core.AddPartitions{Topic: "a", From: 2, To: 5}, core.AlterConfig{Topic: "a", Set: map[string]string{"segment.ms": "9"}, Delete: []string{"retention.ms"}}),
		of(u, core.DeleteCredential{Principal: "u", Mechanism: core.ScramSha512}, core.DeleteCredential{Principal: "u", Mechanism: core.ScramSha256}, core.DropGrants{Principal: "u"},
			core.AlterQuota{Entity: core.QuotaEntity{User: core.Named("u"), ClientID: core.Every}, From: core.Limits{ProducerByteRate: 5}}),
		of(owner(core.KindCluster, "c"), core.DeleteTopic{Name: "old", ID: s.Topics["old"].ID}, core.DeleteTopic{Name: "never"}))...)
	for _, r := range results {
		if r.Outcome != core.Done {
			t.Errorf("%+v", r)
		}
	}
	s = read(t, c, "segment.ms")
	if len(s.Topics) != 1 || s.Topics["a"].Partitions != 5 || s.Topics["a"].Config["segment.ms"] != "9" || len(s.Principals) != 0 {
		t.Errorf("%+v %+v", s.Topics["a"], s.Principals)
	}
}

// The number of requests does not depend on how many there are.
func TestRequestsAreFew(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1})
	c := cluster(t, fake)
	const n = 2500
	changes := slices.Concat(
		many(n, func(i int) core.Change {
			return core.Change{Owner: owner(core.KindTopic, name("t", i)), Do: core.CreateTopic{Name: name("t", i), Partitions: 1, Replicas: 1, Config: map[string]string{"retention.ms": "5"}}}
		}),
		many(n, func(i int) core.Change {
			return core.Change{Owner: owner(core.KindUser, name("u", i)), Do: core.CreateGrant{Principal: name("u", i), Grant: grant(api.ACLAllow, "a", api.ACLRead)}}
		}))
	for _, r := range apply(t, c, changes...) {
		if r.Outcome != core.Done {
			t.Fatalf("%+v", r)
		}
	}
	asked := fake.Requests()
	if asked[kmsg.CreateTopics] != 13 || asked[kmsg.CreateACLs] != 3 {
		t.Errorf("%d CreateTopics, %d CreateACLs", asked[kmsg.CreateTopics], asked[kmsg.CreateACLs])
	}
	count := func() int {
		sum := 0
		for key, n := range fake.Requests() {
			if key != kmsg.ApiVersions {
				sum += n
			}
		}
		return sum
	}
	read(t, c, "retention.ms") // connections are open from here on
	before := count()
	s := read(t, c, "retention.ms")
	if len(s.Topics) != n || len(s.Principals) != n {
		t.Errorf("%d topics, %d principals", len(s.Topics), len(s.Principals))
	}
	if n := count() - before; n != 7 {
		t.Errorf("%d requests to read everything: %v", n, fake.Requests())
	}
	before = count()
	read(t, c)
	if n := count() - before; n != 6 {
		t.Errorf("%d requests where no configuration is asked for", n)
	}
	before = count()
	if _, err := entities.ReadPrincipals(t.Context(), c, []string{name("u", 7)}); err != nil {
		t.Error(err)
	}
	if n := count() - before; n != 5 {
		t.Errorf("%d requests to read one principal", n)
	}
}

func TestEachGetsItsOwnResult(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1, Topics: []string{"there"}})
	c := cluster(t, fake)
	fake.Brokers.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "policy", Err: kerr.PolicyViolation})
	fake.Brokers.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreatePartitions}, Topic: "there", Err: kerr.InvalidPartitions})
	results := apply(t, c, slices.Concat(
		of(owner(core.KindTopic, "1"), core.CreateTopic{Name: "good", Partitions: -1, Replicas: -1}),
		of(owner(core.KindTopic, "2"), core.CreateTopic{Name: "there", Partitions: 1, Replicas: 1}),
		of(owner(core.KindTopic, "3"), core.CreateTopic{Name: "policy", Partitions: 1, Replicas: 1}),
		of(owner(core.KindTopic, "4"), core.CreateTopic{Name: "wide", Partitions: 1, Replicas: 9}),
		of(owner(core.KindTopic, "5"), core.AddPartitions{Topic: "there", From: 1, To: 2}, core.AlterConfig{Topic: "nowhere", Set: map[string]string{"retention.ms": "1"}}),
		of(owner(core.KindUser, "6"), core.UpsertCredential{Principal: "p", Iterations: 4097, Secret: core.SecretRef{Name: "missing"}}),
		of(owner(core.KindUser, "7"), core.UpsertCredential{Principal: "q", Iterations: 4097, Secret: core.SecretRef{Name: "pw"}}))...)
	want := "Done\nDenied TOPIC_ALREADY_EXISTS\nDenied POLICY_VIOLATION\nDenied INVALID_REPLICATION_FACTOR\nDenied INVALID_PARTITIONS\nDenied UNKNOWN_TOPIC_OR_PARTITION\nDenied NO_PASSWORD\nDone\n"
	if diff := cmp.Diff(want, outcomes(results)); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(results[6].Reason, "Secret team/missing is not there") {
		t.Errorf("%+v", results[6])
	}
}

// Kafka's own timeout tells neither yes nor no: kfake does the work and answers so.
func TestTimeoutIsNoRefusal(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1})
	c := cluster(t, fake)
	fake.Brokers.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "slow", Err: kerr.RequestTimedOut, Count: 1})
	results := apply(t, c, of(owner(core.KindTopic, "1"), core.CreateTopic{Name: "slow", Partitions: 1, Replicas: 1})...)
	wantOutcomes(t, results, core.Unanswered)
	if s := read(t, c); s.Topics["slow"] == nil {
		t.Error("it was not made: this test shows nothing")
	}
}

// After a request that nobody answered nothing more is asked, and nothing is asked twice.
func TestConnectionThatDies(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1})
	c := cluster(t, fake)
	read(t, c)
	tries := 0
	fake.Brokers.ControlKey(kmsg.CreateTopics.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.Brokers.KeepControl()
		tries++
		return nil, kerr.UnknownServerError, true // kfake closes the connection
	})
	results := apply(t, c, slices.Concat(
		of(owner(core.KindTopic, "1"), core.CreateTopic{Name: "a", Partitions: 1, Replicas: 1}),
		of(owner(core.KindTopic, "2"), core.AlterConfig{Topic: "b", Delete: []string{"retention.ms"}}))...)
	wantOutcomes(t, results, core.Unanswered, core.NotTried)
	if tries != 1 || results[1].Reason == "" {
		t.Errorf("%d tries, %+v", tries, results)
	}
}

func TestNobodyAnswers(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1})
	c := cluster(t, fake)
	fake.Brokers.Close()
	results := apply(t, c, of(owner(core.KindTopic, "1"), core.CreateTopic{Name: "a"})...)
	wantOutcomes(t, results, core.NotTried)
	if !strings.Contains(results[0].Reason, "default/fake") {
		t.Errorf("%+v", results[0])
	}
	if _, err := entities.Read(t.Context(), c, entities.Ask{}); err == nil {
		t.Error("a cluster that does not answer was read")
	}
}

// What could not be closed keeps the doors of its object shut, and of no other.
func TestNothingIsOpenedAfterAFailure(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1})
	c := cluster(t, fake)
	fake.Brokers.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateACLs}, Resource: "secret", Err: kerr.PolicyViolation})
	deny := core.CreateGrant{Principal: "u", Grant: grant(api.ACLDeny, "secret", api.ACLRead)}
	allow := core.CreateGrant{Principal: "u", Grant: grant(api.ACLAllow, "o", api.ACLRead)}
	login := core.UpsertCredential{Principal: "u", Iterations: 4097, Secret: core.SecretRef{Name: "pw"}}
	other := core.CreateGrant{Principal: "v", Grant: grant(api.ACLAllow, "o", api.ACLRead)}
	results := apply(t, c, slices.Concat(of(owner(core.KindUser, "u"), login, allow, deny), of(owner(core.KindUser, "v"), other))...)
	wantOutcomes(t, results, core.NotTried, core.NotTried, core.Denied, core.Done)
	s := read(t, c)
	if _, ok := s.Principals["u"]; ok || len(s.Principals) != 1 {
		t.Errorf("%+v", s.Principals)
	}
}

// A topic that was made anew under its name is not the one that was to be deleted.
func TestDeletesTheTopicThatWasSeen(t *testing.T) {
	c := cluster(t, kafkatest.NewFake(t, kafkatest.Config{Brokers: 1, Topics: []string{"a"}}))
	old := read(t, c).Topics["a"].ID
	o := owner(core.KindTopic, "a")
	apply(t, c, of(o, core.DeleteTopic{Name: "a", ID: old})...)
	apply(t, c, of(o, core.CreateTopic{Name: "a", Partitions: 1, Replicas: 1})...)
	wantOutcomes(t, apply(t, c, of(o, core.DeleteTopic{Name: "a", ID: old})...), core.Done)
	if s := read(t, c); s.Topics["a"] == nil || s.Topics["a"].ID == old {
		t.Errorf("%+v", s.Topics["a"])
	}
}

// A user who had the password logs in with it: the salted bytes are Kafka's.
func TestPasswordIsTheOneThatWasGiven(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1})
	c := cluster(t, fake)
	var sent *kmsg.AlterUserSCRAMCredentialsRequest
	fake.Brokers.ControlKey(kmsg.AlterUserSCRAMCredentials.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		fake.Brokers.KeepControl()
		sent, _ = r.(*kmsg.AlterUserSCRAMCredentialsRequest)
		return nil, nil, false
	})
	start := time.Now()
	wantOutcomes(t, apply(t, c, of(owner(core.KindUser, "u"), core.UpsertCredential{Principal: "u", Iterations: 4097, Secret: core.SecretRef{Name: "pw", Digest: "d"}})...), core.Done)
	if sent == nil || len(sent.Upsertions) != 1 || time.Since(start) > time.Minute {
		t.Fatalf("%+v", sent)
	}
	up := sent.Upsertions[0]
	if diff := cmp.Diff(salted("password of d", up.Salt, 4097), up.SaltedPassword); diff != "" || len(up.Salt) < 16 {
		t.Error(diff)
	}
}
