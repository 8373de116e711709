package sim

import (
	"fmt"
	"maps"
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
)

// pods is what the pods of a cluster have besides their nodes.
type pods struct {
	// claims are the newest PersistentVolumeClaims by node and volume.
	claims map[int32]map[string]string
	// used are all claims that a node ever had, with the node.
	used map[string]int32
	// more are the directories on volumes behind a node's first one, by claim.
	more map[string]string
	// ports are the node ports that were given, by node and listener; node -1 is bootstrap.
	ports map[int32]map[string]int32
	// stingy gives no ports.
	stingy bool
	next   int32
}

// podFacts are those of one pod.
type podFacts struct {
	asked string // token of a request for new volumes
	lost  bool   // its machine is gone, and everybody knows
	zone  string
	laid  int // how many of its volumes partitions lie on: those that were ever formatted
}

func newPods() pods {
	return pods{claims: map[int32]map[string]string{}, used: map[string]int32{}, more: map[string]string{}, ports: map[int32]map[string]int32{}, next: 30000}
}

func isPod(n *node) bool { return n.spec.Host == "" }

func (w *World) shared() plan.Shared {
	s := plan.Shared{Claims: map[int32]map[string]string{}, Bootstrap: map[string]api.ExposureStatus{}}
	for id, claims := range w.pods.claims {
		s.Claims[id] = maps.Clone(claims)
	}
	for listener, port := range w.pods.ports[-1] {
		s.Bootstrap[listener] = api.ExposureStatus{Listener: listener, NodePort: port}
	}
	return s
}

// directory is the id on a node's volume; empty for an empty one.
func (w *World) directory(n *node, volume int) string {
	if volume == 0 || !isPod(n) {
		return n.dir
	}
	return w.pods.more[n.spec.Volumes[volume].Claim]
}

// anyEmpty says whether a volume that the process uses is empty.
func (w *World) anyEmpty(n *node) bool {
	for _, i := range usedVolumes(n) {
		if w.directory(n, i) == "" {
			return true
		}
	}
	return false
}

// has says whether the disk of a node that a partition lies on holds anything: partitions
// lie on its volumes by turns.
func (w *World) has(id int32, partition int) bool {
	n := w.nodes[id]
	return n != nil && w.directory(n, partition%max(1, n.pod.laid)) != ""
}

// formatMore formats the empty volumes behind the first one.
func (w *World) formatMore(n *node) {
	n.pod.laid = len(n.spec.Process.Volumes)
	for i := 1; isPod(n) && i < len(n.spec.Process.Volumes); i++ {
		if claim := n.spec.Volumes[i].Claim; w.pods.more[claim] == "" {
			w.fresh++
			w.pods.more[claim] = fmt.Sprintf("dir-%d-more-%d", n.spec.NodeID, w.fresh)
		}
	}
}

func (w *World) emptyMore(n *node) {
	for _, v := range n.spec.Volumes {
		delete(w.pods.more, v.Claim)
	}
}

// bind notes the claims that a node has now.
func (w *World) bind(n *node) {
	if !isPod(n) {
		return
	}
	id := n.spec.NodeID
	n.pod.zone = []string{"a", "b", "c"}[id%3]
	if w.pods.claims[id] == nil {
		w.pods.claims[id] = map[string]string{}
	}
	for _, v := range n.spec.Volumes {
		if was := w.pods.claims[id][v.Name]; was != v.Claim && w.pods.used[v.Claim] == id+1 {
			w.violate("node %d goes back from claim %s to %s", id, was, v.Claim)
		}
		if owner := w.pods.used[v.Claim]; owner != 0 && owner != id+1 {
			w.violate("node %d takes claim %s of node %d", id, v.Claim, owner-1)
		}
		w.pods.claims[id][v.Name], w.pods.used[v.Claim] = v.Claim, id+1
	}
}

// judgePod checks what a step makes of a pod's volumes and exposures.
func (w *World) judgePod(n *node, s plan.Step) {
	id, now := s.Node, s.Spec
	for i, v := range n.spec.Volumes {
		switch {
		case i >= len(now.Volumes) || now.Volumes[i].Name != v.Name:
			w.violate("%s takes volume %s from node %d", s.Kind, v.Name, id)
			return
		case v.Size != nil && now.Volumes[i].Size.Cmp(*v.Size) < 0:
			w.violate("%s shrinks volume %s of node %d", s.Kind, v.Name, id)
		case v.Claim != now.Volumes[i].Claim && s.Kind != plan.ReplaceVolumes:
			w.violate("%s gives volume %s of node %d another claim", s.Kind, v.Name, id)
		}
	}
	w.judgePorts(n, s)
}

func (w *World) judgePorts(n *node, s plan.Step) {
	id, now := s.Node, s.Spec
	for _, e := range n.spec.Exposures {
		at := slices.IndexFunc(now.Exposures, func(x api.NodeExposure) bool { return x.Listener == e.Listener })
		if at >= 0 && e.NodePort != 0 && now.Exposures[at].NodePort != e.NodePort {
			w.violate("%s changes the port of listener %s of node %d from %d to %d", s.Kind, e.Listener, id, e.NodePort, now.Exposures[at].NodePort)
		}
	}
	if s.Kind != plan.UpdateProcess {
		return
	}
	for _, l := range now.Process.Listeners {
		at := slices.IndexFunc(now.Exposures, func(x api.NodeExposure) bool { return x.Listener == l.Name })
		if at >= 0 && now.Exposures[at].NodePort == 0 {
			w.violate("node %d restarts for listener %s, which has no port", id, l.Name)
		}
	}
}

// replace puts a node onto new volumes, on another machine if it must, and judges whether
// that may be: nobody asked, it serves, or the last copy of something was there.
func (w *World) replace(n *node) {
	id := n.spec.NodeID
	switch {
	case n.pod.asked == "" && !n.pod.lost:
		w.violate("node %d gets new volumes that nobody asked for", id)
	case w.serving(n):
		w.violate("node %d gets new volumes while it serves", id)
	}
	for i := range w.topics {
		for j := range w.topics[i].Partitions {
			name := partitionName(w.topics[i].Name, j)
			if held := w.holders[name]; slices.Contains(held, id) && !w.elsewhere(held, id, j) {
				w.violate("node %d gets new volumes, but %s had its last copy on the old ones", id, name)
			}
		}
	}
	w.Crash(id)
	n.dir, n.clusterID, n.nonce, n.silent, n.pod.lost = "", "", "", false, false
	w.Replaced++
}

// give lets Kubernetes give what exposures ask for.
func (w *World) give() {
	for _, id := range w.ids() {
		for _, e := range w.nodes[id].spec.Exposures {
			w.givePort(id, e.Listener)
			w.givePort(-1, e.Listener)
		}
	}
}

func (w *World) givePort(id int32, listener string) {
	if w.pods.ports[id] == nil {
		w.pods.ports[id] = map[string]int32{}
	}
	if w.pods.ports[id][listener] == 0 && !w.pods.stingy {
		w.pods.ports[id][listener] = w.pods.next
		w.pods.next++
	}
}

// addPod adds what only Kubernetes tells. Of a pod whose machine is silent nothing is heard.
func (w *World) addPod(n *node, st *api.KafkaNodeStatus) {
	st.Placement = &api.NodePlacement{Node: fmt.Sprintf("machine-%d", n.spec.NodeID), Zone: n.pod.zone, Lost: n.pod.lost}
	for _, e := range n.spec.Exposures {
		st.Exposures = append(st.Exposures, api.ExposureStatus{Listener: e.Listener, NodePort: w.pods.ports[n.spec.NodeID][e.Listener]})
	}
	if n.silent {
		st.Reason, st.Nonce, st.Volumes, st.Process = "MachineSilent", "", nil, nil
	}
}

// Ask asks for new volumes of a node, as the annotation does.
func (w *World) Ask(id int32, token string) {
	if n := w.nodes[id]; n != nil {
		n.pod.asked = token
	}
}

// LoseMachine ends a node with its disks and makes its machine silent; declared says that
// Kubernetes knows it for gone.
func (w *World) LoseMachine(id int32, declared bool) {
	w.LoseDisk(id)
	if n := w.nodes[id]; n != nil {
		n.silent, n.pod.lost = true, declared
	}
}

// EmptyVolume ends a node's JVM and empties one of its volumes behind the first.
func (w *World) EmptyVolume(id int32, volume int) {
	w.Crash(id)
	n := w.nodes[id]
	delete(w.pods.more, n.spec.Volumes[volume].Claim)
	n.nonce = ""
}

// Stingy keeps Kubernetes from giving ports, or no longer.
func (w *World) Stingy(stingy bool) { w.pods.stingy = stingy }
