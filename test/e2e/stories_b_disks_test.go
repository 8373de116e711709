package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
	"castellan.dev/castellan/test/e2e/stand"
)

// pureBroker is the one node of disksCluster that is no controller.
const pureBroker int32 = 100

// disksCluster has three combined nodes and a broker; extra are lines of the broker's pool.
func disksCluster(extra string) string {
	yaml := stand.Mixed(version, 3, 1)
	return strings.Replace(yaml, "    firstNodeID: 100\n", "    firstNodeID: 100\n"+extra, 1)
}

// TestLostDisks tells what becomes of nodes whose data folder was emptied, and of one that cannot start: nothing is taken
// for what it is not, nothing acknowledged is lost, and there is never a second cluster.
func TestLostDisks(t *testing.T) {
	s := stand.New(t, stand.Options{Cluster: disksCluster("")})
	for _, story := range []struct {
		name string
		tell func(*testing.T, *stand.Stand)
	}{
		{"an emptied broker is replaced", emptiedBroker},
		{"an emptied controller votes under a new directory", emptiedController},
		{"a fix reaches a broker that cannot start", fixReachesBrokenBroker},
		{"all emptied at once are no new cluster", allEmptied},
	} {
		if !t.Run(story.name, func(t *testing.T) { story.tell(t, s.For(t)) }) {
			return // what follows would only say it again
		}
	}
}

// emptiedBroker also proves who decides: while the cluster is paused no plan answers, and nothing is formatted.
func emptiedBroker(t *testing.T, s *stand.Stand) {
	t.Helper()
	traffic := s.StartTraffic("broker", 6)
	old := s.Node(pureBroker).Status.Volumes[0].DirectoryID
	s.Apply(disksCluster("") + "  paused: true\n")
	s.Eventually("the cluster is paused", time.Minute, conditionSays(s, api.ConditionReconciling, "spec.paused"))
	lost := emptyNodes(t, s, pureBroker)
	s.Eventually("the broker asks", time.Minute, asks(s, pureBroker))
	s.Throughout("nothing is formatted without an answer", 10*time.Second, func(context.Context) error {
		if entries := folder(t, lost[pureBroker].data); len(entries) > 0 {
			return fmt.Errorf("%s holds %v", lost[pureBroker].data, entries)
		}
		return asks(s, pureBroker)(t.Context())
	})
	s.Apply(disksCluster(""))
	s.WaitReady()
	s.Eventually("everything is replicated again", 2*time.Minute, s.InSync())
	node := s.Node(pureBroker)
	if v := node.Status.Volumes[0]; v.DirectoryID == old || v.State != api.VolumeFormatted {
		t.Errorf("volume %+v, its directory was %s", v, old)
	}
	if a := node.Spec.Storage; a == nil || a.Answer != api.StorageJoin {
		t.Errorf("the plan answered %+v", a)
	}
	traffic.End()
}

// emptiedController empties the active controller, the hardest one to lose.
func emptiedController(t *testing.T, s *stand.Stand) {
	t.Helper()
	traffic := s.StartTraffic("controller", 6)
	victim := activeController(t, s)
	old := s.Node(victim).Status.Volumes[0].DirectoryID
	quorum := watchQuorum(s, victim)
	emptyNodes(t, s, victim)
	s.Eventually("the lost directory votes no more", 2*time.Minute, func(ctx context.Context) error {
		seen, err := s.Observe(ctx)
		if err != nil {
			return err
		}
		if v := voterOf(seen, victim); v != nil && v.DirectoryID == old {
			return fmt.Errorf("voters %+v", seen.Quorum.Voters)
		}
		return nil
	})
	s.Eventually("the new directory votes", 3*time.Minute, func(ctx context.Context) error {
		seen, err := s.Observe(ctx)
		if err != nil {
			return err
		}
		v, now := voterOf(seen, victim), s.Node(victim).Status
		if v == nil || len(now.Volumes) == 0 || v.DirectoryID == old || v.DirectoryID != now.Volumes[0].DirectoryID {
			return fmt.Errorf("voters %+v, volumes %+v", seen.Quorum.Voters, now.Volumes)
		}
		return nil
	})
	s.WaitReady()
	s.Eventually("everything is replicated again", 2*time.Minute, s.InSync())
	for _, wrong := range quorum.end() {
		t.Error(wrong)
	}
	traffic.End()
}

// fixReachesBrokenBroker gives a broker a configuration that only its start refuses, takes its partitions under min
// ISR, and then takes the mistake back.
func fixReachesBrokenBroker(t *testing.T, s *stand.Stand) {
	t.Helper()
	traffic := s.StartTraffic("broken", 6)
	s.Must("topics", "create", "strict", "--partitions", "8", "--replicas", "3")
	s.Apply(disksCluster("    overrides: [{nodeID: 100, config: {replica.selector.class: com.example.Missing}}]\n"))
	s.Eventually("the broker fails on it again and again", 2*time.Minute, func(context.Context) error {
		status := s.Node(pureBroker).Status
		if status.Ready || status.Restarts < 2 || !strings.Contains(status.Message, "com.example.Missing") {
			return fmt.Errorf("ready %t, %d restarts, %s: %s", status.Ready, status.Restarts, status.Reason, status.Message)
		}
		return nil
	})
	s.KafkaTool(version, nil, "kafka.admin.ConfigCommand", "--bootstrap-server", s.Bootstrap("plain"), "--alter", "--topic", "strict", "--add-config", "min.insync.replicas=3")
	s.Eventually("its partitions are under min ISR", time.Minute, conditionIs(s, api.ConditionAvailable, metav1.ConditionFalse))
	before := s.JVMPIDs()
	s.Apply(disksCluster(""))
	s.WaitReady()
	s.Eventually("everything is replicated again", 2*time.Minute, s.InSync())
	after := s.JVMPIDs()
	for id, pid := range before {
		if id != pureBroker && after[id] != pid {
			t.Errorf("node %d was restarted too", id)
		}
	}
	s.Must("topics", "delete", "strict")
	traffic.End()
}

// allEmptied loses every data folder at once. A new operator and a new `up` look at that as well; then the folders come
// back, and with them the cluster.
func allEmptied(t *testing.T, s *stand.Stand) {
	t.Helper()
	traffic := s.StartTraffic("all", 6)
	traffic.End()
	id := s.Cluster().Status.ClusterID
	ids := nodeIDs(s)
	lost := emptyNodes(t, s, ids...)
	stalled := conditionSays(s, api.ConditionStalled, "no second cluster is made in its place")
	s.Eventually("the cluster says that its metadata is lost", 2*time.Minute, stalled)
	killOperator(t, s, 0)
	s.Eventually("every node asks", time.Minute, asks(s, ids...))
	s.Throughout("no folder is formatted", 20*time.Second, func(context.Context) error {
		if made := metaFiles(t, s); len(made) > 0 {
			return fmt.Errorf("formatted: %v", made)
		}
		return nil
	})
	if err := stalled(t.Context()); err != nil {
		t.Error(err)
	}
	if c := meta.FindStatusCondition(s.Cluster().Status.Conditions, api.ConditionStalled); c != nil && c.Reason != "MetadataLost" {
		t.Errorf("stalled for %s", c.Reason)
	}
	for _, l := range lost {
		if err := os.RemoveAll(l.data); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(l.kept, l.data); err != nil {
			t.Fatal(err)
		}
	}
	s.Eventually("the data is back in use", 3*time.Minute, func(context.Context) error {
		if pids := s.JVMPIDs(); len(pids) != len(ids) {
			return fmt.Errorf("JVMs %v of nodes %v", pids, ids)
		}
		return nil
	})
	s.WaitReady()
	if now := s.Cluster().Status.ClusterID; now != id {
		t.Errorf("cluster %s became %s", id, now)
	}
	verdict, err := traffic.Writer.Verify(t.Context())
	if err != nil || len(verdict.Missing) > 0 {
		t.Errorf("%d of %d acknowledged records are lost, %v", len(verdict.Missing), verdict.Acknowledged, err)
	}
}

// lostFolder is a node's log directory, and where it was taken to.
type lostFolder struct{ data, kept string }

// emptyNodes takes the data folders of nodes away and kills their JVMs, all at once.
func emptyNodes(t *testing.T, s *stand.Stand, ids ...int32) map[int32]lostFolder {
	t.Helper()
	pids := s.JVMPIDs()
	lost := map[int32]lostFolder{}
	var kill []int
	for _, id := range ids {
		data := filepath.Join(s.Node(id).Spec.Volumes[0].Path, layout.LogFolder)
		lost[id] = lostFolder{data: data, kept: filepath.Join(t.TempDir(), layout.LogFolder)}
		kill = append(kill, pids[id])
	}
	for _, l := range lost {
		if err := os.Rename(l.data, l.kept); err != nil {
			t.Fatal(err)
		}
	}
	s.Kill(kill...)
	return lost
}

// asks is the fact that nodes wait for an answer and say so.
func asks(s *stand.Stand, ids ...int32) stand.Fact {
	return func(context.Context) error {
		for _, id := range ids {
			status := s.Node(id).Status
			if status.State != api.NodeAsking || status.Reason != "WaitingForStorage" || !strings.Contains(status.Message, "nothing is formatted until") {
				return fmt.Errorf("node %d: %s, %s: %s", id, status.State, status.Reason, status.Message)
			}
		}
		return nil
	}
}

func conditionSays(s *stand.Stand, kind, text string) stand.Fact {
	return func(context.Context) error {
		c := meta.FindStatusCondition(s.Cluster().Status.Conditions, kind)
		if c == nil || !strings.Contains(c.Message, text) {
			return fmt.Errorf("condition %s does not say %q: %+v", kind, text, c)
		}
		return nil
	}
}

func conditionIs(s *stand.Stand, kind string, status metav1.ConditionStatus) stand.Fact {
	return func(context.Context) error {
		c := meta.FindStatusCondition(s.Cluster().Status.Conditions, kind)
		if c == nil || c.Status != status {
			return fmt.Errorf("condition %s is not %s: %+v", kind, status, c)
		}
		return nil
	}
}

// folder lists a folder that need not exist.
func folder(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func voterOf(seen plan.Kafka, id int32) *plan.Replica {
	i := slices.IndexFunc(seen.Quorum.Voters, func(r plan.Replica) bool { return r.ID == id })
	if i < 0 {
		return nil
	}
	return &seen.Quorum.Voters[i]
}

// quorumWatch samples the quorum of which one voter is lost.
type quorumWatch struct {
	stop    context.CancelFunc
	ended   sync.WaitGroup
	samples int
	wrong   map[string]bool
}

func watchQuorum(s *stand.Stand, lost int32) *quorumWatch {
	ctx, stop := context.WithCancel(context.Background())
	q := &quorumWatch{stop: stop, wrong: map[string]bool{}}
	clients := kafka.NewClients(kafka.Options{Timeout: 5 * time.Second})
	cluster := clients.Cluster("quorum", s.BrokerTarget())
	q.ended.Go(func() {
		defer clients.Close()
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		epoch := int32(-1)
		for ctx.Err() == nil {
			if seen, err := cluster.Observe(ctx, plan.Ask{}); err == nil && seen.Known && seen.Quorum.Leader >= 0 {
				// A leader that was just elected has heard of nobody yet.
				q.judge(seen.Quorum, lost, seen.Quorum.LeaderEpoch == epoch)
				epoch = seen.Quorum.LeaderEpoch
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return q
}

// judge wants every other voter to stay one, and a majority of all voters to be caught up.
func (q *quorumWatch) judge(now plan.Quorum, lost int32, settled bool) {
	q.samples++
	others, caughtUp := 0, 0
	for _, v := range now.Voters {
		if v.ID != lost {
			others++
		}
		if v.ID == now.Leader || v.LastCaughtUp >= 0 && v.LastCaughtUp < 15*time.Second {
			caughtUp++
		}
	}
	if others != 2 || settled && caughtUp < len(now.Voters)/2+1 {
		q.wrong[fmt.Sprintf("the quorum was %+v", now)] = true
	}
}

// end stops the watch and returns what was wrong.
func (q *quorumWatch) end() []string {
	q.stop()
	q.ended.Wait()
	if q.samples == 0 {
		q.wrong["the quorum was never seen"] = true
	}
	return slices.Sorted(maps.Keys(q.wrong))
}
