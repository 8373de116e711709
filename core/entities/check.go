package entities

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	api "castellan.dev/castellan/api/v1alpha1"
)

// CheckTopic is what is wrong with a spec by itself, in one sentence, or empty. Admission asks
// it too.
func CheckTopic(o *api.KafkaTopic) string {
	name := TopicName(o)
	if len(name) > 249 || name == "." || name == ".." {
		return fmt.Sprintf("%q is no name of a topic: it has 1 to 249 characters and is neither . nor ..; set spec.topicName.", name)
	}
	for _, k := range slices.Sorted(maps.Keys(o.Spec.Config)) {
		if problem := checkConfig(k, string(o.Spec.Config[k])); problem != "" {
			return problem
		}
	}
	text, ok := o.Spec.Config["min.insync.replicas"]
	least, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if ok && err == nil && o.Spec.Replicas != nil && least > int(*o.Spec.Replicas) {
		return fmt.Sprintf("spec.config[min.insync.replicas] is %d with spec.replicas %d: nobody could write with acks=all; lower it, or have more replicas.", least, *o.Spec.Replicas)
	}
	return ""
}

func checkConfig(key, value string) string {
	at := "spec.config[" + key + "]"
	switch {
	case owned(key):
		return at + " is set by the balancer itself while replicas move: leave it out."
	case !configKey(key):
		return fmt.Sprintf("spec.config has %q, which is no key of Kafka's: a key has letters, digits, dots, dashes and underscores.", key)
	case value == "null":
		return at + " has no value: give one, or leave the key out to take the cluster's default."
	case strings.HasPrefix(value, "{") || strings.HasPrefix(value, "["):
		return at + " is a list or an object: Kafka's values are text, a list is written a,b."
	default:
		return ""
	}
}

func configKey(key string) bool {
	return key != "" && len(key) <= 253 && !strings.ContainsFunc(key, func(r rune) bool {
		return !letterOrDigit(r) && !strings.ContainsRune("._-", r)
	})
}

// owned are the keys that the balancer sets while it moves replicas (KIP-73).
func owned(key string) bool {
	return key == "leader.replication.throttled.replicas" || key == "follower.replication.throttled.replicas"
}

// CheckUser is what is wrong with a spec by itself, in one sentence, or empty. Admission asks
// it too.
func CheckUser(o *api.KafkaUser) string {
	name := PrincipalName(o)
	if strings.HasPrefix(name, "User:") {
		return "spec.principal begins with User:, which is put in front of every principal: leave it out."
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "spec.principal has control characters: choose another one."
	}
	switch o.Spec.Authentication.Type {
	case api.UserMutualTLS:
		if len(name) > 64 {
			return fmt.Sprintf("%q has more than the 64 characters that the common name of a certificate has at most: set spec.principal to a shorter one, or use ScramSha512.", name)
		}
		if !commonName(name) {
			return fmt.Sprintf("%q has characters that certificates escape: with MutualTLS use letters, digits, inner spaces and . _ @ : / -, or use ScramSha512.", name)
		}
	case api.UserScramSha512:
		if name == "*" {
			return "principal * is everyone: use it with authentication External."
		}
	case api.UserExternal: // any name
	}
	for i, a := range o.Spec.ACLs {
		if problem := checkACL(a); problem != "" {
			return fmt.Sprintf("spec.acls[%d]: %s", i, problem)
		}
	}
	return checkQuotas(o.Spec.Quotas)
}

func checkQuotas(q *api.UserQuotas) string {
	if q == nil {
		return ""
	}
	if problem := CheckQuota("spec.quotas", &q.Quota); problem != "" {
		return problem
	}
	for i := range q.Clients {
		if problem := CheckQuota(fmt.Sprintf("spec.quotas.clients[%d]", i), &q.Clients[i].Quota); problem != "" {
			return problem
		}
	}
	return ""
}

// CheckQuota is what is wrong with a quota at that place of a spec, in one sentence, or empty. It is no rule of
// the definition: with quantities that would cost an API server more than it allows.
func CheckQuota(at string, q *api.Quota) string {
	for _, one := range []struct {
		name  string
		value *resource.Quantity
		whole bool
	}{
		{"producerByteRate", q.ProducerByteRate, true},
		{"consumerByteRate", q.ConsumerByteRate, true},
		{"requestPercentage", q.RequestPercentage, false},
		{"controllerMutationRate", q.ControllerMutationRate, false},
	} {
		switch {
		case one.value == nil:
		case one.value.Sign() <= 0:
			return fmt.Sprintf("%s.%s is %s: it is above 0; leave it out for no limit.", at, one.name, one.value)
		case one.whole && one.value.AsApproximateFloat64() != math.Trunc(one.value.AsApproximateFloat64()):
			return fmt.Sprintf("%s.%s is %s: Kafka takes whole bytes only, for example 10Mi.", at, one.name, one.value)
		}
	}
	return ""
}

// commonName says whether a distinguished name carries it as it is (RFC 4514).
func commonName(name string) bool {
	return name == strings.TrimSpace(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return !letterOrDigit(r) && !strings.ContainsRune("._@:/- ", r)
	})
}

func letterOrDigit(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

func checkACL(a api.ACL) string {
	may := operationsOf(a.Resource.Type)
	for _, op := range a.Operations {
		if !slices.Contains(may, op) {
			return fmt.Sprintf("%s means nothing for a %s: use %s.", op, a.Resource.Type, listed(may))
		}
	}
	if a.Resource.Type != api.ACLCluster && a.Resource.Name == "" {
		return "name the resource; * is every one of its type."
	}
	return ""
}

func listed(ops []api.ACLOperation) string {
	words := make([]string, 0, len(ops))
	for _, o := range ops {
		words = append(words, string(o))
	}
	return strings.Join(words, ", ")
}

// operationsOf are those that Kafka checks for a type (org.apache.kafka.security.authorizer.AclEntry).
func operationsOf(t api.ACLResourceType) []api.ACLOperation {
	switch t {
	case api.ACLTopic:
		return []api.ACLOperation{api.ACLAll, api.ACLRead, api.ACLWrite, api.ACLCreate, api.ACLDescribe, api.ACLDelete, api.ACLAlter, api.ACLDescribeConfigs, api.ACLAlterConfigs}
	case api.ACLGroup:
		return []api.ACLOperation{api.ACLAll, api.ACLRead, api.ACLDescribe, api.ACLDelete, api.ACLDescribeConfigs, api.ACLAlterConfigs}
	case api.ACLCluster:
		return []api.ACLOperation{api.ACLAll, api.ACLCreate, api.ACLClusterAction, api.ACLDescribeConfigs, api.ACLAlterConfigs, api.ACLIdempotentWrite, api.ACLAlter, api.ACLDescribe}
	case api.ACLTransactionalID:
		return []api.ACLOperation{api.ACLAll, api.ACLDescribe, api.ACLWrite, api.ACLTwoPhaseCommit}
	case api.ACLDelegationToken:
		return []api.ACLOperation{api.ACLAll, api.ACLDescribe}
	case api.ACLUser:
		return []api.ACLOperation{api.ACLAll, api.ACLCreateTokens, api.ACLDescribeTokens}
	default:
		return nil
	}
}
