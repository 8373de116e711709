package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corehost "castellan.dev/castellan/core/host"
)

// labelClaim marks the ConfigMaps that claim ports.
const labelClaim = "castellan.dev/claim"

// ClaimedError says that a port of a host belongs to another.
type ClaimedError struct {
	Host  string
	Port  int32
	Owner api.OwnerRef
}

func (e *ClaimedError) Error() string {
	return fmt.Sprintf("port %d of host %s is claimed by %s %s/%s", e.Port, e.Host, e.Owner.Kind, e.Owner.Namespace, e.Owner.Name)
}

// Owner is the node as the owner of claims.
func Owner(node api.KafkaNode) api.OwnerRef {
	return api.OwnerRef{Kind: "KafkaNode", Namespace: node.Namespace, Name: node.Name, UID: string(node.UID)}
}

// Claim makes the ports of a host the owner's: all of them, or none and a *ClaimedError that
// names whose one is. Two owners cannot both win, since a claim is the creation of an
// object with the port in its name. An owner is known by kind, namespace and name, so that a
// node that is created again finds its ports.
func (r *Realizer) Claim(ctx context.Context, host string, ports []int32, owner api.OwnerRef) error {
	claimed, err := r.Claimed(ctx, host)
	if err != nil {
		return err
	}
	var made []int32
	for _, port := range slices.Compact(slices.Sorted(slices.Values(ports))) {
		holder, taken := claimed[port]
		if !taken {
			holder, err = r.claim(ctx, host, port, owner)
		}
		switch {
		case err != nil:
		case !sameOwner(holder, owner):
			err = &ClaimedError{Host: host, Port: port, Owner: holder}
		case !taken:
			made = append(made, port)
		}
		if err != nil {
			return errors.Join(err, r.release(ctx, host, made))
		}
	}
	return nil
}

// claim creates the claim and says who holds it then.
func (r *Realizer) claim(ctx context.Context, host string, port int32, owner api.OwnerRef) (api.OwnerRef, error) {
	claim := claimObject(host, port)
	immutable := true
	claim.Immutable = &immutable
	claim.Data = map[string]string{
		"port": strconv.Itoa(int(port)), "kind": owner.Kind, "namespace": owner.Namespace, "name": owner.Name, "uid": owner.UID,
	}
	err := r.client.Create(ctx, claim, fieldOwner)
	if err == nil {
		return owner, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return api.OwnerRef{}, fmt.Errorf("claim port %d of host %s: %w", port, host, err)
	}
	var found corev1.ConfigMap
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(claim), &found); err != nil {
		return api.OwnerRef{}, fmt.Errorf("read who claims port %d of host %s: %w", port, host, err)
	}
	return ownerOf(found), nil
}

// Claimed are the claimed ports of a host and whose they are.
func (r *Realizer) Claimed(ctx context.Context, host string) (map[int32]api.OwnerRef, error) {
	var claims corev1.ConfigMapList
	if err := r.live.List(ctx, &claims, client.InNamespace(corehost.Namespace(host)), client.MatchingLabels{labelClaim: "port"}); err != nil {
		return nil, fmt.Errorf("list the claimed ports of host %s: %w", host, err)
	}
	claimed := make(map[int32]api.OwnerRef, len(claims.Items))
	for _, claim := range claims.Items {
		port, err := strconv.ParseInt(claim.Data["port"], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("claim %s of host %s names no port: delete it if nobody uses it: %w", claim.Name, host, err)
		}
		claimed[int32(port)] = ownerOf(claim)
	}
	return claimed, nil
}

// Release gives back every port of a host that the owner claimed.
func (r *Realizer) Release(ctx context.Context, host string, owner api.OwnerRef) error {
	claimed, err := r.Claimed(ctx, host)
	if err != nil {
		return err
	}
	maps.DeleteFunc(claimed, func(_ int32, holder api.OwnerRef) bool { return !sameOwner(holder, owner) })
	return r.release(ctx, host, slices.Sorted(maps.Keys(claimed)))
}

func (r *Realizer) release(ctx context.Context, host string, ports []int32) error {
	for _, port := range ports {
		if err := r.client.Delete(ctx, claimObject(host, port)); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("release port %d of host %s: %w", port, host, err)
		}
	}
	return nil
}

func claimObject(host string, port int32) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: corehost.Namespace(host),
		Name:      fmt.Sprintf("claim-port-%d", port),
		Labels:    map[string]string{labelClaim: "port"},
	}}
}

func ownerOf(claim corev1.ConfigMap) api.OwnerRef {
	return api.OwnerRef{Kind: claim.Data["kind"], Namespace: claim.Data["namespace"], Name: claim.Data["name"], UID: claim.Data["uid"]}
}

func sameOwner(a, b api.OwnerRef) bool {
	return a.Kind == b.Kind && a.Namespace == b.Namespace && a.Name == b.Name
}
