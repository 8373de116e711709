package kafka_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/kafka/kafkatest"
)

// behind is a fake cluster whose metadata.version and group.version are not what its nodes support.
func behind(t *testing.T, config kafkatest.Config) (*kafkatest.Fake, map[string]int16) {
	t.Helper()
	fake := kafkatest.NewFake(t, config)
	top := map[string]int16{}
	for _, name := range []string{"metadata.version", "group.version"} {
		top[name] = fake.Supported()[name][1]
		fake.SetFeatures(map[string]int16{name: top[name] - 1})
	}
	if top["metadata.version"] < 25 || top["group.version"] < 1 {
		t.Fatalf("the fake supports %v", fake.Supported())
	}
	return fake, top
}

func TestFinalizeFeatures(t *testing.T) {
	for _, controllers := range []int{0, 3} {
		fake, top := behind(t, kafkatest.Config{Controllers: controllers})
		cluster := clients(t, 10*time.Second).Cluster("default/fake", fake.Target())
		for range 2 { // to repeat it is a success
			if err := cluster.FinalizeFeatures(t.Context(), top); err != nil {
				t.Fatal(err)
			}
		}
		if got := fake.Checks(); !slices.Equal(got, []bool{true, false}) {
			t.Errorf("checks %v, want one, and then the act", got)
		}
		k := observe(t, fake.Target())
		for name, level := range top {
			if k.Features[name] != level || k.SupportedFeatures[name][1] != level {
				t.Errorf("%s is %d of %v, want %d", name, k.Features[name], k.SupportedFeatures[name], level)
			}
		}
	}
}

// A level that is lower than what is finalized takes nothing back.
func TestFinalizeFeaturesNeverGoesBack(t *testing.T) {
	fake, top := behind(t, kafkatest.Config{})
	lower := maps.Clone(top)
	lower["metadata.version"] -= 3
	if err := clients(t, 5*time.Second).Cluster("default/fake", fake.Target()).FinalizeFeatures(t.Context(), lower); err != nil {
		t.Fatal(err)
	}
	if k := observe(t, fake.Target()); k.Features["metadata.version"] != top["metadata.version"]-1 || k.Features["group.version"] != top["group.version"] {
		t.Errorf("features %v", k.Features)
	}
}

// What Kafka would refuse is not even tried, and the error names the feature: before version
// 2 Kafka answers for each, since then in one message.
func TestFinalizeFeaturesRefused(t *testing.T) {
	for _, version := range []int16{1, 2} {
		fake, top := behind(t, kafkatest.Config{UpdateFeatures: version})
		asked := maps.Clone(top)
		asked["group.version"] = 99
		err := clients(t, 5*time.Second).Cluster("default/fake", fake.Target()).FinalizeFeatures(t.Context(), asked)
		var no *kafka.RefusedError
		if !errors.As(err, &no) || no.Code != kerr.InvalidUpdateVersion.Code {
			t.Fatalf("version %d: error %v", version, err)
		}
		doing := "check whether group.version 99, metadata.version " + kafka.MetadataVersion(top["metadata.version"]) + " can be finalized"
		if version == 1 {
			doing += ": feature group.version"
		}
		for _, text := range []string{doing + ": Kafka answered INVALID_UPDATE_VERSION (95): ", "Invalid update version 99 for feature group.version"} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("version %d: error %q, want %q", version, err, text)
			}
		}
		if k := observe(t, fake.Target()); k.Features["metadata.version"] != top["metadata.version"]-1 {
			t.Errorf("version %d: half of it was done: %v", version, k.Features)
		}
	}
}

func TestFinalizeFeaturesOfAnotherCluster(t *testing.T) {
	fake, top := behind(t, kafkatest.Config{})
	target := fake.Target()
	target.ClusterID = "mine"
	err := clients(t, 5*time.Second).Cluster("default/fake", target).FinalizeFeatures(t.Context(), top)
	if err == nil || !strings.Contains(err.Error(), "cluster fake answers where mine is expected") || fake.Requests()[kmsg.UpdateFeatures] > 0 {
		t.Errorf("error %v", err)
	}
}
