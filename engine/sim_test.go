package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/core/sim"
	"castellan.dev/castellan/engine"
)

// world lets an engine work on a simulated world: every port of the engine ends here. Each
// call may fail, before it did anything or after.
type world struct {
	sim       *sim.World
	revisions []api.ClusterRevision
	// operations in the order of their making.
	operations []api.Operation
	packages   []api.Package
	deleted    map[int32]bool // node id to whether its data goes too
	// fail says whether a call fails; after says that it did its work and the answer is lost.
	fail func(call string) (fails, after bool)
	// writes are the calls that changed something, in order.
	writes []string
	// certificates counts the certificates that are removed.
	certificatesGone int
	// faults of Secrets that listeners name.
	faults []engine.SecretFault
	// spare is what the PodDisruptionBudget last said.
	spare bool
	// evict is done at the last moment before the budget closes.
	evict func()
	// reads are the calls that read, with how they did.
	reads []string
	// placement is where replicas are, for who asks.
	placement *balance.Cluster
	// asked is what was wanted to be known of Kafka, pass by pass.
	asked []plan.Ask
	// stale is what cached reads of nodes and revisions show in place of the truth; nil is the truth.
	stale *stale
	// current is the KafkaCluster in the API server; nil is what a pass is given.
	current *api.KafkaCluster
}

type stale struct {
	nodes      []plan.Node
	revisions  []api.ClusterRevision
	operations []api.Operation
}

func (w *world) read(what string, how engine.Freshness) {
	word := "cached"
	if how == engine.Fresh {
		word = "fresh"
	}
	w.reads = append(w.reads, word+" "+what)
}

func newWorld() *world {
	var hosts []plan.Host
	for i := range 3 {
		hosts = append(hosts, plan.Host{Name: fmt.Sprintf("h%d", i), Reachable: true, Spec: api.HostSpec{
			Address: "127.0.0.1", Rack: fmt.Sprintf("r%d", i), AllowedNamespaces: []string{"*"}, DataRoots: []string{"/data"},
			PortRange: &api.PortRange{From: 10000, To: 60000},
		}})
	}
	return &world{
		sim: sim.New(hosts), deleted: map[int32]bool{},
		packages: []api.Package{{
			ObjectMeta: metav1.ObjectMeta{Name: "kafka"},
			Spec:       api.PackageSpec{Product: api.ProductKafka, Version: "4.3.1"}, Status: api.PackageStatus{Digest: "sha256:1"},
		}},
	}
}

// engine is an engine as after a restart: it has nothing but its ports.
func (w *world) engine() *engine.Engine {
	e := &engine.Engine{
		Kafka: kafkaPort{w}, Nodes: nodesPort{w}, Catalog: catalogPort{w}, Revisions: revisionsPort{w}, Operations: operationsPort{w}, Certificates: certificatesPort{w}, Shared: sharedPort{w},
		Fresh: func(int) plan.Fresh { return w.sim.See().Fresh }, Now: func() time.Time { return w.sim.Now },
		CASecret: func(name string) string { return name + "-ca" },
	}
	if w.current != nil {
		e.Reread = func(context.Context, *api.KafkaCluster) (*api.KafkaCluster, error) { return w.current.DeepCopy(), nil }
	}
	return e
}

var errInjected = errors.New("injected")

// call does an act, or fails before or after it.
func (w *world) call(name string, act func() error) error {
	fails, after := false, false
	if w.fail != nil {
		fails, after = w.fail(name)
	}
	if fails && !after {
		return errInjected
	}
	if err := act(); err != nil {
		return err
	}
	if fails {
		return errInjected
	}
	return nil
}

// write is a call that changes something.
func (w *world) write(name string, act func()) error {
	return w.call(name, func() error {
		w.writes = append(w.writes, name)
		act()
		return nil
	})
}

type kafkaPort struct{ *world }

func (k kafkaPort) Observe(_ context.Context, _ *api.KafkaCluster, _ engine.Endpoints, what plan.Ask) plan.Kafka {
	k.asked = append(k.asked, what)
	var seen plan.Kafka
	err := k.call("observe Kafka", func() error {
		seen = k.sim.See().Kafka
		return nil
	})
	if err != nil {
		return plan.Kafka{Why: err.Error()}
	}
	if what.Placement && seen.Known {
		seen.Placement = k.placement
	}
	asked := map[int32]map[string]string{}
	for _, id := range what.PerBroker {
		if held, ok := seen.BrokerConfig[id]; ok {
			asked[id] = held
		}
	}
	seen.BrokerConfig = asked
	return seen
}

func (k kafkaPort) Do(_ context.Context, _ *api.KafkaCluster, _ engine.Endpoints, step plan.Step) error {
	return k.write(string(step.Kind), func() { k.sim.Do(step) })
}

type nodesPort struct{ *world }

func (n nodesPort) List(_ context.Context, _ *api.KafkaCluster, how engine.Freshness) ([]plan.Node, error) {
	n.read("nodes", how)
	if how == engine.Cached && n.stale != nil {
		return n.stale.nodes, nil
	}
	var nodes []plan.Node
	return nodes, n.call("list nodes", func() error {
		nodes = slices.DeleteFunc(n.sim.See().Nodes, func(x plan.Node) bool {
			_, gone := n.deleted[x.Spec.NodeID]
			return gone
		})
		return nil
	})
}

func (n nodesPort) Write(_ context.Context, _ *api.KafkaCluster, spec *api.KafkaNodeSpec) error {
	step := plan.Step{Kind: plan.CreateNode, Node: spec.NodeID, Spec: spec}
	for _, x := range n.sim.See().Nodes {
		if x.Spec.NodeID != spec.NodeID {
			continue
		}
		step.Kind = plan.UpdateLive
		if layout.ProcessHash(x.Spec.Process) != layout.ProcessHash(spec.Process) {
			step.Kind = plan.UpdateProcess
		}
	}
	return n.write(fmt.Sprintf("write node %d", spec.NodeID), func() { n.sim.Do(step) })
}

func (n nodesPort) Delete(_ context.Context, _ *api.KafkaCluster, id int32, removeData bool) error {
	return n.write(fmt.Sprintf("delete node %d", id), func() { n.deleted[id] = removeData })
}

type catalogPort struct{ *world }

func (c catalogPort) Packages(context.Context) ([]api.Package, error) {
	return c.packages, c.call("list packages", func() error { return nil })
}

func (c catalogPort) Hosts(context.Context) (hosts []plan.Host, objects []api.Host, err error) {
	err = c.call("list hosts", func() error {
		hosts = c.sim.See().Hosts
		return nil
	})
	return hosts, nil, err
}

type revisionsPort struct{ *world }

func (r revisionsPort) List(_ context.Context, _ *api.KafkaCluster, how engine.Freshness) (list []api.ClusterRevision, err error) {
	r.read("revisions", how)
	if how == engine.Cached && r.stale != nil {
		return r.stale.revisions, nil
	}
	err = r.call("list revisions", func() error {
		for i := range r.revisions {
			list = append(list, *r.revisions[i].DeepCopy())
		}
		return nil
	})
	return list, err
}

func (r revisionsPort) Create(_ context.Context, _ *api.KafkaCluster, rev *api.ClusterRevision) error {
	return r.write("create revision", func() { r.revisions = append(r.revisions, *rev.DeepCopy()) })
}

func (r revisionsPort) SetClusterID(_ context.Context, rev *api.ClusterRevision, id string) error {
	return r.write("set cluster id", func() {
		i := slices.IndexFunc(r.revisions, func(x api.ClusterRevision) bool { return x.Name == rev.Name })
		r.revisions[i].Spec.ClusterID = id
		r.sim.Do(plan.Step{Kind: plan.RecordClusterID, ClusterID: id})
	})
}

func (r revisionsPort) SetHeld(_ context.Context, rev *api.ClusterRevision, hold *api.RevisionHold) error {
	return r.write("hold "+rev.Name, func() {
		i := slices.IndexFunc(r.revisions, func(x api.ClusterRevision) bool { return x.Name == rev.Name })
		r.revisions[i].Spec.Held = hold.DeepCopy()
	})
}

func (r revisionsPort) SetMoves(_ context.Context, rev *api.ClusterRevision, moving, throttled []string) error {
	return r.write(fmt.Sprintf("moves of %s: %v, throttled %v", rev.Name, moving, throttled), func() {
		i := slices.IndexFunc(r.revisions, func(x api.ClusterRevision) bool { return x.Name == rev.Name })
		r.revisions[i].Spec.Moving, r.revisions[i].Spec.Throttled = slices.Clone(moving), slices.Clone(throttled)
	})
}

func (r revisionsPort) Retire(_ context.Context, rev *api.ClusterRevision, pool string, id int32) error {
	return r.write(fmt.Sprintf("retire %d of %s", id, pool), func() {
		i := slices.IndexFunc(r.revisions, func(x api.ClusterRevision) bool { return x.Name == rev.Name })
		r.revisions[i].Spec.NodeIDs = engine.Retired(r.revisions[i].Spec.NodeIDs, pool, id)
	})
}

func (r revisionsPort) Delete(_ context.Context, rev *api.ClusterRevision) error {
	return r.write("delete "+rev.Name, func() {
		r.revisions = slices.DeleteFunc(r.revisions, func(x api.ClusterRevision) bool { return x.Name == rev.Name })
	})
}

type certificatesPort struct{ *world }

func (c certificatesPort) Ensure(_ context.Context, _ *api.KafkaCluster, _ cluster.Model, nodes []plan.Node) (engine.Issued, error) {
	out := map[int32]api.NodeCertificates{}
	return engine.Issued{Nodes: out, Faults: c.faults}, c.call("ensure certificates", func() error {
		for _, n := range nodes {
			out[n.Spec.NodeID] = api.NodeCertificates{Digest: fmt.Sprintf("cert-%d", n.Spec.NodeID)}
		}
		return nil
	})
}

func (c certificatesPort) Delete(context.Context, *api.KafkaCluster) error {
	return c.write("delete certificates", func() { c.certificatesGone++ })
}

type sharedPort struct{ *world }

func (s sharedPort) Observe(_ context.Context, _ *api.KafkaCluster, how engine.Freshness) (plan.Shared, error) {
	s.read("shared", how)
	return plan.Shared{}, s.call("observe what is shared", func() error { return nil })
}

func (s sharedPort) Same(_ context.Context, _ *api.KafkaCluster, _ cluster.Model, _ []plan.Node, spare bool) bool {
	fails := false // what could not be written is not the same
	if s.fail != nil {
		fails, _ = s.fail("apply what is shared")
	}
	return s.spare == spare && !fails
}

func (s sharedPort) Apply(_ context.Context, _ *api.KafkaCluster, _ cluster.Model, _ []plan.Node, spare bool) (closed bool, err error) {
	err = s.call("apply what is shared", func() error {
		if s.spare != spare {
			s.writes = append(s.writes, fmt.Sprintf("spare %t", spare))
			closed = !spare
		}
		if closed && s.evict != nil {
			s.evict()
		}
		s.spare = spare
		return nil
	})
	return closed, err
}

func (s sharedPort) Delete(context.Context, *api.KafkaCluster, bool) error {
	return s.write("delete what is shared", func() {})
}

func newCluster(pools ...api.Pool) *api.KafkaCluster {
	if len(pools) == 0 {
		pools = []api.Pool{{Name: "nodes", Roles: []api.Role{api.RoleBroker, api.RoleController}, Replicas: 3}}
	}
	for i := range pools {
		pools[i].Placement.Hosts = &api.HostPlacement{MaxPerHost: 100}
	}
	return &api.KafkaCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders", Generation: 1},
		Spec:       api.KafkaClusterSpec{Version: "4.3.1", Pools: pools, Config: api.Config{}},
	}
}

// pass is one pass of an engine that was just started, and a second that passes.
func (w *world) pass(t *testing.T, kc *api.KafkaCluster) engine.Result {
	t.Helper()
	r, err := w.engine().Pass(t.Context(), kc)
	if err != nil {
		t.Fatal(err)
	}
	w.sim.Tick()
	return r
}

// settle makes passes until the cluster is Ready and nothing is to be done.
func (w *world) settle(t *testing.T, kc *api.KafkaCluster, most int) {
	t.Helper()
	var r engine.Result
	still := 0 // passes in a row: leaders return only when the last replica is in sync again
	for range most {
		r = w.pass(t, kc)
		if !r.Plan.Done() || !meta.IsStatusConditionTrue(r.Status.Conditions, api.ConditionReady) {
			still = 0
			continue
		}
		if still++; still == 5 {
			w.clean(t)
			return
		}
	}
	t.Fatalf("not settled after %d passes: %+v\nblocked: %+v\n%s\n%v", most, r.Status.Conditions, r.Plan.Blocked, w.sim, w.sim.Violations)
}

func (w *world) clean(t *testing.T) {
	t.Helper()
	if len(w.sim.Violations) > 0 {
		t.Fatalf("the engine broke what it must keep:\n%v", w.sim.Violations)
	}
}

func replicate(w *world, ids ...int32) {
	var partitions [][]int32
	for p := range 6 {
		partitions = append(partitions, []int32{ids[p%len(ids)], ids[(p+1)%len(ids)], ids[(p+2)%len(ids)]})
	}
	w.sim.AddTopic("t", 2, partitions...)
}

// TestConvergesWhateverFails plays clusters to the end while any call of any port may fail,
// with or without having done its work. Each pass is made by an engine that knows nothing
// of the one before, so a failed call is also the death of an engine.
func TestConvergesWhateverFails(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { converge(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func converge(t *testing.T, random *rand.Rand) {
	t.Helper()
	w, kc := newWorld(), newCluster()
	ids := []int32{0, 1, 2}
	if random.IntN(2) == 0 {
		kc = newCluster(
			api.Pool{Name: "controllers", Roles: []api.Role{api.RoleController}, Replicas: 3},
			api.Pool{Name: "brokers", Roles: []api.Role{api.RoleBroker}, Replicas: 3},
		)
		ids = []int32{100, 101, 102}
	}
	w.fail = func(string) (fails, after bool) { return random.IntN(5) == 0, random.IntN(2) == 0 }
	replicated, statics := false, 0
	for tick := range 120 {
		if _, err := w.engine().Pass(t.Context(), kc); err != nil && !errors.Is(err, errInjected) {
			t.Fatal(err)
		}
		w.sim.Tick()
		if !replicated && allServe(w, ids) {
			replicate(w, ids...)
			replicated = true
		}
		if random.IntN(12) == 0 {
			statics += change(kc, random)
		}
		if random.IntN(30) == 0 {
			w.ask(fmt.Sprintf("restart-%d", tick), api.OperationSpec{Type: api.OperationRestart})
			statics++
		}
		if op := w.anyOperation(random); op != "" && random.IntN(30) == 0 && w.operation(op).Spec.Type == api.OperationRestart {
			w.dismiss(op)
		}
		if random.IntN(20) == 0 {
			w.sim.Crash(ids[random.IntN(len(ids))])
		}
	}
	w.fail = nil
	delete(kc.Spec.Config, "no.such.key")
	kc.Spec.State, kc.Spec.Paused = api.StateRunning, false
	w.settle(t, kc, 500) // one restart after another
	for _, id := range ids {
		if w.sim.Restarts[id] > statics {
			t.Errorf("node %d was restarted %d times for %d changes", id, w.sim.Restarts[id], statics)
		}
	}
	w.writes = nil
	for range 5 {
		if r := w.pass(t, kc); len(r.Plan.Steps) > 0 {
			t.Errorf("an empty plan did not stay empty: %+v", r.Plan.Steps)
		}
	}
	if len(w.writes) > 0 {
		t.Errorf("a cluster at rest is written: %v", w.writes)
	}
}

func allServe(w *world, ids []int32) bool {
	return !slices.ContainsFunc(ids, func(id int32) bool { return !w.sim.Serving(id) })
}

// change changes the spec, mostly for the good; it returns how many restarts that is worth.
func change(kc *api.KafkaCluster, random *rand.Rand) int {
	kc.Generation++
	value := api.ConfigValue(fmt.Sprint(4096 + random.IntN(4000)))
	switch random.IntN(7) {
	case 4:
		kc.Spec.State = []api.RunState{api.StateRunning, api.StateStopped}[random.IntN(2)]
	case 5:
		kc.Spec.Paused = !kc.Spec.Paused
	case 6:
		if last := &kc.Spec.Pools[len(kc.Spec.Pools)-1]; last.Replicas < 5 {
			last.Replicas++
		}
	case 0:
		kc.Spec.Config["log.retention.ms"] = value
	case 1:
		delete(kc.Spec.Config, "log.retention.ms")
	case 2:
		kc.Spec.Config["no.such.key"] = value
	default:
		delete(kc.Spec.Config, "no.such.key")
		kc.Spec.Config["replica.fetch.max.bytes"] = value
		return 1
	}
	return 0
}
