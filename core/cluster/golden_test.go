package cluster_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/host"
	"castellan.dev/castellan/core/kconf"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
)

var update = flag.Bool("update", false, "write the goldens anew")

// TestGolden shows in one file each what a cluster.yaml becomes: warnings, what lives in
// Kafka, the first plan in an empty world with two hosts, and for one node of each shape
// its KafkaNode, its HostProcess and its server.properties. What a pod becomes has goldens in
// package kube.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens found: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			golden, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := txtar.Format(become(t, golden))
			if *update {
				if err := os.WriteFile(file, got, 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(golden)), string(got)); diff != "" {
				t.Errorf("run with -update when it is meant so (-golden +got):\n%s", diff)
			}
		})
	}
}

// become renders everything anew from the first file, cluster.yaml.
func become(t *testing.T, golden *txtar.Archive) *txtar.Archive {
	t.Helper()
	var kc api.KafkaCluster
	if err := yaml.UnmarshalStrict(golden.Files[0].Data, &kc); err != nil {
		t.Fatal(err)
	}
	in := good()
	in.Namespace, in.Name, in.Spec, in.Supervisor = kc.Namespace, kc.Name, kc.Spec, "castellan:1"
	m, problems := cluster.Resolve(in)
	out := &txtar.Archive{Comment: golden.Comment, Files: golden.Files[:1]}
	add := func(name string, data []byte) { out.Files = append(out.Files, txtar.File{Name: name, Data: data}) }
	if len(problems) > 0 {
		add("problems", []byte(strings.Join(lines(problems), "\n")+"\n"))
	}
	add("in-kafka.properties", kconf.Write(m.Dynamic))
	p := plan.Compute(m, plan.World{Revision: kc.Name + "-1", Hosts: twoHosts()}, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	add("plan", planLines(p))
	seen := map[string]bool{}
	for _, s := range p.Steps {
		if shape := shapeOf(m, *s.Spec); !seen[shape] {
			seen[shape] = true
			renderNode(t, add, kc.Namespace, *s.Spec)
		}
	}
	return out
}

func twoHosts() []plan.Host {
	var hosts []plan.Host
	for _, name := range []string{"h1", "h2"} {
		hosts = append(hosts, plan.Host{Name: name, Reachable: true, Spec: api.HostSpec{
			Address: name + ".example", Rack: "rack-" + name, AllowedNamespaces: []string{"*"},
			DataRoots: []string{"/data"}, PortRange: &api.PortRange{From: 20000, To: 20100},
		}})
	}
	return hosts
}

func planLines(p plan.Plan) []byte {
	var b strings.Builder
	for _, s := range p.Steps {
		at := s.Spec.Host
		if at == "" {
			at = s.Spec.Address
		}
		fmt.Fprintf(&b, "%s %d on %s: %s\n", s.Kind, s.Node, at, s.Reason)
	}
	for _, w := range p.Blocked {
		fmt.Fprintf(&b, "blocked: %s: %s\n", w.Reason, w.Message)
	}
	return []byte(b.String())
}

// shapeOf tells nodes apart that differ in more than their id and place.
func shapeOf(m cluster.Model, spec api.KafkaNodeSpec) string {
	i := slices.IndexFunc(m.Nodes, func(n cluster.Node) bool { return n.ID == spec.NodeID })
	return fmt.Sprint(spec.Pool, m.Nodes[i].Dynamic, layout.ProcessHash(m.Nodes[i].Process))
}

func renderNode(t *testing.T, add func(string, []byte), namespace string, spec api.KafkaNodeSpec) {
	t.Helper()
	node := api.KafkaNode{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s-%d", spec.ClusterName, spec.NodeID)}, Spec: spec}
	folder := fmt.Sprintf("node-%d/", spec.NodeID)
	add(folder+"kafkanode.yaml", asYAML(t, spec))
	if spec.Host == "" {
		return
	}
	objects, err := host.Objects(node, host.Placement{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if o.Process == nil {
			continue
		}
		properties := propertiesOf(t, *o.Process)
		elide(o.Process.Spec.Files)
		elide(o.Process.Spec.Program.Files)
		add(folder+"hostprocess.yaml", asYAML(t, o.Process.Spec))
		add(folder+"server.properties", properties)
	}
}

// propertiesOf renders what the supervisor will, from the files that it will be given.
func propertiesOf(t *testing.T, process api.HostProcess) []byte {
	t.Helper()
	var static layout.Static
	var live layout.Live
	for _, f := range slices.Concat(process.Spec.Files, process.Spec.Program.Files) {
		into := map[string]any{layout.StaticFile: &static, layout.LiveFile: &live}[f.Path]
		if into == nil {
			continue
		}
		if err := json.Unmarshal([]byte(f.Content), into); err != nil {
			t.Fatalf("%s: %v", f.Path, err)
		}
	}
	properties, err := layout.Properties(static, live, layout.Facts{TLSDir: "/p/tls", SSLEngine: "the.Engine"})
	if err != nil {
		t.Fatal(err)
	}
	return kconf.Write(properties)
}

// elide leaves the contents of files to the goldens of package host.
func elide(files []api.File) {
	for i := range files {
		files[i].Content = "…"
	}
}

func asYAML(t *testing.T, v any) []byte {
	t.Helper()
	data, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
