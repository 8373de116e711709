package operator_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"castellan.dev/castellan/api/crds"
	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
	"castellan.dev/castellan/operator"
	"castellan.dev/castellan/pki"
)

// Bounds of the figures; they are printed, and facts are what fails.
const (
	manyClusters, nodesEach = 100, 6
	restFor                 = 2 * time.Minute
	memoryBound             = 256 // MiB
	requestsBound           = 2.0 // per cluster and minute, besides Leases
	firstWriteBound         = time.Second
)

// benchOperator makes the test binary an operator; it holds the child's address to count at.
const (
	benchOperator = "CASTELLAN_BENCH_OPERATOR"
	benchAPI      = "CASTELLAN_BENCH_API"
	benchToken    = "CASTELLAN_BENCH_TOKEN"
)

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

// counter counts requests by method and kind of request.
type counter struct {
	mu   sync.Mutex
	seen map[string]int
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.seen[kindOf(r)]++
	c.mu.Unlock()
	return c.next.RoundTrip(r)
}

func kindOf(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if i := slices.Index(parts, "namespaces"); i >= 0 && len(parts) > i+2 {
		parts = parts[i+2:]
	} else if i := slices.IndexFunc(parts, func(p string) bool { return strings.HasPrefix(p, "v1") }); i >= 0 {
		parts = parts[i+1:]
	}
	verb := r.Method
	switch {
	case r.URL.Query().Get("watch") != "":
		verb = "WATCH"
	case verb == http.MethodGet && len(parts) == 1:
		verb = "LIST"
	}
	if len(parts) == 0 {
		return verb
	}
	kind := parts[0]
	if len(parts) > 2 {
		kind += "/" + parts[2]
	}
	return verb + " " + kind
}

func runCounted(at string) error {
	count := &counter{seen: map[string]int{}}
	config := &rest.Config{Host: os.Getenv(benchAPI), BearerToken: os.Getenv(benchToken), TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { count.next = next; return count })
	go func() {
		err := http.ListenAndServe(at, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			count.mu.Lock()
			defer count.mu.Unlock()
			_ = json.NewEncoder(w).Encode(count.seen)
		}))
		fmt.Fprintln(os.Stderr, err)
	}()
	return operator.Run(context.Background(), operator.Config{
		API: config, Substrates: []string{operator.SubstrateKubernetes}, SupervisorImage: "castellan:bench", LeaseNamespace: system,
		WebhookAddress: "127.0.0.1:0", HealthAddress: "0", MetricsAddress: "0",
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
}

// BenchmarkManyClustersWaiting is an operator with 100 clusters of 6 nodes on a real API
// server without controllers: every object of theirs exists, and no pod ever comes, so all
// of them wait. What it holds in memory is all it would hold but for the pods.
func BenchmarkManyClustersWaiting(b *testing.B) {
	for b.Loop() {
		many(b)
	}
}

func many(b *testing.B) {
	b.Helper()
	config := startAPIServer(b)
	c := controlplanetest.Client(b, config)
	installDefinitions(b, c)
	for _, n := range []string{system, namespace} {
		must(b, c.Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n}}))
	}
	for i := range manyClusters {
		must(b, c.Create(b.Context(), podCluster(fmt.Sprintf("c%03d", i))))
	}
	child, at := startCounted(b, config)
	wait(b, 10*time.Minute, func() error {
		var have claims
		return have.complete(b, c)
	})
	// Let the last writes end: at rest is when the same is counted twice.
	var before map[string]int
	wait(b, 5*time.Minute, func() error {
		now := counts(b, at)
		defer func() { before = now }()
		if writes(now) != writes(before) {
			return errors.New("still writing")
		}
		return nil
	})
	before = counts(b, at)
	rested := time.NewTimer(restFor)
	<-rested.C
	after := counts(b, at)
	report(b, before, after)
	memory := residentMiB(b, child.Process.Pid)
	b.Logf("resident memory of the operator: %d MiB (bound %d)", memory, memoryBound)
	b.ReportMetric(float64(memory), "MiB")
	took := firstWrite(b, c)
	b.Logf("from a spec change to the first write: %s (bound %s)", took, firstWriteBound)
	b.ReportMetric(float64(took.Milliseconds()), "ms/first-write")
}

// claims are the last that is made of a node.
type claims struct {
	list metav1.PartialObjectMetadataList
}

func (u *claims) complete(b *testing.B, c client.Client) error {
	b.Helper()
	u.list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaimList"))
	if err := c.List(b.Context(), &u.list, client.InNamespace(namespace)); err != nil {
		return err
	}
	if n := len(u.list.Items); n < manyClusters*nodesEach {
		return fmt.Errorf("%d claims", n)
	}
	return nil
}

func report(b *testing.B, before, after map[string]int) {
	b.Helper()
	total, lists := 0, 0
	for _, kind := range slices.Sorted(maps.Keys(after)) {
		n := after[kind] - before[kind]
		if n == 0 {
			continue
		}
		b.Logf("%6d  %s", n, kind)
		if strings.HasSuffix(kind, " leases") {
			continue
		}
		total += n
		if strings.HasPrefix(kind, "LIST") {
			lists += n
		}
	}
	each := float64(total) / manyClusters / restFor.Minutes()
	b.Logf("%.2f requests per cluster and minute (bound %.1f), %d LISTs (bound 0)", each, requestsBound, lists)
	b.ReportMetric(each, "requests/cluster/min")
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

// firstWrite changes a spec and waits for the revision that the operator makes of it.
func firstWrite(b *testing.B, c client.Client) time.Duration {
	b.Helper()
	kc := &api.KafkaCluster{}
	must(b, c.Get(b.Context(), client.ObjectKey{Namespace: namespace, Name: "c050"}, kc))
	kc.Spec.Config = api.Config{"num.io.threads": "9"}
	began := time.Now()
	must(b, c.Update(b.Context(), kc))
	wait(b, time.Minute, func() error {
		var revisions api.ClusterRevisionList
		if err := c.List(b.Context(), &revisions, client.InNamespace(namespace), client.MatchingLabels{operator.LabelCluster: kc.Name}); err != nil {
			return err
		}
		if len(revisions.Items) < 2 {
			return errors.New("no second revision")
		}
		return nil
	})
	return time.Since(began)
}

func podCluster(name string) *api.KafkaCluster {
	size := resource.MustParse("1Gi")
	return &api.KafkaCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: api.KafkaClusterSpec{Version: "4.3.1", Pools: []api.Pool{
			{
				Name: "controllers", Roles: []api.Role{api.RoleController}, Replicas: 3,
				Placement: api.Placement{Kubernetes: &api.KubernetesPlacement{}}, Volumes: []api.Volume{{Name: "data", Size: &size}},
			},
			{
				Name: "brokers", Roles: []api.Role{api.RoleBroker}, Replicas: nodesEach - 3,
				Placement: api.Placement{Kubernetes: &api.KubernetesPlacement{}}, Volumes: []api.Volume{{Name: "data", Size: &size}},
			},
		}},
	}
}

func startCounted(b *testing.B, config *rest.Config) (*exec.Cmd, string) {
	b.Helper()
	self, err := os.Executable()
	must(b, err)
	at := freeAddress(b)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), benchOperator+"="+at, benchAPI+"="+config.Host, benchToken+"="+config.BearerToken, "GOMEMLIMIT="+strconv.Itoa(memoryBound*9/10)+"MiB")
	startChild(b, cmd, b.Output())
	return cmd, at
}

func counts(b *testing.B, at string) map[string]int {
	b.Helper()
	response, err := http.Get("http://" + at)
	must(b, err)
	defer response.Body.Close() //nolint:errcheck // it is read
	var seen map[string]int
	must(b, json.NewDecoder(response.Body).Decode(&seen))
	return seen
}

func residentMiB(b *testing.B, pid int) int {
	b.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	must(b, err)
	defer file.Close() //nolint:errcheck // only read
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 3 && fields[0] == "VmRSS:" {
			kib, err := strconv.Atoi(fields[1])
			must(b, err)
			return kib >> 10
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// startAPIServer starts a real kube-apiserver and its etcd, and no controller.
func startAPIServer(b *testing.B) *rest.Config {
	b.Helper()
	binary, err := filepath.Abs("../bin/testkube")
	must(b, err)
	if _, err := os.Stat(binary); err != nil {
		b.Fatalf("no Kubernetes to measure with: %v: run test/kube/install-tools", err)
	}
	dir := b.TempDir()
	now := time.Now()
	ca, err := pki.NewCA("bench", now)
	must(b, err)
	pair, err := ca.Issue(pki.Request{CommonName: "bench", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Usage: pki.UsageServer | pki.UsageClient}, now)
	must(b, err)
	secret := make([]byte, 16)
	rand.Read(secret)
	token := hex.EncodeToString(secret)
	for name, data := range map[string][]byte{"crt": pair.Chain, "key": pair.Key, "ca": ca.TrustPEM(), "tokens": []byte(token + ",admin,1,system:masters\n")} {
		must(b, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	must(b, err)
	etcd, secure := freeAddress(b), freeAddress(b)
	_, port, err := net.SplitHostPort(secure)
	must(b, err)
	file := func(name string) string { return filepath.Join(dir, name) }
	startChild(b, exec.Command(binary, "etcd", "--data-dir="+file("etcd"), "--listen=http://"+etcd), log)
	startChild(b, exec.Command(binary, "kube-apiserver", "--etcd-servers=http://"+etcd, "--bind-address=127.0.0.1", "--secure-port="+port,
		"--tls-cert-file="+file("crt"), "--tls-private-key-file="+file("key"), "--client-ca-file="+file("ca"), "--token-auth-file="+file("tokens"),
		"--service-account-issuer=https://bench", "--service-account-key-file="+file("crt"), "--service-account-signing-key-file="+file("key"),
		"--service-cluster-ip-range=10.0.0.0/16", "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none"), log)
	config := &rest.Config{Host: "https://" + secure, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: ca.TrustPEM()}, QPS: 200, Burst: 400}
	httpClient, err := rest.HTTPClientFor(config)
	must(b, err)
	wait(b, 3*time.Minute, func() error {
		response, err := httpClient.Get(config.Host + "/readyz")
		if err != nil {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%w; it said %s", err, text[max(0, len(text)-2000):])
		}
		defer response.Body.Close() //nolint:errcheck // its status is all that counts
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
	return config
}

// startChild starts a process that ends with the benchmark, also when that is killed.
func startChild(b *testing.B, cmd *exec.Cmd, log interface{ Write([]byte) (int, error) }) {
	b.Helper()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func installDefinitions(b *testing.B, c client.Client) {
	b.Helper()
	files, err := fs.Glob(crds.Files, "*.yaml")
	must(b, err)
	for _, file := range files {
		data, err := crds.Files.ReadFile(file)
		must(b, err)
		crd := &apiextensionsv1.CustomResourceDefinition{}
		must(b, yaml.Unmarshal(data, crd))
		must(b, c.Create(b.Context(), crd))
		wait(b, time.Minute, func() error {
			must(b, c.Get(b.Context(), client.ObjectKeyFromObject(crd), crd))
			for _, condition := range crd.Status.Conditions {
				if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
					return nil
				}
			}
			return errors.New("not served yet")
		})
	}
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
	for {
		err := fact()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			b.Fatalf("not within %s: %v", most, err)
		case <-tick.C:
		}
	}
}
