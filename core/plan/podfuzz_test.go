package plan_test

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

// asPods is a Model whose nodes are pods, with one volume each.
func asPods(m cluster.Model) cluster.Model {
	m.Nodes = slices.Clone(m.Nodes)
	for i := range m.Nodes {
		n := &m.Nodes[i]
		n.Kubernetes, n.Hosts = true, api.HostPlacement{}
		n.Process.Package, n.Process.Image, n.Process.Supervisor = "", "kafka:4.3.1", "castellan:1"
		n.Process.Pod = &api.PodSettings{Spread: api.SpreadZone}
		n.Volumes = []api.Volume{{Name: "data", Size: gigabytes(10)}}
	}
	return m
}

func gigabytes(n int64) *resource.Quantity { return resource.NewQuantity(n<<30, resource.BinarySI) }

// inPool changes every node of a pool in a Model of its own.
func inPool(m *cluster.Model, pool string, change func(*cluster.Node)) {
	m.Nodes = slices.Clone(m.Nodes)
	for i := range m.Nodes {
		if m.Nodes[i].Pool == pool {
			change(&m.Nodes[i])
		}
	}
}

// addVolume adds a volume behind the others, as far as there are fewer than three.
func addVolume(m *cluster.Model, pool string) {
	inPool(m, pool, func(n *cluster.Node) {
		if len(n.Volumes) < 3 {
			name := fmt.Sprintf("more-%d", len(n.Volumes))
			n.Volumes = append(slices.Clone(n.Volumes), api.Volume{Name: name, Size: gigabytes(10)})
			n.Process.Volumes = append(slices.Clone(n.Process.Volumes), name)
		}
	})
}

// expose gives a pool's brokers a listener with node ports.
func expose(m *cluster.Model, pool, listener string) {
	inPool(m, pool, func(n *cluster.Node) {
		if !n.Broker() {
			return
		}
		n.Process.Listeners = []api.NodeListener{{Name: listener, Protocol: "PLAINTEXT"}}
		n.Exposures = []api.NodeExposure{{Listener: listener, Type: api.ExposureNodePort}}
		n.Ports = map[string]int32{"INTERNAL": 9091, listener: 9092}
		if n.Controller() {
			n.Ports["CONTROLLER"] = 9090
		}
	})
}

func conceal(m *cluster.Model, pool string) {
	inPool(m, pool, func(n *cluster.Node) { n.Process.Listeners, n.Exposures = nil, nil })
}

// podEvent is event for clusters of pods.
func (f *fuzz) podEvent(e byte) {
	n := f.m.Nodes[int(e>>4)%len(f.m.Nodes)]
	alone := len(f.lost) == 0 && f.w.Spare(n.ID)
	switch e % 16 {
	case 8:
		if alone {
			f.lost[n.ID] = true
			f.w.LoseMachine(n.ID, e&16 != 0)
		}
	case 9, 10: // asked with and without need
		f.values++
		f.w.Ask(n.ID, fmt.Sprint(f.values))
	case 11:
		addVolume(&f.m, n.Pool)
	case 12:
		if have := f.w.See().Nodes[int(e>>4)%len(f.m.Nodes)].Spec; alone && len(have.Process.Volumes) > 1 {
			f.lost[n.ID] = true
			f.w.EmptyVolume(n.ID, len(have.Process.Volumes)-1)
		}
	case 13:
		f.values++
		inPool(&f.m, n.Pool, func(n *cluster.Node) {
			n.Volumes = slices.Clone(n.Volumes)
			n.Volumes[0].Size = gigabytes(int64(10 + f.values))
		})
	case 14:
		if e&32 != 0 {
			expose(&f.m, n.Pool, "out")
		} else {
			conceal(&f.m, n.Pool)
		}
	case 15:
		f.w.Stingy(e&16 != 0)
	default:
		f.event(e)
	}
}
