package e2e

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
	"castellan.dev/castellan/test/e2e/stand"
)

// Main classes of Kafka's own tools.
const (
	consumerTool = "org.apache.kafka.tools.consumer.ConsoleConsumer"
	producerTool = "org.apache.kafka.tools.ConsoleProducer"
	topicsTool   = "org.apache.kafka.tools.TopicCommand"
	aclsTool     = "org.apache.kafka.tools.AclCommand"
	configsTool  = "kafka.admin.ConfigCommand"
)

// identity is a client that proves in one way who it is. Whatever is secret of it is in files of mode 0600, and in no
// argument.
type identity struct {
	s *stand.Stand
	// name of its KafkaUser, and the listener that it uses.
	name, listener string
	// kcat and java are the files with its properties.
	kcat, java string
	// jvm are further options of Java.
	jvm []string
}

// runKcat runs kcat as this client.
func (i identity) runKcat(stdin string, args ...string) stand.Output {
	return i.s.TryKcat(strings.NewReader(stdin), append([]string{"-F", i.kcat, "-X", "socket.timeout.ms=10000"}, args...)...)
}

// tool runs one of Kafka's own tools as this client.
func (i identity) tool(stdin, class string, args ...string) stand.Output {
	// The file has the servers too, but the tools want them as a flag.
	own := []string{"--bootstrap-server", i.s.Bootstrap(i.listener), "--command-config", i.java}
	return i.s.TryKafkaTool(version, i.jvm, strings.NewReader(stdin), class, append(own, args...)...)
}

// reads is the first record of a topic as kcat reads it.
func (i identity) reads(topic string) stand.Output {
	return i.runKcat("", "-C", "-t", topic, "-o", "beginning", "-c", "1")
}

func secretOf(t *testing.T, s *stand.Stand, name string) map[string][]byte {
	t.Helper()
	var secret corev1.Secret
	if err := s.Client().Get(t.Context(), s.KeyOf(name), &secret); err != nil {
		t.Fatal(err)
	}
	return secret.Data
}

// kcatFile writes properties as librdkafka has them.
func kcatFile(t *testing.T, folder string, properties map[string]string) string {
	t.Helper()
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&text, "%s=%s\n", key, properties[key])
	}
	file := filepath.Join(folder, "kcat.conf")
	writePrivate(t, file, []byte(text.String()))
	return file
}

func javaFile(t *testing.T, folder string, properties map[string]string) string {
	t.Helper()
	file := filepath.Join(folder, "client.properties")
	writePrivate(t, file, kconf.Write(properties))
	return file
}

// withCertificate is a client with what the Secret of a user with MutualTLS holds.
func withCertificate(t *testing.T, s *stand.Stand, name string) identity {
	t.Helper()
	folder, data := t.TempDir(), secretOf(t, s, name)
	i := identity{s: s, name: name, listener: "certs", java: filepath.Join(folder, "client.properties")}
	for _, key := range []string{"ca.crt", "user.crt", "user.key", "user.p12", "client.properties"} {
		writePrivate(t, filepath.Join(folder, key), data[key])
	}
	i.kcat = kcatFile(t, folder, map[string]string{
		"bootstrap.servers": string(data["bootstrap.servers"]), "security.protocol": "SSL", "ssl.ca.location": filepath.Join(folder, "ca.crt"),
		"ssl.certificate.location": filepath.Join(folder, "user.crt"), "ssl.key.location": filepath.Join(folder, "user.key"),
	})
	return i
}

// withPKCS12 is the same with the PKCS #12 in place of PEM, for both clients.
func withPKCS12(t *testing.T, s *stand.Stand, name string) identity {
	t.Helper()
	i := withCertificate(t, s, name)
	folder, data := filepath.Dir(i.kcat), secretOf(t, s, name)
	i.kcat = kcatFile(t, folder, map[string]string{
		"bootstrap.servers": string(data["bootstrap.servers"]), "security.protocol": "SSL", "ssl.ca.location": filepath.Join(folder, "ca.crt"),
		"ssl.keystore.location": filepath.Join(folder, "user.p12"), "ssl.keystore.password": string(data["user.password"]),
	})
	i.java = javaFile(t, folder, map[string]string{
		"security.protocol": "SSL", "ssl.truststore.type": "PEM", "ssl.truststore.location": filepath.Join(folder, "ca.crt"),
		"ssl.keystore.type": "PKCS12", "ssl.keystore.location": filepath.Join(folder, "user.p12"), "ssl.keystore.password": string(data["user.password"]),
	})
	return i
}

// withPassword is a client with what the Secret of a user with ScramSha512 holds.
func withPassword(t *testing.T, s *stand.Stand, name string) identity {
	t.Helper()
	folder, data := t.TempDir(), secretOf(t, s, name)
	i := identity{s: s, name: name, listener: "scram", java: filepath.Join(folder, "client.properties")}
	writePrivate(t, i.java, data["client.properties"])
	writePrivate(t, filepath.Join(folder, "ca.crt"), data["ca.crt"])
	i.kcat = kcatFile(t, folder, map[string]string{
		"bootstrap.servers": string(data["bootstrap.servers"]), "security.protocol": "SASL_SSL", "ssl.ca.location": filepath.Join(folder, "ca.crt"),
		"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": string(data["username"]), "sasl.password": string(data["password"]),
	})
	return i
}

// following is a kcat that reads a topic on and on.
type following struct {
	ended  chan time.Time
	stderr strings.Builder
}

// follow starts one, and returns once it has read a record.
func (i identity) follow(t *testing.T, topic string) *following {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "env", append(stand.KcatCommand(t), "-F", i.kcat, "-u", "-C", "-t", topic, "-o", "beginning")...)
	f := &following{ended: make(chan time.Time, 1)}
	cmd.Stderr = &f.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("kcat of %s reads nothing of %s: %v\n%s", i.name, topic, cmd.Wait(), &f.stderr)
	}
	go func() {
		for lines.Scan() {
			continue
		}
		_ = cmd.Wait() // its words are looked at
		f.ended <- time.Now()
	}()
	return f
}

// nowInForce waits until what the newest spec of a topic or user says is in force, and read back.
func nowInForce(t *testing.T, s *stand.Stand, objects ...client.Object) {
	t.Helper()
	c := s.Client()
	for _, o := range objects {
		s.Eventually(fmt.Sprintf("%T %s is in force", o, o.GetName()), time.Minute, func(ctx context.Context) error {
			if err := c.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
				return fmt.Errorf("read it: %w", err)
			}
			ready := readyOf(o)
			if ready == nil || ready.ObservedGeneration != o.GetGeneration() || ready.Status != metav1.ConditionTrue {
				return fmt.Errorf("generation %d, %+v", o.GetGeneration(), ready)
			}
			return nil
		})
	}
}

func readyOf(o client.Object) *metav1.Condition {
	switch o := o.(type) {
	case *api.KafkaTopic:
		return meta.FindStatusCondition(o.Status.Conditions, api.ConditionReady)
	case *api.KafkaUser:
		return meta.FindStatusCondition(o.Status.Conditions, api.ConditionReady)
	}
	return nil
}

func topicNamed(name string) *api.KafkaTopic {
	return &api.KafkaTopic{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
}

func userNamed(name string) *api.KafkaUser {
	return &api.KafkaUser{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
}

// changed makes a merge patch of an object.
func changed(t *testing.T, s *stand.Stand, o client.Object, patch string) {
	t.Helper()
	if err := s.Client().Patch(t.Context(), o, client.RawPatch("application/merge-patch+json", []byte(patch))); err != nil {
		t.Fatalf("change %T %s: %v", o, o.GetName(), err)
	}
}

// works and refuses judge what a client was told.
func works(t *testing.T, what string, out stand.Output, says string) {
	t.Helper()
	if out.Code != 0 || !strings.Contains(out.Stdout, says) {
		t.Errorf("%s: want it to work and to print %q: %s", what, says, out)
	}
}

func refuses(t *testing.T, what string, out stand.Output, says string) {
	t.Helper()
	if !strings.Contains(strings.ToLower(out.Stdout+out.Stderr), strings.ToLower(says)) {
		t.Errorf("%s: want it refused with %q: %s", what, says, out)
	}
}
