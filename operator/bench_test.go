package operator_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
	"castellan.dev/castellan/operator"
)

// Bounds of the figures; they are printed, and facts are what fails: a cluster that does not
// become ready, and a LIST at rest.
const (
	clustersAll     = 100
	nodesEach       = 6
	waitingFor      = time.Minute
	restFor         = 2 * time.Minute
	changes         = 10
	memoryBound     = 256 // MiB
	requestsBound   = 2.0 // per cluster and minute, besides Leases
	firstWriteBound = time.Second
)

// The test binary is an operator when benchOperator gives the address to count at; benchPods
// is where pods are dialed.
const (
	benchOperator = "CASTELLAN_BENCH_OPERATOR"
	benchAPI      = "CASTELLAN_BENCH_API"
	benchToken    = "CASTELLAN_BENCH_TOKEN"
	benchPods     = "CASTELLAN_BENCH_PODS"
	// benchClusters is a number of clusters for a look at less than all; benchProfiles a
	// folder for profiles of the operator while it waits and at rest.
	benchClusters = "CASTELLAN_BENCH_CLUSTERS"
	benchProfiles = "CASTELLAN_BENCH_PROFILES"
)

// manyClusters is how many clusters there are.
func manyClusters(b *testing.B) int {
	b.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(benchClusters), strconv.Itoa(clustersAll)))
	must(b, err)
	return n
}

// TestMain lets the benchmark's operator be a process of its own, whose memory is only its.
func TestMain(m *testing.M) {
	if at := os.Getenv(benchOperator); at != "" {
		if err := runCounted(at); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// BenchmarkManyClusters is an operator with 100 clusters of 6 pods on a real API server: the
// benchmark plays the controllers of Kubernetes, kubelets and supervisors, and Kafka is
// kfake. What is counted are the operator's own requests.
func BenchmarkManyClusters(b *testing.B) {
	for b.Loop() {
		many(b)
	}
}

func many(b *testing.B) {
	b.Helper()
	ctrl.SetLogger(logr.Discard())
	config := startAPIServer(b)
	c := controlplanetest.Client(b, config)
	installDefinitions(b, c)
	for _, n := range []string{system, namespace} {
		must(b, c.Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n}}))
	}
	pods := newPods(b, c)
	for i := range manyClusters(b) {
		must(b, c.Create(b.Context(), podCluster(clusterName(i))))
	}
	began := time.Now()
	child, at := startCounted(b, config, pods.address)
	wait(b, 15*time.Minute, func() error { return complete(b.Context(), c, manyClusters(b)*nodesEach) })
	say("every object was made %s after the operator's start, with %d requests", time.Since(began).Round(time.Second), sum(counts(b, at)))
	profile(b, at, "waiting")
	measure(b, at, "while all nodes wait for pods that nobody makes", waitingFor)

	wait(b, 15*time.Minute, func() error {
		pods.round(b)
		return allReady(b.Context(), c, manyClusters(b))
	})
	say("all are ready %s after the operator's start, after %d requests", time.Since(began).Round(time.Second), sum(counts(b, at)))
	settle(b, at)
	pods.heartbeat(b)
	profile(b, at, "rest")
	each, lists := measure(b, at, "at rest", restFor)
	say("bound %.1f, and 0 LISTs", requestsBound)
	b.ReportMetric(each, "requests/cluster/min")
	if lists > 0 {
		b.Errorf("%d LISTs at rest", lists)
	}
	memory, most := residentMiB(b, child.Process.Pid, "VmRSS:"), residentMiB(b, child.Process.Pid, "VmHWM:")
	say("resident memory of the operator: %d MiB, %d at most (bound %d)", memory, most, memoryBound)
	b.ReportMetric(float64(memory), "MiB")
	b.ReportMetric(float64(most), "MiB-at-most")
	firstWrites(b, config, c, pods)
}

// say prints a line at once; a benchmark's own log is cut after ten.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func clusterName(i int) string { return fmt.Sprintf("c%03d", i) }

// complete says whether the last that is made of each node exists: its claim and its
// StatefulSet.
func complete(ctx context.Context, c client.Client, nodes int) error {
	for _, kind := range []string{"StatefulSetList", "PersistentVolumeClaimList"} {
		list := metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: kind}}
		if kind == "PersistentVolumeClaimList" {
			list.APIVersion = "v1"
		}
		if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		if n := len(list.Items); n < nodes {
			return fmt.Errorf("%d objects in the %s", n, kind)
		}
	}
	return nil
}

func allReady(ctx context.Context, c client.Client, clusters int) error {
	var list api.KafkaClusterList
	if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return err
	}
	ready, why := 0, ""
	for _, kc := range list.Items {
		if meta.IsStatusConditionTrue(kc.Status.Conditions, api.ConditionReady) {
			ready++
		} else {
			why = kc.Name + ": " + kc.Status.Doing
		}
	}
	if ready < clusters {
		return fmt.Errorf("%d clusters are ready; %s", ready, why)
	}
	return nil
}

// settle lets the last writes end; an operator that never ends writing shows in the figures.
func settle(b *testing.B, at string) {
	b.Helper()
	const quiet, most = 10, 90 // looks, 2 s apart
	same, before, looks := 0, -1, 0
	wait(b, 10*time.Minute, func() error {
		now := writes(counts(b, at))
		if same++; now != before {
			same, before = 0, now
		}
		if looks++; same < quiet && looks < most {
			return fmt.Errorf("%d writes", now)
		}
		return nil
	})
}

// measure prints the requests of a time by kind, and returns how many there were per cluster
// and minute besides Leases, and how many of these were LISTs.
func measure(b *testing.B, at, when string, during time.Duration) (each float64, lists int) {
	b.Helper()
	before := counts(b, at)
	over := time.NewTimer(during)
	<-over.C
	after := counts(b, at)
	total := 0
	for _, kind := range slices.Sorted(maps.Keys(after)) {
		n := after[kind] - before[kind]
		if n == 0 {
			continue
		}
		say("%6d  %s", n, kind)
		if strings.HasSuffix(kind, " leases") {
			continue
		}
		total += n
		if strings.HasPrefix(kind, "LIST") {
			lists += n
		}
	}
	each = float64(total) / float64(manyClusters(b)) / during.Minutes()
	say("%s: %.2f requests per cluster and minute, %d LISTs in %s; load %s", when, each, lists, during, load(b))
	return each, lists
}

func load(b *testing.B) string {
	b.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	must(b, err)
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

func writes(seen map[string]int) int {
	n := 0
	for kind, times := range seen {
		if !strings.HasSuffix(kind, " leases") && !strings.HasPrefix(kind, "GET") && !strings.HasPrefix(kind, "LIST") && !strings.HasPrefix(kind, "WATCH") {
			n += times
		}
	}
	return n
}

func sum(seen map[string]int) int {
	n := 0
	for _, times := range seen {
		n += times
	}
	return n
}

// firstWrites changes specs, each of another cluster, and times the revision that the
// operator makes of each: first a key that Kafka takes while it runs, then one that needs
// restarts.
func firstWrites(b *testing.B, config *rest.Config, c client.Client, pods *pods) {
	b.Helper()
	watcher, err := client.NewWithWatch(config, client.Options{Scheme: c.Scheme()})
	must(b, err)
	began, err := watcher.Watch(b.Context(), &api.ClusterRevisionList{}, client.InNamespace(namespace))
	must(b, err)
	defer began.Stop()
	next := 0
	for _, what := range []struct{ kind, key, value string }{{"dynamic", "num.io.threads", "9"}, {"static", "queued.max.requests", "600"}} {
		var took, accepted []time.Duration
		for range changes {
			one, since := firstWrite(b, c, began, clusterName(next), api.Config{what.key: api.ConfigValue(what.value)})
			took, accepted = append(took, one), append(accepted, since)
			next += manyClusters(b) / (2 * changes)
		}
		slices.Sort(took)
		slices.Sort(accepted)
		say("from a change of a %s key to the first write: median %s, at most %s; since it was accepted: median %s, at most %s (bound %s); load %s", what.kind,
			took[changes/2], took[changes-1], accepted[changes/2], accepted[changes-1], firstWriteBound, load(b))
		b.ReportMetric(float64(took[changes/2].Milliseconds()), "ms/first-write-"+what.kind)
	}
	wait(b, time.Minute, func() error { return pods.holds(clusterName(0), "num.io.threads", "9") })
}

// firstWrite is how long after a change of a spec its revision is seen: since the change
// was sent, and since it was accepted.
func firstWrite(b *testing.B, c client.Client, seen watch.Interface, name string, config api.Config) (sent, accepted time.Duration) {
	b.Helper()
	kc := &api.KafkaCluster{}
	must(b, c.Get(b.Context(), client.ObjectKey{Namespace: namespace, Name: name}, kc))
	kc.Spec.Config = config
	began := time.Now()
	must(b, c.Update(b.Context(), kc))
	taken := time.Now()
	most := time.NewTimer(time.Minute)
	defer most.Stop()
	for {
		select {
		case e, ok := <-seen.ResultChan():
			if !ok {
				b.Fatal("the watch of revisions ended")
			}
			if rev, is := e.Object.(*api.ClusterRevision); is && rev.Labels[operator.LabelCluster] == name && rev.Spec.Generation == kc.Generation {
				return time.Since(began), max(0, time.Since(taken))
			}
		case <-most.C:
			b.Fatalf("no revision of %s within a minute", name)
		}
	}
}

func podCluster(name string) *api.KafkaCluster {
	size := resource.MustParse("1Gi")
	pool := func(name string, role api.Role, replicas int32) api.Pool {
		return api.Pool{
			Name: name, Roles: []api.Role{role}, Replicas: replicas,
			Placement: api.Placement{Kubernetes: &api.KubernetesPlacement{}}, Volumes: []api.Volume{{Name: "data", Size: &size}},
		}
	}
	return &api.KafkaCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		// Brokers first: kfake's number from 0.
		Spec: api.KafkaClusterSpec{Version: "4.3.1", Pools: []api.Pool{pool("brokers", api.RoleBroker, nodesEach-3), pool("controllers", api.RoleController, 3)}},
	}
}

// residentMiB is a line of a process's memory.
func residentMiB(b *testing.B, pid int, line string) int {
	b.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	must(b, err)
	defer file.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[0] == line {
			kib, err := strconv.Atoi(fields[1])
			must(b, err)
			return kib >> 10
		}
	}
	b.Fatal(errors.New("no " + line))
	return 0
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func wait(b *testing.B, most time.Duration, fact func() error) {
	b.Helper()
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	if most > time.Minute {
		tick.Reset(2 * time.Second)
	}
	said := time.Now()
	for {
		err := fact()
		if err == nil {
			return
		}
		if time.Since(said) > 20*time.Second {
			said = time.Now()
			say("waiting: %v", err)
		}
		select {
		case <-deadline.C:
			b.Fatalf("not within %s: %v", most, err)
		case <-tick.C:
		}
	}
}
