package kconf_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/core/kconf"
)

func TestDiff(t *testing.T) {
	type config = map[string]string
	for _, test := range []struct {
		reason        string
		roles         kconf.Roles
		from, to      config
		restart, live []string
	}{
		{"nothing changed", kconf.Both, config{"num.io.threads": "8", "num.partitions": "3"}, config{"num.io.threads": " 8", "num.partitions": "03"}, nil, nil},
		{"a live key", kconf.Both, config{"num.io.threads": "8"}, config{"num.io.threads": "16"}, nil, []string{"num.io.threads"}},
		{"a live key removed", kconf.Both, config{"log.retention.ms": "1"}, nil, nil, []string{"log.retention.ms"}},
		{"a read-only key added", kconf.Broker, nil, config{"num.partitions": "3"}, []string{"num.partitions"}, nil},
		{
			"both at once, sorted", kconf.Broker,
			config{"queued.max.requests": "1"},
			config{"num.partitions": "3", "queued.max.requests": "2", "background.threads": "5", "compression.type": "lz4"},
			[]string{"num.partitions", "queued.max.requests"},
			[]string{"background.threads", "compression.type"},
		},
		{"a broker-only change leaves controllers alone", kconf.Controller, config{"replica.fetch.max.bytes": "1"}, config{"replica.fetch.max.bytes": "2", "background.threads": "5"}, nil, nil},
		{"but not a combined node", kconf.Both, config{"replica.fetch.max.bytes": "1"}, config{"replica.fetch.max.bytes": "2"}, []string{"replica.fetch.max.bytes"}, nil},
		{"a controller-only change leaves brokers alone", kconf.Broker, nil, config{"broker.session.timeout.ms": "9000"}, nil, nil},
		{"a client listener is the brokers' alone", kconf.Controller, nil, config{"listener.name.client.ssl.cipher.suites": "x"}, nil, nil},
		{"a thread pool within double of its default", kconf.Both, config{"num.io.threads": "4"}, config{"num.io.threads": "16"}, nil, []string{"num.io.threads"}},
		{"a thread pool that outgrows a start from the default", kconf.Both, config{"num.io.threads": "16"}, config{"num.io.threads": "17"}, []string{"num.io.threads"}, nil},
		{"a thread pool that comes back", kconf.Both, config{"num.io.threads": "32"}, config{"num.io.threads": "16"}, []string{"num.io.threads"}, nil},
		{"a large thread pool removed", kconf.Both, config{"num.io.threads": "32"}, nil, []string{"num.io.threads"}, nil},
		{"an unknown key restarts everything", kconf.Controller, nil, config{"acme.audit.topic": "x"}, []string{"acme.audit.topic"}, nil},
	} {
		restart, live := tableFor(t, "4.3.1").Diff(test.roles, test.from, test.to)
		if diff := cmp.Diff([][]string{test.restart, test.live}, [][]string{restart, live}); diff != "" {
			t.Errorf("%s: restart, live (-want +got):\n%s", test.reason, diff)
		}
	}
}

func TestSplit(t *testing.T) {
	config := map[string]string{"num.io.threads": "16", "num.partitions": "3", "replica.fetch.max.bytes": "5", "background.threads": "5", "broker.session.timeout.ms": "1", "acme": "x"}
	type parts struct{ File, Live map[string]string }
	for roles, want := range map[kconf.Roles]parts{
		kconf.Broker: {
			File: map[string]string{"num.partitions": "3", "replica.fetch.max.bytes": "5", "acme": "x"},
			Live: map[string]string{"num.io.threads": "16", "background.threads": "5"},
		},
		kconf.Controller: {
			File: map[string]string{"num.partitions": "3", "broker.session.timeout.ms": "1", "acme": "x"},
			Live: map[string]string{"num.io.threads": "16"},
		},
	} {
		file, live := tableFor(t, "4.3.1").Split(roles, config)
		if diff := cmp.Diff(want, parts{file, live}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", roles, diff)
		}
	}
}

func TestNextStepNeverMoreThanDoublesOrHalves(t *testing.T) {
	for _, test := range []struct{ key, inForce, wanted, want string }{
		{"num.io.threads", "8", "64", "16"},
		{"num.io.threads", "16", "17", "17"},
		{"num.io.threads", "64", "8", "32"},
		{"num.io.threads", "3", "1", "2"},
		{"num.io.threads", "2", "1", "1"},
		{"listener.name.client.num.network.threads", "3", "100", "6"},
		{"num.io.threads", "", "64", "64"},
		{"message.max.bytes", "1", "1000", "1000"},
	} {
		k, _ := tableFor(t, "4.3.1").Key(test.key)
		if got := k.NextStep(test.inForce, test.wanted); got != test.want {
			t.Errorf("%s: NextStep(%s, %s) = %s, want %s", test.key, test.inForce, test.wanted, got, test.want)
		}
	}
}

func TestLiveIsWhatANodeTakesAtItsStart(t *testing.T) {
	for _, test := range []struct {
		key, value string
		want       bool
	}{
		{"num.io.threads", "4", true},
		{"num.io.threads", "3", false},
		{"num.io.threads", " 16 ", true},
		{"num.io.threads", "17", false},
		{"num.network.threads", "1", false}, // from 1 back to the default of 3 would more than double
		{"num.network.threads", "2", true},
		{"listener.name.client.num.network.threads", "3", false}, // starts from another key
		{"log.retention.ms", "1", true},
		{"num.partitions", "1", false},
		{"metric.reporters", "", false},
	} {
		k, ok := tableFor(t, "4.3.1").Key(test.key)
		if got := k.Live(test.value); !ok || got != test.want {
			t.Errorf("%s=%s: Live = %v, want %v", test.key, test.value, got, test.want)
		}
	}
}
