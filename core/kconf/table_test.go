package kconf_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"castellan.dev/castellan/core/kconf"
)

func tableFor(t *testing.T, version string) kconf.Table {
	t.Helper()
	table, ok := kconf.For(version)
	if !ok {
		t.Fatalf("no table for Kafka %s", version)
	}
	return table
}

func TestForMapsAVersionToItsMinor(t *testing.T) {
	for version, want := range map[string]string{"4.3.1": "4.3", "4.3": "4.3", "4.3.99": "4.3", "3.9.2": "3.9", "4.0.0": "4.0"} {
		if got := tableFor(t, version).Minor(); got != want {
			t.Errorf("For(%q) speaks for %q, want %q", version, got, want)
		}
	}
	for _, version := range []string{"", "4", "3.8.1", "4.9.0", "5.0.0", "4.3.1.2", "4..3", "latest"} {
		if table, ok := kconf.For(version); ok {
			t.Errorf("For(%q) = the table of %s, want none", version, table.Minor())
		}
	}
	if diff := cmp.Diff([]string{"3.9", "4.0", "4.1", "4.2", "4.3"}, kconf.Versions()); diff != "" {
		t.Errorf("Versions (-want +got):\n%s", diff)
	}
}

func TestEveryTableNamesItsSourceAndIsWhole(t *testing.T) {
	for _, minor := range kconf.Versions() {
		table := tableFor(t, minor)
		if s := table.Source(); !strings.HasPrefix(s.Version, minor+".") || len(s.SHA256) != 64 {
			t.Errorf("%s: source %+v", minor, s)
		}
		if n := len(table.Names()); n < 300 {
			t.Errorf("%s: %d broker keys, want at least 300", minor, n)
		}
		if n := len(table.TopicNames()); n < 30 {
			t.Errorf("%s: %d topic keys, want at least 30", minor, n)
		}
		for _, name := range table.Names() {
			k, ok := table.Key(name)
			if !ok || k.Name != name || k.Type == "" || k.Roles == 0 {
				t.Errorf("%s: Key(%q) = %+v, %v", minor, name, k, ok)
			}
			if k.HasDefault && k.Type != kconf.Class && len(kconf.ValidateValue(k, k.Default)) > 0 {
				t.Errorf("%s: %s refuses its own default: %v", minor, name, kconf.ValidateValue(k, k.Default))
			}
		}
	}
}

// TestFactsOfKafka holds facts of the two ends of the range against the tables.
func TestFactsOfKafka(t *testing.T) {
	ranged := func(lo, hi string) kconf.Valid { return kconf.Valid{Min: lo, Max: hi} }
	for _, test := range []struct {
		version string
		want    kconf.Key
	}{
		{"4.3.1", kconf.Key{Name: "log.retention.ms", Type: kconf.Long, UpdateMode: kconf.ClusterWide, Roles: kconf.Both}},
		{"4.3.1", kconf.Key{Name: "log.retention.hours", Type: kconf.Int, Default: "168", HasDefault: true, Roles: kconf.Both}},
		{"4.3.1", kconf.Key{Name: "num.io.threads", Type: kconf.Int, Default: "8", HasDefault: true, Valid: ranged("1", ""), UpdateMode: kconf.ClusterWide, Stepwise: true, Roles: kconf.Both}},
		{"3.9.2", kconf.Key{Name: "num.io.threads", Type: kconf.Int, Default: "8", HasDefault: true, Valid: ranged("1", ""), UpdateMode: kconf.ClusterWide, Stepwise: true, Roles: kconf.Both}},
		{"4.3.1", kconf.Key{Name: "num.network.threads", Type: kconf.Int, Default: "3", HasDefault: true, Valid: ranged("1", ""), UpdateMode: kconf.ClusterWide, Stepwise: true, Roles: kconf.Both}},
		{"4.3.1", kconf.Key{Name: "background.threads", Type: kconf.Int, Default: "10", HasDefault: true, Valid: ranged("1", ""), UpdateMode: kconf.ClusterWide, Stepwise: true, Roles: kconf.Broker}},
		{"3.9.2", kconf.Key{Name: "log.cleaner.threads", Type: kconf.Int, Default: "1", HasDefault: true, Valid: ranged("0", ""), UpdateMode: kconf.ClusterWide, Stepwise: true, Roles: kconf.Broker}},
		{"4.3.1", kconf.Key{Name: "message.max.bytes", Type: kconf.Int, Default: "1048588", HasDefault: true, Valid: ranged("0", ""), UpdateMode: kconf.ClusterWide, Roles: kconf.Both}},
		{"4.3.1", kconf.Key{Name: "min.insync.replicas", Type: kconf.Int, Default: "1", HasDefault: true, Valid: ranged("1", ""), UpdateMode: kconf.ClusterWide, ClusterOnly: true, Roles: kconf.Both}},
		{"4.3.1", kconf.Key{Name: "num.partitions", Type: kconf.Int, Default: "1", HasDefault: true, Valid: ranged("1", ""), Roles: kconf.Both}},
		{"4.3.1", kconf.Key{Name: "offsets.topic.replication.factor", Type: kconf.Short, Default: "3", HasDefault: true, Valid: ranged("1", ""), Roles: kconf.Broker}},
		{"4.3.1", kconf.Key{Name: "broker.session.timeout.ms", Type: kconf.Int, Default: "9000", HasDefault: true, Roles: kconf.Controller}},
		{"4.3.1", kconf.Key{Name: "compression.gzip.level", Type: kconf.Int, Default: "-1", HasDefault: true, Valid: kconf.Valid{Min: "1", Max: "9", Or: "-1"}, UpdateMode: kconf.ClusterWide, Roles: kconf.Both}},
		{"3.9.2", kconf.Key{Name: "remote.log.manager.copier.thread.pool.size", Type: kconf.Int, Default: "-1", HasDefault: true, Valid: kconf.Valid{Min: "1", Or: "-1"}, UpdateMode: kconf.ReadOnly, Roles: kconf.Broker}},
		{"4.3.1", kconf.Key{Name: "log.cleanup.policy", Type: kconf.List, Default: "delete", HasDefault: true, Valid: kconf.Valid{OneOf: []string{"compact", "delete"}, Unique: true}, UpdateMode: kconf.ClusterWide, Roles: kconf.Both}},
		{"4.3.1", kconf.Key{Name: "log.cleaner.enable", Type: kconf.Boolean, Default: "true", HasDefault: true, Roles: kconf.Broker, Deprecated: true}},
		{"4.3.1", kconf.Key{Name: "server.max.startup.time.ms", Type: kconf.Long, Default: "9223372036854775807", HasDefault: true, Valid: ranged("0", ""), Roles: kconf.Both, Internal: true}},
		// Live in Kafka's print, not on a running listener or beside bounds in a file: see reviewMode.
		{"4.3.1", kconf.Key{Name: "ssl.cipher.suites", Type: kconf.List, Default: "", HasDefault: true, Valid: kconf.Valid{Unique: true}, Roles: kconf.Both}},
		{"4.3.1", kconf.Key{Name: "group.consumer.assignment.interval.ms", Type: kconf.Int, Default: "1000", HasDefault: true, Valid: ranged("0", ""), Roles: kconf.Both}},
		// Under a listener.
		{"4.3.1", kconf.Key{Name: "listener.name.client.max.connections", Type: kconf.Int, Valid: ranged("0", ""), UpdateMode: kconf.ClusterWide, Roles: kconf.Broker}},
		{"4.3.1", kconf.Key{Name: "listener.name.client.connections.max.reauth.ms", Type: kconf.Long, Roles: kconf.Broker}},
		{"4.3.1", kconf.Key{Name: "listener.name.client.scram-sha-512.sasl.jaas.config", Type: kconf.Password, Roles: kconf.Broker}},
		// Of a plug-in, and read outside ConfigDef.
		{"4.3.1", kconf.Key{Name: "rsm.config.chunk.size", Type: kconf.String, Roles: kconf.Broker}},
		{"4.3.1", kconf.Key{Name: "allow.everyone.if.no.acl.found", Type: kconf.Boolean, Default: "false", HasDefault: true, Roles: kconf.Both}},
	} {
		got, ok := tableFor(t, test.version).Key(test.want.Name)
		if !ok {
			t.Errorf("%s: no key %s", test.version, test.want.Name)
		}
		if diff := cmp.Diff(test.want, got, cmpopts.IgnoreUnexported(kconf.Key{})); diff != "" {
			t.Errorf("%s: %s (-want +got):\n%s", test.version, test.want.Name, diff)
		}
	}
}

func TestStoresOfAListenerAreLivePerBroker(t *testing.T) {
	table := tableFor(t, "4.3.1")
	for name, want := range map[string]kconf.UpdateMode{
		"listener.name.client.ssl.keystore.location": kconf.PerBroker,
		"ssl.keystore.location":                      kconf.ReadOnly,
		"listener.name.client.ssl.cipher.suites":     kconf.ReadOnly,
		"cordoned.log.dirs":                          kconf.PerBroker,
		"listeners":                                  kconf.ReadOnly,
	} {
		if k, ok := table.Key(name); !ok || k.UpdateMode != want {
			t.Errorf("%s is %v, want %v", name, k.UpdateMode, want)
		}
	}
}

func TestWhatBecomesOfKeysAcrossMinors(t *testing.T) {
	for name, want := range map[string]string{
		"cordoned.log.dirs":                      "4.3",
		"zookeeper.connect":                      "3.9",
		"group.streams.session.timeout.ms":       "4.1 4.2 4.3",
		"controller.quorum.auto.join.enable":     "4.2 4.3",
		"log.message.format.version":             "3.9",
		"process.roles":                          "3.9 4.0 4.1 4.2 4.3",
		"leader.imbalance.per.broker.percentage": "3.9",
	} {
		var has []string
		for _, minor := range kconf.Versions() {
			if _, ok := tableFor(t, minor).Key(name); ok {
				has = append(has, minor)
			}
		}
		if got := strings.Join(has, " "); got != want {
			t.Errorf("%s is in %s, want %s", name, got, want)
		}
	}
}

func TestTopicKeysNameTheBrokerKeysBehindThem(t *testing.T) {
	table := tableFor(t, "4.3.1")
	for name, want := range map[string][]string{
		"follower.replication.throttled.replicas": nil,
		"retention.ms":          {"log.retention.ms", "log.retention.minutes", "log.retention.hours"},
		"segment.ms":            {"log.roll.ms", "log.roll.hours"},
		"min.insync.replicas":   {"min.insync.replicas"},
		"remote.storage.enable": nil,
	} {
		k, ok := table.TopicKey(name)
		if diff := cmp.Diff(want, k.BrokerKeys); !ok || diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestKeysCastellanOwns also keeps the ownership rules from naming keys that no Kafka has.
func TestKeysCastellanOwns(t *testing.T) {
	table := tableFor(t, "4.3.1")
	for _, name := range []string{
		"process.roles", "node.id", "broker.id", "listeners", "advertised.listeners", "listener.security.protocol.map", "inter.broker.listener.name",
		"security.inter.broker.protocol", "controller.listener.names", "controller.quorum.voters", "controller.quorum.bootstrap.servers",
		"controller.quorum.auto.join.enable", "log.dir", "log.dirs", "metadata.log.dir", "broker.rack", "early.start.listeners", "cordoned.log.dirs",
		"ssl.keystore.location", "ssl.keystore.key", "ssl.truststore.certificates", "ssl.key.password", "ssl.engine.factory.class", "ssl.client.auth",
		"ssl.principal.mapping.rules", "ssl.allow.dn.changes", "ssl.allow.san.changes", "ssl.endpoint.identification.algorithm", "authorizer.class.name",
		"super.users", "principal.builder.class", "sasl.mechanism.inter.broker.protocol", "sasl.mechanism.controller.protocol", "sasl.enabled.mechanisms",
		"leader.replication.throttled.rate", "follower.replication.throttled.rate", "replica.alter.log.dirs.io.max.bytes.per.second",
		"listener.name.controller.ssl.cipher.suites", "listener.name.internal.max.connections", "listener.name.client.ssl.keystore.location",
		"listener.name.client.sasl.enabled.mechanisms",
	} {
		if k, ok := table.Key(name); !ok || k.Owned == nil || k.Owned.Why == "" {
			t.Errorf("%s: in the table %v, owned %v", name, ok, k.Owned)
		}
	}
	for _, name := range []string{
		"min.insync.replicas", "num.partitions", "auto.create.topics.enable", "ssl.cipher.suites", "metric.reporters", "sasl.oauthbearer.jwks.endpoint.url",
		"listener.name.client.ssl.cipher.suites", "listener.name.client.max.connections", "listener.name.client.ssl.principal.mapping.rules",
		"controller.quorum.fetch.timeout.ms", "metadata.log.segment.bytes", "rsm.config.bucket", "broker.session.timeout.ms",
	} {
		if k, ok := table.Key(name); !ok || k.Owned != nil {
			t.Errorf("%s: in the table %v, owned by %+v; want it to be the user's", name, ok, k.Owned)
		}
	}
}
