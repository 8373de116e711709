package kconf

import "strings"

// ownedRule makes a family of keys Castellan's own. The patterns are those of matches.
type ownedRule struct {
	keys []string
	Ownership
}

// ownership returns why Castellan owns the key, nil when it does not. It also answers for keys of other Kafka versions.
func ownership(name string) *Ownership { return ownedBy(ownedRules(), name) }

func ownedBy(rules []ownedRule, name string) *Ownership {
	if l, ok := splitListenerKey(name); ok {
		return listenerOwnership(l)
	}
	for _, r := range rules {
		if matches(r.keys, name) {
			return &r.Ownership
		}
	}
	return nil
}

func listenerOwnership(l listenerKey) *Ownership {
	if reservedListener(strings.ToLower(l.listener)) {
		return &Ownership{"the listener " + strings.ToUpper(l.listener) + " is Castellan's own and runs with mutual TLS", ""}
	}
	switch {
	case matches(tlsStores(), l.base):
		return &Ownership{"a listener's certificate and trust are kept current without a restart", "spec.listeners[].tls"}
	case l.base == "ssl.client.auth" || l.base == "sasl.enabled.mechanisms":
		return &Ownership{"a listener's way to authenticate clients is one choice", "spec.listeners[].authentication"}
	default:
		return nil
	}
}

func tlsStores() []string {
	return []string{"ssl.keystore.*", "ssl.truststore.*", "ssl.key.password", "ssl.engine.factory.class"}
}

func ownedRules() []ownedRule {
	const (
		noField    = ""
		listeners  = "spec.listeners"
		volumes    = "spec.pools[].volumes"
		kraftOnly  = "Castellan runs KRaft only, where it has no meaning"
		ownChannel = "nodes talk to each other on Castellan's own listeners with mutual TLS"
	)
	return []ownedRule{
		{[]string{"process.roles"}, Ownership{"a pool gives its nodes their roles", "spec.pools[].roles"}},
		{[]string{"node.id", "broker.id"}, Ownership{"node ids are given once and never reused", "spec.pools[].firstNodeID"}},
		{[]string{"broker.id.generation.enable", "reserved.broker.max.id"}, Ownership{"node ids are given once and never reused", "spec.pools[].firstNodeID"}},
		{[]string{"cluster.id"}, Ownership{"the cluster id is made once and kept with the data", "spec.clusterID"}},
		{[]string{"broker.rack"}, Ownership{"the rack comes from where the node runs", "spec.pools[].placement"}},

		{[]string{"listeners", "advertised.listeners", "listener.security.protocol.map"}, Ownership{"addresses and ports follow from the listeners", listeners}},
		{[]string{"early.start.listeners"}, Ownership{"it follows from the reserved listeners", noField}},
		{[]string{"inter.broker.listener.name", "security.inter.broker.protocol", "control.plane.listener.name"}, Ownership{ownChannel, noField}},
		{[]string{"sasl.mechanism.inter.broker.protocol", "sasl.mechanism.controller.protocol"}, Ownership{ownChannel, noField}},
		{[]string{"sasl.enabled.mechanisms", "ssl.client.auth"}, Ownership{"a listener's way to authenticate clients is one choice", "spec.listeners[].authentication"}},

		{[]string{"controller.listener.names"}, Ownership{"controllers have one reserved listener", noField}},
		{[]string{"controller.quorum.voters"}, Ownership{"the quorum is dynamic; a static voter list would forbid changing it", "spec.pools[].roles and replicas"}},
		{[]string{"controller.quorum.bootstrap.servers"}, Ownership{"it follows from the controllers there are", "spec.pools[].roles and replicas"}},
		{[]string{"controller.quorum.auto.join.enable"}, Ownership{"a controller becomes a voter only when the plan has checked the quorum", noField}},

		{[]string{"log.dir", "log.dirs", "metadata.log.dir"}, Ownership{"data folders follow from the volumes and never move", volumes}},
		{[]string{"cordoned.log.dirs"}, Ownership{"folders are cordoned while a node is drained", "an Operation of type Drain"}},
		{
			[]string{
				"leader.replication.throttled.rate", "follower.replication.throttled.rate", "replica.alter.log.dirs.io.max.bytes.per.second",
				"leader.replication.throttled.replicas", "follower.replication.throttled.replicas",
			},
			Ownership{"throttles are set and taken away by the operation that moves data", "an Operation"},
		},
		{[]string{"controlled.shutdown.enable"}, Ownership{"rolling restarts rely on controlled shutdown", noField}},

		{tlsStores(), Ownership{"certificates are issued per node and kept current without a restart", "spec.certificates and spec.listeners[].tls"}},
		{[]string{"ssl.endpoint.identification.algorithm"}, Ownership{"nodes verify each other's host names", noField}},
		{[]string{"ssl.principal.mapping.rules", "principal.builder.class"}, Ownership{"it maps the nodes' certificates to their principals (a client listener may set its own under listener.name.<listener>.)", noField}},
		{[]string{"ssl.allow.dn.changes", "ssl.allow.san.changes"}, Ownership{"certificates are renewed in place, also with other names", noField}},
		{[]string{"authorizer.class.name"}, Ownership{"authorization is one choice for the cluster", "spec.authorization.type"}},
		{[]string{"super.users"}, Ownership{"the nodes and the operator must stay among them", "spec.authorization.superUsers"}},

		{[]string{"inter.broker.protocol.version", "log.message.format.version"}, Ownership{"with KRaft the finalized metadata version decides", "spec.metadataVersion"}},
		{[]string{"unstable.api.versions.enable", "unstable.feature.versions.enable"}, Ownership{"what they turn on cannot be upgraded", noField}},
		{[]string{"zookeeper.*", "password.encoder.*"}, Ownership{kraftOnly, noField}},
	}
}
