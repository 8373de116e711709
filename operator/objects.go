package operator

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/engine"
)

// LabelCluster names the KafkaCluster that an object belongs to.
const LabelCluster = "castellan.dev/cluster"

// fieldOwner is the operator's name in managedFields.
const fieldOwner = client.FieldOwner("castellan-operator")

func metav1Time(t time.Time) *metav1.Time {
	m := metav1.NewTime(t.Truncate(time.Second))
	return &m
}

// revisionsPort keeps ClusterRevisions. What is written rests on a list past the cache, so
// that a restarted or lagging operator never gives a number or a node id twice.
type revisionsPort struct {
	client client.Client
	live   client.Reader
}

// List implements engine.Revisions.
func (r revisionsPort) List(ctx context.Context, of *api.KafkaCluster, how engine.Freshness) ([]api.ClusterRevision, error) {
	from := client.Reader(r.client)
	if how == engine.Fresh {
		from = r.live
	}
	var list api.ClusterRevisionList
	if err := from.List(ctx, &list, client.InNamespace(of.Namespace), client.MatchingLabels{LabelCluster: of.Name}); err != nil {
		return nil, err
	}
	slices.SortFunc(list.Items, func(a, b api.ClusterRevision) int { return cmp.Compare(a.Spec.Number, b.Spec.Number) })
	return list.Items, nil
}

// Create implements engine.Revisions.
func (r revisionsPort) Create(ctx context.Context, of *api.KafkaCluster, rev *api.ClusterRevision) error {
	rev.Labels = map[string]string{LabelCluster: of.Name}
	return r.client.Create(ctx, rev, fieldOwner)
}

// SetClusterID implements engine.Revisions.
func (r revisionsPort) SetClusterID(ctx context.Context, rev *api.ClusterRevision, id string) error {
	return r.change(ctx, rev, func(spec *api.ClusterRevisionSpec) { spec.ClusterID = id })
}

// SetHeld implements engine.Revisions.
func (r revisionsPort) SetHeld(ctx context.Context, rev *api.ClusterRevision, hold *api.RevisionHold) error {
	return r.change(ctx, rev, func(spec *api.ClusterRevisionSpec) { spec.Held = hold.DeepCopy() })
}

// SetMoves implements engine.Revisions.
func (r revisionsPort) SetMoves(ctx context.Context, rev *api.ClusterRevision, moving, throttled []string) error {
	return r.change(ctx, rev, func(spec *api.ClusterRevisionSpec) {
		spec.Moving, spec.Throttled = slices.Clone(moving), slices.Clone(throttled)
	})
}

// Retire implements engine.Revisions.
func (r revisionsPort) Retire(ctx context.Context, rev *api.ClusterRevision, pool string, id int32) error {
	return r.change(ctx, rev, func(spec *api.ClusterRevisionSpec) { spec.NodeIDs = engine.Retired(spec.NodeIDs, pool, id) })
}

// change writes to a revision that is still as it was read. It asks also where nothing differs
// from what was read: only the API server knows that this is what stands there.
func (r revisionsPort) change(ctx context.Context, rev *api.ClusterRevision, change func(*api.ClusterRevisionSpec)) error {
	now := rev.DeepCopy()
	change(&now.Spec)
	if err := r.client.Patch(ctx, now, client.MergeFromWithOptions(rev, client.MergeFromWithOptimisticLock{}), fieldOwner); err != nil {
		return fmt.Errorf("write ClusterRevision %s: %w", rev.Name, err)
	}
	*rev = *now
	return nil
}

// Delete implements engine.Revisions.
func (r revisionsPort) Delete(ctx context.Context, rev *api.ClusterRevision) error {
	return client.IgnoreNotFound(r.client.Delete(ctx, rev))
}

// randomIDs draws Kafka uuids: 16 random bytes in URL-safe base64 without padding. Kafka
// reserves the first hundred ids and its own tools avoid a leading dash, so do we.
func randomIDs(n int) plan.Fresh {
	fresh := plan.Fresh{ClusterID: randomID()}
	for range n {
		fresh.DirectoryIDs = append(fresh.DirectoryIDs, randomID())
	}
	return fresh
}

func randomID() string {
	for {
		b := make([]byte, 16)
		rand.Read(b) // never fails
		if b[0] == 0 {
			continue
		}
		if id := base64.RawURLEncoding.EncodeToString(b); id[0] != '-' {
			return id
		}
	}
}

// apply creates an object or changes it with change; it writes only when something differs.
func apply[T client.Object](ctx context.Context, c client.Client, obj T, change func() error) error {
	err := c.Get(ctx, client.ObjectKeyFromObject(obj), obj)
	if apierrors.IsNotFound(err) {
		if err := change(); err != nil {
			return err
		}
		return c.Create(ctx, obj, fieldOwner)
	}
	if err != nil {
		return fmt.Errorf("read %T %s: %w", obj, client.ObjectKeyFromObject(obj), err)
	}
	before, ok := obj.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("copy %T", obj)
	}
	if err := change(); err != nil {
		return err
	}
	if same(before, obj) {
		return nil
	}
	return c.Patch(ctx, obj, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), fieldOwner)
}
