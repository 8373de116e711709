package host_test

import (
	"flag"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/host"
)

var update = flag.Bool("update", false, "write the goldens anew; only for a layout that was never released")

// TestObjectsGolden holds every layout byte for byte: a change of a golden of a released
// layout is a restart of every node out there.
func TestObjectsGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/layout*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens found: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			golden, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := txtar.Format(render(t, golden))
			if *update {
				writeFile(t, file, got)
			}
			if diff := cmp.Diff(string(txtar.Format(golden)), string(got)); diff != "" && !*update {
				t.Errorf("objects changed (-golden +rendered):\n%s", diff)
			}
		})
	}
}

// render keeps the inputs of a golden and renders everything else anew.
func render(t *testing.T, golden *txtar.Archive) *txtar.Archive {
	t.Helper()
	var node api.KafkaNode
	var at host.Placement
	out := &txtar.Archive{Comment: golden.Comment}
	for _, f := range golden.Files {
		switch f.Name {
		case "node.yaml":
			mustUnmarshal(t, f.Data, &node)
			out.Files = append(out.Files, f)
		case "placement.yaml":
			mustUnmarshal(t, f.Data, &at)
			out.Files = append(out.Files, f)
		}
	}
	objects, err := host.Objects(node, at)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		data, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		name := "process.yaml"
		if o.Secret != nil {
			name = "secret.yaml"
		}
		out.Files = append(out.Files, txtar.File{Name: name, Data: data})
	}
	return out
}

func node() api.KafkaNode {
	return api.KafkaNode{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-100", UID: "u-1"},
		Spec: api.KafkaNodeSpec{
			ClusterName: "orders",
			NodeID:      100,
			Pool:        "brokers",
			Roles:       []api.Role{api.RoleController, api.RoleBroker},
			Revision:    "orders-1",
			Process: api.ProcessSpec{
				Version: "4.3.1", Package: "sha256:" + strings.Repeat("ab", 32), Layout: 1, HeapBytes: 1 << 30,
				Volumes:   []string{"data-0"},
				Listeners: []api.NodeListener{{Name: "PLAIN", Protocol: "PLAINTEXT"}},
			},
			Volumes: []api.NodeVolume{{Name: "data-0", Path: "/data/kafka/orders/100/data-0"}},
			Host:    "h1",
			Address: "h1.example",
			Ports:   map[string]int32{"CONTROLLER": 9090, "INTERNAL": 9091, "PLAIN": 9092},
			State:   api.StateRunning,
		},
	}
}

func process(t *testing.T, n api.KafkaNode, at host.Placement) *api.HostProcess {
	t.Helper()
	objects, err := host.Objects(n, at)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if o.Process != nil {
			return o.Process
		}
	}
	t.Fatal("no HostProcess among the objects")
	return nil
}

func TestOnlyTheProcessChangesTheProgram(t *testing.T) {
	size := resource.MustParse("10Gi")
	notAfter := metav1.Unix(1_900_000_000, 0)
	live := map[string]func(*api.KafkaNode){
		"cluster id":     func(n *api.KafkaNode) { n.Spec.ClusterID = "MkU3OEVBNTcwNTJENDM2Qg" },
		"pool":           func(n *api.KafkaNode) { n.Spec.Pool = "other" },
		"order of roles": func(n *api.KafkaNode) { n.Spec.Roles = []api.Role{api.RoleBroker, api.RoleController} },
		"revision":       func(n *api.KafkaNode) { n.Spec.Revision = "orders-2" },
		"dynamic":        func(n *api.KafkaNode) { n.Spec.Dynamic = map[string]string{"num.io.threads": "16"} },
		"certificates": func(n *api.KafkaNode) {
			n.Spec.Certificates = api.NodeCertificates{Digest: "sha256:1", NotAfter: &notAfter}
		},
		"volume size": func(n *api.KafkaNode) { n.Spec.Volumes[0].Size = &size },
		"volume added": func(n *api.KafkaNode) {
			n.Spec.Volumes = append(n.Spec.Volumes, api.NodeVolume{Name: "data-1", Path: "/data/1"})
		},
		"port given":     func(n *api.KafkaNode) { n.Spec.Ports["LATER"] = 9093 },
		"controllers":    func(n *api.KafkaNode) { n.Spec.BootstrapControllers = []string{"h1:9090"} },
		"storage answer": func(n *api.KafkaNode) { n.Spec.Storage = &api.StorageAnswer{Nonce: "n", Answer: api.StorageJoin} },
		"change":         func(n *api.KafkaNode) { n.Spec.Change = &api.NodeChange{Reason: "r", Since: notAfter} },
		"state":          func(n *api.KafkaNode) { n.Spec.State = api.StateStopped },
		"metadata": func(n *api.KafkaNode) {
			n.Generation, n.ResourceVersion, n.Annotations = 7, "9", map[string]string{"a": "b"}
		},
		"status":          func(n *api.KafkaNode) { n.Status.Nonce = "n" },
		"uid (recreated)": func(n *api.KafkaNode) { n.UID = "u-2" },
	}
	want := process(t, node(), host.Placement{}).Spec.Program
	for name, change := range live {
		t.Run(name, func(t *testing.T) {
			n := node()
			change(&n)
			if diff := cmp.Diff(want, process(t, n, host.Placement{RemoveData: api.DeletionDelete}).Spec.Program); diff != "" {
				t.Errorf("the process would restart:\n%s", diff)
			}
		})
	}
	restarts := map[string]func(*api.ProcessSpec){
		"version":  func(p *api.ProcessSpec) { p.Version = "4.3.2" },
		"package":  func(p *api.ProcessSpec) { p.Package = "sha256:0" },
		"config":   func(p *api.ProcessSpec) { p.Config = map[string]string{"num.io.threads": "9"} },
		"heap":     func(p *api.ProcessSpec) { p.HeapBytes++ },
		"jvm":      func(p *api.ProcessSpec) { p.JVMOptions = []string{"-Da=b"} },
		"listener": func(p *api.ProcessSpec) { p.Listeners[0].Protocol = "SSL" },
	}
	for name, change := range restarts {
		t.Run(name, func(t *testing.T) {
			n := node()
			change(&n.Spec.Process)
			if cmp.Equal(want, process(t, n, host.Placement{}).Spec.Program) {
				t.Error("the process would not restart")
			}
		})
	}
}

func TestObjectsRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*api.KafkaNode)
		want   string
	}{
		"no host":         {func(n *api.KafkaNode) { n.Spec.Host = "" }, "has no host"},
		"future layout":   {func(n *api.KafkaNode) { n.Spec.Process.Layout = 99 }, "layout 99"},
		"unplaced volume": {func(n *api.KafkaNode) { n.Spec.Process.Volumes = []string{"nope"} }, `volume "nope"`},
	} {
		t.Run(name, func(t *testing.T) {
			n := node()
			test.change(&n)
			if _, err := host.Objects(n, host.Placement{}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("x", 250)
	for name, test := range map[string]struct{ got, want string }{
		"process":              {host.ProcessName("kafka", "orders", 3), "kafka.orders-3"},
		"secret":               {host.SecretName("orders", 3), "orders-3-tls"},
		"namespace":            {host.Namespace("h1"), "castellan-host-h1"},
		"namespace of an fqdn": {host.Namespace("h1.example"), "castellan-host-h1-example-f6ab835b"},
		"path":                 {host.Path("/data", "kafka", "orders", 3, "data-0"), "/data/kafka/orders/3/data-0"},
	} {
		if test.got != test.want {
			t.Errorf("%s: got %q, want %q", name, test.got, test.want)
		}
	}
	if host.Namespace("a.b") == host.Namespace("a-b") {
		t.Error("hosts a.b and a-b share a namespace")
	}
	if got := host.ProcessName("kafka", long, 1); len(got) > 200 || got == host.ProcessName("kafka", long, 11) {
		t.Errorf("long name %q is too long or not unique", got)
	}
	if got := host.Namespace(long); len(got) > 63 {
		t.Errorf("namespace %q is longer than a DNS label", got)
	}
}
