// Package kube brings KafkaNodes into Kubernetes: it applies the objects that package
// core/kube asks for, takes up the permission to restart, and reads back what Kubernetes
// and the supervisors say. It decides nothing, and it writes nothing that is already so.
package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
)

// fieldOwner of all that the realizer writes.
const fieldOwner = client.FieldOwner("castellan")

// Realizer makes nodes so in Kubernetes.
type Realizer struct {
	// client writes; its reads may come from a cache of the kinds in Watched.
	client client.Client
	// live reads from the API server itself.
	live    client.Reader
	reports *Reports
	sight   Sight
	// warnings are the reasons that only events tell.
	warnings *warnings
	settled  *settled

	mu sync.Mutex
	// extras are the generations of StatefulSets whose template has more than was applied,
	// though it was replaced: defaults that this version does not know.
	extras map[types.UID]int64
}

// New makes a realizer that sees no machines; live reads must not come from a cache. With
// nil reports it only repeats what a node's status says, for previews.
func New(c client.Client, live client.Reader, reports *Reports) *Realizer {
	return &Realizer{client: c, live: live, reports: reports, settled: newSettled(), extras: map[types.UID]int64{}, warnings: newWarnings(live)}
}

// SetSight says what may be read beside the objects of the cluster's own namespace; it is
// called before anything else.
func (r *Realizer) SetSight(s Sight) { r.sight = s }

// Sees is what was given to SetSight.
func (r *Realizer) Sees() Sight { return r.sight }

// Apply makes the node so, as far as it is not, and restarts it where its spec permits that.
// An error about one volume or Service does not keep the rest from being done.
func (r *Realizer) Apply(ctx context.Context, node api.KafkaNode) error {
	if err := r.apply(ctx, &node); err != nil {
		return fmt.Errorf("realize node %s/%s: %w", node.Namespace, node.Name, err)
	}
	return nil
}

func (r *Realizer) apply(ctx context.Context, node *api.KafkaNode) error {
	key := client.ObjectKeyFromObject(node)
	f, err := r.find(ctx, r.client, node)
	if err != nil {
		return err
	}
	now := f.digest(node)
	if r.settled.is(key, now, idle) {
		r.follow(key, node, f.Pod) //nolint:contextcheck // reports are followed beyond this pass
		return nil
	}
	want, err := corekube.Objects(*node)
	if err != nil {
		return err
	}
	a := &act{r: r, node: node}
	if err := a.apply(ctx, want); err != nil || a.busy {
		return err
	}
	return r.note(ctx, node, now, idle)
}

// note remembers a verdict about a node, unless what it rests on changed meanwhile.
func (r *Realizer) note(ctx context.Context, node *api.KafkaNode, was digest, v verdict) error {
	f, err := r.find(ctx, r.client, node)
	if err == nil && f.digest(node) == was {
		r.settled.note(client.ObjectKeyFromObject(node), was, v)
	}
	return err
}

// act is one Apply.
type act struct {
	r *Realizer
	// node is what was read from the cache; nil for what a cluster shares.
	node           *api.KafkaNode
	checked, stale bool
	// busy says that something was to be done or is waited for.
	busy bool
}

// fresh is asked before each write: a cache that lags, as after a change of leaders, must
// not take back what another operator did, least of all by a restart. When it says no, the
// newer spec comes by the watch and is looked at then.
func (a *act) fresh(ctx context.Context) (bool, error) {
	a.busy = true
	if a.checked || a.node == nil {
		return !a.stale, nil
	}
	var now api.KafkaNode
	err := client.IgnoreNotFound(a.r.live.Get(ctx, client.ObjectKeyFromObject(a.node), &now))
	if err != nil {
		return false, fmt.Errorf("read it again before a change: %w", err)
	}
	a.checked = true
	a.stale = now.UID != a.node.UID || now.Generation != a.node.Generation || now.DeletionTimestamp != nil
	return !a.stale, nil
}

func (a *act) apply(ctx context.Context, want corekube.NodeObjects) error {
	// A pod is never made before what it mounts.
	if err := errors.Join(a.put(ctx, want.Static), a.put(ctx, want.Live)); err != nil {
		return err
	}
	var errs []error
	for _, claim := range want.Claims {
		errs = append(errs, a.put(ctx, claim))
	}
	for _, service := range want.Services {
		errs = append(errs, a.put(ctx, service))
	}
	if err := a.put(ctx, want.StatefulSet); err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, a.tendPod(ctx, want), a.sweep(ctx, want))
	return errors.Join(errs...)
}

// read reads an object, nil when there is none.
func read[T any, P interface { //nolint:ireturn // P is a pointer to T
	*T
	client.Object
}](ctx context.Context, from client.Reader, namespace, name string, how ...client.GetOption) (P, error) {
	var o P = new(T)
	err := from.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, o, how...)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // nil is the answer
	}
	if err != nil {
		return nil, fmt.Errorf("read %T %s: %w", o, name, err)
	}
	return o, nil
}
