package entities

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Policy is what a cluster says about its entities.
type Policy struct {
	// Reserved are the principals, without User:, that no KafkaUser may be: super users, nodes,
	// the operator and whatever else is Castellan's own. Prune leaves them alone.
	Reserved []string
	// Prune removes what no object names. Only All does so: call it once every object was put.
	Prune bool
	// Keep is left alone by Prune: names of topics and principals, or with a * at the end all
	// that begin so.
	Keep []string
	// Quotas of no single user. nil leaves those in Kafka alone; otherwise these are all.
	Quotas []api.ClusterQuota
	// Cluster is whose policy it is.
	Cluster types.NamespacedName
}

// DesiredTopic is a KafkaTopic, which is only read.
type DesiredTopic struct {
	Object *api.KafkaTopic
	// Allowed says whether the cluster allows its namespace.
	Allowed bool
}

// DesiredUser is a KafkaUser, which is only read.
type DesiredUser struct {
	Object  *api.KafkaUser
	Allowed bool
	// Credential is the password of ScramSha512.
	Credential Credential
}

// Credential is a password without its bytes, or why there is none.
type Credential struct {
	Secret SecretRef
	// Why there is none, naming the Secret, the key and the fault.
	Why string
}

// World knows what one cluster has and what objects want. It is not safe for concurrent use.
type World struct {
	policy   Policy
	reserved map[string]bool
	have     *Snapshot
	why      string

	topics map[string][]*topicClaim // by topic name, the one in force first
	users  map[string][]*userClaim  // by principal
	at     map[Ref]string           // the name or principal that an object claims

	failed map[Ref]failure
	// gone are objects being deleted of which Kafka has nothing any more.
	gone map[Ref]string // by uid
	// taken are objects whose topic was somebody else's when they wanted to create it.
	taken map[Ref]string // by uid
	// again is true when a topic came up that the snapshot lacks.
	again bool
	// reading is true from BeginRead to SetSnapshot, since are the changes done meanwhile.
	reading bool
	since   []Action
	// unread are principals that were changed since they were read.
	unread map[string]bool
}

type topicClaim struct {
	DesiredTopic
	claim
}

type userClaim struct {
	DesiredUser
	claim
}

// claim is what topics and users have in common.
type claim struct {
	ref     Ref
	uid     string
	gen     int64
	created time.Time
	// stamp changes with what is wanted beside the spec: the credential.
	stamp   string
	leaving bool
	allowed bool
	hold    hold
	held    bool
}

// New knows nothing yet of Kafka or of objects.
func New(policy Policy) *World {
	w := &World{
		topics: map[string][]*topicClaim{}, users: map[string][]*userClaim{}, at: map[Ref]string{},
		failed: map[Ref]failure{}, gone: map[Ref]string{}, taken: map[Ref]string{}, unread: map[string]bool{},
	}
	w.SetPolicy(policy)
	return w
}

// SetPolicy replaces the policy; All is to be looked at then.
func (w *World) SetPolicy(policy Policy) {
	w.policy = policy
	w.reserved = make(map[string]bool, len(policy.Reserved))
	for _, name := range policy.Reserved {
		w.reserved[name] = true
	}
}

// TopicName is a KafkaTopic's name in Kafka.
func TopicName(o *api.KafkaTopic) string { return cmp.Or(o.Spec.TopicName, o.Name) }

// PrincipalName is a KafkaUser's name in Kafka, without User:.
func PrincipalName(o *api.KafkaUser) string { return cmp.Or(o.Spec.Principal, o.Name) }

// PutTopic takes a new or changed object, and returns the topic to look at.
func (w *World) PutTopic(d DesiredTopic) string {
	o := d.Object
	c := &topicClaim{DesiredTopic: d, claim: claim{
		ref: Ref{KindTopic, types.NamespacedName{Namespace: o.Namespace, Name: o.Name}},
		uid: string(o.UID), gen: o.Generation, created: o.CreationTimestamp.Time, leaving: o.DeletionTimestamp != nil, allowed: d.Allowed,
	}}
	c.hold, c.held = parseHold(o.Annotations[api.HoldAnnotation], c.uid)
	name := TopicName(o)
	w.renew(c.claim, func() bool { return w.dropTopic(c.ref) })
	if !c.held {
		delete(w.taken, c.ref)
	}
	w.at[c.ref] = name
	w.topics[name] = put(w.topics[name], c, func(c *topicClaim) *claim { return &c.claim })
	return name
}

// PutUser takes a new or changed object, and returns the principal to look at.
func (w *World) PutUser(d DesiredUser) string {
	o := d.Object
	c := &userClaim{DesiredUser: d, claim: claim{
		ref: Ref{KindUser, types.NamespacedName{Namespace: o.Namespace, Name: o.Name}},
		uid: string(o.UID), gen: o.Generation, created: o.CreationTimestamp.Time, leaving: o.DeletionTimestamp != nil, allowed: d.Allowed,
	}}
	c.hold, c.held = parseHold(o.Annotations[api.HoldAnnotation], c.uid)
	c.stamp = d.Credential.Secret.Digest
	name := PrincipalName(o)
	w.renew(c.claim, func() bool { return w.dropUser(c.ref) })
	w.at[c.ref] = name
	w.users[name] = put(w.users[name], c, func(c *userClaim) *claim { return &c.claim })
	return name
}

// DropTopic forgets an object that is gone, and returns the topic to look at.
func (w *World) DropTopic(name types.NamespacedName) string {
	ref := Ref{KindTopic, name}
	topic := w.at[ref]
	w.dropTopic(ref)
	w.forget(ref)
	return topic
}

// DropUser forgets an object that is gone, and returns the principal to look at.
func (w *World) DropUser(name types.NamespacedName) string {
	ref := Ref{KindUser, name}
	principal := w.at[ref]
	w.dropUser(ref)
	w.forget(ref)
	return principal
}

// renew takes the old version of an object out; what was learned of another object of that name is forgotten.
func (w *World) renew(c claim, drop func() bool) {
	if drop() && w.failed[c.ref].uid != c.uid {
		delete(w.failed, c.ref)
	}
}

func (w *World) forget(ref Ref) {
	delete(w.failed, ref)
	delete(w.gone, ref)
	delete(w.taken, ref)
}

func (w *World) dropTopic(ref Ref) bool {
	name, ok := w.at[ref]
	if !ok {
		return false
	}
	delete(w.at, ref)
	left := slices.DeleteFunc(w.topics[name], func(c *topicClaim) bool { return c.ref == ref })
	if w.topics[name] = left; len(left) == 0 {
		delete(w.topics, name)
	}
	return true
}

func (w *World) dropUser(ref Ref) bool {
	name, ok := w.at[ref]
	if !ok {
		return false
	}
	delete(w.at, ref)
	left := slices.DeleteFunc(w.users[name], func(c *userClaim) bool { return c.ref == ref })
	if w.users[name] = left; len(left) == 0 {
		delete(w.users, name)
	}
	return true
}

func put[C any](claims []C, c C, of func(C) *claim) []C {
	claims = append(claims, c)
	slices.SortFunc(claims, func(a, b C) int { return of(a).compare(of(b)) })
	return claims
}

// compare puts the one in force first: allowed ones, then who holds it already, then the
// oldest. Creation times have whole seconds, so the name decides between twins, and who holds
// is not put out by a twin that is seen later.
func (c *claim) compare(o *claim) int {
	for _, d := range []int{rank(c.contends(), o.contends()), rank(c.held, o.held), c.created.Compare(o.created)} {
		if d != 0 {
			return d
		}
	}
	return cmp.Or(cmp.Compare(c.ref.Namespace, o.ref.Namespace), cmp.Compare(c.ref.Name, o.ref.Name))
}

// contends says whether a claim can be in force.
func (c *claim) contends() bool { return c.allowed && (!c.leaving || c.held) }

func rank(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// BeginRead is called before Kafka is read: what is changed while it is read is not lost by an
// answer that is older.
func (w *World) BeginRead() { w.reading, w.since = true, nil }

// SetSnapshot takes what was read from Kafka, all of it. Every object must have been put before it is
// read, because only keys of Keys are asked for.
func (w *World) SetSnapshot(s *Snapshot) {
	old := w.have
	w.have, w.why, w.again = s, "", false
	clear(w.unread)
	for _, one := range w.since {
		if c, ok := one.(CreateTopic); ok && old != nil && old.Topics[c.Name] != nil && s.Topics[c.Name] == nil {
			s.Topics[c.Name] = old.Topics[c.Name] // with what Kafka said of it
		} else {
			one.apply(s)
		}
		if p := one.principal(); p != "" {
			w.unread[p] = true
		}
	}
	w.reading, w.since = false, nil
}

// SetPrincipals takes what was read again of these principals; one without an entry in read has
// nothing. Nothing of them may have been changed while they were read.
func (w *World) SetPrincipals(names []string, read map[string]*Principal) {
	if w.have == nil {
		return
	}
	for _, name := range names {
		delete(w.unread, name)
		if p := read[name]; p != nil {
			w.have.Principals[name] = p
		} else {
			delete(w.have.Principals, name)
		}
	}
}

// Unreadable says why Kafka could not be read. What was read before stays.
func (w *World) Unreadable(why string) { w.why, w.reading, w.since = why, false, nil }

// Unread are the principals that were changed since they were read, sorted.
func (w *World) Unread() []string { return slices.Sorted(maps.Keys(w.unread)) }

// ReadAgain says whether a topic came up that the snapshot lacks, so that it is worth reading soon.
func (w *World) ReadAgain() bool { return w.again }

// isGone and isTaken are of this very object, not of an earlier one of its name.
func (w *World) isGone(c *claim) bool { return w.gone[c.ref] == c.uid && c.uid != "" }

func (w *World) isTaken(c *claim) bool { return w.taken[c.ref] == c.uid && c.uid != "" }

// Keys of a topic's configuration that are to be read: those that an object names or ever set.
func (w *World) Keys(topic string) []string {
	claims := w.topics[topic]
	if len(claims) == 0 {
		return nil
	}
	keys := make([]string, 0, 4)
	for _, c := range claims {
		for k := range c.Object.Spec.Config {
			keys = append(keys, k)
		}
		keys = append(keys, c.hold.keys...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// namesTopic says whether an object that may be in force names it.
func (w *World) namesTopic(name string) bool {
	claims := w.topics[name]
	return len(claims) > 0 && claims[0].contends()
}

func (w *World) namesUser(name string) bool {
	claims := w.users[name]
	return len(claims) > 0 && claims[0].contends()
}
