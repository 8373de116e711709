package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/host"
)

// create makes the wanted nodes that do not exist yet, each with its host, ports and
// paths, which then stand in its spec for good.
func (p *pass) create() {
	pl := newPlacer(p)
	var made []int32
	for i := range p.want.Nodes {
		w := &p.want.Nodes[i]
		if _, ok := p.nodes[w.ID]; ok {
			continue
		}
		if p.waits(w) {
			continue
		}
		spec, why := pl.place(w)
		if why != "" {
			p.block(w.ID, "NoHost", why, true)
			continue
		}
		p.specs[w.ID] = spec
		made = append(made, w.ID)
	}
	controllers := p.controllerEndpoints()
	for _, id := range made {
		spec := p.specs[id]
		spec.BootstrapControllers = controllers
		p.step(Step{Kind: CreateNode, Node: id, Spec: spec, Reason: fmt.Sprintf("pool %s wants node %d", spec.Pool, id)})
	}
}

// placer gives hosts and ports to new nodes, counting what it gave in this pass.
type placer struct {
	p     *pass
	hosts []placedHost
	// inRack counts a pool's nodes in a rack.
	inRack map[rackPool]int
}

type rackPool struct{ rack, pool string }

type placedHost struct {
	*Host
	total    int
	poolHere map[string]int
}

func newPlacer(p *pass) *placer {
	pl := &placer{p: p, inRack: map[rackPool]int{}}
	poolsOn := map[string][]string{}
	for i := range p.have.Nodes {
		n := &p.have.Nodes[i].Spec
		poolsOn[n.Host] = append(poolsOn[n.Host], n.Pool)
	}
	for i := range p.have.Hosts {
		h := &p.have.Hosts[i]
		ph := placedHost{Host: h, total: h.Nodes, poolHere: map[string]int{}}
		for _, pool := range poolsOn[h.Name] {
			ph.poolHere[pool]++
			pl.inRack[rackPool{h.Spec.Rack, pool}]++
		}
		pl.hosts = append(pl.hosts, ph)
	}
	return pl
}

// place decides where a node lives, or says why it cannot live anywhere.
func (pl *placer) place(w *cluster.Node) (*api.KafkaNodeSpec, string) {
	if w.Kubernetes {
		return pl.p.podSpec(w), ""
	}
	if len(pl.hosts) == 0 {
		return nil, fmt.Sprintf("node %d has no place: no Host is enrolled; start an agent on a machine (castellan up does so on this one)", w.ID)
	}
	var fit []*placedHost
	var whynot []string
	for i := range pl.hosts {
		if why := pl.unfit(&pl.hosts[i], w); why != "" {
			whynot = append(whynot, pl.hosts[i].Name+" "+why)
			continue
		}
		fit = append(fit, &pl.hosts[i])
	}
	if len(fit) == 0 {
		return nil, fmt.Sprintf("node %d has no place: %s", w.ID, someOf(whynot))
	}
	h := slices.MinFunc(fit, func(a, b *placedHost) int { return pl.compare(a, b, w) })
	ports, err := host.Ports(h.Spec, slices.Collect(maps.Keys(h.Claimed)), w.Ports)
	if err != nil {
		return nil, fmt.Sprintf("node %d has no place: %v", w.ID, err)
	}
	for _, port := range ports {
		h.Claimed[port] = pl.p.owner(w.ID)
	}
	h.total++
	h.poolHere[w.Pool]++
	pl.inRack[rackPool{h.Spec.Rack, w.Pool}]++
	return pl.spec(w, h, ports), ""
}

func (pl *placer) spec(w *cluster.Node, h *placedHost, ports map[string]int32) *api.KafkaNodeSpec {
	spec := &api.KafkaNodeSpec{
		ClusterName: pl.p.want.Name, ClusterID: pl.p.have.ClusterID, NodeID: w.ID, Pool: w.Pool,
		Roles: w.Roles, Revision: pl.p.have.Revision, Process: w.Process, Dynamic: w.Dynamic,
		Host: h.Name, Rack: h.Spec.Rack, Address: h.Spec.Address, Ports: ports, State: pl.p.want.State,
	}
	spec.Volumes = pl.p.volumesFor(w, spec)
	return spec
}

// root is the data root of a volume: its own, or the host's first.
func root(h api.HostSpec, v api.Volume) string {
	if v.Path != "" || len(h.DataRoots) == 0 {
		return v.Path
	}
	return h.DataRoots[0]
}

// unfit says why a node cannot live on a host.
func (pl *placer) unfit(h *placedHost, w *cluster.Node) string {
	switch {
	case !selected(h.Host, w.Hosts):
		return "is not selected"
	case !slices.Contains(h.Spec.AllowedNamespaces, "*") && !slices.Contains(h.Spec.AllowedNamespaces, pl.p.want.Namespace):
		return "is closed to namespace " + pl.p.want.Namespace
	case !h.Reachable:
		return "is silent"
	case h.poolHere[w.Pool] >= int(max(1, w.Hosts.MaxPerHost)):
		return fmt.Sprintf("already runs maxPerHost nodes of pool %s", w.Pool)
	}
	return ""
}

func selected(h *Host, pl api.HostPlacement) bool {
	if len(pl.Names) > 0 && !slices.Contains(pl.Names, h.Name) {
		return false
	}
	if pl.Selector == nil {
		return true
	}
	sel, err := metav1.LabelSelectorAsSelector(pl.Selector)
	return err == nil && sel.Matches(labels.Set(h.Labels))
}

// compare prefers the rack with the fewest nodes of the pool, then the emptier host.
func (pl *placer) compare(a, b *placedHost, w *cluster.Node) int {
	if d := pl.inRack[rackPool{a.Spec.Rack, w.Pool}] - pl.inRack[rackPool{b.Spec.Rack, w.Pool}]; d != 0 {
		return d
	}
	if d := a.poolHere[w.Pool] - b.poolHere[w.Pool]; d != 0 {
		return d
	}
	if d := a.total - b.total; d != 0 {
		return d
	}
	return strings.Compare(a.Name, b.Name)
}

// waits says whether the process of a node needs what is not there yet.
func (p *pass) waits(w *cluster.Node) bool {
	switch {
	case w.PackageWait != "":
		p.block(w.ID, "PackageNotReady", w.PackageWait, false)
	case w.SecretWait != "":
		p.block(w.ID, "SecretNotUsable", w.SecretWait, true)
	default:
		return false
	}
	return true
}
