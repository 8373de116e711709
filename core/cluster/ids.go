package cluster

import (
	"fmt"
	"slices"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
)

// removals checks the nodes that are named to leave. One that left long ago may go on being
// named.
func (r *resolver) removals() {
	for i := range r.spec.Pools {
		p := &r.spec.Pools[i]
		var given api.PoolNodeIDs
		if k := slices.IndexFunc(r.in.NodeIDs, func(g api.PoolNodeIDs) bool { return g.Pool == p.Name }); k >= 0 {
			given = r.in.NodeIDs[k]
		}
		for j, id := range p.Remove {
			if slices.Contains(ever(given), id) {
				continue
			}
			remedy := "its nodes are " + idWords(present(given))
			if len(ever(given)) == 0 {
				remedy = "leave it out: the pool is new"
			}
			r.fail(fmt.Sprintf("spec.pools[%d].remove[%d]", i, j), fmt.Sprintf("pool %s never had a node %d", p.Name, id), remedy)
		}
	}
}

// giveIDs keeps the ids of existing nodes and gives the next free ones to new nodes. An id
// that was ever given is never given to another pool, nor again when its node has left.
func (r *resolver) giveIDs() {
	taken := map[int32]string{}
	for _, given := range r.in.NodeIDs {
		r.ids = append(r.ids, *given.DeepCopy())
		for _, id := range ever(given) {
			taken[id] = given.Pool
		}
	}
	for i := range r.spec.Pools {
		if p := &r.spec.Pools[i]; p.FirstNodeID != nil {
			r.giveFrom(i, p, *p.FirstNodeID, taken, true)
		}
	}
	for i := range r.spec.Pools {
		if p := &r.spec.Pools[i]; p.FirstNodeID == nil {
			r.giveFrom(i, p, r.nextFree(p, taken), taken, false)
		}
	}
}

// nextFree is where a pool without firstNodeID goes on counting: after its own highest id,
// or, for a new pool, at the lowest hundred from which on its nodes have hundreds of their
// own (0 for the first pool).
func (r *resolver) nextFree(p *api.Pool, taken map[int32]string) int32 {
	if ids := ever(r.ids[r.poolIDs(p.Name)]); len(ids) > 0 {
		return slices.Max(ids) + 1
	}
	hundreds := map[int32]bool{}
	for id := range taken {
		hundreds[id/100] = true
	}
	first, needed := int32(0), (p.Replicas+99)/100
	for h := int32(0); h < first+needed; h++ {
		if hundreds[h] {
			first = h + 1
		}
	}
	return first * 100
}

func (r *resolver) giveFrom(i int, p *api.Pool, next int32, taken map[int32]string, explicit bool) {
	at, missing := r.poolIDs(p.Name), int(p.Replicas)-len(r.staying(p))
	for missing > 0 {
		owner, used := taken[next]
		if used && owner != p.Name && explicit {
			r.fail(fmt.Sprintf("spec.pools[%d].firstNodeID", i), fmt.Sprintf("node id %d belongs to pool %s", next, owner), "choose a range of ids that no other pool uses, for example in steps of 100")
			return
		}
		if !used {
			taken[next] = p.Name
			r.ids[at].IDs = append(r.ids[at].IDs, next)
			missing--
		}
		next++
	}
}

// staying are the ids, ascending, of nodes that a pool may have: as many of them as it has
// replicas are its nodes, so that the highest leave.
func (r *resolver) staying(p *api.Pool) []int32 {
	return staying(p, r.ids[r.poolIDs(p.Name)])
}

func staying(p *api.Pool, given api.PoolNodeIDs) []int32 {
	return slices.DeleteFunc(present(given), func(id int32) bool { return slices.Contains(p.Remove, id) })
}

// KeptIDs are the ids, ascending, of those that were given to a pool which it goes on to
// have; replicas beyond them are new nodes.
func KeptIDs(p *api.Pool, given []api.PoolNodeIDs) []int32 {
	i := slices.IndexFunc(given, func(g api.PoolNodeIDs) bool { return g.Pool == p.Name })
	if i < 0 {
		return nil
	}
	ids := staying(p, given[i])
	return ids[:min(len(ids), max(0, int(p.Replicas)))]
}

// ever are all ids that a pool had. A node may have left that no revision knew, because
// revisions were deleted by hand: it is in Removed alone.
func ever(given api.PoolNodeIDs) []int32 { return slices.Concat(given.IDs, given.Removed) }

// present are the ids, ascending, whose nodes have not left for good.
func present(given api.PoolNodeIDs) []int32 {
	ids := slices.Sorted(slices.Values(given.IDs))
	return slices.DeleteFunc(ids, func(id int32) bool { return slices.Contains(given.Removed, id) })
}

func (r *resolver) poolIDs(pool string) int {
	i := slices.IndexFunc(r.ids, func(g api.PoolNodeIDs) bool { return g.Pool == pool })
	if i >= 0 {
		return i
	}
	r.ids = append(r.ids, api.PoolNodeIDs{Pool: pool})
	return len(r.ids) - 1
}

func idWords(ids []int32) string {
	words := make([]string, 0, len(ids))
	for _, id := range ids {
		words = append(words, fmt.Sprint(id))
	}
	return strings.Join(words, ", ")
}
