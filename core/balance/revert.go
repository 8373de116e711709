package balance

import (
	"fmt"
	"slices"
)

// Takeback is what Revert would have done.
type Takeback struct {
	// Cancel are reassignments to cancel (AlterPartitionReassignments with no replicas).
	Cancel []Cancel
	// Return are copies between log dirs to end, by asking for the log dir the replica is in.
	Return []Return
	// Keep are reassignments that must go on to their end.
	Keep []Keep
}

// Cancel of a reassignment in flight, and the replicas that Kafka returns to: those on their
// way out come last, so another one may be preferred as leader than before.
type Cancel struct {
	PartitionRef
	To []int32
}

// Return of a replica to the log dir it is still in.
type Return struct {
	PartitionRef
	DirRef
}

// Keep says why a reassignment cannot be taken back.
type Keep struct {
	PartitionRef
	Why string
}

// Revert says how to take back the reassignments in flight that are ours; others stay. Kafka
// takes the new replicas out of the ISR at once (PartitionReassignmentRevert), so one whose old
// replicas are not in sync is left to finish.
func Revert(c *Cluster, ours func(PartitionRef) bool) Takeback {
	var out Takeback
	for t := range c.Topics {
		topic := &c.Topics[t]
		for i := range topic.Partitions {
			ref := PartitionRef{Topic: topic.Name, Partition: int32(i)}
			if p := &topic.Partitions[i]; p.inFlight() && ours(ref) {
				out.revert(ref, topic.MinISR, p)
			}
		}
	}
	out.dirs(c, ours)
	return out
}

func (o *Takeback) revert(ref PartitionRef, minISR int, p *Partition) {
	back := Cancel{PartitionRef: ref}
	left := 0
	for _, r := range p.Replicas {
		if r.State.Has(Adding) {
			continue
		}
		back.To = append(back.To, r.Broker)
		if r.State.Has(InSync) {
			left++
		}
	}
	switch {
	case left == 0:
		o.Keep = append(o.Keep, Keep{PartitionRef: ref, Why: "only new replicas are in sync; taking it back would lose data"})
	case left < min(minISR, p.inSync()):
		o.Keep = append(o.Keep, Keep{PartitionRef: ref, Why: fmt.Sprintf("only %d of the replicas it would return to are in sync, and min.insync.replicas is %d", left, minISR)})
	default:
		o.Cancel = append(o.Cancel, back)
	}
}

func (o *Takeback) dirs(c *Cluster, ours func(PartitionRef) bool) {
	if len(c.Copies) == 0 {
		return
	}
	topics := make(map[string]*Topic, len(c.Topics))
	for t := range c.Topics {
		topics[c.Topics[t].Name] = &c.Topics[t]
	}
	for _, f := range c.Copies {
		ref := PartitionRef{Topic: f.Topic, Partition: f.Partition}
		t := topics[f.Topic]
		b := slices.IndexFunc(c.Brokers, func(b Broker) bool { return b.ID == f.Broker })
		if t == nil || b < 0 || f.Partition < 0 || int(f.Partition) >= len(t.Partitions) || !ours(ref) {
			continue
		}
		for _, r := range t.Partitions[f.Partition].Replicas {
			if r.Broker == f.Broker && r.Dir >= 0 && int(r.Dir) < len(c.Brokers[b].LogDirs) {
				o.Return = append(o.Return, Return{PartitionRef: ref, DirRef: DirRef{Broker: f.Broker, Path: c.Brokers[b].LogDirs[r.Dir].Path}})
			}
		}
	}
}
