package install

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	api "castellan.dev/castellan/api/v1alpha1"
)

// machines are the Kubernetes nodes that a pod without tolerations may land on.
type machines struct {
	nodes []corev1.Node
	// unknown says that they may not be listed.
	unknown bool
}

func (s *session) machines(ctx context.Context) (*machines, error) {
	var list corev1.NodeList
	err := s.client.List(ctx, &list)
	if apierrors.IsForbidden(err) {
		return &machines{unknown: true}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the Kubernetes nodes: %w", err)
	}
	m := &machines{}
	for _, n := range list.Items {
		if takesPods(&n) {
			m.nodes = append(m.nodes, n)
		}
	}
	return m, nil
}

func takesPods(n *corev1.Node) bool {
	if n.Spec.Unschedulable {
		return false
	}
	for _, t := range n.Spec.Taints {
		if t.Effect != corev1.TaintEffectPreferNoSchedule {
			return false
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// usable is how many there are; many, where that is not known.
func (m *machines) usable() int {
	if m.unknown {
		return int(^uint(0) >> 1)
	}
	return len(m.nodes)
}

func (m *machines) zones() []string {
	var zones []string
	for _, n := range m.nodes {
		if z := n.Labels[corev1.LabelTopologyZone]; z != "" && !slices.Contains(zones, z) {
			zones = append(zones, z)
		}
	}
	slices.Sort(zones)
	return zones
}

// without lists the machines that have no address of a type.
func (m *machines) without(kind corev1.NodeAddressType) []string {
	var names []string
	for _, n := range m.nodes {
		if !slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool { return a.Type == kind && a.Address != "" }) {
			names = append(names, n.Name)
		}
	}
	return names
}

// checkMachines holds the clusters against the machines.
func (p *preflight) checkMachines(m *machines, clusters []*api.KafkaCluster) {
	if m.unknown {
		p.warn("the Kubernetes nodes cannot be listed with these rights: whether there are enough, and their addresses, shows only later")
		return
	}
	if len(m.nodes) == 0 {
		p.miss("a Kubernetes node that is Ready and takes pods without a toleration")
		return
	}
	for _, c := range clusters {
		for i := range c.Spec.Pools {
			p.checkSpread(m, c.Name, &c.Spec.Pools[i])
		}
		for _, l := range c.Spec.Listeners {
			p.checkAddresses(m, c.Name, l)
		}
	}
}

func (p *preflight) checkSpread(m *machines, cluster string, pool *api.Pool) {
	placement := pool.Placement.Kubernetes
	if placement == nil || placement.Affinity != nil || len(placement.NodeSelector)+len(placement.Tolerations) > 0 {
		return // whoever chooses machines knows them
	}
	replicas, zones := int(pool.Replicas), m.zones()
	switch {
	case len(m.nodes) < replicas && placement.Spread != api.SpreadNone:
		p.warn("pool %s of KafkaCluster %s wants %d Kubernetes nodes of its own (spread %s) and %d take pods: the rest waits, or set placement.kubernetes.spread: None",
			pool.Name, cluster, replicas, orDefault(placement.Spread), len(m.nodes))
	case len(m.nodes) < replicas:
		p.warn("%d nodes of KafkaCluster %s share %d Kubernetes nodes: the loss of one may stop the cluster", replicas, cluster, len(m.nodes))
	case orDefault(placement.Spread) == api.SpreadZone && replicas > 1 && len(zones) < min(replicas, 3):
		p.warn("the Kubernetes nodes are in %d zones (%s), so pool %s of KafkaCluster %s cannot spread over %d", len(zones), strings.Join(zones, ", "), pool.Name, cluster, min(replicas, 3))
	}
}

func orDefault(s api.Spread) api.Spread {
	if s == "" {
		return api.SpreadZone
	}
	return s
}

func (p *preflight) checkAddresses(m *machines, cluster string, l api.Listener) {
	if l.Exposure.Type != api.ExposureNodePort || l.Exposure.Host != "" {
		return
	}
	kind := l.Exposure.AddressType
	if kind == "" {
		kind = corev1.NodeInternalIP
	}
	if names := m.without(kind); len(names) > 0 {
		p.miss("an address of type %s on the Kubernetes nodes %s, which listener %s of KafkaCluster %s would advertise: choose another exposure.addressType, or exposure.host",
			kind, strings.Join(names, ", "), l.Name, cluster)
	}
}
