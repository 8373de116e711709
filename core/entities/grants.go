package entities

import (
	"cmp"
	"slices"

	api "castellan.dev/castellan/api/v1alpha1"
)

// clusterName is how Kafka names the one Cluster resource.
const clusterName = "kafka-cluster"

// Expand is what spec.acls and spec.presets of a KafkaUser come to, with all defaults filled
// in, for its status.
func Expand(spec *api.KafkaUserSpec) []api.ACL {
	out := make([]api.ACL, 0, len(spec.ACLs)+4)
	for _, a := range spec.ACLs {
		out = append(out, whole(a))
	}
	if p := spec.Presets; p != nil {
		for _, one := range p.Producer {
			out = append(out, allow(api.ACLTopic, one.Topic, api.ACLWrite, api.ACLDescribe))
		}
		for _, one := range p.Consumer {
			out = append(out,
				allow(api.ACLTopic, one.Topic, api.ACLRead, api.ACLDescribe),
				allow(api.ACLGroup, one.Group, api.ACLRead, api.ACLDescribe))
		}
		for _, one := range p.Streams {
			out = append(out, streams(one)...)
		}
		for _, one := range p.TransactionalProducer {
			out = append(out,
				allow(api.ACLTopic, one.Topic, api.ACLWrite, api.ACLDescribe),
				allow(api.ACLTransactionalID, one.TransactionalID, api.ACLWrite, api.ACLDescribe))
		}
	}
	return out
}

// streams: its internal topics, groups and transactional ids begin with the application id
// (Kafka Streams, "Security"; StreamsConfig.APPLICATION_ID_CONFIG).
func streams(p api.StreamsPreset) []api.ACL {
	var out []api.ACL
	for _, in := range p.Inputs {
		out = append(out, allow(api.ACLTopic, in, api.ACLRead, api.ACLDescribe))
	}
	for _, to := range p.Outputs {
		out = append(out, allow(api.ACLTopic, to, api.ACLWrite, api.ACLDescribe))
	}
	own := api.ACLPattern{Name: p.ApplicationID, PatternType: api.ACLPrefixed}
	return append(out,
		allow(api.ACLTopic, own, api.ACLAll),
		allow(api.ACLGroup, own, api.ACLAll),
		allow(api.ACLTransactionalID, own, api.ACLWrite, api.ACLDescribe))
}

func allow(t api.ACLResourceType, p api.ACLPattern, ops ...api.ACLOperation) api.ACL {
	return whole(api.ACL{Resource: api.ACLResource{Type: t, Name: p.Name, PatternType: p.PatternType}, Operations: ops})
}

func whole(a api.ACL) api.ACL {
	a.Effect = cmp.Or(a.Effect, api.ACLAllow)
	a.Host = cmp.Or(a.Host, "*")
	a.Resource.PatternType = cmp.Or(a.Resource.PatternType, api.ACLLiteral)
	if a.Resource.Type == api.ACLCluster {
		a.Resource.Name = clusterName
	}
	return a
}

// grantsOf are the single ACLs that a spec wants, sorted, each once.
func grantsOf(spec *api.KafkaUserSpec) []Grant {
	var out []Grant
	for _, a := range Expand(spec) {
		for _, op := range a.Operations {
			out = append(out, Grant{Type: a.Resource.Type, Name: a.Resource.Name, Pattern: a.Resource.PatternType, Operation: op, Effect: a.Effect, Host: a.Host})
		}
	}
	slices.SortFunc(out, Grant.compare)
	return slices.Compact(out)
}

// grantActions bring the ACLs of a principal about. What denies comes first and goes last, so
// that nothing is open in between that shall be closed; what stays allowed is allowed throughout.
func grantActions(principal string, want, have []Grant) []Action {
	if sameGrants(want, have) {
		return nil
	}
	has := make(map[Grant]bool, len(have))
	for _, g := range have {
		has[g] = true
	}
	wants := make(map[Grant]bool, len(want))
	var create, remove []Grant
	for _, g := range want {
		wants[g] = true
		if !has[g] {
			create = append(create, g)
		}
	}
	for _, g := range have {
		if !wants[g] {
			remove = append(remove, g)
		}
	}
	slices.SortFunc(remove, Grant.compare)
	do := make([]Action, 0, len(create)+len(remove))
	for _, effect := range []api.ACLEffect{api.ACLDeny, api.ACLAllow} {
		for _, g := range create {
			if g.Effect == effect {
				do = append(do, CreateGrant{principal, g})
			}
		}
	}
	for _, effect := range []api.ACLEffect{api.ACLAllow, api.ACLDeny} {
		for _, g := range remove {
			if g.Effect == effect {
				do = append(do, DeleteGrant{principal, g})
			}
		}
	}
	return do
}

// sameGrants compares two sets, of which nearly always both are small and equal.
func sameGrants(want, have []Grant) bool {
	const small = 32
	if len(want) != len(have) || len(want) > small {
		return len(want)+len(have) == 0
	}
	return !slices.ContainsFunc(want, func(g Grant) bool { return !slices.Contains(have, g) })
}
