package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"castellan.dev/castellan/controlplane/internal/serve"
)

// asProgram makes the test binary behave as castellan-controlplane, so that tests run the real program as a process of
// its own without building it twice.
const asProgram = "CASTELLAN_CONTROLPLANE_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// waitLimit is generous: a loaded machine is slow, and a fact that never comes fails the test all the same.
const waitLimit = 90 * time.Second

func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// run runs a command of the program that ends by itself.
func run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := program(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// instance is a serving control plane.
type instance struct {
	t      *testing.T
	dir    string
	ready  serve.Ready
	cmd    *exec.Cmd
	stderr *lockedBuffer
	ended  chan struct{}
	err    error // of the process; read after ended is closed
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// shortDir is a data directory whose path leaves room for the etcd socket.
func shortDir(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "cp-*") //nolint:usetesting // t.TempDir has the test's long name in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	return filepath.Join(parent, "data")
}

func start(t *testing.T, dir string, args ...string) *instance {
	t.Helper()
	i := &instance{t: t, dir: dir, stderr: new(lockedBuffer), ended: make(chan struct{})}
	i.cmd = program(t, append([]string{"serve", "--data", dir}, args...)...)
	i.cmd.Stderr = i.stderr
	stdout, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	i.cmd.Stdout = theirs
	err = i.cmd.Start()
	_ = theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	line := make(chan string, 1)
	go func() {
		defer close(i.ended)
		text, _ := bufio.NewReader(stdout).ReadString('\n')
		_ = stdout.Close() // as a starter that goes away would; the program must not care
		line <- text
		i.err = i.cmd.Wait()
	}()
	t.Cleanup(func() { i.kill() })
	select {
	case text := <-line:
		if err := json.Unmarshal([]byte(text), &i.ready); err != nil {
			t.Fatalf("ready line %q: %v\n%s", text, err, i.stderr)
		}
	case <-time.After(waitLimit):
		t.Fatalf("not ready after %s\n%s", waitLimit, i.stderr)
	}
	return i
}

// kill ends the process as a power cut would.
func (i *instance) kill() {
	_ = i.cmd.Process.Signal(syscall.SIGKILL)
	<-i.ended
}

// stop asks the process to end and returns how long it took.
func (i *instance) stop() time.Duration {
	i.t.Helper()
	begin := time.Now()
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		i.t.Fatal(err)
	}
	select {
	case <-i.ended:
	case <-time.After(serve.StopDeadline + 5*time.Second):
		i.t.Fatalf("did not stop\n%s", i.stderr)
	}
	if i.err != nil {
		i.t.Errorf("stop: %v\n%s", i.err, i.stderr)
	}
	return time.Since(begin)
}

func (i *instance) config() *rest.Config {
	i.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(i.dir, "admin.kubeconfig"))
	if err != nil {
		i.t.Fatal(err)
	}
	config.QPS, config.Burst = 500, 500
	return config
}

func (i *instance) client() *kubernetes.Clientset {
	i.t.Helper()
	client, err := kubernetes.NewForConfig(i.config())
	if err != nil {
		i.t.Fatal(err)
	}
	return client
}

func (i *instance) dynamic() *dynamic.DynamicClient {
	i.t.Helper()
	client, err := dynamic.NewForConfig(i.config())
	if err != nil {
		i.t.Fatal(err)
	}
	return client
}

// eventually waits for a fact; probe returns an error that says what is still missing.
func eventually(t *testing.T, what string, probe func() error) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(waitLimit)
	for {
		err := probe()
		if err == nil {
			return
		}
		select {
		case <-limit:
			t.Fatalf("%s: %v", what, err)
		case <-ticker.C:
		}
	}
}

func mustContain(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("missing %q in:\n%s", part, text)
		}
	}
}

func notYet(format string, args ...any) error { return fmt.Errorf("not yet: "+format, args...) }
