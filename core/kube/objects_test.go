package kube_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/layout"
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
			got := txtar.Format(&txtar.Archive{Comment: golden.Comment, Files: append(golden.Files[:1:1], rendered(t, golden)...)})
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(golden)), string(got)); diff != "" {
				t.Errorf("objects changed (-golden +rendered):\n%s", diff)
			}
		})
	}
}

func rendered(t *testing.T, golden *txtar.Archive) []txtar.File {
	t.Helper()
	var n api.KafkaNode
	if golden.Files[0].Name != "node.yaml" {
		t.Fatal("the first file is not node.yaml")
	}
	if err := yaml.UnmarshalStrict(golden.Files[0].Data, &n); err != nil {
		t.Fatal(err)
	}
	objects := objectsOf(t, n)
	var out []byte
	all := []any{objects.StatefulSet, objects.Static, objects.Live}
	for _, c := range objects.Claims {
		all = append(all, c)
	}
	for _, s := range objects.Services {
		all = append(all, s)
	}
	for _, o := range all {
		data, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, "---\n"...), data...)
	}
	return []txtar.File{{Name: "objects.yaml", Data: out}}
}

func objectsOf(t *testing.T, n api.KafkaNode) kube.NodeObjects {
	t.Helper()
	objects, err := kube.Objects(n)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func quantity(text string) *resource.Quantity {
	q := resource.MustParse(text)
	return &q
}

func node() api.KafkaNode {
	return api.KafkaNode{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-100", UID: "u-1", Generation: 3},
		Spec: api.KafkaNodeSpec{
			ClusterName: "orders", NodeID: 100, Pool: "brokers", Revision: "orders-1",
			Roles: []api.Role{api.RoleController, api.RoleBroker},
			Process: api.ProcessSpec{
				Version: "4.3.1", Image: "apache/kafka:4.3.1", Supervisor: "castellan:1", Layout: 1, HeapBytes: 1 << 30,
				Volumes: []string{"data"}, Listeners: []api.NodeListener{{Name: "plain", Protocol: "PLAINTEXT"}},
				Pod: &api.PodSettings{Spread: api.SpreadZone},
			},
			Volumes: []api.NodeVolume{{Name: "data", Path: "/var/lib/kafka/data", Size: quantity("1Gi"), Claim: "data-orders-100"}},
			Address: "orders-100-0.orders-nodes.kafka.svc",
			Ports:   map[string]int32{"CONTROLLER": 9090, "INTERNAL": 9091, "plain": 9092},
			State:   api.StateRunning,
		},
	}
}

func TestOnlyPermissionChangesThePod(t *testing.T) {
	notAfter := metav1.Unix(1_900_000_000, 0)
	want := objectsOf(t, node()).StatefulSet.Spec.Template
	for name, change := range map[string]func(*api.KafkaNode){
		"cluster id":      func(n *api.KafkaNode) { n.Spec.ClusterID = "MkU3OEVBNTcwNTJENDM2Qg" },
		"order of roles":  func(n *api.KafkaNode) { n.Spec.Roles = []api.Role{api.RoleBroker, api.RoleController} },
		"revision":        func(n *api.KafkaNode) { n.Spec.Revision = "orders-2" },
		"dynamic":         func(n *api.KafkaNode) { n.Spec.Dynamic = map[string]string{"num.io.threads": "16"} },
		"certificates":    func(n *api.KafkaNode) { n.Spec.Certificates = api.NodeCertificates{Digest: "d", NotAfter: &notAfter} },
		"volume size":     func(n *api.KafkaNode) { n.Spec.Volumes[0].Size = quantity("2Gi") },
		"directory id":    func(n *api.KafkaNode) { n.Spec.Volumes[0].DirectoryID = "x" },
		"rack":            func(n *api.KafkaNode) { n.Spec.Rack = "b" },
		"port given":      func(n *api.KafkaNode) { n.Spec.Ports["later"] = 9093 },
		"controllers":     func(n *api.KafkaNode) { n.Spec.BootstrapControllers = []string{"h1:9090"} },
		"storage answer":  func(n *api.KafkaNode) { n.Spec.Storage = &api.StorageAnswer{Nonce: "n", Answer: api.StorageJoin} },
		"change":          func(n *api.KafkaNode) { n.Spec.Change = &api.NodeChange{Reason: "r", Since: notAfter} },
		"state":           func(n *api.KafkaNode) { n.Spec.State = api.StateStopped },
		"replaced":        func(n *api.KafkaNode) { n.Spec.Replaced = "token" },
		"metadata":        func(n *api.KafkaNode) { n.Generation, n.Annotations = 7, map[string]string{"a": "b"} },
		"status":          func(n *api.KafkaNode) { n.Status.Nonce = "n" },
		"uid (recreated)": func(n *api.KafkaNode) { n.UID = "u-2" },
		"exposure": func(n *api.KafkaNode) {
			n.Spec.Exposures = []api.NodeExposure{{Listener: "plain", Type: api.ExposureNodePort, NodePort: 31000}}
		},
		"volume added": func(n *api.KafkaNode) {
			n.Spec.Volumes = append(n.Spec.Volumes, api.NodeVolume{Name: "more", Path: "/m", Size: quantity("1Gi"), Claim: "more-orders-100"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := node()
			change(&n)
			if diff := cmp.Diff(want, objectsOf(t, n).StatefulSet.Spec.Template); diff != "" {
				t.Errorf("the pod would be another one:\n%s", diff)
			}
		})
	}
	for name, change := range map[string]func(*api.KafkaNodeSpec){
		"version":    func(s *api.KafkaNodeSpec) { s.Process.Version = "4.3.2" },
		"image":      func(s *api.KafkaNodeSpec) { s.Process.Image = "x" },
		"supervisor": func(s *api.KafkaNodeSpec) { s.Process.Supervisor = "x" },
		"config":     func(s *api.KafkaNodeSpec) { s.Process.Config = map[string]string{"num.io.threads": "9"} },
		"spread":     func(s *api.KafkaNodeSpec) { s.Process.Pod.Spread = api.SpreadNone },
		"claim":      func(s *api.KafkaNodeSpec) { s.Volumes[0].Claim = "data-orders-100-r2" },
	} {
		t.Run(name, func(t *testing.T) {
			n := node()
			pod := corev1.Pod{ObjectMeta: want.ObjectMeta, Spec: want.Spec}
			if why := kube.MustRestart(objectsOf(t, n), &pod); why != "" {
				t.Fatalf("the same pod must restart: %s", why)
			}
			change(&n.Spec)
			if kube.MustRestart(objectsOf(t, n), &pod) == "" {
				t.Error("the pod would not restart")
			}
		})
	}
}

func TestPodIsRestricted(t *testing.T) {
	pod := objectsOf(t, node()).StatefulSet.Spec.Template.Spec
	if *pod.AutomountServiceAccountToken || !*pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod is too free: %+v", pod.SecurityContext)
	}
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		s := c.SecurityContext
		if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" {
			t.Errorf("container %s is too free: %+v", c.Name, s)
		}
	}
}

func TestObjectsRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*api.KafkaNodeSpec)
		want   string
	}{
		"future layout":       {func(s *api.KafkaNodeSpec) { s.Process.Layout = 99 }, "layout 99"},
		"unknown volume":      {func(s *api.KafkaNodeSpec) { s.Process.Volumes = []string{"nope"} }, `volume "nope"`},
		"no claim":            {func(s *api.KafkaNodeSpec) { s.Volumes[0].Claim = "" }, "no claim"},
		"no size":             {func(s *api.KafkaNodeSpec) { s.Volumes[0].Size = nil }, "no size"},
		"no image":            {func(s *api.KafkaNodeSpec) { s.Process.Image = "" }, "no image"},
		"no supervisor image": {func(s *api.KafkaNodeSpec) { s.Process.Supervisor = "" }, "no image"},
	} {
		t.Run(name, func(t *testing.T) {
			n := node()
			test.change(&n.Spec)
			if _, err := kube.Objects(n); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestStoppedNodeHasNoPod(t *testing.T) {
	n := node()
	n.Spec.State = api.StateStopped
	if got := *objectsOf(t, n).StatefulSet.Spec.Replicas; got != 0 {
		t.Errorf("%d replicas, want 0", got)
	}
}

func TestClaimsHaveNoOwner(t *testing.T) {
	for _, c := range objectsOf(t, node()).Claims {
		if len(c.OwnerReferences) > 0 {
			t.Errorf("claim %s would go with its owner %v", c.Name, c.OwnerReferences)
		}
	}
}

func TestAdvertised(t *testing.T) {
	for name, test := range map[string]struct {
		exposure api.NodeExposure
		want     string
	}{
		"node port":             {api.NodeExposure{Type: api.ExposureNodePort, NodePort: 31000}, `"addressType": "InternalIP","port": 31000`},
		"node port of a type":   {api.NodeExposure{Type: api.ExposureNodePort, NodePort: 31000, AddressType: "ExternalIP"}, `"addressType": "ExternalIP","port": 31000`},
		"node port not given":   {api.NodeExposure{Type: api.ExposureNodePort}, `"addressType": "InternalIP"`},
		"node port of a host":   {api.NodeExposure{Type: api.ExposureNodePort, NodePort: 31000, Host: "b.example"}, `"host": "b.example","port": 31000`},
		"load balancer":         {api.NodeExposure{Type: api.ExposureLoadBalancer, Address: "203.0.113.7"}, `"host": "203.0.113.7","port": 9092`},
		"load balancer, a host": {api.NodeExposure{Type: api.ExposureLoadBalancer, Host: "b.example", Address: "203.0.113.7"}, `"host": "b.example","port": 9092`},
		"load balancer waits":   {api.NodeExposure{Type: api.ExposureLoadBalancer}, ``},
	} {
		t.Run(name, func(t *testing.T) {
			n := node()
			test.exposure.Listener = "plain"
			n.Spec.Exposures = []api.NodeExposure{test.exposure}
			live := objectsOf(t, n).Live.Data[layout.LiveFile]
			want := `"advertised": [{"listener": "plain"` + strings.TrimSuffix(","+test.want, ",") + "}]"
			if flat := strings.NewReplacer("\n", "", "  ", "").Replace(live); !strings.Contains(flat, want) {
				t.Errorf("got %s, want in it %s", flat, want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{kube.NodeName("orders", 3), "orders-3"},
		{kube.Address("kafka", "orders", 3), "orders-3-0.orders-nodes.kafka.svc"},
		{kube.ClaimName("data", "orders", 3, 1), "data-orders-3"},
		{kube.ClaimName("data", "orders", 3, 2), "data-orders-3-r2"},
		{kube.SecretName("orders", 3), "orders-3-tls"},
		{kube.StaticName("orders", 3, strings.Repeat("ab", 32)), "orders-3-ababababab"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
	for attempt := 1; attempt < 12; attempt++ {
		if got := kube.Attempt(kube.ClaimName("data-r7", "orders-r2", 5, attempt)); got != attempt {
			t.Errorf("attempt %d comes back as %d", attempt, got)
		}
	}
}

func TestNodeOfItsLabels(t *testing.T) {
	objects := objectsOf(t, node())
	for _, o := range []metav1.Object{objects.StatefulSet, objects.Static, objects.Live, objects.Claims[0], &objects.StatefulSet.Spec.Template} {
		found, ok := kube.NodeOf(o)
		if !ok || found.Name != "orders-100" {
			t.Errorf("%s belongs to %v", o.GetName(), found)
		}
	}
	if _, ok := kube.NodeOf(&corev1.Pod{}); ok {
		t.Error("an object without labels belongs to a node")
	}
}

func TestSpreadKeepsWhatTheUserAsks(t *testing.T) {
	n := node()
	mine := &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: "rack"}},
	}}
	n.Spec.Process.Pod.Affinity = mine
	required := objectsOf(t, n).StatefulSet.Spec.Template.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if len(required) != 2 || required[0].TopologyKey != "rack" || required[1].TopologyKey != "kubernetes.io/hostname" {
		t.Errorf("required terms: %+v", required)
	}
	if len(mine.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) != 1 {
		t.Error("the spec itself was changed")
	}
	data, err := yaml.Marshal(objectsOf(t, n).StatefulSet)
	if err != nil || !bytes.Contains(data, []byte("ScheduleAnyway")) {
		t.Errorf("no even spread over zones: %v", err)
	}
}
