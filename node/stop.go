package node

import (
	"context"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/kafka"
)

const (
	// stopLook is how often a combined node that stops is asked whether it knows an active
	// controller.
	stopLook = time.Second
	// leaderlessFor is how long there must be none before the shutdown is given up. An
	// election takes a second or two.
	leaderlessFor = 8 * time.Second
)

// stop ends Kafka: a controlled shutdown within the grace, then SIGKILL. It returns why Kafka
// had to be killed, or "" when it ended by itself.
func (s *supervisor) stop(ctx context.Context, jvm *child) string {
	s.report.set(func(r *layout.Report) {
		r.State, r.Ready, r.InSync, r.Reason, r.Message = api.NodeStopping, false, false, "Stopping", fmt.Sprintf("controlled shutdown, at most %s", s.config.StopGrace)
	})
	s.log.InfoContext(ctx, "stop Kafka", slog.String("grace", s.config.StopGrace.String()))
	if err := jvm.signal(syscall.SIGTERM); err != nil {
		s.log.ErrorContext(ctx, "ask Kafka to stop", errorAttr(err))
	}
	looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.StopGrace)
	defer cancel()
	why := s.awaitEnd(looking, jvm)
	if why == "" {
		return ""
	}
	if err := jvm.signal(syscall.SIGKILL); err != nil {
		s.log.ErrorContext(ctx, "kill Kafka", errorAttr(err))
	}
	<-jvm.done
	return why
}

// awaitEnd waits for Kafka's end and says why it is waited for no longer. The last combined
// nodes of a cluster can get no controlled shutdown approved; waiting for it is in vain.
func (s *supervisor) awaitEnd(ctx context.Context, jvm *child) string {
	probe := s.stopProbe(ctx)
	if probe != nil {
		defer probe.Close()
	}
	ticker := time.NewTicker(stopLook)
	defer ticker.Stop()
	var since time.Time
	for {
		select {
		case <-jvm.done:
			return ""
		case <-ctx.Done():
			return fmt.Sprintf("Kafka did not end within %s of being asked and was killed", s.config.StopGrace)
		case now := <-ticker.C:
			if since = leaderlessSince(ctx, probe, since, now); !since.IsZero() && now.Sub(since) >= leaderlessFor {
				return "no active controller is left that could approve a controlled shutdown, so Kafka was killed"
			}
		}
	}
}

// leaderlessSince is when the node began to know no active controller; zero while it knows
// one or gives no answer.
func leaderlessSince(ctx context.Context, probe *kafka.Probe, since, now time.Time) time.Time {
	if probe == nil {
		return time.Time{}
	}
	ctx, cancel := context.WithTimeout(ctx, stopLook)
	defer cancel()
	leaderless, err := probe.Leaderless(ctx)
	switch {
	case err != nil || !leaderless:
		return time.Time{}
	case since.IsZero():
		return now
	default:
		return since
	}
}

// stopProbe asks a combined node's own controller; other nodes need none: a broker stops
// before the controllers do, and a controller's end needs nobody's approval.
func (s *supervisor) stopProbe(ctx context.Context) *kafka.Probe {
	if !layout.HasRole(s.static, api.RoleBroker) || !layout.HasRole(s.static, api.RoleController) {
		return nil
	}
	own, err := s.readIdentity()
	if err != nil {
		s.log.WarnContext(ctx, "stop without looking for a controller", errorAttr(err))
		return nil
	}
	return kafka.NewProbe(s.self(own))
}
