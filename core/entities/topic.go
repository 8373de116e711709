package entities

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
)

// lookAtTopic judges every object that names a topic; the first is in force.
func (w *World) lookAtTopic(name string, now time.Time, p *Plan) {
	claims := w.topics[name]
	if len(claims) == 0 {
		return
	}
	winner := claims[0]
	var others []*claim
	for _, c := range claims[1:] {
		others = append(others, &c.claim)
		p.Verdicts = append(p.Verdicts, w.lostTopic(c, winner))
	}
	from := len(p.Verdicts)
	if !winner.contends() {
		p.Verdicts = append(p.Verdicts, w.lostTopic(winner, winner))
		return
	}
	w.ownTopic(winner, now, p)
	p.Verdicts[from] = rivals(p.Verdicts[from], others)
	p.Verdicts[from].Topic = w.factsOf(name)
}

func (w *World) factsOf(name string) TopicFacts {
	if w.have == nil || w.have.Topics[name] == nil {
		return TopicFacts{}
	}
	t := w.have.Topics[name]
	return TopicFacts{ID: t.ID, Partitions: t.Partitions, Replicas: t.Replicas}
}

// lostTopic is an object that is not in force.
func (w *World) lostTopic(c, winner *topicClaim) Verdict {
	switch {
	case c.leaving:
		return released(&c.claim, "The topic stays in Kafka: this object was not in force.")
	case !c.allowed:
		return notAllowed(&c.claim, c.Object.Spec.ClusterRef)
	default:
		return conflict(&c.claim, "Topic "+TopicName(c.Object), &winner.claim)
	}
}

func (w *World) ownTopic(c *topicClaim, now time.Time, p *Plan) {
	if c.leaving {
		w.leaveTopic(c, now, p)
		return
	}
	if w.have == nil {
		p.Verdicts = append(p.Verdicts, w.unasked(&c.claim))
		return
	}
	if c.Object.Spec.Adopt {
		delete(w.taken, c.ref)
	}
	held := c.held && !w.isTaken(&c.claim)
	t := w.have.Topics[TopicName(c.Object)]
	if v, ok := w.refuseTopic(c, t, held); ok {
		if c.held && !held {
			v.Write = true
		}
		p.Verdicts = append(p.Verdicts, v)
		return
	}
	if t != nil && t.Unread {
		p.Verdicts = append(p.Verdicts, working(&c.claim, "Reading", "The topic exists already; looking at it before anything is changed."))
		return
	}
	do := topicActions(c, t)
	v := inForce(&c.claim, fmt.Sprintf("Topic %s is as it is wanted.", TopicName(c.Object)))
	factor, change := wantsFactor(c, t)
	if change {
		v = working(&c.claim, "ChangingReplicas", fmt.Sprintf("The balancer is to give each partition %d replicas in place of %d.", factor, t.Replicas))
	}
	if c.Object.Spec.Paused {
		p.Verdicts = append(p.Verdicts, paused(&c.claim, v, do))
		return
	}
	if change {
		p.Factors = keep(p.Factors, TopicName(c.Object), factor)
	}
	from := len(p.Verdicts)
	w.act(&c.claim, v, do, now, p)
	p.Verdicts[from] = holding(&c.claim, p.Verdicts[from], hold{uid: c.uid, keys: topicKeys(c, t)})
}

func keep(m map[string]int, key string, value int) map[string]int {
	if m == nil {
		m = map[string]int{}
	}
	m[key] = value
	return m
}

// holding asks for the hold to be written where it differs.
func holding(c *claim, v Verdict, want hold) Verdict {
	if text := want.String(); !c.held || text != c.hold.String() {
		v.Write, v.Hold = true, text
	}
	return v
}

// paused says what would be done.
func paused(c *claim, v Verdict, do []Action) Verdict {
	switch {
	case len(do) > 0:
		return c.verdict(Refused, "Paused", "Paused by spec.paused; otherwise going to "+phrases(do)+".")
	case v.State != InForce:
		return c.verdict(Refused, "Paused", "Paused by spec.paused; otherwise: "+v.Message)
	default:
		return v
	}
}

// refuseTopic is why nothing of the spec can be brought about.
func (w *World) refuseTopic(c *topicClaim, t *Topic, held bool) (Verdict, bool) {
	name, spec := TopicName(c.Object), &c.Object.Spec
	if problem := CheckTopic(c.Object); problem != "" {
		return refused(&c.claim, "InvalidSpec", "%s", problem), true
	}
	if Internal(name) || t != nil && t.Internal {
		return refused(&c.claim, "ReservedTopic", "Kafka keeps topic %s for itself: delete this object, the topic stays as it is.", name), true
	}
	if t != nil && !held && !spec.Adopt {
		return refused(&c.claim, "TopicExists", "Topic %s exists in Kafka and this object did not make it: set spec.adopt to take it over as it is, or delete this object and choose another name.", name), true
	}
	return w.refuseSize(c, t)
}

// refuseSize is why a topic cannot have that many partitions or replicas.
func (w *World) refuseSize(c *topicClaim, t *Topic) (Verdict, bool) {
	if t != nil && t.Unread {
		return Verdict{}, false
	}
	name, spec := TopicName(c.Object), &c.Object.Spec
	if t != nil && spec.Partitions != nil && *spec.Partitions < t.Partitions {
		return refused(&c.claim, "FewerPartitions", "Topic %s has %d partitions and spec.partitions is %d: Kafka takes none away. Set it to %d or more, or make another topic and copy the records. Nothing else of this spec is changed until then.",
			name, t.Partitions, *spec.Partitions, t.Partitions), true
	}
	_, change := wantsFactor(c, t)
	if spec.Replicas != nil && int(*spec.Replicas) > w.have.Brokers && (t == nil || change) {
		return refused(&c.claim, "TooFewBrokers", "spec.replicas is %d and the cluster has %d brokers that are alive: lower it, or wait for brokers.", *spec.Replicas, w.have.Brokers), true
	}
	return Verdict{}, false
}

// leaveTopic lets go of a topic that this object holds.
func (w *World) leaveTopic(c *topicClaim, now time.Time, p *Plan) {
	name := TopicName(c.Object)
	keeps := c.Object.Spec.DeletionPolicy != api.DeletionDelete || w.isTaken(&c.claim) || Internal(name)
	switch {
	case keeps:
		p.Verdicts = append(p.Verdicts, released(&c.claim, "The topic stays in Kafka: deletionPolicy is Retain, or it is not this object's."))
		return
	case w.isGone(&c.claim):
		p.Verdicts = append(p.Verdicts, released(&c.claim, "The topic is deleted."))
		return
	case w.have == nil:
		p.Verdicts = append(p.Verdicts, w.unasked(&c.claim))
		return
	}
	// Asked for also where the snapshot lacks it: it may have been made since.
	do := DeleteTopic{Name: name}
	if t := w.have.Topics[name]; t != nil {
		do.ID = t.ID
	}
	w.act(&c.claim, inForce(&c.claim, ""), []Action{do}, now, p)
}

// topicActions are what Kafka lacks of the spec.
func topicActions(c *topicClaim, t *Topic) []Action {
	spec := &c.Object.Spec
	if t == nil {
		do := CreateTopic{Name: TopicName(c.Object), Partitions: -1, Replicas: -1, Config: textOf(spec.Config)}
		if spec.Partitions != nil {
			do.Partitions = *spec.Partitions
		}
		if spec.Replicas != nil {
			do.Replicas = int16(*spec.Replicas) //nolint:gosec // at most 100
		}
		return []Action{do}
	}
	var do []Action
	if spec.Partitions != nil && *spec.Partitions > t.Partitions {
		do = append(do, AddPartitions{Topic: TopicName(c.Object), From: t.Partitions, To: *spec.Partitions})
	}
	alter := AlterConfig{Topic: TopicName(c.Object)}
	for k, v := range spec.Config {
		if is, ok := t.Config[k]; !ok || !sameValue(is, string(v)) {
			alter.Set = put1(alter.Set, k, string(v))
		}
	}
	for _, k := range ever(c) {
		_, wanted := spec.Config[k]
		if _, is := t.Config[k]; !wanted && (is || !t.knows(k)) {
			alter.Delete = append(alter.Delete, k)
		}
	}
	if len(alter.Set)+len(alter.Delete) > 0 {
		do = append(do, alter)
	}
	return do
}

func put1(m map[string]string, k, v string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	m[k] = v
	return m
}

// ever are the keys that this object set, as far as it still holds them.
func ever(c *topicClaim) []string {
	return slices.DeleteFunc(slices.Clone(c.hold.keys), owned)
}

// topicKeys are what the object holds: what it sets, and what it set that is not yet known to be gone.
func topicKeys(c *topicClaim, t *Topic) []string {
	keys := slices.Collect(maps.Keys(c.Object.Spec.Config))
	for _, k := range ever(c) {
		if t == nil {
			continue
		}
		if _, is := t.Config[k]; is || !t.knows(k) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// wantsFactor is the replication factor that the balancer is to bring about.
func wantsFactor(c *topicClaim, t *Topic) (int, bool) {
	r := c.Object.Spec.Replicas
	if r == nil || t == nil || *r == t.Replicas && *r == t.MostReplicas {
		return 0, false
	}
	return int(*r), true
}

func textOf(config api.Config) map[string]string {
	if len(config) == 0 {
		return nil
	}
	out := make(map[string]string, len(config))
	for k, v := range config {
		out[k] = string(v)
	}
	return out
}

// sameValue says whether Kafka reads two values alike: it trims, and writes numbers, booleans
// and lists its own way (ConfigDef.parseType).
func sameValue(a, b string) bool {
	if a == b {
		return true
	}
	a, b = strings.TrimSpace(a), strings.TrimSpace(b)
	if a == b {
		return true
	}
	if strings.EqualFold(a, b) && (strings.EqualFold(a, "true") || strings.EqualFold(a, "false")) {
		return true
	}
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	if errX == nil && errY == nil {
		return x == y
	}
	f, errF := strconv.ParseFloat(a, 64)
	g, errG := strconv.ParseFloat(b, 64)
	if errF == nil && errG == nil {
		return f == g
	}
	return strings.Contains(a, ",") && slices.Equal(elements(a), elements(b))
}

func elements(list string) []string {
	parts := strings.Split(list, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}
