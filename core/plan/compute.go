package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/host"
	"castellan.dev/castellan/core/layout"
)

// Compute decides the next steps. It is a pure function: the same Model, World and time
// give the same Plan, and a World that already is as wanted gives an empty one.
func Compute(want cluster.Model, have World, now time.Time) Plan {
	p := newPass(want, have, now)
	p.op.hold = have.Hold
	if want.Paused {
		p.block(-1, "Paused", "spec.paused is true: nothing is changed until it is false", false)
		p.pausedOperations()
		p.plan.Spare = p.spare()
		return p.plan
	}
	p.keepIdentities()
	p.operations()
	p.prepareMoves()
	p.create()
	p.replaceVolumes()
	p.live()
	p.movedVolumes()
	p.bootstrapAddresses()
	p.storage()
	if want.State == api.StateStopped {
		p.stopAll()
		p.reportActive()
		return p.plan
	}
	p.startAll()
	p.voters()
	p.configs()
	p.roll()
	p.finalize()
	p.doMoves()
	p.leave()
	p.dismiss()
	p.leaders()
	p.reportActive()
	p.plan.Spare = p.spare()
	return p.plan
}

// pass is one computation: its inputs, indexed, and the plan as it grows.
type pass struct {
	want cluster.Model
	have World
	now  time.Time
	plan Plan

	wanted map[int32]*cluster.Node
	nodes  map[int32]*Node
	// specs are the node specs as they will stand after the steps decided so far, so that
	// two stages never write the same node with half the truth.
	specs map[int32]*api.KafkaNodeSpec
	// registered brokers by id.
	brokers map[int32]*Broker
	// leaving are nodes that exist and are not wanted any more. Until they are gone they are
	// kept as they are, like any other node.
	leaving map[int32]bool
	op      operating
	moving  moving
}

func newPass(want cluster.Model, have World, now time.Time) *pass {
	p := &pass{
		want: want, have: have, now: now,
		wanted:  make(map[int32]*cluster.Node, len(want.Nodes)),
		nodes:   make(map[int32]*Node, len(have.Nodes)),
		specs:   make(map[int32]*api.KafkaNodeSpec, len(have.Nodes)),
		brokers: make(map[int32]*Broker, len(have.Kafka.Brokers)), leaving: map[int32]bool{},
	}
	p.keepLeaving()
	p.have.Hosts = slices.Clone(have.Hosts) // what this pass gives is counted without changing the caller's facts
	for i := range p.have.Hosts {
		p.have.Hosts[i].Claimed = maps.Clone(have.Hosts[i].Claimed)
		if p.have.Hosts[i].Claimed == nil {
			p.have.Hosts[i].Claimed = map[int32]string{}
		}
	}
	for i := range p.want.Nodes {
		p.wanted[p.want.Nodes[i].ID] = &p.want.Nodes[i]
	}
	for i := range have.Nodes {
		p.nodes[have.Nodes[i].Spec.NodeID] = &have.Nodes[i]
	}
	for i := range have.Kafka.Brokers {
		p.brokers[have.Kafka.Brokers[i].ID] = &have.Kafka.Brokers[i]
	}
	return p
}

func (p *pass) block(node int32, reason, message string, stalled bool) {
	p.plan.Blocked = append(p.plan.Blocked, Block{Node: node, Reason: reason, Message: message, Stalled: stalled})
}

func (p *pass) step(s Step) { p.plan.Steps = append(p.plan.Steps, s) }

// spec is a node's spec as it will stand after the steps decided so far; the caller may
// change the copy that it returns and hand it to write.
func (p *pass) spec(id int32) api.KafkaNodeSpec {
	if s, ok := p.specs[id]; ok {
		return *s.DeepCopy()
	}
	return *p.nodes[id].Spec.DeepCopy()
}

// peek is spec without a copy, for who only reads.
func (p *pass) peek(id int32) *api.KafkaNodeSpec {
	if s, ok := p.specs[id]; ok {
		return s
	}
	return &p.nodes[id].Spec
}

// write decides a step that gives a node this spec.
func (p *pass) write(kind Kind, spec api.KafkaNodeSpec, reason string) {
	p.specs[spec.NodeID] = &spec
	p.step(Step{Kind: kind, Node: spec.NodeID, Reason: reason, Spec: &spec})
}

// existing are the wanted nodes that exist, in ascending order of id.
func (p *pass) existing() []*Node {
	out := make([]*Node, 0, len(p.want.Nodes))
	for i := range p.want.Nodes {
		if n, ok := p.nodes[p.want.Nodes[i].ID]; ok {
			out = append(out, n)
		}
	}
	return out
}

// keepIdentities keeps a node what it is where the Model calls for another node under its
// id: other roles, another pool, other log directories or an older release line. A spec cannot
// ask for that, but one that is judged without its history (ClusterRevisions deleted by
// hand) could.
func (p *pass) keepIdentities() {
	p.want.Nodes = slices.Clone(p.want.Nodes)
	for i := range p.want.Nodes {
		w := &p.want.Nodes[i]
		p.wanted[w.ID] = w
		n, ok := p.nodes[w.ID]
		if !ok {
			continue
		}
		why := p.otherNode(w, &n.Spec)
		if why == "" {
			continue
		}
		p.block(w.ID, "OtherNode", fmt.Sprintf("node %d is left as it is: %s; put the spec back, or give new nodes other ids", w.ID, why), true)
		hosts := w.Hosts
		*w = asItIs(&n.Spec)
		w.Hosts = hosts
	}
}

// asItIs is the node that a spec makes, so that nothing of it changes.
func asItIs(is *api.KafkaNodeSpec) cluster.Node {
	dynamic := maps.Clone(is.Dynamic)
	for _, key := range ownKeys() {
		delete(dynamic, key)
	}
	return cluster.Node{
		ID: is.NodeID, Pool: is.Pool, Roles: is.Roles, Process: is.Process, Dynamic: dynamic,
		Volumes: volumesAsTheyAre(is), Ports: is.Ports, Kubernetes: isPod(is), Exposures: is.Exposures,
	}
}

func volumesAsTheyAre(is *api.KafkaNodeSpec) []api.Volume {
	out := make([]api.Volume, 0, len(is.Volumes))
	for _, v := range is.Volumes {
		out = append(out, api.Volume{Name: v.Name, Size: v.Size, StorageClassName: v.StorageClassName})
	}
	return out
}

// isPod says whether a node that exists is a pod.
func isPod(is *api.KafkaNodeSpec) bool { return is.Host == "" && is.Process.Image != "" }

// otherNode says what makes a wanted node another one than the one that exists.
func (p *pass) otherNode(w *cluster.Node, is *api.KafkaNodeSpec) string {
	switch {
	case !slices.Equal(slices.Sorted(slices.Values(w.Roles)), slices.Sorted(slices.Values(is.Roles))):
		return fmt.Sprintf("its roles cannot change from %v to %v", is.Roles, w.Roles)
	case w.Pool != is.Pool:
		return fmt.Sprintf("it belongs to pool %s, not to %s", is.Pool, w.Pool)
	case w.Kubernetes != isPod(is):
		return "it cannot move between hosts and Kubernetes"
	case w.Process.Volumes[0] != is.Process.Volumes[0]: // the metadata log is there
		return fmt.Sprintf("its log directories cannot change from %v to %v", is.Process.Volumes, w.Process.Volumes)
	case older(w, is) && !p.have.Kafka.Known:
		return fmt.Sprintf("it was permitted to run %s, and whether it can go back to %s is known only when Kafka can be read", is.Process.Version, w.Process.Version)
	case older(w, is) && !cluster.Understands(w.Process.Version, p.have.Kafka.MetadataVersion):
		return fmt.Sprintf("it was permitted to run %s, and going back to %s is not possible: it does not understand metadata.version %s, which is finalized", is.Process.Version, w.Process.Version, p.have.Kafka.MetadataVersion)
	default:
		return ""
	}
}

// older says whether a node is wanted with an earlier release line than it has.
func older(w *cluster.Node, is *api.KafkaNodeSpec) bool {
	return cluster.CompareVersions(cluster.ReleaseLine(w.Process.Version), cluster.ReleaseLine(is.Process.Version)) < 0
}

// live brings everything up to date that never restarts a node.
func (p *pass) live() {
	controllers := p.controllerEndpoints()
	for _, n := range p.existing() {
		spec := p.spec(n.Spec.NodeID)
		var why []string
		if !slices.Equal(spec.BootstrapControllers, controllers) {
			spec.BootstrapControllers = controllers
			why = append(why, "the list of controllers changed")
		}
		if rec := p.dynamicRecord(n); !maps.Equal(spec.Dynamic, rec) {
			spec.Dynamic = rec
			why = append(why, "per-broker dynamic configuration changed")
		}
		if c, ok := p.have.Certificates[spec.NodeID]; ok && c.Digest != spec.Certificates.Digest {
			spec.Certificates = c
			why = append(why, "the node's certificate was issued")
		}
		if rack, known := p.hostRack(spec.Host); known && rack != spec.Rack {
			spec.Rack = rack
			why = append(why, "the host's rack changed, which takes effect at the next start")
		}
		if ports, reason := p.missingPorts(n); reason != "" {
			p.block(spec.NodeID, "NoPort", reason, true)
		} else if len(ports) > 0 {
			maps.Copy(spec.Ports, ports)
			why = append(why, "ports for new listeners")
		}
		if volumes := p.volumesFor(p.wanted[spec.NodeID], &spec); !sameVolumes(volumes, spec.Volumes) {
			why = append(why, changedVolumes(spec.Volumes, volumes))
			spec.Volumes = volumes
		}
		why = append(why, p.livePod(n, &spec)...)
		if len(why) > 0 {
			p.write(UpdateLive, spec, strings.Join(why, "; "))
		}
	}
}

// hostRack is the rack of a host that is enrolled.
func (p *pass) hostRack(name string) (rack string, known bool) {
	for i := range p.have.Hosts {
		if p.have.Hosts[i].Name == name {
			return p.have.Hosts[i].Spec.Rack, true
		}
	}
	return "", false
}

// missingPorts gives ports to listeners that a node does not have yet.
func (p *pass) missingPorts(n *Node) (map[string]int32, string) {
	if p.wanted[n.Spec.NodeID].Kubernetes {
		return p.podPorts(n), ""
	}
	missing := map[string]int32{}
	for name, port := range p.wanted[n.Spec.NodeID].Ports {
		if _, ok := n.Spec.Ports[name]; !ok {
			missing[name] = port
		}
	}
	if len(missing) == 0 {
		return missing, ""
	}
	for i := range p.have.Hosts {
		h := &p.have.Hosts[i]
		if h.Name != n.Spec.Host {
			continue
		}
		ports, err := host.Ports(h.Spec, slices.Collect(maps.Keys(h.Claimed)), missing)
		if err != nil {
			return nil, fmt.Sprintf("node %d: %v", n.Spec.NodeID, err)
		}
		for _, port := range ports {
			h.Claimed[port] = p.owner(n.Spec.NodeID)
		}
		return ports, ""
	}
	return nil, fmt.Sprintf("node %d: its host %s is not enrolled", n.Spec.NodeID, n.Spec.Host)
}

// owner names a node in claims.
func (p *pass) owner(id int32) string {
	return fmt.Sprintf("%s/%s/%d", p.want.Namespace, p.want.Name, id)
}

// controllerEndpoints are host:port of the CONTROLLER listener of every wanted controller
// that exists or is being created.
func (p *pass) controllerEndpoints() []string {
	var out []string
	for i := range p.want.Nodes {
		w := &p.want.Nodes[i]
		if !w.Controller() {
			continue
		}
		if _, ok := p.nodes[w.ID]; !ok && p.specs[w.ID] == nil || p.outOfQuorum(w.ID) {
			continue
		}
		spec := p.spec(w.ID)
		out = append(out, endpoint(spec))
	}
	return out
}

func endpoint(spec api.KafkaNodeSpec) string {
	return layout.HostPort(spec.Address, spec.Ports[layout.ControllerListener])
}

// running says whether a node's JVM may be doing work.
func running(n *Node) bool {
	switch n.Status.State {
	case api.NodeStarting, api.NodeRunning, api.NodeStopping, api.NodeUnknown:
		return true
	default:
		return false
	}
}

// upToDate says whether the process that runs is the one of the node's spec.
func upToDate(n *Node) bool {
	return n.Status.Process != nil && n.Status.Process.Hash == layout.ProcessHash(n.Spec.Process)
}

// settled says whether a node is what its spec says, and ready.
func settled(n *Node) bool { return n.Status.Ready && upToDate(n) }
