package entities

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
)

// mostTopics is how many topics one Operation names at most.
const mostTopics = 1000

func asksForReplicas(op *api.Operation) bool {
	return op.Spec.Type == api.OperationRebalance && op.Spec.Rebalance != nil && op.Spec.Rebalance.Mode == api.RebalanceReplicationFactor
}

// replicas makes the Operations by which the balancer gives topics other replication factors: one
// for each factor, and none for a topic that one for that factor is open for.
func (k *keeper) replicas(ctx context.Context, factors map[string]int) {
	if len(factors) == 0 {
		return
	}
	var list api.OperationList
	if err := k.r.Client.List(ctx, &list, client.InNamespace(k.key.Namespace)); err != nil {
		k.log.WarnContext(ctx, "Operations not listed, so replicas do not change now; it is tried again", slog.Any("error", err))
		k.again(k.r.Now().Add(readPause))
		return
	}
	wanted := map[int][]string{}
	for topic, factor := range factors {
		if !slices.ContainsFunc(list.Items, func(op api.Operation) bool { return k.isAbout(&op, topic, factor) }) {
			wanted[factor] = append(wanted[factor], topic)
		}
	}
	if len(wanted) == 0 {
		return
	}
	wishes := k.wishes()
	for _, factor := range slices.Sorted(maps.Keys(wanted)) {
		slices.Sort(wanted[factor])
		for topics := range slices.Chunk(wanted[factor], mostTopics) {
			if err := k.askForReplicas(ctx, factor, topics, wishes, list.Items); err != nil {
				k.log.WarnContext(ctx, "Operation not made; it is tried again", slog.Any("error", err))
				k.again(k.r.Now().Add(readPause))
			}
		}
	}
}

func (k *keeper) isAbout(op *api.Operation, topic string, factor int) bool {
	return asksForReplicas(op) && op.Spec.ClusterRef.Name == k.key.Name && !op.Status.Phase.Final() &&
		int(*op.Spec.Rebalance.ReplicationFactor) == factor && slices.Contains(op.Spec.Rebalance.Topics, topic)
}

// askForReplicas makes one. Its name follows from what is wanted, so that none is made twice while the
// watch has not told of it; one that did what it should and was undone is followed by another. One that
// failed or was cancelled stands until the object changes.
func (k *keeper) askForReplicas(ctx context.Context, factor int, topics []string, wishes map[string]string, there []api.Operation) error {
	sum := sha256.New()
	for _, topic := range topics {
		_, _ = fmt.Fprintf(sum, "%s %s\n", topic, wishes[topic]) // never fails
	}
	base := fmt.Sprintf("%.200s-replicas-%d-%s", k.key.Name, factor, hex.EncodeToString(sum.Sum(nil))[:8])
	name := base
	for n := 2; slices.ContainsFunc(there, func(op api.Operation) bool {
		return op.Name == name && op.Status.Phase == api.OperationSucceeded
	}); n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	to := int32(factor) //nolint:gosec // at most 100
	op := &api.Operation{
		ObjectMeta: metav1.ObjectMeta{Namespace: k.key.Namespace, Name: name},
		Spec: api.OperationSpec{
			ClusterRef: api.ClusterRef{Name: k.key.Name}, Type: api.OperationRebalance,
			Rebalance: &api.Rebalance{Mode: api.RebalanceReplicationFactor, Topics: topics, ReplicationFactor: &to},
		},
	}
	if err := k.r.Writer.Create(ctx, op, fieldOwner); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create Operation %s: %w", name, err)
	}
	return nil
}

// wishes are what asks for topics: an object in one version.
func (k *keeper) wishes() map[string]string {
	out := make(map[string]string, len(k.objects))
	for ref, o := range k.objects {
		if ref.Kind == core.KindTopic && o.GetDeletionTimestamp() == nil {
			out[k.claims[ref].name] += fmt.Sprintf("%s/%d", o.GetUID(), o.GetGeneration())
		}
	}
	return out
}
