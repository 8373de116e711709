package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/test/e2e/stand"
)

// Bounds of the figures. A benchmark fails where a fact is wrong and prints where a time or size is: those depend on the machine.
const (
	idleFor             = 5 * time.Minute
	ownMemoryBound      = 150 // MiB, operator and agent
	ownCPUBound         = 2.0 // % of a core, operator and agent
	controlPlaneBound   = 400 // MiB
	leaseGapBound       = 3 * time.Second
	firstNodeWriteBound = time.Second
	coldUpBound         = 3.0 // times Kafka alone
)

// BenchmarkColdUp measures `up` from nothing with the package cached beside Kafka alone, in turn.
func BenchmarkColdUp(b *testing.B) {
	const nodes = 3
	var ratios []float64
	for b.Loop() {
		probe := stand.New(b, stand.Options{Down: true})
		alone := probe.KafkaAlone(version, nodes)
		s := stand.New(b, stand.Options{Cluster: stand.Combined(version, nodes), Down: true})
		began := time.Now()
		s.Up()
		up := time.Since(began)
		s.Must("down")
		ratios = append(ratios, up.Seconds()/alone.Seconds())
		b.Logf("%d nodes: Kafka alone %.1f s, castellan up %.1f s, ratio %.2f (bound %.1f)", nodes, alone.Seconds(), up.Seconds(), ratios[len(ratios)-1], coldUpBound)
	}
	b.ReportMetric(slices.Max(ratios), "up/alone")
}

// BenchmarkRunning measures a Ready cluster at rest, and then how soon it moves.
func BenchmarkRunning(b *testing.B) {
	s := stand.New(b, stand.Options{Cluster: stand.Combined(version, 3)})
	s.Must("topics", "create", "idle", "--partitions", "6")
	s.WaitReady()
	b.Run("idle", func(b *testing.B) { idle(b, s) })
	b.Run("first node write", func(b *testing.B) { firstNodeWrite(b, s) })
}

func idle(b *testing.B, s *stand.Stand) {
	b.Helper()
	for b.Loop() {
		settle(b, s)
		own := []int{s.MustPID(stand.Operator), s.MustPID(stand.Agent)}
		began := time.Now()
		cpu, facts, metadata := cpuSeconds(b, own...), kafkaFacts(b, s), metadataEnd(b, s)
		<-time.After(idleFor)
		ended := time.Now()
		used := 100 * (cpuSeconds(b, own...) - cpu) / ended.Sub(began).Seconds()
		memory, control := residentMiB(b, own...), residentMiB(b, s.MustPID(stand.ControlPlane))
		b.ReportMetric(used, "%core")
		b.ReportMetric(memory, "own-MiB")
		b.ReportMetric(control, "controlplane-MiB")
		b.Logf("operator and agent: %.0f MiB (bound %d), %.2f %% of a core (bound %.0f); control plane: %.0f MiB (bound %d)",
			memory, ownMemoryBound, used, ownCPUBound, control, controlPlaneBound)
		judgeWrites(b, audited(b, s, began, ended))
		if diff := cmp.Diff(facts, kafkaFacts(b, s)); diff != "" {
			b.Errorf("Kafka changed (- before, + after):\n%s", diff)
		}
		b.Logf("Kafka's metadata log: %v", metadataRecords(b, s, metadata))
	}
}

// settle waits until nothing but Leases was written for a while: Kafka still elects preferred leaders after a start.
func settle(b *testing.B, s *stand.Stand) {
	b.Helper()
	const quiet = 20 * time.Second
	for range 30 {
		began := time.Now()
		<-time.After(quiet)
		if !slices.ContainsFunc(audited(b, s, began, time.Now()), func(e event) bool { return e.write() && !e.lease() }) {
			return
		}
	}
	b.Fatal("the API is written again and again")
}

// judgeWrites wants no write but Leases, and each of those rarely.
func judgeWrites(b *testing.B, events []event) {
	b.Helper()
	last, least, leases := map[string]time.Time{}, map[string]time.Duration{}, map[string]int{}
	for _, e := range events {
		if !e.write() {
			continue
		}
		if !e.lease() {
			b.Errorf("%s wrote: %s %s %s/%s", e.User.Username, e.Verb, e.ObjectRef.Resource, e.ObjectRef.Namespace, e.ObjectRef.Name)
			continue
		}
		name := e.ObjectRef.Namespace + "/" + e.ObjectRef.Name
		leases[name]++
		if before, ok := last[name]; ok {
			gap := e.Received.Sub(before)
			if old, ok := least[name]; !ok || gap < old {
				least[name] = gap
			}
		}
		last[name] = e.Received
	}
	for _, name := range slices.Sorted(maps.Keys(leases)) {
		b.Logf("Lease %s: %d writes, at least %.1f s apart (bound %.0f)", name, leases[name], least[name].Seconds(), leaseGapBound.Seconds())
	}
}

func firstNodeWrite(b *testing.B, s *stand.Stand) {
	b.Helper()
	value := 600
	var worst time.Duration
	for b.Loop() {
		for range 3 {
			value++
			began := time.Now()
			s.Apply(stand.Combined(version, 3, readOnlyKey+": "+strconv.Itoa(value)))
			s.WaitReady()
			took := untilNodeWrite(b, audited(b, s, began, time.Now()))
			b.Logf("from the change of the spec to the first write of a KafkaNode: %d ms (bound %d)", took.Milliseconds(), firstNodeWriteBound.Milliseconds())
			worst = max(worst, took)
		}
	}
	b.ReportMetric(float64(worst.Milliseconds()), "ms")
}

func untilNodeWrite(b *testing.B, events []event) time.Duration {
	b.Helper()
	var changed time.Time
	for _, e := range events {
		switch {
		case !e.write() || e.ObjectRef.Subresource != "":
		case e.ObjectRef.Resource == "kafkaclusters" && changed.IsZero():
			changed = e.Received
		case e.ObjectRef.Resource == "kafkanodes" && !changed.IsZero():
			return e.Done.Sub(changed)
		}
	}
	b.Fatal("no KafkaNode was written")
	return 0
}

// event is one line of the control plane's audit log.
type event struct {
	Verb      string    `json:"verb"`
	Stage     string    `json:"stage"`
	Received  time.Time `json:"requestReceivedTimestamp"`
	Done      time.Time `json:"stageTimestamp"`
	ObjectRef struct {
		Resource, Subresource, Namespace, Name string
	} `json:"objectRef"`
	User struct {
		Username string `json:"username"`
	} `json:"user"`
}

func (e event) write() bool {
	return e.Stage == "ResponseComplete" && slices.Contains([]string{"create", "update", "patch", "delete", "deletecollection"}, e.Verb) &&
		e.ObjectRef.Resource != "subjectaccessreviews" && e.ObjectRef.Resource != "tokenreviews" // questions, not writes
}

func (e event) lease() bool { return e.ObjectRef.Resource == "leases" }

// audited are the requests that came in between two moments, in order.
func audited(b *testing.B, s *stand.Stand, from, to time.Time) []event {
	b.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir().ControlPlaneDir(), "audit", "*.log"))
	if err != nil || len(files) == 0 {
		b.Fatalf("the audit log: %v, %v", files, err)
	}
	var events []event
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var e event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				continue // the last line may be under way
			}
			if e.Received.After(from) && e.Received.Before(to) {
				events = append(events, e)
			}
		}
	}
	slices.SortFunc(events, func(a, b event) int { return a.Received.Compare(b.Received) })
	return events
}

// kafkaFacts are what a write to Kafka would change: configuration, leaders, in-sync replicas, voters, the ends of logs.
func kafkaFacts(b *testing.B, s *stand.Stand) any {
	b.Helper()
	seen, err := s.Observe(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	voters := []string{}
	for _, v := range seen.Quorum.Voters {
		voters = append(voters, fmt.Sprintf("%d %s", v.ID, v.DirectoryID))
	}
	return map[string]any{
		"topics": seen.Topics, "cluster config": seen.ClusterConfig, "epoch": seen.Quorum.LeaderEpoch, "leader": seen.Quorum.Leader,
		"voters": voters, "features": seen.Features, "idle": s.Must("topics", "describe", "idle"),
	}
}

func metadataEnd(b *testing.B, s *stand.Stand) int64 {
	b.Helper()
	seen, err := s.Observe(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return seen.Quorum.HighWater
}

// metadataRecords counts the records of Kafka's metadata log from an offset on by type. NO_OP_RECORD is Kafka's own
// heartbeat; anything else would be a write.
func metadataRecords(b *testing.B, s *stand.Stand, from int64) map[string]int {
	b.Helper()
	log := filepath.Join(s.Nodes()[0].Spec.Volumes[0].Path, layout.LogFolder, "__cluster_metadata-0")
	segments, err := filepath.Glob(filepath.Join(log, "*.log"))
	if err != nil || len(segments) == 0 {
		b.Fatalf("the metadata log in %s: %v, %v", log, segments, err)
	}
	text := s.KafkaTool(version, nil, "org.apache.kafka.tools.DumpLogSegments", "--cluster-metadata-decoder", "--files", strings.Join(segments, ","))
	counts := map[string]int{}
	for line := range strings.Lines(text) {
		offset, kind, ok := metadataRecord(line)
		if !ok || offset < from {
			continue
		}
		counts[kind]++
	}
	for kind := range counts {
		if kind != "NO_OP_RECORD" {
			b.Errorf("somebody wrote to Kafka: %d records of type %s", counts[kind], kind)
		}
	}
	return counts
}

func metadataRecord(line string) (offset int64, kind string, ok bool) {
	_, rest, found := strings.Cut(line, "offset: ")
	number, payload, hasPayload := strings.Cut(rest, " ")
	_, payload, typed := strings.Cut(payload, `payload: {"type":"`)
	if !found || !hasPayload || !typed {
		return 0, "", false
	}
	kind, _, _ = strings.Cut(payload, `"`)
	offset, err := strconv.ParseInt(number, 10, 64)
	return offset, kind, err == nil
}

// cpuSeconds is what processes have used so far (proc(5), utime and stime in hundredths of a second).
func cpuSeconds(b *testing.B, pids ...int) float64 {
	b.Helper()
	sum := 0.0
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			b.Fatal(err)
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, field := range fields[11:13] {
			ticks, err := strconv.ParseFloat(field, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += ticks / 100
		}
	}
	return sum
}

func residentMiB(b *testing.B, pids ...int) float64 {
	b.Helper()
	sum := 0.0
	for _, pid := range pids {
		sum += memoryMiB(b, pid, "VmRSS:")
	}
	return sum
}

// memoryMiB is one line of /proc/<pid>/status.
func memoryMiB(b *testing.B, pid int, line string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), line)
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}
