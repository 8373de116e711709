package cluster

import (
	"fmt"
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
)

// changes refuses what cannot be brought about from the accepted spec.
func (r *resolver) changes() {
	old := r.in.Accepted
	if old == nil {
		return
	}
	if CompareVersions(ReleaseLine(r.spec.Version), ReleaseLine(old.Version)) < 0 && !Understands(r.spec.Version, r.in.Finalized) {
		what := "its metadata.version " + r.in.Finalized + " is finalized, which " + r.spec.Version + " does not understand"
		if r.in.Finalized == "" {
			what = "which metadata.version is finalized is not known now"
		}
		r.fail("spec.version", fmt.Sprintf("going back from %s to %s is not possible: %s", old.Version, r.spec.Version, what), "keep "+old.Version+" or a later one")
	}
	if r.spec.MetadataVersion != old.MetadataVersion {
		r.fail("spec.metadataVersion", "the metadata version of a running cluster cannot be changed by this version of Castellan", fmt.Sprintf("keep %q", old.MetadataVersion))
	}
	for i := range old.Pools {
		r.poolChange(&old.Pools[i])
	}
	for i := range r.in.Leaving {
		r.poolChange(&r.in.Leaving[i])
	}
	for i, l := range r.spec.Listeners {
		j := slices.IndexFunc(old.Listeners, func(o api.Listener) bool { return o.Name == l.Name })
		if j >= 0 && old.Listeners[j].Port != l.Port {
			r.fail(fmt.Sprintf("spec.listeners[%d].port", i), fmt.Sprintf("the port of listener %s cannot change from %d: clients know it", l.Name, old.Listeners[j].Port), "add another listener with the new port, move the clients, then remove the old one")
		}
		if j >= 0 {
			r.exposureChange(fmt.Sprintf("spec.listeners[%d].exposure", i), l.Exposure, old.Listeners[j].Exposure)
		}
	}
}

func (r *resolver) poolChange(old *api.Pool) {
	i := slices.IndexFunc(r.spec.Pools, func(p api.Pool) bool { return p.Name == old.Name })
	if i < 0 {
		return // its nodes leave
	}
	p, path := &r.spec.Pools[i], fmt.Sprintf("spec.pools[%d]", i)
	if !sameRoles(p.Roles, old.Roles) {
		r.fail(path+".roles", fmt.Sprintf("the roles of pool %s cannot change from %s", p.Name, roleWords(old.Roles)), "add another pool with the other roles")
	}
	r.volumeChange(path, p, old)
}

// volumeChange lets volumes come at the end and leave, all but the first; the others stay
// what and where they are.
func (r *resolver) volumeChange(path string, p, old *api.Pool) {
	now, before := volumesOf(p), volumesOf(old)
	if now[0].Name != before[0].Name {
		r.fail(path+".volumes[0].name", fmt.Sprintf("volume %s cannot become %s: its name is part of the data's path, and the first volume holds the metadata log", before[0].Name, now[0].Name),
			"keep "+before[0].Name+" in front, and put new volumes at the end")
		return
	}
	last := 0 // of those before, the one that stood last so far
	for j := range now {
		at := fmt.Sprintf("%s.volumes[%d]", path, j)
		k := slices.IndexFunc(before, func(v api.Volume) bool { return v.Name == now[j].Name })
		if k < 0 {
			last = len(before)
			continue
		}
		if k < last {
			r.fail(at+".name", fmt.Sprintf("volume %s has data and cannot change its place among the others", now[j].Name), "keep the order of the volumes, and put new ones at the end")
		}
		last = max(last, k)
		r.sameVolume(at, now[j], before[k])
	}
}

func (r *resolver) sameVolume(at string, now, before api.Volume) {
	switch {
	case now.Path != before.Path:
		r.fail(at+".path", "the path of a volume with data cannot change", fmt.Sprintf("keep %q", before.Path))
	case now.StorageClassName != before.StorageClassName:
		r.fail(at+".storageClassName", fmt.Sprintf("the storage class of a volume with data cannot change from %q", before.StorageClassName), "keep it, or add another pool with the other class")
	case now.Size != nil && before.Size != nil && now.Size.Cmp(*before.Size) < 0:
		r.fail(at+".size", fmt.Sprintf("a volume cannot shrink from %s to %s", before.Size, now.Size), "use at least "+before.Size.String())
	}
}

// LeavingPools are pools that the newest of the revisions, ascending, has no more and that
// may still have nodes, as they were last: one that comes back gets these nodes back.
func LeavingPools(revisions []api.ClusterRevision) []api.Pool {
	if len(revisions) == 0 {
		return nil
	}
	var out []api.Pool
	newest := &revisions[len(revisions)-1].Spec
	for _, given := range newest.NodeIDs {
		named := func(p api.Pool) bool { return p.Name == given.Pool }
		if len(present(given)) == 0 || slices.ContainsFunc(newest.Cluster.Pools, named) {
			continue
		}
		for _, rev := range slices.Backward(revisions) {
			if i := slices.IndexFunc(rev.Spec.Cluster.Pools, named); i >= 0 {
				out = append(out, *rev.Spec.Cluster.Pools[i].DeepCopy())
				break
			}
		}
	}
	return out
}
