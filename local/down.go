package local

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// DownOptions are what a user chooses.
type DownOptions struct {
	Dir Dir
	Programs
	Timeout  time.Duration
	Progress *Progress
}

// Down stops every cluster in order, keeps its data, and then stops agent, operator and
// control plane. When the clusters do not stop in time everything is left running and the
// error says what still runs.
func Down(ctx context.Context, o DownOptions) error {
	if !o.Dir.Exists() {
		o.Progress.Done("nothing runs: %s was never started", o.Dir)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	state, alive := readState(o.Dir)
	if !alive && state.Phase == PhaseStopped {
		o.Progress.Done("nothing runs: %s is stopped already", o.Dir)
		return nil
	}
	if !alive || state.Phase != PhaseReady {
		// Without a server nobody could stop the nodes in order.
		if _, err := ensureServer(ctx, o.Dir, o.Programs, o.Progress); err != nil {
			return fmt.Errorf("stop the clusters in order: %w", err)
		}
	}
	if err := stopClusters(ctx, o); err != nil {
		return err
	}
	o.Progress.Doing("stopping agent, operator and control plane")
	if err := stopServer(context.WithoutCancel(ctx), o.Dir); err != nil {
		return err
	}
	o.Progress.Done("everything is stopped; the data is kept in %s", o.Dir)
	return nil
}

func stopClusters(ctx context.Context, o DownOptions) error {
	config, err := restConfig(o.Dir.Kubeconfig())
	if err != nil {
		return err
	}
	c, err := newClient(config)
	if err != nil {
		return err
	}
	var clusters api.KafkaClusterList
	if err := c.List(ctx, &clusters); err != nil {
		return fmt.Errorf("list the KafkaClusters to stop: %w", err)
	}
	for i := range clusters.Items {
		if clusters.Items[i].Spec.State == api.StateStopped {
			continue
		}
		if err := setState(ctx, c, client.ObjectKeyFromObject(&clusters.Items[i]), api.StateStopped); err != nil {
			return err
		}
	}
	return awaitStopped(ctx, c, o)
}

func awaitStopped(ctx context.Context, c client.Client, o DownOptions) error {
	ticker := time.NewTicker(clusterPoll)
	defer ticker.Stop()
	var left []string
	for {
		now, err := notStopped(ctx, c)
		if err == nil {
			left = now
			if len(left) == 0 {
				return nil
			}
			o.Progress.Doing("stopping Kafka: %s", strings.Join(left, "; "))
		}
		select {
		case <-ctx.Done():
			why := context.Cause(ctx)
			if errors.Is(why, context.DeadlineExceeded) {
				why = fmt.Errorf("after %s: %w", o.Timeout, why)
			}
			return fmt.Errorf("not everything is stopped, and server, operator and agent still run (%s): %w; run `castellan down` again", strings.Join(left, "; "), why)
		case <-ticker.C:
		}
	}
}

// notStopped lists what still runs or may still be started: an operator that has not seen
// the wish to stop could be making nodes just now.
func notStopped(ctx context.Context, c client.Client) ([]string, error) {
	var clusters api.KafkaClusterList
	if err := c.List(ctx, &clusters); err != nil {
		return nil, fmt.Errorf("list the KafkaClusters: %w", err)
	}
	var left []string
	for i := range clusters.Items {
		if kc := &clusters.Items[i]; kc.Status.ObservedGeneration < kc.Generation {
			left = append(left, fmt.Sprintf("%s/%s waits for the operator", kc.Namespace, kc.Name))
		}
	}
	var nodes api.KafkaNodeList
	if err := c.List(ctx, &nodes); err != nil {
		return nil, fmt.Errorf("list the KafkaNodes: %w", err)
	}
	for _, n := range nodes.Items {
		if n.Status.State != api.NodeStopped {
			left = append(left, n.Namespace+"/"+n.Spec.ClusterName+" "+describeNode(n))
		}
	}
	return left, nil
}
