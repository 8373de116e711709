package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/kafkatest"
	"castellan.dev/castellan/test/e2e/stand"
)

// TestControllers tells of a quorum that grows and shrinks again, of an upgrade whose end the controllers that left would
// block, and of one that loses its disk. A majority is caught up all the time.
func TestControllers(t *testing.T) {
	const before = "4.2.1"
	yaml := strings.ReplaceAll(stand.Dedicated(before, 3, 2), "maxPerHost: 3", "maxPerHost: 9")
	s := stand.New(t, stand.Options{Cluster: yaml})
	traffic := s.StartTraffic("controlled", 4)
	isr := kafkatest.WatchISR(t.Context(), s.BrokerTarget(), 250*time.Millisecond, func(topic string) bool { return topic == "controlled" })
	voters := watchVoters(s)
	defer voters.stop()
	var left []int32

	for _, story := range []struct {
		name string
		tell func(*testing.T, *stand.Stand)
	}{
		{"three become five", func(t *testing.T, s *stand.Stand) { t.Helper(); controllersCome(t, s, voters) }},
		{"five become three", func(t *testing.T, s *stand.Stand) { t.Helper(); left = controllersLeave(t, s, voters) }},
		{"who left is brought to the new version", func(t *testing.T, s *stand.Stand) { t.Helper(); finalizedWithStale(t, s, voters, left) }},
		{"an emptied controller votes under a new directory", emptiedController},
	} {
		began := time.Now()
		if !t.Run(story.name, func(t *testing.T) { story.tell(t, s.For(t)) }) {
			break // what follows would only say it again
		}
		t.Logf("%s: %s", story.name, time.Since(began).Round(time.Second))
	}

	voters.end(t)
	report := isr.Stop()
	if len(report.Under) > 0 || report.Samples == 0 {
		t.Errorf("%d samples (%d not answered: %s); under min ISR: %+v", report.Samples, report.Unknown, report.Why, report.Under)
	}
	traffic.End()
}

// votersAre is the fact that so many controllers vote, and no other.
func votersAre(s *stand.Stand, count int, without ...int32) stand.Fact {
	return func(ctx context.Context) error {
		seen, err := s.Observe(ctx)
		if err != nil {
			return err
		}
		var ids []int32
		for _, v := range seen.Quorum.Voters {
			ids = append(ids, v.ID)
		}
		if len(ids) != count || slices.ContainsFunc(ids, func(id int32) bool { return slices.Contains(without, id) }) {
			return fmt.Errorf("voters are %v", ids)
		}
		return nil
	}
}

func controllersCome(t *testing.T, s *stand.Stand, voters *voterWatch) {
	t.Helper()
	voters.since()
	pids := s.JVMPIDs()
	s.Must("scale", "kafka", "--pool", "controllers", "--replicas", "5")
	took := s.Eventually("five controllers vote", 4*time.Minute, votersAre(s, 5))
	s.WaitReady()
	t.Logf("five vote after %s", took.Round(time.Second))
	sets, _ := voters.changes()
	oneByOne(t, sets)
	now := s.JVMPIDs()
	for id, pid := range pids {
		if now[id] != pid {
			t.Errorf("node %d was restarted for controllers that came", id)
		}
	}
}

// controllersLeave takes the active controller out, and another one. It returns who left.
func controllersLeave(t *testing.T, s *stand.Stand, voters *voterWatch) []int32 {
	t.Helper()
	voters.since()
	active := activeController(t, s)
	left := []int32{active, 4}
	if active == 4 {
		left[1] = 3
	}
	var disks []string
	for _, id := range left {
		disks = append(disks, filepath.Join(s.Node(id).Spec.Volumes[0].Path, layout.LogFolder, "meta.properties"))
	}
	s.Must("scale", "kafka", "--pool", "controllers", "--replicas", "3", "--remove", stand.IDs(left...))
	op := moving(t, s, api.OperationScale)
	took := s.Eventually("they have left", 5*time.Minute, phase(s, op.Name, api.OperationSucceeded, ""))
	s.WaitReady()
	s.Eventually("three controllers vote", 30*time.Second, votersAre(s, 3, left...))
	sets, _ := voters.changes()
	t.Logf("%v, of which %d was active, left in %s; voters %v", left, active, took.Round(time.Second), sets)
	oneByOne(t, sets)
	if len(sets) > 1 && !slices.Contains(sets[1].voters, sets[1].leader) {
		t.Errorf("controller %d was active and went first: voters %v", sets[1].leader, sets)
	}
	running, nodes := s.JVMPIDs(), nodeIDs(s)
	for i, id := range left {
		if running[id] != 0 || slices.Contains(nodes, id) {
			t.Errorf("controller %d left: JVMs %v, nodes %v", id, running, nodes)
		}
		if _, err := os.Stat(disks[i]); err != nil {
			t.Errorf("the data of controller %d was to be kept: %v", id, err)
		}
	}
	return left
}

// finalizedWithStale upgrades. Kafka refuses to finalize while those that left are registered at the version before.
func finalizedWithStale(t *testing.T, s *stand.Stand, voters *voterWatch, left []int32) {
	t.Helper()
	voters.since()
	s.Must("upgrade", "kafka", "--version", version, "--soak", "30s")
	op := operation(t, s)
	took := s.Eventually("every node runs the new version, and it waits to be finalized", 15*time.Minute, phase(s, op.Name, api.OperationRunning, "after which there is no way back"))
	t.Logf("every node runs %s after %s", version, took.Round(time.Second))
	s.Eventually("the controllers that left are registered", time.Minute, registered(s, left...))
	why := refusedToFinalize(t, s)
	t.Logf("Kafka refuses: %v", why)

	took = s.Eventually("it is over", 4*time.Minute, phase(s, op.Name, api.OperationSucceeded, ""))
	t.Logf("finalized after %s more", took.Round(time.Second))
	if now := metadataVersion(t, s); now != "4.3-IV0" {
		t.Errorf("metadata.version is %s", now)
	}
	s.Eventually("the observers are gone", time.Minute, func(context.Context) error {
		running, nodes := s.JVMPIDs(), nodeIDs(s)
		for _, id := range left {
			if running[id] != 0 || slices.Contains(nodes, id) {
				return fmt.Errorf("JVMs %v, nodes %v", running, nodes)
			}
		}
		return nil
	})
	s.WaitReady()
	sets, observed := voters.changes()
	if len(sets) != 1 {
		t.Errorf("voters changed during an upgrade: %v", sets)
	}
	for _, id := range left {
		if !slices.Contains(observed, id) {
			t.Errorf("controller %d, which had left, was never seen to observe; observers were %v", id, observed)
		}
	}
	if err := kafkaRefuses(t, s); err != nil {
		t.Errorf("what is finalized is refused: %v", err)
	}
}

// registered is the fact that Kafka's controllers list these, whether they run or not.
func registered(s *stand.Stand, ids ...int32) stand.Fact {
	return func(ctx context.Context) error {
		clients := kafka.NewClients(kafka.Options{Timeout: 10 * time.Second})
		defer clients.Close()
		seen, err := clients.Cluster("registered", s.BrokerTarget()).Observe(ctx, plan.Ask{Controllers: true})
		if err != nil {
			return fmt.Errorf("ask who is registered: %w", err)
		}
		for _, id := range ids {
			if !slices.Contains(seen.Controllers, id) {
				return fmt.Errorf("registered are %v, %d is not; %s", seen.Controllers, id, seen.Why)
			}
		}
		return nil
	}
}

// refusedToFinalize is why Kafka does not finalize now.
func refusedToFinalize(t *testing.T, s *stand.Stand) error {
	t.Helper()
	err := kafkaRefuses(t, s)
	if err == nil {
		t.Error("Kafka would finalize 4.3-IV0 although controllers that left are registered at the version before")
	}
	return err
}

// kafkaRefuses asks Kafka to check whether 4.3-IV0 can be finalized, and changes nothing.
func kafkaRefuses(t *testing.T, s *stand.Stand) error {
	t.Helper()
	const level43 = 30 // org.apache.kafka.server.common.MetadataVersion.IBP_4_3_IV0
	client, err := kgo.NewClient(kgo.SeedBrokers(s.ClientConfig("plain").Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	feature := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
	feature.Feature, feature.MaxVersionLevel, feature.UpgradeType = "metadata.version", level43, 1
	request := kmsg.NewPtrUpdateFeaturesRequest()
	request.ValidateOnly, request.TimeoutMillis = true, 10000
	request.FeatureUpdates = append(request.FeatureUpdates, feature)
	answer, err := request.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	if answer.ErrorCode != 0 && answer.ErrorMessage != nil {
		words = append(words, *answer.ErrorMessage)
	}
	for _, r := range answer.Results {
		if r.ErrorCode != 0 && r.ErrorMessage != nil {
			words = append(words, *r.ErrorMessage)
		}
	}
	if answer.ErrorCode == 0 && len(words) == 0 {
		return nil
	}
	return errors.New(strings.Join(append(words, fmt.Sprintf("error %d", answer.ErrorCode)), "; "))
}
