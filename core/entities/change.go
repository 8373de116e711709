package entities

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// Kind of an object.
type Kind string

// The kinds. KindCluster stands for what a KafkaCluster itself asks for: its quotas, and prune.
const (
	KindTopic   Kind = "KafkaTopic"
	KindUser    Kind = "KafkaUser"
	KindCluster Kind = "KafkaCluster"
)

// Ref names an object.
type Ref struct {
	Kind Kind
	types.NamespacedName
}

func (r Ref) String() string { return fmt.Sprintf("%s %s/%s", r.Kind, r.Namespace, r.Name) }

// Change is one thing to do in Kafka, for an object.
type Change struct {
	Owner Ref
	Do    Action
	// Removal is true for what takes an object that is being deleted out of Kafka.
	Removal bool
}

// Action is one of the types below. Done once more it changes nothing, or is answered as done.
type Action interface {
	// apply does it to a snapshot.
	apply(s *Snapshot)
	// phrase says it in words after "to".
	phrase() string
	// principal that it touches; empty for topics.
	principal() string
}

// CreateTopic makes a topic. Partitions and Replicas of -1 take the cluster's defaults.
type CreateTopic struct {
	Name       string
	Partitions int32
	Replicas   int16
	Config     map[string]string
}

// AddPartitions gives a topic To partitions in all.
type AddPartitions struct {
	Topic    string
	From, To int32
}

// AlterConfig sets and deletes keys of a topic, and leaves all others as they are.
type AlterConfig struct {
	Topic  string
	Set    map[string]string
	Delete []string
}

// DeleteTopic removes a topic with its records. With an ID only that topic, not another one
// that was given the same name since.
type DeleteTopic struct{ Name, ID string }

// CreateGrant makes an ACL.
type CreateGrant struct {
	Principal string
	Grant     Grant
}

// DeleteGrant removes an ACL.
type DeleteGrant struct {
	Principal string
	Grant     Grant
}

// DropGrants removes every ACL of a principal, known or not.
type DropGrants struct{ Principal string }

// AlterQuota sets what is limited for an entity; zero limits are removed.
type AlterQuota struct {
	Entity QuotaEntity
	From   Limits
	To     Limits
}

// Mechanism of SCRAM, as Kafka numbers them.
type Mechanism int8

// The mechanisms.
const (
	ScramSha256 Mechanism = 1
	ScramSha512 Mechanism = 2
)

func (m Mechanism) String() string {
	if m == ScramSha256 {
		return "SCRAM-SHA-256"
	}
	return "SCRAM-SHA-512"
}

// UpsertCredential gives a user the password that has that digest (SCRAM-SHA-512).
type UpsertCredential struct {
	Principal  string
	Iterations int32
	Secret     SecretRef
}

// DeleteCredential takes one away.
type DeleteCredential struct {
	Principal string
	Mechanism Mechanism
}

// SecretRef is a password without its bytes.
type SecretRef struct {
	Namespace, Name, Key string
	// Digest changes with the password and tells nothing of it.
	Digest string
}

func (c CreateTopic) apply(s *Snapshot) {
	if t := s.Topics[c.Name]; t != nil && !t.Unread {
		return
	}
	t := &Topic{Partitions: max(c.Partitions, 1), Replicas: int32(max(c.Replicas, 1)), Config: maps.Clone(c.Config), AskedAll: true}
	t.MostReplicas = t.Replicas
	s.Topics[c.Name] = t
}

func (c AddPartitions) apply(s *Snapshot) {
	if t := s.Topics[c.Topic]; t != nil {
		t.Partitions = max(t.Partitions, c.To)
	}
}

func (c AlterConfig) apply(s *Snapshot) {
	t := s.Topics[c.Topic]
	if t == nil {
		return
	}
	for k, v := range c.Set {
		t.set(k, v)
	}
	for _, k := range c.Delete {
		delete(t.Config, k)
		t.learn(k)
	}
}

func (c DeleteTopic) apply(s *Snapshot) { delete(s.Topics, c.Name) }

// of is the principal, made where it is missing.
func (s *Snapshot) of(principal string) *Principal {
	p := s.Principals[principal]
	if p == nil {
		p = &Principal{}
		s.Principals[principal] = p
	}
	return p
}

// tidy forgets a principal of which nothing is left.
func (s *Snapshot) tidy(principal string) {
	if p := s.Principals[principal]; p != nil && p.empty() {
		delete(s.Principals, principal)
	}
}

func (c CreateGrant) apply(s *Snapshot) {
	p := s.of(c.Principal)
	if !slices.Contains(p.Grants, c.Grant) {
		p.Grants = append(p.Grants, c.Grant)
	}
}

func (c DeleteGrant) apply(s *Snapshot) {
	p := s.of(c.Principal)
	p.Grants = slices.DeleteFunc(p.Grants, func(g Grant) bool { return g == c.Grant })
	s.tidy(c.Principal)
}

func (c DropGrants) apply(s *Snapshot) {
	s.of(c.Principal).Grants = nil
	s.tidy(c.Principal)
}

func (c AlterQuota) apply(s *Snapshot) {
	name, ok := c.Entity.User.Name()
	if !ok {
		if s.Quotas[c.Entity] = c.To; c.To == (Limits{}) {
			delete(s.Quotas, c.Entity)
		}
		return
	}
	p := s.of(name)
	if p.Quotas == nil {
		p.Quotas = map[Part]Limits{}
	}
	if p.Quotas[c.Entity.ClientID] = c.To; c.To == (Limits{}) {
		delete(p.Quotas, c.Entity.ClientID)
	}
	s.tidy(name)
}

func (c UpsertCredential) apply(s *Snapshot) { s.of(c.Principal).Scram512 = c.Iterations }

func (c DeleteCredential) apply(s *Snapshot) {
	p := s.of(c.Principal)
	if c.Mechanism == ScramSha256 {
		p.Scram256 = 0
	} else {
		p.Scram512 = 0
	}
	s.tidy(c.Principal)
}

func (c CreateTopic) principal() string      { return "" }
func (c AddPartitions) principal() string    { return "" }
func (c AlterConfig) principal() string      { return "" }
func (c DeleteTopic) principal() string      { return "" }
func (c CreateGrant) principal() string      { return c.Principal }
func (c DeleteGrant) principal() string      { return c.Principal }
func (c DropGrants) principal() string       { return c.Principal }
func (c UpsertCredential) principal() string { return c.Principal }
func (c DeleteCredential) principal() string { return c.Principal }

func (c AlterQuota) principal() string {
	name, _ := c.Entity.User.Name()
	return name
}

func (c CreateTopic) phrase() string { return "create topic " + c.Name }

func (c AddPartitions) phrase() string {
	return fmt.Sprintf("add partitions from %d to %d", c.From, c.To)
}

func (c AlterConfig) phrase() string {
	var parts []string
	if len(c.Set) > 0 {
		parts = append(parts, "set "+few(slices.Sorted(maps.Keys(c.Set)), ", "))
	}
	if len(c.Delete) > 0 {
		parts = append(parts, "unset "+few(c.Delete, ", "))
	}
	return strings.Join(parts, " and ")
}

func (c DeleteTopic) phrase() string { return "delete topic " + c.Name }
func (c CreateGrant) phrase() string { return "grant " + c.Grant.String() }
func (c DeleteGrant) phrase() string { return "take back " + c.Grant.String() }
func (c DropGrants) phrase() string  { return "take back every ACL of User:" + c.Principal }
func (c AlterQuota) phrase() string  { return "set the quota of " + c.Entity.String() }

func (c UpsertCredential) phrase() string {
	return "set the password (" + ScramSha512.String() + ")"
}

func (c DeleteCredential) phrase() string {
	return "remove the password (" + c.Mechanism.String() + ")"
}

// String is a grant as people read it, for example "Allow Read on Topic orders-* from *".
func (g Grant) String() string {
	name := g.Name
	if g.Pattern == "Prefixed" {
		name += "*"
	}
	return fmt.Sprintf("%s %s on %s %s from %s", g.Effect, g.Operation, g.Type, name, g.Host)
}

func (e QuotaEntity) String() string {
	var parts []string
	for _, one := range []struct {
		what string
		part Part
	}{{"user", e.User}, {"client id", e.ClientID}, {"address", e.Address}} {
		if name, ok := one.part.Name(); ok {
			parts = append(parts, one.what+" "+name)
		} else if one.part == Every {
			parts = append(parts, "every "+one.what)
		}
	}
	return strings.Join(parts, " with ")
}

// few joins up to five.
func few(all []string, between string) string {
	const most = 5
	if len(all) <= most {
		return strings.Join(all, between)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], between), len(all)-most)
}

// Phrase says an action in words, such as "create topic orders".
func Phrase(a Action) string { return a.phrase() }
