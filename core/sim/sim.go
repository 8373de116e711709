// Package sim is a world that obeys the steps of a plan: nodes that start, stop, crash and
// lose disks, a quorum and partitions whose in-sync replicas follow. Tests and fuzzing play
// plans against it to the end and let it judge every step by the truth it holds, not by
// what the plan was shown. It has no clock and no randomness of its own.
package sim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
)

// Ticks that things take. A tick is a second of simulated time.
const (
	startTicks = 3 // from a start to ready
	syncTicks  = 2 // from ready to back in every ISR
	voterTicks = 1 // from ready to caught up with the metadata log
)

// World is the truth.
type World struct {
	Now       time.Time
	ClusterID string
	Revision  string
	OwnedKeys []string

	hosts  []plan.Host
	nodes  map[int32]*node
	topics []plan.Topic
	voters map[int32]string // directory id by node id
	leader int32
	led    bool // there was a leader, so something was committed
	config map[string]string
	broker map[int32]map[string]string
	fresh  int

	// Violations are what a step did that it must never do.
	Violations []string
	// Restarts counts, per node, restarts that a plan asked for.
	Restarts map[int32]int
	// Elections counts elections of preferred leaders.
	Elections int
	// Replaced counts replacements of volumes.
	Replaced int
	// Hidden makes Kafka unreadable for the plan.
	Hidden bool
	// ELR lets an ISR become empty (KIP-966, what 4.3.1 does by default): the last in-sync
	// replica leaves it too when its broker is fenced.
	ELR bool
	// disks of nodes that were deleted; a node that is created again finds its own.
	disks map[int32]node
	// holders are the nodes whose disks have all that was acknowledged, by partition.
	holders map[string][]int32
	// pods is what only Kubernetes has.
	pods pods
	// operations in the order of their making.
	operations []api.Operation
	// Restores is the earlier revision whose spec the one in force has again.
	Restores string
	// spoilt are processes that cannot start, by hash.
	spoilt map[string]bool
	// holds are the revisions that are held.
	holds map[string]*api.RevisionHold
	// earlier Models by revision, for nodes that are given back.
	earlier map[string]cluster.Model
	// MetadataVersion as Kafka writes it.
	MetadataVersion string
	// moves is where replicas lie and what is on its way.
	moves moves
	// brokers that are registered, whether their nodes exist or not.
	brokers map[int32]*registration
	// FenceTicks is how long a broker that serves no more is not fenced yet.
	FenceTicks int
	// want is the spec that a pass was last made for, nil when it never said.
	want *cluster.Model
	// Moving and Throttled topics as recorded, and what the last pass handed on.
	Moving, Throttled []string
	Memo              *plan.Memo
	// Retired ids, and deleted nodes with whether their data went too.
	Retired, Deleted map[int32]bool
	// Unplaced keeps where replicas are from being read.
	Unplaced bool
	// Unthrottled counts ticks in which a copy of ours was held up by no throttle.
	Unthrottled int
	// Registered controllers that left, and the version at which each registered last.
	Registered map[int32]string
	// Features finalized, and the highest level that the newest version supports.
	Features  map[string]int16
	Supported map[string]int16
}

type node struct {
	spec      api.KafkaNodeSpec
	pod       podFacts
	dir       string // directory id, empty for an empty disk
	clusterID string // on disk
	owner     int32  // node id on disk
	nonce     string
	running   string // process hash, empty when the JVM is down
	bad       bool   // its process cannot start
	silent    bool   // its host reports nothing
	age       int    // ticks since the start
	formats   int    // how often its disk was formatted
	startedAt time.Time
	exitAt    time.Time // when it last ended by itself
	dirs      []string  // log dirs that it runs with
}

// New is a world with hosts and nothing on them.
func New(hosts []plan.Host) *World {
	return &World{
		Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Revision: "r1", hosts: hosts, leader: -1,
		nodes: map[int32]*node{}, voters: map[int32]string{}, config: map[string]string{},
		broker: map[int32]map[string]string{}, Restarts: map[int32]int{}, holders: map[string][]int32{}, disks: map[int32]node{},
		pods: newPods(), holds: map[string]*api.RevisionHold{}, spoilt: map[string]bool{}, earlier: map[string]cluster.Model{},
		Features: map[string]int16{}, Supported: map[string]int16{},
		moves: newMoves(), brokers: map[int32]*registration{}, Retired: map[int32]bool{}, Deleted: map[int32]bool{},
	}
}

// AddTopic places a topic with the given replicas, all in sync and led by the first.
func (w *World) AddTopic(name string, minISR int, replicas ...[]int32) {
	t := plan.Topic{Name: name, MinISR: minISR}
	for _, r := range replicas {
		w.holders[partitionName(name, len(t.Partitions))] = slices.Clone(r)
		t.Partitions = append(t.Partitions, plan.Partition{Leader: r[0], Replicas: r, ISR: slices.Clone(r)})
	}
	w.topics = append(w.topics, t)
}

// See is what a pass reads.
func (w *World) See() plan.World {
	seen := plan.World{
		ClusterID: w.ClusterID, Revision: w.Revision, OwnedKeys: w.OwnedKeys, Hosts: w.seenHosts(),
		Fresh: w.draw(), Certificates: map[int32]api.NodeCertificates{}, Kafka: w.kafka(), Shared: w.shared(),
		Hold: w.holds[w.Revision], Earlier: w.earlier, Restores: w.Restores,
	}
	for i := range w.operations {
		seen.Operations = append(seen.Operations, *w.operations[i].DeepCopy())
	}
	for _, id := range w.ids() {
		n := w.nodes[id]
		seen.Nodes = append(seen.Nodes, plan.Node{Spec: *n.spec.DeepCopy(), Status: w.status(n), Rack: w.rackOf(n), ReplaceAsked: n.pod.asked})
		seen.Certificates[id] = api.NodeCertificates{Digest: fmt.Sprintf("cert-%d", id)}
	}
	return seen
}

func (w *World) ids() []int32 {
	ids := make([]int32, 0, len(w.nodes))
	for id := range w.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (w *World) seenHosts() []plan.Host {
	hosts := slices.Clone(w.hosts)
	for i := range hosts {
		hosts[i].Claimed = map[int32]string{}
		hosts[i].Nodes = 0
		for _, n := range w.nodes {
			if n.spec.Host != hosts[i].Name {
				continue
			}
			hosts[i].Nodes++
			for _, port := range n.spec.Ports {
				hosts[i].Claimed[port] = "node"
			}
		}
	}
	return hosts
}

func (w *World) rack(host string) string {
	i := slices.IndexFunc(w.hosts, func(h plan.Host) bool { return h.Name == host })
	if i < 0 {
		return ""
	}
	return w.hosts[i].Spec.Rack
}

func (w *World) rackOf(n *node) string {
	if isPod(n) {
		return n.pod.zone
	}
	return w.rack(n.spec.Host)
}

func (w *World) draw() plan.Fresh {
	f := plan.Fresh{ClusterID: fmt.Sprintf("cluster-%d", w.fresh)}
	for i := range 64 {
		f.DirectoryIDs = append(f.DirectoryIDs, fmt.Sprintf("dir-%d-%d", w.fresh, i))
	}
	w.fresh++
	return f
}

func (w *World) status(n *node) api.KafkaNodeStatus {
	st := api.KafkaNodeStatus{Nonce: n.nonce}
	for _, i := range usedVolumes(n) { // its supervisor knows no others
		v := n.spec.Volumes[i]
		vs := api.VolumeStatus{Name: v.Name, State: api.VolumeEmpty}
		if dir := w.directory(n, i); dir != "" {
			id := n.owner
			vs = api.VolumeStatus{Name: v.Name, State: api.VolumeFormatted, ClusterID: n.clusterID, DirectoryID: dir, NodeID: &id}
		}
		st.Volumes = append(st.Volumes, vs)
	}
	switch {
	case n.silent:
		st.State, st.Reason = api.NodeUnknown, "HostSilent"
	case n.nonce != "":
		st.State = api.NodeAsking
	case n.running == "" && n.spec.State == api.StateStopped:
		st.State = api.NodeStopped
	case n.running == "":
		st.State, st.Reason = api.NodeFailed, "KafkaExited"
	case n.spec.State == api.StateStopped:
		st.State, st.Reason = api.NodeStopping, "Stopping"
	case !w.ready(n):
		st.State = api.NodeStarting
	default:
		st.State, st.Ready = api.NodeRunning, true
	}
	if !n.exitAt.IsZero() {
		st.LastExit = &api.ExitStatus{Code: 1, Reason: "KafkaExited", LogTail: "it cannot start", At: metav1.NewTime(n.exitAt)}
	}
	if n.running != "" {
		st.Process = &api.ProcessStatus{Hash: n.running, StartedAt: metav1.NewTime(n.startedAt)}
	}
	if isPod(n) {
		w.addPod(n, &st)
	}
	return st
}

func (w *World) ready(n *node) bool {
	return n.running != "" && n.age >= startTicks && w.quorumUp()
}

// serving is the truth, also of a node whose host reports nothing.
func (w *World) serving(n *node) bool { return w.ready(n) }

// quorumUp says whether a majority of the voters runs with the directory that votes.
func (w *World) quorumUp() bool {
	up := 0
	for id, dir := range w.voters {
		if n, ok := w.nodes[id]; ok && n.running != "" && n.dir == dir && n.age >= startTicks {
			up++
		}
	}
	return up >= len(w.voters)/2+1
}

func (w *World) kafka() plan.Kafka {
	if w.Hidden || len(w.voters) == 0 || !w.quorumUp() {
		return plan.Kafka{Why: "no quorum"}
	}
	k := plan.Kafka{Known: true, ClusterID: w.ClusterID, ClusterConfig: w.config, BrokerConfig: w.broker}
	for _, id := range w.ids() {
		n := w.nodes[id]
		if isBroker(n) && n.dir != "" {
			up := w.serving(n)
			k.PartitionsKnown = k.PartitionsKnown || up
			if up && w.broker[id] == nil {
				w.broker[id] = map[string]string{} // read, and without any key of its own
			}
		}
	}
	for _, id := range w.registrations() {
		k.Brokers = append(k.Brokers, plan.Broker{ID: id, Fenced: w.fenced(id), Rack: w.brokers[id].rack})
	}
	k.Topics = make([]plan.Topic, len(w.topics))
	for i, t := range w.topics {
		k.Topics[i] = plan.Topic{Name: t.Name, MinISR: t.MinISR, Partitions: slices.Clone(t.Partitions)}
		for j := range t.Partitions {
			k.Topics[i].Partitions[j].ISR = slices.Clone(t.Partitions[j].ISR)
		}
	}
	k.Quorum = w.quorum()
	k.MetadataVersion = w.MetadataVersion
	for id := range w.Registered {
		k.Controllers = append(k.Controllers, id)
	}
	k.Features, k.SupportedFeatures = maps.Clone(w.Features), map[string][2]int16{}
	for name, highest := range w.Supported {
		k.SupportedFeatures[name] = [2]int16{0, highest}
	}
	return k
}

func (w *World) quorum() plan.Quorum {
	q := plan.Quorum{Leader: w.leader, HighWater: 100}
	for _, id := range w.ids() {
		n := w.nodes[id]
		r := plan.Replica{ID: id, DirectoryID: n.dir, LastCaughtUp: time.Hour}
		if n.running != "" && n.age >= startTicks+voterTicks {
			r.LastCaughtUp = 0
		}
		dir, votes := w.voters[id]
		if votes && dir == n.dir {
			q.Voters = append(q.Voters, r)
			continue
		}
		if votes {
			q.Voters = append(q.Voters, plan.Replica{ID: id, DirectoryID: dir, LastCaughtUp: time.Hour})
		}
		if n.running != "" {
			q.Observers = append(q.Observers, r)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.voters)) {
		if w.nodes[id] == nil { // its object was deleted by hand
			q.Voters = append(q.Voters, plan.Replica{ID: id, DirectoryID: w.voters[id], LastCaughtUp: time.Hour})
		}
	}
	return q
}

func isBroker(n *node) bool     { return slices.Contains(n.spec.Roles, api.RoleBroker) }
func isController(n *node) bool { return slices.Contains(n.spec.Roles, api.RoleController) }

// Tick lets a second pass.
func (w *World) Tick() {
	w.Now = w.Now.Add(time.Second)
	for _, id := range w.ids() {
		w.advance(w.nodes[id])
	}
	w.register()
	w.give()
	w.elect()
	w.replicate()
	w.follow()
}

// advance moves one node: its agent realizes the spec, its supervisor asks or starts.
func (w *World) advance(n *node) {
	want := layout.ProcessHash(n.spec.Process)
	if n.running != "" && (n.spec.State == api.StateStopped || n.running != want) {
		n.running, n.age = "", 0
		return
	}
	if n.spec.State == api.StateStopped {
		n.nonce = "" // its supervisor has ended
		return
	}
	if n.silent && n.running == "" {
		return
	}
	if n.spec.ClusterID == "" || n.running == "" && w.anyEmpty(n) {
		w.ask(n)
		return
	}
	n.nonce = ""
	if n.clusterID != n.spec.ClusterID || n.owner != n.spec.NodeID || n.bad || w.spoilt[want] {
		n.exitAt = w.Now
		return // a supervisor refuses what is not its own
	}
	if n.running == "" {
		n.running, n.age, n.startedAt, n.dirs = want, 0, w.Now, logDirs(n)
		return
	}
	n.age++
}

// ask is a supervisor with a question: it shows its disks and does what an answer to its
// own nonce says.
func (w *World) ask(n *node) {
	if s := n.spec.Storage; s != nil && n.nonce != "" && s.Nonce == n.nonce {
		w.format(n, s)
		n.nonce = ""
		return
	}
	if n.nonce == "" {
		n.nonce = fmt.Sprintf("nonce-%d-%d", n.spec.NodeID, w.fresh)
		w.fresh++
	}
}

func (w *World) format(n *node, s *api.StorageAnswer) {
	if s.Answer == api.StorageAdopt || !w.anyEmpty(n) {
		return
	}
	if s.Answer == api.StorageJoin {
		w.judgeJoin(n)
	}
	w.formatMore(n)
	if n.dir != "" {
		return
	}
	n.formats++
	n.clusterID, n.owner = n.spec.ClusterID, n.spec.NodeID
	w.fresh++
	n.dir = fmt.Sprintf("dir-%d-join-%d", n.spec.NodeID, w.fresh)
	if s.Answer != api.StorageBootstrap || len(s.InitialControllers) == 0 {
		return
	}
	w.bootstrap(n, s)
}

// judgeJoin checks that empty disks that are formatted did not hold the last copy of
// anything: somebody else's disk must have all that was acknowledged.
func (w *World) judgeJoin(n *node) {
	id := n.spec.NodeID
	for i := range w.topics {
		for j := range w.topics[i].Partitions {
			name := partitionName(w.topics[i].Name, j)
			held := w.holders[name]
			if !slices.Contains(held, id) || w.has(id, j) {
				continue
			}
			if !w.elsewhere(held, id, j) {
				w.violate("node %d joins empty, but %s had its last copy there", id, name)
			}
			w.holders[name] = slices.DeleteFunc(slices.Clone(held), func(other int32) bool { return other == id })
		}
	}
}

// elsewhere says whether a holder of a partition besides one node has it on its disk.
func (w *World) elsewhere(held []int32, id int32, partition int) bool {
	return slices.ContainsFunc(held, func(other int32) bool { return other != id && w.has(other, partition) })
}

func partitionName(topic string, partition int) string { return fmt.Sprintf("%s-%d", topic, partition) }

// bootstrap formats a first controller. A second cluster beside one that has voters is the
// worst thing that a plan could do.
func (w *World) bootstrap(n *node, s *api.StorageAnswer) {
	voters := map[int32]string{}
	for _, entry := range s.InitialControllers {
		before, at, ok := strings.Cut(entry, "@")
		id, err := strconv.ParseInt(before, 10, 32)
		if !ok || err != nil || strings.Count(at, ":") != 2 {
			w.violate("unreadable initial controller %q", entry)
			return
		}
		voters[int32(id)] = at[strings.LastIndex(at, ":")+1:]
	}
	if len(w.voters) == 0 {
		w.voters = voters
	}
	n.dir = voters[n.spec.NodeID]
	if n.formats > 1 && w.led {
		w.violate("node %d votes again under directory %s, whose log is gone", n.spec.NodeID, n.dir)
	}
	if w.voters[n.spec.NodeID] != n.dir {
		w.violate("node %d was formatted into a second quorum", n.spec.NodeID)
	}
}

// elect moves the active controller and the leaders off nodes that serve no more.
func (w *World) elect() {
	if n, ok := w.nodes[w.leader]; !ok || !w.ready(n) || w.voters[w.leader] != n.dir {
		w.leader = -1
		for _, id := range w.ids() {
			if w.voters[id] != "" && w.voters[id] == w.nodes[id].dir && w.ready(w.nodes[id]) {
				w.leader = id
				w.led = true
				break
			}
		}
	}
}

// follow lets ISRs shrink and grow.
func (w *World) follow() {
	if w.leader < 0 {
		return
	}
	for i := range w.topics {
		for j := range w.topics[i].Partitions {
			w.sync(&w.topics[i].Partitions[j], partitionName(w.topics[i].Name, j))
			w.lead(&w.topics[i].Partitions[j])
		}
	}
	w.land()
}

// sync takes replicas that do not serve out of a partition's ISR, and those that have
// caught up back in.
func (w *World) sync(p *plan.Partition, name string) {
	defer func() {
		if len(p.ISR) > 0 {
			w.holders[name] = slices.Clone(p.ISR)
		}
	}()
	for _, r := range p.Replicas {
		if !w.stillCopies(name, r) {
			w.syncReplica(p, r, w.holders[name])
		}
	}
}

func (w *World) syncReplica(p *plan.Partition, r int32, holders []int32) {
	n, at := w.nodes[r], slices.Index(p.ISR, r)
	up := n != nil && w.serving(n)
	switch {
	case !up && at >= 0 && (len(p.ISR) > 1 || w.ELR):
		p.ISR = slices.Delete(slices.Clone(p.ISR), at, at+1)
	case !up || at >= 0:
	case p.Leader >= 0 && n.age >= startTicks+syncTicks:
		p.ISR = append(slices.Clone(p.ISR), r)
	case len(p.ISR) == 0 && slices.Contains(holders, r):
		p.ISR = []int32{r} // elected from the eligible replicas
	}
}

// lead gives a partition a leader from its ISR when it has none that serves.
func (w *World) lead(p *plan.Partition) {
	if n := w.nodes[p.Leader]; p.Leader >= 0 && n != nil && w.serving(n) && slices.Contains(p.ISR, p.Leader) {
		return
	}
	p.Leader = -1
	for _, r := range p.ISR {
		if n := w.nodes[r]; n != nil && w.serving(n) {
			p.Leader = r
			return
		}
	}
}

func (w *World) violate(format string, args ...any) {
	w.Violations = append(w.Violations, fmt.Sprintf(format, args...))
}
