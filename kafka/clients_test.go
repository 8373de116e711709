package kafka_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/kafkatest"
)

func TestClientsReuseReplaceAndForget(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1})
	now := time.Now()
	c := kafka.NewClients(kafka.Options{Max: 2, Idle: time.Minute, Now: func() time.Time { return now }})
	defer c.Close()
	use := func(name string, target kafka.Target) {
		t.Helper()
		if _, err := c.Cluster(name, target).Observe(t.Context(), plan.Ask{}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
	}
	opened := func(want int, why string) {
		t.Helper()
		if n := c.Open(); n != want {
			t.Errorf("%s: %d open, want %d", why, n, want)
		}
	}
	use("a", fake.Target())
	use("a", fake.Target())
	opened(1, "one cluster twice")
	// Each observation asks for the features, each connection begins with the same request.
	if n := fake.Requests()[kmsg.ApiVersions] - 2; n != 1 {
		t.Errorf("%d connections", n)
	}
	use("b", fake.Target())
	use("c", fake.Target())
	opened(2, "no more than Max")
	c.Forget("c")
	opened(1, "forgotten")
	now = now.Add(2 * time.Minute)
	use("d", fake.Target())
	opened(1, "the idle one closes")
	c.Close()
	if _, err := c.Cluster("a", fake.Target()).Observe(t.Context(), plan.Ask{}); err == nil {
		t.Error("a closed cache took a new use")
	}
}

func TestTargetChangesReconnect(t *testing.T) {
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1})
	c := clients(t, 5*time.Second)
	observe := func(target kafka.Target) bool {
		k, err := c.Cluster("a", target).Observe(t.Context(), plan.Ask{})
		if err != nil {
			t.Fatal(err)
		}
		return k.Known
	}
	if !observe(fake.Target()) {
		t.Fatal("unknown")
	}
	withTLS := fake.Target()
	withTLS.TLS = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13}
	if observe(withTLS) {
		t.Error("a plaintext listener answered TLS: the old connections are still in use")
	}
	if !observe(fake.Target()) {
		t.Error("unknown after the way back")
	}
	if c.Open() != 1 {
		t.Errorf("%d open", c.Open())
	}
}

func TestTargetsAreValidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := kafka.NewClients(kafka.Options{})
		defer c.Close()
		for _, addr := range []string{"host", "host:0", "host:x", ":9091", "host:65536", ""} {
			if _, err := c.Cluster("a", kafka.Target{Brokers: []string{addr}}).Observe(t.Context(), plan.Ask{}); err == nil {
				t.Errorf("address %q was taken", addr)
			}
		}
	})
}
