package entities

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	entities "castellan.dev/castellan/kafka/entities"
)

// readSoon brings the next reading forward. One that is under way may have missed what it is for.
func (k *keeper) readSoon(now time.Time) {
	k.readMore = k.reading != nil
	at := k.readBegan.Add(readPause)
	if at.Before(now) {
		at = now
	}
	if k.readAt.After(at) {
		k.readAt = at
	}
}

// readIfDue begins to read Kafka, beside everything else.
func (k *keeper) readIfDue(ctx context.Context, now time.Time) {
	if k.reading != nil || now.Before(k.readAt) {
		return
	}
	k.readBegan = now
	c, err := k.reach(ctx)
	if err != nil {
		k.hasRead(reading{err: err})
		return
	}
	k.world.BeginRead()
	keys := map[string][]string{}
	for _, one := range k.claims {
		if one.kind == core.KindTopic {
			keys[one.name] = k.world.Keys(one.name)
		}
	}
	got := make(chan reading, 1)
	k.reading = got
	go func() {
		have, err := entities.Read(ctx, c, entities.Ask{Keys: func(topic string) []string { return keys[topic] }})
		got <- reading{have, err}
	}()
}

// hasRead takes what was read, or why nothing was.
func (k *keeper) hasRead(got reading) {
	now := k.r.Now()
	k.reading = nil
	if k.world == nil {
		return
	}
	if got.err != nil {
		k.world.Unreadable(got.err.Error())
		k.readAt, k.againAt = now.Add(readPause), now
		if k.unreadable.IsZero() {
			k.unreadable = now
		}
		return
	}
	k.unreadable, k.known = time.Time{}, true
	k.world.SetSnapshot(got.have)
	k.readAt, k.againAt = k.readBegan.Add(k.r.ReadEvery), now
	if k.readMore {
		k.readSoon(now)
	}
}

// all looks at everything, queues what differs, and does what the cluster itself asks for.
func (k *keeper) all(ctx context.Context, now time.Time) {
	k.allAt, k.againAt = now, time.Time{}
	p := k.world.All(now)
	k.again(p.Again)
	var own []core.Change
	for _, c := range p.Changes {
		if c.Owner.Kind == core.KindCluster {
			own = append(own, c)
		} else {
			k.after.add(k.claims[c.Owner])
		}
	}
	k.own = nil
	for _, v := range p.Verdicts {
		switch {
		case v.Ref.Kind == core.KindCluster:
			k.own = &v
		case v != k.told[v.Ref] && !k.wait(v, now), v.Write, v.Release:
			k.after.add(k.claims[v.Ref])
		}
	}
	if k.world.ReadAgain() {
		k.readSoon(now)
	}
	if k.known {
		k.unmanaged = &p.Unmanaged
	}
	if len(own) > 0 {
		k.doOwn(ctx, own)
	}
	k.reportCluster(ctx)
	k.replicas(ctx, p.Factors)
}

// again has All looked at by then at the latest.
func (k *keeper) again(at time.Time) {
	if !at.IsZero() && (k.againAt.IsZero() || at.Before(k.againAt)) {
		k.againAt = at
	}
}

// wait says whether a status is left as it is, because all that is known is that Kafka cannot be
// asked, and not for long.
func (k *keeper) wait(v core.Verdict, now time.Time) bool {
	if v.State != core.Unknown || k.unreadable.IsZero() || now.After(k.unreadable.Add(patience)) {
		return false
	}
	o := k.objects[v.Ref]
	return o != nil && observed(o) == o.GetGeneration()
}

func observed(o client.Object) int64 {
	switch o := o.(type) {
	case *api.KafkaTopic:
		return o.Status.ObservedGeneration
	case *api.KafkaUser:
		return o.Status.ObservedGeneration
	}
	return 0
}

// doOwn changes what the cluster itself asks for, and looks at the result.
func (k *keeper) doOwn(ctx context.Context, changes []core.Change) {
	changes, err := k.stillNameless(ctx, changes)
	if err != nil {
		k.log.WarnContext(ctx, "nothing is pruned now; it is tried again", slog.Any("error", err))
		k.again(k.r.Now().Add(readPause))
		return
	}
	c, err := k.reach(ctx)
	if err != nil || len(changes) == 0 {
		return // reading says so, or an object is on its way to us
	}
	results := entities.Apply(ctx, c, changes, nil)
	k.world.Settle(changes, results, k.r.Now())
	k.again(k.r.Now())
	for i, one := range changes {
		if results[i].Outcome == core.Done {
			k.tellCluster(ctx, one.Do)
		}
	}
}

// stillNameless leaves out what an object names by now that the watches have not told of. What is
// pruned does not come back.
func (k *keeper) stillNameless(ctx context.Context, changes []core.Change) ([]core.Change, error) {
	prunes := func(c core.Change) bool {
		if q, ok := c.Do.(core.AlterQuota); ok {
			_, user := q.Entity.User.Name()
			return user
		}
		return true
	}
	if !slices.ContainsFunc(changes, prunes) {
		return changes, nil
	}
	named := map[key]bool{}
	var topics api.KafkaTopicList
	var users api.KafkaUserList
	for _, list := range []client.ObjectList{&topics, &users} {
		if err := k.r.Live.List(ctx, list); err != nil {
			return nil, fmt.Errorf("look whether an object names what is to be pruned: %w", err)
		}
	}
	for i := range topics.Items {
		if t := &topics.Items[i]; ClusterOf(t.Namespace, t.Spec.ClusterRef) == k.key {
			named[key{core.KindTopic, core.TopicName(t)}] = true
		}
	}
	for i := range users.Items {
		if u := &users.Items[i]; ClusterOf(u.Namespace, u.Spec.ClusterRef) == k.key {
			named[key{core.KindUser, core.PrincipalName(u)}] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(changes), func(c core.Change) bool { return prunes(c) && named[subject(c.Do)] }), nil
}

// subject is the topic or the principal that a change is about.
func subject(do core.Action) key {
	switch do := do.(type) {
	case core.DeleteTopic:
		return key{core.KindTopic, do.Name}
	case core.DeleteGrant:
		return key{core.KindUser, do.Principal}
	case core.DropGrants:
		return key{core.KindUser, do.Principal}
	case core.DeleteCredential:
		return key{core.KindUser, do.Principal}
	case core.AlterQuota:
		name, _ := do.Entity.User.Name()
		return key{core.KindUser, name}
	}
	return key{}
}
