package plan

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
)

// noSparePatience is how long a topic is waited for where no spec says.
const noSparePatience = 10 * time.Minute

// noSpare is what a broker waits for that the partitions named can never spare; nil when the
// policy lets it restart all the same.
func (p *pass) noSpare(id int32, names string) *Block {
	b := &Block{Node: id, Reason: "NoSpareReplica", Stalled: true, Message: fmt.Sprintf("broker %d cannot be restarted without taking %s below min.insync.replicas, whatever the others do: raise the replication factor of the topic or lower its min.insync.replicas", id, names)}
	policy, op := &p.want.Rollout.NoSpareReplica, p.op.active
	if policy.Then != api.NoSpareReplicaRestart || op == nil || p.op.created {
		return b
	}
	since := p.now
	if i := slices.IndexFunc(op.Spec.HeldUp, func(h api.OperationHeldUp) bool { return h.ID == id }); i >= 0 {
		since = op.Spec.HeldUp[i].Since.Time
	} else {
		p.recordHeldUp(op, id)
	}
	patience := noSparePatience
	if policy.After != nil {
		patience = policy.After.Duration
	}
	end := since.Add(patience).Truncate(time.Second)
	if !p.now.Before(end) {
		return nil
	}
	p.again(end.Sub(p.now))
	b.Message += fmt.Sprintf("; at %s it is restarted all the same (spec.rollout.noSpareReplica)", end.UTC().Format(time.RFC3339))
	return b
}

// recordHeldUp notes since when a broker cannot be spared. Another step of this pass that
// records the Operation takes it along in the next one.
func (p *pass) recordHeldUp(op *api.Operation, id int32) {
	if slices.ContainsFunc(p.plan.Steps, func(s Step) bool { return s.Kind == RecordOperation && s.Operation.Name == op.Name }) {
		return
	}
	next := op.DeepCopy()
	next.Spec.HeldUp = append(next.Spec.HeldUp, api.OperationHeldUp{ID: id, Since: metav1.NewTime(p.now.Truncate(time.Second))})
	p.step(Step{Kind: RecordOperation, Node: -1, Operation: next, Reason: fmt.Sprintf("broker %d cannot be spared now", id)})
}
