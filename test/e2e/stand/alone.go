package stand

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
)

// KafkaAlone formats and starts so many combined nodes by hand, all at once, with the heap of the stand's clusters and
// nothing of Castellan, and returns how long it took until every node knew every broker. They are stopped again.
func (s *Stand) KafkaAlone(version string, nodes int) time.Duration {
	s.tb.Helper()
	a := alone{s: s, folder: s.tb.TempDir(), classPath: filepath.Join(s.libs(version), "*"), nodes: nodes, firstPort: int(freePorts(s.tb).From)}
	defer a.stop()
	began := time.Now()
	formats := make([]*exec.Cmd, nodes)
	for id := range nodes {
		a.configure(id)
		formats[id] = a.java(id, "format", "kafka.tools.StorageTool", "format", "--cluster-id", "a2Fma2EtYWxvbmUtYmVuYw",
			"--initial-controllers", a.controllers(true), "--config", a.file(id, "server.properties"))
	}
	for id, format := range formats {
		if err := format.Wait(); err != nil {
			s.tb.Fatalf("format node %d: %v; see %s", id, err, a.file(id, "format.log"))
		}
	}
	for id := range nodes {
		a.running = append(a.running, a.java(id, "kafka", "kafka.Kafka", a.file(id, "server.properties")))
	}
	for id := range nodes {
		s.Eventually(fmt.Sprintf("node %d knows %d brokers", id, nodes), ReadyTimeout, a.knowsAll(id))
	}
	return time.Since(began)
}

// alone is Kafka without Castellan.
type alone struct {
	s                 *Stand
	folder, classPath string
	nodes, firstPort  int
	running           []*exec.Cmd
}

func (a *alone) file(id int, name string) string {
	return filepath.Join(a.folder, strconv.Itoa(id), name)
}

func (a *alone) client(id int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.firstPort+2*id))
}

func (a *alone) controller(id int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.firstPort+2*id+1))
}

// controllers is the quorum, with the directory ids that a format wants or without.
func (a *alone) controllers(directories bool) string {
	var all []string
	for id := range a.nodes {
		if directories {
			all = append(all, fmt.Sprintf("%d@%s:a2Fma2EtZGlyZWN0b3J%dMA", id, a.controller(id), id))
		} else {
			all = append(all, a.controller(id))
		}
	}
	return strings.Join(all, ",")
}

func (a *alone) configure(id int) {
	a.s.tb.Helper()
	copies := min(a.nodes, 3)
	properties := fmt.Sprintf(`process.roles=broker,controller
node.id=%d
listeners=CLIENT://%s,CONTROLLER://%s
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=%s
log.dirs=%s
default.replication.factor=%d
offsets.topic.replication.factor=%d
min.insync.replicas=%d
`, id, a.client(id), a.controller(id), a.controllers(false), a.file(id, "data"), copies, copies, max(1, copies-1))
	if err := os.MkdirAll(a.file(id, "data"), 0o700); err != nil {
		a.s.tb.Fatal(err)
	}
	if err := os.WriteFile(a.file(id, "server.properties"), []byte(properties), 0o600); err != nil {
		a.s.tb.Fatal(err)
	}
}

// java starts a main class of Kafka's jars as its own scripts would.
func (a *alone) java(id int, log, class string, args ...string) *exec.Cmd {
	a.s.tb.Helper()
	out, err := os.Create(a.file(id, log+".log"))
	if err != nil {
		a.s.tb.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // the process has its own
	options := []string{"-server", "-Xms256m", "-Xmx256m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-Djava.awt.headless=true", "-cp", a.classPath, class}
	cmd := exec.CommandContext(context.Background(), "java", append(options, args...)...) //nolint:gosec // Kafka's own jars
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		a.s.tb.Fatalf("start %s: %v", class, err)
	}
	return cmd
}

func (a *alone) knowsAll(id int) Fact {
	return func(ctx context.Context) error {
		clients := kafka.NewClients(kafka.Options{Timeout: time.Second})
		defer clients.Close()
		seen, err := clients.Cluster("alone", kafka.Target{Brokers: []string{a.client(id)}}).Observe(ctx, plan.Ask{})
		if err != nil {
			return fmt.Errorf("ask node %d for the brokers: %w", id, err)
		}
		fit := 0
		for _, b := range seen.Brokers {
			if !b.Fenced {
				fit++
			}
		}
		if fit != a.nodes {
			return fmt.Errorf("node %d knows %d of %d brokers (%s)", id, fit, a.nodes, seen.Why)
		}
		return nil
	}
}

// stop ends what was started, and waits for it.
func (a *alone) stop() {
	for _, cmd := range a.running {
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			a.s.tb.Errorf("stop Kafka: %v", err)
		}
	}
	for _, cmd := range a.running {
		_ = cmd.Wait() // killed, as asked
	}
}
