package entities

import (
	"maps"
	"slices"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Plan is what is to be done, and how every object that was looked at is.
type Plan struct {
	// Changes in the order in which they are to be done. Those of an object wait until its hold
	// is written (Verdict.Write).
	Changes []Change
	// Verdicts, one for each object.
	Verdicts []Verdict
	// Factors are the replication factors that the balancer is to give topics.
	Factors map[string]int
	// Unmanaged counts what no object names; only All counts.
	Unmanaged api.EntityCounts
	// Again is when a refused change is due to be tried once more; zero is never.
	Again time.Time
}

// Compute looks at everything once. It is New, PutTopic, PutUser, SetSnapshot and All in one;
// the snapshot is taken over.
func Compute(policy Policy, have *Snapshot, topics []DesiredTopic, users []DesiredUser, now time.Time) Plan {
	w := New(policy)
	for _, d := range topics {
		w.PutTopic(d)
	}
	for _, d := range users {
		w.PutUser(d)
	}
	w.SetSnapshot(have)
	return w.All(now)
}

// Topic looks at one topic and at the objects that name it.
func (w *World) Topic(name string, now time.Time) Plan {
	p := Plan{}
	w.lookAtTopic(name, now, &p)
	return p
}

// User looks at one principal, without User:, and at the objects that name it.
func (w *World) User(principal string, now time.Time) Plan {
	p := Plan{}
	w.lookAtUser(principal, now, &p)
	return p
}

// All looks at everything, and prunes and counts what no object names. The order is always the same.
func (w *World) All(now time.Time) Plan {
	p := Plan{Verdicts: make([]Verdict, 0, len(w.at)+1)}
	for _, name := range slices.Sorted(maps.Keys(w.topics)) {
		w.lookAtTopic(name, now, &p)
	}
	for _, name := range slices.Sorted(maps.Keys(w.users)) {
		w.lookAtUser(name, now, &p)
	}
	if w.have == nil {
		return p
	}
	w.lookAtCluster(now, &p)
	p.Unmanaged = w.have.unmanaged(w)
	return p
}

// lookAtCluster does what the KafkaCluster itself asks for.
func (w *World) lookAtCluster(now time.Time, p *Plan) {
	c := claim{ref: Ref{KindCluster, w.policy.Cluster}, allowed: true}
	var do []Action
	if w.policy.Quotas != nil {
		do = w.clusterQuotas()
	}
	if w.policy.Prune {
		do = append(do, w.prune()...)
	}
	if len(do) == 0 && w.policy.Quotas == nil && !w.policy.Prune {
		return
	}
	v := inForce(&c, "Quotas and everything that no object names are as this cluster wants them.")
	if w.policy.Prune && len(w.topics) == 0 {
		v.Message += " Topics are not pruned while there is no KafkaTopic at all."
	}
	if w.policy.Prune && len(w.users) == 0 {
		v.Message += " Principals are not pruned while there is no KafkaUser at all."
	}
	w.act(&c, v, do, now, p)
}

// prune removes what no object at all names, not even one that is refused. Where there is no
// object of a kind at all, as after a recovery of the API server, it removes nothing of that kind.
func (w *World) prune() []Action {
	var do []Action
	if len(w.topics) > 0 {
		do = w.pruneTopics()
	}
	if len(w.users) > 0 {
		do = append(do, w.prunePrincipals()...)
	}
	return do
}

func (w *World) pruneTopics() []Action {
	var do []Action
	for _, name := range slices.Sorted(maps.Keys(w.have.Topics)) {
		t := w.have.Topics[name]
		if t.Internal || t.Unread || Internal(name) || len(w.topics[name]) > 0 || w.kept(name) {
			continue
		}
		do = append(do, DeleteTopic{Name: name, ID: t.ID})
	}
	return do
}

func (w *World) prunePrincipals() []Action {
	var do []Action
	for _, name := range slices.Sorted(maps.Keys(w.have.Principals)) {
		if len(w.users[name]) > 0 || w.reserved[name] || w.kept(name) {
			continue
		}
		do = append(do, removal(name, w.have.Principals[name])...)
	}
	return do
}

func (w *World) kept(name string) bool {
	return slices.ContainsFunc(w.policy.Keep, func(keep string) bool {
		prefix, all := strings.CutSuffix(keep, "*")
		return name == keep || all && strings.HasPrefix(name, prefix)
	})
}

// removal takes everything of a principal away: first how it gets in, what denies last.
func removal(name string, p *Principal) []Action {
	var do []Action
	if p.Scram256 > 0 {
		do = append(do, DeleteCredential{name, ScramSha256})
	}
	if p.Scram512 > 0 {
		do = append(do, DeleteCredential{name, ScramSha512})
	}
	for _, id := range slices.Sorted(maps.Keys(p.Quotas)) {
		do = append(do, AlterQuota{Entity: QuotaEntity{User: Named(name), ClientID: id}, From: p.Quotas[id]})
	}
	grants := slices.SortedFunc(slices.Values(p.Grants), Grant.compare)
	for _, effect := range []api.ACLEffect{api.ACLAllow, api.ACLDeny} {
		for _, g := range grants {
			if g.Effect == effect {
				do = append(do, DeleteGrant{name, g})
			}
		}
	}
	return do
}

// act lets an object's actions be done, or says why not yet. v is how the object is once they are.
func (w *World) act(c *claim, v Verdict, do []Action, now time.Time, p *Plan) {
	f, failing := w.failed[c.ref]
	if failing && (len(do) == 0 || !f.of(c)) {
		delete(w.failed, c.ref)
		failing = false
	}
	switch {
	case failing:
		v = f.verdict(c)
		if now.Before(f.until) {
			p.wake(f.until)
			do = nil
		}
	case len(do) > 0 && v.State == InForce:
		v = working(c, "Applying", "Going to "+phrases(do)+".")
	}
	for _, one := range do {
		p.Changes = append(p.Changes, Change{Owner: c.ref, Do: one, Removal: c.leaving})
	}
	p.Verdicts = append(p.Verdicts, v)
}

func (p *Plan) wake(at time.Time) {
	if p.Again.IsZero() || at.Before(p.Again) {
		p.Again = at
	}
}

func phrases(do []Action) string {
	all := make([]string, 0, len(do))
	for _, one := range do {
		all = append(all, one.phrase())
	}
	return few(all, ", ")
}

// Without are the changes of other objects than these: what an object's hold could not be
// written for must not be done.
func Without(changes []Change, refs map[Ref]bool) []Change {
	return slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return refs[c.Owner] })
}
