package entities_test

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"software.sslmate.com/src/go-pkcs12"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/pki"
)

// TestEntities is one story, since a control plane takes seconds to start.
func TestEntities(t *testing.T) {
	y := newYard(t)
	y.start()
	y.withoutCluster()
	y.orders()
	y.topics()
	y.adoption()
	y.conflict()
	y.namespaces()
	y.scram()
	y.givenPassword()
	y.mutualTLS()
	y.foreignSecret()
	y.replicas()
	y.restartedAfterHold()
	y.pruned()
	y.quiet()
	y.restartedQuietly()
	y.clusterGone()
}

func (y *yard) withoutCluster() {
	early := topic(home, "early")
	y.create(early)
	y.is(early, metav1.ConditionFalse, "ClusterNotFound", "There is no KafkaCluster orders in namespace kafka")
	y.remove(early)
}

// topics are created, changed, put back, and stay or go with their object.
func (y *yard) topics() {
	a := topic(home, "a")
	a.Spec.Config = api.Config{"retention.ms": "1000"}
	y.create(a)
	y.is(a, metav1.ConditionTrue, "InForce", "")
	if s := a.Status; s.TopicName != "a" || s.Partitions != 2 || s.Replicas != 1 || s.TopicID == "" {
		y.t.Errorf("status %+v", s)
	}
	if got := y.has("retention.ms").Topics["a"]; got == nil || got.Partitions != 2 || got.Config["retention.ms"] != "1000" {
		y.t.Errorf("in Kafka %+v", got)
	}
	if !slices.Contains(a.Finalizers, api.HoldFinalizer) || !strings.HasPrefix(a.Annotations[api.HoldAnnotation], string(a.UID)) {
		y.t.Errorf("no hold: %v %v", a.Finalizers, a.Annotations)
	}
	change(y, a, func(a *api.KafkaTopic) { a.Spec.Partitions = new(int32(3)); a.Spec.Config["segment.ms"] = "5" })
	y.is(a, metav1.ConditionTrue, "InForce", "")
	if a.Status.Partitions != 3 {
		y.t.Errorf("status %+v", a.Status)
	}
	y.outside(core.AlterConfig{Topic: "a", Set: map[string]string{"retention.ms": "7", "flush.ms": "9"}})
	y.eventually("what somebody else changed is put back, and what is not ours left alone", func() error {
		if c := y.has("retention.ms", "flush.ms").Topics["a"].Config; c["retention.ms"] != "1000" || c["flush.ms"] != "9" {
			return fmt.Errorf("%v", c)
		}
		return nil
	})
	y.outside(core.DeleteTopic{Name: "a"})
	y.eventually("what somebody else deleted is made again", func() error {
		if y.has().Topics["a"] == nil {
			return errors.New("still gone")
		}
		return nil
	})
	y.remove(a)
	y.gone(a)
	if y.has().Topics["a"] == nil {
		y.t.Error("deleted in Kafka although the policy is Retain")
	}
	b := topic(home, "b")
	b.Spec.DeletionPolicy = api.DeletionDelete
	y.create(b)
	y.is(b, metav1.ConditionTrue, "InForce", "")
	y.remove(b)
	y.gone(b)
	if y.has().Topics["b"] != nil {
		y.t.Error("the object is gone and its topic still there")
	}
}

func (y *yard) gone(o client.Object) {
	y.t.Helper()
	y.eventually(o.GetName()+" is gone", func() error {
		if err := y.c.Get(y.t.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			return fmt.Errorf("finalizers %v, %w", o.GetFinalizers(), err)
		}
		return nil
	})
}

func (y *yard) adoption() {
	y.outside(core.CreateTopic{Name: "old", Partitions: 4, Replicas: 1, Config: map[string]string{"retention.ms": "5"}})
	o := topic(home, "old")
	o.Spec.Partitions = nil
	y.create(o)
	y.is(o, metav1.ConditionFalse, "TopicExists", "set spec.adopt")
	change(y, o, func(o *api.KafkaTopic) { o.Spec.Adopt = true })
	y.is(o, metav1.ConditionTrue, "InForce", "")
	if got := y.has("retention.ms").Topics["old"]; got.Partitions != 4 || got.Config["retention.ms"] != "5" {
		y.t.Errorf("adopted as %+v", got)
	}
}

func (y *yard) conflict() {
	one, two := topic(home, "one"), topic(home, "two")
	one.Spec.TopicName, two.Spec.TopicName = "same", "same"
	y.create(one)
	y.is(one, metav1.ConditionTrue, "InForce", "")
	y.create(two)
	y.is(two, metav1.ConditionFalse, "Conflict", "belongs to KafkaTopic kafka/one")
	y.is(one, metav1.ConditionTrue, "InForce", "Not in force beside it")
	y.remove(one)
	y.gone(one)
	y.is(two, metav1.ConditionFalse, "TopicExists", "") // the topic was retained
	y.remove(two)
	y.gone(two)
}

// namespaces are allowed by the cluster.
func (y *yard) namespaces() {
	a := topic("team", "theirs")
	y.create(a)
	y.is(a, metav1.ConditionFalse, "NamespaceNotAllowed", "spec.allowedNamespaces")
	y.cluster(func(kc *api.KafkaCluster) {
		kc.Spec.AllowedNamespaces = api.AllowedNamespaces{From: api.NamespacesSelector, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"kafka": "yes"}}}
	})
	y.is(a, metav1.ConditionTrue, "InForce", "")
	change(y, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}, func(n *corev1.Namespace) { n.Labels["kafka"] = "no" })
	y.is(a, metav1.ConditionFalse, "NamespaceNotAllowed", "")
	if y.has().Topics["theirs"] == nil {
		y.t.Error("the topic went with its namespace's label")
	}
	change(y, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}, func(n *corev1.Namespace) { n.Labels["kafka"] = "yes" })
	y.is(a, metav1.ConditionTrue, "InForce", "")
}

func (y *yard) cluster(what func(*api.KafkaCluster)) {
	y.t.Helper()
	change(y, &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "orders"}}, what)
}

func (y *yard) secretOf(namespace, name string) *corev1.Secret {
	y.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	y.get(s)
	return s
}

// scram is a user with a generated password, in a namespace of its own.
func (y *yard) scram() {
	u := user("team", "billing", api.UserScramSha512)
	y.create(u)
	y.is(u, metav1.ConditionTrue, "InForce", "")
	if u.Status.VerifiedAt == nil || u.Status.Principal != "User:billing" || len(u.Status.ACLs) != 2 || u.Status.SecretName != "billing" {
		y.t.Errorf("status %+v", u.Status)
	}
	p := y.has().Principals["billing"]
	if p == nil || len(p.Grants) != 4 || p.Scram512 == 0 {
		y.t.Fatalf("in Kafka %+v", p)
	}
	s := y.secretOf("team", "billing")
	password := string(s.Data["password"])
	if len(password) < 20 || string(s.Data["bootstrap.servers"]) != "a.example:9094" || !strings.Contains(string(s.Data["sasl.jaas.config"]), `username="billing" password="`+password+`"`) {
		y.t.Errorf("Secret has %v", keysOf(s))
	}
	for _, line := range []string{"security.protocol=SASL_SSL\n", "sasl.mechanism=SCRAM-SHA-512\n", "bootstrap.servers=a.example\\:9094\n", "ssl.truststore.certificates=the CA\n"} {
		if !strings.Contains(strings.ReplaceAll(string(s.Data["client.properties"]), "a.example:9094", `a.example\:9094`), line) {
			y.t.Errorf("client.properties lacks %q", line)
		}
	}
	y.opaque(u, password)

	change(y, u, func(u *api.KafkaUser) { u.Spec.Authentication.Rotation = "now" })
	y.is(u, metav1.ConditionTrue, "InForce", "")
	if again := y.secretOf("team", "billing"); string(again.Data["password"]) == password {
		y.t.Error("not rotated")
	}
	if is := y.has().Principals["billing"].Scram512; is == p.Scram512 {
		y.t.Error("Kafka has the old password")
	}
	change(y, u, func(u *api.KafkaUser) { u.Spec.Presets = nil })
	y.is(u, metav1.ConditionTrue, "InForce", "")
	if got := y.has().Principals["billing"].Grants; len(got) > 0 {
		y.t.Errorf("grants are left: %v", got)
	}
	y.remove(u)
	y.gone(u)
	if got := y.has().Principals["billing"]; got != nil {
		y.t.Errorf("left in Kafka: %+v", got)
	}
}

// opaque: nothing of an object tells its password, not even a hash to try against.
func (y *yard) opaque(u *api.KafkaUser, password string) {
	y.t.Helper()
	hold := u.Annotations[api.HoldAnnotation]
	sum := sha256.Sum256([]byte(password))
	if !strings.Contains(hold, "scram=") || strings.Contains(hold, password) || strings.Contains(hold, hex.EncodeToString(sum[:8])) {
		y.t.Errorf("hold %q", hold)
	}
}

func keysOf(s *corev1.Secret) []string {
	var out []string
	for k := range s.Data {
		out = append(out, k)
	}
	return out
}

// givenPassword: the Secret comes after the user, has faults, and changes.
func (y *yard) givenPassword() {
	u := user(home, "given", api.UserScramSha512)
	u.Spec.Authentication.SecretName = "given-credentials"
	u.Spec.Authentication.ScramSha512 = &api.ScramAuthentication{Password: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "pw"}, Key: "p"}}
	y.create(u)
	y.is(u, metav1.ConditionFalse, "NoPassword", "Secret kafka/pw with the password is not there: create it, with key p.")
	pw := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "pw"}, Data: map[string][]byte{"q": []byte("x")}}
	y.create(pw)
	y.is(u, metav1.ConditionFalse, "NoPassword", "has no key p")
	change(y, pw, func(s *corev1.Secret) { s.Data["p"] = []byte("geheim\n") })
	y.is(u, metav1.ConditionFalse, "NoPassword", "line break")
	change(y, pw, func(s *corev1.Secret) { s.Data["p"] = []byte(`ge"heim`) })
	y.is(u, metav1.ConditionTrue, "InForce", "")
	was := y.has().Principals["given"].Scram512
	if s := y.secretOf(home, "given-credentials"); string(s.Data["password"]) != `ge"heim` || !strings.Contains(string(s.Data["sasl.jaas.config"]), `password="ge\"heim";`) {
		y.t.Errorf("Secret %s", s.Data["sasl.jaas.config"])
	}
	change(y, pw, func(s *corev1.Secret) { s.Data["p"] = []byte("anders") })
	y.eventually("the other password is in force", func() error {
		if is := y.has().Principals["given"].Scram512; is == was {
			return errors.New("still the old one")
		}
		return nil
	})
	y.remove(u)
	y.gone(u)
}

func (y *yard) mutualTLS() {
	u := user("team", "shipping", api.UserMutualTLS)
	y.create(u)
	y.is(u, metav1.ConditionTrue, "InForce", "")
	s := y.secretOf("team", "shipping")
	pair, err := tls.X509KeyPair(s.Data["user.crt"], s.Data["user.key"])
	if err != nil || pair.Leaf.Subject.String() != "CN=shipping" {
		y.t.Fatalf("certificate %v, %v", pair.Leaf, err)
	}
	key, cert, err := pkcs12.Decode(s.Data["user.p12"], string(s.Data["user.password"]))
	if err != nil || key == nil || !cert.Equal(pair.Leaf) {
		y.t.Errorf("PKCS #12: %v", err)
	}
	for _, part := range []string{"security.protocol=SSL\n", "ssl.keystore.type=PEM\n", "ssl.truststore.certificates=the CA\n"} {
		if !strings.Contains(string(s.Data["client.properties"]), part) {
			y.t.Errorf("client.properties lacks %q", part)
		}
	}
	change(y, u, func(u *api.KafkaUser) { u.Spec.Authentication.Rotation = "2" })
	y.eventually("another certificate is issued", func() error {
		if string(y.secretOf("team", "shipping").Data["user.crt"]) == string(s.Data["user.crt"]) {
			return errors.New("still the old one")
		}
		return nil
	})
	y.is(u, metav1.ConditionTrue, "InForce", "")
	y.anotherCA()
	change(y, u, func(u *api.KafkaUser) { u.Spec.Authentication = api.UserAuthentication{Type: api.UserScramSha512} })
	y.is(u, metav1.ConditionTrue, "InForce", "")
	if s := y.secretOf("team", "shipping"); len(s.Data["user.key"]) > 0 || len(s.Data["password"]) == 0 {
		y.t.Errorf("after the switch to SCRAM the Secret has %v", keysOf(s))
	}
}

// foreignSecret is never overwritten.
// anotherCA signs from now on: users get certificates of it, and it is noted since when.
func (y *yard) anotherCA() {
	before := y.secretOf("team", "shipping")
	ca, err := pki.NewCA("another", time.Now())
	if err != nil {
		y.t.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		y.t.Fatal(err)
	}
	signs := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "orders-clients-ca"}}
	change(y, signs, func(s *corev1.Secret) {
		s.Data = map[string][]byte{"ca.crt": slices.Concat(ca.TrustPEM(), s.Data["ca.crt"]), "ca.key": key}
	})
	y.eventually("the certificate is of the other CA", func() error {
		s := y.secretOf("team", "shipping")
		leaf, err := pki.Pair{Chain: s.Data["user.crt"]}.Leaf()
		if err != nil || !ca.Signed(leaf) {
			return fmt.Errorf("it is not, %w", err)
		}
		given, err := time.Parse(time.RFC3339Nano, s.Annotations[pki.CertificateGiven])
		if err != nil || time.Since(given) > time.Minute || s.Annotations[pki.CertificateGiven] == before.Annotations[pki.CertificateGiven] {
			y.t.Errorf("given at %q, before at %q", s.Annotations[pki.CertificateGiven], before.Annotations[pki.CertificateGiven])
		}
		if s.Annotations[pki.TrustGiven] != before.Annotations[pki.TrustGiven] || before.Annotations[pki.TrustGiven] == "" {
			y.t.Errorf("trust given at %q, before at %q", s.Annotations[pki.TrustGiven], before.Annotations[pki.TrustGiven])
		}
		return nil
	})
}

func (y *yard) foreignSecret() {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "mine"}, Data: map[string][]byte{"x": []byte("y")}}
	y.create(s)
	u := user(home, "mine", api.UserScramSha512)
	y.create(u)
	y.is(u, metav1.ConditionFalse, "NoPassword", "There is a Secret kafka/mine already that is not this object's")
	if s := y.secretOf(home, "mine"); len(s.Data) != 1 || string(s.Data["x"]) != "y" {
		y.t.Errorf("overwritten: %v", keysOf(s))
	}
	y.remove(u)
	y.gone(u)
}

// replicas are the balancer's to change.
func (y *yard) replicas() {
	a := topic(home, "spread")
	y.create(a)
	y.is(a, metav1.ConditionTrue, "InForce", "")
	change(y, a, func(a *api.KafkaTopic) { a.Spec.Replicas = new(int32(3)) })
	y.is(a, metav1.ConditionFalse, "ChangingReplicas", "")
	var ops api.OperationList
	y.eventually("there is an Operation", func() error {
		if err := y.c.List(y.t.Context(), &ops, client.InNamespace(home)); err != nil || len(ops.Items) != 1 {
			return fmt.Errorf("%d of them, %w", len(ops.Items), err)
		}
		return nil
	})
	r := ops.Items[0].Spec.Rebalance
	if r == nil || r.Mode != api.RebalanceReplicationFactor || *r.ReplicationFactor != 3 || !slices.Equal(r.Topics, []string{"spread"}) {
		y.t.Errorf("Operation %+v", ops.Items[0].Spec)
	}
	change(y, a, func(a *api.KafkaTopic) { a.Spec.Replicas = new(int32(1)) })
	y.is(a, metav1.ConditionTrue, "InForce", "")
	change(y, a, func(a *api.KafkaTopic) { a.Spec.Replicas = new(int32(9)) })
	y.is(a, metav1.ConditionFalse, "TooFewBrokers", "3 brokers")
	y.remove(a)
	y.gone(a)
}

// restartedAfterHold: what was held and not done is done by whoever comes next.
func (y *yard) restartedAfterHold() {
	y.mu.Lock()
	y.unreachable = errors.New("the test took Kafka away")
	y.mu.Unlock()
	a := topic(home, "between")
	y.create(a)
	y.eventually("it is held", func() error {
		if y.get(a); !slices.Contains(a.Finalizers, api.HoldFinalizer) {
			return fmt.Errorf("finalizers %v", a.Finalizers)
		}
		return nil
	})
	y.stop()
	y.mu.Lock()
	y.unreachable = nil
	y.mu.Unlock()
	if y.has().Topics["between"] != nil {
		y.t.Fatal("it is there already: nothing is tested")
	}
	// It was made after all, says Kafka: that is ours, since we hold it.
	y.outside(core.CreateTopic{Name: "between", Partitions: 2, Replicas: 1})
	y.start()
	y.is(a, metav1.ConditionTrue, "InForce", "")
}

// pruned is what no object names, but for what is to be kept.
func (y *yard) pruned() {
	grant := core.Grant{Type: api.ACLTopic, Name: "x", Pattern: api.ACLLiteral, Operation: api.ACLRead, Effect: api.ACLAllow, Host: "*"}
	y.outside(
		core.CreateTopic{Name: "stray", Partitions: 1, Replicas: 1}, core.CreateTopic{Name: "keep-me", Partitions: 1, Replicas: 1},
		core.CreateGrant{Principal: "stranger", Grant: grant}, core.CreateGrant{Principal: "castellan-operator", Grant: grant})
	y.eventually("it is counted", func() error {
		kc := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "orders"}}
		y.get(kc)
		if u := kc.Status.Unmanaged; u == nil || u.ACLs != 1 || u.Topics < 2 {
			return fmt.Errorf("%+v", u)
		}
		return nil
	})
	y.cluster(func(kc *api.KafkaCluster) {
		kc.Spec.Prune, kc.Spec.PruneKeep = true, []string{"keep-*"}
		kc.Spec.Quotas = []api.ClusterQuota{{Address: "10.0.0.1", ConnectionCreationRate: new(int32(7))}}
	})
	y.eventually("it is removed", func() error {
		s := y.has()
		if s.Topics["stray"] != nil || s.Principals["stranger"] != nil || len(s.Quotas) != 1 {
			return fmt.Errorf("%v %v %v", s.Topics["stray"], s.Principals["stranger"], s.Quotas)
		}
		if s.Topics["keep-me"] == nil || s.Principals["castellan-operator"] == nil || s.Topics["between"] == nil {
			y.t.Fatalf("removed too much: %v", s.Topics)
		}
		return nil
	})
	y.eventually("the cluster says so", func() error {
		kc := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "orders"}}
		y.get(kc)
		c := meta.FindStatusCondition(kc.Status.Conditions, api.ConditionEntities)
		if c == nil || c.Status != metav1.ConditionTrue || kc.Status.Unmanaged == nil || kc.Status.Unmanaged.Topics != 1 {
			return fmt.Errorf("%+v %+v", c, kc.Status.Unmanaged)
		}
		return nil
	})
}

// readings counts how often Kafka was read as a whole.
func (y *yard) readings() int {
	n := 0
	for key, count := range y.fake.Requests() {
		if key.Name() == "DescribeACLs" { // one in each
			n += count
		}
	}
	return n
}

// restartedQuietly: another operator finds everything as it was told, and writes nothing; but what was changed meanwhile
// it puts back, and says so.
func (y *yard) restartedQuietly() {
	readings := y.readings
	a := topic(home, "put-back")
	a.Spec.Config = api.Config{"retention.ms": "1000"}
	y.create(a)
	y.is(a, metav1.ConditionTrue, "InForce", "")
	restart := func(meanwhile ...core.Action) []string {
		y.stop()
		y.outside(meanwhile...)
		writes, from := len(y.written()), readings()
		y.start()
		y.eventually("Kafka is read again", func() error {
			if n := readings(); n < from+4 {
				return fmt.Errorf("%d readings", n-from)
			}
			return nil
		})
		return y.written()[writes:]
	}
	if wrote := restart(); len(wrote) > 0 {
		y.t.Errorf("another operator wrote although nothing had changed: %v", wrote)
	}
	restart(core.AlterConfig{Topic: "put-back", Set: map[string]string{"retention.ms": "7"}})
	if got := y.has("retention.ms").Topics["put-back"]; got.Config["retention.ms"] != "1000" {
		y.t.Errorf("what was changed meanwhile is not put back: %+v", got)
	}
	y.eventually("an event says what was put back", func() error {
		var list eventsv1.EventList
		if err := y.c.List(y.t.Context(), &list, client.InNamespace(home)); err != nil {
			return err
		}
		if !slices.ContainsFunc(list.Items, func(e eventsv1.Event) bool { return e.Reason == "PutBack" && e.Regarding.Name == "put-back" }) {
			return fmt.Errorf("none of %d events", len(list.Items))
		}
		return nil
	})
}

// quiet: where nothing changes nothing is written, and Kafka is asked a bounded number of times.
func (y *yard) quiet() {
	reads := y.readings
	all := func() int {
		n := 0
		for _, count := range y.fake.Requests() {
			n += count
		}
		return n
	}
	settled := reads()
	y.eventually("it has settled", func() error {
		if n := reads(); n < settled+2 {
			return fmt.Errorf("%d readings", n-settled)
		}
		return nil
	})
	writes, from, asked := len(y.written()), reads(), all()
	y.eventually("Kafka is read again", func() error {
		if n := reads(); n < from+5 {
			return fmt.Errorf("%d readings", n-from)
		}
		return nil
	})
	if after := y.written(); len(after) > writes {
		y.t.Errorf("written although nothing changed: %v", after[writes:])
	}
	if each := float64(all()-asked) / float64(reads()-from); each > 10 {
		y.t.Errorf("%.1f requests for each reading, of which there is one a minute: %v", each, y.fake.Requests())
	}
}

// clusterGone lets objects go that only Kafka could have let go.
func (y *yard) clusterGone() {
	a, u := topic(home, "between"), user("team", "shipping", api.UserScramSha512)
	y.remove(&api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: "orders"}})
	y.is(a, metav1.ConditionFalse, "ClusterNotFound", "")
	y.remove(a)
	y.remove(u)
	y.gone(a)
	y.gone(u)
}
