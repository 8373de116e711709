package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
	"castellan.dev/castellan/core/layout"
)

// model builds the Model of a spec without errors.
func (r *resolver) model() Model {
	wide := r.wide()
	m := Model{
		Namespace: r.in.Namespace, Name: r.in.Name, ClusterID: r.spec.ClusterID, Version: r.spec.Version,
		MetadataVersion: r.spec.MetadataVersion, NodeIDs: r.ids, Dynamic: r.clusterWide(wide),
		DefaultReplicas: int32(r.defaultReplicas()), //nolint:gosec // at most 3
		MaxUnavailable:  intstr.FromInt32(1), Rollout: r.spec.Rollout, Balance: r.spec.Balance, Listeners: r.spec.Listeners, Certificates: r.spec.Certificates,
		State: r.spec.State, Paused: r.spec.Paused, DeletionPolicy: r.spec.DeletionPolicy,
	}
	if r.spec.Rollout.MaxUnavailable != nil {
		m.MaxUnavailable = *r.spec.Rollout.MaxUnavailable
	}
	if m.State == "" {
		m.State = api.StateRunning
	}
	for i := range r.spec.Pools {
		p := &r.spec.Pools[i]
		for _, id := range KeptIDs(p, r.ids) {
			m.Nodes = append(m.Nodes, r.node(p, id, wide))
		}
	}
	slices.SortFunc(m.Nodes, func(a, b Node) int { return int(a.ID) - int(b.ID) })
	return m
}

// clusterWide is what lives in Kafka for the whole cluster: keys that a running node takes
// and that may be a cluster default.
func (r *resolver) clusterWide(wide map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range wide {
		if k, ok := r.table.Key(key); ok && k.UpdateMode == kconf.ClusterWide && k.Live(value) && !r.filed[key] {
			out[key] = value
		}
	}
	return out
}

// node resolves one node: its pool, under its own override.
func (r *resolver) node(p *api.Pool, id int32, wide map[string]string) Node {
	jvm, resources, own, image := p.JVM, p.Resources, map[string]string{}, ""
	r.overlay(own, p.Config)
	if i := slices.IndexFunc(p.Overrides, func(o api.NodeOverride) bool { return o.NodeID == id }); i >= 0 {
		o := &p.Overrides[i]
		r.overlay(own, o.Config)
		jvm, resources = overridden(jvm, resources, o)
		image = o.Image
	}
	roles := slices.Sorted(slices.Values(p.Roles))
	n := Node{ID: id, Pool: p.Name, Roles: roles, Volumes: volumesOf(p), WhenScaled: p.WhenScaled, Ports: map[string]int32{}}
	if p.Placement.Hosts != nil {
		n.Hosts = *p.Placement.Hosts
	}
	static, dynamic := r.split(n, wide, own)
	n.Dynamic = dynamic
	n.Process = api.ProcessSpec{
		Version: r.spec.Version, Config: static, HeapBytes: r.heapOf(jvm, resources, p), JVMOptions: jvm.Options,
		Resources: resources, SuperUsers: r.superUsers(),
	}
	for _, v := range n.Volumes {
		n.Process.Volumes = append(n.Process.Volumes, v.Name)
	}
	r.listen(&n)
	n.Process.Layout = layout.Of(n.Process)
	if r.kubernetes {
		r.pod(&n, p, image)
	} else {
		n.Process.Package, n.PackageWait = r.digest()
	}
	return n
}

func overridden(jvm api.JVM, resources corev1.ResourceRequirements, o *api.NodeOverride) (api.JVM, corev1.ResourceRequirements) {
	if o.JVM != nil {
		if o.JVM.Heap != nil {
			jvm.Heap = o.JVM.Heap
		}
		if o.JVM.Options != nil {
			jvm.Options = o.JVM.Options
		}
	}
	if o.Resources != nil {
		resources = *o.Resources
	}
	return jvm, resources
}

// split divides a node's configuration into what stands in its file, where a change is a
// restart, and what lives in Kafka for this node alone. Keys that no role of the node
// reads are left out, so that a broker's key never restarts a controller.
func (r *resolver) split(n Node, wide, own map[string]string) (static, dynamic map[string]string) {
	roles := kconf.Roles(0)
	if n.Broker() {
		roles |= kconf.Broker
	}
	if n.Controller() {
		roles |= kconf.Controller
	}
	merged := maps.Clone(wide)
	maps.Copy(merged, own)
	file, live := r.table.Split(roles, merged)
	static = file
	if static == nil {
		static = map[string]string{}
	}
	dynamic = map[string]string{}
	for key, value := range live {
		k, _ := r.table.Key(key)
		_, ofNode := own[key]
		switch {
		case r.filed[key]:
			static[key] = value
		case !n.Broker() && ofNode:
			static[key] = value // a controller alone takes node-level values only from its file
		case ofNode || (k.UpdateMode == kconf.PerBroker && n.Broker()):
			dynamic[key] = value
		case k.UpdateMode == kconf.PerBroker:
			static[key] = value
		}
	}
	static["allow.everyone.if.no.acl.found"] = fmt.Sprint(!r.acl())
	if len(dynamic) == 0 {
		dynamic = nil
	}
	return static, dynamic
}

func (r *resolver) listen(n *Node) {
	if n.Controller() {
		n.Ports[layout.ControllerListener] = layout.ControllerPort
	}
	if !n.Broker() {
		return
	}
	n.Ports[layout.InternalListener] = layout.InternalPort
	// By name: to write the same listeners in another order is no reason to restart.
	sorted := slices.SortedFunc(slices.Values(r.spec.Listeners), func(a, b api.Listener) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range sorted {
		n.Ports[l.Name] = l.Port
		n.Process.Listeners = append(n.Process.Listeners, nodeListener(l))
	}
}

// digest is the package's digest, or what is waited for until it is known.
func (r *resolver) digest() (digest, wait string) {
	st := r.pkg.Status
	if st.Digest != "" {
		return st.Digest, ""
	}
	wait = fmt.Sprintf("waiting for Package %s (Kafka %s)", r.pkg.Name, r.pkg.Spec.Version)
	if st.Message != "" {
		wait += ": " + strings.TrimSpace(st.Message)
	}
	return "", wait
}
