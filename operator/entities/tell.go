package entities

import (
	"context"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
)

// tell records an event where somebody has to do something, or no longer. What goes as it should
// says so in the status only: events of ten thousand topics would be read by nobody.
func (k *keeper) tell(o client.Object, was, is core.Verdict) {
	if is.State == core.Refused && (was.State != core.Refused || was.Reason != is.Reason) {
		k.r.Events.Eventf(o, nil, corev1.EventTypeWarning, is.Reason, is.Reason, "%s", short(is.Message))
	}
	if was.State == core.Refused && is.State == core.InForce {
		k.r.Events.Eventf(o, nil, corev1.EventTypeNormal, is.Reason, is.Reason, "%s", short(is.Message))
	}
}

// tellChanges records what was put back that somebody else had changed, and what was deleted.
func (k *keeper) tellChanges(ctx context.Context, changes []core.Change, results []core.Result) {
	for i, c := range changes {
		o := k.objects[c.Owner]
		k.log.DebugContext(ctx, "change", slog.String("object", c.Owner.String()), slog.String("what", core.Phrase(c.Do)), slog.String("outcome", string(results[i].Outcome)))
		if o == nil || results[i].Outcome != core.Done {
			continue
		}
		switch {
		case c.Removal:
			if _, topic := c.Do.(core.DeleteTopic); topic {
				k.r.Events.Eventf(o, nil, corev1.EventTypeNormal, "Deleted", "Delete", "Did: %s", short(core.Phrase(c.Do)))
			}
		case wasInForce(o):
			k.r.Events.Eventf(o, nil, corev1.EventTypeNormal, "PutBack", "PutBack", "It was changed by somebody else. Did: %s", short(core.Phrase(c.Do)))
		}
	}
}

// wasInForce says whether an object's status tells that what it asks for is in Kafka. What was told in memory is not asked:
// another operator may have said it.
func wasInForce(o client.Object) bool {
	var conditions []metav1.Condition
	switch o := o.(type) {
	case *api.KafkaTopic:
		conditions = o.Status.Conditions
	case *api.KafkaUser:
		conditions = o.Status.Conditions
	}
	ready := meta.FindStatusCondition(conditions, api.ConditionReady)
	return ready != nil && ready.Status == metav1.ConditionTrue && ready.ObservedGeneration == o.GetGeneration()
}

func (k *keeper) tellCluster(ctx context.Context, do core.Action) {
	k.log.InfoContext(ctx, "done for the cluster", slog.String("what", core.Phrase(do)))
	k.r.Events.Eventf(k.cluster, nil, corev1.EventTypeNormal, "Entities", "Entities", "Did: %s", short(core.Phrase(do)))
}

func short(text string) string {
	const most = 900
	if len(text) > most {
		return text[:most]
	}
	return text
}
