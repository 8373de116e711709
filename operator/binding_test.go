package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
)

// boundOperator has its rights in the namespace kafka by the RoleBinding there, as an installation gives them.
type boundOperator struct {
	admin, client client.Client
	t             *testing.T
}

func newBoundOperator(t *testing.T) boundOperator {
	t.Helper()
	config := controlplanetest.Start(t)
	o := boundOperator{admin: controlplanetest.Client(t, config), t: t}
	access := KubernetesAccess("ops")
	subjects := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "op"}}
	for _, n := range []string{"ops", "kafka"} {
		o.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n}})
	}
	o.create(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: "op"}, Rules: access.Own})
	o.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: "op"}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "op"},
	})
	o.create(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "clusters"}, Rules: access.Namespaced})
	o.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: ClustersBinding}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "clusters"},
	})
	o.create(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: LeaseName}})
	o.create(&api.KafkaCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders", Finalizers: []string{clusterFinalizer}},
		Spec: api.KafkaClusterSpec{Version: "4.3.1", Pools: []api.Pool{{
			Name: "nodes", Roles: []api.Role{api.RoleBroker, api.RoleController}, Replicas: 3, Placement: api.Placement{Hosts: &api.HostPlacement{MaxPerHost: 3}},
		}}},
	})
	as := rest.CopyConfig(config)
	as.Impersonate = rest.ImpersonationConfig{UserName: "op", Groups: []string{"system:authenticated"}}
	o.client = controlplanetest.Client(t, as)
	return o
}

func (o boundOperator) create(object client.Object) {
	o.t.Helper()
	if err := o.admin.Create(o.t.Context(), object); err != nil {
		o.t.Fatal(err)
	}
}

func (o boundOperator) serving(namespaces ...string) *bindings {
	return newBindings(o.client, o.client, Config{LeaseNamespace: "ops", WatchNamespaces: namespaces, Log: slog.New(slog.NewTextHandler(o.t.Output(), nil))})
}

func (o boundOperator) binding(ctx context.Context) (*rbacv1.RoleBinding, error) {
	binding := &rbacv1.RoleBinding{}
	err := o.admin.Get(ctx, client.ObjectKey{Namespace: "kafka", Name: ClustersBinding}, binding)
	return binding, err
}

func (o boundOperator) held() bool {
	o.t.Helper()
	binding, err := o.binding(o.t.Context())
	if err != nil {
		o.t.Fatal(err)
	}
	return slices.Contains(binding.Finalizers, bindingFinalizer)
}

func (o boundOperator) eventually(what string, fact func(context.Context) error) {
	o.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	err := errors.New("not looked yet")
	for deadline := time.Now().Add(time.Minute); err != nil; <-tick.C {
		if err = fact(o.t.Context()); err != nil && time.Now().After(deadline) {
			o.t.Fatalf("%s: %v", what, err)
		}
	}
}

// TestEndOfAServedNamespace: the operator still has its rights when it takes its finalizers off.
func TestEndOfAServedNamespace(t *testing.T) {
	o := newBoundOperator(t)
	b := o.serving("kafka")
	o.eventually("rights are in force", func(ctx context.Context) error { return b.hold(ctx, "kafka") })
	if err := b.release(t.Context(), "kafka"); err != nil || !o.held() {
		t.Fatalf("rights are given up while a cluster is there: %v", err)
	}
	if err := o.admin.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kafka"}}); err != nil {
		t.Fatal(err)
	}
	kc := &api.KafkaCluster{}
	o.eventually("cluster and rights are being deleted", func(ctx context.Context) error {
		if err := o.admin.Get(ctx, client.ObjectKey{Namespace: "kafka", Name: "orders"}, kc); err != nil {
			return err
		}
		binding, err := o.binding(ctx)
		if err == nil && (kc.DeletionTimestamp == nil || binding.DeletionTimestamp == nil) {
			return errors.New("not both of them")
		}
		return err
	})
	before := kc.DeepCopy()
	kc.Finalizers = nil
	if err := o.client.Patch(t.Context(), kc, client.MergeFrom(before)); err != nil {
		t.Fatalf("the operator cannot take its finalizer off: %v", err)
	}
	if err := b.release(t.Context(), "kafka"); err != nil {
		t.Fatal(err)
	}
	o.eventually("the namespace is gone", func(ctx context.Context) error {
		n := &corev1.Namespace{}
		if err := o.admin.Get(ctx, client.ObjectKey{Name: "kafka"}, n); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there, %w, %+v", err, n.Status)
		}
		return nil
	})
}

// TestAnotherOperatorServesOthers: what one held, the next one gives up if it does not serve the namespace by that.
func TestAnotherOperatorServesOthers(t *testing.T) {
	o := newBoundOperator(t)
	o.eventually("rights are in force", func(ctx context.Context) error { return o.serving("kafka").hold(ctx, "kafka") })
	if err := o.serving("kafka").Start(t.Context()); err != nil || !o.held() {
		t.Fatalf("the next operator of the namespace gives up rights that it needs: %v", err)
	}
	if err := o.serving().Start(t.Context()); err != nil || o.held() {
		t.Errorf("an operator with rights everywhere leaves the finalizer there: %v", err)
	}
	lease := &coordinationv1.Lease{}
	if err := o.admin.Get(t.Context(), client.ObjectKey{Namespace: "ops", Name: LeaseName}, lease); err != nil || lease.Annotations[heldAnnotation] != "" {
		t.Errorf("still recorded: %q, %v", lease.Annotations[heldAnnotation], err)
	}
}
