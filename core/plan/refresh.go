package plan

import (
	"fmt"
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
)

// retired says whether a node's id was given up for good. A node that has one is there for a
// moment only, to register with the active controller at a new version.
func (p *pass) retired(id int32) bool {
	return slices.ContainsFunc(p.want.NodeIDs, func(g api.PoolNodeIDs) bool { return slices.Contains(g.Removed, id) })
}

// stale are controllers that are registered and have no node: they left. Kafka cannot forget
// them, and finalizes nothing that the version does not know at which they registered last
// (measured on 4.3.1).
func (p *pass) stale() []int32 {
	var out []int32
	for _, id := range p.have.Kafka.Controllers {
		if n, ok := p.nodes[id]; !ok || p.retired(id) && n.Spec.Process.Version == p.want.Version {
			if w := p.wanted[id]; w == nil || p.leaving[id] {
				out = append(out, id)
			}
		}
	}
	slices.Sort(out)
	return out
}

// refresh lets controllers that left register at the new version, as observers that never vote.
// It says what finalizing waits for, empty when for nothing.
func (p *pass) refresh(op *api.Operation) string {
	for _, id := range p.stale() {
		n, ok := p.nodes[id]
		switch {
		case !ok:
			if why := p.createObserver(op, id); why != "" {
				return why
			}
			return fmt.Sprintf("controller %d, which has left, is started for a moment: Kafka finalizes nothing before it is registered at %s", id, p.want.Version)
		case !settled(n):
			return fmt.Sprintf("controller %d, which has left, registers at %s before features are finalized (%s)", id, p.want.Version, nodeWord(n))
		}
	}
	return ""
}

// createObserver makes a node like a controller that stays.
func (p *pass) createObserver(op *api.Operation, id int32) string {
	var like *cluster.Node
	for i := range p.want.Nodes {
		if w := &p.want.Nodes[i]; w.Controller() && !p.leaving[w.ID] && (like == nil || like.Broker() && !w.Broker()) {
			like = w
		}
	}
	if like == nil {
		return "no controller is left after which another could be made"
	}
	w := *like
	w.ID, w.Roles, w.Dynamic, w.Exposures = id, []api.Role{api.RoleController}, nil, nil
	w.Process = *like.Process.DeepCopy()
	w.Process.Listeners, w.Process.Restart = nil, ""
	w.Volumes, w.Process.Volumes = like.Volumes[:1], like.Process.Volumes[:1]
	w.Ports = map[string]int32{}
	for name, port := range like.Ports {
		if name == layout.ControllerListener {
			w.Ports[name] = port
		}
	}
	w.Hosts.MaxPerHost += int32(len(p.want.Nodes)) //nolint:gosec // a few thousand at most
	spec, why := newPlacer(p).place(&w)
	if why != "" {
		return why
	}
	spec.BootstrapControllers = p.controllerEndpoints()
	spec.Change = &api.NodeChange{Operation: op.Name, Reason: "its registration is made anew at " + p.want.Version, Since: metaNow(p.now)}
	p.step(Step{Kind: CreateNode, Node: id, Spec: spec, Reason: fmt.Sprintf("operation %s finalizes features, which the registration of controller %d, which has left, would block", op.Name, id)})
	return ""
}

// dismiss takes nodes away whose ids were given up: observers that have registered, and
// what a crash left of a node that was leaving.
func (p *pass) dismiss() {
	if op := p.upgrading(); op != nil && len(p.unfinalized()) > 0 && p.finalization(op) == "" {
		return // they are needed until it is done
	}
	for _, n := range p.existing() {
		id := n.Spec.NodeID
		if !p.leaving[id] || !p.retired(id) {
			continue
		}
		switch {
		case n.Spec.State != api.StateStopped:
			spec := p.spec(id)
			spec.State = api.StateStopped
			p.write(StopNode, spec, "it is not needed any more")
		case stopped(n):
			p.step(Step{Kind: DeleteNode, Node: id, RemoveData: p.wanted[id].WhenScaled == api.DeletionDelete, Reason: "it is not needed any more"})
		case n.Status.State == api.NodeUnknown:
			p.block(id, "HostSilent", unknownStop(n), true)
		default:
			p.block(id, "Stopping", fmt.Sprintf("node %d is shutting down", id), false)
		}
	}
}
