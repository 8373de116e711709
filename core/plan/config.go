package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"castellan.dev/castellan/core/kconf"
)

// dynamicRecord is what a KafkaNode's spec must record as its per-broker configuration:
// what is wanted, and what an earlier spec wanted and Kafka still holds. A key is recorded
// before it is set and forgotten after it is gone, so that none is ever orphaned.
func (p *pass) dynamicRecord(n *Node) map[string]string {
	w := p.wanted[n.Spec.NodeID]
	rec := maps.Clone(w.Dynamic)
	for key, value := range n.Spec.Dynamic {
		if _, ok := w.Dynamic[key]; ok {
			continue
		}
		held, read := p.have.Kafka.BrokerConfig[n.Spec.NodeID]
		if _, inForce := held[key]; inForce || !read {
			if rec == nil {
				rec = map[string]string{}
			}
			rec[key] = value
		}
	}
	return rec
}

// configs brings the configuration that lives in Kafka to what is wanted. Keys that
// Castellan never set are left alone.
func (p *pass) configs() {
	k := &p.have.Kafka
	if !k.Known || !k.PartitionsKnown {
		return
	}
	p.config(-1, p.want.Dynamic, k.ClusterConfig, p.have.OwnedKeys, "cluster-wide")
	for _, n := range p.existing() {
		id := n.Spec.NodeID
		held, read := k.BrokerConfig[id]
		if !read {
			continue // not asked for, or its node was silent: unknown is not absent
		}
		owned := slices.Collect(maps.Keys(n.Spec.Dynamic))
		p.config(id, p.wanted[id].Dynamic, held, owned, fmt.Sprintf("broker %d", id))
	}
}

// nextStep is the value to set now: Kafka lets some keys, the sizes of thread pools, change
// only by half to double at once.
func (p *pass) nextStep(key, inForce, wanted string) string {
	table, ok := kconf.For(p.want.Version)
	if !ok {
		return wanted
	}
	k, ok := table.Key(key)
	if !ok || !k.Stepwise {
		return wanted
	}
	if inForce == "" {
		inForce = k.Default
	}
	return k.NextStep(inForce, wanted)
}

func (p *pass) config(node int32, want, have map[string]string, owned []string, where string) {
	set := map[string]string{}
	for key, value := range want {
		if old, ok := have[key]; !ok || old != value {
			set[key] = p.nextStep(key, old, value)
		}
	}
	var del []string
	for _, key := range owned {
		if _, wanted := want[key]; wanted {
			continue
		}
		if _, there := have[key]; there {
			del = append(del, key)
		}
	}
	slices.Sort(del)
	if len(set) == 0 && len(del) == 0 {
		return
	}
	var words []string
	for _, key := range slices.Sorted(maps.Keys(set)) {
		words = append(words, key+"="+set[key])
	}
	for _, key := range del {
		words = append(words, key+" back to its default")
	}
	p.step(Step{Kind: SetConfig, Node: node, Set: set, Delete: del, Reason: where + " dynamic configuration, no restart: " + strings.Join(words, ", ")})
}
