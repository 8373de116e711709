package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/cli"
	"castellan.dev/castellan/test/e2e/stand"
)

// badSpec is a spec with a mistake, and what must be said of it.
type badSpec struct {
	name string
	yaml string
	says []string // field path, what is wrong, what to do
}

// badSpecs of a cluster of one combined node.
func badSpecs() []badSpec {
	one := func(config ...string) string { return stand.Combined(version, 1, config...) }
	without := func(old, now string) string { return strings.Replace(one(), old, now, 1) }
	return []badSpec{
		{"unknown key", one("num.io.thread: 8"), []string{"spec.config[num.io.thread]", "has no key", "did you mean num.io.threads?"}},
		{"wrong type", one("num.io.threads: many"), []string{"spec.config[num.io.threads]", `"many" is not a whole number`, "accepted: 1 or more"}},
		{"out of range", one("num.io.threads: 0"), []string{"spec.config[num.io.threads]", "too small", "accepted: 1 or more"}},
		{"a key that Castellan owns", one("node.id: 7"), []string{"spec.config[node.id]", "Castellan sets node.id itself", "remove it"}},
		{"unsupported version", without(version, "4.9.0"), []string{"spec.version", "4.9.0 is not supported", "Packages exist for", version}},
		{"a version nobody provides", without(version, "4.3.99"), []string{"spec.version", "no Package provides Kafka 4.3.99", "Packages exist for", version}},
		{"a listener's port twice", without("    port: 9092\n", "    port: 9092\n  - {name: other, port: 9092}\n"), []string{"spec.listeners[1].port", "9092 is already used by listener plain", "a port of its own"}},
		{"replication above brokers", one("transaction.state.log.replication.factor: 3"), []string{"spec.config[transaction.state.log.replication.factor]", "3 replicas need 3 brokers", "use at most 1"}},
		{"two problems at once", one("num.io.thread: 8", "offsets.retention.minutes: soon"), []string{"spec.config[num.io.thread]", "spec.config[offsets.retention.minutes]"}},
	}
}

// badSpecsAreRefused tells that apply refuses a bad spec with field path and remedy and changes nothing.
func badSpecsAreRefused(t *testing.T, s *stand.Stand) {
	t.Helper()
	before := s.Cluster()
	bad := append(badSpecs(), badSpec{
		"no controller pool", stand.Named("other", strings.Replace(stand.Combined(version, 1), "[broker, controller]", "[broker]", 1)),
		[]string{"spec.pools", "no pool has the role controller", "add a pool with roles: [controller]"},
	})
	for _, b := range bad {
		out := s.TryApply(b.yaml)
		if out.Code != cli.ExitRefused {
			t.Errorf("%s: %s", b.name, out)
		}
		for _, text := range b.says {
			if !strings.Contains(out.Stderr, text) {
				t.Errorf("%s: the refusal does not say %q: %s", b.name, text, out.Stderr)
			}
		}
	}
	if after := s.Cluster(); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("a refused spec changed the object from %s to %s", before.ResourceVersion, after.ResourceVersion)
	}
}

// unwiseSpecsWarn tells that what is legal but unwise is accepted with a warning, as the API server hands it to every
// client. Nothing is created: a dry run is judged like the real one.
func unwiseSpecsWarn(t *testing.T, s *stand.Stand) {
	t.Helper()
	for _, unwise := range []struct {
		name, yaml string
		says       []string
	}{
		{"two controllers", stand.Combined(version, 2), []string{"Warning: spec.pools", "2 controllers"}},
		{
			"min ISR equal to the replication factor", strings.Replace(stand.Combined(version, 3), "min.insync.replicas: 2", "min.insync.replicas: 3", 1),
			[]string{"Warning: spec.config[min.insync.replicas]", "no broker can restart", "use 2"},
		},
	} {
		out := s.Run(time.Minute, stand.Named("other", unwise.yaml), "apply", "--dry-run", "-f", "-")
		if out.Code != 0 {
			t.Errorf("%s: %s", unwise.name, out)
		}
		for _, text := range unwise.says {
			if !strings.Contains(out.Stderr, text) {
				t.Errorf("%s: the warning does not say %q: %s", unwise.name, text, out.Stderr)
			}
		}
	}
}

// badSpecsAreNotAccepted tells the same when admission is gone: the object takes the spec, its status says the same
// words, and the last good spec stays in force.
func badSpecsAreNotAccepted(t *testing.T, s *stand.Stand) {
	t.Helper()
	pids := kafkaPIDs(s)
	revision := s.Cluster().Status.Revision
	hook := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "castellan"}}
	if err := s.Client().Delete(t.Context(), hook); err != nil {
		t.Fatalf("take admission away: %v", err)
	}
	// The API server forgets a webhook within moments; until then apply is refused.
	first := badSpecs()[0]
	s.Eventually("admission is gone", time.Minute, func(context.Context) error {
		if out := s.TryApply(first.yaml); out.Code != 0 {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	for _, b := range badSpecs() {
		s.Apply(b.yaml)
		s.Eventually(b.name+" is not accepted", time.Minute, notAccepted(s, b.says))
		if now := s.Cluster().Status.Revision; now != revision {
			t.Errorf("%s: revision %s came into force after %s", b.name, now, revision)
		}
	}
	s.Apply(stand.Combined(version, 1))
	s.WaitReady()
	for id, pid := range kafkaPIDs(s) {
		if pids[id] != pid {
			t.Errorf("%s was restarted: %d is now %d", id, pids[id], pid)
		}
	}
	killOperator(t, s, 0) // its successor brings admission back
	s.Eventually("admission is back", time.Minute, func(ctx context.Context) error {
		return s.Client().Get(ctx, client.ObjectKeyFromObject(hook), hook)
	})
	s.Eventually("bad specs are refused again", time.Minute, func(context.Context) error {
		if out := s.Run(time.Minute, first.yaml, "apply", "--dry-run", "-f", "-"); out.Code != cli.ExitRefused {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

func notAccepted(s *stand.Stand, says []string) stand.Fact {
	return func(context.Context) error {
		kc := s.Cluster()
		c := meta.FindStatusCondition(kc.Status.Conditions, api.ConditionAccepted)
		if c == nil || c.Status != metav1.ConditionFalse || c.ObservedGeneration != kc.Generation {
			return fmt.Errorf("generation %d, condition %+v", kc.Generation, c)
		}
		for _, text := range says {
			if !strings.Contains(c.Message, text) {
				return fmt.Errorf("the condition does not say %q: %s", text, c.Message)
			}
		}
		return nil
	}
}

// applyAfterUpMeetsNoConflict tells that what `up` applied is the user's own: numbers stay numbers, and a key that is
// taken out of the file goes.
func applyAfterUpMeetsNoConflict(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Apply(stand.Combined(version, 1, "background.threads: 11"))
	s.WaitReady()
	s.Apply(stand.Combined(version, 1))
	s.WaitReady()
	if v, there := s.Cluster().Spec.Config["background.threads"]; there {
		t.Errorf("background.threads=%s stayed though it is in the file no more", v)
	}
	var raw metav1.PartialObjectMetadata
	raw.SetGroupVersionKind(api.GroupVersion.WithKind("KafkaCluster"))
	if err := s.Client().Get(t.Context(), s.Key(), &raw); err != nil {
		t.Fatal(err)
	}
	for _, m := range raw.ManagedFields {
		if m.Manager != cli.FieldManager && m.FieldsV1 != nil && strings.Contains(m.FieldsV1.GetRawString(), "f:config") {
			t.Errorf("%s owns part of the configuration: %s", m.Manager, m.FieldsV1.GetRawString())
		}
	}
}
