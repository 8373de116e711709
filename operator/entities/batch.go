package entities

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	entities "castellan.dev/castellan/kafka/entities"
)

// plan looks at these keys.
func (k *keeper) plan(keys []key, now time.Time) core.Plan {
	var all core.Plan
	for _, one := range keys {
		var p core.Plan
		if one.kind == core.KindTopic {
			p = k.world.Topic(one.name, now)
		} else {
			p = k.world.User(one.name, now)
		}
		all.Changes = append(all.Changes, p.Changes...)
		all.Verdicts = append(all.Verdicts, p.Verdicts...)
		for topic, factor := range p.Factors {
			if all.Factors == nil {
				all.Factors = map[string]int{}
			}
			all.Factors[topic] = factor
		}
		k.again(p.Again)
	}
	return all
}

// batch brings these topics and principals about, and says how they are.
func (k *keeper) batch(ctx context.Context, keys []key) {
	p := k.plan(keys, k.r.Now())
	secrets := k.secrets(ctx, p.Verdicts)
	if secrets.changed {
		p = k.plan(keys, k.r.Now())
	}
	failed := k.holds(ctx, p.Verdicts)
	k.change(ctx, core.Without(p.Changes, failed), secrets)
	p = k.plan(keys, k.r.Now())
	if k.world.ReadAgain() {
		k.readSoon(k.r.Now())
	}
	k.conclude(ctx, p, keys)
	k.replicas(ctx, p.Factors)
}

// change does changes in Kafka.
func (k *keeper) change(ctx context.Context, changes []core.Change, secrets *secretWork) {
	if len(changes) == 0 {
		return
	}
	c, err := k.reach(ctx)
	if err != nil {
		k.world.Unreadable(err.Error())
		results := make([]core.Result, len(changes))
		for i := range results {
			results[i] = core.Result{Outcome: core.NotTried, Reason: err.Error()}
		}
		k.world.Settle(changes, results, k.r.Now())
		return
	}
	results := entities.Apply(ctx, c, changes, secrets.password)
	k.world.Settle(changes, results, k.r.Now())
	for i, one := range changes {
		if results[i].Outcome == core.Done {
			k.acted[one.Owner] = true
		}
	}
	k.tellChanges(ctx, changes, results)
}

// conclude writes how objects are, but for those with more to do at once.
func (k *keeper) conclude(ctx context.Context, p core.Plan, keys []key) {
	now := k.r.Now()
	pending := map[key]bool{}
	for _, c := range p.Changes {
		pending[k.claims[c.Owner]] = true
	}
	for _, v := range p.Verdicts {
		if v.Write {
			pending[k.claims[v.Ref]] = true
		}
	}
	for _, one := range keys {
		if !pending[one] {
			delete(k.rounds, one)
			continue
		}
		// A few rounds follow each other, as when a topic turns out to exist.
		if k.rounds[one]++; k.rounds[one] < 4 {
			k.before.add(one)
		} else {
			k.later[one] = now.Add(soon)
		}
	}
	var say []core.Verdict
	for _, v := range p.Verdicts {
		if pending[k.claims[v.Ref]] && k.rounds[k.claims[v.Ref]] < 4 {
			continue
		}
		if v.Ref.Kind == core.KindUser && v.State == core.InForce && !v.Verified {
			continue // once it is verified
		}
		say = append(say, v)
	}
	k.say(ctx, say)
}

// verify reads principals again that were changed, and says how they are.
func (k *keeper) verify(ctx context.Context) {
	if k.cluster == nil || k.world == nil {
		return
	}
	now := k.r.Now()
	names := k.world.Unread()
	busy := k.before.len()+k.after.len() > 0
	if len(names) == 0 || (busy || !k.unreadable.IsZero()) && now.Before(k.verifyAt) {
		return
	}
	k.verifyAt = now.Add(verifyPause)
	c, err := k.reach(ctx)
	if err == nil {
		var read map[string]*core.Principal
		if read, err = entities.ReadPrincipals(ctx, c, names); err == nil {
			k.world.SetPrincipals(names, read)
		}
	}
	if err != nil {
		k.log.WarnContext(ctx, "principals not read again after a change; it is tried again", slog.Any("error", err))
		k.verifyAt = k.r.Now().Add(readPause)
		if k.unreadable.IsZero() {
			k.unreadable = now
		}
		k.readSoon(now)
		return
	}
	keys := make([]key, 0, len(names))
	for _, name := range names {
		keys = append(keys, key{core.KindUser, name})
	}
	k.conclude(ctx, k.plan(keys, k.r.Now()), keys)
}

// each runs one for each item, some at a time, and takes what they return back in order.
func each[T any](items []T, one func(T) error) []error {
	errs := make([]error, len(items))
	var group errgroup.Group
	group.SetLimit(writers)
	for i := range items {
		group.Go(func() error {
			errs[i] = one(items[i])
			return nil
		})
	}
	_ = group.Wait() // each has its own
	return errs
}

// holds writes those that verdicts ask for, and returns whose could not be.
func (k *keeper) holds(ctx context.Context, verdicts []core.Verdict) map[core.Ref]bool {
	failed := map[core.Ref]bool{}
	var write []core.Verdict
	for _, v := range verdicts {
		if v.Write && k.objects[v.Ref] != nil && string(k.objects[v.Ref].GetUID()) == v.UID {
			write = append(write, v)
		}
	}
	var mu sync.Mutex
	answers := map[core.Ref]client.Object{}
	errs := each(write, func(v core.Verdict) error {
		if err := k.r.Hold(ctx, v.Ref.Namespace); err != nil {
			return err
		}
		answer, err := k.patchHold(ctx, k.objects[v.Ref], v.Hold)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		answers[v.Ref] = answer
		return nil
	})
	for i, v := range write {
		if errs[i] == nil {
			k.answered(ctx, v.Ref, answers[v.Ref])
			continue
		}
		failed[v.Ref] = true
		k.later[k.claims[v.Ref]] = k.r.Now().Add(soon)
		if !apierrors.IsConflict(errs[i]) && !apierrors.IsNotFound(errs[i]) {
			k.log.WarnContext(ctx, "hold not written, so nothing is changed in Kafka; it is tried again", slog.String("object", v.Ref.String()), slog.Any("error", errs[i]))
		}
	}
	return failed
}

// answered takes the answer to our own write.
func (k *keeper) answered(ctx context.Context, ref core.Ref, o client.Object) {
	o.SetManagedFields(nil)
	k.objects[ref] = o
	if k.world != nil {
		k.claim(ctx, ref, o)
	}
}

// patchHold writes annotation and finalizer in one request; an empty hold takes both away.
func (k *keeper) patchHold(ctx context.Context, o client.Object, hold string) (client.Object, error) { //nolint:ireturn // either kind
	finalizers := slices.DeleteFunc(slices.Clone(o.GetFinalizers()), func(f string) bool { return f == api.HoldFinalizer })
	var annotation any
	if hold != "" {
		annotation, finalizers = hold, append(finalizers, api.HoldFinalizer)
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": o.GetUID(), "resourceVersion": o.GetResourceVersion(), "finalizers": finalizers,
		"annotations": map[string]any{api.HoldAnnotation: annotation},
	}})
	if err != nil {
		return nil, fmt.Errorf("write the hold of %s: %w", o.GetName(), err)
	}
	answer := shellOf(o)
	if err := k.r.Writer.Patch(ctx, answer, client.RawPatch(types.MergePatchType, body), fieldOwner); err != nil {
		return nil, err
	}
	return answer, nil
}

// shellOf is an object of the same kind and name, to be filled by an answer.
func shellOf(o client.Object) client.Object { //nolint:ireturn // either kind
	at := metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName()}
	if _, ok := o.(*api.KafkaTopic); ok {
		return &api.KafkaTopic{ObjectMeta: at}
	}
	return &api.KafkaUser{ObjectMeta: at}
}
