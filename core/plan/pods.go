package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/layout"
)

// podSpec is a new node that is a pod: where it runs is Kubernetes' business.
func (p *pass) podSpec(w *cluster.Node) *api.KafkaNodeSpec {
	return &api.KafkaNodeSpec{
		ClusterName: p.want.Name, ClusterID: p.have.ClusterID, NodeID: w.ID, Pool: w.Pool,
		Roles: w.Roles, Revision: p.have.Revision, Process: w.Process, Dynamic: w.Dynamic,
		Address: kube.Address(p.want.Namespace, p.want.Name, w.ID), Ports: maps.Clone(w.Ports), State: p.want.State,
		Volumes: p.volumesFor(w, nil), Exposures: p.podExposures(w, nil),
	}
}

// newVolume is a volume that a pod gets. A claim that exists is adopted.
func (p *pass) newVolume(w *cluster.Node, v *api.Volume) api.NodeVolume {
	claim := p.have.Shared.Claims[w.ID][v.Name]
	if claim == "" {
		claim = kube.ClaimName(v.Name, p.want.Name, w.ID, 1)
	}
	return api.NodeVolume{Name: v.Name, Size: v.Size, Path: kube.VolumePath(v.Name), Claim: claim, StorageClassName: v.StorageClassName}
}

// podPorts are the ports that a pod does not have yet. It has every port for itself, so a
// listener that comes back gets the one it now asks for, lest another has its old one.
func (p *pass) podPorts(n *Node) map[string]int32 {
	missing := map[string]int32{}
	for name, port := range p.wanted[n.Spec.NodeID].Ports {
		if n.Spec.Ports[name] != port && (n.Spec.Ports[name] == 0 || !listens(&n.Spec.Process, name)) {
			missing[name] = port
		}
	}
	return missing
}

// listens says whether a process has a client listener.
func listens(process *api.ProcessSpec, listener string) bool {
	return slices.ContainsFunc(process.Listeners, func(l api.NodeListener) bool { return l.Name == listener })
}

// podExposures are the exposures that a node should have, with everything that was given.
// Those of listeners that the process still has stay until it has them no more.
func (p *pass) podExposures(w *cluster.Node, n *Node) []api.NodeExposure {
	var out []api.NodeExposure
	for _, e := range w.Exposures {
		out = append(out, p.given(e, n))
	}
	if n == nil {
		return out
	}
	for _, old := range n.Spec.Exposures {
		if listens(&n.Spec.Process, old.Listener) && !slices.ContainsFunc(out, func(e api.NodeExposure) bool { return e.Listener == old.Listener }) {
			out = append(out, old)
		}
	}
	slices.SortFunc(out, func(a, b api.NodeExposure) int { return strings.Compare(a.Listener, b.Listener) })
	return out
}

// given adds to an exposure what Kubernetes gave it. A port stays once it was given; the
// address of a load balancer is the load balancer's.
func (p *pass) given(e api.NodeExposure, n *Node) api.NodeExposure {
	e.BootstrapNodePort = p.have.Shared.Bootstrap[e.Listener].NodePort
	if n == nil {
		return e
	}
	if i := slices.IndexFunc(n.Spec.Exposures, func(old api.NodeExposure) bool { return old.Listener == e.Listener }); i >= 0 {
		old := n.Spec.Exposures[i]
		e.NodePort = old.NodePort
		if old.Type == e.Type {
			e.Address = old.Address
		}
		if old.BootstrapNodePort != 0 {
			e.BootstrapNodePort = old.BootstrapNodePort
		}
	}
	for _, found := range n.Status.Exposures {
		if found.Listener != e.Listener {
			continue
		}
		if e.NodePort == 0 {
			e.NodePort = found.NodePort
		}
		if found.Address != "" {
			e.Address = found.Address
		}
	}
	return e
}

// livePod brings up to date what a pod needs and that never restarts it.
func (p *pass) livePod(n *Node, spec *api.KafkaNodeSpec) (why []string) {
	w := p.wanted[spec.NodeID]
	if !w.Kubernetes {
		return nil
	}
	if exposures := p.podExposures(w, n); !slices.EqualFunc(exposures, spec.Exposures, sameExposure) {
		spec.Exposures = exposures
		why = append(why, "how its listeners are exposed changed")
	}
	return why
}

func sameVolumes(a, b []api.NodeVolume) bool {
	return slices.EqualFunc(a, b, func(x, y api.NodeVolume) bool {
		sameSize := x.Size == y.Size || x.Size != nil && y.Size != nil && x.Size.Cmp(*y.Size) == 0
		x.Size, y.Size = nil, nil
		return sameSize && x == y
	})
}

func sameExposure(a, b api.NodeExposure) bool {
	if !maps.Equal(a.Annotations, b.Annotations) {
		return false
	}
	return a.Listener == b.Listener && a.Type == b.Type && a.AddressType == b.AddressType && a.Host == b.Host &&
		a.LoadBalancerClass == b.LoadBalancerClass && a.NodePort == b.NodePort && a.Address == b.Address && a.BootstrapNodePort == b.BootstrapNodePort
}

// bootstrapAddresses names load balancers to begin with that have no address yet.
func (p *pass) bootstrapAddresses() {
	if p.want.State == api.StateStopped || !slices.ContainsFunc(p.want.Nodes, func(n cluster.Node) bool { return n.Kubernetes }) {
		return
	}
	for _, l := range p.want.Listeners {
		if l.Exposure.Type == api.ExposureLoadBalancer && l.Exposure.BootstrapHost == "" && p.have.Shared.Bootstrap[l.Name].Address == "" {
			p.block(-1, "WaitingForAddress", fmt.Sprintf("waiting for an address of Service %s (listener %s); if none comes, look at the Service and at what provides load balancers here",
				kube.BootstrapExposure(p.want.Name, l.Name), l.Name), false)
		}
	}
}

// ungiven says which address a broker would wait for in vain if it restarted now. What a
// listener waits for that is no longer wanted holds nothing up.
func (p *pass) ungiven(n *Node) string {
	for _, e := range p.spec(n.Spec.NodeID).Exposures {
		what := ""
		switch {
		case !listens(&p.wanted[n.Spec.NodeID].Process, e.Listener):
			continue
		case e.Type == api.ExposureNodePort && e.NodePort == 0:
			what = "a port"
		case e.Type == api.ExposureLoadBalancer && e.Host == "" && e.Address == "":
			what = "an address of its load balancer"
		default:
			continue
		}
		return fmt.Sprintf("broker %d is restarted for listener %s when Service %s has %s; if none comes, look at the Service and at what provides load balancers here",
			n.Spec.NodeID, e.Listener, kube.ExposureService(p.want.Name, n.Spec.NodeID, e.Listener), what)
	}
	return ""
}

// noteDirectories notes the ids of a node's log directories: an empty volume without a noted
// id was never used. What is known of a silent node may be that of volumes it no longer has.
func (p *pass) noteDirectories(n *Node, spec *api.KafkaNodeSpec) (noted bool) {
	if n.Status.State == api.NodeUnknown || spec.Volumes[0].Claim != n.Spec.Volumes[0].Claim {
		return false
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		for _, found := range n.Status.Volumes {
			own := found.ClusterID == spec.ClusterID && found.NodeID != nil && *found.NodeID == spec.NodeID
			if own && found.Name == v.Name && found.DirectoryID != "" && found.DirectoryID != v.DirectoryID {
				v.DirectoryID, noted = found.DirectoryID, true
			}
		}
	}
	return noted
}

// unformatted says what a node waits for before it gets volumes more: while its disks are
// being formatted, a new volume could not be told from one that was emptied.
func (p *pass) unformatted(n *Node) string {
	w, spec := p.wanted[n.Spec.NodeID], p.spec(n.Spec.NodeID)
	for _, name := range w.Process.Volumes {
		if !slices.ContainsFunc(spec.Volumes, func(v api.NodeVolume) bool { return v.Name == name }) {
			return fmt.Sprintf("node %d gets its new volume %s when its host is enrolled again", w.ID, name)
		}
	}
	if len(w.Process.Volumes) <= len(n.Spec.Process.Volumes) || spec.Storage == nil || n.Status.State == api.NodePending {
		return ""
	}
	for _, v := range spec.Volumes[:len(n.Spec.Process.Volumes)] {
		if v.DirectoryID == "" {
			return fmt.Sprintf("node %d gets its new volume when volume %s is formatted (%s)", w.ID, v.Name, nodeWord(n))
		}
	}
	return ""
}

// onlyAdded says that all that is empty of a node are volumes that were never used, while the
// metadata log is where it was.
func (p *pass) onlyAdded(n *Node) bool {
	if len(n.Status.Volumes) == 0 || metadataEmpty(n) {
		return false
	}
	for _, found := range n.Status.Volumes {
		at := slices.IndexFunc(n.Spec.Volumes, func(v api.NodeVolume) bool { return v.Name == found.Name })
		if at < 0 || (found.State == api.VolumeEmpty) == (n.Spec.Volumes[at].DirectoryID != "") {
			return false
		}
	}
	return true
}

// addedVolumes names volumes with data of others among those of a node that asks.
func (p *pass) addedVolumes(n *Node, id string) string {
	if !p.onlyAdded(n) {
		return ""
	}
	formatted := *n
	formatted.Status.Volumes = slices.DeleteFunc(slices.Clone(n.Status.Volumes), func(v api.VolumeStatus) bool { return v.State == api.VolumeEmpty })
	return wrongIDs(&formatted, id)
}

// replaceVolumes gives a node new claims in place of lost ones, on the user's word: a request
// for this node, or the taint on its machine. The old claims are kept.
func (p *pass) replaceVolumes() {
	for _, n := range p.existing() {
		asked := n.ReplaceAsked != "" && n.ReplaceAsked != n.Spec.Replaced
		lost := n.Status.Placement != nil && n.Status.Placement.Lost
		if !p.wanted[n.Spec.NodeID].Kubernetes || !asked && !lost || !p.mayReplace(n, asked) {
			continue
		}
		spec := p.spec(n.Spec.NodeID)
		for i := range spec.Volumes {
			v := &spec.Volumes[i]
			v.Claim = kube.ClaimName(v.Name, p.want.Name, spec.NodeID, kube.Attempt(v.Claim)+1)
			v.DirectoryID = ""
		}
		if spec.Storage != nil && spec.Storage.Answer == api.StorageBootstrap {
			// What it formatted may have been seen by nobody, but it may have voted.
			spec.Storage.Answer = api.StorageAdopt
		}
		reason := "a user says that its volumes are lost"
		if asked {
			spec.Replaced = n.ReplaceAsked
		} else {
			reason = fmt.Sprintf("its volumes are on machine %s, which is declared out of service or gone", n.Status.Placement.Node)
		}
		p.write(ReplaceVolumes, spec, reason)
	}
}

// mayReplace checks, with facts of this pass, that the cluster can do without what was on
// the volumes.
func (p *pass) mayReplace(n *Node, asked bool) bool {
	id, w, k := n.Spec.NodeID, p.wanted[n.Spec.NodeID], &p.have.Kafka
	const still = "its volumes are replaced only when that costs no data"
	switch {
	case n.Status.Ready || n.Status.State == api.NodeRunning || n.Status.State == api.NodeStarting:
		if asked { // else its machine is declared dead, but nothing is lost as long as it runs
			p.block(id, "StillRuns", fmt.Sprintf("node %d is asked to get new volumes, but it runs; %s: stop its machine first, or remove the annotation", id, still), true)
		}
	case !k.Known:
		p.block(id, "KafkaUnreadable", fmt.Sprintf("node %d waits for new volumes: %s, and Kafka cannot be read (%s)", id, still, k.Why), false)
	case p.alive(id):
		p.block(id, "WaitingForFence", fmt.Sprintf("node %d waits for new volumes: Kafka still counts on it; if that does not end, it runs: stop its machine first", id), false)
		p.again(2 * time.Second)
	case w.Broker() && !k.PartitionsKnown && !slices.Contains(p.have.Accept, id):
		p.block(id, "KafkaUnreadable", fmt.Sprintf("node %d waits for new volumes: %s, and no broker answers", id, still), false)
	case w.Broker() && lastCopies(k.Topics, id) != "" && !slices.Contains(p.have.Accept, id):
		p.block(id, "LastCopyLost", fmt.Sprintf("node %d gets no new volumes: the last complete copy of %s may be on the old ones; bring the machine back, or accept the loss with the annotation castellan.dev/accept-data-loss: \"%d\" on the KafkaCluster", id, lastCopies(k.Topics, id), id), true)
	case w.Controller() && p.quorumWithout(id) != "":
		p.block(id, "QuorumAtRisk", fmt.Sprintf("node %d waits for new volumes: %s", id, p.quorumWithout(id)), true)
	default:
		return true
	}
	return false
}

// alive says whether Kafka itself counts on a node, whatever its machine says.
func (p *pass) alive(id int32) bool {
	if b := p.brokers[id]; b != nil && !b.Fenced {
		return true
	}
	v := voter(&p.have.Kafka, id)
	return v != nil && caughtUp(&p.have.Kafka.Quorum, v)
}

// spare says whether any one node, whichever it is, could be stopped now.
func (p *pass) spare() bool {
	k := &p.have.Kafka
	if !k.Known || !k.PartitionsKnown || p.want.State == api.StateStopped {
		return false
	}
	nodes := p.existing()
	if len(nodes) != len(p.want.Nodes) {
		return false
	}
	for _, n := range nodes {
		spec := p.spec(n.Spec.NodeID)
		if !p.present(n) || layout.ProcessHash(spec.Process) != layout.ProcessHash(n.Spec.Process) {
			return false
		}
	}
	if _, behind := p.lagging(); behind {
		return false
	}
	if _, behind := p.laggingVoter(); behind {
		return false
	}
	impact := newImpact(k, nodes, p.absent())
	for _, n := range nodes {
		why := p.mayStop(n, impact)
		if why == nil {
			continue
		}
		if why.Stalled && p.wanted[n.Spec.NodeID].Kubernetes {
			p.plan.Held = why.Message
		}
		return false
	}
	return true
}

// KeepSupervisors lets nodes keep the supervisor that they run with while nothing else of
// their process changes: a newer Castellan alone restarts nothing, its supervisor comes
// along with the next restart that has another reason. They keep the last restart that was
// asked for as well.
func KeepSupervisors(want cluster.Model, nodes []Node) cluster.Model {
	want.Nodes = slices.Clone(want.Nodes)
	for i := range want.Nodes {
		w := &want.Nodes[i]
		at := slices.IndexFunc(nodes, func(n Node) bool { return n.Spec.NodeID == w.ID })
		if at < 0 {
			continue
		}
		if w.Process.Supervisor == "" { // a preview does not know the operator's own
			w.Process.Supervisor = nodes[at].Spec.Process.Supervisor
		}
		w.Process.Restart = nodes[at].Spec.Process.Restart // only an Operation asks for another
		kept := w.Process
		kept.Supervisor = nodes[at].Spec.Process.Supervisor
		if layout.ProcessHash(kept) == layout.ProcessHash(nodes[at].Spec.Process) {
			w.Process = kept
		}
	}
	return want
}

// samePod says whether two pods are placed alike.
func samePod(a, b *api.PodSettings) bool {
	return layout.ProcessHash(api.ProcessSpec{Pod: a}) == layout.ProcessHash(api.ProcessSpec{Pod: b})
}
