package kconf

import (
	"maps"
	"slices"
	"strings"
)

// Table is the configuration language of one Kafka minor. It is immutable: build it once and pass it on.
type Table struct {
	minor  string
	source Source
	keys   map[string]Key
	topic  map[string]TopicKey
	// stronger maps a read-only alias (log.retention.hours) to the live key that outranks it (log.retention.ms).
	stronger map[string]string
}

// data is one generated table.
type data struct {
	source Source
	broker []Key
	topic  []TopicKey
}

// Versions returns the supported Kafka minors, oldest first.
func Versions() []string { return minors() }

// For returns the table for a Kafka version such as "4.3.1" or "4.3". A minor without a table is not ok; Versions lists those that
// have one.
func For(version string) (Table, bool) {
	minor, ok := minorOf(version)
	if !ok {
		return Table{}, false
	}
	d, ok := generated(minor)
	if !ok {
		return Table{}, false
	}
	t := Table{
		minor: minor, source: d.source,
		keys: make(map[string]Key, len(d.broker)), topic: make(map[string]TopicKey, len(d.topic)), stronger: map[string]string{},
	}
	readers, owned := brokerKeysControllersRead(d.topic), ownedRules() // once for all keys
	for _, k := range slices.Concat(d.broker, unlistedKeys()) {
		t.keys[k.Name] = review(k, readers, owned)
	}
	for _, k := range d.topic {
		t.topic[k.Name] = k
		t.noteAliases(k.BrokerKeys)
	}
	return t, true
}

// noteAliases remembers, for keys that give the same setting, which live one outranks the read-only ones.
func (t Table) noteAliases(keys []string) {
	if len(keys) < 2 || !t.keys[keys[0]].Dynamic() {
		return
	}
	for _, alias := range keys[1:] {
		t.stronger[alias] = keys[0]
	}
}

func minorOf(version string) (string, bool) {
	parts := strings.Split(version, ".")
	if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
		return "", false
	}
	return parts[0] + "." + parts[1], true
}

// Minor is the Kafka minor the table speaks for, such as "4.3".
func (t Table) Minor() string { return t.minor }

// Source names the Kafka release the table was generated from.
func (t Table) Source() Source { return t.source }

// Names returns every key of the table, sorted. Keys under a listener's prefix are not listed.
func (t Table) Names() []string { return slices.Sorted(maps.Keys(t.keys)) }

// TopicNames returns every topic key, sorted.
func (t Table) TopicNames() []string { return slices.Sorted(maps.Keys(t.topic)) }

// TopicKey returns a key of a topic's own configuration.
func (t Table) TopicKey(name string) (TopicKey, bool) {
	k, ok := t.topic[name]
	return k, ok
}

// Key returns what is known of a broker key: one of Kafka's own, one under listener.name.<listener>., or one of a plug-in whose
// prefix is reviewed (those are Strings of which nothing more is known). A key that only ownership rules know is not ok here.
func (t Table) Key(name string) (Key, bool) {
	if k, ok := t.keys[name]; ok {
		return k, true
	}
	if l, ok := splitListenerKey(name); ok {
		return t.listenerKey(l)
	}
	for _, p := range pluginPrefixes() {
		if strings.HasPrefix(name, p.prefix) && len(name) > len(p.prefix) {
			return Key{Name: name, Type: String, Roles: p.roles}, true
		}
	}
	return Key{}, false
}
