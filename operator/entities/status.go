package entities

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
)

// said is one verdict with what is to be written of it.
type said struct {
	core.Verdict
	object client.Object
	status any // nil where the finalizer goes
}

// say writes verdicts that differ from what was said last.
func (k *keeper) say(ctx context.Context, verdicts []core.Verdict) {
	now := k.r.Now()
	var write []said
	for _, v := range verdicts {
		o := k.objects[v.Ref]
		if o == nil || string(o.GetUID()) != v.UID {
			continue
		}
		v = k.withFault(v)
		switch {
		case v.Release:
			write = append(write, said{Verdict: v, object: o})
		case v == k.told[v.Ref] && !k.acted[v.Ref]:
		case k.wait(v, now):
			k.later[k.claims[v.Ref]] = k.unreadable.Add(patience + soon)
		default:
			status, same := k.statusOf(o, v, now)
			if same {
				k.told[v.Ref] = v
				delete(k.acted, v.Ref)
				continue
			}
			write = append(write, said{v, o, status})
		}
	}
	k.write(ctx, write)
}

func (k *keeper) write(ctx context.Context, all []said) {
	var mu sync.Mutex
	answers := map[core.Ref]client.Object{}
	errs := each(all, func(s said) error {
		answer, err := k.writeOne(ctx, s)
		if err == nil {
			mu.Lock()
			answers[s.Ref] = answer
			mu.Unlock()
		}
		return err
	})
	for i, s := range all {
		switch err := errs[i]; {
		case err == nil:
			if !s.Release {
				k.tell(s.object, k.told[s.Ref], s.Verdict)
			}
			k.told[s.Ref] = s.Verdict
			delete(k.acted, s.Ref)
			k.answered(ctx, s.Ref, answers[s.Ref])
		case apierrors.IsNotFound(err): // it is gone, says the watch soon
		default:
			k.later[k.claims[s.Ref]] = k.r.Now().Add(soon)
			if !apierrors.IsConflict(err) {
				k.log.WarnContext(ctx, "status not written; it is tried again", slog.String("object", s.Ref.String()), slog.Any("error", err))
			}
		}
	}
	for _, s := range all {
		if s.Release {
			if err := k.r.Release(ctx, s.Ref.Namespace); err != nil {
				k.log.WarnContext(ctx, "rights in a namespace not given up; the next pass over its clusters does", slog.Any("error", err))
			}
			break
		}
	}
}

func (k *keeper) writeOne(ctx context.Context, s said) (client.Object, error) { //nolint:ireturn // either kind
	if s.Release {
		if !slices.Contains(s.object.GetFinalizers(), api.HoldFinalizer) {
			return s.object.DeepCopyObject().(client.Object), nil //nolint:forcetypeassert // a copy of one
		}
		return k.patchHold(ctx, s.object, "")
	}
	body, err := explicit(s.status)
	if err != nil {
		return nil, err
	}
	answer := shellOf(s.object)
	return answer, k.patchStatus(ctx, answer, nil, body, s.UID)
}

// patchStatus writes these members of a status; of is the version that they were made from, where
// that matters.
func (k *keeper) patchStatus(ctx context.Context, shell, of client.Object, status map[string]any, uid ...string) error {
	metadata := map[string]any{}
	if of != nil {
		metadata["uid"], metadata["resourceVersion"] = of.GetUID(), of.GetResourceVersion()
	}
	for _, one := range uid {
		metadata["uid"] = one
	}
	body, err := json.Marshal(map[string]any{"metadata": metadata, "status": status})
	if err != nil {
		return fmt.Errorf("write the status of %s: %w", shell.GetName(), err)
	}
	return k.r.Writer.Status().Patch(ctx, shell, client.RawPatch(types.MergePatchType, body), fieldOwner)
}

// explicit is a status with null for what it does not have, so that a patch of it needs no base.
func explicit(status any) (map[string]any, error) {
	data, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, err
	}
	members := []string{"observedGeneration", "conditions", "topicName", "topicID", "partitions", "replicas"}
	if _, user := status.(api.KafkaUserStatus); user {
		members = []string{"observedGeneration", "conditions", "principal", "acls", "verifiedAt", "secretName"}
	}
	for _, m := range members {
		if _, ok := out[m]; !ok {
			out[m] = nil
		}
	}
	return out, nil
}

// statusOf is the status that says a verdict, and whether the object has it already.
func (k *keeper) statusOf(o client.Object, v core.Verdict, now time.Time) (status any, same bool) {
	switch o := o.(type) {
	case *api.KafkaTopic:
		s := topicStatus(o, v)
		return s, equality.Semantic.DeepEqual(s, o.Status)
	case *api.KafkaUser:
		s := userStatus(o, v)
		if k.acted[v.Ref] || o.Status.VerifiedAt == nil || o.Status.ObservedGeneration != o.Generation {
			if v.State == core.InForce && v.Verified {
				s.VerifiedAt = &metav1.Time{Time: now.UTC().Truncate(time.Second)}
			}
		}
		return s, equality.Semantic.DeepEqual(s, o.Status)
	}
	return nil, true
}

func topicStatus(o *api.KafkaTopic, v core.Verdict) api.KafkaTopicStatus {
	return api.KafkaTopicStatus{
		ObservedGeneration: v.Generation, Conditions: conditionsOf(o.Status.Conditions, v),
		TopicName: core.TopicName(o), TopicID: v.Topic.ID, Partitions: v.Topic.Partitions, Replicas: v.Topic.Replicas,
	}
}

func userStatus(o *api.KafkaUser, v core.Verdict) api.KafkaUserStatus {
	s := api.KafkaUserStatus{
		ObservedGeneration: v.Generation, Conditions: conditionsOf(o.Status.Conditions, v),
		Principal: "User:" + core.PrincipalName(o), ACLs: core.Expand(&o.Spec), VerifiedAt: o.Status.VerifiedAt,
	}
	if len(s.ACLs) == 0 {
		s.ACLs = nil
	}
	if o.Spec.Authentication.Type != api.UserExternal {
		s.SecretName = secretName(o)
	}
	return s
}

// conditionsOf a verdict, with the times of transitions of those that were there.
func conditionsOf(was []metav1.Condition, v core.Verdict) []metav1.Condition {
	want := v.Conditions()
	var kept []metav1.Condition
	for _, c := range was {
		if meta.FindStatusCondition(want, c.Type) != nil {
			kept = append(kept, c)
		}
	}
	for _, c := range want {
		meta.SetStatusCondition(&kept, c)
	}
	return kept
}
