package plan

import (
	"fmt"
	"slices"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

// defaultSoak is how long every node runs a new version before it is finalized, where no spec says.
const defaultSoak = time.Hour

func (p *pass) soak() time.Duration {
	if s := p.want.Rollout.Upgrade.Soak; s != nil {
		return s.Duration
	}
	return defaultSoak
}

// releaseLevel is the level of a feature that came with a release line.
type releaseLevel struct {
	since, name string
	level       int16
}

// releaseLevels are those at which Kafka itself formats a new cluster (kafka-features
// version-mapping, measured on 4.3.1).
func releaseLevels() []releaseLevel {
	return []releaseLevel{
		{"4.0", "transaction.version", 2},
		{"4.0", "group.version", 1},
		{"4.1", "eligible.leader.replicas.version", 1},
		{"4.2", "share.version", 1},
		{"4.2", "streams.version", 1},
	}
}

// unfinalized are the features that an upgrade is to finalize: metadata.version, where the
// brokers support a higher one, and with it the others at the level of the release. By
// themselves those are left alone: somebody may have lowered one for a reason.
func (p *pass) unfinalized() map[string]int16 {
	k := &p.have.Kafka
	out := map[string]int16{}
	if !k.Known {
		return out
	}
	const metadataVersion = "metadata.version"
	if supported, ok := k.SupportedFeatures[metadataVersion]; ok && p.want.MetadataVersion == "" && k.Features[metadataVersion] > 0 && k.Features[metadataVersion] < supported[1] {
		out[metadataVersion] = supported[1]
	}
	if len(out) == 0 {
		return out
	}
	for _, f := range releaseLevels() {
		supported, ok := k.SupportedFeatures[f.name]
		if level := min(f.level, supported[1]); ok && cluster.CompareVersions(cluster.ReleaseLine(p.want.Version), f.since) >= 0 && k.Features[f.name] < level {
			out[f.name] = level
		}
	}
	return out
}

// NeedsControllers says whether a pass must know which controllers are registered.
func NeedsControllers(ops []api.Operation) bool {
	return slices.ContainsFunc(ops, func(op api.Operation) bool {
		return op.Spec.Type == api.OperationUpgrade && op.Spec.SoakSince != nil && !op.Status.Phase.Final()
	})
}

// upgrading is the active upgrade whose nodes all run the new version, nil when there is none.
func (p *pass) upgrading() *api.Operation {
	op := p.op.active
	if op == nil || op.Spec.Type != api.OperationUpgrade || p.op.created {
		return nil
	}
	for _, n := range p.existing() {
		if p.leaving[n.Spec.NodeID] && p.retired(n.Spec.NodeID) {
			continue
		}
		if !settled(n) || n.Spec.Process.Version != p.want.Version {
			return nil
		}
	}
	return op
}

// finalize records since when an upgrade soaks, and takes its last step: the one without a way back.
func (p *pass) finalize() {
	p.resumeFinalizing()
	op := p.upgrading()
	if op == nil {
		return
	}
	levels := p.unfinalized()
	if len(levels) == 0 {
		return
	}
	if op.Spec.SoakSince == nil {
		next := op.DeepCopy()
		next.Spec.SoakSince = new(metaNow(p.now))
		p.step(Step{Kind: RecordOperation, Node: -1, Operation: next, Reason: "every node runs " + p.want.Version})
		return
	}
	if p.finalization(op) != "" {
		if left := p.soakEnd(op).Sub(p.now); left > 0 {
			p.again(left)
		}
		return
	}
	if op.Spec.Paused || len(p.plan.Steps) > 0 {
		return
	}
	if wait := p.refresh(op); wait != "" {
		p.block(-1, "StaleController", wait, false)
		p.again(moveAgain)
		return
	}
	p.step(Step{Kind: FinalizeFeatures, Node: -1, Features: levels, Reason: fmt.Sprintf("every node has run %s for %s", p.want.Version, p.now.Sub(op.Spec.SoakSince.Time).Round(time.Second))})
}

// resumeFinalizing makes an Operation for an upgrade whose own was over before its features were
// finalized, because the spec moved on. One that somebody cancelled stays so.
func (p *pass) resumeFinalizing() {
	if p.op.active != nil || p.op.hold != nil || p.have.ClusterID == "" || len(p.unfinalized()) == 0 {
		return
	}
	if slices.ContainsFunc(p.existing(), func(n *Node) bool { return !settled(n) || n.Spec.Process.Version != p.want.Version }) {
		return
	}
	ended := func(op api.Operation) bool {
		return op.Spec.Type == api.OperationUpgrade && op.Spec.ToRevision == p.have.Revision
	}
	if slices.ContainsFunc(p.have.Operations, ended) {
		return
	}
	op := p.newOperation(api.OperationUpgrade)
	op.Spec.Reason = "features of " + p.want.Version + " are not finalized yet"
	p.createOperation(op, op.Spec.Reason)
}

func (p *pass) soakEnd(op *api.Operation) time.Time { return op.Spec.SoakSince.Add(p.soak()) }

// finalization is what the last step of an upgrade waits for, empty when for nothing.
func (p *pass) finalization(op *api.Operation) string {
	if op.Spec.Type != api.OperationUpgrade || len(p.unfinalized()) == 0 {
		return ""
	}
	switch {
	case op.Spec.Finalize && op.Spec.SoakSince != nil:
		return ""
	case op.Spec.SoakSince == nil:
		return "every node runs " + p.want.Version + "; its features are finalized after a while"
	case p.want.Rollout.Upgrade.Finalize == api.ApprovalManual:
		return fmt.Sprintf("every node runs %s; its features are finalized, after which there is no way back, when somebody agrees: castellan approve %s", p.want.Version, op.Name)
	case p.now.Before(p.soakEnd(op)):
		return fmt.Sprintf("every node runs %s; its features are finalized, after which there is no way back, at %s", p.want.Version, p.soakEnd(op).UTC().Format(time.RFC3339))
	default:
		return ""
	}
}

// countFinalization counts the last step of an upgrade.
func (p *pass) countFinalization(op *api.Operation, st *api.OperationStatus) {
	if op.Spec.Type != api.OperationUpgrade {
		return
	}
	st.Steps.Total++
	if op.Spec.SoakSince != nil && p.have.Kafka.Known && len(p.unfinalized()) == 0 {
		st.Steps.Done++
	}
}
