package plan

import (
	"fmt"
	"slices"
)

// impact knows, for a set of candidate brokers, what stopping each would do to its
// partitions. It is built once per pass in two sweeps over all partitions and holds one
// number per candidate's replica (4 bytes) and one per partition (2 bytes).
type impact struct {
	kafka *Kafka
	// slack is how many more in-sync replicas a partition can lose, by partition index.
	slack []int16
	first []int32 // index of each topic's first partition
	// parts lists, per candidate, the indexes of the partitions in whose ISR it is.
	parts map[int32][]int32
}

func newImpact(k *Kafka, candidates []*Node, down map[int32]bool) *impact {
	im := &impact{kafka: k, first: make([]int32, len(k.Topics)), parts: make(map[int32][]int32, len(candidates))}
	total := 0
	for i := range k.Topics {
		im.first[i] = int32(total) // far below 2^31 partitions
		total += len(k.Topics[i].Partitions)
	}
	im.slack = make([]int16, total)
	for _, n := range candidates {
		im.parts[n.Spec.NodeID] = nil
	}
	im.size()
	for i := range k.Topics {
		t := &k.Topics[i]
		for j := range t.Partitions {
			im.sweep(im.first[i]+int32(j), t.MinISR, t.Partitions[j].ISR, down)
		}
	}
	return im
}

// size makes room for exactly what sweep will append.
func (im *impact) size() {
	counts := make(map[int32]int, len(im.parts))
	for i := range im.kafka.Topics {
		for j := range im.kafka.Topics[i].Partitions {
			for _, id := range im.kafka.Topics[i].Partitions[j].ISR {
				counts[id]++
			}
		}
	}
	for id := range im.parts {
		im.parts[id] = make([]int32, 0, counts[id])
	}
}

func (im *impact) sweep(index int32, minISR int, isr []int32, down map[int32]bool) {
	up := 0
	for _, id := range isr {
		if !down[id] {
			up++
		}
		if list, ok := im.parts[id]; ok {
			im.parts[id] = append(list, index)
		}
	}
	// A partition that is under min ISR already has nothing to spare either: its remaining
	// copies are the last ones. Brokers that are in no ISR never come here.
	im.slack[index] = int16(up - max(1, minISR)) //nolint:gosec // replication factors are small
}

// stop records that a broker is being stopped.
func (im *impact) stop(id int32) {
	for _, index := range im.parts[id] {
		im.slack[index]--
	}
}

// hurt names partitions that stopping this broker would take below min ISR or offline; with
// spared, those that can never spare a replica are left out.
func (im *impact) hurt(id int32, spared bool) string {
	var names []string
	for _, index := range im.parts[id] {
		if im.slack[index] < 1 && (!spared || !im.neverSpares(index)) {
			names = append(names, im.name(index))
			if len(names) > 5 {
				break
			}
		}
	}
	return someOf(names)
}

// never says whether a partition of this broker could not spare a replica even with all of
// them in sync (replication factor at or below min ISR), and names such partitions.
func (im *impact) never(id int32) (bool, string) {
	var names []string
	for _, index := range im.parts[id] {
		if im.neverSpares(index) {
			names = append(names, im.name(index))
			if len(names) > 5 {
				break
			}
		}
	}
	return len(names) > 0, someOf(names)
}

// neverSpares says whether a partition has no more replicas than it needs, all of them in sync.
func (im *impact) neverSpares(index int32) bool {
	topic, part := im.find(index)
	t := &im.kafka.Topics[topic]
	return len(t.Partitions[part].Replicas) <= max(1, t.MinISR) && len(t.Partitions[part].ISR) >= max(1, t.MinISR)
}

func (im *impact) find(index int32) (topic, partition int) {
	topic, exact := slices.BinarySearch(im.first, index)
	if !exact {
		topic--
	}
	// Topics without partitions share their successor's first index.
	for topic < len(im.first)-1 && im.first[topic+1] == index {
		topic++
	}
	return topic, int(index - im.first[topic])
}

func (im *impact) name(index int32) string {
	topic, part := im.find(index)
	return fmt.Sprintf("%s-%d", im.kafka.Topics[topic].Name, part)
}

func inAnyISR(topics []Topic, id int32) bool {
	for i := range topics {
		for j := range topics[i].Partitions {
			if slices.Contains(topics[i].Partitions[j].ISR, id) {
				return true
			}
		}
	}
	return false
}
