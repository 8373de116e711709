package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/test/e2e/kube/stand"
)

// TestMoreUp tells of the one command that brings operator and cluster, where nothing is yet.
func TestMoreUp(t *testing.T) {
	k := shared.For(t)
	tag := k.Tag("e2e")
	k.LoadCastellan(tag)
	k.Uninstall()
	const namespace = "kube-up"
	// The command's own namespaces would be left behind if it failed.
	t.Cleanup(func() {
		if t.Failed() {
			k.Dump(namespace)
		}
		// The operator's goes last: without it a KafkaCluster is never gone.
		k.KubectlAnyway("delete", "namespace", namespace, "--ignore-not-found")
		k.KubectlAnyway("delete", "namespace", stand.OperatorNamespace, "--ignore-not-found")
	})
	up := []string{
		"up", "--kubernetes", k.Context(), "-n", namespace, "--operator-image", "castellan:" + tag, "--volume-size", "512Mi", "--expose", "NodePort",
	}
	tell(t, &stand.Cluster{Kubernetes: k, Namespace: namespace, Name: "kafka"},
		story{"all that is missing is said at once", func(t *testing.T, c *stand.Cluster) {
			t.Helper()
			missing(t, c, append(up, "--nodes", "1"))
		}},
		story{"up, and again", func(t *testing.T, c *stand.Cluster) {
			t.Helper()
			upTwice(t, c, append(up, "--nodes", "1"))
		}},
		story{"a deadline says what is wrong", func(t *testing.T, c *stand.Cluster) {
			t.Helper()
			deadline(t, c, tag)
		}},
	)
	// Whatever came before: other tests install the operator with Helm, which takes over nothing.
	if out := k.Castellan("down", "--kubernetes", k.Context(), "-n", namespace, "--operator"); out.Code != 0 {
		t.Errorf("castellan down: %s", out)
	}
}

// missing asks for what there is not, as somebody who may only look.
func missing(t *testing.T, c *stand.Cluster, up []string) {
	t.Helper()
	must(t, c.Kubectl("create", "serviceaccount", "looker", "-n", "default"))
	must(t, c.Kubectl("create", "clusterrole", "looker", "--verb=get,list", "--resource=nodes,namespaces,storageclasses,deployments"))
	must(t, c.Kubectl("create", "clusterrolebinding", "looker", "--clusterrole=looker", "--serviceaccount=default:looker"))
	t.Cleanup(func() {
		c.KubectlAnyway("delete", "serviceaccount/looker", "clusterrole/looker", "clusterrolebinding/looker", "-n", "default")
	})
	before := c.MustKubectl("get", everything, "-A", "-o", "name")
	token := strings.TrimSpace(must(t, c.Kubectl("create", "token", "looker", "-n", "default")))
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text, err := os.ReadFile(c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, c.Kubectl("--kubeconfig", file, "config", "set-credentials", "looker", "--token", token))
	must(t, c.Kubectl("--kubeconfig", file, "config", "set-context", c.Context(), "--user", "looker"))

	out := c.Castellan(append(up, "--kubeconfig", file, "--storage-class", "nobody-has-it")...)
	if out.Code == 0 {
		t.Fatalf("up with no rights works: %s", out)
	}
	for _, text := range []string{"nothing was created", "nobody-has-it", "customresourcedefinitions", "deployments", "kafkaclusters"} {
		if !strings.Contains(out.Stderr, text) {
			t.Errorf("up does not say %q: %s", text, out)
		}
	}
	if diff := cmp.Diff(before, c.MustKubectl("get", everything, "-A", "-o", "name")); diff != "" {
		t.Errorf("created for nothing (+):\n%s", diff)
	}
}

// everything that up creates.
const everything = "namespaces,serviceaccounts,customresourcedefinitions,clusterroles,clusterrolebindings,roles,rolebindings," +
	"deployments,services,validatingwebhookconfigurations,poddisruptionbudgets"

func upTwice(t *testing.T, c *stand.Cluster, up []string) {
	t.Helper()
	properties := filepath.Join(t.TempDir(), "client.properties")
	up = append(up, "--client-properties", properties)
	began := time.Now()
	out := c.CastellanOutside(6*time.Minute, up...)
	if out.Code != 0 {
		t.Fatal(out)
	}
	t.Logf("castellan up of one node, with the operator: %s\n%s", time.Since(began).Round(time.Second), out.Stdout)
	if !strings.Contains(out.Stdout, "is ready") || !strings.Contains(out.Stdout, "bootstrap servers") {
		t.Errorf("up does not say where Kafka is: %s", out)
	}
	text, err := os.ReadFile(properties)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "bootstrap.servers=10.88.0.") {
		t.Errorf("client.properties holds %q, want an address of the machines", text)
	}
	again := c.CastellanOutside(3*time.Minute, up...)
	if again.Code != 0 || !strings.Contains(again.Stdout, "Nothing was changed") {
		t.Errorf("up again: %s", again)
	}
}

func deadline(t *testing.T, c *stand.Cluster, tag string) {
	t.Helper()
	const namespace = "kube-up-late"
	t.Cleanup(func() { c.KubectlAnyway("delete", "namespace", namespace, "--ignore-not-found") })
	out := c.Castellan("up", "--kubernetes", c.Context(), "-n", namespace, "--nodes", "1", "--volume-size", "512Mi",
		"--operator-image", "castellan:"+tag, "--image", "apache/kafka:nobody-has-it", "--timeout", "1m")
	if out.Code == 0 {
		t.Fatalf("up with an image that nobody has works: %s", out)
	}
	for _, text := range []string{"apache/kafka:nobody-has-it", "is not Ready after 1m0s", "pod kafka-0-0"} {
		if !strings.Contains(out.Stderr, text) {
			t.Errorf("up does not say %q: %s", text, out)
		}
	}
}
