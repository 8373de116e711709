package balance

import "slices"

// Mode is what a Request asks for.
type Mode string

// The modes. Each may be limited to topics.
const (
	// Drain empties Request.Brokers and every broker that is Leaving, with the fewest bytes.
	Drain Mode = "Drain"
	// Fill moves replicas to Request.Brokers and to nobody else.
	Fill Mode = "Fill"
	// Full empties leaving brokers, repairs racks and evens out disks, leaders, replicas and topics.
	Full Mode = "Full"
	// Disks moves replicas between log dirs of the same broker: of Request.Brokers, or of all.
	// A lost log dir in Request.Empty is restored on other brokers.
	Disks Mode = "Disks"
	// Leaders changes only the order of replicas and who leads.
	Leaders Mode = "Leaders"
	// ReplicationFactor gives the topics of Request.Factors that many replicas.
	ReplicationFactor Mode = "ReplicationFactor"
)

// Request is what somebody wants. Zero limits mean the defaults named with them.
type Request struct {
	Mode Mode
	// Brokers to drain or fill, or whose disks to even out.
	Brokers []int32
	// Empty are log dirs that must hold nothing in the end (Disks and Full).
	Empty []DirRef
	// Factors are the wished replication factors by topic (ReplicationFactor).
	Factors map[string]int
	// Topics limits any mode to these; empty means all.
	Topics []string
	// ReplicaCap is how many replicas a broker may hold; zero is no cap.
	ReplicaCap int
	// Headroom is the fraction of each log dir that must stay free, copies in flight
	// counted; zero is DefaultHeadroom.
	Headroom float64
	// Tolerance is how far a disk may stay from its bound, as a fraction of the mean use;
	// zero is DefaultTolerance.
	Tolerance float64
	// CountTolerance is the same for numbers of leaders and replicas (at least one is
	// always allowed); zero is DefaultCountTolerance.
	CountTolerance float64
}

// The limits that a zero means.
const (
	DefaultHeadroom       = 0.10
	DefaultTolerance      = 0.05
	DefaultCountTolerance = 0.10
)

// DirRef names a log dir.
type DirRef struct {
	Broker int32
	Path   string
}

// Reason of a Problem, one CamelCase word.
type Reason string

// The reasons a Request is refused for.
const (
	UnknownBroker   Reason = "UnknownBroker"   // named in the request, not in the cluster
	UnknownTopic    Reason = "UnknownTopic"    // named in the request, not in the cluster
	UnknownLogDir   Reason = "UnknownLogDir"   // named in the request, not in the cluster
	NotADestination Reason = "NotADestination" // to be filled, but dead, cordoned, leaving or without log dirs
	InvalidRequest  Reason = "InvalidRequest"  // a limit or a mode that means nothing
	TooFewBrokers   Reason = "TooFewBrokers"   // no broker is left that has not a replica already
	MissingRacks    Reason = "MissingRacks"    // no broker is left in a rack that may take one more
	MissingSpace    Reason = "MissingSpace"    // see Problem.Missing
	ReplicaCap      Reason = "ReplicaCap"      // every broker left is at its cap
	NoLeader        Reason = "NoLeader"        // nothing to copy from
	BelowMinISR     Reason = "BelowMinISR"     // the wish leaves fewer replicas in sync than min.insync.replicas
)

// Problem is why a Request is refused.
type Problem struct {
	Reason Reason
	// Message is a sentence: what is wrong and what a user can do.
	Message string
	// Missing bytes, for MissingSpace.
	Missing int64
}

// settled is the request with its defaults.
func (r Request) settled() Request {
	if r.Headroom == 0 {
		r.Headroom = DefaultHeadroom
	}
	if r.Tolerance == 0 {
		r.Tolerance = DefaultTolerance
	}
	if r.CountTolerance == 0 {
		r.CountTolerance = DefaultCountTolerance
	}
	return r
}

// limits finds numbers that mean nothing.
func (r Request) limits() []Problem {
	var out []Problem
	if r.Headroom < 0 || r.Headroom >= 1 {
		out = append(out, problem(InvalidRequest, "headroom is %v; give a fraction of a log dir from 0 up to, not including, 1", r.Headroom))
	}
	if r.Tolerance < 0 || r.CountTolerance < 0 {
		out = append(out, problem(InvalidRequest, "a tolerance is negative; give a fraction of the mean, for example 0.05"))
	}
	if r.ReplicaCap < 0 {
		out = append(out, problem(InvalidRequest, "the replica cap is %d; give the most replicas a broker may hold, or 0 for no cap", r.ReplicaCap))
	}
	if !slices.Contains([]Mode{Drain, Fill, Full, Disks, Leaders, ReplicationFactor}, r.Mode) {
		out = append(out, problem(InvalidRequest, "mode %q is unknown; use Drain, Fill, Full, Disks, Leaders or ReplicationFactor", r.Mode))
	}
	if r.Mode == Fill && len(r.Brokers) == 0 {
		out = append(out, problem(InvalidRequest, "Fill needs the brokers to fill; name them"))
	}
	if r.Mode == ReplicationFactor && len(r.Factors) == 0 {
		out = append(out, problem(InvalidRequest, "ReplicationFactor needs topics with the factor each shall have; name them"))
	}
	return out
}
