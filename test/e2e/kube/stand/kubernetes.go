// Package stand puts up a real Kubernetes of several machines for the stories of this folder, with Castellan's operator on
// it, and clusters of Kafka, one namespace for each. It looks at facts (the API, pods, Kafka from outside the cluster's
// network) and does to machines and pods what a story wants done. It decides nothing that the product decides.
package stand

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Environment of the stories.
const (
	// EnvBin names the folder of the programs; without it bin/ of the module is taken.
	EnvBin = "CASTELLAN_BIN"
	// EnvDir names the directory of a Kubernetes that runs already: it is neither started nor stopped.
	EnvDir = "CASTELLAN_KUBE_DIR"
	// EnvKeep, if set, leaves clusters behind, and takes one that was left behind: for who writes a story.
	EnvKeep = "CASTELLAN_KUBE_KEEP"
	// EnvImages names a folder with an image of Kafka (kafka-VERSION.tar); without it one is made.
	EnvImages = "CASTELLAN_KUBE_IMAGES"
)

// Machines are the workers, one in each zone.
const Machines = 3

// Version of Kafka that the stories run.
const Version = "4.3.1"

const (
	upTimeout   = 5 * time.Minute
	downTimeout = 2 * time.Minute
	loadTimeout = 3 * time.Minute
)

// Kubernetes is one that runs, for one test.
type Kubernetes struct {
	tb testing.TB
	// Programs, and the module's root.
	testkube, helm, castellan, client, images, root string
	dir                                             string          // of testkube
	work                                            string          // of the stand
	loaded                                          map[string]bool // tags of castellan on the machines
	dumped                                          map[string]bool // namespaces that were shown
	config                                          *rest.Config
}

// Shared is the one Kubernetes of a test process, started when a test first wants it.
type Shared struct {
	one     Kubernetes
	started bool // by us
	tried   error
	done    bool
}

// For is the shared Kubernetes for a test. It is started if need be; the operator is not installed by this.
func (s *Shared) For(tb testing.TB) *Kubernetes {
	tb.Helper()
	if !s.done {
		s.done = true
		s.tried = s.start(tb)
	}
	if s.tried != nil {
		tb.Fatalf("start a Kubernetes: %v", s.tried)
	}
	return s.one.For(tb)
}

// Stop ends what For has started.
func (s *Shared) Stop() error {
	var err error
	if s.started {
		if out := s.one.harness(context.Background(), downTimeout, []string{"down"}); out.Code != 0 {
			err = fmt.Errorf("stop the Kubernetes: %s", out)
		}
	}
	if s.one.work == "" {
		return err
	}
	return errors.Join(err, os.RemoveAll(s.one.work))
}

func (s *Shared) start(tb testing.TB) error {
	tb.Helper()
	// Not a test's own folder: it is shared by all tests, and its path would be too long for sockets.
	work, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", folderPrefix, os.Getpid())) //nolint:usetesting // see above
	if err != nil {
		return fmt.Errorf("make the stand's folder: %w", err)
	}
	k := &s.one
	k.work, k.loaded, k.dumped = work, map[string]bool{}, map[string]bool{}
	ctx := context.Background() // what is started outlives the test that wants it first
	if err := k.findPrograms(ctx); err != nil {
		return err
	}
	if err := k.endLeftovers(ctx); err != nil {
		return err
	}
	k.dir = os.Getenv(EnvDir)
	if k.dir == "" {
		k.dir = filepath.Join(work, "kube")
		began := time.Now()
		s.started = true
		out := k.harness(ctx, upTimeout, []string{"up", "--name", "e2e", "--nodes", fmt.Sprint(Machines)})
		if out.Code != 0 {
			return fmt.Errorf("testkube up: %s", out)
		}
		tb.Logf("a Kubernetes of %d machines runs after %s", Machines, time.Since(began).Round(time.Second))
	}
	if k.config, err = clientcmd.BuildConfigFromFlags("", k.Kubeconfig()); err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	k.config.QPS, k.config.Burst, k.config.Timeout = 100, 200, 10*time.Second
	return k.loadKafka(ctx, Version)
}

// folderPrefix, and the id of the test process, begin the name of a stand's folder.
const folderPrefix = "cstk"

// endLeftovers ends what stands left behind whose test process was killed.
func (k *Kubernetes) endLeftovers(ctx context.Context) error {
	folders, err := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	if err != nil {
		return fmt.Errorf("look for what earlier tests left behind: %w", err)
	}
	for _, folder := range folders {
		var owner int
		if _, err := fmt.Sscanf(filepath.Base(folder), folderPrefix+"%d-", &owner); err != nil || syscall.Kill(owner, 0) == nil {
			continue
		}
		old := Kubernetes{testkube: k.testkube, dir: filepath.Join(folder, "kube")}
		if out := old.harness(ctx, downTimeout, []string{"down"}); out.Code != 0 {
			return fmt.Errorf("end what a killed test left behind: %s", out)
		}
		if err := os.RemoveAll(folder); err != nil {
			return fmt.Errorf("remove what a killed test left behind: %w", err)
		}
	}
	return nil
}

// For is the same Kubernetes for another test, which then is what fails.
func (k *Kubernetes) For(tb testing.TB) *Kubernetes {
	tb.Helper()
	of := *k
	of.tb = tb
	return &of
}

// Kubeconfig is the administrator's.
func (k *Kubernetes) Kubeconfig() string { return filepath.Join(k.dir, "kubeconfig") }

// Context is the name of the kubeconfig's only context.
func (k *Kubernetes) Context() string {
	k.tb.Helper()
	config, err := clientcmd.LoadFromFile(k.Kubeconfig())
	if err != nil {
		k.tb.Fatalf("read the kubeconfig: %v", err)
	}
	return config.CurrentContext
}

// Client speaks to the API server as administrator.
func (k *Kubernetes) Client() client.WithWatch { //nolint:ireturn // controller-runtime gives only the interface
	k.tb.Helper()
	known := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(known), api.AddToScheme(known)); err != nil {
		k.tb.Fatalf("register API types: %v", err)
	}
	c, err := client.NewWithWatch(k.config, client.Options{Scheme: known})
	if err != nil {
		k.tb.Fatalf("connect to the API server: %v", err)
	}
	return c
}

// Clientset speaks to the API server as administrator, where informers want one.
func (k *Kubernetes) Clientset() *kubernetes.Clientset {
	k.tb.Helper()
	c, err := kubernetes.NewForConfig(k.config)
	if err != nil {
		k.tb.Fatalf("connect to the API server: %v", err)
	}
	return c
}

// PowerOff cuts the power of a machine.
func (k *Kubernetes) PowerOff(machine string) {
	k.tb.Helper()
	must(k.tb, k.harness(k.tb.Context(), time.Minute, []string{"node", "kill", machine}))
}

// PowerOn starts a machine again: with its disk, or with an empty one, as one that was bought to replace it.
func (k *Kubernetes) PowerOn(machine string, freshDisk bool) {
	k.tb.Helper()
	args := []string{"node", "start", machine}
	if freshDisk {
		args = append(args, "--fresh-disk")
	}
	must(k.tb, k.harness(k.tb.Context(), upTimeout, args))
}

// LoadBalancers lets Services of type LoadBalancer get an address, or not.
func (k *Kubernetes) LoadBalancers(on bool) {
	k.tb.Helper()
	must(k.tb, k.balance(k.tb.Context(), on))
}

// LoadBalancersAnyway is LoadBalancers for the end of a test, whose context has ended.
func (k *Kubernetes) LoadBalancersAnyway(on bool) {
	k.tb.Helper()
	if out := k.balance(context.Background(), on); out.Code != 0 {
		k.tb.Error(out)
	}
}

func (k *Kubernetes) balance(ctx context.Context, on bool) Output {
	word := "off"
	if on {
		word = "on"
	}
	return k.harness(ctx, time.Minute, []string{"loadbalancer", word})
}

// Outside runs the stand's client from outside the cluster's network, which has to work, and reads its last line.
func (k *Kubernetes) Outside(within time.Duration, into any, args ...string) Output {
	k.tb.Helper()
	out := k.tryOutside(k.tb.Context(), within, args...)
	must(k.tb, out)
	if into == nil {
		return out
	}
	lines := strings.Split(strings.TrimSpace(out.Stdout), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), into); err != nil {
		k.tb.Fatalf("read what the client says: %v: %s", err, out)
	}
	return out
}

// CastellanOutside runs one command of bin/castellan from outside the cluster's network.
func (k *Kubernetes) CastellanOutside(within time.Duration, args ...string) Output {
	k.tb.Helper()
	inside := append([]string{"env", "KUBECONFIG=" + filepath.Join(k.dir, "pki", "admin.conf"), k.castellan}, args...)
	return k.harness(k.tb.Context(), within, []string{"exec", "ext"}, inside...)
}

func (k *Kubernetes) tryOutside(ctx context.Context, within time.Duration, args ...string) Output {
	return k.harness(ctx, within, []string{"exec", "ext"}, append([]string{k.client}, args...)...)
}
