package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/cli"
	"castellan.dev/castellan/controlplanetest"
)

// screen is what a command writes; a test waits on it.
type screen struct {
	mu      sync.Mutex
	text    bytes.Buffer
	written chan struct{}
}

func newScreen() *screen { return &screen{written: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.written <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) await(t *testing.T, what string) {
	t.Helper()
	late := time.After(time.Minute)
	for !strings.Contains(s.String(), what) {
		select {
		case <-s.written:
		case <-late:
			t.Fatalf("%q was never said, but:\n%s", what, s.String())
		}
	}
}

// command is castellan with arguments, in this process.
type command struct {
	root     *cobra.Command
	out, err *screen
	code     chan int
}

func newCommand(kubeconfig string, in io.Reader, size func() (int, int), args ...string) *command {
	w := &command{out: newScreen(), err: newScreen(), code: make(chan int, 1)}
	w.root = cli.New(cli.Config{
		In: in, Out: w.out, Err: w.err, Size: size, Interactive: in != nil,
		Getenv: func(key string) string { return map[string]string{"KUBECONFIG": kubeconfig}[key] },
	})
	w.root.SetArgs(args)
	return w
}

func (w *command) start(ctx context.Context) {
	go func() { w.code <- cli.Execute(ctx, w.root) }()
}

func (w *command) ended(t *testing.T, want int) {
	t.Helper()
	select {
	case got := <-w.code:
		if got != want {
			t.Errorf("exit code %d, want %d; it said:\n%s%s", got, want, w.out, w.err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("it did not end; it said:\n%s%s", w.out, w.err)
	}
}

func operationText(name, phase string, done int, nodes ...string) string {
	text := fmt.Sprintf(`
apiVersion: castellan.dev/v1alpha1
kind: Operation
metadata: {name: %s, namespace: default}
spec: {clusterRef: {name: orders}, type: Restart}
status:
  phase: %s
  steps: {done: %d, total: 2, percent: %d}
  nodes:
`, name, phase, done, 50*done)
	for i, state := range nodes {
		text += fmt.Sprintf("  - {id: %d, state: %s}\n", i, state)
	}
	return text
}

func TestWatch(t *testing.T) {
	plane := controlplanetest.New(t)
	kubeconfig := writeKubeconfig(t, plane.Config)
	objects := controlplanetest.Client(t, plane.Config)
	now := func(text string) {
		t.Helper()
		if err := given(t.Context(), objects, text); err != nil {
			t.Fatal(err)
		}
	}
	cluster := `
apiVersion: castellan.dev/v1alpha1
kind: KafkaCluster
metadata: {name: orders, namespace: default}
spec: {version: 4.3.1, pools: [{name: nodes, roles: [broker, controller], replicas: 2}]}
`
	now(cluster)

	t.Run("a cluster from a spec that nobody has looked at to the end of all that is done", func(t *testing.T) {
		w := newCommand(kubeconfig, nil, nil, "watch", "orders")
		w.start(t.Context())
		w.out.await(t, "waiting for the operator to look at generation 1 of cluster orders")
		now(operationText("first", "Running", 0, "Waiting", "Waiting"))
		w.out.await(t, "first: Restart of cluster orders\n")
		now(operationText("second", "Pending", 0))
		now(cluster + "status: {observedGeneration: 1}\n")
		now(operationText("first", "Running", 0, "Running", "Waiting"))
		w.out.await(t, "node 0 Running\n")
		now(operationText("first", "Running", 1, "Succeeded", "Running"))
		w.out.await(t, "first Running 1/2 50%\n")
		now(operationText("first", "Cancelled", 1, "Succeeded", "Cancelled"))
		w.out.await(t, "first Cancelled 1/2 50%\n")
		w.out.await(t, "second: Restart of cluster orders\n")
		now(operationText("second", "Succeeded", 2, "Succeeded", "Succeeded"))
		w.ended(t, cli.ExitOK)
		if n := strings.Count(w.out.String(), "node 0 Running\n"); n != 1 {
			t.Errorf("it said %d times that node 0 is changed:\n%s", n, w.out)
		}
	})

	t.Run("deleted before it was over", func(t *testing.T) {
		now(operationText("third", "Running", 0, "Running", "Waiting"))
		w := newCommand(kubeconfig, nil, nil, "watch", "third")
		w.start(t.Context())
		w.out.await(t, "node 0 Running")
		if err := objects.Delete(t.Context(), &api.Operation{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "third"}}); err != nil {
			t.Fatal(err)
		}
		w.ended(t, cli.ExitNotFound)
		w.err.await(t, "operation third was deleted before it was over")
	})

	t.Run("Ctrl-C leaves it going on", func(t *testing.T) {
		now(operationText("fourth", "Running", 0, "Running", "Waiting"))
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		w := newCommand(kubeconfig, nil, nil, "watch", "orders")
		w.start(ctx)
		w.out.await(t, "node 0 Running")
		interrupt()
		w.ended(t, cli.ExitInterrupted)
		w.err.await(t, "operation fourth goes on without being watched: `castellan watch fourth` shows it again")
	})

	t.Run("a terminal shows how far replicas are", func(t *testing.T) {
		moving := func(name, phase, moves string) string {
			return strings.Replace(operationText(name, phase, 0), "  nodes:\n", "  moves: "+moves+"\n", 1)
		}
		now(moving("moving", "Running", "{done: 1, running: 2, total: 4, leftBytes: 5368709120}"))
		w := newCommand(kubeconfig, nil, func() (int, int) { return 80, 24 }, "watch", "moving")
		w.start(t.Context())
		w.out.await(t, "\nmoves 1/4, 5.0Gi left, 2 under way\n")
		now(moving("moving", "Succeeded", "{done: 4, total: 4}"))
		w.ended(t, cli.ExitOK)
		if got := shown(t, w.out.String()); !strings.HasSuffix(got, "\nmoves 4/4\n") {
			t.Errorf("the terminal shows:\n%s", got)
		}
	})

	t.Run("a terminal shows it in place, also after the API server was away", func(t *testing.T) {
		w := newCommand(kubeconfig, nil, func() (int, int) { return 40, 24 }, "watch", "fourth")
		w.start(t.Context())
		w.out.await(t, "fourth: Restart of cluster orders, Run…\n")
		plane.Kill(t)
		w.out.await(t, "the API server cannot be asked now")
		plane.Resume(t)
		now(operationText("fourth", "Failed", 1, "Failed", "Cancelled"))
		w.ended(t, cli.ExitFailure)
		w.err.await(t, "operation fourth is Failed; `castellan retry fourth` begins it again")
		want := "fourth: Restart of cluster orders, Fai…\n[###############---------------] 1 of …\n  node 0     Failed\n  node 1     Cancelled\n"
		if got := shown(t, w.out.String()); got != want {
			t.Errorf("the terminal shows:\n%s\nwant:\n%s", got, want)
		}
	})
}

// shown is what stands on a terminal after a text with the escapes that watch uses: ESC[nA
// goes up n lines, ESC[J clears from there.
func shown(t *testing.T, text string) string {
	t.Helper()
	lines, at := []string{""}, 0
	for len(text) > 0 {
		var up int
		switch {
		case strings.HasPrefix(text, "\x1b[J"):
			lines, text = append(lines[:at:at], ""), text[3:]
		case strings.HasPrefix(text, "\x1b["):
			if _, err := fmt.Sscanf(text, "\x1b[%dA", &up); err != nil || up > at {
				t.Fatalf("up %d from line %d: %v", up, at, err)
			}
			at, text = at-up, text[strings.IndexByte(text, 'A')+1:]
		case text[0] == '\r':
			text = text[1:]
		case text[0] == '\n':
			at, text = at+1, text[1:]
			if at == len(lines) {
				lines = append(lines, "")
			}
		default:
			lines[at], text = lines[at]+text[:1], text[1:]
		}
	}
	return strings.Join(lines, "\n")
}
