// Package host brings KafkaNodes onto hosts: it writes the HostProcess and the Secret that
// package core/host asks for into the host's namespace, reads back what the agent says, and
// claims ports. It decides nothing, and it writes nothing that is already so.
package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corehost "castellan.dev/castellan/core/host"
)

// fieldOwner of what the realizer writes.
const fieldOwner = client.FieldOwner("castellan-host")

// Realizer makes nodes so on their hosts.
type Realizer struct {
	// Client writes; its reads may come from a cache of HostProcesses, Hosts, Leases and
	// Secrets, which the caller watches to look again when they change.
	client client.Client
	// live reads from the API server itself.
	live client.Reader

	mu    sync.Mutex
	beats map[string]beat // by host
}

// beat is when a Lease was last seen to change, by this machine's clock.
type beat struct {
	renewed time.Time
	seen    time.Time
}

// New makes a realizer. Live reads must not come from a cache.
func New(c client.Client, live client.Reader) *Realizer {
	return &Realizer{client: c, live: live, beats: make(map[string]beat)}
}

// Apply makes the node so: its HostProcess and the copy of its Secret, as far as they
// differ. A Secret that does not exist yet is no error: the agent waits for it and says so.
// Data is never marked for removal here, so that a HostProcess that is deleted by hand comes
// back with its data.
func (r *Realizer) Apply(ctx context.Context, node api.KafkaNode) error {
	var at api.Host
	if err := r.client.Get(ctx, types.NamespacedName{Name: node.Spec.Host}, &at); err != nil {
		return fmt.Errorf("realize node %s/%s: read host %s: %w", node.Namespace, node.Name, node.Spec.Host, err)
	}
	return r.apply(ctx, node, corehost.Placement{User: at.Spec.User, RemoveData: api.DeletionRetain})
}

func (r *Realizer) apply(ctx context.Context, node api.KafkaNode, at corehost.Placement) error {
	objects, err := corehost.Objects(node, at)
	if err != nil {
		return fmt.Errorf("realize: %w", err)
	}
	for _, o := range objects {
		if o.Process != nil {
			err = r.applyProcess(ctx, o.Process)
		} else {
			err = r.copySecret(ctx, *o.Secret)
		}
		if err != nil {
			return fmt.Errorf("realize node %s/%s: %w", node.Namespace, node.Name, err)
		}
	}
	return nil
}

func (r *Realizer) applyProcess(ctx context.Context, want *api.HostProcess) error {
	var have api.HostProcess
	err := r.client.Get(ctx, client.ObjectKeyFromObject(want), &have)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return fmt.Errorf("read its HostProcess: %w", err)
	case sameProcess(have, *want):
		return nil
	case !have.DeletionTimestamp.IsZero():
		want.Finalizers = have.Finalizers // none may be added any more; it comes back when it is gone
	}
	if err := r.write(ctx, want); err != nil {
		return fmt.Errorf("apply its HostProcess: %w", err)
	}
	return nil
}

// sameProcess says whether all that the realizer wants is so already.
func sameProcess(have, want api.HostProcess) bool {
	return equality.Semantic.DeepEqual(have.Spec, want.Spec) && hasAll(have.Labels, want.Labels) &&
		(!have.DeletionTimestamp.IsZero() || equality.Semantic.DeepEqual(have.Finalizers, want.Finalizers))
}

func hasAll(have, want map[string]string) bool {
	for key, value := range want {
		if have[key] != value {
			return false
		}
	}
	return true
}

func (r *Realizer) copySecret(ctx context.Context, c corehost.SecretCopy) error {
	var from, to corev1.Secret
	err := r.client.Get(ctx, c.From, &from)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read its Secret %s: %w", c.From, err)
	}
	err = r.client.Get(ctx, c.To, &to)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read the copy of its Secret: %w", err)
	}
	if err == nil && equality.Semantic.DeepEqual(from.Data, to.Data) {
		return nil
	}
	want := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: c.To.Namespace, Name: c.To.Name},
		Type:       corev1.SecretTypeOpaque,
		Data:       from.Data,
	}
	if err := r.write(ctx, want); err != nil {
		return fmt.Errorf("copy its Secret to the host's namespace: %w", err)
	}
	return nil
}

func (r *Realizer) write(ctx context.Context, o client.Object) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	delete(content, "status")
	unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
	applied := client.ApplyConfigurationFromUnstructured(&unstructured.Unstructured{Object: content})
	return r.client.Apply(ctx, applied, fieldOwner, client.ForceOwnership)
}

// Status is what is known of the node. Unknown is an answer, not an error.
func (r *Realizer) Status(ctx context.Context, node api.KafkaNode) (api.KafkaNodeStatus, error) {
	if node.Spec.Host == "" {
		return corehost.Facts(node, nil, true), nil
	}
	alive, _, err := r.Alive(ctx, node.Spec.Host)
	if err != nil {
		return api.KafkaNodeStatus{}, err
	}
	process, err := r.process(ctx, node)
	if err != nil {
		return api.KafkaNodeStatus{}, err
	}
	status := corehost.Facts(node, process, alive)
	status.ObservedGeneration = node.Status.ObservedGeneration
	if process != nil && r.observed(node, *process) {
		status.ObservedGeneration = node.Generation
	}
	return status, nil
}

func (r *Realizer) process(ctx context.Context, node api.KafkaNode) (*api.HostProcess, error) {
	var process api.HostProcess
	err := r.client.Get(ctx, processKey(node), &process)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("observe node %s/%s: read its HostProcess: %w", node.Namespace, node.Name, err)
	}
	return &process, nil
}

func processKey(node api.KafkaNode) types.NamespacedName {
	return types.NamespacedName{
		Namespace: corehost.Namespace(node.Spec.Host),
		Name:      corehost.ProcessName(node.Namespace, node.Spec.ClusterName, node.Spec.NodeID),
	}
}

// observed says whether the agent has seen what this generation of the node asks for.
func (r *Realizer) observed(node api.KafkaNode, process api.HostProcess) bool {
	objects, err := corehost.Objects(node, corehost.Placement{
		User: process.Spec.Program.User, RemoveData: process.Spec.RemoveDirectories,
	})
	if err != nil || process.Status.ObservedGeneration != process.Generation {
		return false
	}
	for _, o := range objects {
		if o.Process != nil && !equality.Semantic.DeepEqual(o.Process.Spec, process.Spec) {
			return false
		}
	}
	return true
}

// Alive says whether the host's agent renews its Lease, and until when that holds without
// another renewal. After the first look only changes count, so that clocks need not agree.
func (r *Realizer) Alive(ctx context.Context, host string) (alive bool, until time.Time, err error) {
	var lease coordinationv1.Lease
	err = r.client.Get(ctx, types.NamespacedName{Namespace: corehost.Namespace(host), Name: corehost.LeaseName}, &lease)
	if apierrors.IsNotFound(err) {
		return false, time.Time{}, nil
	}
	if err != nil {
		return false, time.Time{}, fmt.Errorf("read the Lease of host %s: %w", host, err)
	}
	if lease.Spec.RenewTime == nil || lease.Spec.LeaseDurationSeconds == nil {
		return false, time.Time{}, nil
	}
	now := time.Now()
	until = r.lastBeat(host, lease.Spec.RenewTime.Time, now).Add(time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second)
	return now.Before(until), until, nil
}

func (r *Realizer) lastBeat(host string, renewed, now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.beats[host]
	switch {
	case !known:
		last = beat{renewed: renewed, seen: renewed}
	case !last.renewed.Equal(renewed):
		last = beat{renewed: renewed, seen: now}
	}
	r.beats[host] = last
	return last.seen
}

// Remove stops the node and removes what it has on its host; its data only with
// DeletionDelete. It is called until it says that nothing is left; only then are the Secret
// and the ports of the node free.
func (r *Realizer) Remove(ctx context.Context, node api.KafkaNode, data api.DeletionPolicy) (gone bool, err error) {
	if node.Spec.Host == "" {
		return true, nil
	}
	process, err := r.liveProcess(ctx, node)
	if err != nil {
		return false, err
	}
	if process == nil {
		return true, r.removeRest(ctx, node)
	}
	if data == api.DeletionDelete && process.Spec.RemoveDirectories != api.DeletionDelete {
		before := process.DeepCopy()
		process.Spec.RemoveDirectories = api.DeletionDelete
		if err := r.client.Patch(ctx, process, client.MergeFrom(before), fieldOwner); err != nil {
			return false, fmt.Errorf("remove node %s/%s: mark its data for removal: %w", node.Namespace, node.Name, err)
		}
	}
	if !process.DeletionTimestamp.IsZero() {
		return false, nil
	}
	if err := r.client.Delete(ctx, process); err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("remove node %s/%s: delete its HostProcess: %w", node.Namespace, node.Name, err)
	}
	return false, nil
}

func (r *Realizer) liveProcess(ctx context.Context, node api.KafkaNode) (*api.HostProcess, error) {
	var process api.HostProcess
	err := r.live.Get(ctx, processKey(node), &process)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("remove node %s/%s: read its HostProcess: %w", node.Namespace, node.Name, err)
	}
	return &process, nil
}

func (r *Realizer) removeRest(ctx context.Context, node api.KafkaNode) error {
	key := processKey(node)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	var errs []error
	if err := r.client.Delete(ctx, secret); err != nil && !apierrors.IsNotFound(err) {
		errs = append(errs, fmt.Errorf("delete its Secret on the host: %w", err))
	}
	if err := r.Release(ctx, node.Spec.Host, Owner(node)); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return fmt.Errorf("remove node %s/%s: %w", node.Namespace, node.Name, errors.Join(errs...))
	}
	return nil
}
