package entities_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/entities"
)

// Whatever Kafka has and objects want: once the holds are written and the changes done, there is
// nothing more to do, and nothing was touched that no object names.
func FuzzChangesEnd(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 7))}
		have, topics, users := g.snapshot(), g.topics(), g.users()
		policy := entities.Policy{Reserved: []string{"u0"}}
		before := foreign(have, topics, users)
		w := world(t, policy, have, topics, users)
		now := noon
		for round := 0; ; round++ {
			p := w.All(now)
			changed := writeHolds(w, p, topics, users)
			if len(p.Changes) == 0 && !changed {
				break
			}
			if round > 6 {
				t.Fatalf("seed %d: still to do after %d rounds: %v", seed, round, words(p))
			}
			if changed { // holds first: then look again, as after a crash between the two
				continue
			}
			w.Settle(p.Changes, g.results(p.Changes), now)
			now = now.Add(time.Hour)
		}
		if diff := cmp.Diff(before, foreign(have, topics, users)); diff != "" {
			t.Fatalf("seed %d: something that no object names was touched:\n%s", seed, diff)
		}
		g.compare(t, w, have, now)
	})
}

// compare: one topic or user by itself is judged as it is among all.
func (g *generator) compare(t *testing.T, w *entities.World, have *entities.Snapshot, now time.Time) {
	t.Helper()
	all := map[entities.Ref]entities.Verdict{}
	for _, v := range w.All(now).Verdicts {
		all[v.Ref] = v
	}
	single := map[entities.Ref]entities.Verdict{}
	for i := range 6 {
		for _, p := range []entities.Plan{w.Topic(fmt.Sprintf("t%d", i), now), w.User(fmt.Sprintf("u%d", i), now)} {
			for _, v := range p.Verdicts {
				single[v.Ref] = v
			}
		}
	}
	if diff := cmp.Diff(all, single); diff != "" {
		t.Fatal(diff)
	}
	for name, p := range have.Principals {
		if p == nil || len(p.Grants) != len(slices.Compact(slices.Clone(p.Grants))) {
			t.Fatalf("%s: %+v", name, p)
		}
	}
}

// writeHolds does what the shell does, and says whether there was anything.
func writeHolds(w *entities.World, p entities.Plan, topics []entities.DesiredTopic, users []entities.DesiredUser) bool {
	some := false
	write := func(m *metav1.ObjectMeta, v entities.Verdict) {
		some = true
		m.Annotations = map[string]string{api.HoldAnnotation: v.Hold}
	}
	for _, v := range p.Verdicts {
		if !v.Write {
			continue
		}
		for _, d := range topics {
			if v.Ref.Kind == entities.KindTopic && d.Object.Name == v.Ref.Name {
				write(&d.Object.ObjectMeta, v)
				w.PutTopic(d)
			}
		}
		for _, d := range users {
			if v.Ref.Kind == entities.KindUser && d.Object.Name == v.Ref.Name {
				write(&d.Object.ObjectMeta, v)
				w.PutUser(d)
			}
		}
	}
	return some
}

// foreign is what must stay: of topics that nothing names all, of others the keys that no
// object names or ever set; of principals that nothing names all.
func foreign(s *entities.Snapshot, topics []entities.DesiredTopic, users []entities.DesiredUser) map[string]any {
	out := map[string]any{}
	for name, t := range s.Topics {
		mine, named := map[string]bool{}, false
		for _, d := range topics {
			if entities.TopicName(d.Object) == name && d.Allowed {
				named = true
				for _, k := range keysOf(d) {
					mine[k] = true
				}
			}
		}
		config := maps.Clone(t.Config)
		maps.DeleteFunc(config, func(k, _ string) bool { return mine[k] })
		if named {
			// It may be deleted, by the object that holds it.
			out["topic "+name] = fmt.Sprint(config)
		} else {
			out["topic "+name] = fmt.Sprint(t.Partitions, t.Replicas, config)
		}
	}
	for _, d := range topics {
		if d.Object.DeletionTimestamp != nil && d.Allowed {
			delete(out, "topic "+entities.TopicName(d.Object))
		}
		if s.Topics[entities.TopicName(d.Object)] == nil {
			continue
		}
		// One that was created is nobody else's.
		if s.Topics[entities.TopicName(d.Object)].ID == "" {
			delete(out, "topic "+entities.TopicName(d.Object))
		}
	}
	for name, p := range s.Principals {
		if !slices.ContainsFunc(users, func(d entities.DesiredUser) bool {
			leaves := d.Object.DeletionTimestamp != nil
			return entities.PrincipalName(d.Object) == name && (d.Allowed || leaves) && name != "u0"
		}) {
			out["user "+name] = fmt.Sprintf("%+v", *p)
		}
	}
	return out
}

func keysOf(d entities.DesiredTopic) []string {
	var keys []string
	for k := range d.Object.Spec.Config {
		keys = append(keys, k)
	}
	if d.Object.Labels["ever"] != "" {
		keys = append(keys, d.Object.Labels["ever"])
	}
	return keys
}

type generator struct{ *rand.Rand }

func (g *generator) key() string {
	return []string{"a", "b", "c", "d", "leader.replication.throttled.replicas"}[g.IntN(5)]
}

func (g *generator) snapshot() *entities.Snapshot {
	s := snapshot()
	for i := range 6 {
		name := fmt.Sprintf("t%d", i)
		if g.IntN(2) == 0 {
			has(name, 1+g.Int32N(3), 1+g.Int32N(3))(s)
			t := s.Topics[name]
			t.AskedAll = g.IntN(2) == 0
			for range g.IntN(4) {
				k := g.key()
				t.Config[k] = fmt.Sprint(g.IntN(2))
				t.Asked = append(t.Asked, k)
			}
		}
		p := entities.Principal{}
		for range g.IntN(4) {
			if one := g.grant(); !slices.Contains(p.Grants, one) {
				p.Grants = append(p.Grants, one)
			}
		}
		if g.IntN(3) == 0 {
			p.Scram512 = 4096 + g.Int32N(3)
		}
		if g.IntN(3) == 0 {
			p.Quotas = map[entities.Part]entities.Limits{"": {RequestPercentage: 1 + float64(g.IntN(2))}}
		}
		if len(p.Grants) > 0 || p.Scram512 > 0 || p.Quotas != nil {
			hasUser(fmt.Sprintf("u%d", i), p)(s)
		}
	}
	return s
}

func (g *generator) grant() entities.Grant {
	effect := api.ACLAllow
	if g.IntN(3) == 0 {
		effect = api.ACLDeny
	}
	return grant(effect, api.ACLTopic, fmt.Sprintf("r%d", g.IntN(2)), []api.ACLOperation{api.ACLRead, api.ACLWrite}[g.IntN(2)])
}

func (g *generator) meta(name string) metav1.ObjectMeta {
	m := meta(name)
	m.CreationTimestamp = metav1.NewTime(noon.Add(time.Duration(g.IntN(3)) * time.Second))
	if g.IntN(4) == 0 {
		leaving(&m)
	}
	return m
}

func (g *generator) topics() []entities.DesiredTopic {
	var out []entities.DesiredTopic
	for i := range g.IntN(8) {
		o := topic(g.meta(fmt.Sprintf("o%d", i)), named(fmt.Sprintf("t%d", g.IntN(6))))
		if g.IntN(2) == 0 {
			partitions(1 + g.Int32N(4))(&o.Spec)
		}
		for range g.IntN(3) {
			if k := g.key(); k != "leader.replication.throttled.replicas" || g.IntN(5) == 0 {
				if o.Spec.Config == nil {
					o.Spec.Config = api.Config{}
				}
				o.Spec.Config[k] = api.ConfigValue(fmt.Sprint(g.IntN(2)))
			}
		}
		if g.IntN(2) == 0 {
			ever := g.key()
			held(" config=" + ever)(&o.ObjectMeta)
			if ever != "leader.replication.throttled.replicas" {
				o.Labels = map[string]string{"ever": ever}
			}
		}
		o.Spec.Adopt = g.IntN(2) == 0
		if g.IntN(3) == 0 {
			o.Spec.DeletionPolicy = api.DeletionDelete
		}
		out = append(out, entities.DesiredTopic{Object: o, Allowed: g.IntN(5) > 0})
	}
	return out
}

func (g *generator) users() []entities.DesiredUser {
	var out []entities.DesiredUser
	types := []api.UserAuthenticationType{api.UserMutualTLS, api.UserScramSha512, api.UserExternal}
	for i := range g.IntN(8) {
		o := user(g.meta(fmt.Sprintf("p%d", i)), types[g.IntN(3)], principal(fmt.Sprintf("u%d", g.IntN(6))))
		for range g.IntN(4) {
			one := g.grant()
			acl(one.Effect, one.Type, one.Name, one.Operation)(&o.Spec)
		}
		if g.IntN(3) == 0 {
			o.Spec.Quotas = &api.UserQuotas{Quota: api.Quota{RequestPercentage: quantity("2")}}
		}
		if g.IntN(2) == 0 {
			held(fmt.Sprintf(" scram=%d:d%d", 4097+g.IntN(2), g.IntN(2)))(&o.ObjectMeta)
		}
		o.Spec.Adopt = g.IntN(2) == 0
		d := entities.DesiredUser{Object: o, Allowed: g.IntN(5) > 0}
		if g.IntN(4) > 0 {
			d.Credential = password(fmt.Sprintf("d%d", g.IntN(2)))
		}
		out = append(out, d)
	}
	return out
}

// results are mostly good ones.
func (g *generator) results(changes []entities.Change) []entities.Result {
	out := done(changes)
	for i := range out {
		if g.IntN(12) == 0 {
			out[i] = entities.Result{Outcome: []entities.Outcome{entities.Denied, entities.Unanswered, entities.NotTried}[g.IntN(3)], Code: "NO", Retriable: true}
		}
	}
	return out
}
