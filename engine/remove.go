package engine

import (
	"context"
	"fmt"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/health"
	"castellan.dev/castellan/core/plan"
)

// remove takes a deleted KafkaCluster apart: its nodes stop in the order of any whole stop,
// then their objects go, then what else was made for it. Data stays unless the spec says
// Delete.
func (e *Engine) remove(ctx context.Context, kc *api.KafkaCluster) (Result, error) {
	e.memos.keep(kc, nil)
	f, err := e.read(ctx, kc, Fresh)
	if err != nil {
		return Result{}, err
	}
	removeData := kc.Spec.DeletionPolicy == api.DeletionDelete
	if len(f.nodes) == 0 {
		return e.removeRest(ctx, kc, &f, removeData)
	}
	in := health.Input{Generation: kc.Generation, Resolved: true, CASecret: e.CASecret(kc.Name)}
	in.Want = stopModel(kc, f.nodes)
	in.Have = plan.World{Nodes: f.nodes, Hosts: f.hosts}
	if rev := last(f.revisions); rev != nil {
		in.Have.ClusterID, in.Have.Revision = rev.Spec.ClusterID, rev.Name
	}
	in.Have.Kafka = e.askKafka(ctx, kc, f.nodes, plan.Ask{PerBroker: plan.PerBroker(in.Want, f.nodes, false)})
	until := e.factsHold()
	in.Plan = plan.Stop(in.Want, in.Have, e.Now())
	done, err := e.do(ctx, kc, &f, in.Have, until, in.Plan.Steps, nil)
	if err == nil && in.Plan.Done() {
		for _, n := range f.nodes {
			if err = e.Nodes.Delete(ctx, kc, n.Spec.NodeID, removeData); err != nil {
				err = fmt.Errorf("delete node %d: %w", n.Spec.NodeID, err)
				break
			}
		}
	}
	if err != nil {
		in.Failed = err.Error()
	}
	st := health.Status(in)
	st.Doing = "being deleted; data is kept"
	if removeData {
		st.Doing = "being deleted with its data (deletionPolicy: Delete)"
	}
	return Result{Status: st, Plan: in.Plan, Done: done, Again: time.Second}, nil
}

func (e *Engine) removeRest(ctx context.Context, kc *api.KafkaCluster, f *facts, removeData bool) (Result, error) {
	for i := range f.operations {
		if err := e.Operations.Delete(ctx, &f.operations[i]); err != nil {
			return Result{}, fmt.Errorf("remove operation %s: %w", f.operations[i].Name, err)
		}
	}
	for i := range f.revisions {
		if err := e.Revisions.Delete(ctx, &f.revisions[i]); err != nil {
			return Result{}, fmt.Errorf("remove revision %s: %w", f.revisions[i].Name, err)
		}
	}
	if err := e.Shared.Delete(ctx, kc, removeData); err != nil {
		return Result{}, fmt.Errorf("remove what the nodes of cluster %s shared: %w", kc.Name, err)
	}
	if removeData {
		if err := e.Certificates.Delete(ctx, kc); err != nil {
			return Result{}, fmt.Errorf("remove the certificates of cluster %s: %w", kc.Name, err)
		}
	}
	return Result{Gone: true}, nil
}

// unresolved is a pass without any spec in force, not even an earlier one, as when its
// Package was deleted. All it can do is what is always right: stop what is to be stopped.
func (e *Engine) unresolved(ctx context.Context, kc *api.KafkaCluster, f *facts, in health.Input) (Result, error) {
	if kc.Spec.State != api.StateStopped || kc.Spec.Paused || len(f.nodes) == 0 {
		return Result{Status: health.Status(in)}, nil
	}
	have := plan.World{Nodes: f.nodes, Hosts: f.hosts}
	until := e.factsHold()
	p := plan.Stop(stopModel(kc, f.nodes), have, e.Now())
	done, err := e.do(ctx, kc, f, have, until, p.Steps, nil)
	if err != nil {
		return Result{}, fmt.Errorf("stop cluster %s, of which no spec can be accepted: %w", kc.Name, err)
	}
	result := Result{Status: health.Status(in), Plan: p, Done: done}
	if !p.Done() {
		result.Again = time.Second
	}
	return result, nil
}

// stopModel is a Model just good enough for a whole stop; the spec need not be valid any more.
func stopModel(kc *api.KafkaCluster, nodes []plan.Node) cluster.Model {
	m := cluster.Model{Namespace: kc.Namespace, Name: kc.Name, State: api.StateStopped}
	for _, n := range nodes {
		m.Nodes = append(m.Nodes, cluster.Node{ID: n.Spec.NodeID, Pool: n.Spec.Pool, Roles: n.Spec.Roles, Process: n.Spec.Process})
	}
	return m
}
