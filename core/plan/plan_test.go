package plan_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/core/sim"
)

// group is some nodes of one kind for a test's Model.
type group struct {
	pool  string
	first int32
	count int
	roles []api.Role
}

func controllers(n int) group {
	return group{"controllers", 0, n, []api.Role{api.RoleController}}
}

func brokers(n int) group { return group{"brokers", 100, n, []api.Role{api.RoleBroker}} }

func combined(n int) group {
	return group{"combined", 0, n, []api.Role{api.RoleBroker, api.RoleController}}
}

func model(groups ...group) cluster.Model {
	m := cluster.Model{Namespace: "default", Name: "orders", Version: "4.3.1", MaxUnavailable: intstr.FromInt32(1), State: api.StateRunning}
	for _, g := range groups {
		for i := range g.count {
			n := cluster.Node{
				ID: g.first + int32(i), Pool: g.pool, Roles: g.roles, Volumes: []api.Volume{{Name: "data"}},
				Hosts: api.HostPlacement{MaxPerHost: 1000}, Ports: map[string]int32{},
				Process: api.ProcessSpec{Version: "4.3.1", Package: "sha256:1", Volumes: []string{"data"}, Config: map[string]string{"num.io.threads": "8"}, HeapBytes: 1 << 30, Layout: 1},
			}
			if n.Controller() {
				n.Ports[layout.ControllerListener] = 9090
			}
			if n.Broker() {
				n.Ports[layout.InternalListener] = 9091
			}
			m.Nodes = append(m.Nodes, n)
		}
	}
	return m
}

// hosts are n machines spread over racks.
func hosts(n int, racks ...string) []plan.Host {
	var out []plan.Host
	for i := range n {
		h := plan.Host{Name: fmt.Sprintf("h%03d", i), Reachable: true, Spec: api.HostSpec{
			Address: "127.0.0.1", AllowedNamespaces: []string{"*"}, DataRoots: []string{"/data"}, PortRange: &api.PortRange{From: 10000, To: 60000},
		}}
		if len(racks) > 0 {
			h.Spec.Rack = racks[i%len(racks)]
		}
		out = append(out, h)
	}
	return out
}

// setConfig changes a static key of the nodes of a pool.
func setConfig(m *cluster.Model, pool, key, value string) {
	for i := range m.Nodes {
		if m.Nodes[i].Pool != pool {
			continue
		}
		c := maps.Clone(m.Nodes[i].Process.Config)
		c[key] = value
		m.Nodes[i].Process.Config = c
	}
}

// pass is one plan, obeyed, and a second that passes.
func pass(w *sim.World, m cluster.Model) plan.Plan {
	p := plan.Compute(m, w.See(), w.Now)
	for _, s := range p.Steps {
		w.Do(s)
	}
	w.Report(p.Operations)
	w.Tick()
	return p
}

// settle plays passes until nothing is left to do.
func settle(t *testing.T, w *sim.World, m cluster.Model, most int) int {
	t.Helper()
	var p plan.Plan
	for i := range most {
		if p = pass(w, m); p.Done() {
			clean(t, w)
			return i
		}
	}
	t.Fatalf("not settled after %d passes: steps %v, blocked %v, upcoming %d\n%s\n%s", most, kinds(p), p.Blocked, len(p.Upcoming), w, strings.Join(w.Violations, "\n"))
	return 0
}

func clean(t *testing.T, w *sim.World) {
	t.Helper()
	if len(w.Violations) > 0 {
		t.Fatalf("the plan broke what it must keep:\n%s", strings.Join(w.Violations, "\n"))
	}
}

func kinds(p plan.Plan) []string {
	var out []string
	for _, s := range p.Steps {
		out = append(out, fmt.Sprintf("%s %d", s.Kind, s.Node))
	}
	return out
}

func blockedBecause(p plan.Plan, reason string) bool {
	return slices.ContainsFunc(p.Blocked, func(b plan.Block) bool { return b.Reason == reason })
}

// born is a settled cluster.
func born(t *testing.T, m cluster.Model, racks ...string) *sim.World {
	t.Helper()
	w := sim.New(hosts(max(1, len(racks)), racks...))
	settle(t, w, m, 60)
	return w
}

// spread gives a topic RF 3 over brokers of different racks.
func spread(w *sim.World, name string, minISR, partitions int, ids []int32) {
	var replicas [][]int32
	for p := range partitions {
		var r []int32
		for k := range 3 {
			r = append(r, ids[(p+k)%len(ids)])
		}
		replicas = append(replicas, r)
	}
	w.AddTopic(name, minISR, replicas...)
}

func idsOf(m cluster.Model, role api.Role) []int32 {
	var ids []int32
	for _, n := range m.Nodes {
		if slices.Contains(n.Roles, role) {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func TestClusterIsBornOnceAndThenAtRest(t *testing.T) {
	for _, m := range []cluster.Model{model(combined(1)), model(combined(3)), model(controllers(3), brokers(3)), model(combined(3), brokers(2))} {
		w := born(t, m)
		if w.ClusterID == "" {
			t.Fatal("no cluster id was recorded")
		}
		if got, want := len(w.Voters()), len(idsOf(m, api.RoleController)); got != want {
			t.Fatalf("got %d voters, want %d", got, want)
		}
		for range 5 {
			if p := pass(w, m); !p.Done() {
				t.Fatalf("a cluster at rest got steps %v, blocks %v", kinds(p), p.Blocked)
			}
		}
	}
}

func TestStaticKeyRollsOneByOneActiveControllerLast(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	spread(w, "t", 2, 6, idsOf(m, api.RoleBroker))
	active := w.See().Kafka.Quorum.Leader
	setConfig(&m, "combined", "num.io.threads", "16")
	var order []int32
	for range 100 {
		p := pass(w, m)
		for _, s := range p.Steps {
			if s.Kind == plan.UpdateProcess {
				order = append(order, s.Node)
				if !strings.Contains(s.Reason, "num.io.threads") {
					t.Errorf("reason %q does not name the key", s.Reason)
				}
			}
		}
		if p.Done() {
			break
		}
	}
	clean(t, w)
	if len(order) != 3 || order[2] != active {
		t.Fatalf("restarted %v, want three with the active controller %d last", order, active)
	}
	if w.Elections == 0 {
		t.Error("preferred leaders were not elected at the end")
	}
}

func TestRevertInTheMiddleLeavesUntouchedNodesAlone(t *testing.T) {
	m := model(controllers(3), brokers(4))
	w := born(t, m)
	spread(w, "t", 2, 8, idsOf(m, api.RoleBroker))
	before := m
	before.Nodes = slices.Clone(m.Nodes)
	setConfig(&m, "brokers", "num.io.threads", "16")
	for w.Restarts[100] == 0 || w.Restarts[101] == 0 {
		pass(w, m)
	}
	settle(t, w, before, 100)
	for id, want := range map[int32]int{0: 0, 1: 0, 2: 0, 100: 2, 101: 2, 102: 0, 103: 0} {
		if got := w.Restarts[id]; got != want {
			t.Errorf("node %d restarted %d times, want %d", id, got, want)
		}
	}
}

func TestRacksRollInRounds(t *testing.T) {
	m := model(controllers(3), brokers(30))
	w := born(t, m, "a", "b", "c")
	// Neighbours by id are in different racks, because hosts alternate.
	spread(w, "t", 2, 300, idsOf(m, api.RoleBroker))
	m.MaxUnavailable = intstr.FromString(cluster.WholeRack)
	setConfig(&m, "brokers", "num.io.threads", "16")
	if rounds := countRounds(t, w, m); rounds > 5 {
		t.Fatalf("rolled in %d rounds, want at most 5", rounds)
	}
}

// countRounds settles a roll and counts the passes that restarted nodes.
func countRounds(t *testing.T, w *sim.World, m cluster.Model) int {
	t.Helper()
	rounds := 0
	for range 20000 {
		p := pass(w, m)
		if slices.ContainsFunc(p.Steps, func(s plan.Step) bool { return s.Kind == plan.UpdateProcess }) {
			rounds++
		}
		if p.Done() {
			clean(t, w)
			return rounds
		}
	}
	t.Fatalf("never settled\n%s", w)
	return 0
}

func TestPartitionThatCannotSpareAReplicaHoldsTheRollAndIsNamed(t *testing.T) {
	m := model(controllers(3), brokers(3))
	w := born(t, m)
	w.AddTopic("lonely", 1, []int32{101})
	setConfig(&m, "brokers", "num.io.threads", "16")
	var p plan.Plan
	for range 60 {
		p = pass(w, m)
	}
	clean(t, w)
	if w.Restarts[100] != 1 || w.Restarts[101] != 0 || w.Restarts[102] != 1 {
		t.Errorf("restarts %v, want all but 101", w.Restarts)
	}
	if !blockedBecause(p, "NoSpareReplica") || !strings.Contains(p.Blocked[0].Message, "lonely-0") {
		t.Errorf("blocked %v does not name lonely-0", p.Blocked)
	}
}

func TestBrokenBrokerGetsTheFixThoughItsPartitionsAreUnderMinISR(t *testing.T) {
	m := model(controllers(3), brokers(3))
	w := born(t, m)
	spread(w, "t", 3, 3, idsOf(m, api.RoleBroker))
	w.Break(101, true)
	for range 10 {
		pass(w, m)
	}
	setConfig(&m, "brokers", "num.io.threads", "16")
	for range 5 {
		pass(w, m)
	}
	if w.Restarts[101] != 1 {
		t.Fatalf("the broken broker got no fix: %v", w.Restarts)
	}
	if w.Restarts[100]+w.Restarts[102] != 0 {
		t.Fatalf("healthy brokers of under-replicated partitions were restarted: %v", w.Restarts)
	}
	w.Break(101, false)
	w.AddTopic("x", 1, []int32{100, 101, 102})
}

func TestFailedChangeStopsTheRoll(t *testing.T) {
	m := model(controllers(3), brokers(5))
	w := born(t, m)
	spread(w, "t", 2, 10, idsOf(m, api.RoleBroker))
	setConfig(&m, "brokers", "num.io.threads", "16")
	for w.Restarts[100] == 0 {
		pass(w, m)
	}
	w.Break(100, true)
	var p plan.Plan
	for range 30 {
		p = pass(w, m)
	}
	if sum := w.Restarts[101] + w.Restarts[102] + w.Restarts[103] + w.Restarts[104]; sum != 0 {
		t.Fatalf("%d further nodes were restarted after one failed", sum)
	}
	if !slices.ContainsFunc(p.Blocked, func(b plan.Block) bool { return b.Stalled && b.Node == 100 }) {
		t.Fatalf("blocked %v does not say that node 100 stalls", p.Blocked)
	}
}

func TestEmptiedControllerIsReplacedUnderANewDirectory(t *testing.T) {
	for _, m := range []cluster.Model{model(combined(3)), model(controllers(3), brokers(3))} {
		w := born(t, m)
		spread(w, "t", 2, 3, idsOf(m, api.RoleBroker))
		old := w.Voters()[1]
		w.LoseDisk(1)
		settle(t, w, m, 60)
		if now := w.Voters()[1]; now == "" || now == old {
			t.Errorf("controller 1 votes under %q, was %q", now, old)
		}
	}
}

func TestAllDisksEmptiedNeverBecomesASecondCluster(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	for id := range int32(3) {
		w.LoseDisk(id)
	}
	var p plan.Plan
	for range 30 {
		p = pass(w, m)
	}
	clean(t, w)
	if !blockedBecause(p, "MetadataLost") || len(p.Steps) > 0 {
		t.Fatalf("steps %v, blocked %v: want nothing but MetadataLost", kinds(p), p.Blocked)
	}
}

func TestLastCopyHoldsAnEmptiedBroker(t *testing.T) {
	m := model(controllers(3), brokers(3))
	w := born(t, m)
	w.AddTopic("lonely", 1, []int32{101})
	w.LoseDisk(101)
	var p plan.Plan
	for range 10 {
		p = pass(w, m)
	}
	clean(t, w)
	if !blockedBecause(p, "LastCopyLost") {
		t.Fatalf("blocked %v, want LastCopyLost", p.Blocked)
	}
}

func TestWholeStopAndStart(t *testing.T) {
	m := model(controllers(3), brokers(3))
	w := born(t, m)
	stop := m
	stop.State = api.StateStopped
	settle(t, w, stop, 40)
	for _, n := range m.Nodes {
		if w.Serving(n.ID) {
			t.Errorf("node %d still serves", n.ID)
		}
	}
	id := w.ClusterID
	settle(t, w, m, 40)
	if w.ClusterID != id {
		t.Errorf("cluster id became %s, was %s", w.ClusterID, id)
	}
}

func TestDynamicKeysLiveInKafkaAndLeaveWithTheSpec(t *testing.T) {
	m := model(combined(3))
	m.Dynamic = map[string]string{"log.retention.ms": "1000"}
	w := sim.New(hosts(1))
	w.OwnedKeys = []string{"log.retention.ms"}
	settle(t, w, m, 60)
	if got := w.Config()["log.retention.ms"]; got != "1000" {
		t.Fatalf("log.retention.ms is %q", got)
	}
	w.Config()["foreign"] = "stays"
	m.Dynamic = nil
	m.Nodes[1].Dynamic = map[string]string{"log.cleaner.threads": "2"}
	settle(t, w, m, 60)
	if _, ok := w.Config()["log.retention.ms"]; ok || w.Config()["foreign"] != "stays" {
		t.Fatalf("config is %v", w.Config())
	}
	m.Nodes[1].Dynamic = nil
	settle(t, w, m, 60)
	if n := w.See().Nodes[1]; len(n.Spec.Dynamic) != 0 || len(w.See().Kafka.BrokerConfig[1]) != 0 {
		t.Fatalf("node 1 still has %v, recorded %v", w.See().Kafka.BrokerConfig[1], n.Spec.Dynamic)
	}
	if len(w.Restarts) != 0 {
		t.Fatalf("dynamic keys restarted nodes: %v", w.Restarts)
	}
}

func TestPausedChangesNothing(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	setConfig(&m, "combined", "num.io.threads", "16")
	m.Paused = true
	for range 5 {
		if p := pass(w, m); len(p.Steps) > 0 || !blockedBecause(p, "Paused") {
			t.Fatalf("paused, but steps %v, blocked %v", kinds(p), p.Blocked)
		}
	}
}

func TestUnreadableKafkaHoldsHealthyNodes(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	w.Hidden = true
	setConfig(&m, "combined", "num.io.threads", "16")
	for range 200 {
		pass(w, m)
	}
	if len(w.Restarts) != 0 {
		t.Fatalf("healthy nodes were restarted blindly: %v", w.Restarts)
	}
	w.Hidden = false
	settle(t, w, m, 100)
}

func TestComputeIsAFunctionOfItsInputs(t *testing.T) {
	m := model(controllers(3), brokers(3))
	w := born(t, m)
	setConfig(&m, "brokers", "num.io.threads", "16")
	see, now := w.See(), time.Unix(1, 0)
	a, b := fmt.Sprintf("%+v", plan.Compute(m, see, now)), fmt.Sprintf("%+v", plan.Compute(m, see, now))
	if len(a) != len(b) {
		t.Fatal("two plans from the same facts differ")
	}
}

// FuzzPlan plays random faults and changes against the simulator. Each byte of the input
// is one event; after the last one every fault is mended, and the plan must come to rest.
func FuzzPlan(f *testing.F) {
	f.Add([]byte{0x01, 0x10, 0x22, 0x31, 0x40, 0x53, 0x06, 0x71})
	f.Add([]byte("rolling stones gather no moss"))
	f.Add([]byte("pods in a gale"))
	f.Add([]byte{0x0b, 0x00, 0x00, 0x00, 0x1c, 0x00, 0x00, 0x08, 0x09, 0x00, 0x00, 0x0a, 0x21})
	f.Add([]byte{0x80, 0x00, 0x00, 0x00, 0x41, 0x00, 0x42, 0x00, 0x90, 0x00, 0x00, 0x91, 0x00, 0x00})
	f.Fuzz(func(t *testing.T, events []byte) {
		if len(events) > 200 {
			events = events[:200]
		}
		fz := newFuzz(t, events)
		for _, e := range events {
			if fz.pods {
				fz.podEvent(e)
			} else {
				fz.event(e)
			}
			fz.partialPass(int(e>>6) + 1)
		}
		fz.mend()
		fz.rest()
	})
}

type fuzz struct {
	t      *testing.T
	w      *sim.World
	m      cluster.Model
	lost   map[int32]bool // nodes down or emptied by a fault
	values int
	pods   bool
}

func newFuzz(t *testing.T, events []byte) *fuzz {
	t.Helper()
	shapes := []cluster.Model{model(combined(3)), model(controllers(3), brokers(4)), model(combined(3), brokers(3)), model(controllers(5), brokers(6))}
	m, pods := shapes[len(events)%len(shapes)], len(events)%8 >= 4
	if pods {
		m = asPods(m)
	}
	if len(events)%5 == 0 {
		m.MaxUnavailable = intstr.FromString(cluster.WholeRack)
	} else if len(events)%5 == 1 {
		m.MaxUnavailable = intstr.FromInt32(2)
	}
	w := born(t, m, "a", "b", "c")
	spread(w, "t", 2, 12, idsOf(m, api.RoleBroker))
	return &fuzz{t: t, w: w, m: m, lost: map[int32]bool{}, pods: pods}
}

func (f *fuzz) event(e byte) {
	n := f.m.Nodes[int(e>>3)%len(f.m.Nodes)]
	switch e % 8 {
	case 0:
		f.values++
		setConfig(&f.m, n.Pool, "num.io.threads", fmt.Sprint(f.values%3))
	case 1:
		f.w.Crash(n.ID)
	case 2:
		if len(f.lost) == 0 && f.w.Spare(n.ID) { // one lost disk at a time; more is not survivable with RF 3
			f.lost[n.ID] = true
			f.w.LoseDisk(n.ID)
		}
	case 3:
		if len(f.lost) == 0 {
			f.lost[n.ID] = true
			f.w.Break(n.ID, true)
		}
	case 4:
		f.mend()
	case 5:
		f.w.Hidden = !f.w.Hidden
	case 6:
		f.w.Silence(n.ID, e&8 != 0)
	case 7:
		f.m.Dynamic = map[string]string{"log.retention.ms": fmt.Sprint(e)}
		f.w.OwnedKeys = []string{"log.retention.ms"}
	}
}

// partialPass is a pass whose shell dies after so many steps.
func (f *fuzz) partialPass(steps int) {
	p := plan.Compute(f.m, f.w.See(), f.w.Now)
	for i, s := range p.Steps {
		if i >= steps {
			break
		}
		if s.Kind == plan.ReplaceVolumes {
			f.lost[s.Node] = true
		}
		f.w.Do(s)
	}
	f.w.Tick()
	for id := range f.lost {
		if f.w.Serving(id) && len(f.w.See().Kafka.Quorum.Voters) == len(idsOf(f.m, api.RoleController)) {
			delete(f.lost, id)
		}
	}
	clean(f.t, f.w)
}

func (f *fuzz) mend() {
	f.w.Hidden = false
	f.w.Stingy(false)
	for _, n := range f.m.Nodes {
		f.w.Break(n.ID, false)
		f.w.Silence(n.ID, false)
		f.w.Ask(n.ID, "")
	}
}

// rest lets everything come to rest and checks that it is what was wanted.
func (f *fuzz) rest() {
	for range 600 {
		p := pass(f.w, f.m)
		if p.Done() {
			break
		}
		if blockedBecause(p, "LastCopyLost") || blockedBecause(p, "QuorumTooSmall") {
			return // faults at once that nothing survives: held and named is the right end
		}
	}
	settle(f.t, f.w, f.m, 600)
	for range 10 {
		f.w.Tick() // replicas may still be catching up, which no plan waits for
	}
	settle(f.t, f.w, f.m, 600)
	for _, n := range f.m.Nodes {
		if f.w.Process(n.ID) != layout.ProcessHash(n.Process) {
			f.t.Errorf("node %d does not run what is wanted", n.ID)
		}
	}
	if p := pass(f.w, f.m); !p.Done() {
		f.t.Errorf("an empty plan did not stay empty: %v %v", kinds(p), p.Blocked)
	}
}

func TestRackFollowsTheHostWithoutARestart(t *testing.T) {
	m := model(combined(3))
	w := sim.New(hosts(3, "a", "b", "c"))
	for i := range m.Nodes {
		m.Nodes[i].Hosts.MaxPerHost = 1
	}
	settle(t, w, m, 60)
	racks := map[string]bool{}
	for _, n := range w.See().Nodes {
		racks[n.Spec.Rack] = true
	}
	if len(racks) != 3 {
		t.Fatalf("nodes stand in racks %v, want a, b and c", racks)
	}
	see := w.See()
	see.Hosts[0].Spec.Rack = "z"
	p := plan.Compute(m, see, w.Now)
	if len(p.Steps) != 1 || p.Steps[0].Kind != plan.UpdateLive || p.Steps[0].Spec.Rack != "z" {
		t.Fatalf("steps %v, want one UpdateLive with rack z", kinds(p))
	}
}

func TestReplicasThatCatchUpAreLookedAtSoon(t *testing.T) {
	m := model(combined(3))
	w := born(t, m)
	spread(w, "t", 2, 3, idsOf(m, api.RoleBroker))
	see := w.See()
	see.Kafka.Topics[0].Partitions[0].ISR = []int32{1, 2}
	see.Kafka.Topics[0].Partitions[0].Leader = 1
	p := plan.Compute(m, see, w.Now)
	if len(p.Steps) > 0 || p.Again == 0 || p.Again > 10*time.Second {
		t.Fatalf("steps %v, again in %s: want none, and a look within seconds", kinds(p), p.Again)
	}
}
