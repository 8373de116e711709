package entities

import (
	"time"
)

// Outcome of a Change.
type Outcome string

// The outcomes. Only Done is done.
const (
	// Done means that Kafka said so.
	Done Outcome = "Done"
	// Denied means that Kafka said no: see Result.Reason.
	Denied Outcome = "Denied"
	// Unanswered means that nobody knows; it may have been done.
	Unanswered Outcome = "Unanswered"
	// NotTried means that nothing was asked: an earlier change of the same object, which had to
	// come first, failed, or with a Reason, Kafka did not answer before.
	NotTried Outcome = "NotTried"
)

// Codes of Kafka that mean more than a refusal (org.apache.kafka.common.protocol.Errors).
const (
	CodeTopicExists  = "TOPIC_ALREADY_EXISTS"
	CodeUnknownTopic = "UNKNOWN_TOPIC_OR_PARTITION"
)

// Result is what became of a Change.
type Result struct {
	Outcome Outcome
	// Code is the name of Kafka's error, Reason its words or, for Unanswered, the fault.
	Code, Reason string
	// Retriable is true when Kafka says that it may work later.
	Retriable bool
	// Created is the topic that CreateTopic made, where Kafka tells.
	Created TopicFacts
}

// failure is what went wrong with the changes of an object.
type failure struct {
	uid   string
	gen   int64
	stamp string // claim.stamp
	tries int
	until time.Time
	state State
	text  string
	// maybe is true when something that was not answered may have been done.
	maybe bool
}

// of says whether a failure is still about what the object wants.
func (f failure) of(c *claim) bool { return f.uid == c.uid && f.gen == c.gen && f.stamp == c.stamp }

func (f failure) verdict(c *claim) Verdict {
	if f.state == Refused {
		return c.verdict(Refused, "RefusedByKafka", f.text)
	}
	return c.verdict(Working, "KafkaDidNotAnswer", f.text)
}

// Settle takes what became of changes, one result for each: what Kafka confirmed is so from now
// on, what it refused is tried again later. It returns the objects, each once, to look at again.
func (w *World) Settle(changes []Change, results []Result, now time.Time) []Ref {
	var order []Ref
	outcomes := map[Ref]*settling{}
	for i, c := range changes {
		s := outcomes[c.Owner]
		if s == nil {
			s = &settling{}
			outcomes[c.Owner] = s
			order = append(order, c.Owner)
		}
		s.add(c.Do, results[i])
		s.removal = s.removal || c.Removal
		w.settle(c, results[i])
	}
	for _, ref := range order {
		w.conclude(ref, outcomes[ref], now)
	}
	return order
}

// settle changes what is known by one result.
func (w *World) settle(c Change, r Result) {
	if p := c.Do.principal(); p != "" && r.Outcome != NotTried {
		w.unread[p] = true
	}
	switch {
	case w.have == nil:
	case r.Outcome == Done:
		c.Do.apply(w.have)
		if w.reading {
			w.since = append(w.since, c.Do)
		}
		w.created(c.Do, r.Created)
	case r.Outcome == Denied && r.Code == CodeTopicExists:
		w.exists(c)
	case r.Outcome == Denied && r.Code == CodeUnknownTopic:
		switch do := c.Do.(type) {
		case AlterConfig:
			delete(w.have.Topics, do.Topic)
		case AddPartitions:
			delete(w.have.Topics, do.Topic)
		}
	}
}

func (w *World) created(do Action, facts TopicFacts) {
	c, ok := do.(CreateTopic)
	if !ok || facts.Partitions == 0 {
		return
	}
	t := w.have.Topics[c.Name]
	t.ID, t.Partitions, t.Replicas, t.MostReplicas = facts.ID, facts.Partitions, facts.Replicas, facts.Replicas
}

// exists is when a topic was there already that the snapshot lacks. It is the object's own only
// where an earlier try may have made it.
func (w *World) exists(c Change) {
	do, ok := c.Do.(CreateTopic)
	if !ok {
		return
	}
	w.have.Topics[do.Name] = &Topic{Unread: true}
	w.again = true
	if of := w.claimOf(c.Owner); of != nil && !w.failed[c.Owner].maybe {
		w.taken[c.Owner] = of.uid
	}
}

// settling collects the results of one object.
type settling struct {
	denied, unanswered []string
	retriable          bool
	skipped            int
	waiting            string
	removal            bool
}

func (s *settling) add(do Action, r Result) {
	switch r.Outcome {
	case Done:
	case Denied:
		if r.Code == CodeTopicExists || r.Code == CodeUnknownTopic {
			return // it is looked at again with that knowledge
		}
		why := r.Code
		if r.Reason != "" {
			why += ": " + r.Reason
		}
		s.denied = append(s.denied, do.phrase()+" ("+why+")")
		s.retriable = s.retriable || r.Retriable
	case Unanswered:
		s.unanswered = append(s.unanswered, do.phrase()+" ("+r.Reason+")")
	case NotTried:
		s.skipped++
		if r.Reason != "" {
			s.waiting = r.Reason
		}
	}
}

func (w *World) conclude(ref Ref, s *settling, now time.Time) {
	c := w.claimOf(ref)
	if c == nil {
		return
	}
	if len(s.denied)+len(s.unanswered) == 0 && s.waiting == "" {
		delete(w.failed, ref)
		if s.removal && s.skipped == 0 {
			w.gone[ref] = c.uid
		}
		return
	}
	f := failure{uid: c.uid, gen: c.gen, stamp: c.stamp, tries: 1}
	if old, ok := w.failed[ref]; ok && old.of(c) {
		f.tries, f.maybe = old.tries+1, old.maybe
	}
	f.maybe = f.maybe || len(s.unanswered) > 0
	switch {
	case len(s.denied) > 0:
		f.state = Refused
		f.text = "Kafka refused to " + few(s.denied, ", to ") + ". Correct what it names; it is tried again from time to time, and at once when this object changes."
		f.until = now.Add(backoff(f.tries, s.retriable))
	case len(s.unanswered) > 0:
		f.state = Working
		f.text = "Kafka did not answer whether it did: " + few(s.unanswered, ", ") + ". It is looked at again."
		f.until = now.Add(backoff(f.tries, true))
	default:
		f.state = Unknown
		f.text = "Nothing was changed yet, because Kafka does not answer (" + s.waiting + "). It is tried again."
		f.until = now.Add(backoff(f.tries, true))
	}
	w.failed[ref] = f
}

// backoff is how long a change waits after so many tries in vain.
func backoff(tries int, soon bool) time.Duration {
	first, most := time.Minute, 30*time.Minute
	if soon {
		first, most = time.Second, time.Minute
	}
	return min(first<<min(tries-1, 10), most)
}

// claimOf finds an object; nil when it is gone.
func (w *World) claimOf(ref Ref) *claim {
	switch ref.Kind {
	case KindTopic:
		for _, c := range w.topics[w.at[ref]] {
			if c.ref == ref {
				return &c.claim
			}
		}
	case KindUser:
		for _, c := range w.users[w.at[ref]] {
			if c.ref == ref {
				return &c.claim
			}
		}
	case KindCluster:
		return &claim{ref: ref, allowed: true}
	}
	return nil
}
