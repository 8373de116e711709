package kconf_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/core/kconf"
)

func TestValidate(t *testing.T) {
	no := func(reason, remedy string) []kconf.Problem {
		return []kconf.Problem{{Severity: kconf.Error, Reason: reason, Remedy: remedy}}
	}
	for _, test := range []struct {
		reason, version, key, value string
		want                        []kconf.Problem
	}{
		{"a good value", "4.3.1", "num.io.threads", " 16 ", nil},
		{"a word of an enumeration", "4.3.1", "compression.type", "zstd", nil},
		{"a word in another case", "4.3.1", "group.consumer.migration.policy", "Upgrade", nil},
		{"a list", "4.3.1", "log.cleanup.policy", "compact, delete", nil},
		{"a plug-in's key", "4.3.1", "rsm.config.bucket", "kafka", nil},
		{"a listener's key", "4.3.1", "listener.name.client.max.connections", "100", nil},
		{"a value a provider supplies", "4.3.1", "num.io.threads", "${env:THREADS}", nil},
		{"a secret a provider supplies", "4.3.1", "delegation.token.secret.key", "${file:/run/secrets/t:key}", nil},
		{"the largest long", "4.3.1", "log.retention.bytes", "9223372036854775807", nil},
		{"the number outside the range", "4.3.1", "compression.gzip.level", "-1", nil},

		{"not a number", "4.3.1", "num.io.threads", "many", no(`num.io.threads: "many" is not a whole number of 32 bits`, "accepted: 1 or more")},
		{"too long for its type", "4.3.1", "num.io.threads", "2147483648", no(`num.io.threads: "2147483648" is not a whole number of 32 bits`, "accepted: 1 or more")},
		{"too small", "4.3.1", "num.io.threads", "0", no(`num.io.threads: "0" is too small`, "accepted: 1 or more")},
		{"too large", "4.3.1", "compression.gzip.level", "10", no(`compression.gzip.level: "10" is too large`, "accepted: 1 to 9, or -1")},
		{"a fraction too large", "4.3.1", "log.cleaner.min.cleanable.ratio", "1.5", no(`log.cleaner.min.cleanable.ratio: "1.5" is too large`, "accepted: 0 to 1")},
		{"not a fraction", "4.3.1", "log.cleaner.min.cleanable.ratio", "half", no(`log.cleaner.min.cleanable.ratio: "half" is not a number`, "accepted: 0 to 1")},
		{"not a boolean", "4.3.1", "auto.create.topics.enable", "yes", no(`auto.create.topics.enable: "yes" is not a boolean`, "accepted: true, false")},
		{"no such word", "4.3.1", "compression.type", "rar", no(`compression.type: "rar" is not known`, "accepted: one of uncompressed, zstd, lz4, snappy, gzip, producer")},
		{"no such element", "4.3.1", "log.cleanup.policy", "compact,keep", no(`log.cleanup.policy: "compact,keep" has the unknown element "keep"`, "accepted: one of compact, delete")},
		{"an element twice", "4.3.1", "log.cleanup.policy", "delete,delete", no(`log.cleanup.policy: "delete,delete" has delete twice`, "accepted: one of compact, delete")},
		{"an element twice, which older Kafka takes", "4.0.2", "log.cleanup.policy", "delete,delete", nil},
		{"an empty list", "4.3.1", "group.coordinator.rebalance.protocols", "", []kconf.Problem{
			{kconf.Warning, "Kafka 4.3 calls group.coordinator.rebalance.protocols deprecated", ""},
			{kconf.Error, `group.coordinator.rebalance.protocols: "" is empty`, "accepted: one of consumer, classic, share, streams"},
		}},
		{"not a class", "4.3.1", "create.topic.policy.class.name", "a b", no(`create.topic.policy.class.name: "a b" is not the name of a Java class`, "")},

		{"a misspelling", "4.3.1", "min.insync.replica", "2", no("Kafka 4.3 has no key min.insync.replica", "did you mean min.insync.replicas? (a plug-in's key goes into spec.extraConfig)")},
		{"an environment variable's spelling", "4.3.1", "NUM_IO_THREADS", "8", no("Kafka 4.3 has no key NUM_IO_THREADS", "did you mean num.io.threads? (a plug-in's key goes into spec.extraConfig)")},
		{"two letters swapped", "4.3.1", "num.io.thraeds", "8", no("Kafka 4.3 has no key num.io.thraeds", "did you mean num.io.threads? (a plug-in's key goes into spec.extraConfig)")},
		{"truly unknown", "4.3.1", "acme.audit.topic", "x", no("Kafka 4.3 has no key acme.audit.topic", "if a plug-in reads it, put it into spec.extraConfig")},
		{"a topic's key", "4.3.1", "retention.ms", "1", no("Kafka 4.3 has no key retention.ms; it is a topic's key", "its default for all topics is log.retention.ms")},
		{"removed", "4.3.1", "offsets.commit.required.acks", "-1", no("Kafka 4.3 has no key offsets.commit.required.acks; it was removed in 4.0", "remove it, or run a Kafka version that has it")},
		{"not there yet", "3.9.2", "group.streams.session.timeout.ms", "45000", no("Kafka 3.9 has no key group.streams.session.timeout.ms; it arrives in 4.1", "remove it, or run a Kafka version that has it")},
		{"a misspelling under a listener", "4.3.1", "listener.name.client.ssl.cipher.suite", "x", no("Kafka 4.3 reads no ssl.cipher.suite for a listener", "did you mean listener.name.client.ssl.cipher.suites?")},
		{"no listener's key", "4.3.1", "listener.name.client.num.io.threads", "8", no("Kafka 4.3 reads no num.io.threads for a listener", "set num.io.threads for all listeners")},
		{"a listener in capitals", "4.3.1", "listener.name.CLIENT.max.connections", "8", no("Kafka ignores listener.name.CLIENT.max.connections: the listener's name must be in lower case there", "write listener.name.client.max.connections")},

		{"a secret in clear text", "4.3.1", "delegation.token.secret.key", "hunter2", no("delegation.token.secret.key is a secret and must not stand in the spec", "put it into a Secret and name it in spec.configFrom")},
		{"a key Castellan owns", "4.3.1", "process.roles", "broker", no("Castellan sets process.roles itself: a pool gives its nodes their roles", "remove it; spec.pools[].roles governs it")},
		{"an owned key of an older Kafka", "4.3.1", "zookeeper.connect", "zk:2181", no("Castellan sets zookeeper.connect itself: Castellan runs KRaft only, where it has no meaning", "remove it")},
		{"a reserved listener", "4.3.1", "listener.name.controller.ssl.protocol", "TLSv1.3", no("Castellan sets listener.name.controller.ssl.protocol itself: the listener CONTROLLER is Castellan's own and runs with mutual TLS", "remove it")},

		{"deprecated", "4.3.1", "log.cleaner.enable", "true", []kconf.Problem{{kconf.Warning, "Kafka 4.3 calls log.cleaner.enable deprecated", ""}}},
		{"internal", "4.3.1", "log.initial.task.delay.ms", "5", []kconf.Problem{{kconf.Warning, "log.initial.task.delay.ms is internal to Kafka and may change or vanish in any release", ""}}},
		{"an alias that needs a restart", "4.3.1", "log.retention.hours", "24", []kconf.Problem{
			{kconf.Warning, "log.retention.hours changes only with a restart, and log.retention.ms outranks it", "use log.retention.ms, which changes live"},
		}},
	} {
		got := tableFor(t, test.version).Validate(test.key, test.value)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s=%s on %s (-want +got):\n%s", test.reason, test.key, test.value, test.version, diff)
		}
	}
}

func TestASecretsKeyMayComeFromASecret(t *testing.T) {
	if got := tableFor(t, "4.3.1").ValidateName("delegation.token.secret.key"); got != nil {
		t.Errorf("ValidateName: %v", got)
	}
}

func TestValidateExtra(t *testing.T) {
	for _, test := range []struct {
		reason, key string
		want        []kconf.Problem
	}{
		{"unknown", "acme.audit.topic", []kconf.Problem{{kconf.Warning, "Kafka 4.3 does not know acme.audit.topic; it is passed on unchecked, and a change restarts every node", ""}}},
		{"near a known key", "min.insync.replica", []kconf.Problem{{kconf.Warning, "Kafka 4.3 does not know min.insync.replica; it is passed on unchecked, and a change restarts every node", "if min.insync.replicas is meant, set that in spec.config"}}},
		{"known", "num.io.threads", []kconf.Problem{{kconf.Error, "Kafka 4.3 knows num.io.threads", "move it to spec.config, where its value is checked"}}},
		{"owned", "log.dirs", []kconf.Problem{{kconf.Error, "Castellan sets log.dirs itself: data folders follow from the volumes and never move", "remove it; spec.pools[].volumes governs it"}}},
		{"blanks", " log.dirs", []kconf.Problem{{kconf.Error, `" log.dirs" is no key`, "remove the blanks"}}},
	} {
		if diff := cmp.Diff(test.want, tableFor(t, "4.3.1").ValidateExtra(test.key, "x")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.reason, diff)
		}
	}
}

func TestValidateTopic(t *testing.T) {
	for _, test := range []struct {
		reason, key, value string
		want               []kconf.Problem
	}{
		{"good", "retention.ms", "-1", nil},
		{"too small", "segment.bytes", "10", []kconf.Problem{{kconf.Error, `segment.bytes: "10" is too small`, "accepted: 1048576 or more"}}},
		{"a broker's key", "log.retention.hours", "1", []kconf.Problem{{kconf.Error, "Kafka 4.3 has no topic key log.retention.hours", "for a topic it is called retention.ms"}}},
		{"a misspelling", "retention.mss", "1", []kconf.Problem{{kconf.Error, "Kafka 4.3 has no topic key retention.mss", "did you mean retention.ms?"}}},
		{"unknown", "colour", "red", []kconf.Problem{{kconf.Error, "Kafka 4.3 has no topic key colour", ""}}},
	} {
		if diff := cmp.Diff(test.want, tableFor(t, "4.3.1").ValidateTopic(test.key, test.value)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.reason, diff)
		}
	}
}

func TestNearestFindsSlipsAndNothingFarther(t *testing.T) {
	table := tableFor(t, "4.3.1")
	for name, want := range map[string]string{
		"log.dir": "log.dir", "log.retension.ms": "log.retention.ms", "logretention.ms": "log.retention.ms", "num-partitions": "num.partitions",
		"offset.topic.replication.factor": "offsets.topic.replication.factor", "unclean.leader.elecion.enabled": "unclean.leader.election.enable",
	} {
		if got, _ := table.Nearest(name); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"", "acme", "acme.audit.topic", "log", "opa.authorizer.url", "metrics.influx.url"} {
		if got, ok := table.Nearest(name); ok {
			t.Errorf("Nearest(%q) = %q, want none", name, got)
		}
	}
}

func TestNormalizeMakesEqualValuesEqualText(t *testing.T) {
	for _, test := range []struct {
		typ  kconf.Type
		a, b string
		want bool
	}{
		{kconf.Int, " 1000", "1000", true},
		{kconf.Long, "+7", "007", true},
		{kconf.Long, "7", "8", false},
		{kconf.Boolean, "TRUE", "true", true},
		{kconf.Double, "0.50", ".5", true},
		{kconf.Double, "1.0E10", "10000000000", true},
		{kconf.Double, "0.5", "0.6", false},
		{kconf.List, "a , b", "a,b", true},
		{kconf.List, "a,b", "b,a", false},
		{kconf.String, " x ", "x", true},
		{kconf.String, "x  y", "x y", false},
		{kconf.Int, "many", " many", true},
	} {
		if got := kconf.Equal(test.typ, test.a, test.b); got != test.want {
			t.Errorf("Equal(%s, %q, %q) = %v", test.typ, test.a, test.b, got)
		}
	}
}
