package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/packages"
	"castellan.dev/castellan/test/e2e/stand"
)

// TestOneNode tells what goes wrong on a machine and with specs, on the smallest cluster.
func TestOneNode(t *testing.T) {
	privateCache(t)
	s := stand.New(t, stand.Options{Cluster: stand.Combined(version, 1), Down: true})
	for _, story := range []struct {
		name string
		tell func(*testing.T, *stand.Stand)
	}{
		{"no Java, or one too old", withoutJava},
		{"a package with a flipped byte", flippedByte},
		{"apply after up meets no conflict", applyAfterUpMeetsNoConflict},
		{"bad specs are refused", badSpecsAreRefused},
		{"unwise specs are warned of", unwiseSpecsWarn},
		{"bad specs are not accepted without admission", badSpecsAreNotAccepted},
		{"a port is taken", portTaken},
		{"a data folder of another cluster", foreignData},
	} {
		if !t.Run(story.name, func(t *testing.T) { story.tell(t, s.For(t)) }) {
			return // what follows would only say it again
		}
	}
}

// privateCache gives this test a package store of its own with Kafka in it, which it may damage.
func privateCache(t *testing.T) {
	t.Helper()
	shared, err := packages.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := packages.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := catalog.Find("Kafka", version)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&packages.Store{Dir: shared}).Provide(t.Context(), spec, nil); err != nil {
		t.Fatalf("get Kafka %s: %v", version, err)
	}
	cache := t.TempDir()
	t.Setenv(packages.CacheDirEnv, cache)
	own, err := packages.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	spec.Sources = []packages.Source{{Cache: shared}}
	if _, err := (&packages.Store{Dir: own}).Provide(t.Context(), spec, nil); err != nil {
		t.Fatalf("copy Kafka %s from the shared store: %v", version, err)
	}
}

func withoutJava(t *testing.T, s *stand.Stand) {
	t.Helper()
	old := filepath.Join(t.TempDir(), "bin", "java")
	if err := os.MkdirAll(filepath.Dir(old), 0o700); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho 'openjdk version \"11.0.25\" 2024-10-15' >&2\n"
	if err := os.WriteFile(old, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, javaHome string
		says           []string
	}{
		{"none", t.TempDir(), []string{"no Java", "install a JDK or JRE 17 or newer", "JAVA_HOME"}},
		{"too old", filepath.Dir(filepath.Dir(old)), []string{"is Java 11, too old", "install a JDK or JRE 17 or newer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("JAVA_HOME", c.javaHome)
			out := s.For(t).TryUp()
			if out.Code == 0 {
				t.Fatalf("castellan up: %s", out)
			}
			for _, text := range c.says {
				if !strings.Contains(out.Stderr, text) {
					t.Errorf("up does not say %q: %s", text, out.Stderr)
				}
			}
		})
	}
	if pid := s.PID(stand.Server); pid != 0 {
		t.Errorf("the server runs (pid %d)", pid)
	}
	if made := metaFiles(t, s); len(made) > 0 || exists(t, s.Dir().ControlPlaneDir()) {
		t.Errorf("made for nothing: %s, or the control plane's data", made)
	}
}

// flippedByte damages one jar of the unpacked package before Kafka is first started from it.
func flippedByte(t *testing.T, s *stand.Stand) {
	t.Helper()
	cache, err := packages.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	jars, err := filepath.Glob(filepath.Join(cache, "unpacked", "*", "files", "*", "libs", "kafka-clients-*.jar"))
	if err != nil || len(jars) != 1 {
		t.Fatalf("Kafka's jar in the private store: %v, %v", jars, err)
	}
	intact := fileOf(t, jars[0])
	flipped := slices.Clone(intact)
	flipped[len(flipped)/2] ^= 1
	replace(t, jars[0], flipped)

	out := s.TryUp()
	if out.Code != 0 {
		t.Fatalf("castellan up: %s", out)
	}
	for _, text := range []string{"is damaged", filepath.Base(jars[0]), "it was replaced"} {
		if !strings.Contains(out.Stdout+out.Stderr, text) {
			t.Errorf("up does not say %q: %s", text, out)
		}
	}
	if !bytes.Equal(fileOf(t, jars[0]), intact) {
		t.Error("Kafka runs with the flipped byte")
	}
}

// portTaken takes the client listener's port while the cluster is down.
func portTaken(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Must("topics", "create", "kept", "--partitions", "1")
	if out := s.Run(time.Minute, "one\ntwo\n", "produce", "kept"); out.Code != 0 {
		t.Fatal(out)
	}
	node := s.Nodes()[0]
	port := node.Spec.Ports["plain"]
	s.Must("down")
	thief, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		t.Fatalf("take port %d of %v: %v", port, node.Spec.Ports, err)
	}
	says := []string{fmt.Sprintf("port %d of listener PLAIN", port), fmt.Sprintf("process %d (", os.Getpid()), "end that"}
	out := s.TryUp()
	if out.Code == 0 {
		t.Errorf("castellan up with port %d taken: %s", port, out)
	}
	for _, text := range says {
		if !strings.Contains(out.Stderr, text) {
			t.Errorf("up does not say %q: %s", text, out.Stderr)
		}
	}
	if now := s.Nodes()[0]; now.Status.Reason != "PortInUse" || gocmp.Diff(node.Spec.Ports, now.Spec.Ports) != "" {
		t.Errorf("node %d: %s, ports %v", now.Spec.NodeID, now.Status.Reason, now.Spec.Ports)
	}
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	s.WaitReady() // by itself
	recordsKept(t, s)
}

func recordsKept(t *testing.T, s *stand.Stand) {
	t.Helper()
	if got := s.Must("consume", "kept", "--from", "beginning", "--until-end"); got != "one\ntwo\n" {
		t.Errorf("topic kept holds %q", got)
	}
}

// foreignData puts the data of another cluster where the node's own was.
func foreignData(t *testing.T, s *stand.Stand) {
	t.Helper()
	s.Must("down")
	files := metaFiles(t, s)
	if len(files) != 1 {
		t.Fatalf("formatted folders: %v", files)
	}
	own := fileOf(t, files[0])
	id := clusterID(t, own)
	foreign := bytes.ReplaceAll(own, []byte(id), []byte("Zm9yZWlnbi1jbHVzdGVyIQ"))
	replace(t, files[0], foreign)
	before := listing(t, filepath.Dir(files[0]))
	out := s.TryUp()
	if out.Code == 0 {
		t.Errorf("castellan up on foreign data: %s", out)
	}
	for _, text := range []string{"belongs to Kafka cluster Zm9yZWlnbi1jbHVzdGVyIQ", "this node to " + id, "move the folder away", "nothing was touched"} {
		if !strings.Contains(out.Stderr, text) {
			t.Errorf("up does not say %q: %s", text, out.Stderr)
		}
	}
	if diff := gocmp.Diff(before, listing(t, filepath.Dir(files[0]))); diff != "" {
		t.Errorf("the foreign data changed (- before, + after):\n%s", diff)
	}
	stalled := meta.FindStatusCondition(s.Cluster().Status.Conditions, api.ConditionStalled)
	if stalled == nil || !strings.Contains(stalled.Message, "Zm9yZWlnbi1jbHVzdGVyIQ") {
		t.Errorf("condition Stalled: %+v", stalled)
	}
	replace(t, files[0], own)
	s.WaitReady() // by itself
	recordsKept(t, s)
}

// metaFiles are the meta.properties of the stand's data: one per formatted folder.
func metaFiles(t *testing.T, s *stand.Stand) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Dir().DataRoot(), "*", "*", "*", "*", layout.LogFolder, "meta.properties"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// clusterID reads meta.properties.
func clusterID(t *testing.T, meta []byte) string {
	t.Helper()
	for line := range strings.Lines(string(meta)) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "cluster.id="); ok {
			return id
		}
	}
	t.Fatalf("no cluster id in %s", meta)
	return ""
}

// listing is every file of a folder with its size and time.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			all = append(all, fmt.Sprintf("%s %d %s", path, info.Size(), info.ModTime()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func fileOf(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// replace keeps a file's owner and mode.
func replace(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDiskFull tells what happens when the data's disk fills up, on a file system of its own that really is small.
func TestDiskFull(t *testing.T) {
	s := stand.New(t, stand.Options{Cluster: stand.Combined(version, 1), Down: true, DataSize: 400 << 20})
	s.Up()
	s.Must("topics", "create", "kept", "--partitions", "1")
	if out := s.Run(time.Minute, "one\ntwo\n", "produce", "kept"); out.Code != 0 {
		t.Fatal(out)
	}
	node := s.Nodes()[0].Spec.NodeID
	filler := filepath.Join(s.DataSeen(), "filler")
	s.Kill(s.JVMPIDs()[node])
	fill(t, filler)
	s.Eventually("the node says that its disk is full", time.Minute, func(context.Context) error {
		status := s.Node(node).Status
		if status.Ready || status.Reason != "DiskFull" || !strings.Contains(status.Message, "free space there or enlarge the disk") {
			return fmt.Errorf("ready %t, %s: %s", status.Ready, status.Reason, status.Message)
		}
		return nil
	})
	s.Eventually("the cluster says so too", time.Minute, func(context.Context) error {
		c := meta.FindStatusCondition(s.Cluster().Status.Conditions, api.ConditionStalled)
		if c == nil || !strings.Contains(c.Message, "free space there") {
			return fmt.Errorf("condition Stalled: %+v", c)
		}
		return nil
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.WaitReady() // by itself
	recordsKept(t, s)
}

// fill writes until the disk is full.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("fill the disk: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
