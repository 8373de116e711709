package plan

import (
	"fmt"
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/host"
	"castellan.dev/castellan/core/layout"
)

// volumesFor are the volumes that a node should have: those it has, grown where the spec says
// so, and new ones behind them. One that its pool no longer has stays until its process has
// it no more; its data stays for good.
func (p *pass) volumesFor(w *cluster.Node, is *api.KafkaNodeSpec) []api.NodeVolume {
	var out []api.NodeVolume
	named := func(name string) bool {
		return slices.ContainsFunc(out, func(v api.NodeVolume) bool { return v.Name == name })
	}
	if is != nil {
		for _, have := range is.Volumes {
			i := slices.IndexFunc(w.Volumes, func(v api.Volume) bool { return v.Name == have.Name })
			switch {
			case i >= 0:
				if size := w.Volumes[i].Size; w.Kubernetes && size != nil && (have.Size == nil || have.Size.Cmp(*size) < 0) {
					have.Size = size
				}
				out = append(out, have)
			case slices.Contains(p.processOf(is).Volumes, have.Name):
				out = append(out, have)
			}
		}
	}
	for i := range w.Volumes {
		v := &w.Volumes[i]
		if named(v.Name) {
			continue
		}
		if w.Kubernetes {
			out = append(out, p.newVolume(w, v))
		} else if at := p.hostOf(is); at != nil {
			out = append(out, api.NodeVolume{Name: v.Name, Size: v.Size, Path: host.Path(root(at.Spec, *v), p.want.Namespace, p.want.Name, w.ID, v.Name)})
		}
	}
	return out
}

// movedVolumes names volumes that the spec has elsewhere than they are: taken out and added again
// under the same name before their data had left.
func (p *pass) movedVolumes() {
	for _, n := range p.existing() {
		w := p.wanted[n.Spec.NodeID]
		for i := range w.Volumes {
			v := &w.Volumes[i]
			if v.Path == "" || w.Kubernetes || p.leaving[w.ID] {
				continue
			}
			want := host.Path(v.Path, p.want.Namespace, p.want.Name, w.ID, v.Name)
			at := slices.IndexFunc(n.Spec.Volumes, func(have api.NodeVolume) bool { return have.Name == v.Name && have.Path != want })
			if at < 0 {
				continue
			}
			p.block(w.ID, "VolumeMoved", fmt.Sprintf("volume %s of node %d has its data in %s and cannot be in %s: give what is to be there another name, or let it leave first", v.Name, w.ID, n.Spec.Volumes[at].Path, want), true)
		}
	}
}

// processOf is what a node was last permitted to run, so that it may still be running it.
func (p *pass) processOf(is *api.KafkaNodeSpec) *api.ProcessSpec {
	if n, ok := p.nodes[is.NodeID]; ok {
		return &n.Spec.Process
	}
	return &is.Process
}

func (p *pass) hostOf(is *api.KafkaNodeSpec) *Host {
	if is == nil {
		return nil
	}
	i := slices.IndexFunc(p.have.Hosts, func(h Host) bool { return h.Name == is.Host })
	if i < 0 {
		return nil
	}
	return &p.have.Hosts[i]
}

// changedVolumes says in stable words what changes of a node's volumes.
func changedVolumes(before, after []api.NodeVolume) string {
	switch {
	case len(after) > len(before):
		return "volumes are added"
	case len(after) < len(before):
		return "volumes that it no longer uses are let go; their data is kept"
	default:
		return "volumes grow"
	}
}

// emptyLogDirs asks for the log dirs to be emptied that nodes are to lose.
func (p *pass) emptyLogDirs(r balance.Request) (balance.Request, bool) {
	r.Mode = balance.Disks
	for _, n := range p.existing() {
		for _, dir := range p.leftDirs(n) {
			if b, at := p.logDir(dir); b == nil || at < 0 || b.LogDirs[at].Offline {
				continue // it is not there yet, or not to be reached now, or can be read no more
			}
			r.Brokers = append(r.Brokers, n.Spec.NodeID)
			r.Empty = append(r.Empty, dir)
		}
	}
	r.Brokers = slices.Compact(r.Brokers)
	return r, slices.ContainsFunc(r.Empty, p.holdsInDir)
}

// leftDirs are the log dirs of a broker that its pool no longer has.
func (p *pass) leftDirs(n *Node) []balance.DirRef {
	var out []balance.DirRef
	w := p.wanted[n.Spec.NodeID]
	if !w.Broker() {
		return nil
	}
	for _, name := range leftVolumes(w, &n.Spec) {
		i := slices.IndexFunc(n.Spec.Volumes, func(v api.NodeVolume) bool { return v.Name == name })
		if i >= 0 {
			out = append(out, balance.DirRef{Broker: n.Spec.NodeID, Path: layout.DataDir(layout.Volume{Path: n.Spec.Volumes[i].Path})})
		}
	}
	return out
}

// logDir finds a log dir in the facts: nil without its broker, an index below zero when the
// broker does not say that it has it.
func (p *pass) logDir(dir balance.DirRef) (*balance.Broker, int16) {
	brokers := p.moving.facts.Brokers
	b := slices.IndexFunc(brokers, func(b balance.Broker) bool { return b.ID == dir.Broker })
	if b < 0 {
		return nil, -1
	}
	return &brokers[b], int16(slices.IndexFunc(brokers[b].LogDirs, func(d balance.LogDir) bool { return d.Path == dir.Path })) //nolint:gosec // few
}

// holdsInDir says whether a replica is in a log dir, or on its way there. What is in those of a
// broker that is down nobody knows, so any replica of it may be there. One that has failed holds
// only what nobody else leads: all else Kafka makes anew in the log dirs that are left.
func (p *pass) holdsInDir(dir balance.DirRef) bool {
	c := p.moving.facts
	b, at := p.logDir(dir)
	switch {
	case b == nil, b.Alive && at < 0:
		return false
	case at < 0:
		return p.holdsReplica(dir.Broker)
	}
	failed := b.LogDirs[at].Offline
	for i := range c.Topics {
		for j := range c.Topics[i].Partitions {
			part := &c.Topics[i].Partitions[j]
			for _, r := range part.Replicas {
				if r.Broker == dir.Broker && (r.Dir == at || failed && r.State.Has(balance.Offline) && part.Leader < 0) {
					return true
				}
			}
		}
	}
	return slices.ContainsFunc(c.Copies, func(f balance.Copy) bool { return f.Broker == dir.Broker && f.Dir == at })
}

// holdsLeftVolume says whether a broker may not lose a volume yet: something is there, or
// nobody knows.
func (p *pass) holdsLeftVolume(n *Node) bool {
	dirs := p.leftDirs(n)
	if len(dirs) == 0 {
		return false
	}
	if p.moving.facts == nil {
		return true
	}
	return slices.ContainsFunc(dirs, p.holdsInDir)
}

// cordonedVolumes are the log dirs of a broker that it is to lose, as Kafka writes lists.
func (p *pass) cordonedVolumes(n *Node) string {
	text := ""
	for _, dir := range p.leftDirs(n) {
		if text != "" {
			text += ","
		}
		text += dir.Path
	}
	return text
}

// sharedWithin is how far apart the free bytes of one volume may be that is looked at twice.
const sharedWithin = 1000 // a thousandth of it

// markVolumes finds log dirs on one machine that share a volume, which Kafka does not tell: the
// same size and as good as the same free bytes.
func (p *pass) markVolumes() {
	type found struct {
		name string
		dir  balance.LogDir
	}
	known := map[string][]found{}
	for i := range p.moving.facts.Brokers {
		b := &p.moving.facts.Brokers[i]
		at := p.machine(b.ID)
		if at == "" {
			continue
		}
		b.LogDirs = slices.Clone(b.LogDirs)
		for j := range b.LogDirs {
			d := &b.LogDirs[j]
			if d.Total <= 0 || d.Offline {
				continue
			}
			same := slices.IndexFunc(known[at], func(f found) bool {
				apart := f.dir.Usable - d.Usable
				return f.dir.Total == d.Total && max(apart, -apart) <= d.Total/sharedWithin
			})
			if same < 0 {
				known[at] = append(known[at], found{name: fmt.Sprintf("%s %d", at, len(known[at])), dir: *d})
				same = len(known[at]) - 1
			}
			d.Volume = known[at][same].name
		}
	}
}

// machine is where a broker runs; empty when that is not known.
func (p *pass) machine(id int32) string {
	n, ok := p.nodes[id]
	switch {
	case !ok:
		return ""
	case n.Spec.Host != "":
		return n.Spec.Host
	case n.Status.Placement != nil:
		return n.Status.Placement.Node
	default:
		return ""
	}
}
