package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"castellan.dev/castellan/test/e2e/stand"
)

// deniedWithin is how soon somebody whose grant was removed is refused.
const deniedWithin = 5 * time.Second

// knownClients are the listeners of the story, beside "plain" of every stand; %s is OAuth of the last.
const knownClients = `
  - {name: certs, port: 9093, tls: {}, authentication: {type: MutualTLS}}
  - {name: scram, port: 9094, tls: {}, authentication: {type: ScramSha512}}
  - {name: tokens, port: 9095, tls: {}, authentication: {type: OAuth, oauth: %s}}
  authorization: {type: ACL}`

// readers are who may read orders-*, each known in another way, and who may do everything.
const readers = `apiVersion: castellan.dev/v1alpha1
kind: KafkaTopic
metadata: {name: orders-a, namespace: default}
spec: {clusterRef: {name: kafka}, partitions: 1, config: {retention.ms: 3600000}}
---
apiVersion: castellan.dev/v1alpha1
kind: KafkaTopic
metadata: {name: orders-b, namespace: default}
spec: {clusterRef: {name: kafka}, partitions: 1}
---
apiVersion: castellan.dev/v1alpha1
kind: KafkaTopic
metadata: {name: other, namespace: default}
spec: {clusterRef: {name: kafka}, partitions: 1}
---
apiVersion: castellan.dev/v1alpha1
kind: KafkaUser
metadata: {name: keeper-cert, namespace: default}
spec:
  clusterRef: {name: kafka}
  authentication: {type: MutualTLS}
  acls:
  - {resource: {type: Topic, name: "*"}, operations: [All]}
  - {resource: {type: Group, name: "*"}, operations: [All]}
  - {resource: {type: Cluster}, operations: [All]}
` + "---\n" + readersOnly

const readersOnly = `apiVersion: castellan.dev/v1alpha1
kind: KafkaUser
metadata: {name: reader-cert, namespace: default}
spec:
  clusterRef: {name: kafka}
  authentication: {type: MutualTLS}
  presets: {consumer: [{topic: {name: orders-, patternType: Prefixed}, group: {name: orders-, patternType: Prefixed}}]}
---
apiVersion: castellan.dev/v1alpha1
kind: KafkaUser
metadata: {name: reader-scram, namespace: default}
spec:
  clusterRef: {name: kafka}
  authentication: {type: ScramSha512}
  presets: {consumer: [{topic: {name: orders-, patternType: Prefixed}, group: {name: orders-, patternType: Prefixed}}]}
---
apiVersion: castellan.dev/v1alpha1
kind: KafkaUser
metadata: {name: reader-token, namespace: default}
spec:
  clusterRef: {name: kafka}
  authentication: {type: External}
  presets: {consumer: [{topic: {name: orders-, patternType: Prefixed}, group: {name: orders-, patternType: Prefixed}}]}
`

// TestClients tells what clients see that Castellan has no part in: kcat, Kafka's own tools, and tokens of a real Keycloak.
func TestClients(t *testing.T) {
	watched := watchArguments(t)
	tokenSecret := rand.Text()
	id := startKeycloak(t, "kafka", map[string]string{"reader-token": tokenSecret})
	oauth, caSecret := id.asProvider("kafka")
	cluster := stand.Combined(version, 1, "group.initial.rebalance.delay.ms: 0")
	cluster = strings.Replace(cluster, "    port: 9092", "    port: 9092"+fmt.Sprintf(knownClients, oauth), 1)
	s := stand.New(t, stand.Options{Cluster: caSecret + "---\n" + cluster})
	s.Apply(readers)
	nowInForce(t, s, topicNamed("orders-a"), topicNamed("orders-b"), topicNamed("other"),
		userNamed("keeper-cert"), userNamed("reader-cert"), userNamed("reader-scram"), userNamed("reader-token"))
	before := s.JVMPIDs()
	keeper := withCertificate(t, s, "keeper-cert")
	for _, topic := range []string{"orders-a", "orders-b", "other"} {
		works(t, "the keeper writes to "+topic, keeper.runKcat("of "+topic+"\n", "-P", "-t", topic, "-X", "acks=all"), "")
	}
	s.Eventually("Keycloak is ready", stand.ReadyTimeout, id.ready)
	all := []identity{withCertificate(t, s, "reader-cert"), withPassword(t, s, "reader-scram"), id.ofOAuth(t, s, "reader-token", tokenSecret)}
	known := newKnownSecrets(t, s, tokenSecret)

	for _, i := range all {
		readsOrdersOnly(t, i)
	}
	certificateAsPKCS12(t, s)
	passwordIsRotated(t, s)
	userChangesItsWays(t, s, known)
	namesThatAreOdd(t, s)
	known.add(t) // and some of their users do not
	for _, i := range all {
		if i.name == "reader-scram" {
			i = withPassword(t, s, i.name) // it was rotated
		}
		grantIsRemoved(t, i)
	}
	userIsDeleted(t, s)
	changedBehindTheOperator(t, s, keeper)

	if diff := cmp.Diff(before, s.JVMPIDs()); diff != "" {
		t.Errorf("Kafka was restarted (-before +after):\n%s", diff)
	}
	known.add(t)
	known.areNowhere(t, watched())
}

// readsOrdersOnly asks two clients that share no code for everything that the preset gives, and for what it does not.
func readsOrdersOnly(t *testing.T, i identity) {
	t.Helper()
	is := func(what string) string { return i.name + " " + what }
	works(t, is("reads orders-a in its group (kcat)"), i.runKcat("", "-G", "orders-kcat-"+i.name, "-X", "auto.offset.reset=earliest", "-c", "1", "orders-a"), "of orders-a")
	works(t, is("reads orders-b in its group (Kafka's consumer)"),
		i.tool("", consumerTool, "--topic", "orders-b", "--group", "orders-"+i.name, "--from-beginning", "--max-messages", "1", "--timeout-ms", "30000"), "of orders-b")

	refuses(t, is("writes to orders-a (kcat)"), i.runKcat("x\n", "-P", "-t", "orders-a"), "Topic authorization failed")
	refuses(t, is("reads other (kcat)"), i.reads("other"), "Topic authorization failed")
	refuses(t, is("reads orders-a in another group (kcat)"), i.runKcat("", "-G", "payments", "-c", "1", "orders-a"), "Group authorization failed")
	refuses(t, is("writes to orders-a (Kafka's producer)"), i.tool("x\n", producerTool, "--topic", "orders-a", "--command-property", "enable.idempotence=false"), "Not authorized to access topics: [orders-a]")
	refuses(t, is("reads other (Kafka's consumer)"),
		i.tool("", consumerTool, "--topic", "other", "--group", "orders-"+i.name, "--timeout-ms", "30000"), "Not authorized to access topics: [other]")
	refuses(t, is("deletes orders-a"), i.tool("", topicsTool, "--delete", "--topic", "orders-a"), "TopicAuthorizationException")
	refuses(t, is("reads the ACLs"), i.tool("", aclsTool, "--list"), "ClusterAuthorizationException")
	refuses(t, is("reads a broker's configuration"), i.tool("", configsTool, "--describe", "--entity-type", "brokers", "--entity-name", "0", "--all"), "ClusterAuthorizationException")

	list := i.tool("", topicsTool, "--list")
	if topics := slices.Sorted(strings.FieldsSeq(list.Stdout)); !slices.Equal(topics, []string{"orders-a", "orders-b"}) {
		t.Errorf("%s: want orders-a and orders-b and no more: %s", is("lists topics"), list)
	}
}

// certificateAsPKCS12 uses the Secret's other form of a certificate.
func certificateAsPKCS12(t *testing.T, s *stand.Stand) {
	t.Helper()
	i := withPKCS12(t, s, "reader-cert")
	works(t, "PKCS #12 with kcat", i.reads("orders-a"), "of orders-a")
	works(t, "PKCS #12 with Kafka's tools", i.tool("", topicsTool, "--list"), "orders-b")
}

// passwordIsRotated asks for another password.
func passwordIsRotated(t *testing.T, s *stand.Stand) {
	t.Helper()
	old := withPassword(t, s, "reader-scram")
	works(t, "the password before the rotation", old.reads("orders-a"), "of orders-a")
	changed(t, s, userNamed("reader-scram"), `{"spec":{"authentication":{"rotation":"now"}}}`)
	nowInForce(t, s, userNamed("reader-scram"))
	works(t, "the password after the rotation", withPassword(t, s, "reader-scram").reads("orders-a"), "of orders-a")
	refuses(t, "the password before the rotation, after it", old.reads("orders-a"), "authentication failed")
}

// userChangesItsWays gives a user another authentication, and the first one back.
func userChangesItsWays(t *testing.T, s *stand.Stand, known *knownSecrets) {
	t.Helper()
	const mover = "mover-cert"
	s.Apply(strings.ReplaceAll(strings.Split(readersOnly, "---\n")[0], "reader-cert", mover))
	nowInForce(t, s, userNamed(mover))
	certificate := withCertificate(t, s, mover)
	works(t, "with a certificate", certificate.reads("orders-a"), "of orders-a")

	changed(t, s, userNamed(mover), `{"spec":{"authentication":{"type":"ScramSha512"}}}`)
	nowInForce(t, s, userNamed(mover))
	password := withPassword(t, s, mover)
	known.add(t) // it does not stay
	works(t, "with a password in place of the certificate", password.reads("orders-a"), "of orders-a")
	if left := secretOf(t, s, mover)["user.key"]; len(left) > 0 {
		t.Error("the Secret still holds the private key of the certificate")
	}

	changed(t, s, userNamed(mover), `{"spec":{"authentication":{"type":"MutualTLS"}}}`)
	nowInForce(t, s, userNamed(mover))
	works(t, "with a certificate again", withCertificate(t, s, mover).reads("orders-a"), "of orders-a")
	refuses(t, "with the password that is no longer", password.reads("orders-a"), "authentication failed")
	if left := secretOf(t, s, mover)["password"]; len(left) > 0 {
		t.Error("the Secret still holds the password")
	}
}

// namesThatAreOdd are names that a certificate cannot have, or only escaped; with a password they work, also with one as odd.
func namesThatAreOdd(t *testing.T, s *stand.Stand) {
	t.Helper()
	const odd = `we=ird, "na+me\`
	if err := s.Client().Create(t.Context(), secret("given", map[string][]byte{"word": []byte(`pa=ss, "w+rd\ €nd`)})); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("long-", 20) + "scram"
	user := func(name, principal, way string) string {
		return fmt.Sprintf(`apiVersion: castellan.dev/v1alpha1
kind: KafkaUser
metadata: {name: %s, namespace: default}
spec:
  clusterRef: {name: kafka}
%s  authentication: {type: %s}
  presets: {consumer: [{topic: {name: orders-, patternType: Prefixed}, group: {name: orders-, patternType: Prefixed}}]}
`, name, principal, way)
	}
	principal := "  principal: '" + odd + "'\n"
	for name, tt := range map[string]struct{ yaml, says string }{
		"odd":  {user("odd-cert", principal, "MutualTLS"), "certificates escape all others: choose another one, or use ScramSha512"},
		"long": {user(strings.Replace(long, "scram", "cert", 1), "", "MutualTLS"), "at most 64 characters (X.520): set spec.principal to a shorter one, or use ScramSha512"},
	} {
		if out := s.TryApply(tt.yaml); out.Code == 0 || !strings.Contains(out.Stderr, tt.says) {
			t.Errorf("%s name with MutualTLS: want it refused with %q: %s", name, tt.says, out)
		}
	}
	s.Apply(user("odd-scram", principal, "ScramSha512, scramSha512: {password: {name: given, key: word}}") + "---\n" + user(long, "", "ScramSha512"))
	nowInForce(t, s, userNamed("odd-scram"), userNamed(long))
	for _, name := range []string{"odd-scram", long} {
		i := withPassword(t, s, name)
		works(t, name+" reads with kcat", i.reads("orders-a"), "of orders-a")
		works(t, name+" lists with Kafka's tools", i.tool("", topicsTool, "--list"), "orders-b")
		refuses(t, name+" reads other", i.reads("other"), "Topic authorization failed")
	}
}

// grantIsRemoved measures from the write of the object until somebody who reads on is refused.
func grantIsRemoved(t *testing.T, i identity) {
	t.Helper()
	reading := i.follow(t, "orders-a")
	began := time.Now()
	changed(t, i.s, userNamed(i.name), `{"spec":{"presets":null}}`)
	select {
	case ended := <-reading.ended:
		took := ended.Sub(began)
		t.Logf("%s: refused %s after the grant was removed", i.name, took.Round(time.Millisecond))
		if took > deniedWithin {
			t.Errorf("%s was refused only %s after its grant was removed, want at most %s", i.name, took, deniedWithin)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%s still reads a minute after its grant was removed", i.name)
	}
	if said := reading.stderr.String(); !strings.Contains(said, "authorization failed") {
		t.Errorf("%s: kcat ended for another reason: %s", i.name, said)
	}
	refuses(t, i.name+" begins to read without a grant", i.reads("orders-a"), "Topic authorization failed")
	nowInForce(t, i.s, userNamed(i.name))
}

// userIsDeleted takes the password and everything else out of Kafka.
func userIsDeleted(t *testing.T, s *stand.Stand) {
	t.Helper()
	i, user := withPassword(t, s, "odd-scram"), userNamed("odd-scram")
	if err := s.Client().Delete(t.Context(), user); err != nil {
		t.Fatal(err)
	}
	took := s.Eventually("the KafkaUser is gone", time.Minute, s.Gone(user))
	t.Logf("a deleted user is gone after %s", took.Round(time.Millisecond))
	refuses(t, "a user that was deleted", i.reads("orders-a"), "authentication failed")
}

// changedBehindTheOperator changes topics and ACLs with Kafka's own tools while nothing of Castellan runs above Kafka.
func changedBehindTheOperator(t *testing.T, s *stand.Stand, keeper identity) {
	t.Helper()
	s.Kill(s.MustPID(stand.Server), s.MustPID(stand.Operator))
	for _, args := range [][]string{
		{configsTool, "--alter", "--topic", "orders-a", "--add-config", "retention.ms=1000,max.message.bytes=2000000"},
		{topicsTool, "--alter", "--topic", "orders-b", "--partitions", "3"},
		{topicsTool, "--delete", "--topic", "other"},
		{topicsTool, "--create", "--topic", "orders-stray", "--partitions", "1"},
		{aclsTool, "--add", "--allow-principal", "User:reader-cert", "--operation", "Write", "--topic", "orders-a"},
	} {
		if out := keeper.tool("", args[0], args[1:]...); out.Code != 0 {
			t.Fatalf("behind the operator: %s", out)
		}
	}
	s.Up()
	s.Eventually("what the specs say is put back, the rest stays", time.Minute, func(context.Context) error {
		config := keeper.tool("", configsTool, "--describe", "--topic", "orders-a")
		grants := keeper.tool("", aclsTool, "--list", "--principal", "User:reader-cert")
		topics := strings.Fields(keeper.tool("", topicsTool, "--list").Stdout)
		switch {
		case !strings.Contains(config.Stdout, "retention.ms=3600000") || !strings.Contains(config.Stdout, "max.message.bytes=2000000"):
			return fmt.Errorf("configuration of orders-a: %s", config)
		case grants.Code != 0 || strings.Contains(grants.Stdout, "WRITE"):
			return fmt.Errorf("ACLs of reader-cert: %s", grants)
		case !slices.Contains(topics, "other") || !slices.Contains(topics, "orders-stray"):
			return fmt.Errorf("topics %v", topics)
		}
		return nil
	})
	s.Eventually("an event says what was put back", time.Minute, func(ctx context.Context) error {
		var list eventsv1.EventList
		if err := s.Client().List(ctx, &list); err != nil {
			return fmt.Errorf("list the events: %w", err)
		}
		if !slices.ContainsFunc(list.Items, func(e eventsv1.Event) bool { return e.Reason == "PutBack" && e.Regarding.Name == "orders-a" }) {
			return fmt.Errorf("none of %d events is of reason PutBack and about orders-a", len(list.Items))
		}
		return nil
	})
	tooMany := topicNamed("orders-b")
	s.Eventually("more partitions than the spec has are reported", time.Minute, func(ctx context.Context) error {
		if err := s.Client().Get(ctx, s.KeyOf("orders-b"), tooMany); err != nil {
			return fmt.Errorf("read KafkaTopic orders-b: %w", err)
		}
		if ready := readyOf(tooMany); ready.Reason != "FewerPartitions" || !strings.Contains(ready.Message, "orders-b has 3 partitions and spec.partitions is 1") {
			return fmt.Errorf("%+v", ready)
		}
		return nil
	})
	nowInForce(t, s, topicNamed("orders-a"), topicNamed("other"), userNamed("reader-cert"))
	s.Eventually("the topic that no object names is counted", time.Minute, func(context.Context) error {
		if n := s.Cluster().Status.Unmanaged; n == nil || n.Topics != 1 {
			return fmt.Errorf("unmanaged: %+v", n)
		}
		return nil
	})
	if err := s.Client().Get(t.Context(), s.KeyOf("orders-stray"), topicNamed("orders-stray")); !apierrors.IsNotFound(err) {
		t.Errorf("a KafkaTopic for a stray topic: %v", err)
	}
}
