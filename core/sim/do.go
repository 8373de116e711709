package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
)

// Do obeys a step and notes what it breaks.
func (w *World) Do(s plan.Step) {
	switch s.Kind {
	case plan.CreateOperation, plan.RecordOperation, plan.HoldRevision, plan.FinalizeFeatures:
		w.doOperation(s)
	case plan.CreateNode:
		if _, ok := w.nodes[s.Node]; ok {
			w.violate("node %d created twice", s.Node)
			return
		}
		disk := w.disks[s.Node]
		w.nodes[s.Node] = &node{spec: *s.Spec.DeepCopy(), dir: disk.dir, clusterID: disk.clusterID, owner: disk.owner, formats: disk.formats}
		w.nodes[s.Node].pod.laid = disk.pod.laid
		w.bind(w.nodes[s.Node])
	case plan.UpdateProcess, plan.UpdateLive, plan.AnswerStorage, plan.StopNode, plan.StartNode, plan.ReplaceVolumes:
		w.write(s)
	case plan.RecordClusterID:
		w.ClusterID = s.ClusterID
	case plan.SetConfig:
		w.setConfig(s)
	case plan.AddVoter:
		w.addVoter(s)
	case plan.RemoveVoter:
		w.removeVoter(s)
	case plan.ElectLeaders:
		w.Elections++
		w.preferred()
	default:
		w.doMoves(s)
	}
}

func (w *World) write(s plan.Step) {
	n, ok := w.nodes[s.Node]
	if !ok {
		w.violate("%s of node %d, which does not exist", s.Kind, s.Node)
		return
	}
	restart := layout.ProcessHash(n.spec.Process) != layout.ProcessHash(s.Spec.Process)
	if restart && s.Kind != plan.UpdateProcess {
		w.violate("%s restarts node %d", s.Kind, s.Node)
	}
	if n.spec.ClusterID != "" && s.Spec.ClusterID != n.spec.ClusterID {
		w.violate("cluster id of node %d changed", s.Node)
	}
	if !slices.Equal(n.spec.Roles, s.Spec.Roles) {
		w.violate("%s changes the roles of node %d from %v to %v", s.Kind, s.Node, n.spec.Roles, s.Spec.Roles)
	}
	if restart {
		w.Restarts[s.Node]++
		w.judgeStop(n)
	}
	if s.Kind == plan.StopNode && n.spec.State != api.StateStopped {
		w.judgeLeaving(n)
	}
	if s.Kind == plan.UpdateProcess {
		next := &node{spec: *s.Spec}
		w.judgeVolumes(n, logDirs(next))
	}
	if isPod(n) {
		w.judgePod(n, s)
	}
	if s.Kind == plan.ReplaceVolumes {
		w.replace(n)
	}
	n.spec = *s.Spec.DeepCopy()
	w.bind(n)
}

// judgeStop checks, by the truth, what stopping a node takes away.
func (w *World) judgeStop(n *node) {
	if !w.serving(n) {
		return
	}
	id := n.spec.NodeID
	if isController(n) && len(w.voters) > 1 && w.voters[id] == n.dir {
		up := 0
		for other, dir := range w.voters {
			if o := w.nodes[other]; other != id && o != nil && w.keepsRunning(o) && o.dir == dir {
				up++
			}
		}
		if up < len(w.voters)/2+1 && w.quorumUp() {
			w.violate("stopping controller %d leaves %d of %d voters", id, up, len(w.voters))
		}
	}
	for i := range w.topics {
		t := &w.topics[i]
		for j := range t.Partitions {
			w.judgePartition(t, j, id)
		}
	}
}

// keepsRunning says whether a node serves and is not about to restart.
func (w *World) keepsRunning(n *node) bool {
	return w.serving(n) && n.running == layout.ProcessHash(n.spec.Process) && n.spec.State != api.StateStopped
}

func (w *World) judgePartition(t *plan.Topic, j int, id int32) {
	p := &t.Partitions[j]
	if !slices.Contains(p.ISR, id) {
		return
	}
	before, after := 0, 0
	for _, r := range p.ISR {
		o := w.nodes[r]
		if o == nil || !w.keepsRunning(o) && r != id {
			continue
		}
		before++
		if r != id {
			after++
		}
	}
	floor := max(1, t.MinISR)
	if before >= floor && after < floor {
		w.violate("stopping broker %d takes %s-%d from %d to %d in-sync replicas, min ISR is %d", id, t.Name, j, before, after, t.MinISR)
	}
}

func (w *World) setConfig(s plan.Step) {
	if s.Node < 0 {
		apply(w.config, s)
		return
	}
	if w.broker[s.Node] == nil {
		w.broker[s.Node] = map[string]string{}
	}
	w.judgeConfig(s)
	apply(w.broker[s.Node], s)
}

func apply(onto map[string]string, s plan.Step) {
	maps.Copy(onto, s.Set)
	for _, k := range s.Delete {
		delete(onto, k)
	}
}

func (w *World) addVoter(s plan.Step) {
	n := w.nodes[s.Node]
	switch {
	case !w.quorumUp():
		w.violate("voter %d added without a quorum", s.Node)
	case n == nil || n.dir != s.DirectoryID || !w.serving(n):
		w.violate("voter %d added although its directory %s does not serve", s.Node, s.DirectoryID)
	case w.voters[s.Node] != "":
		w.violate("voter %d added twice", s.Node)
	default:
		w.voters[s.Node] = s.DirectoryID
	}
}

func (w *World) removeVoter(s plan.Step) {
	if w.voters[s.Node] != s.DirectoryID {
		w.violate("voter %d removed under directory %s, it votes under %s", s.Node, s.DirectoryID, w.voters[s.Node])
		return
	}
	for id, n := range w.nodes {
		if n.dir == s.DirectoryID && !w.leaves(id) {
			w.violate("voter %d removed although its directory %s is still there, on node %d", s.Node, s.DirectoryID, id)
		}
	}
	delete(w.voters, s.Node)
	if up := w.caughtUpVoters(); up < len(w.voters)/2+1 {
		w.violate("removing voter %d leaves %d of %d voters caught up", s.Node, up, len(w.voters))
	}
}

func (w *World) caughtUpVoters() int {
	up := 0
	for id, dir := range w.voters {
		if n := w.nodes[id]; n != nil && n.dir == dir && n.running != "" && n.age >= startTicks+voterTicks {
			up++
		}
	}
	return up
}

func (w *World) preferred() {
	for i := range w.topics {
		for j := range w.topics[i].Partitions {
			p := &w.topics[i].Partitions[j]
			if first := p.Replicas[0]; slices.Contains(p.ISR, first) && w.nodes[first] != nil && w.serving(w.nodes[first]) {
				p.Leader = first
			}
		}
	}
}

// Crash ends a node's JVM; it starts again by itself.
func (w *World) Crash(id int32) {
	if n := w.nodes[id]; n != nil {
		n.running, n.age = "", 0
	}
}

// LoseDisk ends a node's JVM and empties its disk.
func (w *World) LoseDisk(id int32) {
	w.Crash(id)
	if n := w.nodes[id]; n != nil {
		n.dir, n.clusterID, n.nonce = "", "", ""
		w.emptyMore(n)
		for _, f := range w.moves.flying {
			delete(f.copied, id)
		}
	}
}

// Delete takes a node's object away by hand; its disk stays.
func (w *World) Delete(id int32) {
	if n := w.nodes[id]; n != nil {
		w.disks[id] = *n
		delete(w.nodes, id)
	}
}

// Swap ends two nodes' JVMs and gives each the other's disk.
func (w *World) Swap(a, b int32) {
	w.Crash(a)
	w.Crash(b)
	x, y := w.nodes[a], w.nodes[b]
	x.dir, y.dir = y.dir, x.dir
	x.clusterID, y.clusterID = y.clusterID, x.clusterID
	x.owner, y.owner = y.owner, x.owner
}

// Mount ends a node's JVM and gives it a disk of a node of another cluster; it gives back
// what puts its own disk back.
func (w *World) Mount(id int32, clusterID string) (back func()) {
	w.Crash(id)
	n := w.nodes[id]
	own := *n
	n.dir, n.clusterID, n.owner = "foreign", clusterID, id
	return func() {
		w.Crash(id)
		n.dir, n.clusterID, n.owner = own.dir, own.clusterID, own.owner
	}
}

// Break keeps a node's process from starting until it is mended.
func (w *World) Break(id int32, broken bool) {
	if n := w.nodes[id]; n != nil {
		if n.bad = broken; broken {
			w.Crash(id)
		}
	}
}

// Silence cuts a node's host off from the API; the node itself goes on. A machine that is
// gone stays silent.
func (w *World) Silence(id int32, silent bool) {
	if n := w.nodes[id]; n != nil && !n.pod.lost {
		n.silent = silent
	}
}

// Serving says whether a node truly serves.
func (w *World) Serving(id int32) bool {
	n := w.nodes[id]
	return n != nil && w.serving(n)
}

// Process is the hash of what a node runs.
func (w *World) Process(id int32) string { return w.nodes[id].running }

// Voters are the directory ids that vote, by node id.
func (w *World) Voters() map[int32]string { return w.voters }

// Config is the cluster-wide dynamic configuration.
func (w *World) Config() map[string]string { return w.config }

// String is the world in one line, for failures.
func (w *World) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "cluster %q leader %d:", w.ClusterID, w.leader)
	for _, id := range w.ids() {
		n := w.nodes[id]
		fmt.Fprintf(&s, " %d(%s %s age %d)", id, w.status(n).State, n.dir, n.age)
	}
	return s.String()
}

// Spare says whether every partition has a serving in-sync copy besides this node's, so
// that losing its disk loses no data.
func (w *World) Spare(id int32) bool {
	for i := range w.topics {
		for _, p := range w.topics[i].Partitions {
			others := slices.ContainsFunc(p.ISR, func(r int32) bool {
				return r != id && w.nodes[r] != nil && w.serving(w.nodes[r])
			})
			if slices.Contains(p.ISR, id) && !others {
				return false
			}
		}
	}
	return true
}
