package kube

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	api "castellan.dev/castellan/api/v1alpha1"
)

// selectedNodeAnnotation is where the scheduler notes on a claim which machine it chose.
const selectedNodeAnnotation = "volume.kubernetes.io/selected-node"

// placement is where the node's pod is, or where its volumes are while it has no place. It
// is nil when neither is known.
func placement(node *api.KafkaNode, seen *Seen) *api.NodePlacement {
	lost := lostMachine(node, seen)
	at := PlacementOf(seen.Pod, seen.Machines)
	if at == nil && lost != "" {
		at = &api.NodePlacement{Node: lost}
	}
	if at != nil {
		at.Lost = lost != ""
	}
	return at
}

// PlacementOf is where a pod runs, nil while it has no place. Of a machine that may not be
// read, only the zone is known, where Kubernetes copies it to the pod.
func PlacementOf(pod *corev1.Pod, machines []*corev1.Node) *api.NodePlacement {
	if pod == nil || pod.Spec.NodeName == "" {
		return nil
	}
	out := &api.NodePlacement{Node: pod.Spec.NodeName, Zone: pod.Labels[zoneLabel]}
	machine := machineNamed(machines, pod.Spec.NodeName)
	if machine == nil {
		return out
	}
	out.Zone = machine.Labels[zoneLabel]
	for _, a := range machine.Status.Addresses {
		if out.Addresses == nil {
			out.Addresses = map[string]string{}
		}
		// The first of a type: a machine with two families names its main one first.
		if _, ok := out.Addresses[string(a.Type)]; !ok {
			out.Addresses[string(a.Type)] = a.Address
		}
	}
	return out
}

// PlacementText is the value of layout.PlacementAnnotation: what the supervisor needs to
// know of its machine. Empty while the pod has none.
func PlacementText(p *api.NodePlacement) string {
	if p == nil {
		return ""
	}
	data, err := json.Marshal(api.NodePlacement{Node: p.Node, Zone: p.Zone, Addresses: p.Addresses})
	if err != nil {
		return "" // cannot be: texts alone
	}
	return string(data)
}

func machineNamed(machines []*corev1.Node, name string) *corev1.Node {
	at := slices.IndexFunc(machines, func(m *corev1.Node) bool { return m.Name == name })
	if at < 0 {
		return nil
	}
	return machines[at]
}

// machineReady says whether the kubelet of a machine reports.
func machineReady(m *corev1.Node) bool {
	return slices.ContainsFunc(m.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// outOfService says whether a user declared a machine dead.
func outOfService(m *corev1.Node) bool {
	return slices.ContainsFunc(m.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// Dead says for certain that nothing runs on a pod's machine, or that a user says so: it
// does not exist any more, its kubelet is silent, or it is declared out of service.
func Dead(pod *corev1.Pod, machines []*corev1.Node) bool {
	machine := machineNamed(machines, pod.Spec.NodeName)
	return pod.Spec.NodeName != "" && (machine == nil || !machineReady(machine) || outOfService(machine))
}

// lostMachine names the machine that a volume of the process cannot leave and that is
// declared out of service or gone; empty when every volume can still be reached, or when it
// cannot be told.
func lostMachine(node *api.KafkaNode, seen *Seen) string {
	if !seen.MachinesKnown {
		return ""
	}
	for _, volume := range node.Spec.Process.Volumes {
		claim := seen.Claims[claimOf(node, volume)]
		if claim == nil || claim.Spec.VolumeName == "" {
			continue
		}
		pv := seen.Volumes[claim.Spec.VolumeName]
		if pv == nil || pinned(pv) == "" {
			continue // reachable from elsewhere, as far as one can tell
		}
		reachable := func(m *corev1.Node) bool { return !outOfService(m) && matches(pv.Spec.NodeAffinity.Required, m) }
		if !slices.ContainsFunc(seen.Machines, reachable) {
			return cmp.Or(claim.Annotations[selectedNodeAnnotation], pinned(pv))
		}
	}
	return ""
}

// pinned names the one machine of a volume that is local to it; empty for others. A disk
// of the network may be bound to a zone, whose last machine may be gone for a while: that
// is no loss.
func pinned(pv *corev1.PersistentVolume) string {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil {
		return ""
	}
	for _, term := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, r := range slices.Concat(term.MatchExpressions, term.MatchFields) {
			key := r.Key[strings.LastIndex(r.Key, "/")+1:]
			area := strings.Contains(key, "zone") || strings.Contains(key, "region")
			if r.Operator == corev1.NodeSelectorOpIn && len(r.Values) == 1 && !area {
				return r.Values[0]
			}
		}
	}
	return ""
}

// matches says whether a machine satisfies a selector; what this does not know counts as
// satisfied, so that no volume is called lost in doubt.
func matches(selector *corev1.NodeSelector, m *corev1.Node) bool {
	return slices.ContainsFunc(selector.NodeSelectorTerms, func(term corev1.NodeSelectorTerm) bool {
		return all(term.MatchExpressions, m.Labels) && all(term.MatchFields, map[string]string{"metadata.name": m.Name})
	})
}

func all(requirements []corev1.NodeSelectorRequirement, values map[string]string) bool {
	return !slices.ContainsFunc(requirements, func(r corev1.NodeSelectorRequirement) bool {
		value, has := values[r.Key]
		switch r.Operator {
		case corev1.NodeSelectorOpIn:
			return !has || !slices.Contains(r.Values, value)
		case corev1.NodeSelectorOpNotIn:
			return has && slices.Contains(r.Values, value)
		case corev1.NodeSelectorOpExists:
			return !has
		case corev1.NodeSelectorOpDoesNotExist:
			return has
		default:
			return false
		}
	})
}
