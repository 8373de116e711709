package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/test/e2e/stand"
)

const kept = "kept"

// write makes a topic of one partition and fills it with Castellan's own commands; read reads it with them.
func write(t *testing.T, s *stand.Stand, topic, lines string) {
	t.Helper()
	s.Must("topics", "create", topic, "--partitions", "1", "--cluster", s.Key().Name)
	if out := s.Run(time.Minute, lines, "produce", topic, "--cluster", s.Key().Name); out.Code != 0 {
		t.Fatalf("castellan produce: %s", out)
	}
}

func read(s *stand.Stand, topic string) string {
	return s.Must("consume", topic, "--from", "beginning", "--until-end", "--cluster", s.Key().Name)
}

// downAndUpKeepTheData also looks that down leaves no process behind.
func downAndUpKeepTheData(t *testing.T, s *stand.Stand) {
	t.Helper()
	lines := string(numbered(kept, 1000))
	write(t, s, kept, lines)
	id := s.Cluster().Status.ClusterID
	began := time.Now()
	s.Must("down")
	t.Logf("down took %s", time.Since(began).Round(time.Millisecond))
	for name, pid := range pids(s) {
		if pid != 0 {
			t.Errorf("%s still runs after down as process %d", name, pid)
		}
	}
	s.Up()
	s.WaitReady()
	stillThere(t, s, id, lines)
}

func stillThere(t *testing.T, s *stand.Stand, id, lines string) {
	t.Helper()
	if got := s.Cluster().Status.ClusterID; got != id {
		t.Errorf("cluster id: got %s, want %s as before", got, id)
	}
	same(t, "records of "+kept, []byte(lines), []byte(read(s, kept)))
}

// deletedClusterIsAdopted deletes the KafkaCluster, sees that nothing of it runs and all of its data stays, and applies
// it again.
func deletedClusterIsAdopted(t *testing.T, s *stand.Stand) {
	t.Helper()
	id := s.Cluster().Status.ClusterID
	volumes := volumePaths(s)
	began := time.Now()
	s.Must("delete", "kafkacluster", s.Key().Name)
	t.Logf("delete took %s", time.Since(began).Round(time.Millisecond))
	if left := kafkaPIDs(s); len(left) > 0 {
		t.Errorf("still running after the KafkaCluster was deleted: %v", left)
	}
	for _, volume := range volumes {
		if !exists(t, filepath.Join(volume, "kafka-logs", "meta.properties")) {
			t.Errorf("the data in %s is gone", volume)
		}
	}
	s.Apply(stand.Combined(version, 3))
	t.Logf("apply to Ready took %s", s.WaitReady().Round(time.Millisecond))
	if got := volumePaths(s); !slices.Equal(got, volumes) {
		t.Errorf("volumes: got %v, want %v as before", got, volumes)
	}
	stillThere(t, s, id, string(numbered(kept, 1000)))
}

// deletionRemovesItsOwn puts files of somebody else beside the volumes, at each level.
func deletionRemovesItsOwn(t *testing.T, s *stand.Stand) {
	t.Helper()
	volumes := volumePaths(s)
	var foreign []string
	for dir := filepath.Dir(volumes[0]); len(dir) >= len(s.Dir().DataRoot()); dir = filepath.Dir(dir) {
		foreign = append(foreign, filepath.Join(dir, "foreign.txt"))
	}
	for _, file := range foreign {
		if err := os.WriteFile(file, []byte("not Castellan's"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Apply(stand.Combined(version, 3) + "  deletionPolicy: Delete\n")
	s.WaitReady()
	s.Must("delete", "kafkacluster", s.Key().Name)

	if left := kafkaPIDs(s); len(left) > 0 {
		t.Errorf("still running after the KafkaCluster was deleted: %v", left)
	}
	for _, volume := range volumes {
		if exists(t, volume) {
			t.Errorf("%s is still there", volume)
		}
	}
	for _, file := range foreign {
		if text, err := os.ReadFile(file); err != nil || string(text) != "not Castellan's" {
			t.Errorf("a foreign file was touched: %q, %v", text, err)
		}
	}
	nothingOfTheClusterIsLeft(t, s)
}

func nothingOfTheClusterIsLeft(t *testing.T, s *stand.Stand) {
	t.Helper()
	for _, list := range []client.ObjectList{&api.KafkaNodeList{}, &api.ClusterRevisionList{}, &api.HostProcessList{}} {
		if err := s.Client().List(t.Context(), list); err != nil {
			t.Fatal(err)
		}
		if left := names(t, list); len(left) > 0 {
			t.Errorf("%T: %v are still there", list, left)
		}
	}
	var secrets corev1.SecretList
	if err := s.Client().List(t.Context(), &secrets); err != nil {
		t.Fatal(err)
	}
	for _, name := range names(t, &secrets) {
		if strings.Contains(name, "/"+s.Key().Name+"-") {
			t.Errorf("Secret %s is still there", name)
		}
	}
}

func volumePaths(s *stand.Stand) []string {
	var paths []string
	for _, n := range s.Nodes() {
		for _, v := range n.Spec.Volumes {
			paths = append(paths, v.Path)
		}
	}
	return paths
}

func exists(t *testing.T, file string) bool {
	t.Helper()
	_, err := os.Stat(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}
