// Package controlplanetest starts the embedded control plane for a test: a real API server
// with its store, the CRDs of castellan.dev, and nothing else. It serves tests only.
package controlplanetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"castellan.dev/castellan/api/crds"
	api "castellan.dev/castellan/api/v1alpha1"
)

// EnvBinary names the binary to start; without it bin/castellan-controlplane of the module
// is taken.
const EnvBinary = "CASTELLAN_CONTROLPLANE"

const (
	startTimeout = 2 * time.Minute // on a busy machine; 3 s on an idle one
	stopTimeout  = 30 * time.Second
)

// ControlPlane is a running control plane that a test may also stop and start again.
type ControlPlane struct {
	// Config has every right.
	Config *rest.Config
	binary string
	data   string
	port   string
	cmd    *exec.Cmd
	ended  chan struct{}
}

// Start starts a control plane for the time of a test and returns how to reach it, with
// every right. A missing binary fails the test.
func Start(tb testing.TB) *rest.Config {
	tb.Helper()
	return New(tb).Config
}

// New is Start for tests that stop the control plane in between.
func New(tb testing.TB) *ControlPlane {
	tb.Helper()
	// Not t.TempDir: its path is too long for etcd's socket.
	data, err := os.MkdirTemp("", "cp") //nolint:usetesting // see above
	if err != nil {
		tb.Fatalf("make the control plane's folder: %v", err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(data); err != nil {
			tb.Errorf("remove the control plane's folder: %v", err)
		}
	})
	c := &ControlPlane{binary: findBinary(tb), data: data, port: "0"}
	tb.Cleanup(func() { c.Stop(tb) })
	c.Resume(tb)
	if err := install(tb.Context(), c.Config); err != nil {
		tb.Fatalf("install the CRDs: %v", err)
	}
	return c
}

// Resume starts the control plane (again) on its data and its port.
func (c *ControlPlane) Resume(tb testing.TB) {
	tb.Helper()
	log, err := os.OpenFile(filepath.Join(c.data, "stderr.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatalf("open the control plane's log: %v", err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	//nolint:gosec,noctx // the module's own binary, which ends by Stop
	cmd := exec.Command(c.binary, "serve", "--data", filepath.Join(c.data, "d"), "--secure-port", c.port)
	// Dies with the test binary, also when that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatalf("prepare the control plane: %v", err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", c.binary, err)
	}
	ready := make(chan bool, 1)
	c.cmd, c.ended = cmd, make(chan struct{})
	go func() {
		defer close(c.ended)
		line, _ := bufio.NewReader(stdout).ReadBytes('\n')
		ready <- c.noteReady(line) == nil
		_ = cmd.Wait() // how it ended does not matter to the test
	}()
	select {
	case ok := <-ready:
		if ok {
			return
		}
	case <-time.After(startTimeout):
	}
	c.Stop(tb)
	text, _ := os.ReadFile(filepath.Join(c.data, "stderr.log"))
	tb.Fatalf("the control plane did not become ready; it said:\n%s", text[max(0, len(text)-4000):])
}

func (c *ControlPlane) noteReady(line []byte) error {
	var said struct {
		Ready bool
		URL   string
	}
	if err := json.Unmarshal(line, &said); err != nil || !said.Ready {
		return fmt.Errorf("it said %q instead of being ready", line)
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.data, "d", "admin.kubeconfig"))
	if err != nil {
		return fmt.Errorf("read its kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 200, 400
	c.Config = config
	if c.port == "0" {
		c.port = portOf(said.URL)
	}
	return nil
}

func portOf(url string) string {
	for i := len(url) - 1; i >= 0; i-- {
		if url[i] == ':' {
			return url[i+1:]
		}
	}
	return url
}

// Stop ends the control plane and waits for it; its data stays for Resume.
func (c *ControlPlane) Stop(tb testing.TB) {
	tb.Helper()
	c.end(tb, syscall.SIGTERM)
}

// Kill ends it at once, as a power cut does.
func (c *ControlPlane) Kill(tb testing.TB) {
	tb.Helper()
	c.end(tb, syscall.SIGKILL)
}

func (c *ControlPlane) end(tb testing.TB, signal syscall.Signal) {
	tb.Helper()
	if c.cmd == nil {
		return
	}
	defer func() { c.cmd = nil }()
	if err := c.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		tb.Errorf("end the control plane: %v", err)
	}
	select {
	case <-c.ended:
		return
	case <-time.After(stopTimeout):
	}
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		tb.Errorf("kill the control plane: %v", err)
	}
	<-c.ended
}

// Client is a client for the kinds of Kubernetes and of castellan.dev that asks the API
// server itself.
func Client(tb testing.TB, config *rest.Config) client.Client { //nolint:ireturn // client.Client is what controller-runtime has
	tb.Helper()
	scheme, err := newScheme()
	if err != nil {
		tb.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		tb.Fatalf("make a client: %v", err)
	}
	return c
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, api.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register kinds: %w", err)
		}
	}
	return scheme, nil
}

func findBinary(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv(EnvBinary)
	if path == "" {
		path = filepath.Join(moduleRoot(tb), "bin", "castellan-controlplane")
	}
	if _, err := os.Stat(path); err != nil { //nolint:gosec // a path of the agent or the test itself
		tb.Fatalf("no control plane to test with: %v: run `make build`, or name one in %s", err, EnvBinary)
	}
	return path
}

func moduleRoot(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			tb.Fatal("not inside the module")
		}
		dir = parent
	}
}

// install creates the CRDs and waits until they are served.
func install(ctx context.Context, config *rest.Config) error {
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	files, err := fs.Glob(crds.Files, "*.yaml")
	if err != nil {
		return fmt.Errorf("list the definitions: %w", err)
	}
	for _, file := range files {
		data, err := crds.Files.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(data, &crd); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if err := c.Create(ctx, &crd); err != nil {
			return fmt.Errorf("create %s: %w", crd.Name, err)
		}
		if err := established(ctx, c, crd.Name); err != nil {
			return fmt.Errorf("wait for %s: %w", crd.Name, err)
		}
	}
	return nil
}

func established(ctx context.Context, c client.Client, name string) error {
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := c.Get(ctx, client.ObjectKey{Name: name}, &crd); err != nil {
			return false, err
		}
		for _, condition := range crd.Status.Conditions {
			if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
}
