package packages_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"castellan.dev/castellan/packages"
	"castellan.dev/castellan/packages/packagestest"
)

// From the Maven client to a package that Kafka starts from, in a store that was empty.
func TestRealAssemblyGivesTheLockedArchive(t *testing.T) {
	lock, err := packages.BuiltinLock("kafka-4.3.1")
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := packages.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := catalog.Find("Kafka", "4.3.1")
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	last := time.Now()
	a, err := s.Fetch(t.Context(), spec, func(u packages.Update) {
		if silent := time.Since(last); silent > 10*time.Second {
			t.Errorf("silent for %s before %q", silent, u.Text)
		}
		last = time.Now()
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.Digest != lock.Archive || a.Root != lock.Root {
		t.Errorf("got %+v, the lock says %s", a, lock.Archive)
	}
	leftovers(t, s)
}

func TestEveryBuiltinPackageHoldsAKafkaThatStarts(t *testing.T) {
	catalog, err := packages.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range catalog.Versions("Kafka") {
		t.Run(version, func(t *testing.T) {
			tree := packagestest.RealKafka(t, version)
			out, err := exec.CommandContext(t.Context(), "java", "-cp", tree.Libs()+"/*", "kafka.Kafka", "--version").CombinedOutput()
			if err != nil || !strings.Contains(string(out), version) {
				t.Errorf("kafka.Kafka --version: %v\n%s", err, out)
			}
			// Without a binding Kafka would run and log nothing.
			if strings.Contains(string(out), "StaticLoggerBinder") {
				t.Errorf("no logging backend:\n%s", out)
			}
		})
	}
}
