package local

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	api "castellan.dev/castellan/api/v1alpha1"
)

func TestJavaMajor(t *testing.T) {
	for text, want := range map[string]int{
		"openjdk version \"17.0.9\" 2023-10-17\nOpenJDK": 17,
		"openjdk version \"25\" 2025-09-16":              25,
		"java version \"1.8.0_392\"":                     8,
		"no such thing":                                  0,
	} {
		if got, ok := javaMajor(text); got != want || ok != (want > 0) {
			t.Errorf("%q: got %d, %v, want %d", text, got, ok, want)
		}
	}
}

func TestJavaIsMissedWithARemedy(t *testing.T) {
	t.Setenv("JAVA_HOME", t.TempDir())
	err := checkJava(t.Context())
	if err == nil || !strings.Contains(err.Error(), "openjdk-17") {
		t.Errorf("got error %v, want what to install", err)
	}
}

func TestOldJavaIsRefused(t *testing.T) {
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n"
	if err := os.WriteFile(filepath.Join(home, "bin", "java"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JAVA_HOME", home)
	err := checkJava(t.Context())
	if err == nil || !strings.Contains(err.Error(), "Java 11, too old") {
		t.Errorf("got error %v", err)
	}
}

func TestMemoryIsComparedWithWhatNodesNeed(t *testing.T) {
	meminfo := func(total, available int) string {
		return fmt.Sprintf("MemTotal: %d kB\nMemFree: 1 kB\nMemAvailable: %d kB\n", total<<10, available<<10)
	}
	three := []int64{512 << 20, 512 << 20, 512 << 20}
	for _, c := range []struct {
		reason, meminfo string
		warns, fails    bool
	}{
		{"enough", meminfo(8000, 6000), false, false},
		{"busy machine", meminfo(8000, 1000), true, false},
		{"small machine", meminfo(2000, 1500), false, true},
		{"unknown", "", false, false},
	} {
		warning, err := checkMemory(c.meminfo, three)
		if (warning != "") != c.warns || (err != nil) != c.fails {
			t.Errorf("%s: warning %q, error %v", c.reason, warning, err)
		}
	}
}

func TestTokenServesInItsFirstTwoThirds(t *testing.T) {
	token := func(issued, expires int64) string {
		return "e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"iat":%d,"exp":%d}`, issued, expires)) + ".sig"
	}
	for _, c := range []struct {
		reason, token string
		want          bool
	}{
		{"new", token(900, 3900), true},
		{"in its last third", token(-1400, 1600), false},
		{"ended", token(0, 999), false},
		{"no token", "", false},
		{"no dates", "a.b.c", false},
	} {
		if got := tokenServes(c.token, time.Unix(1000, 0)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.reason, got, c.want)
		}
	}
}

func TestLogIsBoundedAndKeepsItsEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	log, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	fmt.Fprint(log, strings.Repeat("old\n", 100))
	if err := boundLog(path, 40); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(log, "a\nb\nc\n") // the writer goes on with the file it has open
	if got := logTail(path, 0, 2); got != "b\nc" {
		t.Errorf("tail: got %q", got)
	}
	kept, err := os.ReadFile(path + ".1")
	if err != nil || string(kept) != strings.Repeat("old\n", 10) {
		t.Errorf("kept: %q, error %v", kept, err)
	}
	if got := logSize(path); got != 6 {
		t.Errorf("size after the bound: got %d, want 6", got)
	}
}

func TestGeneratedClusterFitsItsNodes(t *testing.T) {
	for _, c := range []struct {
		version string
		nodes   int
		want    api.Config
	}{
		{"4.3.1", 1, api.Config{
			"default.replication.factor": "1", "min.insync.replicas": "1", "offsets.topic.replication.factor": "1",
			"transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
			"share.coordinator.state.topic.replication.factor": "1", "share.coordinator.state.topic.min.isr": "1",
		}},
		{"3.9.2", 5, api.Config{
			"default.replication.factor": "3", "min.insync.replicas": "2", "offsets.topic.replication.factor": "3",
			"transaction.state.log.replication.factor": "3", "transaction.state.log.min.isr": "2",
		}},
	} {
		clusters, err := clustersOf([]*unstructured.Unstructured{generatedCluster(c.version, c.nodes, replication(c.version, c.nodes))})
		if err != nil {
			t.Fatal(err)
		}
		spec := clusters[0].Spec
		got := api.Config{}
		for key, value := range spec.Config {
			if !strings.HasPrefix(key, "share.") || c.version != "3.9.2" {
				got[key] = value
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%d nodes of %s (-want +got):\n%s", c.nodes, c.version, diff)
		}
		if pool := spec.Pools[0]; int(pool.Replicas) != c.nodes || int(pool.Placement.Hosts.MaxPerHost) <= c.nodes {
			t.Errorf("pool of %d nodes: %+v", c.nodes, pool)
		}
	}
}

func TestUpDecidesWhatToWrite(t *testing.T) {
	existing := []api.KafkaCluster{{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kafka"}}}
	existing[0].Spec = api.KafkaClusterSpec{Version: "4.2.1", Config: api.Config{"min.insync.replicas": "1"}, Pools: []api.Pool{{Name: "nodes", Replicas: 5}}}
	for _, c := range []struct {
		reason        string
		options       UpOptions
		existing      []api.KafkaCluster
		version       string
		nodes         int64
		writesNothing bool
	}{
		{reason: "first up", options: UpOptions{KafkaVersion: "4.3.1"}, version: "4.3.1", nodes: 3},
		{reason: "up again", existing: existing, writesNothing: true},
		{reason: "more nodes", options: UpOptions{Nodes: 7}, existing: existing, version: "4.2.1", nodes: 7},
		{reason: "another version", options: UpOptions{KafkaVersion: "4.3.1"}, existing: existing, version: "4.3.1", nodes: 5},
	} {
		u := &up{UpOptions: c.options}
		objects, _, err := u.decide(nil, c.existing)
		if err != nil {
			t.Fatal(err)
		}
		if c.writesNothing {
			if len(objects) > 0 {
				t.Errorf("%s: writes %v", c.reason, objects)
			}
			continue
		}
		want := generatedCluster(c.version, int(c.nodes), replication(c.version, int(c.nodes)))
		if len(c.existing) > 0 {
			want = generatedCluster(c.version, int(c.nodes), map[string]any{"min.insync.replicas": "1"})
		}
		if diff := cmp.Diff(want.Object, objects[0].Object); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.reason, diff)
		}
	}
}

func TestDescribeNamesWhatIsWaitedFor(t *testing.T) {
	c := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Name: "kafka"}}
	c.Status.Conditions = []metav1.Condition{{Type: api.ConditionReconciling, Status: metav1.ConditionTrue, Message: "starting node 1"}}
	node := func(id int32, state api.NodeState, ready bool, reason string) api.KafkaNode {
		n := api.KafkaNode{Spec: api.KafkaNodeSpec{ClusterName: "kafka", NodeID: id}}
		n.Status = api.KafkaNodeStatus{State: state, Ready: ready, Reason: reason}
		return n
	}
	got := describe(c, []api.KafkaNode{node(1, "", false, ""), node(0, api.NodeStarting, false, "Recovering"), node(2, api.NodeRunning, true, "")})
	want := "starting node 1; 1 of 3 nodes ready; node 0 Starting (Recovering); node 1 Pending"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestOldConditionsDoNotCount(t *testing.T) {
	c := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Generation: 2}}
	c.Status.Conditions = []metav1.Condition{{Type: api.ConditionReady, Status: metav1.ConditionTrue, ObservedGeneration: 1}}
	if conditionNow(c, api.ConditionReady, metav1.ConditionTrue) != nil {
		t.Error("Ready of the generation before counts for the newest")
	}
}

func TestAChildIsHeardWhenItsLeaseIsYoungerThanItself(t *testing.T) {
	started := time.Date(2026, 11, 21, 9, 0, 0, 1500, time.UTC)
	at := func(d time.Duration) *metav1.MicroTime {
		renewed := metav1.NewMicroTime(started.Add(d).Truncate(time.Microsecond))
		return &renewed
	}
	for _, c := range []struct {
		reason  string
		running bool
		renewed *metav1.MicroTime
		want    bool
	}{
		{"a Lease has microseconds, a start has nanoseconds", true, at(0), true},
		{"it was renewed since", true, at(5 * time.Second), true},
		{"the one before it has renewed it", true, at(-time.Second), false},
		{"nobody has ever renewed it", true, nil, false},
		{"it has ended again", false, at(5 * time.Second), false},
	} {
		if got := heard(ChildState{Running: c.running, StartedAt: started}, c.renewed); got != c.want {
			t.Errorf("%s: got %t, want %t", c.reason, got, c.want)
		}
	}
}

func TestLongPathsAreRefused(t *testing.T) {
	_, err := OpenDir(filepath.Join(t.TempDir(), strings.Repeat("x", 90)))
	if err == nil || !strings.Contains(err.Error(), "shorter --dir") {
		t.Errorf("got error %v", err)
	}
}
