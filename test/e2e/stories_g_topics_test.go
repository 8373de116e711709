package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/test/e2e/stand"
)

// topicOf is a KafkaTopic default/name; spec are further lines of it.
func topicOf(name string, spec ...string) string {
	return "---\napiVersion: castellan.dev/v1alpha1\nkind: KafkaTopic\nmetadata: {name: " + name + ", namespace: default}\nspec:\n  clusterRef: {name: kafka}\n" +
		strings.Join(append([]string{""}, spec...), "\n  ") + "\n"
}

// TestTopics tells how topics are objects: made, changed, refused with a reason, taken over, put back and given up.
func TestTopics(t *testing.T) {
	s := stand.New(t, stand.Options{Cluster: strings.Replace(stand.Combined(version, 3), "    port: 9092", `    port: 9092
  - {name: scram, port: 9093, tls: {}, authentication: {type: ScramSha512}}`, 1)})
	t.Run("made, grown and configured", func(t *testing.T) { topicMade(t, s.For(t)) })
	t.Run("what cannot be says why", func(t *testing.T) { topicRefused(t, s.For(t)) })
	t.Run("replicas change by the balancer", func(t *testing.T) { topicReplicas(t, s.For(t)) })
	t.Run("what others changed is put back", func(t *testing.T) { topicDrift(t, s.For(t)) })
	t.Run("what exists is imported and taken over", func(t *testing.T) { topicImported(t, s.For(t)) })
	t.Run("records go as a user", func(t *testing.T) { recordsAsUser(t, s.For(t)) })
	t.Run("given up, with or without its records", func(t *testing.T) { topicLeft(t, s.For(t)) })
}

// topicSays is the fact that a KafkaTopic is Ready or not with a reason, and a message with these words.
func topicSays(t *testing.T, s *stand.Stand, name, reason string, words ...string) stand.Fact {
	t.Helper()
	return func(ctx context.Context) error {
		var topic api.KafkaTopic
		if err := s.Client().Get(ctx, types.NamespacedName{Namespace: "default", Name: name}, &topic); err != nil {
			return err
		}
		ready := meta.FindStatusCondition(topic.Status.Conditions, api.ConditionReady)
		if ready == nil || topic.Status.ObservedGeneration != topic.Generation || ready.Reason != reason {
			return fmt.Errorf("generation %d: %+v", topic.Generation, topic.Status)
		}
		for _, w := range words {
			if !strings.Contains(ready.Message, w) {
				return fmt.Errorf("the message lacks %q: %s", w, ready.Message)
			}
		}
		return nil
	}
}

// topicIs is the fact that Kafka has a topic so; no partitions is that there is none.
func topicIs(s *stand.Stand, name string, partitions, replicas int) stand.Fact {
	return func(ctx context.Context) error {
		seen, err := s.Observe(ctx)
		if err != nil {
			return err
		}
		for _, topic := range seen.Topics {
			if topic.Name != name {
				continue
			}
			if len(topic.Partitions) != partitions || len(topic.Partitions[0].Replicas) != replicas {
				return fmt.Errorf("topic %s has %d partitions, the first on %v", name, len(topic.Partitions), topic.Partitions[0].Replicas)
			}
			return nil
		}
		if partitions == 0 {
			return nil
		}
		return fmt.Errorf("there is no topic %s", name)
	}
}

func topicMade(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Apply(topicOf("orders", "partitions: 2", "replicas: 3", `config: {retention.ms: "3600000", cleanup.policy: compact}`))
	took := s.Eventually("the topic is in force", time.Minute, topicSays(t, s, "orders", "InForce"))
	t.Logf("a topic is in force %.1f s after it was applied", took.Seconds())
	s.Eventually("Kafka has it", time.Minute, topicIs(s, "orders", 2, 3))
	config := func() string { return s.Must("topics", "describe", "orders", "--listener", "plain") }
	if text := config(); !strings.Contains(text, "3600000") || !strings.Contains(text, "compact") {
		t.Errorf("the topic's configuration is not what was asked for:\n%s", text)
	}
	s.Apply(topicOf("orders", "partitions: 4", "replicas: 3", `config: {retention.ms: "7200000"}`))
	s.Eventually("the change is in force", time.Minute, topicSays(t, s, "orders", "InForce"))
	s.Eventually("Kafka has it", time.Minute, topicIs(s, "orders", 4, 3))
	if text := config(); !strings.Contains(text, "7200000") || strings.Contains(text, "compact") {
		t.Errorf("what was taken out of the spec is still there, or what was put in is not:\n%s", text)
	}
}

func topicRefused(t *testing.T, s *stand.Stand) {
	t.Helper()
	for spec, says := range map[string]string{
		"replicas: 4":                           "is 4 and the cluster has 3 brokers",
		`config: {retention.weeks: "1"}`:        "Kafka 4.3 has no topic key retention.weeks",
		`config: {log.cleanup.policy: compact}`: "for a topic it is called cleanup.policy",
	} {
		if out := s.TryApply(topicOf("wrong", "partitions: 1", spec)); out.Code == 0 || !strings.Contains(out.Stderr, says) {
			t.Errorf("%s: want it refused with %q: %s", spec, says, out)
		}
	}
	s.Apply(topicOf("odd", "partitions: 1", `config: {remote.storage.enable: "true"}`) + topicOf("rival", "topicName: orders", "partitions: 4"))
	s.Eventually("what only Kafka can refuse", time.Minute, topicSays(t, s, "odd", "RefusedByKafka", "Tiered Storage"))
	s.Eventually("two objects, one topic", time.Minute, topicSays(t, s, "rival", "Conflict", "KafkaTopic default/orders, which was there first"))
	s.Eventually("the first says so, too", time.Minute, topicSays(t, s, "orders", "InForce", "KafkaTopic default/rival"))
	if out := s.TryApply(topicOf("orders", "partitions: 3", "replicas: 3")); out.Code == 0 || !strings.Contains(out.Stderr, "Kafka takes none away") {
		t.Errorf("fewer partitions: %s", out)
	}
	for _, name := range []string{"odd", "rival"} {
		s.Must("delete", "kafkatopic", name)
	}
	s.Eventually("the refused ones are gone and the topic is untouched", time.Minute, topicIs(s, "orders", 4, 3))
	s.Eventually("nobody is beside it any more", time.Minute, topicSays(t, s, "orders", "InForce"))
}

func topicReplicas(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Apply(topicOf("narrow", "partitions: 2", "replicas: 1"))
	s.Eventually("the topic is in force", time.Minute, topicSays(t, s, "narrow", "InForce"))
	s.Apply(topicOf("narrow", "partitions: 2", "replicas: 3"))
	s.Eventually("Kafka has more replicas", 2*time.Minute, topicIs(s, "narrow", 2, 3))
	s.Eventually("the object says so", 2*time.Minute, topicSays(t, s, "narrow", "InForce"))
}

func topicDrift(t *testing.T, s *stand.Stand) {
	t.Helper()
	alter := func(name, config string) {
		s.KafkaTool(version, nil, "kafka.admin.ConfigCommand", "--bootstrap-server", s.Bootstrap("plain"), "--alter", "--entity-type", "topics", "--entity-name", name, "--add-config", config)
	}
	s.Apply(topicOf("watched", "partitions: 1", "paused: true", `config: {retention.ms: "1000"}`))
	s.Eventually("a paused one only says", time.Minute, topicSays(t, s, "watched", "Paused", "going to create topic watched"))
	operator := s.MustPID(stand.Operator)
	if err := syscall.Kill(operator, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	alter("orders", "retention.ms=5,segment.ms=3600000")
	if err := syscall.Kill(operator, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.Eventually("what the object names is put back, and what it does not name stays", 3*time.Minute, func(context.Context) error {
		text := s.Must("topics", "describe", "orders", "--listener", "plain")
		if !strings.Contains(text, "7200000") || !strings.Contains(text, "3600000") {
			return fmt.Errorf("the configuration is\n%s", text)
		}
		return nil
	})
	s.Must("delete", "kafkatopic", "watched")
}

func topicImported(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Must("topics", "create", "older", "--partitions", "2", "--listener", "plain")
	s.Apply(topicOf("older", "partitions: 2"))
	s.Eventually("a topic that exists is not taken over by itself", time.Minute, topicSays(t, s, "older", "TopicExists", "spec.adopt"))
	s.Must("delete", "kafkatopic", "older")
	yaml := s.Must("import", "topics", "--listener", "plain")
	if !strings.Contains(yaml, "name: older") || !strings.Contains(yaml, "adopt: true") {
		t.Fatalf("imported:\n%s", yaml)
	}
	before, err := s.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var imported []string
	for one := range strings.SplitSeq(yaml, "---\n") {
		if strings.Contains(one, "name: older\n") {
			imported = append(imported, one)
		}
	}
	s.Apply(strings.Join(imported, "---\n"))
	s.Eventually("the imported object is in force", time.Minute, topicSays(t, s, "older", "InForce"))
	after, err := s.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before.Topics, after.Topics); diff != "" {
		t.Errorf("taking a topic over changed Kafka (- before, + after):\n%s", diff)
	}
}

// recordsAsUser tells that Castellan's own commands log in as a KafkaUser.
func recordsAsUser(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Apply("apiVersion: castellan.dev/v1alpha1\nkind: KafkaUser\nmetadata: {name: alice, namespace: default}\nspec: {clusterRef: {name: kafka}, authentication: {type: ScramSha512}}\n")
	s.Eventually("records are written as alice", time.Minute, func(context.Context) error {
		out := s.Run(time.Minute, "hello\n", "produce", "orders", "--user", "alice")
		if out.Code != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if got := s.Must("consume", "orders", "--user", "alice", "--from", "beginning", "--until-end"); !strings.Contains(got, "hello") {
		t.Errorf("read as alice: %q", got)
	}
	if out := s.Castellan("produce", "orders", "--listener", "scram"); out.Code == 0 || !strings.Contains(out.Stderr, "name a KafkaUser with --user") {
		t.Errorf("nobody through a listener that asks who one is: %s", out)
	}
}

func topicLeft(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Must("delete", "kafkatopic", "orders")
	s.Eventually("its records stay", time.Minute, topicIs(s, "orders", 4, 3))
	s.Apply(topicOf("narrow", "partitions: 2", "replicas: 3", "deletionPolicy: Delete"))
	s.Eventually("the policy is seen", time.Minute, topicSays(t, s, "narrow", "InForce"))
	s.Must("delete", "kafkatopic", "narrow")
	s.Eventually("the topic goes with its object", time.Minute, topicIs(s, "narrow", 0, 0))
}
