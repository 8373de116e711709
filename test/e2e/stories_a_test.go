package e2e

import (
	"testing"

	"castellan.dev/castellan/test/e2e/stand"
)

// version is what stories run unless they are about another one.
const version = "4.3.1"

// TestOneCluster tells what a user lives through with the cluster that `up` makes by itself.
func TestOneCluster(t *testing.T) {
	s := stand.New(t, stand.Options{Nodes: 3, Version: version})
	for _, story := range []struct {
		name string
		tell func(*testing.T, *stand.Stand)
	}{
		{"records come back identical", recordsComeBack},
		{"up again changes nothing", upAgainChangesNothing},
		{"a killed JVM comes back", killedJVMComesBack},
		{"Kafka outlives everything above it", kafkaOutlivesEverythingAbove},
		{"down and up keep cluster and data", downAndUpKeepTheData},
		{"a deleted cluster's data is adopted", deletedClusterIsAdopted},
		{"deletionPolicy Delete removes its own", deletionRemovesItsOwn},
	} {
		if !t.Run(story.name, func(t *testing.T) { story.tell(t, s.For(t)) }) {
			return // what follows would only say it again
		}
	}
}

// TestTwoVersions tells that older versions come up by the same path, side by side, one of them of mixed pools.
func TestTwoVersions(t *testing.T) {
	s := stand.New(t, stand.Options{
		Cluster: stand.Named("older", stand.Combined("3.9.2", 3)) + "---\n" + stand.Named("mixed", stand.Mixed("4.2.1", 1, 2)),
	})
	for _, c := range []struct{ name, version string }{{"older", "3.9.2"}, {"mixed", "4.2.1"}} {
		t.Run(c.version, func(t *testing.T) { worksAs(t, s.Of("default", c.name).For(t), c.version) })
	}
	t.Run("3.9.2 is upgraded to "+version, func(t *testing.T) { upgradedOverFour(t, s.Of("default", "older").For(t), "older") })
}

// TestDedicatedControllers tells that a change of brokers leaves the controllers alone.
func TestDedicatedControllers(t *testing.T) {
	s := stand.New(t, stand.Options{Cluster: stand.Dedicated(version, 3, 3)})
	brokerChangeLeavesControllersAlone(t, s)
}
