package kube

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/test/e2e/kube/stand"
	hosts "castellan.dev/castellan/test/e2e/stand"
)

// TestKube tells what a user of Helm and kubectl meets, from nothing on, on one cluster of three nodes.
func TestKube(t *testing.T) {
	k := shared.For(t)
	k.Operator()
	c := k.Cluster(example(t, k, "kube-orders"))
	tell(t, c,
		story{"tables say what runs", tables},
		story{"pods are restricted and hold no token", restricted},
		story{"100,000 records from a pod and from outside", hundredThousand},
		story{"the effective configuration is that of a host", parity},
		story{"the command line needs no tools of Kafka", commandLine},
		story{"every object passes a dry run", dryRun},
		story{"what is deleted or edited comes back", drift},
		story{"a pod deleted and a container out of memory", podsEnd},
		story{"no operator runs", withoutOperator},
		story{"machines are drained", drain},
		story{"a change rolls though the leader is killed", rollWithoutLeader},
		story{"one node's override is bad", badOverride},
		story{"a new build of the operator", newOperator},
		story{"a machine loses its power for good", powerOff},
	)
}

// example is what the README tells a user to apply, with the sizes of a test.
func example(t *testing.T, k *stand.Kubernetes, namespace string) *api.KafkaCluster {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(k.Root(), "examples", "kubernetes", "three-brokers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	must(t, k.Kubectl("apply", "--dry-run=server", "-n", "default", "-f", filepath.Join(k.Root(), "examples", "kubernetes", "three-brokers.yaml")))
	var c api.KafkaCluster
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		t.Fatal(err)
	}
	c.Namespace = namespace
	for i, p := range c.Spec.Pools {
		c.Spec.Pools[i] = stand.Shrink(p)
	}
	return &c
}

// must is for a command that has to work; it returns its standard output.
func must(t *testing.T, out stand.Output) string {
	t.Helper()
	if out.Code != 0 {
		t.Fatal(out)
	}
	return out.Stdout
}

func tables(t *testing.T, c *stand.Cluster) {
	t.Helper()
	must(t, c.Kubectl("wait", "kafkacluster/"+c.Name, "-n", c.Namespace, "--for=condition=Ready", "--timeout=10s"))
	clusters := table(t, must(t, c.Kubectl("get", "kafkaclusters", "-n", c.Namespace)))
	want := map[string]string{"NAME": "orders", "VERSION": stand.Version, "READY": "True", "NODES": "3", "DESIRED": "3"}
	for column, value := range want {
		if len(clusters) != 1 || clusters[0][column] != value {
			t.Errorf("kubectl get kafkaclusters shows %v, want %s in %s", clusters, value, column)
		}
	}
	nodes := table(t, must(t, c.Kubectl("get", "kafkanodes", "-n", c.Namespace, "-o", "wide")))
	var racks, machines []string
	for id, row := range nodes {
		want := map[string]string{
			"NAME": fmt.Sprintf("orders-%d", id), "CLUSTER": "orders", "ID": fmt.Sprint(id), "ROLES": "combined", "VERSION": stand.Version, "STATE": "Running", "READY": "true",
		}
		for column, value := range want {
			if row[column] != value {
				t.Errorf("kubectl get kafkanodes shows %v, want %s in %s", row, value, column)
			}
		}
		racks, machines = append(racks, row["RACK"]), append(machines, row["NODE"])
	}
	slices.Sort(racks)
	if diff := cmp.Diff([]string{"a", "b", "c"}, racks); diff != "" {
		t.Errorf("not one node in each zone (- want, + got):\n%s", diff)
	}
	if slices.Sort(machines); len(slices.Compact(machines)) != 3 {
		t.Errorf("nodes share machines: %v", machines)
	}
}

// table reads what kubectl prints by the columns of its head, so that an empty cell is one.
func table(t *testing.T, text string) []map[string]string {
	t.Helper()
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	type column struct {
		name string
		at   int
	}
	var columns []column
	for name := range strings.FieldsSeq(lines[0]) {
		from := 0
		if n := len(columns); n > 0 {
			from = columns[n-1].at + len(columns[n-1].name)
		}
		columns = append(columns, column{name, from + strings.Index(lines[0][from:], name)})
	}
	var rows []map[string]string
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, c := range columns {
			end := len(line)
			if i+1 < len(columns) {
				end = min(end, columns[i+1].at)
			}
			if c.at < end {
				row[c.name] = strings.TrimSpace(line[c.at:end])
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func restricted(t *testing.T, c *stand.Cluster) {
	t.Helper()
	for _, n := range c.Nodes() {
		id := n.Spec.NodeID
		if out := c.TryExec(id, "ls", "/var/run/secrets"); out.Code == 0 {
			t.Errorf("node %d has something in /var/run/secrets: %s", id, out.Stdout)
		}
		if out := c.TryExec(id, "touch", "/opt/kafka/x"); out.Code == 0 || !strings.Contains(out.Stderr, "Read-only file system") {
			t.Errorf("node %d can write where its image is: %s", id, out)
		}
		if user := strings.TrimSpace(c.Exec(id, "id", "-u")); user != "1000" {
			t.Errorf("node %d runs as user %s", id, user)
		}
		spec := c.Pod(id).Spec
		if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
			t.Errorf("node %d may get a token", id)
		}
		if slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Projected != nil }) {
			t.Errorf("node %d has a projected volume", id)
		}
	}
}

// toolsPod runs in the namespace of a cluster and has Kafka's own tools.
func toolsPod(t *testing.T, c *stand.Cluster) (run func(stdin, class string, args ...string) string) {
	t.Helper()
	pod := fmt.Sprintf(`{
  "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tools", "namespace": %q},
  "spec": {
    "securityContext": {"runAsUser": 1000, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
    "terminationGracePeriodSeconds": 0,
    "containers": [{
      "name": "tools", "image": "apache/kafka:%s", "command": ["tail", "-f", "/dev/null"], "resources": {"requests": {"cpu": "500m"}},
      "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}
    }]
  }
}`, c.Namespace, stand.Version)
	must(t, c.KubectlIn(pod, "apply", "-f", "-"))
	must(t, c.Kubectl("wait", "pod/tools", "-n", c.Namespace, "--for=condition=Ready", "--timeout=60s"))
	t.Cleanup(func() { must(t, c.KubectlAnyway("delete", "pod", "tools", "-n", c.Namespace, "--wait=false")) })
	return func(stdin, class string, args ...string) string {
		t.Helper()
		script := `set -f; exec java -Xmx256m -XX:TieredStopAtLevel=1 -cp '/opt/kafka/libs/*' "$@"`
		return must(t, c.KubectlIn(stdin, append([]string{"exec", "-i", "-n", c.Namespace, "tools", "--", "sh", "-c", script, "java", class}, args...)...))
	}
}

const (
	manyTopic = "many"
	many      = 100_000
)

func hundredThousand(t *testing.T, c *stand.Cluster) {
	t.Helper()
	run := toolsPod(t, c)
	service := corekube.BootstrapService(c.Name) + ":9092"
	run("", "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", service, "--create", "--topic", "from-pod", "--partitions", "6", "--replication-factor", "3")
	var lines strings.Builder
	for i := range many {
		fmt.Fprintln(&lines, i)
	}
	began := time.Now()
	run(lines.String(), "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", service, "--topic", "from-pod", "--producer-property", "acks=all")
	read := run("", "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", service, "--topic", "from-pod", "--from-beginning",
		"--max-messages", fmt.Sprint(many), "--timeout-ms", "30000")
	different := map[string]bool{}
	for line := range strings.Lines(read) {
		different[line] = true
	}
	if len(different) != many {
		t.Errorf("%d different records of %d came back through %s", len(different), many, service)
	}
	t.Logf("%d records through the Service from another pod and back: %s", many, time.Since(began).Round(100*time.Millisecond))

	var seen struct {
		Written, Read, Missing    int64
		WriteSeconds, ReadSeconds float64
	}
	c.Outside(2*time.Minute, &seen, "records", "-brokers", c.Bootstrap(stand.Outside), "-topic", manyTopic, "-count", fmt.Sprint(many))
	if seen.Written != many || seen.Missing != 0 {
		t.Errorf("through NodePort: %+v", seen)
	}
	t.Logf("%d records through NodePort from outside: written in %.1f s, read in %.1f s", many, seen.WriteSeconds, seen.ReadSeconds)
}

// allThere fails the test unless the records of hundredThousand can still be read.
func allThere(t *testing.T, c *stand.Cluster) {
	t.Helper()
	var seen struct{ Read, Missing int64 }
	c.Outside(2*time.Minute, &seen, "records", "-keep", "-brokers", c.Bootstrap(stand.Outside), "-topic", manyTopic, "-count", fmt.Sprint(many))
	if seen.Missing != 0 {
		t.Errorf("%d of %d records of before are lost", seen.Missing, many)
	}
}

// mayDiffer are the keys whose values name the place where a node runs.
func mayDiffer() []string {
	return []string{
		"advertised.listeners", "listeners", "listener.security.protocol.map", "log.dirs", "metadata.log.dir", "controller.quorum.bootstrap.servers", "broker.rack",
		"ssl.keystore.location", "ssl.truststore.location",
		"listener.name.internal.ssl.keystore.location", "listener.name.internal.ssl.truststore.location",
		"listener.name.controller.ssl.keystore.location", "listener.name.controller.ssl.truststore.location",
	}
}

// parity compares what Kafka itself says of its configuration in a pod and on a host, from the same spec.
func parity(t *testing.T, c *stand.Cluster) {
	t.Helper()
	const class = "kafka.admin.ConfigCommand"
	ask := func(server string) []string {
		return []string{"--bootstrap-server", server, "--entity-type", "brokers", "--entity-name", "0", "--describe", "--all"}
	}
	inPod := effective(toolsPod(t, c)("", class, ask(corekube.BootstrapService(c.Name)+":9092")...))

	spec := c.Object().Spec
	host := api.KafkaCluster{Spec: *spec.DeepCopy()}
	host.APIVersion, host.Kind, host.Namespace, host.Name = api.GroupVersion.String(), "KafkaCluster", "default", c.Name
	for i := range host.Spec.Pools {
		p := &host.Spec.Pools[i]
		p.Placement = api.Placement{Hosts: &api.HostPlacement{MaxPerHost: p.Replicas}}
		p.Resources, p.Volumes = corev1.ResourceRequirements{}, nil
	}
	for i := range host.Spec.Listeners {
		host.Spec.Listeners[i].Exposure = api.Exposure{}
	}
	s := hosts.New(t, hosts.Options{Cluster: stand.YAML(t, host), Namespace: "default", Name: c.Name})
	onHost := effective(s.KafkaTool(stand.Version, nil, class, ask(s.Bootstrap(stand.Inside))...))
	if len(inPod) < 20 || len(onHost) < 20 {
		t.Fatalf("Kafka tells too little: %v, %v", inPod, onHost)
	}
	for _, key := range mayDiffer() {
		delete(inPod, key)
		delete(onHost, key)
	}
	if diff := cmp.Diff(onHost, inPod); diff != "" {
		t.Errorf("the same spec has other effects (- on a host, + in a pod):\n%s", diff)
	}
}

// effective are the keys that are set, by what ConfigCommand prints: "  key=value sensitive=false synonyms={SOURCE:key=value, …}".
func effective(text string) map[string]string {
	set := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		setting, rest, ok := strings.Cut(strings.TrimSpace(lines.Text()), " sensitive=")
		key, value, isSetting := strings.Cut(setting, "=")
		_, synonyms, _ := strings.Cut(rest, "synonyms={")
		if ok && isSetting && !strings.HasPrefix(synonyms, "DEFAULT_CONFIG") && !strings.HasPrefix(synonyms, "}") {
			source, _, _ := strings.Cut(synonyms, ":")
			set[key] = value + " (" + source + ")"
		}
	}
	return set
}

// dryRun applies everything that the cluster consists of, and the chart, once more as a user would. Restricted namespaces
// warn of templates that they would take no pod of.
func dryRun(t *testing.T, c *stand.Cluster) {
	t.Helper()
	const kinds = "kafkaclusters,kafkanodes,clusterrevisions,statefulsets,configmaps,secrets,services,poddisruptionbudgets,persistentvolumeclaims"
	var list struct{ Items []map[string]any }
	if err := json.Unmarshal([]byte(must(t, c.Kubectl("get", kinds, "-n", c.Namespace, "-o", "json"))), &list); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	var text strings.Builder
	for _, item := range list.Items {
		metadata := item["metadata"].(map[string]any)
		if metadata["name"] == "kube-root-ca.crt" {
			continue
		}
		for _, given := range []string{"resourceVersion", "uid", "managedFields", "creationTimestamp", "generation"} {
			delete(metadata, given)
		}
		delete(item, "status")
		seen[item["kind"].(string)]++
		text.WriteString("---\n" + stand.YAML(t, item))
	}
	want := map[string]int{"KafkaCluster": 1, "KafkaNode": 3, "StatefulSet": 3, "PodDisruptionBudget": 1, "PersistentVolumeClaim": 3}
	for kind, count := range want {
		if seen[kind] < count { // the kept claim of a replaced volume is one more
			t.Errorf("the cluster has %d objects %s, want %d; all: %v", seen[kind], kind, count, seen)
		}
	}
	// Castellan's own certificate ends admission of what it alone may write; a user is told so, by name.
	out := c.KubectlIn(text.String(), "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
	if out.Code != 0 || strings.Contains(out.Stderr, "Warning") {
		t.Errorf("objects of the cluster: %s", out)
	}
	chart := c.Helm("template", stand.OperatorRelease, c.Chart(), "--namespace", stand.OperatorNamespace, "--include-crds", "--kube-version", "1.36.0",
		"--set", "image.repository=castellan,image.tag=x")
	if out := c.KubectlIn(chart, "apply", "--dry-run=server", "-n", stand.OperatorNamespace, "-f", "-"); out.Code != 0 {
		t.Errorf("the chart: %s", out)
	}
}
