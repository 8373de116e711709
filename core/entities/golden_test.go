package entities_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/entities"
)

// What users read: every text of every condition. To take a change over, run with UPDATE_GOLDEN=1.
func TestConditionTexts(t *testing.T) {
	var out strings.Builder
	tell := func(title string, p entities.Plan) {
		fmt.Fprintf(&out, "== %s\n", title)
		for _, v := range p.Verdicts {
			for _, c := range v.Conditions() {
				fmt.Fprintf(&out, "%s %s=%s %s\n", v.Ref.Name, c.Type, c.Status, c.Reason)
			}
			fmt.Fprintf(&out, "  %s\n", v.Message)
		}
	}
	topicTexts(t, tell)
	userTexts(t, tell)
	answers(t, tell)
	file := filepath.Join("testdata", "conditions.txt")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Error(diff)
	}
}

func topicTexts(t *testing.T, tell func(string, entities.Plan)) {
	t.Helper()
	one := func(title string, have *entities.Snapshot, o ...*api.KafkaTopic) {
		tell(title, world(t, entities.Policy{}, have, allowed(o...), nil).All(noon))
	}
	one("topic: in force", snapshot(has("orders", 3, 2)), topic(meta("orders", held("")), partitions(3)))
	one("topic: to be created", snapshot(), topic(meta("orders")))
	one("topic: to be changed", snapshot(has("orders", 3, 2, "a", "1", "b", "1")), topic(meta("orders", held(" config=a,b")), partitions(6), config("a", "2")))
	one("topic: many keys", snapshot(has("orders", 3, 2)), topic(meta("orders", held("")), config("a", "1", "b", "1", "c", "1", "d", "1", "e", "1", "f", "1", "g", "1")))
	one("topic: another replication factor", snapshot(has("orders", 3, 1)), topic(meta("orders", held("")), replicas(3)))
	one("topic: exists", snapshot(has("orders", 3, 1)), topic(meta("orders")))
	one("topic: fewer partitions", snapshot(has("orders", 3, 1)), topic(meta("orders", held("")), partitions(2)))
	one("topic: too few brokers", snapshot(), topic(meta("orders"), replicas(5)))
	one("topic: reserved", snapshot(), topic(meta("orders"), named("__consumer_offsets")))
	one("topic: two objects", snapshot(has("orders", 1, 1)), topic(meta("orders", held(""))), topic(meta("orders", in("other"), younger)))
	one("topic: deleted, retained", snapshot(has("orders", 1, 1)), topic(meta("orders", held(""), leaving)))
	one("topic: deleted, with its records", snapshot(has("orders", 1, 1)), topic(meta("orders", held(""), leaving), deleteTopic))
	one("topic: deleted, never in force", snapshot(has("orders", 1, 1)), topic(meta("orders", leaving), deleteTopic))
	one("topic: paused", snapshot(has("orders", 1, 1)), topic(meta("orders", held("")), pauseTopic, partitions(2)))
	one("topic: paused, another replication factor", snapshot(has("orders", 1, 1)), topic(meta("orders", held("")), pauseTopic, replicas(2)))
	one("topic: Kafka not read", nil, topic(meta("orders")))
	w := world(t, entities.Policy{}, nil, allowed(topic(meta("orders"))), nil)
	w.Unreadable("broker 127.0.0.1:9091: connection refused")
	tell("topic: Kafka not readable", w.All(noon))
	tell("topic: namespace not allowed", world(t, entities.Policy{}, snapshot(), []entities.DesiredTopic{{Object: topic(meta("orders"), func(s *api.KafkaTopicSpec) { s.ClusterRef.Namespace = "kafka" })}}, nil).All(noon))
	for _, c := range []struct {
		title  string
		change func(*api.KafkaTopicSpec)
	}{
		{"the balancer's key", config("follower.replication.throttled.replicas", "*")},
		{"no key", config("a b", "1")},
		{"no value", config("a", "null")},
		{"a list", config("a", "[1]")},
		{"nobody could write", func(s *api.KafkaTopicSpec) { config("min.insync.replicas", "3")(s); replicas(2)(s) }},
		{"no name", named("..")},
	} {
		one("topic: "+c.title, snapshot(), topic(meta("orders"), c.change))
	}
}

func userTexts(t *testing.T, tell func(string, entities.Plan)) {
	t.Helper()
	one := func(title string, have *entities.Snapshot, d ...entities.DesiredUser) {
		tell(title, world(t, entities.Policy{Reserved: []string{"admin"}}, have, nil, d).All(noon))
	}
	granted := snapshot(hasUser("app", entities.Principal{Grants: []entities.Grant{grant(api.ACLAllow, api.ACLTopic, "a", api.ACLRead)}}))
	one("user: in force", snapshot(), allowedUser(user(meta("app", held("")), api.UserMutualTLS))...)
	one("user: to be changed", granted, allowedUser(user(meta("app", held("")), api.UserScramSha512, acl(api.ACLDeny, api.ACLGroup, "g", api.ACLAll)), password("d"))...)
	one("user: no password", snapshot(), allowedUser(user(meta("app", held("")), api.UserScramSha512), entities.Credential{Why: "Secret team/app has no key password: put it there."})...)
	one("user: password not looked for yet", snapshot(), allowedUser(user(meta("app", held("")), api.UserScramSha512))...)
	one("user: exists", granted, allowedUser(user(meta("app"), api.UserExternal))...)
	one("user: reserved", snapshot(), allowedUser(user(meta("app"), api.UserExternal, principal("admin")))...)
	one("user: two objects", snapshot(), append(allowedUser(user(meta("app", held("")), api.UserExternal)), allowedUser(user(meta("app", in("other"), younger), api.UserExternal))...)...)
	one("user: deleted", granted, allowedUser(user(meta("app", held(""), leaving), api.UserMutualTLS))...)
	one("user: deleted, never in force", granted, allowedUser(user(meta("app", leaving), api.UserMutualTLS))...)
	one("user: deleted, reserved", granted, allowedUser(user(meta("app", held(""), leaving), api.UserMutualTLS, principal("admin")))...)
	one("user: paused", granted, allowedUser(user(meta("app", held("")), api.UserExternal, func(s *api.KafkaUserSpec) { s.Paused = true }))...)
	one("user: namespace not allowed", snapshot(), entities.DesiredUser{Object: user(meta("app"), api.UserExternal)})
	one("user: not read", nil, allowedUser(user(meta("app"), api.UserExternal))...)
	for _, c := range []struct {
		title  string
		as     api.UserAuthenticationType
		change func(*api.KafkaUserSpec)
	}{
		{"User: in front", api.UserExternal, principal("User:a")},
		{"control characters", api.UserExternal, principal("a\tb")},
		{"a long name in a certificate", api.UserMutualTLS, principal(strings.Repeat("n", 65))},
		{"a name that certificates escape", api.UserMutualTLS, principal("a,b")},
		{"everyone with a password", api.UserScramSha512, principal("*")},
		{"an operation that means nothing", api.UserExternal, acl("", api.ACLGroup, "g", api.ACLWrite)},
		{"half a byte", api.UserExternal, func(s *api.KafkaUserSpec) {
			s.Quotas = &api.UserQuotas{Quota: api.Quota{ProducerByteRate: quantity("1500m")}}
		}},
		{"a quota of nothing", api.UserExternal, func(s *api.KafkaUserSpec) {
			s.Quotas = &api.UserQuotas{Clients: []api.ClientQuota{{ClientID: "c", Quota: api.Quota{RequestPercentage: quantity("0")}}}}
		}},
		{"a resource without a name", api.UserExternal, acl("", api.ACLTopic, "", api.ACLRead)},
	} {
		one("user: "+c.title, snapshot(), allowedUser(user(meta("app"), c.as, c.change))...)
	}
}

// answers are what Kafka says, or does not say, to changes.
func answers(t *testing.T, tell func(string, entities.Plan)) {
	t.Helper()
	after := func(title string, o *api.KafkaTopic, have *entities.Snapshot, r entities.Result) *entities.World {
		w := world(t, entities.Policy{}, have, allowed(o), nil)
		p := w.All(noon)
		results := make([]entities.Result, len(p.Changes))
		for i := range results {
			results[i] = r
		}
		w.Settle(p.Changes, results, noon)
		tell(title, w.All(noon))
		return w
	}
	o := topic(meta("orders", held("")), config("retention.ms", "x"), partitions(2))
	after("answer: refused", o, snapshot(has("orders", 1, 1)), entities.Result{Outcome: entities.Denied, Code: "INVALID_CONFIG", Reason: "Invalid value x for configuration retention.ms"})
	after("answer: none", o, snapshot(has("orders", 1, 1)), entities.Result{Outcome: entities.Unanswered, Reason: "request CreatePartitions: deadline exceeded"})
	after("answer: not even asked", o, snapshot(has("orders", 1, 1)), entities.Result{Outcome: entities.NotTried, Reason: "request CreateTopics: deadline exceeded"})
	w := after("answer: it exists", topic(meta("orders", held(""))), snapshot(), entities.Result{Outcome: entities.Denied, Code: entities.CodeTopicExists})
	w.SetSnapshot(snapshot(has("orders", 1, 1)))
	after("answer: it exists, adopted", topic(meta("orders", held("")), adoptTopic), snapshot(), entities.Result{Outcome: entities.Denied, Code: entities.CodeTopicExists})
	after("answer: deleted", topic(meta("orders", held(""), leaving), deleteTopic), snapshot(has("orders", 1, 1)), entities.Result{Outcome: entities.Done})
	u := world(t, entities.Policy{}, snapshot(), nil, allowedUser(user(meta("app", held(""), leaving), api.UserMutualTLS)))
	p := u.All(noon)
	u.Settle(p.Changes, done(p.Changes), noon)
	tell("answer: user removed", u.All(noon))
	rules := world(t, entities.Policy{Prune: true}, snapshot(has("left", 1, 1)), nil, nil)
	tell("cluster: nothing to compare with", rules.All(noon))
	rules = world(t, entities.Policy{Prune: true}, snapshot(has("left", 1, 1), has("orders", 1, 1)), allowed(topic(meta("orders", held("")))), allowedUser(user(meta("app", held("")), api.UserExternal)))
	p = rules.All(noon)
	tell("cluster: prune", p)
	rules.Settle(p.Changes, done(p.Changes), noon)
	tell("cluster: in force", rules.All(noon))
}
