package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
)

// TestImported writes what can be applied: names that objects can have, whole principals, and
// nothing of Kafka's or Castellan's own.
func TestImported(t *testing.T) {
	read := core.Grant{Type: api.ACLTopic, Name: "orders-", Pattern: api.ACLPrefixed, Operation: api.ACLRead, Effect: api.ACLAllow, Host: "*"}
	write := read
	write.Operation = api.ACLWrite
	have := &core.Snapshot{
		Topics: map[string]*core.Topic{
			"orders":             {Partitions: 3, Replicas: 2, MostReplicas: 2, Config: map[string]string{"retention.ms": "5", "leader.replication.throttled.replicas": "*"}},
			"A_b":                {Partitions: 1, Replicas: 1, MostReplicas: 2},
			"__consumer_offsets": {Partitions: 50, Replicas: 1, MostReplicas: 1},
		},
		Principals: map[string]*core.Principal{
			"billing":            {Grants: []core.Grant{read, write}, Scram512: 4096, Quotas: map[core.Part]core.Limits{"": {RequestPercentage: 12.5}}},
			"CN=x,O=y":           {Grants: []core.Grant{read}},
			"castellan-operator": {Grants: []core.Grant{read}},
		},
	}
	i := &importing{ref: "prod"}
	for name, c := range map[string]struct {
		got  []document
		want string
	}{
		"topics": {i.topics(have), `---
# Its partitions have from 1 to 2 replicas: set spec.replicas to have as many everywhere.
apiVersion: castellan.dev/v1alpha1
kind: KafkaTopic
metadata:
  name: a-b-08eb65ad
spec:
  adopt: true
  clusterRef:
    name: prod
  partitions: 1
  topicName: A_b
---
apiVersion: castellan.dev/v1alpha1
kind: KafkaTopic
metadata:
  name: orders
spec:
  adopt: true
  clusterRef:
    name: prod
  config:
    retention.ms: "5"
  partitions: 3
  replicas: 2
`},
		"users": {i.users(have), `---
# It has a password in Kafka, which External leaves alone; ScramSha512 gives it another one.
apiVersion: castellan.dev/v1alpha1
kind: KafkaUser
metadata:
  name: billing
spec:
  acls:
  - effect: Allow
    host: '*'
    operations:
    - Read
    - Write
    resource:
      name: orders-
      patternType: Prefixed
      type: Topic
  adopt: true
  authentication:
    type: External
  clusterRef:
    name: prod
  quotas:
    requestPercentage: 12500m
`},
	} {
		var out bytes.Buffer
		if err := printDocuments(&out, c.got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, out.String()); diff != "" {
			t.Errorf("%s (- want, + got):\n%s", name, diff)
		}
	}
	var out bytes.Buffer
	if err := printDocuments(&out, i.acls(have)); err != nil || strings.Count(out.String(), "kind: KafkaUser") != 2 || !strings.Contains(out.String(), "principal: CN=x,O=y") {
		t.Errorf("acls: %v\n%s", err, out.String())
	}
}
