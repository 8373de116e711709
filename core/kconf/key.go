package kconf

import (
	"strconv"
	"strings"
)

// Type is how Kafka parses a value (ConfigDef.Type).
type Type string

// The types of Kafka's ConfigDef.
const (
	Boolean  Type = "Boolean"
	Int      Type = "Int"
	Short    Type = "Short"
	Long     Type = "Long"
	Double   Type = "Double"
	String   Type = "String"
	List     Type = "List"
	Password Type = "Password"
	Class    Type = "Class"
)

// UpdateMode says whether a running node takes a new value.
type UpdateMode int

const (
	// ReadOnly keys take effect only at a restart.
	ReadOnly UpdateMode = iota
	// PerBroker keys change live, but only for one named node; Kafka refuses them as a cluster default.
	PerBroker
	// ClusterWide keys change live as a cluster default, and for one named node unless Key.ClusterOnly says otherwise.
	ClusterWide
)

func (m UpdateMode) String() string {
	switch m {
	case PerBroker:
		return "per-broker"
	case ClusterWide:
		return "cluster-wide"
	default:
		return "read-only"
	}
}

// Roles is a set of process roles.
type Roles uint8

// The process roles of KRaft.
const (
	Broker Roles = 1 << iota
	Controller
	Both = Broker | Controller
)

// Overlap reports whether the two sets share a role.
func (r Roles) Overlap(other Roles) bool { return r&other != 0 }

func (r Roles) String() string {
	switch r {
	case Broker:
		return "broker"
	case Controller:
		return "controller"
	case Both:
		return "broker,controller"
	default:
		return "none"
	}
}

// Valid is what Kafka's validator accepts beyond the type. The zero value accepts everything of the type.
type Valid struct {
	Min, Max   string   // inclusive decimal bounds, empty for none
	Or         string   // one more accepted number outside the bounds
	OneOf      []string // accepted words, for a List accepted elements
	IgnoreCase bool     // OneOf is compared without case
	NonEmpty   bool     // an empty string or list is refused
	Unique     bool     // a list must hold no element twice and no blank one (Kafka 4.2 and newer)
	Text       string   // Kafka's own words when its validator is code; not checked here
}

// String says what is accepted, for a message; empty when there is no rule.
func (v Valid) String() string {
	switch {
	case len(v.OneOf) > 0:
		return "one of " + strings.Join(v.OneOf, ", ")
	case v.Min != "" && v.Max != "" && v.Or != "":
		return v.Min + " to " + v.Max + ", or " + v.Or
	case v.Min != "" && v.Max != "":
		return v.Min + " to " + v.Max
	case v.Min != "" && v.Or != "":
		return v.Min + " or more, or " + v.Or
	case v.Min != "":
		return v.Min + " or more"
	case v.Max != "":
		return v.Max + " or less"
	case v.NonEmpty:
		return "not empty"
	default:
		return v.Text
	}
}

// Ownership says why Castellan sets a key itself and what the user sets instead.
type Ownership struct {
	Why     string // completes "Castellan sets it itself: …"
	Instead string // the field of a KafkaCluster, or the act, that governs it; empty when nothing does
}

// Key is one configuration key of one Kafka version, as it stands for a node that Castellan runs.
type Key struct {
	Name       string
	Type       Type
	Default    string
	HasDefault bool // false when Kafka's default is null or derived from another key
	Valid      Valid
	// UpdateMode is what really happens on a running node, which for some keys is less than Kafka's print promises: see reviewMode.
	UpdateMode UpdateMode
	// ClusterOnly marks a live key that must never differ between nodes.
	ClusterOnly bool
	// Stepwise marks a live thread pool, which a node lets change only to between half and double of what it has: see Live and NextStep.
	Stepwise   bool
	Roles      Roles
	Internal   bool // Kafka keeps it out of its documentation
	Deprecated bool
	Owned      *Ownership // nil for a key the user may set

	listenerDynamic bool // live under listener.name.<listener>., and only there
}

// Dynamic reports whether a running node takes a new value without a restart. Live says it of one value.
func (k Key) Dynamic() bool { return k.UpdateMode != ReadOnly }

// Live reports whether this value may live in Kafka alone. For most keys that is Dynamic. A thread pool starts with the size in the
// node's file, or the default, and a live size beyond double or below half of that is refused at the start, and with it every other
// cluster default: retention and min.insync.replicas fall back to Kafka's own (measured on 4.3.1 with num.io.threads 32). Such a size
// belongs into the file, and its live record must be gone before a node starts with that file.
func (k Key) Live(value string) bool {
	if !k.Stepwise || !k.Dynamic() {
		return k.Dynamic()
	}
	start, err := strconv.ParseInt(k.Default, 10, 32)
	size, err2 := strconv.ParseInt(Normalize(k.Type, value), 10, 32)
	return err == nil && err2 == nil && size >= (start+1)/2 && size <= 2*start
}

// NextStep returns the value to write next on the way from the value in force to the wanted one: for a Stepwise key at most double and
// at least half of it, for any other key the wanted value itself.
func (k Key) NextStep(inForce, wanted string) string {
	from, err := strconv.ParseInt(Normalize(k.Type, inForce), 10, 32)
	to, err2 := strconv.ParseInt(Normalize(k.Type, wanted), 10, 32)
	if !k.Stepwise || err != nil || err2 != nil || from < 1 || to < 1 {
		return wanted
	}
	return strconv.FormatInt(min(max(to, (from+1)/2), 2*from), 10)
}

// TopicKey is a key of a topic's own configuration.
type TopicKey struct {
	Key
	// BrokerKeys give its default, the strongest first; empty when no broker key does.
	BrokerKeys []string
}

// Source names what a table was generated from.
type Source struct {
	Version string // the Kafka release
	SHA256  string // over the release's own jars that define keys
}
