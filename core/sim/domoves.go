package sim

import (
	"maps"
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/balance"
	"castellan.dev/castellan/core/plan"
)

// doMoves obeys a step about replicas and nodes that leave.
func (w *World) doMoves(s plan.Step) {
	switch s.Kind {
	case plan.RecordMoves:
		w.Moving, w.Throttled = slices.Clone(s.Moving), slices.Clone(s.Throttled)
	case plan.ThrottleTopics:
		w.throttleTopics(s)
	case plan.MoveReplicas:
		w.moveReplicas(s)
	case plan.CancelMoves:
		w.cancelMoves(s)
	case plan.UnregisterBroker:
		w.unregister(s.Node)
	case plan.RetireNode:
		w.judgeGone(s)
		w.Retired[s.Node] = true
	case plan.DeleteNode:
		w.deleteNode(s)
	default: // what is not about replicas
	}
}

func (w *World) throttleTopics(s plan.Step) {
	for topic, t := range s.Throttles {
		if _, users := w.moves.users[topic]; users {
			w.violate("the throttle of topic %s, which somebody else set, becomes %+v", topic, t)
		}
		if !slices.Contains(w.Throttled, topic) {
			w.violate("topic %s is throttled without a record", topic)
		}
		if t == (plan.TopicThrottle{}) {
			delete(w.moves.throttles, topic)
			continue
		}
		w.moves.throttles[topic] = t
	}
}

func (w *World) moveReplicas(s plan.Step) {
	in, out, all := w.load()
	touched := map[int32]bool{}
	for i := range s.Moves {
		m := &s.Moves[i]
		if !slices.Contains(w.Moving, m.Topic) {
			w.violate("a move of topic %s begins without a record", m.Topic)
		}
		_, p := w.partition(m.Topic, int(m.Partition))
		if p == nil {
			continue
		}
		name := partitionName(m.Topic, int(m.Partition))
		if w.moves.flying[name] != nil {
			w.violate("%s is moved while it is on its way", name)
			continue
		}
		w.wish(m, p, touched)
		for _, id := range m.To {
			if !slices.Contains(p.Replicas, id) {
				w.judgeDestination(id, name)
				touched[id], touched[p.Leader] = true, true
			}
		}
		if !slices.Equal(p.Replicas, m.To) {
			w.reassign(m.Topic, int(m.Partition), m.To, false)
		}
	}
	nowIn, nowOut, nowAll := w.load()
	perBroker, perCluster := w.limits()
	for id := range touched {
		if nowIn[id] > max(perBroker, in[id]) || nowOut[id] > max(perBroker, out[id]) {
			w.violate("broker %d receives %d and sends %d copies at once, the limit is %d", id, nowIn[id], nowOut[id], perBroker)
		}
	}
	if nowAll > max(perCluster, all) {
		w.violate("%d copies at once, the limit is %d", nowAll, perCluster)
	}
	w.judgeSpace()
}

// wish puts replicas into log dirs: new ones begin there, others are copied.
func (w *World) wish(m *balance.Move, p *plan.Partition, touched map[int32]bool) {
	name := partitionName(m.Topic, int(m.Partition))
	for _, d := range m.Dirs {
		n := w.nodes[d.Broker]
		if n == nil || !slices.Contains(n.dirs, d.Path) {
			w.violate("%s is to go to log dir %s of broker %d, which has none such", name, d.Path, d.Broker)
			continue
		}
		if w.dirCordoned(d.Broker, d.Path) {
			w.violate("%s is to go to the cordoned log dir %s of broker %d", name, d.Path, d.Broker)
		}
		if !slices.Contains(p.Replicas, d.Broker) {
			w.inDir(name, d.Broker, d.Path)
			continue
		}
		if w.dirOf(name, d.Broker) == d.Path {
			continue
		}
		ref := balance.PartitionRef{Topic: m.Topic, Partition: m.Partition}
		w.moves.copies = slices.DeleteFunc(w.moves.copies, func(c copying) bool { return c.ref == ref && c.broker == d.Broker })
		w.moves.copies = append(w.moves.copies, copying{ref: ref, broker: d.Broker, path: d.Path})
		touched[d.Broker] = true
	}
}

// load counts copies by who receives and who sends, and all.
func (w *World) load() (in, out map[int32]int, all int) {
	in, out = map[int32]int{}, map[int32]int{}
	for _, f := range w.moves.flying {
		_, p := w.partition(f.topic, f.partition)
		for _, id := range f.adding {
			if !slices.Contains(p.ISR, id) {
				in[id]++
				out[p.Leader]++
				all++
			}
		}
	}
	for _, c := range w.moves.copies {
		in[c.broker]++
		out[c.broker]++
		all++
	}
	return in, out, all
}

func (w *World) limits() (perBroker, perCluster int) {
	perBroker, perCluster = 10, 100
	if w.want != nil && w.want.Balance.CopiesPerBroker > 0 {
		perBroker = int(w.want.Balance.CopiesPerBroker)
	}
	if w.want != nil && w.want.Balance.CopiesPerCluster > 0 {
		perCluster = int(w.want.Balance.CopiesPerCluster)
	}
	return perBroker, perCluster
}

// judgeDestination says whether a broker may get a new replica.
func (w *World) judgeDestination(id int32, name string) {
	n := w.nodes[id]
	switch {
	case n == nil || !w.registered(id):
		w.violate("%s is moved to broker %d, which is not there", name, id)
		return
	case w.leaves(id):
		w.violate("%s is moved to broker %d, which leaves", name, id)
	case w.cordoned(id):
		w.violate("%s is moved to broker %d, which is cordoned", name, id)
	}
	for i := range w.operations {
		op := &w.operations[i]
		if op.Spec.Type == api.OperationDrain && op.Spec.Begun != nil && !op.Status.Phase.Final() && !op.Spec.Cancelled && op.DeletionTimestamp == nil &&
			slices.Contains(op.Spec.Nodes, id) && !slices.Contains(op.Spec.IgnoredNodes, id) {
			w.violate("%s is moved to broker %d, which operation %s drains", name, id, op.Name)
		}
	}
}

// judgeSpace says whether a log dir takes more than it holds once everything has arrived.
func (w *World) judgeSpace() {
	for _, id := range w.ids() {
		for _, path := range w.nodes[id].dirs {
			if used := w.used(id, path); used > w.capacityOf(id) {
				w.violate("log dir %s of broker %d is to hold %d of %d bytes", path, id, used, w.capacityOf(id))
			}
		}
	}
}

func (w *World) cancelMoves(s plan.Step) {
	for _, c := range s.Cancel {
		f := w.moves.flying[nameOf(c.PartitionRef)]
		if f == nil {
			continue
		}
		if f.foreign {
			w.violate("the reassignment of %s, which somebody else began, is cancelled", f.name)
		}
		w.revert(f)
	}
	for _, r := range s.Return {
		w.moves.copies = slices.DeleteFunc(w.moves.copies, func(c copying) bool { return c.ref == r.PartitionRef && c.broker == r.Broker })
	}
}

// unregister forgets a broker that must be gone.
func (w *World) unregister(id int32) {
	n := w.nodes[id]
	switch {
	case !w.registered(id):
		return
	case n != nil && (n.running != "" || n.spec.State != api.StateStopped):
		w.violate("broker %d is unregistered while it runs", id)
	case n != nil && !w.fenced(id):
		w.violate("broker %d is unregistered before it is fenced", id)
	}
	if held := w.On(id); held > 0 {
		w.violate("broker %d is unregistered with %d replicas", id, held)
	}
	delete(w.brokers, id)
}

// judgeGone says whether a node may be forgotten for good.
func (w *World) judgeGone(s plan.Step) {
	id, n := s.Node, w.nodes[s.Node]
	switch {
	case !w.leaves(id):
		w.violate("%s of node %d, which is wanted", s.Kind, id)
	case n != nil && (n.running != "" || n.spec.State != api.StateStopped):
		w.violate("%s of node %d, which is not stopped", s.Kind, id)
	}
	if w.registered(id) {
		w.violate("%s of node %d, which is registered", s.Kind, id)
	}
	if w.voters[id] != "" {
		w.violate("%s of node %d, which votes", s.Kind, id)
	}
	if held := w.On(id); held > 0 {
		w.violate("%s of node %d, which holds %d replicas", s.Kind, id, held)
	}
}

func (w *World) deleteNode(s plan.Step) {
	w.judgeGone(s)
	if !w.Retired[s.Node] {
		w.violate("node %d is deleted, and nothing says that its id is taken", s.Node)
	}
	if n := w.nodes[s.Node]; n != nil && !s.RemoveData {
		w.disks[s.Node] = *n
	}
	w.Deleted[s.Node] = s.RemoveData
	delete(w.nodes, s.Node)
}

// leaves says whether the spec that a pass was last made for no longer has a node.
func (w *World) leaves(id int32) bool {
	return w.want != nil && !slices.ContainsFunc(w.want.Nodes, func(n wantedNode) bool { return n.ID == id })
}

// judgeLeaving checks what stopping a single node takes away, beside what judgeStop says.
func (w *World) judgeLeaving(n *node) {
	id := n.spec.NodeID
	if w.want == nil || w.want.State == api.StateStopped {
		return
	}
	if !w.leaves(id) {
		w.violate("node %d is stopped, which stays", id)
	}
	if held := w.On(id); held > 0 {
		w.violate("node %d is stopped to leave with %d replicas on it", id, held)
	}
	if w.voters[id] != "" {
		w.violate("node %d is stopped to leave while it votes", id)
	}
	w.judgeStop(n)
}

// judgeVolumes checks that no log dir is taken from a broker with a replica in it.
func (w *World) judgeVolumes(n *node, volumes []string) {
	for _, path := range n.dirs {
		if slices.Contains(volumes, path) {
			continue
		}
		if used := w.used(n.spec.NodeID, path); used > 0 {
			w.violate("broker %d loses log dir %s with %d bytes in it", n.spec.NodeID, path, used)
		}
	}
}

// Leftovers is what of ours must not be there when everything is at rest.
func (w *World) Leftovers() []string {
	var out []string
	for _, id := range w.ids() {
		for _, key := range []string{leaderRate, followerRate, logDirRate, cordonedDirs} {
			value, there := w.broker[id][key]
			if there && w.moves.userKeys[id][key] != value && !w.wantsKey(id, key) {
				out = append(out, key+" of broker "+itoa(id))
			}
			if _, noted := w.nodes[id].spec.Dynamic[key]; noted && !w.wantsKey(id, key) {
				out = append(out, key+" in the spec of node "+itoa(id))
			}
		}
	}
	out = append(out, w.leftThrottles()...)
	for _, topic := range w.Moving {
		out = append(out, "record of topic "+topic)
	}
	for _, topic := range w.Throttled {
		out = append(out, "record of the throttle of topic "+topic)
	}
	for _, f := range w.flights() {
		if !f.foreign {
			out = append(out, "move of "+f.name)
		}
	}
	return slices.Sorted(slices.Values(out))
}

// leftThrottles are throttles of ours that are still there, and those of others that are not.
func (w *World) leftThrottles() (out []string) {
	for topic, t := range w.moves.throttles {
		if w.moves.users[topic] != t {
			out = append(out, "throttle of topic "+topic)
		}
	}
	for topic, t := range w.moves.users {
		if w.moves.throttles[topic] != t {
			out = append(out, "somebody's throttle of topic "+topic+" is gone")
		}
	}
	for id, keys := range w.moves.userKeys {
		for key, value := range keys {
			if w.nodes[id] != nil && w.broker[id][key] != value {
				out = append(out, "somebody's "+key+" of broker "+itoa(id)+" is gone")
			}
		}
	}
	return out
}

func (w *World) wantsKey(id int32, key string) bool {
	i := -1
	if w.want != nil {
		i = slices.IndexFunc(w.want.Nodes, func(n wantedNode) bool { return n.ID == id })
	}
	if i < 0 {
		return false
	}
	_, ok := w.want.Nodes[i].Dynamic[key]
	return ok
}

// judgeConfig checks what becomes of a broker's keys.
func (w *World) judgeConfig(s plan.Step) {
	for key := range maps.Keys(w.moves.userKeys[s.Node]) {
		if value, set := s.Set[key]; (set && value != w.moves.userKeys[s.Node][key] || slices.Contains(s.Delete, key)) && !w.wantsKey(s.Node, key) {
			w.violate("%s of broker %d, which somebody else set, is changed", key, s.Node)
		}
	}
	if _, ok := s.Set[cordonedDirs]; ok && !w.knowsCordons() {
		w.violate("broker %d is cordoned under metadata.version %s", s.Node, w.MetadataVersion)
	}
}
