package entities_test

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/entities"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func meta(name string, change ...func(*metav1.ObjectMeta)) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Namespace: "team", Name: name, UID: types.UID("uid-" + name), Generation: 1, CreationTimestamp: metav1.NewTime(noon)}
	for _, one := range change {
		one(&m)
	}
	return m
}

func held(text string) func(*metav1.ObjectMeta) {
	return func(m *metav1.ObjectMeta) {
		m.Annotations = map[string]string{api.HoldAnnotation: string(m.UID) + text}
		m.Finalizers = []string{api.HoldFinalizer}
	}
}

func leaving(m *metav1.ObjectMeta) { m.DeletionTimestamp = &metav1.Time{Time: noon} }

func in(namespace string) func(*metav1.ObjectMeta) {
	return func(m *metav1.ObjectMeta) {
		m.Namespace = namespace
		m.UID = types.UID("uid-" + namespace + "-" + m.Name)
	}
}

func younger(m *metav1.ObjectMeta) { m.CreationTimestamp = metav1.NewTime(noon.Add(time.Hour)) }

func topic(m metav1.ObjectMeta, change ...func(*api.KafkaTopicSpec)) *api.KafkaTopic {
	o := &api.KafkaTopic{ObjectMeta: m, Spec: api.KafkaTopicSpec{ClusterRef: api.EntityClusterRef{Name: "prod"}}}
	for _, one := range change {
		one(&o.Spec)
	}
	return o
}

func partitions(n int32) func(*api.KafkaTopicSpec) {
	return func(s *api.KafkaTopicSpec) { s.Partitions = &n }
}

func replicas(n int32) func(*api.KafkaTopicSpec) {
	return func(s *api.KafkaTopicSpec) { s.Replicas = &n }
}

func config(pairs ...string) func(*api.KafkaTopicSpec) {
	return func(s *api.KafkaTopicSpec) {
		s.Config = api.Config{}
		for i := 0; i < len(pairs); i += 2 {
			s.Config[pairs[i]] = api.ConfigValue(pairs[i+1])
		}
	}
}

func adoptTopic(s *api.KafkaTopicSpec)  { s.Adopt = true }
func pauseTopic(s *api.KafkaTopicSpec)  { s.Paused = true }
func deleteTopic(s *api.KafkaTopicSpec) { s.DeletionPolicy = api.DeletionDelete }

func named(name string) func(*api.KafkaTopicSpec) {
	return func(s *api.KafkaTopicSpec) { s.TopicName = name }
}

func user(m metav1.ObjectMeta, as api.UserAuthenticationType, change ...func(*api.KafkaUserSpec)) *api.KafkaUser {
	o := &api.KafkaUser{ObjectMeta: m, Spec: api.KafkaUserSpec{ClusterRef: api.EntityClusterRef{Name: "prod"}}}
	o.Spec.Authentication.Type = as
	for _, one := range change {
		one(&o.Spec)
	}
	return o
}

func acl(effect api.ACLEffect, resource api.ACLResourceType, name string, ops ...api.ACLOperation) func(*api.KafkaUserSpec) {
	return func(s *api.KafkaUserSpec) {
		s.ACLs = append(s.ACLs, api.ACL{Resource: api.ACLResource{Type: resource, Name: name}, Operations: ops, Effect: effect})
	}
}

func principal(name string) func(*api.KafkaUserSpec) {
	return func(s *api.KafkaUserSpec) { s.Principal = name }
}

func adoptUser(s *api.KafkaUserSpec) { s.Adopt = true }

func grant(effect api.ACLEffect, resource api.ACLResourceType, name string, op api.ACLOperation) entities.Grant {
	return entities.Grant{Type: resource, Name: name, Pattern: api.ACLLiteral, Operation: op, Effect: effect, Host: "*"}
}

func password(digest string) entities.Credential {
	return entities.Credential{Secret: entities.SecretRef{Namespace: "team", Name: "pw", Key: "password", Digest: digest}}
}

// snapshot of three brokers.
func snapshot(change ...func(*entities.Snapshot)) *entities.Snapshot {
	s := entities.NewSnapshot()
	s.Brokers = 3
	for _, one := range change {
		one(s)
	}
	return s
}

func has(name string, n, factor int32, pairs ...string) func(*entities.Snapshot) {
	return func(s *entities.Snapshot) {
		t := &entities.Topic{ID: "id-" + name, Partitions: n, Replicas: factor, MostReplicas: factor, AskedAll: true, Config: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			t.Config[pairs[i]] = pairs[i+1]
		}
		s.Topics[name] = t
	}
}

func hasUser(name string, p entities.Principal) func(*entities.Snapshot) {
	return func(s *entities.Snapshot) { s.Principals[name] = &p }
}

func allowed(topics ...*api.KafkaTopic) []entities.DesiredTopic {
	var out []entities.DesiredTopic
	for _, o := range topics {
		out = append(out, entities.DesiredTopic{Object: o, Allowed: true})
	}
	return out
}

func allowedUser(o *api.KafkaUser, c ...entities.Credential) []entities.DesiredUser {
	d := entities.DesiredUser{Object: o, Allowed: true}
	if len(c) > 0 {
		d.Credential = c[0]
	}
	return []entities.DesiredUser{d}
}

// words is a plan as text, one line for each thing.
func words(p entities.Plan) []string {
	var out []string
	for _, c := range p.Changes {
		if q, ok := c.Do.(entities.AlterQuota); ok {
			out = append(out, fmt.Sprintf("%s: quota of %s from %v to %v", c.Owner.Name, q.Entity, q.From, q.To))
			continue
		}
		out = append(out, fmt.Sprintf("%s: %T %+v", c.Owner.Name, c.Do, c.Do))
	}
	for _, v := range p.Verdicts {
		line := fmt.Sprintf("%s is %s %s", v.Ref.Name, v.State, v.Reason)
		if v.Write {
			line += fmt.Sprintf(", write %q", v.Hold)
		}
		if v.Release {
			line += ", release"
		}
		if v.Verified {
			line += ", verified"
		}
		out = append(out, line)
	}
	for name, n := range p.Factors {
		out = append(out, fmt.Sprintf("%s gets %d replicas", name, n))
	}
	return out
}

// done answers every change with Done.
func done(changes []entities.Change) []entities.Result {
	out := make([]entities.Result, len(changes))
	for i := range out {
		out[i].Outcome = entities.Done
	}
	return out
}

// world of these objects, which has read s.
func world(t testing.TB, policy entities.Policy, s *entities.Snapshot, topics []entities.DesiredTopic, users []entities.DesiredUser) *entities.World {
	t.Helper()
	w := entities.New(policy)
	for _, d := range topics {
		w.PutTopic(d)
	}
	for _, d := range users {
		w.PutUser(d)
	}
	if s != nil {
		w.SetSnapshot(s)
	}
	return w
}
