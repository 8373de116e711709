package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
)

// change of an object's spec; an empty want is that it is taken.
type change struct {
	reason, kind string
	// name of the object; empty is a good one.
	name string
	// before is the spec that is there already; empty is a new object. status is its status.
	before, status string
	spec           string
	want           string
}

const topicPrefix = "clusterRef: {name: prod}\n"

func scram(rest string) string {
	return "clusterRef: {name: prod}\nauthentication: {type: ScramSha512}\n" + rest
}

func changes() []change {
	long := strings.Repeat("n", 250)
	return []change{
		{reason: "least topic", kind: "KafkaTopic", spec: topicPrefix},
		{reason: "whole topic", kind: "KafkaTopic", spec: topicPrefix + "topicName: A_b.c\npartitions: 3\nreplicas: 2\nconfig: {retention.ms: 5, cleanup.policy: compact}\ndeletionPolicy: Delete\nadopt: true\npaused: true"},
		{reason: "a name with a space", kind: "KafkaTopic", spec: topicPrefix + "topicName: a b", want: "topicName"},
		{reason: "two dots", kind: "KafkaTopic", spec: topicPrefix + "topicName: ..", want: "neither . nor .."},
		{reason: "a long object name", kind: "KafkaTopic", name: long, spec: topicPrefix, want: "set spec.topicName"},
		{reason: "a long object name, another for Kafka", kind: "KafkaTopic", name: long, spec: topicPrefix + "topicName: t"},
		{reason: "another cluster", kind: "KafkaTopic", before: topicPrefix, spec: "clusterRef: {name: other}", want: "make another one"},
		{reason: "another name", kind: "KafkaTopic", before: topicPrefix + "topicName: a", spec: topicPrefix + "topicName: b", want: "renames no topic"},
		{reason: "a name of its own later", kind: "KafkaTopic", before: topicPrefix, spec: topicPrefix + "topicName: b", want: "renames no topic"},
		{reason: "fewer partitions than there are", kind: "KafkaTopic", before: topicPrefix + "partitions: 6", status: "partitions: 6", spec: topicPrefix + "partitions: 3", want: "cannot become fewer"},
		{reason: "fewer partitions than were asked for in vain", kind: "KafkaTopic", before: topicPrefix + "partitions: 600", status: "partitions: 6", spec: topicPrefix + "partitions: 6"},
		{reason: "fewer partitions before there are any", kind: "KafkaTopic", before: topicPrefix + "partitions: 600", spec: topicPrefix + "partitions: 6"},
		{reason: "more partitions", kind: "KafkaTopic", before: topicPrefix + "partitions: 6", status: "partitions: 6", spec: topicPrefix + "partitions: 7"},
		{reason: "another key", kind: "KafkaTopic", before: topicPrefix + "partitions: 3", status: "partitions: 6", spec: topicPrefix + "partitions: 3\nconfig: {a: 1}"},
		{reason: "no replicas", kind: "KafkaTopic", spec: topicPrefix + "replicas: 0", want: "greater than or equal to 1"},

		{reason: "least user", kind: "KafkaUser", spec: scram("")},
		{reason: "whole user", kind: "KafkaUser", spec: scram(`principal: 'a=,+ "\'
acls:
- {resource: {type: Cluster}, operations: [Create]}
- {resource: {type: TransactionalId, name: t, patternType: Prefixed}, operations: [Write, TwoPhaseCommit], effect: Deny, host: 10.0.0.1}
presets:
  producer: [{topic: {name: a}}]
  consumer: [{topic: {name: orders-, patternType: Prefixed}, group: {name: g}}]
  streams: [{applicationID: app, inputs: [{name: in}], outputs: [{name: out}]}]
  transactionalProducer: [{topic: {name: a}, transactionalID: {name: x}}]
quotas: {producerByteRate: 10Mi, requestPercentage: "12.5", controllerMutationRate: 5, clients: [{clientID: c, consumerByteRate: 1k}]}
adopt: true`)},
		{reason: "no authentication", kind: "KafkaUser", spec: "clusterRef: {name: prod}", want: "authentication"},
		{reason: "an unknown authentication", kind: "KafkaUser", spec: "clusterRef: {name: prod}\nauthentication: {type: Plain}", want: "Unsupported value"},
		{reason: "a password with a certificate", kind: "KafkaUser", spec: "clusterRef: {name: prod}\nauthentication: {type: MutualTLS, scramSha512: {}}", want: "goes with type ScramSha512"},
		{reason: "a Secret without a credential", kind: "KafkaUser", spec: "clusterRef: {name: prod}\nauthentication: {type: External, secretName: s}", want: "no Secret to write"},
		{reason: "a long name in a certificate", kind: "KafkaUser", spec: "clusterRef: {name: prod}\nprincipal: " + long + "\nauthentication: {type: MutualTLS}", want: "at most 64 characters"},
		{reason: "a long object name in a certificate", kind: "KafkaUser", name: strings.Repeat("n", 65), spec: "clusterRef: {name: prod}\nauthentication: {type: MutualTLS}", want: "at most 64 characters"},
		{reason: "a long name with a password", kind: "KafkaUser", spec: scram("principal: " + long)},
		{reason: "a name that certificates escape", kind: "KafkaUser", spec: "clusterRef: {name: prod}\nprincipal: 'a,b'\nauthentication: {type: MutualTLS}", want: "certificates escape"},
		{reason: "everyone with a password", kind: "KafkaUser", spec: scram("principal: '*'"), want: "is everyone"},
		{reason: "everyone", kind: "KafkaUser", spec: "clusterRef: {name: prod}\nprincipal: '*'\nauthentication: {type: External}"},
		{reason: "User: in front", kind: "KafkaUser", spec: scram("principal: 'User:a'"), want: "leave User: out"},
		{reason: "another principal", kind: "KafkaUser", before: scram("principal: a"), spec: scram("principal: b"), want: "principal cannot change"},
		{reason: "another authentication", kind: "KafkaUser", before: scram("principal: a"), spec: "clusterRef: {name: prod}\nprincipal: a\nauthentication: {type: MutualTLS}"},
		{reason: "a topic without a name", kind: "KafkaUser", spec: scram("acls: [{resource: {type: Topic}, operations: [Read]}]"), want: "name the resource"},
		{reason: "another Cluster", kind: "KafkaUser", spec: scram("acls: [{resource: {type: Cluster, name: c}, operations: [Create]}]"), want: "leave the name out"},
		{reason: "no operations", kind: "KafkaUser", spec: scram("acls: [{resource: {type: Topic, name: t}, operations: []}]"), want: "operations"},
		{reason: "no such operation", kind: "KafkaUser", spec: scram("acls: [{resource: {type: Topic, name: t}, operations: [Fly]}]"), want: "Unsupported value"},
		{reason: "one client twice", kind: "KafkaUser", spec: scram("quotas: {clients: [{clientID: c}, {clientID: c}]}"), want: "Duplicate value"},
	}
}

func TestTopicsAndUsersAreChecked(t *testing.T) {
	c := controlplanetest.Client(t, controlplanetest.Start(t))
	for i, one := range changes() {
		t.Run(one.kind+" "+one.reason, func(t *testing.T) {
			err := one.apply(t, c, i)
			switch {
			case one.want == "" && err != nil:
				t.Error(err)
			case one.want != "" && (err == nil || !strings.Contains(err.Error(), one.want)):
				t.Errorf("error %v, want %q", err, one.want)
			}
		})
	}
}

func (one change) apply(t *testing.T, c client.Client, i int) error {
	t.Helper()
	name := one.name
	if name == "" {
		name = fmt.Sprintf("n%d", i)
	}
	o := one.object(t, name, one.spec)
	if one.before == "" {
		return c.Create(t.Context(), o)
	}
	there := one.object(t, name, one.before)
	if err := c.Create(t.Context(), there); err != nil {
		t.Fatal(err)
	}
	if one.status != "" {
		if err := unstructured.SetNestedField(there.Object, parse(t, one.status), "status"); err != nil {
			t.Fatal(err)
		}
		if err := c.Status().Update(t.Context(), there); err != nil {
			t.Fatal(err)
		}
	}
	there.Object["spec"] = o.Object["spec"]
	return c.Update(t.Context(), there)
}

func (one change) object(t *testing.T, name, spec string) *unstructured.Unstructured {
	t.Helper()
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": api.GroupVersion.String(), "kind": one.kind,
		"metadata": map[string]any{"namespace": "default", "name": name},
		"spec":     parse(t, spec),
	}}
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	data, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON([]byte(`{"apiVersion":"v1","kind":"X","spec":` + string(data) + `}`)); err != nil {
		t.Fatal(err)
	}
	spec, _, _ := unstructured.NestedMap(u.Object, "spec")
	return spec
}
