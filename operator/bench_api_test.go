package operator_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"castellan.dev/castellan/api/crds"
	"castellan.dev/castellan/operator"
	"castellan.dev/castellan/pki"
)

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
	if os.Getenv(benchProfiles) != "" {
		runtime.MemProfileRate = 4 << 10
	}
	count := &counter{seen: map[string]int{}}
	config := &rest.Config{Host: os.Getenv(benchAPI), BearerToken: os.Getenv(benchToken), TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { count.next = next; return count })
	served := http.NewServeMux()
	served.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		count.mu.Lock()
		defer count.mu.Unlock()
		_ = json.NewEncoder(w).Encode(count.seen)
	})
	served.HandleFunc("/cpu", pprof.Profile)
	served.Handle("/heap", pprof.Handler("heap"))
	served.Handle("/allocs", pprof.Handler("allocs"))
	served.Handle("/goroutine", pprof.Handler("goroutine"))
	go func() { fmt.Fprintln(os.Stderr, http.ListenAndServe(at, served)) }()
	return operator.Run(context.Background(), operator.Config{
		API: config, Substrates: []string{operator.SubstrateKubernetes}, SupervisorImage: "castellan:bench", LeaseNamespace: system,
		WebhookAddress: "127.0.0.1:0", HealthAddress: "0", MetricsAddress: "0",
		Dial: through(os.Getenv(benchPods)),
		Log:  slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
}

func startCounted(b *testing.B, config *rest.Config, pods string) (*exec.Cmd, string) {
	b.Helper()
	self, err := os.Executable()
	must(b, err)
	at := freeAddress(b)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), benchOperator+"="+at, benchAPI+"="+config.Host, benchToken+"="+config.BearerToken, benchPods+"="+pods, "GOMEMLIMIT="+strconv.Itoa(memoryBound*9/10)+"MiB")
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

// profile keeps profiles of the operator where benchProfiles says so.
func profile(b *testing.B, at, when string) {
	b.Helper()
	dir := os.Getenv(benchProfiles)
	if dir == "" {
		return
	}
	for name, query := range map[string]string{"cpu": "seconds=60", "heap": "gc=1", "allocs": "", "goroutine": ""} {
		response, err := http.Get("http://" + at + "/" + name + "?" + query)
		must(b, err)
		data, err := io.ReadAll(response.Body)
		must(b, errors.Join(err, response.Body.Close()))
		must(b, os.WriteFile(filepath.Join(dir, when+"-"+name+".pprof"), data, 0o600))
	}
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
