package entities

import (
	"context"
	"fmt"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
)

// alone sees to objects whose cluster does not exist: those that are being deleted go, for there is
// nothing left to remove, and others say so.
func (k *keeper) alone(ctx context.Context) time.Time {
	var say []core.Verdict
	for ref, o := range k.objects {
		v := core.Verdict{Ref: ref, UID: string(o.GetUID()), Generation: o.GetGeneration()}
		if o.GetDeletionTimestamp() != nil {
			v.Release = true
		} else {
			v.State, v.Reason = core.Refused, "ClusterNotFound"
			v.Message = fmt.Sprintf("There is no KafkaCluster %s in namespace %s: create it, or delete this object and name another one in spec.clusterRef.", k.key.Name, k.key.Namespace)
		}
		say = append(say, v)
	}
	k.say(ctx, say)
	next := k.r.Now().Add(k.r.ReadEvery)
	if len(k.later) > 0 || !k.againAt.IsZero() {
		clear(k.later)
		k.againAt = time.Time{}
		next = k.r.Now().Add(soon)
	}
	return next
}

// passwordOf is where a user's password is given; nil is nowhere.
func passwordOf(u *api.KafkaUser) *passwordRef {
	s := u.Spec.Authentication.ScramSha512
	if u.Spec.Authentication.Type != api.UserScramSha512 || s == nil || s.Password == nil {
		return nil
	}
	return &passwordRef{Name: s.Password.Name, Key: s.Password.Key}
}

// passwordRef names a key of a Secret.
type passwordRef struct{ Name, Key string }
