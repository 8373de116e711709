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
		return !slices.ContainsFunc(want.Nodes, func(w cluster.Node) bool { return w.ID == n.Spec.NodeID }) || len(ownKeys(n.Spec.Dynamic)) > 0 || len(leftVolumes(want, &n)) > 0
	})
}

// Keys of a broker's configuration that Castellan sets while replicas move, and takes away after.
const (
	leaderRate   = "leader.replication.throttled.rate"
	followerRate = "follower.replication.throttled.rate"
	logDirRate   = "replica.alter.log.dirs.io.max.bytes.per.second"
	// cordonedDirs takes no new replica (KIP-1066); from metadata.version 4.3-IV0 on.
	cordonedDirs = "cordoned.log.dirs"
)

// ownKeys are the keys of the moves among a broker's configuration.
func ownKeys(dynamic map[string]string) []string {
	var out []string
	for _, key := range []string{leaderRate, followerRate, logDirRate, cordonedDirs} {
		if _, ok := dynamic[key]; ok {
			out = append(out, key)
		}
	}
	return out
}

// leftVolumes are the volumes of a node that its pool no longer has.
func leftVolumes(want cluster.Model, n *Node) []string {
	i := slices.IndexFunc(want.Nodes, func(w cluster.Node) bool { return w.ID == n.Spec.NodeID })
	if i < 0 {
		return nil
	}
	var out []string
	for _, v := range n.Spec.Process.Volumes {
		if !slices.Contains(want.Nodes[i].Process.Volumes, v) {
			out = append(out, v)
		}
	}
	return out
}
