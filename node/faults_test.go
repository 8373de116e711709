package node

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

const (
	thisCluster  = "MkU3OEVBNTcwNTJENDM2Qg"
	otherCluster = "b3RoZXJjbHVzdGVyb3RoZQ"
)

// newFake is a bench whose disk is formatted and whose java runs script.
func newFake(t *testing.T, script string) *bench {
	t.Helper()
	b := newBench(t, fakeArchive(t))
	b.fakeJava("17.0.1", script)
	b.formatted(thisCluster, 1)
	b.live.ClusterID = thisCluster
	return b
}

// Nothing of what is on a disk may change while a start is refused.
func (b *bench) wantUntouched(act func()) {
	b.t.Helper()
	before := b.disk()
	act()
	if diff := cmp.Diff(before, b.disk()); diff != "" {
		b.t.Errorf("the disk was changed (-before +after):\n%s", diff)
	}
}

func (b *bench) disk() map[string]string {
	b.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(b.static.Volumes[0].Path, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files[path] = string(content)
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	return files
}

func TestRefusesToStart(t *testing.T) {
	for _, tt := range []struct {
		reason string
		spoil  func(*bench)
		code   int
		want   string
		says   []string
	}{
		{
			"no java", func(b *bench) { b.config.Env = []string{"PATH=" + b.dir} },
			ExitJava, ReasonJavaMissing,
			[]string{"Java 17", "JAVA_HOME", "install"},
		},
		{
			"JAVA_HOME without java", func(b *bench) { b.config.Env = append(b.config.Env, "JAVA_HOME="+b.dir) },
			ExitJava, ReasonJavaMissing,
			[]string{"JAVA_HOME is " + "/", "install"},
		},
		{
			"java 11 for Kafka 4", func(b *bench) { b.fakeJava("11.0.2", "exit 9") },
			ExitJava, ReasonJavaTooOld,
			[]string{"is Java 11", "Java 17 or newer"},
		},
		{
			"java 8", func(b *bench) { b.fakeJava("1.8.0_392", "exit 9"); b.static.Process.Version = "3.9.2" },
			ExitJava, ReasonJavaTooOld,
			[]string{"is Java 8", "Java 11 or newer"},
		},
		{
			"disk of another cluster", func(b *bench) { b.formatted(otherCluster, 1) },
			ExitData, ReasonClusterIDMismatch,
			[]string{otherCluster, thisCluster, "move the folder away"},
		},
		{
			"disk of another node", func(b *bench) { b.formatted(thisCluster, 7) },
			ExitData, ReasonNodeIDMismatch,
			[]string{"for node 7", "node 1"},
		},
		{
			"disk of something else", func(b *bench) {
				dir := b.static.Volumes[0].Path
				if err := os.RemoveAll(layout.DataDir(b.static.Volumes[0])); err != nil {
					b.t.Fatal(err)
				}
				replace(b.t, filepath.Join(dir, "PG_VERSION"), "15")
			},
			ExitData, ReasonVolumeForeign,
			[]string{"PG_VERSION", "move them away"},
		},
		{
			"topics without meta.properties", func(b *bench) {
				dir := layout.DataDir(b.static.Volumes[0])
				mkdir(b.t, filepath.Join(dir, "orders-0"))
				if err := os.Remove(filepath.Join(dir, metaProperties)); err != nil {
					b.t.Fatal(err)
				}
			},
			ExitData, ReasonVolumeForeign,
			[]string{"orders-0", metaProperties},
		},
		{
			"disk of a node with ZooKeeper", func(b *bench) {
				replace(b.t, filepath.Join(layout.DataDir(b.static.Volumes[0]), metaProperties), "version=0\nbroker.id=1\ncluster.id="+thisCluster+"\n")
			},
			ExitData, ReasonVolumeForeign,
			[]string{"KRaft"},
		},
		{
			"a file in place of the disk", func(b *bench) {
				b.static.Volumes[0].Path = filepath.Join(b.dir, "file")
				replace(b.t, b.static.Volumes[0].Path, "")
			},
			ExitStorage, ReasonVolumeUnreadable,
			[]string{"check the disk"},
		},
		{
			"full disk", func(b *bench) {
				b.config.FreeBytes = func(path string) (uint64, error) {
					if path == b.static.Volumes[0].Path {
						return 4096, nil
					}
					return 1 << 40, nil
				}
			},
			ExitHost, ReasonDiskFull,
			[]string{"4096 bytes free", "free space"},
		},
		{
			"an option that runs a command", func(b *bench) { b.static.Process.JVMOptions = []string{"-XX:OnOutOfMemoryError=reboot"} },
			ExitConfig, ReasonBadConfig,
			[]string{"-XX:OnOutOfMemoryError", "runs a command"},
		},
		{
			"layout of a newer castellan", func(b *bench) { b.static.Process.Layout = 3 },
			ExitConfig, ReasonBadConfig,
			[]string{"layout 3", "newer"},
		},
		{
			"package without Kafka", func(b *bench) { b.config.Archive = b.dir },
			ExitConfig, ReasonPackageBroken,
			[]string{"libs"},
		},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			b := newFake(t, "exit 9")
			tt.spoil(b)
			b.wantUntouched(func() {
				b.start()
				b.wantFailure(tt.code, tt.want, tt.says...)
			})
		})
	}
}

func TestPortInUseNamesTheHolder(t *testing.T) {
	b := newFake(t, "exit 9")
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", b.static.Ports["PLAIN"]))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // of no consequence in a test
	b.start()
	b.wantFailure(ExitHost, ReasonPortInUse, fmt.Sprint(b.static.Ports["PLAIN"]), "listener PLAIN", fmt.Sprintf("process %d", os.Getpid()))
}

func TestMissingNodeFile(t *testing.T) {
	b := newFake(t, "exit 9")
	b.config.Dir = t.TempDir()
	if code := Run(t.Context(), b.config); code != ExitFiles {
		t.Errorf("ended with %d, want %d", code, ExitFiles)
	}
}

// An emptied folder is asked about although the node's cluster is known, each run with
// another nonce, and an answer to any other nonce is never used.
func TestEmptiedFolderAsks(t *testing.T) {
	b := newFake(t, "touch started; exit 9")
	if err := os.RemoveAll(b.static.Volumes[0].Path); err != nil {
		t.Fatal(err)
	}
	b.start()
	first := b.untilAsking()
	if first.Reason != ReasonWaitingForStorage || first.Ready {
		t.Errorf("asks with %+v", first)
	}
	b.stop()
	if code := b.code(10 * time.Second); code != 0 {
		t.Errorf("stopped while asking: code %d", code)
	}

	b.answer(first.Nonce) // too late
	b.start()
	second := b.untilAsking()
	if second.Nonce == first.Nonce {
		t.Fatal("asks with the nonce of the last run")
	}
	// The disk is looked at again only some seconds later, and after a good answer.
	for range 3 {
		b.write(layout.LiveFile, b.live)
		if got := b.report(); got.State != api.NodeAsking || got.Nonce != second.Nonce {
			t.Fatalf("after an answer to another nonce: %+v", got)
		}
	}
	if len(b.disk()) != 0 {
		t.Errorf("something was formatted: %v", b.disk())
	}
	b.live.Storage.Nonce, b.live.Storage.Answer = second.Nonce, api.StorageAdopt
	b.write(layout.LiveFile, b.live)
	b.wantFailure(ExitData, ReasonAnswerRefused, "Adopt", "volumes data are empty")
	if _, err := os.Stat(filepath.Join(b.dir, "started")); err == nil {
		t.Error("Kafka was started")
	}
}

// While a question is open the disk may come back: then the question is void.
func TestDiskAppearsWhileAsking(t *testing.T) {
	b := newFake(t, "exit 9")
	b.live.ClusterID = ""
	if err := os.RemoveAll(b.static.Volumes[0].Path); err != nil {
		t.Fatal(err)
	}
	b.start()
	asked := b.untilAsking()
	b.formatted(otherCluster, 1)
	b.answer(asked.Nonce)
	b.wantFailure(ExitData, ReasonClusterIDMismatch, otherCluster)
}

// Without a known cluster even a formatted disk waits for the plan, which may adopt it.
func TestAdopt(t *testing.T) {
	b := newFake(t, "echo adopted; exit 7")
	b.live.ClusterID = ""
	b.start()
	asked := b.untilAsking()
	if v := asked.Volumes[0]; v.State != api.VolumeFormatted || v.ClusterID != thisCluster || *v.NodeID != 1 || v.DirectoryID != directoryID {
		t.Errorf("found %+v", v)
	}
	b.live.ClusterID, b.live.Storage = thisCluster, &api.StorageAnswer{Nonce: asked.Nonce, Answer: api.StorageAdopt}
	b.write(layout.LiveFile, b.live)
	b.wantFailure(7, ReasonKafkaExited, "code 7")
	if got := b.termination().LogTail; !strings.Contains(got, "adopted") {
		t.Errorf("the log tail is %q", got)
	}
}

// A format tool that does something else than it was asked to puts nothing in place.
func TestFormatIsVerified(t *testing.T) {
	const lies = `for a; do case $last in --config) dir=$(sed -n 's/^metadata.log.dir=//p' "$a");; esac; last=$a; done
printf 'version=1\ncluster.id=` + otherCluster + `\nnode.id=1\ndirectory.id=x\n' > "$dir/meta.properties"`
	for reason, tt := range map[string]struct{ script, says string }{
		"another cluster id": {lies, otherCluster},
		"nothing":            {"exit 0", "meta.properties"},
		"failure":            {"echo no luck; exit 1", "no luck"},
	} {
		t.Run(reason, func(t *testing.T) {
			b := newFake(t, tt.script)
			if err := os.RemoveAll(b.static.Volumes[0].Path); err != nil {
				t.Fatal(err)
			}
			b.start()
			b.answer(b.untilAsking().Nonce)
			b.wantFailure(ExitStorage, ReasonFormatFailed, tt.says, "nothing was put in place")
			if _, err := os.Stat(layout.DataDir(b.static.Volumes[0])); !os.IsNotExist(err) {
				t.Errorf("a log directory stands: %v", err)
			}
			if got := inspect(b.static.Volumes)[0]; got.State != api.VolumeEmpty {
				t.Errorf("what is left is not empty: %+v", got)
			}
		})
	}
}

// A start that was killed between two moves goes on with them; folders that are no longer
// what the journal says stay where they are.
func TestCutOffFormatIsFinished(t *testing.T) {
	b := newFake(t, "exit 7")
	data := layout.DataDir(b.static.Volumes[0])
	if err := os.Rename(data, data+formatting); err != nil {
		t.Fatal(err)
	}
	mkdir(t, data) // what is left of a Kafka that ran once
	replace(t, filepath.Join(data, ".lock"), "")
	b.write(journalFile, journal{ClusterID: thisCluster, NodeID: 1, Moves: []move{{From: data + formatting, To: data}}})
	b.start()
	b.wantFailure(7, ReasonKafkaExited)
	if got := inspect(b.static.Volumes)[0]; got.State != api.VolumeFormatted {
		t.Errorf("after the start: %+v", got)
	}
	if _, err := os.Stat(filepath.Join(b.dir, journalFile)); !os.IsNotExist(err) {
		t.Errorf("the journal is still there: %v", err)
	}

	for reason, j := range map[string]journal{
		"another node":    {ClusterID: thisCluster, NodeID: 2},
		"another cluster": {ClusterID: otherCluster, NodeID: 1},
	} {
		if err := os.Rename(data, data+formatting); err != nil {
			t.Fatal(err)
		}
		j.Moves = []move{{From: data + formatting, To: data}}
		b.write(journalFile, j)
		b.start()
		b.untilAsking()
		b.stop()
		b.code(10 * time.Second)
		if got := inspect(b.static.Volumes)[0]; got.State != api.VolumeEmpty {
			t.Errorf("a journal of %s: %+v", reason, got)
		}
		if err := os.Rename(data+formatting, data); err != nil {
			t.Fatal(err)
		}
	}
}

// A virtual machine that ignores SIGTERM is killed after the grace, and that is said.
func TestStopIsBounded(t *testing.T) {
	b := newFake(t, "trap '' TERM; touch started; while :; do sleep 0.05; done")
	b.config.StopGrace = 300 * time.Millisecond
	b.start()
	b.until("start", 10*time.Second, func(r layout.Report) bool {
		_, err := os.Stat(filepath.Join(b.dir, "started"))
		return r.PID != 0 && err == nil
	})
	b.stop()
	b.wantFailure(137, ReasonStopTimeout, "300ms", "killed")
}

func TestKilledKafkaIsNamed(t *testing.T) {
	b := newFake(t, "kill -9 $$")
	b.start()
	b.wantFailure(137, ReasonKilled, "SIGKILL")
}

func TestWaitsForCertificates(t *testing.T) {
	b := newFake(t, "exit 7")
	pem := filepath.Join(b.dir, layout.TLSDir, layout.KeyNodePEM)
	if err := os.Remove(pem); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.until("wait", 10*time.Second, func(r layout.Report) bool { return r.Reason == ReasonWaitingForCertificates })
	foreign, _ := newAuthority(t).leaf(t, "castellan-node-1", 5)
	replace(t, pem, foreign)
	b.until("refusal", 10*time.Second, func(r layout.Report) bool { return strings.Contains(r.Message, "not valid by ca.pem") })
	b.certify(2)
	b.wantFailure(7, ReasonKafkaExited)
}

// The environment must not bring options past those that were checked.
func TestEnvironmentBringsNoOptions(t *testing.T) {
	b := newFake(t, `env; exit 7`)
	b.config.Env = append(b.config.Env, "JAVA_TOOL_OPTIONS=-javaagent:x", "_JAVA_OPTIONS=-Dx", "JDK_JAVA_OPTIONS=@x", "LANG=C")
	b.start()
	b.wantFailure(7, ReasonKafkaExited)
	tail := b.termination().LogTail
	if strings.Contains(tail, "JAVA_") {
		t.Errorf("the virtual machine saw %s", tail)
	}
}

func TestDescribe(t *testing.T) {
	for _, tt := range []struct {
		reason string
		end    ending
		want   string
		says   string
	}{
		{"out of memory", ending{code: 3, console: []string{"Terminating due to java.lang.OutOfMemoryError: Java heap space"}}, ReasonOutOfMemory, "jvm.heap"},
		{"bad option", ending{code: 1, console: []string{"Unrecognized VM option 'Foo'"}}, ReasonBadConfig, "'Foo'"},
		{"bad key", ending{code: 1, server: []string{"x", "org.apache.kafka.common.config.ConfigException: Invalid value none"}}, ReasonBadConfig, "Invalid value none"},
		{"port lost in a race", ending{code: 1, server: []string{"Caused by: java.net.BindException: Address already in use"}}, ReasonPortInUse, "ss -ltnp"},
		{"disk full", ending{code: 1, server: []string{"java.io.IOException: No space left on device"}}, ReasonDiskFull, "enlarge"},
		{"all disks", ending{code: 1, server: []string{"Shutdown broker because all log dirs in /x have failed"}}, ReasonDisksFailed, "check the disks"},
		{"crash of the JVM", ending{code: 134}, ReasonKilled, "signal 6"},
		{"nobody knows", ending{code: 5}, ReasonKafkaExited, "code 5"},
		{"thrown", ending{code: 1, server: []string{"[t] ERROR Exiting (kafka.Kafka$)", "java.lang.ClassNotFoundException: com.example.Missing", "\tat java.base/java.lang.Class.forName(Class.java:1)", "[t] INFO unregistered"}}, ReasonKafkaExited, "code 1: java.lang.ClassNotFoundException: com.example.Missing ("},
		{"cause of what was thrown", ending{code: 1, server: []string{"a.b.KafkaException: x", "\tat a.b.C.d(E.java:1)", "Caused by: a.b.SecretError: y", "\t... 3 more"}}, ReasonKafkaExited, "code 1: a.b.SecretError: y ("},
		{"asked", ending{code: 143, asked: true, server: []string{"ConfigException"}}, ReasonStopped, "asked"},
	} {
		got := describe(tt.end)
		if got.Reason != tt.want || !strings.Contains(got.Message, tt.says) || got.Code != int32(tt.end.code) {
			t.Errorf("%s: %+v, want %s with %q", tt.reason, got, tt.want, tt.says)
		}
	}
}

func TestTailIsBounded(t *testing.T) {
	var lines []string
	for i := range 5000 {
		lines = append(lines, fmt.Sprint(i, strings.Repeat("ü", 400)))
	}
	got := tail(ending{server: lines, console: lines})
	if len(got) > maxTail+8 || !strings.Contains(got, "4999") {
		t.Errorf("the tail has %d bytes", len(got))
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
}

func TestConsoleIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "console.log")
	c, err := openConsole(file)
	if err != nil {
		t.Fatal(err)
	}
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 5000 {
		if n, err := c.Write(line); n != len(line) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{file, file + ".1"} {
		if info, err := os.Stat(f); err != nil || info.Size() > maxConsole || info.Size() == 0 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
}

func TestLogRecoveryIsSeen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "server.log")
	replace(t, file, "[old] INFO Loading logs from log dirs List(/x) (LogManager)\n")
	l := readLog(file)
	if reason, _ := l.progress(); reason != ReasonStarting {
		t.Errorf("an earlier start counts: %s", reason)
	}
	add := func(text string) {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() //nolint:errcheck // of no consequence in a test
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	add("INFO Loading logs from log dirs List(/x) (LogManager)\nINFO Recovering unflushed segment 0 of orders-0. 1/2 ")
	if reason, message := l.progress(); reason != ReasonLogRecovery || !strings.Contains(message, "must not be ended") {
		t.Errorf("loading: %s %s", reason, message)
	}
	add("(UnifiedLog)\n")
	if reason, message := l.progress(); reason != ReasonLogRecovery || !strings.Contains(message, "orders-0") {
		t.Errorf("recovering: %s %s", reason, message)
	}
	add("[x] INFO Loaded 3 logs in 70ms (LogManager)\n")
	if reason, _ := l.progress(); reason != ReasonStarting {
		t.Errorf("loaded: %s", reason)
	}
}
