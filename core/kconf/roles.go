package kconf

import "strings"

// review adds to a generated key what Kafka does not say about itself.
func review(k Key, controllersRead map[string]bool, owned []ownedRule) Key {
	k.Roles = rolesOf(k.Name, controllersRead)
	k.UpdateMode = reviewMode(k)
	k.ClusterOnly = clusterOnly(k.Name)
	k.Stepwise = k.Dynamic() && stepwise(k.Name)
	k.Owned = ownedBy(owned, k.Name)
	return k
}

// reviewMode corrects Kafka's printed update mode to what a running node does with the plain key (no listener prefix).
//
// Security keys are printed as per-broker, but DynamicBrokerConfig refuses the stores without a listener prefix, and
// DynamicListenerConfig refuses any other change of an existing listener ("restart broker or create a new listener"). Config
// providers are resolved when the file is read. Calling such a key live would leave a change that is never in force.
//
// Metrics reporters could be loaded live, but their parameters stand in the file, and one that fails to load at the start would take
// every other live key of the node with it. Listeners could be added live, but a node needs them to start, so they stand in its file.
//
// The assignment intervals of groups are live, but a node checks them against their read-only bounds while it reads its file:
// with a raised minimum in the file and the interval only in Kafka it refuses to start (measured on 4.3.1). So they stay together.
func reviewMode(k Key) UpdateMode {
	if matches([]string{
		"ssl.*", "sasl.*", "principal.builder.class", "config.providers",
		"listeners", "advertised.listeners", "listener.security.protocol.map", "metric.reporters",
		"group.consumer.assignment.interval.ms", "group.share.assignment.interval.ms", "group.streams.assignment.interval.ms",
	}, k.Name) {
		return ReadOnly
	}
	return k.UpdateMode
}

// clusterOnly: with eligible leader replicas (on by default for new 4.1 clusters) Kafka keeps min.insync.replicas as a cluster
// default and refuses it per broker, and a value that differs between leaders means nothing to a producer anyway.
func clusterOnly(name string) bool { return name == "min.insync.replicas" }

// stepwise lists the thread pools: DynamicThreadPool, LogCleaner, DataPlaneAcceptor and DynamicRemoteLogConfig refuse a live change to
// less than half or more than double of what the node runs with.
func stepwise(name string) bool {
	return matches([]string{
		"background.threads", "log.cleaner.threads", "num.io.threads", "num.network.threads", "num.recovery.threads.per.data.dir",
		"num.replica.fetchers", "remote.log.reader.threads",
		"remote.log.manager.copier.thread.pool.size", "remote.log.manager.expiration.thread.pool.size", "remote.log.manager.follower.thread.pool.size",
	}, name)
}

// brokerKeysControllersRead are the keys behind topic defaults. The active controller resolves them when it creates a topic,
// checks topic configs against each other and decides about min ISR and unclean elections. The live ones reach it as metadata
// records, so they never restart it; their read-only aliases (log.retention.hours) do.
func brokerKeysControllersRead(topic []TopicKey) map[string]bool {
	read := map[string]bool{}
	for _, k := range topic {
		for _, name := range k.BrokerKeys {
			read[name] = true
		}
	}
	return read
}

// rolesOf says who reads a key. The lists below were reviewed against the uses of KafkaConfig in ControllerServer, SharedServer,
// ControllerApis, ControllerConfigurationValidator, the Raft manager and SocketServer. What is in no list is read by both: a
// needless restart of controllers is the smaller mistake. Keys that KafkaConfig checks against each other at startup stand on
// the same side, so that no node sees half of such a group.
func rolesOf(name string, controllersRead map[string]bool) Roles {
	switch {
	case controllersRead[name] || name == "remote.log.storage.system.enable":
		return Both
	case matches(controllerOnly(), name):
		return Controller
	case matches(brokerOnly(), name):
		return Broker
	default:
		return Both
	}
}

func controllerOnly() []string {
	return []string{
		"auto.leader.rebalance.enable",
		"broker.session.timeout.ms",
		"controller.performance.*",
		"leader.imbalance.*",
		"metadata.max.idle.interval.ms",
		"unclean.leader.election.interval.ms",
	}
}

// brokerOnly leaves out group.consumer.*, group.share.* and group.streams.*: controllers check a group's own configuration
// against their limits, and those limits are checked against each other at startup.
func brokerOnly() []string {
	return []string{
		"add.partitions.to.txn.*",
		"alter.log.dirs.*",
		"auto.create.topics.enable",
		"background.threads",
		"broker.heartbeat.interval.ms",
		"broker.rack",
		"controlled.shutdown.*",
		"cordoned.log.dirs",
		"delete.records.purgatory.*",
		"fetch.*",
		"follower.fetch.*",
		"follower.replication.*",
		"group.coordinator.*",
		"group.initial.rebalance.delay.ms",
		"group.max.*",
		"group.min.*",
		"initial.broker.registration.timeout.ms",
		"leader.replication.*",
		"log.cleaner.*",
		"log.dir.failure.timeout.ms",
		"log.flush.*",
		"log.initial.task.delay.ms",
		"log.retention.check.interval.ms",
		"max.incremental.fetch.session.cache.slots",
		"max.request.partition.size.limit",
		"num.recovery.threads.per.data.dir",
		"num.replica.*",
		"offset.metadata.max.bytes",
		"offsets.*",
		"producer.*",
		"remote.*",
		"replica.*",
		"replication.quota.*",
		"share.*",
		"telemetry.max.bytes",
		"transaction.*",
		"transactional.*",
	}
}

// matches reports whether the name is in the list; an entry may end in * for any rest.
func matches(patterns []string, name string) bool {
	for _, p := range patterns {
		if prefix, wild := strings.CutSuffix(p, "*"); p == name || wild && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
