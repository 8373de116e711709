package entities

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
)

// Kafka's numbers in words. One that is not known here is #<number>, both ways, so that it can
// be counted and removed.

func resourceTypes() map[kmsg.ACLResourceType]api.ACLResourceType {
	return map[kmsg.ACLResourceType]api.ACLResourceType{
		kmsg.ACLResourceTypeTopic: api.ACLTopic, kmsg.ACLResourceTypeGroup: api.ACLGroup, kmsg.ACLResourceTypeCluster: api.ACLCluster,
		kmsg.ACLResourceTypeTransactionalId: api.ACLTransactionalID, kmsg.ACLResourceTypeDelegationToken: api.ACLDelegationToken, kmsg.ACLResourceTypeUser: api.ACLUser,
	}
}

// twoPhaseCommit is of KIP-939 (Kafka 4.0).
const twoPhaseCommit kmsg.ACLOperation = 15

func operations() map[kmsg.ACLOperation]api.ACLOperation {
	return map[kmsg.ACLOperation]api.ACLOperation{
		kmsg.ACLOperationAll: api.ACLAll, kmsg.ACLOperationRead: api.ACLRead, kmsg.ACLOperationWrite: api.ACLWrite, kmsg.ACLOperationCreate: api.ACLCreate,
		kmsg.ACLOperationDelete: api.ACLDelete, kmsg.ACLOperationAlter: api.ACLAlter, kmsg.ACLOperationDescribe: api.ACLDescribe,
		kmsg.ACLOperationClusterAction: api.ACLClusterAction, kmsg.ACLOperationDescribeConfigs: api.ACLDescribeConfigs,
		kmsg.ACLOperationAlterConfigs: api.ACLAlterConfigs, kmsg.ACLOperationIdempotentWrite: api.ACLIdempotentWrite,
		kmsg.ACLOperationCreateTokens: api.ACLCreateTokens, kmsg.ACLOperationDescribeTokens: api.ACLDescribeTokens, twoPhaseCommit: api.ACLTwoPhaseCommit,
	}
}

func patterns() map[kmsg.ACLResourcePatternType]api.ACLPatternType {
	return map[kmsg.ACLResourcePatternType]api.ACLPatternType{kmsg.ACLResourcePatternTypeLiteral: api.ACLLiteral, kmsg.ACLResourcePatternTypePrefixed: api.ACLPrefixed}
}

func effects() map[kmsg.ACLPermissionType]api.ACLEffect {
	return map[kmsg.ACLPermissionType]api.ACLEffect{kmsg.ACLPermissionTypeAllow: api.ACLAllow, kmsg.ACLPermissionTypeDeny: api.ACLDeny}
}

// word of a number, and number of a word.
func word[N ~int8, W ~string](of map[N]W, n N) W { //nolint:ireturn // W is a string
	if w, ok := of[n]; ok {
		return w
	}
	return W("#" + strconv.Itoa(int(n)))
}

func number[N ~int8, W ~string](of map[N]W, w W) N { //nolint:ireturn // N is a number
	for n, one := range of {
		if one == w {
			return n
		}
	}
	text, _ := strings.CutPrefix(string(w), "#")
	n, _ := strconv.ParseInt(text, 10, 8)
	return N(n)
}

// dictionary has the words of every number once: an answer has tens of thousands.
type dictionary struct {
	types      map[kmsg.ACLResourceType]api.ACLResourceType
	operations map[kmsg.ACLOperation]api.ACLOperation
	patterns   map[kmsg.ACLResourcePatternType]api.ACLPatternType
	effects    map[kmsg.ACLPermissionType]api.ACLEffect
}

func newDictionary() dictionary {
	return dictionary{resourceTypes(), operations(), patterns(), effects()}
}

func (d dictionary) grant(r *kmsg.DescribeACLsResponseResource, a *kmsg.DescribeACLsResponseResourceACL) core.Grant {
	return core.Grant{
		Type: word(d.types, r.ResourceType), Name: r.ResourceName, Pattern: word(d.patterns, r.ResourcePatternType),
		Operation: word(d.operations, a.Operation), Effect: word(d.effects, a.PermissionType), Host: a.Host,
	}
}

// Types of quota entities (KIP-546).
const (
	quotaUser     = "user"
	quotaClientID = "client-id"
	quotaAddress  = "ip"
)

func withPart(e core.QuotaEntity, kind string, name *string) core.QuotaEntity {
	part := core.Every
	if name != nil {
		part = core.Named(*name)
	}
	switch kind {
	case quotaUser:
		e.User = part
	case quotaClientID:
		e.ClientID = part
	case quotaAddress:
		e.Address = part
	}
	return e
}

type quotaPart struct {
	kind string
	name *string
}

func partsOf(e core.QuotaEntity) []quotaPart {
	var out []quotaPart
	for _, one := range []struct {
		kind string
		part core.Part
	}{{quotaUser, e.User}, {quotaClientID, e.ClientID}, {quotaAddress, e.Address}} {
		if name, ok := one.part.Name(); ok {
			out = append(out, quotaPart{one.kind, &name})
		} else if one.part == core.Every {
			out = append(out, quotaPart{one.kind, nil})
		}
	}
	return out
}

// limits by Kafka's keys (org.apache.kafka.server.config.QuotaConfig).
func byKey(l *core.Limits) map[string]*float64 {
	return map[string]*float64{
		"producer_byte_rate": &l.ProducerByteRate, "consumer_byte_rate": &l.ConsumerByteRate, "request_percentage": &l.RequestPercentage,
		"controller_mutation_rate": &l.ControllerMutationRate, "connection_creation_rate": &l.ConnectionCreationRate,
	}
}

func limitsOf(values []kmsg.DescribeClientQuotasResponseEntryValue) core.Limits {
	var l core.Limits
	keys := byKey(&l)
	for _, v := range values {
		if at := keys[v.Key]; at != nil {
			*at = v.Value
		}
	}
	return l
}

// quotaOps change what differs.
func quotaOps(from, to core.Limits) []kmsg.AlterClientQuotasRequestEntryOp {
	was, is := byKey(&from), byKey(&to)
	var ops []kmsg.AlterClientQuotasRequestEntryOp
	for _, key := range slices.Sorted(maps.Keys(is)) {
		if *was[key] == *is[key] {
			continue
		}
		op := kmsg.NewAlterClientQuotasRequestEntryOp()
		op.Key, op.Value, op.Remove = key, *is[key], *is[key] == 0
		ops = append(ops, op)
	}
	return ops
}
