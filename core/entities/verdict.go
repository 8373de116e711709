package entities

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
)

// State of an object.
type State string

// The states.
const (
	// InForce means that Kafka has what the object wants.
	InForce State = "InForce"
	// Working means that it is being brought about.
	Working State = "Working"
	// Refused means that somebody has to do something: see Message.
	Refused State = "Refused"
	// Unknown means that Kafka could not be asked.
	Unknown State = "Unknown"
)

// Verdict is how an object is. Two are the same when they are equal (==).
type Verdict struct {
	Ref        Ref
	UID        string
	Generation int64
	State      State
	// Reason is one CamelCase word, Message the sentences that a user reads.
	Reason, Message string
	// Verified is true when this was read from Kafka, and not only answered by it (users).
	Verified bool
	// Write asks for api.HoldAnnotation to become Hold, and for api.HoldFinalizer, before the
	// object's changes are done. With an empty Hold both are to be taken away.
	Write bool
	Hold  string
	// Release means that the finalizer of an object that is being deleted can go.
	Release bool
	// Topic is what Kafka has, for the status of a KafkaTopic.
	Topic TopicFacts
}

// TopicFacts are what the status of a KafkaTopic says of its topic; the zero value is no topic.
type TopicFacts struct {
	ID                   string
	Partitions, Replicas int32
}

// Conditions in the sense of kstatus, without transition times: Ready always, Reconciling or
// Stalled while they are True.
func (v Verdict) Conditions() []metav1.Condition {
	one := func(kind string, status metav1.ConditionStatus) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status, Reason: v.Reason, Message: v.Message, ObservedGeneration: v.Generation}
	}
	switch v.State {
	case InForce:
		return []metav1.Condition{one(api.ConditionReady, metav1.ConditionTrue)}
	case Working:
		return []metav1.Condition{one(api.ConditionReady, metav1.ConditionFalse), one(api.ConditionReconciling, metav1.ConditionTrue)}
	case Refused:
		return []metav1.Condition{one(api.ConditionReady, metav1.ConditionFalse), one(api.ConditionStalled, metav1.ConditionTrue)}
	default:
		return []metav1.Condition{one(api.ConditionReady, metav1.ConditionUnknown), one(api.ConditionReconciling, metav1.ConditionTrue)}
	}
}

func (c *claim) verdict(s State, reason, message string) Verdict {
	return Verdict{Ref: c.ref, UID: c.uid, Generation: c.gen, State: s, Reason: reason, Message: message}
}

func inForce(c *claim, message string) Verdict { return c.verdict(InForce, "InForce", message) }

func working(c *claim, reason, message string) Verdict { return c.verdict(Working, reason, message) }

func refused(c *claim, reason, format string, args ...any) Verdict {
	return c.verdict(Refused, reason, fmt.Sprintf(format, args...))
}

// notAllowed is of an object whose namespace the cluster does not allow.
func notAllowed(c *claim, cluster api.EntityClusterRef) Verdict {
	name := cluster.Name
	if cluster.Namespace != "" {
		name = cluster.Namespace + "/" + cluster.Name
	}
	return refused(c, "NamespaceNotAllowed", "KafkaCluster %s does not allow namespace %s: have it added to spec.allowedNamespaces there, or move this object. Nothing is changed in Kafka until then.", name, c.ref.Namespace)
}

// conflict is of an object that another one goes before.
func conflict(c *claim, what string, winner *claim) Verdict {
	return refused(c, "Conflict", "%s belongs to %s, which was there first: delete one of the two, for they cannot both be in force.", what, winner.ref)
}

// rivals completes the message of the one in force.
func rivals(v Verdict, others []*claim) Verdict {
	var names []string
	for _, o := range others {
		if o.allowed && !o.leaving {
			names = append(names, o.ref.String())
		}
	}
	if len(names) > 0 {
		v.Message += fmt.Sprintf(" Not in force beside it, because this one was there first: %s.", few(names, ", "))
	}
	return v
}

// released is of an object that is being deleted and that nothing holds any more.
func released(c *claim, message string) Verdict {
	v := working(c, "Released", message)
	v.Release = true
	return v
}

// unasked is of an object that cannot be judged yet.
func (w *World) unasked(c *claim) Verdict {
	if w.why != "" {
		return c.verdict(Unknown, "KafkaNotRead", "Kafka could not be asked yet what it has: "+w.why)
	}
	return c.verdict(Unknown, "KafkaNotRead", "Kafka has not been asked yet what it has.")
}
