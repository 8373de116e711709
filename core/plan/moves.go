package plan

import (
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

// moves says whether an Operation is about where replicas are, and restarts no node.
func moves(op *api.Operation) bool {
	switch op.Spec.Type {
	case api.OperationScale, api.OperationDrain, api.OperationRebalance:
		return true
	default:
		return false
	}
}

// NeedsPlacement says whether a pass must know where replicas are and what is on its way,
// which costs a request per broker. moving are the topics recorded in the newest revision.
func NeedsPlacement(want cluster.Model, nodes []Node, ops []api.Operation, moving []string) bool {
	if want.Paused || want.State == api.StateStopped {
		return false
	}
	if len(moving) > 0 || slices.ContainsFunc(ops, func(op api.Operation) bool { return moves(&op) && !op.Status.Phase.Final() }) {
		return true
	}
	return slices.ContainsFunc(nodes, func(n Node) bool {
		w := nodeOf(want, n.Spec.NodeID)
		return w == nil || len(leftVolumes(w, &n.Spec)) > 0 || slices.ContainsFunc(ownKeys(), func(key string) bool {
			_, has := n.Spec.Dynamic[key]
			_, wants := w.Dynamic[key]
			return has && !wants
		})
	})
}

// PerBroker are the ready brokers whose own dynamic configuration a pass must know: those that
// have some of ours, or shall have, and while replicas move all of them, since somebody else may
// have set there what moving sets.
func PerBroker(want cluster.Model, nodes []Node, placement bool) []int32 {
	var ids []int32
	for i := range nodes {
		n := &nodes[i]
		w := nodeOf(want, n.Spec.NodeID)
		if n.Status.Ready && slices.Contains(n.Spec.Roles, api.RoleBroker) && (placement || len(n.Spec.Dynamic) > 0 || w != nil && len(w.Dynamic) > 0) {
			ids = append(ids, n.Spec.NodeID)
		}
	}
	return ids
}

// Keys of a broker's configuration that Castellan sets while replicas move, and takes away after.
const (
	leaderRate   = "leader.replication.throttled.rate"
	followerRate = "follower.replication.throttled.rate"
	logDirRate   = "replica.alter.log.dirs.io.max.bytes.per.second"
	// cordonedDirs takes no new replica (KIP-1066); from metadata.version 4.3-IV0 on.
	cordonedDirs = "cordoned.log.dirs"
)

// ownKeys are all of them.
func ownKeys() []string { return []string{leaderRate, followerRate, logDirRate, cordonedDirs} }

func nodeOf(want cluster.Model, id int32) *cluster.Node {
	i := slices.IndexFunc(want.Nodes, func(w cluster.Node) bool { return w.ID == id })
	if i < 0 {
		return nil
	}
	return &want.Nodes[i]
}

// leftVolumes are the volumes of a node that its pool no longer has.
func leftVolumes(w *cluster.Node, is *api.KafkaNodeSpec) []string {
	var out []string
	for _, v := range is.Process.Volumes {
		if !slices.Contains(w.Process.Volumes, v) {
			out = append(out, v)
		}
	}
	return out
}
