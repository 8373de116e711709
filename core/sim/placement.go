package sim

import (
	"slices"
	"strconv"
	"strings"

	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
)

type wantedNode = cluster.Node

func itoa(id int32) string { return strconv.Itoa(int(id)) }

// registration of a broker, which outlives its node.
type registration struct {
	rack string
	down int // ticks since it served last
}

// SeeFor is what a pass for a spec reads: no more of Kafka than it asks for, and the truth judges
// its steps by that spec.
func (w *World) SeeFor(m cluster.Model) plan.World {
	w.want = &m
	seen := w.See()
	seen.Moving, seen.Throttled, seen.Memo = slices.Clone(w.Moving), slices.Clone(w.Throttled), w.Memo
	k := &seen.Kafka
	own := map[int32]map[string]string{}
	placement := plan.NeedsPlacement(m, seen.Nodes, seen.Operations, w.Moving)
	for _, id := range plan.PerBroker(m, seen.Nodes, placement) {
		if k.Known {
			own[id] = k.BrokerConfig[id]
		}
	}
	k.BrokerConfig = own
	if !k.Known || !k.PartitionsKnown {
		return seen
	}
	if len(w.Moving) > 0 {
		k.TopicThrottles = map[string]plan.TopicThrottle{}
		for _, topic := range w.Moving {
			if t, _ := w.partition(topic, 0); t != nil {
				k.TopicThrottles[topic] = w.moves.throttles[topic]
			}
		}
	}
	if !placement {
		return seen
	}
	if w.Unplaced {
		k.PlacementWhy = "a broker does not say what its log dirs hold"
		return seen
	}
	k.Placement = w.placement()
	return seen
}

func (w *World) placement() *balance.Cluster {
	c := &balance.Cluster{}
	for _, id := range w.registrations() {
		b := balance.Broker{ID: id, Rack: w.brokers[id].rack, Alive: !w.fenced(id)}
		if n := w.nodes[id]; b.Alive && n != nil {
			for _, path := range n.dirs {
				b.LogDirs = append(b.LogDirs, balance.LogDir{Path: path, Total: w.capacityOf(id), Usable: w.capacityOf(id) - w.held(id, path), Cordoned: w.dirCordoned(id, path)})
			}
			b.Cordoned = w.cordoned(id)
		}
		c.Brokers = append(c.Brokers, b)
	}
	for i := range w.topics {
		t := balance.Topic{Name: w.topics[i].Name, MinISR: w.topics[i].MinISR}
		for j := range w.topics[i].Partitions {
			t.Partitions = append(t.Partitions, w.placed(&w.topics[i], j))
		}
		c.Topics = append(c.Topics, t)
	}
	for _, f := range w.moves.copies {
		if n := w.nodes[f.broker]; n != nil && !w.fenced(f.broker) {
			dir := int16(slices.Index(n.dirs, f.path)) //nolint:gosec // few
			c.Copies = append(c.Copies, balance.Copy{Topic: f.ref.Topic, Partition: f.ref.Partition, Broker: f.broker, Dir: dir, Bytes: min(f.bytes, w.sizeOf(f.ref.Topic))})
		}
	}
	return c
}

func (w *World) placed(t *plan.Topic, j int) balance.Partition {
	p := &t.Partitions[j]
	name := partitionName(t.Name, j)
	out := balance.Partition{Leader: p.Leader}
	f := w.moves.flying[name]
	for _, id := range p.Replicas {
		r := balance.Replica{Broker: id, Dir: balance.NoDir}
		if slices.Contains(p.ISR, id) {
			r.State |= balance.InSync
		}
		if f != nil && slices.Contains(f.adding, id) {
			r.State |= balance.Adding
		}
		if f != nil && slices.Contains(f.removing, id) {
			r.State |= balance.Removing
		}
		if !w.registered(id) || w.fenced(id) || w.nodes[id] == nil {
			r.State |= balance.Offline
		} else {
			r.Dir = int16(slices.Index(w.nodes[id].dirs, w.dirOf(name, id))) //nolint:gosec // few
			r.Bytes = w.replicaBytes(name, t.Name, id)
		}
		out.Replicas = append(out.Replicas, r)
	}
	return out
}

func (w *World) replicaBytes(name, topic string, id int32) int64 {
	if f := w.moves.flying[name]; f != nil && slices.Contains(f.adding, id) {
		return min(f.copied[id], w.sizeOf(topic))
	}
	return w.sizeOf(topic)
}

// dirOf is the log dir of a replica; one that nobody said goes to the emptiest.
func (w *World) dirOf(name string, id int32) string {
	if path, ok := w.moves.dirs[name][id]; ok {
		return path
	}
	n := w.nodes[id]
	if n == nil || len(n.dirs) == 0 {
		return ""
	}
	least := ""
	for _, path := range n.dirs {
		if (least == "" || w.countIn(id, path) < w.countIn(id, least)) && !w.dirCordoned(id, path) {
			least = path
		}
	}
	if least == "" {
		least = n.dirs[0]
	}
	w.inDir(name, id, least)
	return least
}

func (w *World) inDir(name string, id int32, path string) {
	if w.moves.dirs[name] == nil {
		w.moves.dirs[name] = map[int32]string{}
	}
	w.moves.dirs[name][id] = path
}

func (w *World) countIn(id int32, path string) int {
	n := 0
	for _, dirs := range w.moves.dirs {
		if dirs[id] == path {
			n++
		}
	}
	return n
}

// held is what lies in a log dir now, used what it holds when everything on its way has arrived.
func (w *World) held(id int32, path string) int64 { return w.sum(id, path, false) }
func (w *World) used(id int32, path string) int64 { return w.sum(id, path, true) }

func (w *World) sum(id int32, path string, whole bool) int64 {
	var sum int64
	for i := range w.topics {
		t := &w.topics[i]
		for j := range t.Partitions {
			name := partitionName(t.Name, j)
			if !slices.Contains(t.Partitions[j].Replicas, id) || w.dirOf(name, id) != path {
				continue
			}
			if whole {
				sum += w.sizeOf(t.Name)
			} else {
				sum += w.replicaBytes(name, t.Name, id)
			}
		}
	}
	for _, c := range w.moves.copies {
		if c.broker != id || c.path != path {
			continue
		}
		if whole {
			sum += w.sizeOf(c.ref.Topic)
		} else {
			sum += min(c.bytes, w.sizeOf(c.ref.Topic))
		}
	}
	return sum
}

func (w *World) capacityOf(id int32) int64 {
	if bytes, ok := w.moves.capacity[id]; ok {
		return bytes
	}
	return dirBytes
}

// knowsCordons says whether brokers know cordoned.log.dirs (KIP-1066).
func (w *World) knowsCordons() bool {
	line, _, ok := strings.Cut(w.MetadataVersion, "-IV")
	return ok && cluster.CompareVersions(line, "4.3") >= 0
}

func (w *World) dirCordoned(id int32, path string) bool {
	dirs := strings.Split(w.broker[id][cordonedDirs], ",")
	return w.knowsCordons() && (slices.Contains(dirs, "*") || slices.Contains(dirs, path))
}

func (w *World) cordoned(id int32) bool {
	n := w.nodes[id]
	return n != nil && len(n.dirs) > 0 && !slices.ContainsFunc(n.dirs, func(path string) bool { return !w.dirCordoned(id, path) })
}

func (w *World) registered(id int32) bool { return w.brokers[id] != nil }

func (w *World) fenced(id int32) bool {
	r := w.brokers[id]
	return r == nil || !w.Serving(id) && r.down >= w.FenceTicks
}

func (w *World) registrations() []int32 {
	var out []int32
	for id := range w.brokers {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// register lets brokers that serve be known, and counts since when others do not.
func (w *World) register() {
	for _, id := range w.ids() {
		if n := w.nodes[id]; isBroker(n) && w.serving(n) {
			w.brokers[id] = &registration{rack: w.rackOf(n)}
		}
	}
	for _, id := range w.registrations() {
		if !w.Serving(id) {
			w.brokers[id].down++
		}
	}
}

// CreateTopic places a topic as Kafka does: on brokers that are alive and take replicas. It says
// whether there were enough.
func (w *World) CreateTopic(name string, minISR, partitions, factor int) bool {
	var fit []int32
	for _, id := range w.registrations() {
		if w.Serving(id) && !w.cordoned(id) {
			fit = append(fit, id)
		}
	}
	if t, _ := w.partition(name, 0); t != nil || len(fit) < factor {
		return false
	}
	var replicas [][]int32
	for p := range partitions {
		var r []int32
		for k := range factor {
			r = append(r, fit[(p+k)%len(fit)])
		}
		replicas = append(replicas, r)
	}
	w.AddTopic(name, minISR, replicas...)
	return true
}

// logDirs are those of a node's process.
func logDirs(n *node) []string {
	var out []string
	for _, i := range usedVolumes(n) {
		out = append(out, layout.DataDir(layout.Volume{Path: n.spec.Volumes[i].Path}))
	}
	return out
}

// usedVolumes are the indexes of the volumes that a node's process has.
func usedVolumes(n *node) []int {
	var out []int
	for i, v := range n.spec.Volumes {
		if slices.Contains(n.spec.Process.Volumes, v.Name) {
			out = append(out, i)
		}
	}
	return out
}

// InDir counts the replicas in a log dir of a broker.
func (w *World) InDir(id int32, path string) int {
	n := 0
	for i := range w.topics {
		for j, p := range w.topics[i].Partitions {
			if slices.Contains(p.Replicas, id) && w.dirOf(partitionName(w.topics[i].Name, j), id) == path {
				n++
			}
		}
	}
	return n
}
