package plan_test

import (
	"fmt"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/core/sim"
)

// FuzzPlanHarsh plays what FuzzPlan leaves out: a birth that is cut off anywhere, stops,
// pauses, scale-outs, objects deleted by hand, disks swapped or mistaken, and empty ISRs.
// As long as no more is lost than three copies survive, every plan must come to rest.
func FuzzPlanHarsh(f *testing.F) {
	f.Add([]byte("a cluster that is born in a storm"))
	f.Add([]byte("pods that are born in a storm"))
	f.Add([]byte{0x00, 0x10, 0x21, 0x32, 0x43, 0x54, 0x65, 0x76, 0x87, 0x98, 0xa9, 0xba, 0xcb, 0xdc})
	f.Add([]byte{0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33})
	f.Fuzz(func(t *testing.T, events []byte) {
		if len(events) > 150 {
			events = events[:150]
		}
		h := newHarsh(t, events)
		for _, e := range events {
			h.event(e)
			h.cut(int(e>>5) % 4)
		}
		h.rest()
	})
}

type harsh struct {
	t      *testing.T
	w      *sim.World
	m      cluster.Model
	topics bool
	hurt   int32 // the one node that may have lost or foreign disks; -1 for none
	back   func()
	values int
	pods   bool
}

func newHarsh(t *testing.T, events []byte) *harsh {
	t.Helper()
	shapes := []cluster.Model{
		model(combined(3)), model(controllers(3), brokers(4)), model(controllers(1), brokers(3)),
		model(group{"brokers", 0, 3, []api.Role{api.RoleBroker}}, group{"controllers", 100, 5, []api.Role{api.RoleController}}),
	}
	m, pods := shapes[len(events)%len(shapes)], len(events)%8 >= 4
	if pods {
		m = asPods(m)
	}
	if len(events)%3 == 0 {
		m.MaxUnavailable = intstr.FromString("50%")
	}
	w := sim.New(hosts(3, "a", "b", "c"))
	w.ELR = len(events)%2 == 0
	return &harsh{t: t, w: w, m: m, hurt: -1, pods: pods}
}

func (h *harsh) node(e byte) int32 { return h.m.Nodes[int(e>>4)%len(h.m.Nodes)].ID }

// calm says whether every node serves in every ISR and every voter votes, so that one more
// loss is survived.
func (h *harsh) calm() bool {
	if !h.topics || len(h.w.Voters()) != len(idsOf(h.m, api.RoleController)) || len(h.w.Voters()) < 3 {
		return false
	}
	k := h.w.See().Kafka
	for _, topic := range k.Topics {
		for _, p := range topic.Partitions {
			if len(p.ISR) != len(p.Replicas) {
				return false
			}
		}
	}
	return k.Known && !slices.ContainsFunc(h.m.Nodes, func(n cluster.Node) bool { return !h.w.Serving(n.ID) })
}

func (h *harsh) event(e byte) {
	id := h.node(e)
	switch e % 16 {
	case 0:
		h.values++
		setConfig(&h.m, h.m.Nodes[int(e>>4)%len(h.m.Nodes)].Pool, "num.io.threads", fmt.Sprint(h.values%3))
	case 1:
		h.w.Crash(id)
	case 2, 3:
		if h.hurt < 0 && h.calm() {
			h.hurt = id
			if h.pods && e%16 == 3 {
				h.w.LoseMachine(id, e&16 != 0)
			} else {
				h.w.LoseDisk(id)
			}
		}
	case 4:
		if h.hurt < 0 && h.calm() {
			h.hurt, h.back = id, h.w.Mount(id, "another")
		}
	case 5:
		if h.hurt < 0 && h.calm() && len(h.w.Voters()) == 5 {
			h.hurt = 100
			h.w.Swap(100, 101)
			h.back = func() { h.w.Swap(100, 101) }
		}
	case 6:
		h.w.Silence(id, e&16 != 0)
	case 7:
		h.w.Hidden = !h.w.Hidden
	case 8:
		h.m.State = api.StateStopped
	case 9, 10:
		h.m.State = api.StateRunning
	case 11:
		if h.pods && h.hurt >= 0 && e&32 != 0 {
			h.values++
			h.w.Ask(h.hurt, fmt.Sprint(h.values))
		} else {
			h.m.Paused = !h.m.Paused
		}
	case 12:
		if h.w.ClusterID != "" {
			h.w.ClusterID = "" // revisions deleted by hand
		}
	case 13:
		if h.hurt < 0 && h.calm() {
			h.w.Delete(id)
		}
	case 14:
		switch {
		case h.pods && e&32 != 0:
			addVolume(&h.m, h.m.Nodes[int(e>>4)%len(h.m.Nodes)].Pool)
		case h.calm() && len(h.m.Nodes) < 12:
			h.grow()
		}
	case 15:
		h.mend()
	}
}

// grow adds a node to the first pool.
func (h *harsh) grow() {
	pool := h.m.Nodes[0]
	pool.ID += 50 + int32(len(h.m.Nodes))
	h.m.Nodes = append(slices.Clone(h.m.Nodes), pool)
	slices.SortFunc(h.m.Nodes, func(a, b cluster.Node) int { return int(a.ID - b.ID) })
}

// cut is a pass whose shell dies after so many steps; 0 lets it live.
func (h *harsh) cut(steps int) {
	p := plan.Compute(h.m, h.w.See(), h.w.Now)
	for i, s := range p.Steps {
		if steps > 0 && i >= steps {
			break
		}
		h.w.Do(s)
	}
	if steps == 0 {
		h.w.Report(p.Operations)
	}
	h.w.Tick()
	h.settleDown()
	clean(h.t, h.w)
}

func (h *harsh) settleDown() {
	if !h.topics && h.w.ClusterID != "" && !slices.ContainsFunc(h.m.Nodes, func(n cluster.Node) bool { return !h.w.Serving(n.ID) }) {
		spread(h.w, "t", 2, 6, idsOf(h.m, api.RoleBroker))
		h.topics = true
	}
	if h.hurt >= 0 && h.back == nil && h.calm() {
		h.hurt = -1
	}
}

func (h *harsh) mend() {
	h.w.Hidden = false
	if h.back != nil {
		h.back()
		h.back = nil
	}
	for _, n := range h.m.Nodes {
		h.w.Silence(n.ID, false)
		h.w.Ask(n.ID, "")
	}
}

func (h *harsh) rest() {
	h.mend()
	h.m.Paused, h.m.State = false, api.StateRunning
	for range 900 {
		p := pass(h.w, h.m)
		if p.Done() {
			break
		}
		if blockedBecause(p, "LastCopyLost") {
			clean(h.t, h.w)
			return // everybody went down, and it was the last one: held and named is the right end
		}
	}
	settle(h.t, h.w, h.m, 900)
	for range 10 {
		h.w.Tick()
	}
	settle(h.t, h.w, h.m, 900)
	for _, n := range h.m.Nodes {
		if !h.w.Serving(n.ID) || h.w.Process(n.ID) != layout.ProcessHash(n.Process) {
			h.t.Errorf("node %d does not run what is wanted", n.ID)
		}
	}
	if got, want := len(h.w.Voters()), len(idsOf(h.m, api.RoleController)); got != want {
		h.t.Errorf("%d voters, want %d", got, want)
	}
}
