package kube

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
)

// Bounds of looking for events, which nobody watches: there are too many.
const (
	// eventPatience is how long an object may wait before its events are looked for. What
	// is just being made needs none.
	eventPatience = 10 * time.Second
	// eventAge is how long what was found is taken for the newest.
	eventAge = time.Minute
	// forgotten is how long nobody asks for an object that waits no more: more than the
	// time between two looks at a node that is not ready.
	forgotten = 30 * time.Second
	// eventLists a second, over all objects, and how many at a time after a rest. Each holds
	// up a look at a node, which must not slow down the making of others.
	eventLists, eventsAtOnce = 0.5, 10
)

// warnings finds the Warning events of objects that wait. It is safe for concurrent use.
type warnings struct {
	live  client.Reader
	pace  flowcontrol.PassiveRateLimiter
	mu    sync.Mutex
	about map[types.UID]*waiting
}

// waiting is an object whose events may be wanted.
type waiting struct {
	since, asked time.Time
	listed       time.Time // zero: not yet
	text         string
}

func newWarnings(live client.Reader) *warnings {
	return &warnings{live: live, pace: flowcontrol.NewTokenBucketPassiveRateLimiter(eventLists, eventsAtOnce), about: map[types.UID]*waiting{}}
}

// newest is the newest Warning event about an object that waits: as it was within eventAge,
// and empty in the beginning. Without the right to list events there is none.
func (w *warnings) newest(ctx context.Context, about client.Object) (string, error) {
	text, look := w.known(about.GetUID(), time.Now())
	if !look {
		return text, nil
	}
	var events corev1.EventList
	err := w.live.List(ctx, &events, client.InNamespace(about.GetNamespace()), client.MatchingFields{"involvedObject.uid": string(about.GetUID())})
	if err != nil && !apierrors.IsForbidden(err) {
		return "", fmt.Errorf("look for events of %T %s: %w", about, about.GetName(), err)
	}
	pod, isPod := about.(*corev1.Pod)
	if isPod && pod.Spec.NodeName != "" {
		// It was scheduled since.
		events.Items = slices.DeleteFunc(events.Items, func(e corev1.Event) bool { return e.Reason == "FailedScheduling" })
	}
	text = newestWarning(events.Items)
	w.mu.Lock()
	defer w.mu.Unlock()
	if object := w.about[about.GetUID()]; object != nil {
		object.text = text
	}
	return text, nil
}

// known is what was found before, and whether it is time to look, which it then notes.
func (w *warnings) known(uid types.UID, now time.Time) (text string, look bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	object := w.about[uid]
	if object == nil {
		object = &waiting{}
		w.about[uid] = object
	}
	if now.Sub(object.asked) > forgotten {
		object.since, object.text = now, "" // it waits anew
	}
	object.asked = now
	due := now.Sub(object.since) >= eventPatience && now.Sub(object.listed) >= eventAge
	if !due || !w.pace.TryAccept() {
		return object.text, false
	}
	for uid, other := range w.about {
		if now.Sub(other.asked) > eventAge {
			delete(w.about, uid)
		}
	}
	object.listed = now
	return object.text, true
}

// suspect is the object whose events may say why a pod does not run.
func suspect(node *api.KafkaNode, seen *corekube.Seen) client.Object { //nolint:ireturn // one of three kinds
	pod := seen.Pod
	switch {
	case pod == nil && seen.StatefulSet != nil:
		return seen.StatefulSet
	case pod == nil:
		return nil
	case pod.Spec.NodeName == "":
		for _, v := range node.Spec.Volumes {
			if claim := seen.Claims[v.Claim]; claim != nil && claim.Status.Phase != corev1.ClaimBound {
				return claim
			}
		}
	case pod.Status.Phase == corev1.PodPending:
		return pod
	}
	return nil
}

func newestWarning(events []corev1.Event) string {
	text, at := "", time.Time{}
	for _, e := range events {
		seen := slices.MaxFunc([]time.Time{e.LastTimestamp.Time, e.EventTime.Time, e.CreationTimestamp.Time}, time.Time.Compare)
		if e.Type == corev1.EventTypeWarning && !seen.Before(at) {
			text, at = e.Reason+": "+e.Message, seen
		}
	}
	return text
}
