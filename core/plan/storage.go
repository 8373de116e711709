package plan

import (
	"fmt"
	"slices"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

// storage answers the supervisors that ask what to do with their disks. A cluster is born
// only when no volume, no node and no revision knows a cluster id; everything else joins
// or adopts, and data that is gone is never mistaken for data that never was.
func (p *pass) storage() {
	ids := p.knownClusterIDs()
	switch {
	case len(ids) > 1:
		p.block(-1, "SeveralClusterIDs", "the nodes' disks belong to different clusters ("+strings.Join(ids, ", ")+"): nothing is started or formatted; move the foreign data folders away, or name the right one in spec.clusterID", true)
	case len(ids) == 0:
		p.bootstrap()
	default:
		p.confirmBootstrap()
		p.record(ids[0])
		p.answer(ids[0])
	}
}

// knownClusterIDs are the cluster ids that anything at all knows, sorted. A recorded id
// counts alone: a volume that differs from it is that node's own problem, named by its
// supervisor.
func (p *pass) knownClusterIDs() []string {
	if p.have.ClusterID != "" {
		return []string{p.have.ClusterID}
	}
	if p.want.ClusterID != "" {
		return []string{p.want.ClusterID}
	}
	var ids []string
	for _, n := range p.have.Nodes {
		if n.Spec.ClusterID != "" {
			ids = append(ids, n.Spec.ClusterID)
		}
		for _, v := range n.Status.Volumes {
			if v.ClusterID != "" {
				ids = append(ids, v.ClusterID)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// bootstrap lets a new cluster be born once every node has shown empty disks.
func (p *pass) bootstrap() {
	for i := range p.want.Nodes {
		w := &p.want.Nodes[i]
		n, ok := p.nodes[w.ID]
		if !ok {
			return // being created in this pass, or blocked with its own reason
		}
		if n.Status.Nonce == "" || !allVolumes(n, api.VolumeEmpty) {
			p.block(w.ID, "WaitingForDisks", fmt.Sprintf("a new cluster is formatted when every node has shown that its disks are empty; node %d has not: %s", w.ID, nodeWord(n)), false)
			return
		}
	}
	initial := p.initialControllers()
	if initial == nil {
		return
	}
	// Controllers first: their answers hold the list with which a bootstrap that is cut off
	// here is finished.
	for _, controllers := range []bool{true, false} {
		for _, n := range p.existing() {
			if p.wanted[n.Spec.NodeID].Controller() == controllers {
				p.answerBootstrap(n, p.have.Fresh.ClusterID, initial)
			}
		}
	}
}

// initialControllers names every controller with a new directory id; nil when the shell
// drew too few ids.
func (p *pass) initialControllers() []string {
	var initial []string
	for i := range p.want.Nodes {
		w := &p.want.Nodes[i]
		if !w.Controller() {
			continue
		}
		if len(initial) >= len(p.have.Fresh.DirectoryIDs) || p.have.Fresh.ClusterID == "" {
			p.block(-1, "NoFreshIDs", "this pass has no random ids for a new cluster; the next one will", false)
			return nil
		}
		initial = append(initial, fmt.Sprintf("%d@%s:%s", w.ID, endpoint(p.spec(w.ID)), p.have.Fresh.DirectoryIDs[len(initial)]))
	}
	return initial
}

func (p *pass) answerBootstrap(n *Node, clusterID string, initial []string) {
	spec := p.spec(n.Spec.NodeID)
	spec.ClusterID = clusterID
	spec.Storage = &api.StorageAnswer{Nonce: n.Status.Nonce, Answer: api.StorageBootstrap, MetadataVersion: p.want.MetadataVersion}
	if p.wanted[spec.NodeID].Controller() {
		spec.Storage.InitialControllers = initial
	}
	p.write(AnswerStorage, spec, "a new cluster is formatted: no disk, node or revision knows a cluster id")
}

// record keeps a cluster id for good once the controllers' disks prove it and no node is
// left that the bootstrap has not answered: afterwards a broker joins only where another
// one says that it may.
func (p *pass) record(id string) {
	if p.have.ClusterID != "" {
		return
	}
	for _, n := range p.existing() {
		if n.Spec.ClusterID == "" {
			return
		}
	}
	for i := range p.want.Nodes {
		w := &p.want.Nodes[i]
		if !w.Controller() {
			continue
		}
		n, ok := p.nodes[w.ID]
		if !ok || !allVolumes(n, api.VolumeFormatted) || n.Status.Volumes[0].ClusterID != id {
			return
		}
	}
	p.step(Step{Kind: RecordClusterID, Node: -1, ClusterID: id, Reason: "every controller's disk carries this cluster id"})
}

// answer answers each open question in a cluster whose id is known.
func (p *pass) answer(id string) {
	p.finishBootstrap(id)
	if p.allControllersEmpty() && !p.bootstrapping() {
		p.block(-1, "MetadataLost", "the disks of every controller are empty, although cluster "+id+" has run here; no second cluster is made in its place: bring back the data folders of the controllers, or, to give the data up, delete the KafkaCluster and apply it again with empty data folders", true)
		return
	}
	for _, n := range p.existing() {
		if n.Status.Nonce == "" || p.answered(n) || p.leaving[n.Spec.NodeID] && !p.retired(n.Spec.NodeID) {
			continue // an empty disk of a node that leaves is no loss, and nothing new begins there
		}
		p.answerOne(n, id)
	}
}

// answered says whether the node's open question has its answer.
func (p *pass) answered(n *Node) bool {
	s := p.spec(n.Spec.NodeID).Storage
	return s != nil && s.Nonce == n.Status.Nonce
}

// finishBootstrap goes on with a bootstrap that was cut off: the same cluster id and the
// same initial controllers for those that still ask, because they got no answer yet or ask
// again without having been seen formatted.
func (p *pass) finishBootstrap(id string) {
	initial := p.bootstrapList()
	if initial == nil {
		return
	}
	for _, n := range p.existing() {
		if n.Status.Nonce == "" || p.answered(n) || !allVolumes(n, api.VolumeEmpty) {
			continue
		}
		begun := n.Spec.Storage != nil && n.Spec.Storage.Answer == api.StorageBootstrap
		if !begun && (n.Spec.Storage != nil || p.have.ClusterID != "") {
			continue // it was formatted, so what was there counted and is gone now; or it is new
		}
		if !p.wanted[n.Spec.NodeID].Controller() || namedIn(initial, n.Spec.NodeID) {
			p.answerBootstrap(n, id, initial)
		}
	}
}

// confirmBootstrap notes in the spec of a node whose disks are formatted that they are. A
// controller that is emptied later must not get the same directory id once more: it would
// vote having forgotten its votes and the log, and two such make a majority.
func (p *pass) confirmBootstrap() {
	for _, n := range p.existing() {
		spec := p.spec(n.Spec.NodeID)
		if !allVolumes(n, api.VolumeFormatted) || metadataDirectory(n) == "" {
			continue
		}
		noted := p.noteDirectories(n, &spec)
		switch {
		case spec.Storage == nil: // its object was deleted by hand and made again
			spec.Storage = &api.StorageAnswer{}
		case spec.Storage.Answer != api.StorageBootstrap && noted:
			p.write(UpdateLive, spec, "the ids of its log directories are noted")
			continue
		case spec.Storage.Answer != api.StorageBootstrap:
			continue
		}
		spec.Storage.Answer = api.StorageAdopt
		p.write(UpdateLive, spec, "its disks are formatted, which happens only once")
	}
}

// bootstrapList is the list of initial controllers of a bootstrap that has begun, nil without one.
func (p *pass) bootstrapList() []string {
	for _, n := range p.have.Nodes {
		if s := n.Spec.Storage; s != nil && len(s.InitialControllers) > 0 {
			return s.InitialControllers
		}
	}
	return nil
}

// bootstrapping says whether a bootstrap has begun that no disk and no record shows as done.
func (p *pass) bootstrapping() bool {
	return p.have.ClusterID == "" && slices.ContainsFunc(p.have.Nodes, func(n Node) bool {
		s := n.Spec.Storage
		return s != nil && s.Answer == api.StorageBootstrap && len(s.InitialControllers) > 0
	})
}

func namedIn(initial []string, id int32) bool {
	prefix := fmt.Sprintf("%d@", id)
	return slices.ContainsFunc(initial, func(s string) bool { return strings.HasPrefix(s, prefix) })
}

func (p *pass) allControllersEmpty() bool {
	seen := false
	for i := range p.want.Nodes {
		w := &p.want.Nodes[i]
		if !w.Controller() {
			continue
		}
		n, ok := p.nodes[w.ID]
		if !ok {
			continue
		}
		if n.Status.Nonce == "" || !metadataEmpty(n) {
			return false
		}
		seen = true
	}
	return seen
}

func (p *pass) answerOne(n *Node, id string) {
	w := p.wanted[n.Spec.NodeID]
	spec := p.spec(n.Spec.NodeID)
	if allVolumes(n, api.VolumeFormatted) {
		if bad := wrongIDs(n, id); bad != "" {
			p.block(w.ID, "ForeignData", bad, true)
			return
		}
		spec.ClusterID = id
		spec.Storage = &api.StorageAnswer{Nonce: n.Status.Nonce, Answer: api.StorageAdopt}
		p.write(AnswerStorage, spec, "the disks carry the data of this cluster and this node")
		return
	}
	if bad := p.addedVolumes(n, id); bad != "" {
		p.block(w.ID, "ForeignData", bad, true)
		return
	}
	if !p.onlyAdded(n) && !p.mayJoin(n, w) {
		return
	}
	spec.ClusterID = id
	spec.Storage = &api.StorageAnswer{Nonce: n.Status.Nonce, Answer: api.StorageJoin}
	p.write(AnswerStorage, spec, "empty disks of a node of a cluster that runs: the node joins and its data is replicated again")
}

// wrongIDs names formatted volumes that are not this cluster's or not this node's.
func wrongIDs(n *Node, id string) string {
	for _, v := range n.Status.Volumes {
		if v.ClusterID != id {
			return fmt.Sprintf("volume %s of node %d belongs to cluster %s, not to %s: move its data folder away, or give the right one", v.Name, n.Spec.NodeID, v.ClusterID, id)
		}
		if v.NodeID != nil && *v.NodeID != n.Spec.NodeID {
			return fmt.Sprintf("volume %s of node %d was formatted for node %d: move its data folder away, or give the right one", v.Name, n.Spec.NodeID, *v.NodeID)
		}
	}
	return ""
}

// mayJoin checks, with facts of this pass, that formatting an empty disk loses nothing
// that still counts on it.
func (p *pass) mayJoin(n *Node, w *cluster.Node) bool {
	id := n.Spec.NodeID
	k := &p.have.Kafka
	// A controller with its metadata log is no other one for an empty disk beside it, and
	// Kafka may not be readable without it.
	intact := w.Controller() && !metadataEmpty(n)
	if !k.Known && intact && slices.Contains(p.have.Accept, id) {
		return true
	}
	if !k.Known {
		p.block(id, "KafkaUnreadable", unreadableWords(id, k.Why, intact), false)
		return false
	}
	if w.Controller() && metadataEmpty(n) && voter(k, id) != nil {
		return false // voters() removes the lost voter first, or says why it cannot
	}
	if !w.Broker() {
		return true
	}
	if b := p.brokers[id]; b != nil && !b.Fenced {
		p.block(id, "WaitingForFence", fmt.Sprintf("node %d has empty disks; waiting until Kafka has fenced the lost broker", id), false)
		return false
	}
	if slices.Contains(p.have.Accept, id) {
		return true
	}
	if !k.PartitionsKnown {
		p.block(id, "KafkaUnreadable", fmt.Sprintf("node %d has empty disks and waits: no broker answers which partitions have their last copy on it; start another broker, or accept the loss with the annotation castellan.dev/accept-data-loss: \"%d\" on the KafkaCluster", id, id), !p.anyBrokerWithData())
		return false
	}
	if last := lastCopies(k.Topics, id); last != "" {
		p.block(id, "LastCopyLost", fmt.Sprintf("node %d has empty disks, but the last complete copy of %s may have been there: bring the data folder back, or accept the loss with the annotation castellan.dev/accept-data-loss: \"%d\" on the KafkaCluster", id, last, id), true)
		return false
	}
	return true
}

func unreadableWords(id int32, why string, intact bool) string {
	words := fmt.Sprintf("node %d has empty disks and waits: whether it may be formatted is decided when Kafka can be read (%s)", id, why)
	if intact {
		words += fmt.Sprintf("; if Kafka needs this controller for that, accept the loss of what was on them with the annotation castellan.dev/accept-data-loss: \"%d\" on the KafkaCluster", id)
	}
	return words
}

// anyBrokerWithData says whether a broker is left that may answer by itself some day.
func (p *pass) anyBrokerWithData() bool {
	return slices.ContainsFunc(p.existing(), func(n *Node) bool {
		return p.wanted[n.Spec.NodeID].Broker() && n.Status.Nonce == ""
	})
}

// lastCopies names partitions of this broker that no other broker is known to have in
// full. Where eligible leader replicas are on (KIP-966), the last in-sync replica leaves
// the ISR too, so an empty ISR says nothing about who has the data.
func lastCopies(topics []Topic, id int32) string {
	var names []string
	for i := range topics {
		t := &topics[i]
		for j := range t.Partitions {
			part := &t.Partitions[j]
			if slices.Contains(part.Replicas, id) && !slices.ContainsFunc(part.ISR, func(r int32) bool { return r != id }) {
				names = append(names, fmt.Sprintf("%s-%d", t.Name, j))
			}
		}
	}
	return someOf(names)
}

// someOf lists the first few names and says that there are more.
func someOf(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + " and others"
}

func allVolumes(n *Node, state api.VolumeState) bool {
	if len(n.Status.Volumes) == 0 {
		return false
	}
	for _, v := range n.Status.Volumes {
		if v.State != state {
			return false
		}
	}
	return true
}

// metadataEmpty says whether the volume with the metadata log, the first one, is empty.
func metadataEmpty(n *Node) bool {
	if len(n.Status.Volumes) == 0 {
		return false
	}
	for _, v := range n.Status.Volumes {
		if v.Name == n.Spec.Volumes[0].Name {
			return v.State == api.VolumeEmpty
		}
	}
	return false
}

// nodeWord says in a few words where a node stands.
func nodeWord(n *Node) string {
	if n.Status.Message != "" {
		return n.Status.Message
	}
	if n.Status.Reason != "" {
		return n.Status.Reason
	}
	if n.Status.State == "" && n.Spec.Host == "" {
		return "nothing is known of its pod yet"
	}
	if n.Status.State == "" {
		return "its host has not reported yet"
	}
	return string(n.Status.State)
}
