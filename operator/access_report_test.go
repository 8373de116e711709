package operator

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
)

// TestMissingRight: an operator whose Role lacks one right names it in the condition, and
// the name goes once the right is given.
func TestMissingRight(t *testing.T) {
	config := controlplanetest.Start(t)
	admin := controlplanetest.Client(t, config)
	create := func(o client.Object) {
		t.Helper()
		if err := admin.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"ops", "kafka"} {
		create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n}})
	}
	access := KubernetesAccess("ops")
	rules := slices.Clone(access.Namespaced)
	for i := range rules {
		if slices.Contains(rules[i].Resources, "statefulsets") {
			rules[i].Verbs = []string{"get", "list", "watch", "delete"}
		}
	}
	served := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "op"}, Rules: rules}
	subjects := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "op"}}
	for _, role := range []*rbacv1.Role{served, {ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: "op"}, Rules: access.Own}} {
		create(role)
		create(&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: role.Namespace, Name: "op"}, Subjects: subjects,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "op"},
		})
	}
	kc := &api.KafkaCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders"},
		Spec: api.KafkaClusterSpec{Version: "4.3.1", Pools: []api.Pool{{
			Name: "nodes", Roles: []api.Role{api.RoleBroker, api.RoleController}, Replicas: 3, Placement: api.Placement{Hosts: &api.HostPlacement{MaxPerHost: 3}},
		}}},
	}
	create(kc)

	as := rest.CopyConfig(config)
	as.Impersonate = rest.ImpersonationConfig{UserName: "op", Groups: []string{"system:authenticated"}}
	c := controlplanetest.Client(t, as)
	now := time.Now()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	rights := newRightsCheck(c, Config{LeaseNamespace: "ops", WatchNamespaces: []string{"kafka"}, Now: func() time.Time { return now }, Log: log})
	told := events.NewFakeRecorder(10)
	reporter := &rightsReporter{client: c, live: c, rights: rights, namespaces: []string{"kafka"}, events: told, log: log}
	if err := reporter.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	const sentence = "the operator may not create, patch statefulsets.apps in namespace kafka: give its ServiceAccount this right, as the installation's manifests do"
	if err := admin.Get(t.Context(), client.ObjectKeyFromObject(kc), kc); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{api.ConditionReady, api.ConditionStalled} {
		if condition := meta.FindStatusCondition(kc.Status.Conditions, kind); condition == nil || condition.Message != sentence {
			t.Errorf("condition %s: %+v", kind, condition)
		}
	}
	if event := <-told.Events; !strings.Contains(event, "may not get, list, watch nodes") {
		t.Errorf("event %q", event)
	}
	if got := rights.Admission(t.Context()); len(got) != 1 || !strings.Contains(got[0], "validatingwebhookconfigurations.admissionregistration.k8s.io castellan-ops") {
		t.Errorf("admission: %q", got)
	}

	served.Rules = access.Namespaced
	if err := admin.Update(t.Context(), served); err != nil {
		t.Fatal(err)
	}
	if got := rights.Missing(t.Context(), "kafka"); !slices.Equal(got, []string{sentence}) {
		t.Errorf("asked again at once: %q", got)
	}
	healed := func() bool {
		now = now.Add(recheck)
		return len(rights.Missing(t.Context(), "kafka")) == 0
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !healed(); <-tick.C { // the API server takes a moment to see a Role
		if time.Now().After(deadline) {
			t.Fatalf("still missing: %q", rights.Missing(t.Context(), "kafka"))
		}
	}
	served.Rules = nil
	if err := admin.Update(t.Context(), served); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if got := rights.Missing(t.Context(), "kafka"); len(got) > 0 {
		t.Errorf("asked without a reason: %q", got)
	}
	lost := func() bool {
		rights.Note(apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", nil))
		now = now.Add(recheck)
		return len(rights.Missing(t.Context(), "kafka")) > 5
	}
	for deadline := time.Now().Add(30 * time.Second); !lost(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("rights that were taken away are not missed after something was forbidden")
		}
	}
}
