package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/test/e2e/stand"
)

// drained is the broker that is emptied, and stays.
const drained int32 = 104

// drainDeleted deletes a drain half-way: what is under way ends, nothing else begins.
func drainDeleted(t *testing.T, s *stand.Stand) {
	t.Helper()
	pid := s.JVMPIDs()[drained]
	watch := watchMoves(t, s, bulk)
	s.Must("drain", "kafka", "--nodes", stand.IDs(drained), "--rate", "512Ki")
	op := moving(t, s, api.OperationDrain)
	s.Eventually("replicas are on their way", 2*time.Minute, watch.began(1))
	s.Must("delete", "operation", op.Name)
	s.Eventually("the operation is gone", 5*time.Minute, s.Gone(op))
	s.Eventually("no throttle and no move is left", time.Minute, unthrottled(t, s))
	if seen := watch.end(); len(seen.To[drained]) > 0 {
		t.Errorf("partitions %v were moved to broker %d, which was drained", seen.To[drained], drained)
	}
	stays(t, s, pid)
	s.Throughout("nothing is moved any more", 5*time.Second, unthrottled(t, s))
	apartInRacks(t, s)
}

// stays wants the broker to run as ever and to hold replicas, and Kafka to be whole.
func stays(t *testing.T, s *stand.Stand, pid int) {
	t.Helper()
	s.WaitReady()
	s.Eventually("every replica is in sync", 2*time.Minute, s.InSync())
	if now := s.JVMPIDs()[drained]; now != pid {
		t.Errorf("the JVM of broker %d was %d and is %d", drained, pid, now)
	}
	if n := s.Node(drained); n.Spec.State != api.StateRunning && n.Spec.State != "" || !n.Status.Ready {
		t.Errorf("broker %d shall be %s, and is %s: %s", drained, n.Spec.State, n.Status.State, n.Status.Message)
	}
	held := 0
	for _, on := range placed(t, s) {
		if slices.Contains(on, drained) {
			held++
		}
	}
	if known := registeredBrokers(t, s); held == 0 || !slices.Contains(known, drained) {
		t.Errorf("broker %d holds %d replicas, registered are %v", drained, held, known)
	}
}

// leaveTakenBack lets a broker leave, kills the operator and another broker, and takes the wish back.
func leaveTakenBack(t *testing.T, s *stand.Stand) {
	t.Helper()
	const victim int32 = 103
	pid := s.JVMPIDs()[drained]
	watch := watchMoves(t, s, bulk)
	s.Apply(scaled(4, "512Ki", 102, drained))
	op := moving(t, s, api.OperationScale)
	s.Eventually("replicas are on their way", 2*time.Minute, watch.began(1))
	killOperator(t, s, 0)
	killed := s.JVMPIDs()[victim]
	s.Kill(killed)
	s.Eventually(fmt.Sprintf("broker %d is back", victim), 3*time.Minute, func(context.Context) error {
		if n := s.Node(victim); n.Status.Process == nil || int(n.Status.Process.PID) == killed || !n.Status.Ready {
			return fmt.Errorf("it is %s: %s", n.Status.State, n.Status.Message)
		}
		return nil
	})
	if now := operationNow(t, s, op.Name); now.Status.Phase.Final() {
		t.Fatalf("operation %s is over too early to take anything back: %s: %s", op.Name, now.Status.Phase, now.Status.Message)
	}
	s.Apply(scaled(5, "3Mi", 102))
	s.Eventually("the operation is over", 5*time.Minute, phase(s, op.Name, api.OperationCancelled, "superseded"))
	s.Eventually("no throttle and no move is left", 2*time.Minute, unthrottled(t, s))
	if seen := watch.end(); len(seen.Throttled) == 0 {
		t.Error("no throttle was seen while it moved")
	}
	stays(t, s, pid)
	apartInRacks(t, s)
}
