package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
)

// SameShared says whether the cache shows what ApplyShared would make, and nothing more.
func (r *Realizer) SameShared(ctx context.Context, in corekube.SharedInput) bool {
	want := corekube.Shared(in)
	objects := []client.Object{want.Budget}
	for _, service := range want.Services {
		objects = append(objects, service)
	}
	a := &act{r: r}
	for _, o := range objects {
		if sign(o) != nil {
			return false
		}
		if same, err := a.so(ctx, r.client, o); err != nil || !same {
			return false
		}
	}
	obsolete, err := r.obsoleteShared(ctx, want)
	return err == nil && len(obsolete) == 0
}

// ApplyShared makes what the nodes of a cluster share so, as far as it is not. closed says
// that the budget was not closed until now.
func (r *Realizer) ApplyShared(ctx context.Context, in corekube.SharedInput) (closed bool, err error) {
	want := corekube.Shared(in)
	a := &act{r: r}
	// The budget first: it may have to close before anything else is done. Nor is the cache
	// asked, which may not know yet that it was opened.
	errs := []error{sign(want.Budget)}
	wrote, err := a.write(ctx, want.Budget)
	errs = append(errs, err)
	for _, service := range want.Services {
		errs = append(errs, a.put(ctx, service))
	}
	obsolete, err := r.obsoleteShared(ctx, want)
	errs = append(errs, err, a.remove(ctx, obsolete))
	if err := errors.Join(errs...); err != nil {
		return wrote && !in.Spare, fmt.Errorf("realize what cluster %s/%s shares: %w", in.Namespace, in.Cluster, err)
	}
	return wrote && !in.Spare, nil
}

// obsoleteShared are the Services of the cluster that are wanted no more and not ending yet.
func (r *Realizer) obsoleteShared(ctx context.Context, want corekube.SharedObjects) ([]client.Object, error) {
	found, err := r.sharedServices(ctx, r.client, want.Budget.Namespace, want.Budget.Labels[corekube.LabelCluster])
	var obsolete []client.Object
	for i := range found {
		wanted := slices.ContainsFunc(want.Services, func(s *corev1.Service) bool { return s.Name == found[i].Name })
		if !wanted && found[i].DeletionTimestamp == nil {
			obsolete = append(obsolete, &found[i])
		}
	}
	return obsolete, err
}

// sharedServices are the cluster's Services that belong to no single node.
func (r *Realizer) sharedServices(ctx context.Context, from client.Reader, namespace, cluster string) ([]corev1.Service, error) {
	all, err := r.services(ctx, from, namespace, corekube.ClusterLabels(cluster))
	return slices.DeleteFunc(all, func(s corev1.Service) bool { return s.Labels[corekube.LabelNodeID] != "" }), err
}

// ObserveShared is what Kubernetes gave a cluster as a whole, and which claims there are.
// With fresh it comes from the API server itself.
func (r *Realizer) ObserveShared(ctx context.Context, namespace, cluster string, fresh bool) (corekube.SharedFacts, error) {
	from := client.Reader(r.client)
	if fresh {
		from = r.live
	}
	facts := corekube.SharedFacts{Bootstrap: map[string]api.ExposureStatus{}, Claims: map[int32]map[string]string{}}
	services, err := r.sharedServices(ctx, from, namespace, cluster)
	if err != nil {
		return facts, fmt.Errorf("observe what cluster %s/%s shares: %w", namespace, cluster, err)
	}
	for _, s := range services {
		for _, p := range s.Spec.Ports {
			if s.Name == corekube.BootstrapExposure(cluster, p.Name) {
				facts.Bootstrap[p.Name] = corekube.Given(p.Name, s)
			}
		}
	}
	var claims corev1.PersistentVolumeClaimList
	if err := from.List(ctx, &claims, client.InNamespace(namespace), client.MatchingLabels{corekube.LabelCluster: cluster}); err != nil {
		return facts, fmt.Errorf("observe the claims of cluster %s/%s: %w", namespace, cluster, err)
	}
	for _, claim := range claims.Items {
		addNewest(facts.Claims, &claim)
	}
	if !fresh {
		return facts, nil
	}
	budget, err := read[policyv1.PodDisruptionBudget](ctx, from, namespace, corekube.BudgetName(cluster))
	if err != nil {
		return facts, fmt.Errorf("observe what cluster %s/%s shares: %w", namespace, cluster, err)
	}
	facts.Evicting = corekube.Evicting(cluster, budget)
	return facts, nil
}

// addNewest notes a claim unless one of a later attempt is known.
func addNewest(all map[int32]map[string]string, claim *corev1.PersistentVolumeClaim) {
	id, err := strconv.ParseInt(claim.Labels[corekube.LabelNodeID], 10, 32)
	volume := claim.Labels[corekube.LabelVolume]
	if err != nil || volume == "" || claim.DeletionTimestamp != nil {
		return
	}
	of := all[int32(id)]
	if of == nil {
		of = map[string]string{}
		all[int32(id)] = of
	}
	if known := of[volume]; known == "" || corekube.Attempt(known) < corekube.Attempt(claim.Name) {
		of[volume] = claim.Name
	}
}
