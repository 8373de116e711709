package entities

import (
	"cmp"
	"slices"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Snapshot is what a cluster has. One that was given to a World is the World's: it changes it
// by what Kafka has confirmed since.
type Snapshot struct {
	// Brokers that are alive.
	Brokers int
	Topics  map[string]*Topic
	// Principals by name, without User:.
	Principals map[string]*Principal
	// Quotas of no single user: of client ids, addresses and defaults.
	Quotas map[QuotaEntity]Limits
	// OtherACLs are those of principals that are no User.
	OtherACLs int
}

// NewSnapshot is one of a cluster that has nothing.
func NewSnapshot() *Snapshot {
	return &Snapshot{Topics: map[string]*Topic{}, Principals: map[string]*Principal{}, Quotas: map[QuotaEntity]Limits{}}
}

// Topic as Kafka has it.
type Topic struct {
	ID string
	// Internal is what Kafka says of its own topics; see also Internal.
	Internal   bool
	Partitions int32
	// Replicas of the partition that has fewest, and of the one that has most.
	Replicas, MostReplicas int32
	// Config are the keys that the topic itself sets, of those in Asked.
	Config map[string]string
	// Asked are the keys that were looked at; AskedAll means every key.
	Asked    []string
	AskedAll bool
	// Unread is true for a topic of which only the name is known.
	Unread bool
}

func (t *Topic) knows(key string) bool {
	return t.AskedAll || slices.Contains(t.Asked, key)
}

func (t *Topic) set(key, value string) {
	if t.Config == nil {
		t.Config = map[string]string{}
	}
	t.Config[key] = value
	t.learn(key)
}

// learn notes a key; Asked may be shared, so it is copied.
func (t *Topic) learn(key string) {
	if !t.knows(key) {
		t.Asked = append(slices.Clip(t.Asked), key)
	}
}

// Principal is all that Kafka has of one user.
type Principal struct {
	Grants []Grant
	// Scram256 and Scram512 are the iterations of its credentials; 0 is none.
	Scram256, Scram512 int32
	// Quotas by client id; "" is the user as such.
	Quotas map[Part]Limits
}

func (p *Principal) empty() bool {
	return len(p.Grants) == 0 && p.Scram256 == 0 && p.Scram512 == 0 && len(p.Quotas) == 0
}

// Grant is one ACL of a principal.
type Grant struct {
	Type      api.ACLResourceType
	Name      string
	Pattern   api.ACLPatternType
	Operation api.ACLOperation
	Effect    api.ACLEffect
	Host      string
}

func (g Grant) compare(o Grant) int {
	if g.Name != o.Name { // mostly it is the name
		return cmp.Or(strings.Compare(string(g.Type), string(o.Type)), strings.Compare(g.Name, o.Name))
	}
	return cmp.Or(
		strings.Compare(string(g.Type), string(o.Type)), strings.Compare(string(g.Pattern), string(o.Pattern)),
		strings.Compare(string(g.Effect), string(o.Effect)), strings.Compare(g.Host, o.Host),
		strings.Compare(string(g.Operation), string(o.Operation)))
}

// Part is one part of who a quota is for: "" is not named, Every the default, else Named.
type Part string

// Every is the default: whoever has no quota of his own.
const Every Part = "*"

// Named is one user, client id or address.
func Named(name string) Part { return Part("=" + name) }

// Name of a Named part.
func (p Part) Name() (string, bool) { return strings.CutPrefix(string(p), "=") }

// QuotaEntity is who a quota is for.
type QuotaEntity struct {
	User, ClientID, Address Part
}

// Limits of a quota in Kafka's units: bytes per second, percent, per second. 0 is no limit.
type Limits struct {
	ProducerByteRate, ConsumerByteRate, RequestPercentage, ControllerMutationRate, ConnectionCreationRate float64
}

// Internal says whether Kafka, or a part of it, keeps a topic of that name for itself. Not all
// of these are marked internal by Kafka (org.apache.kafka.common.internals.Topic).
func Internal(name string) bool {
	switch name {
	case "__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata", "__remote_log_metadata":
		return true
	default:
		return false
	}
}

// Unmanaged counts what no object names.
func (s *Snapshot) unmanaged(w *World) api.EntityCounts {
	n := api.EntityCounts{ACLs: size32(s.OtherACLs)}
	for name, t := range s.Topics {
		if !t.Internal && !Internal(name) && !w.namesTopic(name) {
			n.Topics++
		}
	}
	for name, p := range s.Principals {
		if w.namesUser(name) || w.reserved[name] {
			continue
		}
		n.ACLs += size32(len(p.Grants))
		n.Quotas += size32(len(p.Quotas))
		for _, iterations := range []int32{p.Scram256, p.Scram512} {
			if iterations > 0 {
				n.Credentials++
			}
		}
	}
	if w.policy.Quotas == nil {
		n.Quotas += size32(len(s.Quotas))
	}
	n.Total = n.Topics + n.ACLs + n.Credentials + n.Quotas
	return n
}

func size32(n int) int32 { return int32(min(n, 1<<31-1)) } //nolint:gosec // bounded
