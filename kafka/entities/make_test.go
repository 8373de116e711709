package entities_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/entities"
	"castellan.dev/castellan/kafka/kafkatest"
)

func owner(kind core.Kind, name string) core.Ref {
	return core.Ref{Kind: kind, NamespacedName: types.NamespacedName{Namespace: "team", Name: name}}
}

func cluster(t *testing.T, f *kafkatest.Fake) *kafka.Cluster {
	t.Helper()
	all := kafka.NewClients(kafka.Options{Timeout: 5 * time.Second})
	t.Cleanup(all.Close)
	return all.Cluster("default/fake", f.Target())
}

func apply(t *testing.T, c *kafka.Cluster, changes ...core.Change) []core.Result {
	t.Helper()
	return entities.Apply(t.Context(), c, changes, passwords)
}

func passwords(_ context.Context, ref core.SecretRef) ([]byte, error) {
	if ref.Name == "missing" {
		return nil, errors.New("Secret team/missing is not there: create it")
	}
	return []byte("password of " + ref.Digest), nil
}

func read(t *testing.T, c *kafka.Cluster, keys ...string) *core.Snapshot {
	t.Helper()
	s, err := entities.Read(t.Context(), c, entities.Ask{Keys: func(string) []string { return keys }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// of makes one change for each action, all of one object.
func of(ref core.Ref, actions ...core.Action) []core.Change {
	var out []core.Change
	for _, a := range actions {
		out = append(out, core.Change{Owner: ref, Do: a})
	}
	return out
}

func grant(effect api.ACLEffect, name string, op api.ACLOperation) core.Grant {
	return core.Grant{Type: api.ACLTopic, Name: name, Pattern: api.ACLPrefixed, Operation: op, Effect: effect, Host: "*"}
}

func outcomes(results []core.Result) string {
	text := ""
	for _, r := range results {
		text += string(r.Outcome)
		if r.Code != "" {
			text += " " + r.Code
		}
		text += "\n"
	}
	return text
}

func wantOutcomes(t *testing.T, results []core.Result, want ...core.Outcome) {
	t.Helper()
	if len(results) != len(want) {
		t.Fatalf("%d results, want %d", len(results), len(want))
	}
	for i, r := range results {
		if r.Outcome != want[i] {
			t.Errorf("result %d is %s (%s %s), want %s", i, r.Outcome, r.Code, r.Reason, want[i])
		}
	}
}

func many[T any](n int, one func(int) T) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = one(i)
	}
	return out
}

func name(prefix string, i int) string { return fmt.Sprintf("%s-%05d", prefix, i) }
