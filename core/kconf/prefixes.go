package kconf

import "strings"

// plugin is a family of keys that Kafka hands to a plug-in unread.
type plugin struct {
	prefix string
	roles  Roles
}

// pluginPrefixes lists the families that go through unchecked. Plug-ins with no prefix of their own have their keys in extraConfig.
func pluginPrefixes() []plugin {
	return []plugin{
		{"rsm.config.", Broker},                    // remote.log.storage.manager.impl.prefix: the tiered-storage plug-in
		{"rlmm.config.", Broker},                   // remote.log.metadata.manager.impl.prefix: its metadata manager and clients
		{"config.providers.", Both},                // parameters of the providers named in config.providers
		{"metrics.context.", Both},                 // labels Kafka passes to metrics reporters (KIP-606)
		{"kafka.csv.metrics.", Both},               // the CSV reporter of kafka.metrics.reporters
		{"cruise.control.metrics.reporter.", Both}, // Cruise Control's metrics reporter, with its own producer keys
		{"client.quota.callback.static.", Both},    // the static quota callback plug-in
		{"prometheus.metrics.reporter.", Both},     // the Prometheus metrics reporter plug-in
	}
}

// unlistedKeys are keys that Kafka reads outside its ConfigDef, so that the generated table cannot have them.
func unlistedKeys() []Key {
	return []Key{
		{Name: "allow.everyone.if.no.acl.found", Type: Boolean, Default: "false", HasDefault: true}, // StandardAuthorizer
		{Name: "super.users", Type: String},                                          // StandardAuthorizer
		{Name: "metrics.jmx.include", Type: String, Default: ".*", HasDefault: true}, // JmxReporter
		{Name: "metrics.jmx.exclude", Type: String, Default: "", HasDefault: true},   // JmxReporter
		// Dynamic only (BrokerQuota): throttles of reassignments.
		{Name: "leader.replication.throttled.rate", Type: Long, Valid: Valid{Min: "0"}, UpdateMode: PerBroker},
		{Name: "follower.replication.throttled.rate", Type: Long, Valid: Valid{Min: "0"}, UpdateMode: PerBroker},
		{Name: "replica.alter.log.dirs.io.max.bytes.per.second", Type: Long, Valid: Valid{Min: "0"}, UpdateMode: PerBroker},
	}
}

// listenerKey is listener.name.<listener>.[<mechanism>.]<base>.
type listenerKey struct {
	name, listener, mechanism, base string
}

const listenerPrefix = "listener.name."

// splitListenerKey takes a listener's key apart. A SASL mechanism may stand before a sasl. key or the re-authentication time.
func splitListenerKey(name string) (listenerKey, bool) {
	rest, ok := strings.CutPrefix(name, listenerPrefix)
	if !ok {
		return listenerKey{}, false
	}
	listener, base, ok := strings.Cut(rest, ".")
	if !ok || listener == "" || base == "" {
		return listenerKey{}, false
	}
	l := listenerKey{name: name, listener: listener, base: base}
	if mechanism, sasl, ok := strings.Cut(base, "."); ok && perMechanism(sasl) && isMechanism(mechanism) {
		l.mechanism, l.base = mechanism, sasl
	}
	return l, true
}

func perMechanism(base string) bool {
	return strings.HasPrefix(base, "sasl.") || base == "connections.max.reauth.ms"
}

func isMechanism(s string) bool {
	switch s {
	case "plain", "gssapi", "oauthbearer", "scram-sha-256", "scram-sha-512":
		return true
	default:
		return false
	}
}

// perListener reports whether Kafka reads the key under a listener's prefix.
func perListener(base string) bool {
	return matches([]string{
		"ssl.*", "sasl.*", "principal.builder.class", "connections.max.reauth.ms",
		"max.connections", "max.connection.creation.rate", "num.network.threads",
	}, base)
}

// reservedListener names the listeners that Castellan runs for itself, as they stand in a key.
func reservedListener(listener string) bool {
	return listener == "controller" || listener == "internal"
}

// listenerKey derives a listener's key from its base key: only the stores and the three connection limits change live; client
// listeners exist on brokers alone. It has no default of its own: unset, the base key counts.
func (t Table) listenerKey(l listenerKey) (Key, bool) {
	base, ok := t.keys[l.base]
	if !ok || !perListener(l.base) || l.listener != strings.ToLower(l.listener) {
		return Key{}, false
	}
	k := base
	k.Name, k.Default, k.HasDefault, k.Roles, k.Owned = l.name, "", false, Broker, ownership(l.name)
	if l.listener == "controller" {
		k.Roles = Both
	}
	if base.listenerDynamic && l.mechanism == "" {
		k.UpdateMode = PerBroker
	}
	return k, true
}
