package e2e

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/test/e2e/stand"
)

const records = 100_000

// numbered is so many lines, none like another, of lengths from 20 to 219.
func numbered(name string, lines int) []byte {
	var b bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&b, "%s %08d %s\n", name, i, strings.Repeat("x", i%200))
	}
	return b.Bytes()
}

// recordsComeBack writes with Kafka's own console producer and with kcat and reads each with both.
func recordsComeBack(t *testing.T, s *stand.Stand) {
	t.Helper()
	bootstrap := s.Bootstrap("plain")
	ours := numbered("console", records)
	s.Must("topics", "create", "console", "--partitions", "1")
	s.KafkaTool(version, bytes.NewReader(ours), "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", bootstrap, "--topic", "console",
		"--command-property", "acks=all")
	same(t, "console producer to console consumer", ours, []byte(consoleConsumer(s, bootstrap, "console")))
	same(t, "console producer to kcat", ours, []byte(kcatConsumer(s, bootstrap, "console")))

	theirs := numbered("kcat", records)
	s.Must("topics", "create", "kcat", "--partitions", "6")
	s.Kcat(bytes.NewReader(theirs), "-P", "-b", bootstrap, "-t", "kcat", "-X", "acks=all")
	// Six partitions keep no order among themselves.
	same(t, "kcat to kcat", theirs, sorted(kcatConsumer(s, bootstrap, "kcat")))
	same(t, "kcat to console consumer", theirs, sorted(consoleConsumer(s, bootstrap, "kcat")))
}

func consoleConsumer(s *stand.Stand, bootstrap, topic string) string {
	return s.KafkaTool(version, nil, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", bootstrap, "--topic", topic,
		"--from-beginning", "--max-messages", fmt.Sprint(records), "--timeout-ms", "60000")
}

func kcatConsumer(s *stand.Stand, bootstrap, topic string) string {
	return s.Kcat(nil, "-C", "-q", "-e", "-b", bootstrap, "-t", topic, "-o", "beginning")
}

func sorted(text string) []byte {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return []byte(strings.Join(lines, ""))
}

// same compares without printing megabytes.
func same(t *testing.T, what string, want, got []byte) {
	t.Helper()
	if bytes.Equal(want, got) {
		return
	}
	wantLines, gotLines := bytes.Split(want, []byte("\n")), bytes.Split(got, []byte("\n"))
	for i := range min(len(wantLines), len(gotLines)) {
		if !bytes.Equal(wantLines[i], gotLines[i]) {
			t.Errorf("%s: %d lines instead of %d, and line %d is %q instead of %q", what, len(gotLines), len(wantLines), i, gotLines[i], wantLines[i])
			return
		}
	}
	t.Errorf("%s: %d lines instead of %d", what, len(gotLines), len(wantLines))
}

// upAgainChangesNothing compares every object of ours and every process before and after.
func upAgainChangesNothing(t *testing.T, s *stand.Stand) {
	t.Helper()
	before, processes := versions(t, s), pids(s)
	s.Up()
	if diff := cmp.Diff(before, versions(t, s)); diff != "" {
		t.Errorf("objects changed (- before, + after):\n%s", diff)
	}
	if diff := cmp.Diff(processes, pids(s)); diff != "" {
		t.Errorf("processes changed (- before, + after):\n%s", diff)
	}
}

// versions are the resourceVersion and generation of everything that Castellan writes, but for Leases.
func versions(t *testing.T, s *stand.Stand) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, list := range []client.ObjectList{
		&api.KafkaClusterList{}, &api.KafkaNodeList{}, &api.ClusterRevisionList{}, &api.HostList{}, &api.HostProcessList{},
		&api.PackageList{}, &corev1.SecretList{}, &corev1.NamespaceList{}, &corev1.ConfigMapList{}, &corev1.ServiceAccountList{},
	} {
		if err := s.Client().List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		for _, o := range items(t, list) {
			name := fmt.Sprintf("%T %s", o, client.ObjectKeyFromObject(o))
			all[name] = fmt.Sprintf("resourceVersion %s generation %d", o.GetResourceVersion(), o.GetGeneration())
		}
	}
	return all
}

func items(t *testing.T, list client.ObjectList) []client.Object {
	t.Helper()
	var all []client.Object
	err := meta.EachListItem(list, func(item runtime.Object) error {
		all = append(all, item.(client.Object))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// names of the objects of a list, as namespace/name.
func names(t *testing.T, list client.ObjectList) []string {
	t.Helper()
	var all []string
	for _, o := range items(t, list) {
		all = append(all, client.ObjectKeyFromObject(o).String())
	}
	return all
}

// pids of everything that runs on a stand.
func pids(s *stand.Stand) map[string]int {
	all := map[string]int{}
	for _, name := range []string{stand.Server, stand.ControlPlane, stand.Operator, stand.Agent} {
		all[name] = s.PID(name)
	}
	maps.Copy(all, named("supervisor", s.SupervisorPIDs()))
	maps.Copy(all, named("JVM", s.JVMPIDs()))
	return all
}

func named(what string, pids map[int32]int) map[string]int {
	all := map[string]int{}
	for id, pid := range pids {
		all[fmt.Sprintf("%s of node %d", what, id)] = pid
	}
	return all
}

// kafkaPIDs are the supervisors and JVMs alone.
func kafkaPIDs(s *stand.Stand) map[string]int {
	all := pids(s)
	for _, name := range []string{stand.Server, stand.ControlPlane, stand.Operator, stand.Agent} {
		delete(all, name)
	}
	return all
}
