package entities_test

import (
	"fmt"
	"runtime"
	"testing"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/entities"
)

const (
	manyTopics = 10_000
	manyUsers  = 20_000
)

// many objects, and a Kafka that has what they want.
func many() (*entities.Snapshot, []entities.DesiredTopic, []entities.DesiredUser) {
	s := snapshot()
	var topics []entities.DesiredTopic
	for i := range manyTopics {
		name := fmt.Sprintf("topic-%05d", i)
		topics = append(topics, allowed(topic(meta(name, held(" config=retention.ms")), partitions(1), config("retention.ms", "5")))...)
		has(name, 1, 1, "retention.ms", "5")(s)
	}
	var users []entities.DesiredUser
	for i := range manyUsers {
		name := fmt.Sprintf("user-%05d", i)
		users = append(users, allowedUser(user(meta(name, held(" scram=4097:d")), api.UserScramSha512,
			acl(api.ACLAllow, api.ACLTopic, "topic-"+name, api.ACLRead, api.ACLDescribe), acl(api.ACLAllow, api.ACLGroup, name, api.ACLRead)), password("d"))...)
		hasUser(name, entities.Principal{Scram512: 4097, Grants: []entities.Grant{
			grant(api.ACLAllow, api.ACLTopic, "topic-"+name, api.ACLRead), grant(api.ACLAllow, api.ACLTopic, "topic-"+name, api.ACLDescribe),
			grant(api.ACLAllow, api.ACLGroup, name, api.ACLRead),
		}})(s)
	}
	return s, topics, users
}

func BenchmarkNothingToDo(b *testing.B) {
	s, topics, users := many()
	w := world(b, entities.Policy{}, s, topics, users)
	b.ReportAllocs()
	for b.Loop() {
		if p := w.All(noon); len(p.Changes) != 0 || len(p.Verdicts) != manyTopics+manyUsers {
			b.Fatalf("%d changes, %d verdicts", len(p.Changes), len(p.Verdicts))
		}
	}
}

func BenchmarkEverythingToDo(b *testing.B) {
	_, topics, users := many()
	b.ReportAllocs()
	for b.Loop() {
		p := entities.Compute(entities.Policy{}, snapshot(), topics, users, noon)
		if len(p.Changes) != manyTopics+4*manyUsers {
			b.Fatalf("%d changes", len(p.Changes))
		}
	}
}

func BenchmarkOneEditAmongMany(b *testing.B) {
	s, topics, users := many()
	w := world(b, entities.Policy{}, s, topics, users)
	edited := topics[manyTopics/2]
	edited.Object = edited.Object.DeepCopy()
	edited.Object.Spec.Config["retention.ms"] = "6"
	b.ReportAllocs()
	for b.Loop() {
		if p := w.Topic(w.PutTopic(edited), noon); len(p.Changes) != 1 {
			b.Fatalf("%d changes", len(p.Changes))
		}
	}
}

// BenchmarkResident is what a World of many weighs beside the objects, which informers hold anyway.
func BenchmarkResident(b *testing.B) {
	_, topics, users := many()
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s, _, _ := many()
		w := world(b, entities.Policy{}, s, topics, users)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		runtime.KeepAlive(w)
	}
}
