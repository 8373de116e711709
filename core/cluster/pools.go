package cluster

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// Default Java heaps, in bytes.
const (
	brokerHeap     int64 = 1 << 30
	controllerHeap int64 = 512 << 20
	smallestHeap   int64 = 128 << 20
	// largestHeap is what half of a memory limit gives at most: Kafka lives on the page cache.
	largestHeap int64 = 6 << 30
)

// pools checks every pool, counts roles and gives node ids.
func (r *resolver) pools() {
	names, shaped := map[string]bool{}, true
	for i := range r.spec.Pools {
		p, path := &r.spec.Pools[i], fmt.Sprintf("spec.pools[%d]", i)
		shaped = r.shape(path, p) && shaped
		if names[p.Name] {
			r.fail(path+".name", fmt.Sprintf("there are two pools named %s", p.Name), "give each its own name")
		}
		names[p.Name] = true
		if slices.Contains(p.Roles, api.RoleBroker) {
			r.brokers += int(p.Replicas)
		}
		if slices.Contains(p.Roles, api.RoleController) {
			r.controllers += int(p.Replicas)
		}
		r.jvm(path+".jvm", p.JVM, p.JVM, p.Resources, p)
		r.volumes(path, p)
		r.placement(path, p)
	}
	r.quorumSize()
	if !shaped {
		return // no ids for a number of nodes that cannot be
	}
	r.removals()
	r.giveIDs()
	for i := range r.spec.Pools {
		r.overrides(i)
	}
}

// Bounds of a pool, as in the schema: a spec from a file has not met the API server.
const (
	mostReplicas = 1000
	highestFirst = 1_000_000
)

// shape says whether a pool has a size, roles and a first id that can be.
func (r *resolver) shape(path string, p *api.Pool) bool {
	ok := true
	bad := func(field, reason, remedy string) {
		ok = false
		r.fail(path+field, reason, remedy)
	}
	if p.Replicas < 1 || p.Replicas > mostReplicas {
		bad(".replicas", fmt.Sprintf("%d is no size of a pool", p.Replicas), fmt.Sprintf("use 1 to %d", mostReplicas))
	}
	if id := p.FirstNodeID; id != nil && (*id < 0 || *id > highestFirst) {
		bad(".firstNodeID", fmt.Sprintf("%d is no node id", *id), fmt.Sprintf("use 0 to %d", highestFirst))
	}
	for i, role := range p.Roles {
		if role != api.RoleBroker && role != api.RoleController {
			bad(fmt.Sprintf(".roles[%d]", i), fmt.Sprintf("%q is no role of a Kafka node", role), "use broker, controller or both")
		}
	}
	if len(p.Roles) == 0 {
		bad(".roles", "the pool has no role", "use [broker], [controller] or [broker, controller]")
	}
	return ok
}

func (r *resolver) placement(path string, p *api.Pool) {
	h, k := p.Placement.Hosts, p.Placement.Kubernetes
	if h != nil && k != nil {
		r.fail(path+".placement", "the pool is placed on hosts and on Kubernetes", "set hosts or kubernetes, not both")
	}
	if k != nil {
		r.podVolumes(path, p)
		r.podResources(path+".resources", p.Resources)
		return
	}
	if h == nil || h.Selector == nil {
		return
	}
	if _, err := metav1.LabelSelectorAsSelector(h.Selector); err != nil {
		r.fail(path+".placement.hosts.selector", fmt.Sprintf("it selects nothing: %v", err), "use matchLabels, or matchExpressions with In, NotIn, Exists or DoesNotExist")
	}
}

func (r *resolver) quorumSize() {
	switch {
	case r.controllers == 0:
		r.fail("spec.pools", "no pool has the role controller, so nothing would hold the cluster's metadata", "add a pool with roles: [controller], or [broker, controller] for combined nodes")
	case r.controllers > 1 && r.controllers%2 == 0:
		r.warn("spec.pools", fmt.Sprintf("%d controllers survive no more failures than %d", r.controllers, r.controllers-1), "use an odd number, usually 3")
	}
	if r.brokers == 0 {
		r.fail("spec.pools", "no pool has the role broker, so no partition could be placed", "add a pool with roles: [broker]")
	}
	if r.controllers == 1 && r.brokers > 1 {
		r.warn("spec.pools", "a single controller is a single point of failure: while it is down nothing can change", "use 3 controllers")
	}
}

// jvm checks what is said at path, and the heap that is in force there against the limit
// that is in force there.
func (r *resolver) jvm(path string, said, j api.JVM, resources corev1.ResourceRequirements, p *api.Pool) {
	for i, option := range said.Options {
		if why := layout.RefuseJVMOption(option); why != "" {
			r.fail(fmt.Sprintf("%s.options[%d]", path, i), fmt.Sprintf("%s: %s", option, why), "leave it out")
		}
	}
	if said.Heap != nil && said.Heap.Value() < smallestHeap {
		r.fail(path+".heap", fmt.Sprintf("%s is too small for Kafka", said.Heap), "use at least 128Mi, usually 1Gi or more")
	}
	heap := r.heapOf(j, resources, p)
	if limit := resources.Limits.Memory(); !limit.IsZero() && heap >= limit.Value() {
		r.fail(path+".heap", fmt.Sprintf("the heap of %s leaves nothing of the memory limit of %s", resource.NewQuantity(heap, resource.BinarySI), limit), "keep the heap to about half of the limit")
	}
}

func (r *resolver) volumes(path string, p *api.Pool) {
	names := map[string]bool{}
	for i, v := range p.Volumes {
		at := fmt.Sprintf("%s.volumes[%d]", path, i)
		if names[v.Name] {
			r.fail(at+".name", fmt.Sprintf("there are two volumes named %s", v.Name), "give each its own name")
		}
		names[v.Name] = true
		if v.Path != "" && !strings.HasPrefix(v.Path, "/") {
			r.fail(at+".path", fmt.Sprintf("%s is not absolute", v.Path), "give an absolute path below one of the host's data roots")
		} else if strings.ContainsAny(v.Path, ",\r\n") || strings.TrimSpace(v.Path) != v.Path {
			r.fail(at+".path", fmt.Sprintf("%q cannot stand in Kafka's log.dirs", v.Path), "give a path without comma, line break and outer blanks")
		}
	}
}

func (r *resolver) overrides(i int) {
	p := &r.spec.Pools[i]
	given := r.ids[r.poolIDs(p.Name)]
	for j, o := range p.Overrides {
		path := fmt.Sprintf("spec.pools[%d].overrides[%d]", i, j)
		switch {
		case !slices.Contains(ever(given), o.NodeID):
			r.fail(path+".nodeID", fmt.Sprintf("pool %s has no node %d", p.Name, o.NodeID), "its nodes are "+idWords(present(given)))
		case slices.Contains(given.Removed, o.NodeID):
			// No error: the spec was in force before the node left, and must stay so.
			r.warn(path+".nodeID", fmt.Sprintf("node %d of pool %s has left for good", o.NodeID, p.Name), "take the override out; its nodes are "+idWords(present(given)))
		}
		if o.Image != "" && !r.kubernetes {
			r.fail(path+".image", "hosts run Packages, not images", "leave it out")
		}
		if o.JVM == nil && o.Resources == nil {
			continue
		}
		var said api.JVM
		if o.JVM != nil {
			said = *o.JVM
		}
		jvm, resources := overridden(p.JVM, p.Resources, &o)
		r.jvm(path+".jvm", said, jvm, resources, p)
		if o.Resources != nil && r.kubernetes {
			r.podResources(path+".resources", resources)
		}
	}
}

// heapOf is the Java heap in bytes: the given one, half of a pod's memory limit (the rest is
// for the page cache and what Java needs beside its heap), or the role's default.
func (r *resolver) heapOf(j api.JVM, resources corev1.ResourceRequirements, p *api.Pool) int64 {
	limit := resources.Limits.Memory()
	switch {
	case j.Heap != nil:
		return j.Heap.Value()
	case r.kubernetes && !limit.IsZero():
		return min(max(limit.Value()/2, smallestHeap), largestHeap)
	case slices.Contains(p.Roles, api.RoleBroker):
		return brokerHeap
	default:
		return controllerHeap
	}
}

// volumesOf are a pool's volumes, with the default one.
func volumesOf(p *api.Pool) []api.Volume {
	if len(p.Volumes) == 0 {
		return []api.Volume{{Name: "data"}}
	}
	return p.Volumes
}

func sameRoles(a, b []api.Role) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

func roleWords(roles []api.Role) string {
	words := make([]string, 0, len(roles))
	for _, r := range roles {
		words = append(words, string(r))
	}
	return strings.Join(words, ", ")
}
