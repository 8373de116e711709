package entities

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/pki"
)

// setup is what a KafkaCluster says about its entities.
type setup struct {
	policy core.Policy
	home   string
	every  bool
	// chosen namespaces beside the cluster's own.
	chosen map[string]bool
	// access is how clients come in, by how they prove who they are.
	access map[api.AuthenticationType]access
	// issuer is the certificate that signs those of users; empty while there is none.
	issuer string
}

func (s *setup) allows(namespace string) bool {
	return s.every || namespace == s.home || s.chosen[namespace]
}

// lookAtCluster takes what the KafkaCluster says now. Where that is not known yet it is looked
// at again soon, and what was known stays.
func (k *keeper) lookAtCluster(ctx context.Context) {
	kc := &api.KafkaCluster{}
	err := k.r.Client.Get(ctx, k.key, kc)
	if k.absent = apierrors.IsNotFound(err); k.absent {
		k.forget()
		return
	}
	if err != nil {
		k.log.WarnContext(ctx, "KafkaCluster not read; it is tried again", slog.Any("error", err))
		k.lookAgain()
		return
	}
	if k.cluster != nil && k.cluster.UID != kc.UID {
		k.forget()
	}
	now, err := k.r.setupOf(ctx, kc)
	if err != nil {
		k.log.WarnContext(ctx, "topics and users wait", slog.Any("error", err))
		k.lookAgain()
		return
	}
	if k.cluster != nil && k.cluster.Status.Nodes.Ready != kc.Status.Nodes.Ready {
		k.readSoon(k.r.Now()) // how many brokers are alive decides what can be made
	}
	k.cluster = kc
	k.mu.Lock()
	k.trust = trustOf(kc)
	k.mu.Unlock()
	if k.world == nil {
		k.setup, k.world = now, core.New(now.policy)
		k.claimAll(ctx)
		return
	}
	was := k.setup
	k.setup = now
	if !equality.Semantic.DeepEqual(was.policy, now.policy) {
		k.world.SetPolicy(now.policy)
		k.againAt = k.r.Now()
	}
	if was.every != now.every || !maps.Equal(was.chosen, now.chosen) || !maps.EqualFunc(was.access, now.access, access.same) || was.issuer != now.issuer {
		k.claimAll(ctx)
	}
}

// claimAll puts every object, and looks at each.
func (k *keeper) claimAll(ctx context.Context) {
	for _, ref := range slices.SortedFunc(maps.Keys(k.objects), byAge(k.objects)) {
		k.claim(ctx, ref, k.objects[ref])
		k.after.add(k.claims[ref])
	}
}

func (k *keeper) lookAgain() {
	k.mu.Lock()
	k.look = true
	k.mu.Unlock()
	k.againAt = k.r.Now().Add(soon)
}

func (r *Reconciler) setupOf(ctx context.Context, kc *api.KafkaCluster) (setup, error) {
	spec := &kc.Spec
	s := setup{
		home: kc.Namespace, every: spec.AllowedNamespaces.From == api.NamespacesAll,
		policy: core.Policy{
			Reserved: []string{layout.NodePrincipal, layout.OperatorPrincipal}, Prune: spec.Prune, Keep: spec.PruneKeep,
			Quotas: spec.Quotas, Cluster: client.ObjectKeyFromObject(kc),
		},
	}
	if a := spec.Authorization; a != nil {
		for _, user := range a.SuperUsers {
			s.policy.Reserved = append(s.policy.Reserved, strings.TrimPrefix(user, "User:"))
		}
	}
	var err error
	if spec.AllowedNamespaces.From == api.NamespacesSelector {
		if s.chosen, err = r.chosen(ctx, spec.AllowedNamespaces.Selector); err != nil {
			return s, err
		}
	}
	if s.access, err = r.accessTo(ctx, kc); err != nil {
		return s, err
	}
	s.issuer, err = r.issuer(ctx, kc)
	return s, err
}

func namespaceMetadata() *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return o
}

// chosen are the namespaces whose labels match. They are watched from the first time on that a
// cluster asks.
func (r *Reconciler) chosen(ctx context.Context, by *metav1.LabelSelector) (map[string]bool, error) {
	selector, err := metav1.LabelSelectorAsSelector(by)
	if err != nil {
		return nil, fmt.Errorf("spec.allowedNamespaces.selector: %w", err)
	}
	informer, err := r.Cache.GetInformer(ctx, namespaceMetadata(), cache.BlockUntilSynced(false))
	if err != nil {
		return nil, fmt.Errorf("watch namespaces, whose labels spec.allowedNamespaces asks for: %w", err)
	}
	r.mu.Lock()
	first := !r.selects
	r.selects = true
	r.mu.Unlock()
	if first {
		if _, err := informer.AddEventHandler(handler(func(client.Object, bool) { r.lookAtAll() })); err != nil {
			return nil, fmt.Errorf("watch namespaces: %w", err)
		}
	}
	if !informer.HasSynced() {
		return nil, fmt.Errorf("namespaces are not listed yet, whose labels spec.allowedNamespaces asks for; if this stays, give the operator the right to get, list and watch namespaces")
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := r.Client.List(ctx, list, client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("list the namespaces that spec.allowedNamespaces selects: %w", err)
	}
	out := make(map[string]bool, len(list.Items))
	for i := range list.Items {
		out[list.Items[i].Name] = true
	}
	return out, nil
}

// lookAtAll has every cluster looked at that selects namespaces, and for simplicity all others.
func (r *Reconciler) lookAtAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.keepers {
		k.markCluster()
	}
}

// trustOf are the Secrets that clients' Secrets are made from.
func trustOf(kc *api.KafkaCluster) map[string]bool {
	out := map[string]bool{pki.ClientsCASecretName(kc.Name): true}
	for _, l := range kc.Status.Listeners {
		if l.CASecretRef != nil {
			out[l.CASecretRef.Name] = true
		}
	}
	return out
}

// reportCluster writes what is the cluster's own: how much nobody manages, and one condition.
func (k *keeper) reportCluster(ctx context.Context) {
	kc := k.cluster
	body := map[string]any{}
	if k.unmanaged != nil && !equality.Semantic.DeepEqual(kc.Status.Unmanaged, k.unmanaged) {
		body["unmanaged"] = k.unmanaged
	}
	conditions := slices.Clone(kc.Status.Conditions)
	changed := false
	if k.own == nil {
		changed = meta.RemoveStatusCondition(&conditions, api.ConditionEntities)
	} else {
		one := k.own.Conditions()[0]
		one.Type, one.ObservedGeneration = api.ConditionEntities, kc.Generation
		changed = meta.SetStatusCondition(&conditions, one)
	}
	if changed {
		body["conditions"] = conditions
	}
	if len(body) == 0 {
		return
	}
	shell := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: kc.Namespace, Name: kc.Name}}
	err := k.patchStatus(ctx, shell, kc, body)
	switch {
	case err == nil:
		k.cluster = shell
	case apierrors.IsConflict(err), apierrors.IsNotFound(err): // it is looked at again as it is now
	default:
		k.log.WarnContext(ctx, "status of the KafkaCluster not written; it is tried again", slog.Any("error", err))
		k.againAt = k.r.Now().Add(readPause)
	}
}
