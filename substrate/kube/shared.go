package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
)

// ApplyShared makes what the nodes of a cluster share so, as far as it is not.
func (r *Realizer) ApplyShared(ctx context.Context, in corekube.SharedInput) error {
	want := corekube.Shared(in)
	a := &act{r: r}
	// The budget first: it may have to close before anything else is done.
	errs := []error{a.put(ctx, want.Budget)}
	for _, service := range want.Services {
		errs = append(errs, a.put(ctx, service))
	}
	found, err := r.sharedServices(ctx, r.client, in.Namespace, in.Cluster)
	errs = append(errs, err)
	var obsolete []client.Object
	for i := range found {
		if !slices.ContainsFunc(want.Services, func(s *corev1.Service) bool { return s.Name == found[i].Name }) {
			obsolete = append(obsolete, &found[i])
		}
	}
	errs = append(errs, a.remove(ctx, obsolete))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("realize what cluster %s/%s shares: %w", in.Namespace, in.Cluster, err)
	}
	return nil
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
