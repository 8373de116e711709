package plan

import (
	"fmt"
	"slices"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
)

// caughtUpWithin is how recently a voter or observer must have had the leader's whole log
// to count as caught up (Kafka's own measure: DescribeQuorum's LastCaughtUpTimestamp).
const caughtUpWithin = 10 * time.Second

// voters repairs the KRaft quorum (KIP-853): a voter whose disk is gone is removed, a
// caught-up controller that is no voter is added. One change at a time, never below a
// majority of caught-up voters.
func (p *pass) voters() {
	k := &p.have.Kafka
	if !k.Known || k.Quorum.Leader < 0 {
		return
	}
	for i := range k.Quorum.Voters {
		v := &k.Quorum.Voters[i]
		if p.lostVoter(v) {
			p.removeVoter(v)
			return
		}
	}
	for _, n := range p.existing() {
		if p.wanted[n.Spec.NodeID].Controller() && !p.leaving[n.Spec.NodeID] && p.addVoter(n) {
			return
		}
	}
}

// lostVoter says whether the directory that votes is certainly gone: its node shows an
// empty metadata volume, or another directory id in its place. A silent node is not lost.
func (p *pass) lostVoter(v *Replica) bool {
	n, ok := p.nodes[v.ID]
	if !ok || v.DirectoryID == "" || p.wanted[v.ID] == nil {
		return false
	}
	if n.Status.Nonce != "" && metadataEmpty(n) {
		s := p.spec(v.ID).Storage
		return s == nil || s.Answer != api.StorageBootstrap // a late first controller is not lost: it was never there
	}
	dir := metadataDirectory(n)
	return dir != "" && dir != v.DirectoryID
}

func (p *pass) removeVoter(v *Replica) {
	others, need := p.majorityWithout(v.ID)
	if others < need {
		p.block(v.ID, "QuorumTooSmall", fmt.Sprintf("the disk of controller %d is gone, but removing it as a voter needs a majority of the other voters caught up: bring the other controllers back first", v.ID), true)
		return
	}
	p.step(Step{
		Kind: RemoveVoter, Node: v.ID, DirectoryID: v.DirectoryID,
		Reason: fmt.Sprintf("the directory %s of controller %d is gone; it votes no more", v.DirectoryID, v.ID),
	})
}

// majorityWithout counts the caught-up voters besides one, and how many of them a quorum
// without it needs.
func (p *pass) majorityWithout(id int32) (others, need int) {
	q := &p.have.Kafka.Quorum
	for i := range q.Voters {
		v := &q.Voters[i]
		if n := p.nodes[v.ID]; v.ID != id && n != nil && p.present(n) && caughtUp(q, v) {
			others++
		}
	}
	return others, (len(q.Voters)-1)/2 + 1
}

func (p *pass) addVoter(n *Node) bool {
	q := &p.have.Kafka.Quorum
	id, dir := n.Spec.NodeID, metadataDirectory(n)
	if dir == "" || voter(&p.have.Kafka, id) != nil {
		return false
	}
	for i := range q.Observers {
		o := &q.Observers[i]
		if o.ID != id || o.DirectoryID != dir {
			continue
		}
		if !caughtUp(q, o) {
			break
		}
		p.step(Step{
			Kind: AddVoter, Node: id, DirectoryID: dir, Endpoint: endpoint(p.spec(id)),
			Reason: fmt.Sprintf("controller %d has caught up and becomes a voter under directory %s", id, dir),
		})
		return true
	}
	p.block(id, "ObserverCatchingUp", fmt.Sprintf("controller %d becomes a voter when it has caught up with the metadata log", id), false)
	p.again(2 * time.Second)
	return false
}

// again asks for another look after d at most.
func (p *pass) again(d time.Duration) {
	if p.plan.Again == 0 || d < p.plan.Again {
		p.plan.Again = d
	}
}

func voter(k *Kafka, id int32) *Replica {
	i := slices.IndexFunc(k.Quorum.Voters, func(v Replica) bool { return v.ID == id })
	if i < 0 {
		return nil
	}
	return &k.Quorum.Voters[i]
}

// caughtUp says whether a replica had the leader's whole log a moment ago.
func caughtUp(q *Quorum, r *Replica) bool {
	return r.ID == q.Leader || (r.LastCaughtUp >= 0 && r.LastCaughtUp <= caughtUpWithin)
}

// metadataDirectory is the directory id of the node's formatted metadata volume; a disk of
// another node or cluster, put there by mistake, says nothing about where its own is.
func metadataDirectory(n *Node) string {
	for _, v := range n.Status.Volumes {
		own := v.ClusterID == n.Spec.ClusterID && v.NodeID != nil && *v.NodeID == n.Spec.NodeID
		if v.Name == n.Spec.Volumes[0].Name && v.State == api.VolumeFormatted && own {
			return v.DirectoryID
		}
	}
	return ""
}
