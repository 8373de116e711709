package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"

	"castellan.dev/castellan/core/host"
	"castellan.dev/castellan/local"
	"castellan.dev/castellan/test/e2e/stand"
)

// killedJVMComesBack kills the JVM of the active controller, the hardest one to lose of combined nodes.
func killedJVMComesBack(t *testing.T, s *stand.Stand) {
	t.Helper()
	traffic := s.StartTraffic("killed", 6)
	victim := s.Cluster().Status.Quorum.Leader
	before := s.JVMPIDs()
	restarts := s.Node(victim).Status.Restarts
	s.Kill(before[victim])

	// Not the cluster's Ready at once: for a moment it still says what was.
	took := s.Eventually(fmt.Sprintf("node %d is ready again", victim), 2*time.Minute, func(context.Context) error {
		status := s.Node(victim).Status
		if status.Process == nil || int(status.Process.PID) == before[victim] || !status.Ready {
			return fmt.Errorf("its JVM was %d, its status is %+v", before[victim], status)
		}
		return nil
	})
	t.Logf("node %d was ready again after %s", victim, took.Round(time.Millisecond))
	s.WaitReady()
	s.Eventually("every replica is in sync again", time.Minute, s.InSync())
	s.Eventually("traffic goes on", time.Minute, traffic.MoreThan(traffic.Writer.Acknowledged()+200))
	traffic.End()

	after := s.JVMPIDs()
	delete(before, victim)
	delete(after, victim)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("JVMs of the other nodes (- before, + after):\n%s", diff)
	}
	status := s.Node(victim).Status
	t.Logf("status of node %d: %s", victim, status.Message)
	if status.Restarts != restarts+1 {
		t.Errorf("restarts of node %d: got %d, want %d", victim, status.Restarts, restarts+1)
	}
	if !strings.Contains(status.Message, "killed") || strings.Contains(status.Message, "\n") {
		t.Errorf("message of node %d: got %q, want one line that says that it was killed", victim, status.Message)
	}
	if !strings.Contains(s.Must("get", "kafkanode", s.Node(victim).Name, "-o", "yaml"), "restarted at") {
		t.Error("castellan get does not show what happened")
	}
}

// kafkaOutlivesEverythingAbove kills server, control plane, operator and agent at one time.
func kafkaOutlivesEverythingAbove(t *testing.T, s *stand.Stand) {
	t.Helper()
	const alone = 10 * time.Second
	traffic := s.StartTraffic("alone", 6)
	before := kafkaPIDs(s)
	above := []int{s.MustPID(stand.Server), s.MustPID(stand.ControlPlane), s.MustPID(stand.Operator), s.MustPID(stand.Agent)}
	killed := time.Now()
	s.Kill(above...)
	s.Throughout("Kafka goes on alone", alone, func(context.Context) error {
		if diff := cmp.Diff(before, kafkaPIDs(s)); diff != "" {
			return errors.New(diff)
		}
		if failed, err := traffic.Writer.Failed(); failed > 0 {
			return fmt.Errorf("%d records failed: %w", failed, err)
		}
		return nil
	})
	s.Eventually("traffic goes on without anything above", 30*time.Second, traffic.MoreThan(traffic.Writer.Acknowledged()+200))

	s.Up()
	s.Eventually("everything above Kafka runs again", time.Minute, func(ctx context.Context) error {
		for _, name := range []string{stand.Server, stand.ControlPlane, stand.Operator, stand.Agent} {
			if s.PID(name) == 0 {
				return fmt.Errorf("%s does not run", name)
			}
		}
		return agentLives(ctx, s, killed)
	})
	s.WaitReady()
	s.Throughout("up adopts what runs", 3*time.Second, func(context.Context) error {
		if diff := cmp.Diff(before, kafkaPIDs(s)); diff != "" {
			return fmt.Errorf("- before, + after:\n%s", diff)
		}
		return nil
	})
	s.Eventually("traffic goes on after up", 30*time.Second, traffic.MoreThan(traffic.Writer.Acknowledged()+200))
	if failed := traffic.End(); failed > 0 {
		t.Errorf("%d records failed", failed)
	}
}

// agentLives says whether the agent has renewed its Lease since then, so that it has looked at its processes.
func agentLives(ctx context.Context, s *stand.Stand, since time.Time) error {
	var lease coordinationv1.Lease
	key := types.NamespacedName{Namespace: host.Namespace(local.HostName), Name: host.LeaseName}
	if err := s.Client().Get(ctx, key, &lease); err != nil {
		return fmt.Errorf("read the agent's Lease: %w", err)
	}
	if at := lease.Spec.RenewTime; at == nil || !at.After(since) {
		return fmt.Errorf("the agent's Lease was last renewed at %v", at)
	}
	return nil
}
