package plan_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
)

func TestUpgradeIsFinalizedAfterItHasSoaked(t *testing.T) {
	for _, policy := range []api.UpgradePolicy{{Soak: &metav1.Duration{Duration: time.Minute}}, {Soak: &metav1.Duration{}, Finalize: api.ApprovalManual}} {
		r := newRolling(t, api.Rollout{Upgrade: policy})
		r.w.Features["metadata.version"], r.w.Supported["metadata.version"] = 27, 29
		r.m.Version = "4.4.0"
		r.m.Nodes = slices.Clone(r.m.Nodes)
		for i := range r.m.Nodes {
			r.m.Nodes[i].Process.Version = "4.4.0"
		}
		r.w.Accept("r2", r.m)
		const name = "orders-upgrade-r2"
		r.until("every node runs the new version", func() bool { op := r.w.Operation(name); return op != nil && op.Spec.SoakSince != nil })
		r.rest(30)
		if r.w.Features["metadata.version"] != 27 {
			t.Fatal("finalized before it has soaked")
		}
		r.phase(name, api.OperationRunning, "no way back")
		if policy.Finalize == api.ApprovalManual {
			r.rest(100)
			r.phase(name, api.OperationRunning, "castellan approve "+name)
			r.op(name).Spec.Finalize = true
		}
		r.until("it is over", r.is(name, api.OperationSucceeded))
		if r.w.Features["metadata.version"] != 29 || r.op(name).Status.Steps.Percent != 100 {
			t.Errorf("features %v, %+v", r.w.Features, r.op(name).Status.Steps)
		}
	}
}

func TestFeaturesOfTheReleaseAreFinalized(t *testing.T) {
	at := func(m *cluster.Model, version string) {
		m.Version, m.Nodes = version, slices.Clone(m.Nodes)
		for i := range m.Nodes {
			m.Nodes[i].Process.Version = version
		}
	}
	m := model(controllers(3), brokers(5))
	m.Rollout = api.Rollout{Upgrade: api.UpgradePolicy{Soak: &metav1.Duration{}}}
	at(&m, "3.9.2")
	r := &rolling{t: t, m: m, w: born(t, m, "a", "b", "c")}
	r.w.Accept("r1", m)
	r.w.Features = map[string]int16{"metadata.version": 21, "transaction.version": 0, "group.version": 1, "kraft.version": 0}
	r.w.Supported = map[string]int16{
		"metadata.version": 27, "transaction.version": 1, "group.version": 2, "eligible.leader.replicas.version": 1, "share.version": 1, "kraft.version": 1,
	}
	at(&r.m, "4.1.0")
	r.w.Accept("r2", r.m)
	r.until("it is over", r.is("orders-upgrade-r2", api.OperationSucceeded))
	want := map[string]int16{"metadata.version": 27, "transaction.version": 1, "group.version": 1, "eligible.leader.replicas.version": 1, "kraft.version": 0}
	if diff := gocmp.Diff(want, r.w.Features); diff != "" {
		t.Errorf("features (- want, + got):\n%s", diff)
	}
	r.w.Features["transaction.version"] = 0
	if p := r.rest(20); !p.Done() || r.w.Features["transaction.version"] != 0 {
		t.Errorf("after somebody lowered one: features %v, %v", r.w.Features, kinds(p))
	}
}

func TestFinalizingOutlivesTheSpecThatBeganIt(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		r := newRolling(t, api.Rollout{Upgrade: api.UpgradePolicy{Soak: &metav1.Duration{Duration: time.Minute}}})
		r.w.Features["metadata.version"], r.w.Supported["metadata.version"] = 27, 29
		r.m.Version = "4.4.0"
		r.m.Nodes = slices.Clone(r.m.Nodes)
		for i := range r.m.Nodes {
			r.m.Nodes[i].Process.Version = "4.4.0"
		}
		r.w.Accept("r2", r.m)
		r.until("every node runs the new version", func() bool { op := r.w.Operation("orders-upgrade-r2"); return op != nil && op.Spec.SoakSince != nil })
		r.w.Accept("r3", r.m)
		const name = "orders-upgrade-r3"
		r.until("another one soaks", func() bool { op := r.w.Operation(name); return op != nil && op.Spec.SoakSince != nil })
		r.op(name).Spec.Cancelled = cancelled
		r.rest(200)
		if done := r.w.Features["metadata.version"] == 29; done == cancelled || len(r.w.See().Operations) != 2 {
			t.Errorf("cancelled %v: features %v, %d operations", cancelled, r.w.Features, len(r.w.See().Operations))
		}
	}
}

func TestDowngradeBeforeFinalization(t *testing.T) {
	at := func(m cluster.Model, version string) cluster.Model {
		m.Version, m.Nodes = version, slices.Clone(m.Nodes)
		for i := range m.Nodes {
			m.Nodes[i].Process.Version = version
		}
		return m
	}
	for _, finalized := range []string{"4.3-IV0", "4.4-IV0"} {
		r := newRolling(t, api.Rollout{})
		r.w.MetadataVersion = "4.3-IV0"
		r.m = at(r.m, "4.4.0")
		r.w.Accept("r2", r.m)
		r.until("every node runs the new version", r.is("orders-upgrade-r2", api.OperationSucceeded))
		r.w.MetadataVersion = finalized
		r.m = at(r.m, "4.3.1")
		r.w.Accept("r3", r.m)
		var order []int32
		var p plan.Plan
		for range 80 {
			p = r.pass()
			for _, s := range p.Steps {
				if s.Kind == plan.UpdateProcess {
					order = append(order, s.Node)
				}
			}
		}
		clean(t, r.w)
		if finalized == "4.4-IV0" {
			if b := blockFor(p, "OtherNode"); b == nil || !strings.Contains(b.Message, "4.4-IV0") || len(order) > 0 {
				t.Errorf("finalized, and went back %v, blocked %+v", order, p.Blocked)
			}
			continue
		}
		if len(order) != 8 || order[0] < 100 || order[7] > 2 {
			t.Errorf("went back in the order %v, want brokers first", order)
		}
	}
}
