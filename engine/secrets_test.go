package engine_test

import (
	"strings"
	"testing"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/engine"
)

// TestABadSecretStopsNoNode: a listener whose users are not there yet reaches no node until
// they are, and the status says what is missing. What needs none of it changes meanwhile.
func TestABadSecretStopsNoNode(t *testing.T) {
	w, kc := newWorld(), newCluster()
	w.settle(t, kc, 60)
	w.faults = []engine.SecretFault{{
		Problem: cluster.Problem{Path: "spec.listeners[0].authentication.plain.usersSecretRef", Severity: cluster.Warning, Reason: "there is no Secret kafka/users", Remedy: "create it"},
		Key:     layout.UsersKey("legacy"),
	}}
	before := processes(w)
	kc.Generation++
	kc.Spec.Listeners = []api.Listener{{Name: "legacy", Port: 9092, TLS: &api.ListenerTLS{}, Authentication: api.Authentication{
		Type: api.AuthenticationPlain, Plain: &api.PlainAuthentication{UsersSecretRef: api.SecretRef{Name: "users"}},
	}}}
	for range 20 {
		w.pass(t, kc)
	}
	for id, hash := range processes(w) {
		if hash != before[id] {
			t.Errorf("node %d was changed, and would wait for a file", id)
		}
	}
	status := w.pass(t, kc).Status
	for _, kind := range []string{api.ConditionAccepted, api.ConditionStalled} {
		if c := condition(t, status, kind); !strings.Contains(c.Message, "no Secret kafka/users") {
			t.Errorf("%s says %q", kind, c.Message)
		}
	}
	if got := condition(t, status, api.ConditionReady); got.Status == "True" {
		t.Errorf("ready though the spec is not in force: %+v", got)
	}

	// Nodes that have the last good content are not held up.
	w.faults[0].Held = map[int32]bool{0: true, 1: true, 2: true}
	w.settle(t, kc, 60)
	for id, hash := range processes(w) {
		if hash == before[id] {
			t.Errorf("node %d is held up though it has what it needs", id)
		}
	}
}

func processes(w *world) map[int32]string {
	out := map[int32]string{}
	for _, n := range w.sim.See().Nodes {
		out[n.Spec.NodeID] = layout.ProcessHash(n.Spec.Process)
	}
	return out
}
