package kafka_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// realNode is one node of a real cluster on loopback.
type realNode struct {
	id    int32
	roles string
	// controller is the port of the only controller, port that of this broker.
	controller, port int
	dirs             []string
}

func (n realNode) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(n.port)) }

func (n realNode) properties() string {
	listeners := fmt.Sprintf("INTERNAL://127.0.0.1:%d", n.port)
	if strings.Contains(n.roles, "controller") {
		listeners += fmt.Sprintf(",CONTROLLER://127.0.0.1:%d", n.controller)
	}
	return fmt.Sprintf(`process.roles=%s
node.id=%d
listeners=%s
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listener.security.protocol.map=CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT
controller.quorum.bootstrap.servers=127.0.0.1:%d
log.dirs=%s
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
`, n.roles, n.id, listeners, n.controller, strings.Join(n.dirs, ","))
}

// start formats the node and runs it until the test ends, or until it is killed.
func (n realNode) start(t *testing.T, libs, clusterID string, format ...string) (kill func()) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "server.properties")
	if err := os.WriteFile(file, []byte(n.properties()), 0o600); err != nil {
		t.Fatal(err)
	}
	java(t, append([]string{"-cp", libs, "kafka.tools.StorageTool", "format", "-t", clusterID, "-c", file}, format...)...)
	logFile, err := os.Create(filepath.Join(dir, "kafka.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nice", "java", "-Xmx256m", "-cp", libs, "kafka.Kafka", file)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(func() {
		kill()
		if text, err := os.ReadFile(logFile.Name()); err == nil && t.Failed() {
			t.Logf("log of node %d:\n%s", n.id, text)
		}
	})
	return kill
}
