package kconf

import (
	"fmt"
	"slices"
	"strings"
)

// Severity says whether a problem refuses the spec.
type Severity string

// The severities.
const (
	Error   Severity = "Error"
	Warning Severity = "Warning"
)

// Problem is one thing wrong with a key or its value. The caller adds the field path.
type Problem struct {
	Severity Severity
	Reason   string // what is wrong, with the key's name
	Remedy   string // what to do, or what would be accepted; may be empty
}

// Validate checks one entry of spec.config or a pool's config: the key exists, is the user's to set, and the value is one Kafka
// accepts. A PASSWORD key is refused here, because its value would stand in clear text.
func (t Table) Validate(key, value string) []Problem {
	problems := t.ValidateName(key)
	if refused(problems) {
		return problems
	}
	k, _ := t.Key(key)
	if k.Type == Password && !indirect(value) {
		return append(problems, Problem{Error, key + " is a secret and must not stand in the spec", "put it into a Secret and name it in spec.configFrom"})
	}
	return append(problems, ValidateValue(k, value)...)
}

// ValidateName checks a key alone, for values that come from a Secret.
func (t Table) ValidateName(key string) []Problem {
	if own := ownership(key); own != nil {
		return []Problem{ownedProblem(key, own)}
	}
	k, ok := t.Key(key)
	if !ok {
		return []Problem{t.unknown(key)}
	}
	var problems []Problem
	if k.Internal {
		problems = append(problems, Problem{Warning, key + " is internal to Kafka and may change or vanish in any release", ""})
	}
	if k.Deprecated {
		problems = append(problems, Problem{Warning, fmt.Sprintf("Kafka %s calls %s deprecated", t.minor, key), ""})
	}
	if live, ok := t.stronger[key]; ok && !k.Dynamic() {
		problems = append(problems, Problem{Warning, key + " changes only with a restart, and " + live + " outranks it", "use " + live + ", which changes live"})
	}
	return problems
}

// ValidateExtra checks one entry of spec.extraConfig, which is for keys no table knows: those pass with a warning, the others belong
// to spec.config, and Castellan's own stay refused.
func (t Table) ValidateExtra(key, _ string) []Problem {
	if own := ownership(key); own != nil {
		return []Problem{ownedProblem(key, own)}
	}
	if _, ok := t.Key(key); ok {
		return []Problem{{Error, fmt.Sprintf("Kafka %s knows %s", t.minor, key), "move it to spec.config, where its value is checked"}}
	}
	if strings.TrimFunc(key, blank) != key || key == "" {
		return []Problem{{Error, fmt.Sprintf("%q is no key", key), "remove the blanks"}}
	}
	w := Problem{Warning, fmt.Sprintf("Kafka %s does not know %s; it is passed on unchecked, and a change restarts every node", t.minor, key), ""}
	if near, ok := t.Nearest(key); ok {
		w.Remedy = "if " + near + " is meant, set that in spec.config"
	}
	return []Problem{w}
}

// ValidateTopic checks one entry of a topic's configuration.
func (t Table) ValidateTopic(key, value string) []Problem {
	k, ok := t.topic[key]
	if ok {
		return ValidateValue(k.Key, value)
	}
	p := Problem{Error, fmt.Sprintf("Kafka %s has no topic key %s", t.minor, key), ""}
	if name, ok := t.topicKeyOf(key); ok {
		p.Remedy = "for a topic it is called " + name
	} else if near, ok := nearest(key, t.TopicNames()); ok {
		p.Remedy = "did you mean " + near + "?"
	}
	return []Problem{p}
}

// topicKeyOf finds the topic key whose default the broker key gives.
func (t Table) topicKeyOf(broker string) (string, bool) {
	for _, name := range t.TopicNames() {
		if slices.Contains(t.topic[name].BrokerKeys, broker) {
			return name, true
		}
	}
	return "", false
}

func refused(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity == Error })
}

func ownedProblem(key string, own *Ownership) Problem {
	p := Problem{Error, "Castellan sets " + key + " itself: " + own.Why, "remove it"}
	if own.Instead != "" {
		p.Remedy = "remove it; " + own.Instead + " governs it"
	}
	return p
}

// unknown explains a key the table does not have: a listener key gone wrong, a topic's name for it, a key of another Kafka, a
// misspelling, or something only the user can know.
func (t Table) unknown(key string) Problem {
	p := Problem{Severity: Error, Reason: fmt.Sprintf("Kafka %s has no key %s", t.minor, key)}
	if l, ok := splitListenerKey(key); ok {
		return t.unknownListenerKey(l)
	}
	if topic, ok := t.topic[key]; ok && len(topic.BrokerKeys) > 0 {
		p.Reason += "; it is a topic's key"
		p.Remedy = "its default for all topics is " + topic.BrokerKeys[0]
		return p
	}
	if when := t.elsewhere(key); when != "" {
		p.Reason += "; " + when
		p.Remedy = "remove it, or run a Kafka version that has it"
		return p
	}
	if near, ok := t.Nearest(key); ok {
		p.Remedy = "did you mean " + near + "? (a plug-in's key goes into spec.extraConfig)"
		return p
	}
	p.Remedy = "if a plug-in reads it, put it into spec.extraConfig"
	return p
}

func (t Table) unknownListenerKey(l listenerKey) Problem {
	p := Problem{Severity: Error, Reason: fmt.Sprintf("Kafka %s reads no %s for a listener", t.minor, l.base)}
	switch _, known := t.keys[l.base]; {
	case l.listener != strings.ToLower(l.listener):
		p.Reason = "Kafka ignores " + l.name + ": the listener's name must be in lower case there"
		p.Remedy = "write " + strings.Replace(l.name, l.listener, strings.ToLower(l.listener), 1)
	case known:
		p.Remedy = "set " + l.base + " for all listeners"
	default:
		p.Remedy = "if a plug-in reads it, put it into spec.extraConfig"
		if near, ok := nearest(l.base, slices.DeleteFunc(t.Names(), func(n string) bool { return !perListener(n) })); ok {
			p.Remedy = "did you mean " + strings.TrimSuffix(l.name, l.base) + near + "?"
		}
	}
	return p
}

// elsewhere says which other Kafka has the key: "removed in 4.0" or "arrives in 4.2"; empty when none has it.
func (t Table) elsewhere(key string) string {
	all := Versions()
	here := slices.Index(all, t.minor)
	for i := here - 1; i >= 0; i-- {
		if has(all[i], key) {
			return "it was removed in " + all[i+1]
		}
	}
	for _, minor := range all[here+1:] {
		if has(minor, key) {
			return "it arrives in " + minor
		}
	}
	return ""
}

func has(minor, key string) bool {
	d, _ := generated(minor)
	return slices.ContainsFunc(d.broker, func(k Key) bool { return k.Name == key })
}
