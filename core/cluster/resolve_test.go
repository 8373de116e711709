package cluster_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

func combinedPool(replicas int32) api.Pool {
	return api.Pool{Name: "nodes", Roles: []api.Role{api.RoleBroker, api.RoleController}, Replicas: replicas}
}

func controllerPool(replicas int32) api.Pool {
	return api.Pool{Name: "controllers", Roles: []api.Role{api.RoleController}, Replicas: replicas}
}

func brokerPool(replicas int32) api.Pool {
	return api.Pool{Name: "brokers", Roles: []api.Role{api.RoleBroker}, Replicas: replicas}
}

// good is an input without any problem.
func good(pools ...api.Pool) cluster.Input {
	if len(pools) == 0 {
		pools = []api.Pool{combinedPool(3)}
	}
	return cluster.Input{
		Namespace: "kafka", Name: "orders",
		Spec:    api.KafkaClusterSpec{Version: "4.3.1", Pools: pools},
		Catalog: cluster.Catalog{Packages: []api.Package{kafka("kafka-4.3.1", "4.3.1"), kafka("kafka-4.2.0", "4.2.0"), kafka("kafka-3.9.2", "3.9.2")}},
	}
}

func kafka(name, version string) api.Package {
	return api.Package{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       api.PackageSpec{Product: api.ProductKafka, Version: version},
		Status:     api.PackageStatus{Digest: "sha256:" + version},
	}
}

func quantity(s string) *resource.Quantity { return new(resource.MustParse(s)) }

func memory(s string) corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(s)}}
}

func lines(problems []cluster.Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, string(p.Severity)+" "+p.String())
	}
	return out
}

// resolved resolves an input that must be accepted.
func resolved(t *testing.T, in cluster.Input) cluster.Model {
	t.Helper()
	m, problems := cluster.Resolve(in)
	if cluster.HasErrors(problems) {
		t.Fatalf("refused:\n%s", strings.Join(lines(problems), "\n"))
	}
	return m
}

// TestProblems holds path, reason and remedy of every problem: they are what users see.
func TestProblems(t *testing.T) {
	type change func(*cluster.Input)
	tests := map[string]struct {
		change change
		want   []string
	}{
		"nothing": {func(*cluster.Input) {}, nil},
		"a version without a key table": {
			func(in *cluster.Input) { in.Spec.Version = "2.8.0" },
			[]string{"Error spec.version: Kafka 2.8.0 is not supported; supported are the releases of 3.9, 4.0, 4.1, 4.2, 4.3; Packages exist for 3.9.2, 4.2.0, 4.3.1"},
		},
		"a version without a package": {
			func(in *cluster.Input) { in.Spec.Version = "4.3.0" },
			[]string{"Error spec.version: no Package provides Kafka 4.3.0; create a Package with its source; Packages exist for 3.9.2, 4.2.0, 4.3.1"},
		},
		"no package at all": {
			func(in *cluster.Input) { in.Catalog = cluster.Catalog{} },
			[]string{"Error spec.version: no Package provides Kafka 4.3.1; create a Package with its source; no Package exists yet"},
		},
		"a named package that is not there": {
			func(in *cluster.Input) { in.Spec.Package = "mine" },
			[]string{"Error spec.package: there is no Package mine of Kafka 4.3.1; leave it empty or create that Package; Packages exist for 3.9.2, 4.2.0, 4.3.1"},
		},
		"two packages of one version": {
			func(in *cluster.Input) { in.Catalog.Packages = append(in.Catalog.Packages, kafka("b", "4.3.1")) },
			[]string{"Error spec.package: several Packages provide Kafka 4.3.1: b, kafka-4.3.1; name one of them"},
		},
		"no controllers": {
			func(in *cluster.Input) { in.Spec.Pools = []api.Pool{brokerPool(3)} },
			[]string{"Error spec.pools: no pool has the role controller, so nothing would hold the cluster's metadata; add a pool with roles: [controller], or [broker, controller] for combined nodes"},
		},
		"no brokers": {
			func(in *cluster.Input) { in.Spec.Pools = []api.Pool{controllerPool(3)} },
			[]string{"Error spec.pools: no pool has the role broker, so no partition could be placed; add a pool with roles: [broker]"},
		},
		"two controllers": {
			func(in *cluster.Input) { in.Spec.Pools = []api.Pool{controllerPool(2), brokerPool(3)} },
			[]string{"Warning spec.pools: 2 controllers survive no more failures than 1; use an odd number, usually 3"},
		},
		"one controller": {
			func(in *cluster.Input) { in.Spec.Pools = []api.Pool{controllerPool(1), brokerPool(3)} },
			[]string{"Warning spec.pools: a single controller is a single point of failure: while it is down nothing can change; use 3 controllers"},
		},
		"two pools of one name": {
			func(in *cluster.Input) { in.Spec.Pools = []api.Pool{combinedPool(3), combinedPool(2)} },
			[]string{
				"Error spec.pools[1].name: there are two pools named nodes; give each its own name",
			},
		},
		"no size": {
			func(in *cluster.Input) { in.Spec.Pools[0].Replicas = -1 },
			[]string{
				"Error spec.pools[0].replicas: -1 is no size of a pool; use 1 to 1000",
			},
		},
		"too large a size": {
			func(in *cluster.Input) { in.Spec.Pools[0].Replicas = math.MaxInt32 },
			[]string{"Error spec.pools[0].replicas: 2147483647 is no size of a pool; use 1 to 1000"},
		},
		"a first id that is none": {
			func(in *cluster.Input) { in.Spec.Pools[0].FirstNodeID = new(int32(math.MaxInt32)) },
			[]string{"Error spec.pools[0].firstNodeID: 2147483647 is no node id; use 0 to 1000000"},
		},
		"a role that is none, and no role": {
			func(in *cluster.Input) {
				in.Spec.Pools = append(in.Spec.Pools, api.Pool{Name: "a", Replicas: 1, Roles: []api.Role{"brokr"}}, api.Pool{Name: "b", Replicas: 1})
			},
			[]string{
				`Error spec.pools[1].roles[0]: "brokr" is no role of a Kafka node; use broker, controller or both`,
				"Error spec.pools[2].roles: the pool has no role; use [broker], [controller] or [broker, controller]",
			},
		},
		"ids of another pool": {
			func(in *cluster.Input) {
				a, b := controllerPool(3), brokerPool(3)
				a.FirstNodeID, b.FirstNodeID = new(int32(1)), new(int32(3))
				in.Spec.Pools = []api.Pool{a, b}
			},
			[]string{"Error spec.pools[1].firstNodeID: node id 3 belongs to pool controllers; choose a range of ids that no other pool uses, for example in steps of 100"},
		},
		"JVM": {
			func(in *cluster.Input) {
				in.Spec.Pools[0].JVM = api.JVM{Heap: quantity("1Mi"), Options: []string{"-Xint", "-javaagent:x.jar"}}
			},
			[]string{
				"Error spec.pools[0].jvm.options[1]: -javaagent:x.jar: it loads code into the process; leave it out",
				"Error spec.pools[0].jvm.heap: 1Mi is too small for Kafka; use at least 128Mi, usually 1Gi or more",
			},
		},
		"heap above the limit": {
			func(in *cluster.Input) {
				in.Spec.Pools[0].Resources = memory("1Gi")
			},
			[]string{"Error spec.pools[0].jvm.heap: the heap of 1Gi leaves nothing of the memory limit of 1Gi; keep the heap to about half of the limit"},
		},
		"an override's limit against the pool's heap": {
			func(in *cluster.Input) {
				in.Spec.Pools[0].JVM.Heap = quantity("2Gi")
				in.Spec.Pools[0].Overrides = []api.NodeOverride{{NodeID: 1, Resources: new(memory("2Gi"))}}
			},
			[]string{"Error spec.pools[0].overrides[0].jvm.heap: the heap of 2Gi leaves nothing of the memory limit of 2Gi; keep the heap to about half of the limit"},
		},
		"an override that keeps the pool's small heap": {
			func(in *cluster.Input) {
				in.Spec.Pools[0].JVM.Heap, in.Spec.Pools[0].Resources = quantity("256Mi"), memory("512Mi")
				in.Spec.Pools[0].Overrides = []api.NodeOverride{{NodeID: 1, JVM: &api.JVM{Options: []string{"-Xint"}}}}
			},
			nil,
		},
		"an override of no node": {
			func(in *cluster.Input) { in.Spec.Pools[0].Overrides = []api.NodeOverride{{NodeID: 9}} },
			[]string{"Error spec.pools[0].overrides[0].nodeID: pool nodes has no node 9; its nodes are 0, 1, 2"},
		},
		"volumes": {
			func(in *cluster.Input) {
				in.Spec.Pools[0].Volumes = []api.Volume{{Name: "a", Path: "data"}, {Name: "a", Path: "/x,y"}}
			},
			[]string{
				"Error spec.pools[0].volumes[0].path: data is not absolute; give an absolute path below one of the host's data roots",
				"Error spec.pools[0].volumes[1].name: there are two volumes named a; give each its own name",
				`Error spec.pools[0].volumes[1].path: "/x,y" cannot stand in Kafka's log.dirs; give a path without comma, line break and outer blanks`,
			},
		},
		"a selector that selects nothing": {
			func(in *cluster.Input) {
				in.Spec.Pools[0].Placement.Hosts = &api.HostPlacement{Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}}
			},
			[]string{`Error spec.pools[0].placement.hosts.selector: it selects nothing: "Like" is not a valid label selector operator; use matchLabels, or matchExpressions with In, NotIn, Exists or DoesNotExist`},
		},
		"listeners": {
			func(in *cluster.Input) {
				in.Spec.Listeners = []api.Listener{{Name: "a", Port: 9092}, {Name: "a", Port: 9093}, {Name: "b", Port: 9092}}
			},
			[]string{
				"Error spec.listeners[1].name: there are two listeners named a; give each its own name",
				"Error spec.listeners[2].port: port 9092 is already used by listener a; give each listener a port of its own",
			},
		},
		"ports that Castellan prefers": {
			func(in *cluster.Input) {
				in.Spec.Listeners = []api.Listener{{Name: "a", Port: 9090}, {Name: "b", Port: 9091}}
			},
			[]string{
				"Warning spec.listeners[0].port: port 9090 is preferred by the listener CONTROLLER of Castellan itself: where both meet on a host, this one gets a port of the host's range; use another port, for example 9092",
				"Warning spec.listeners[1].port: port 9091 is preferred by the listener INTERNAL of Castellan itself: where both meet on a host, this one gets a port of the host's range; use another port, for example 9092",
			},
		},
		"listeners called like Castellan's own": {
			func(in *cluster.Input) {
				in.Spec.Listeners = []api.Listener{{Name: "internal", Port: 9092}, {Name: "controller", Port: 9093}}
			},
			nil,
		},
		"a key that does not exist": {
			func(in *cluster.Input) { in.Spec.Config = api.Config{"num.io.thread": "8"} },
			[]string{"Error spec.config[num.io.thread]: Kafka 4.3 has no key num.io.thread; did you mean num.io.threads? (a plug-in's key goes into spec.extraConfig)"},
		},
		"a key of Castellan": {
			func(in *cluster.Input) { in.Spec.Config = api.Config{"node.id": "8"} },
			[]string{"Error spec.config[node.id]: Castellan sets node.id itself: node ids are given once and never reused; remove it; spec.pools[].firstNodeID governs it"},
		},
		"a key of the listener INTERNAL": {
			func(in *cluster.Input) { in.Spec.Config = api.Config{"listener.name.internal.ssl.client.auth": "none"} },
			[]string{"Error spec.config[listener.name.internal.ssl.client.auth]: Castellan sets listener.name.internal.ssl.client.auth itself: the listener INTERNAL is Castellan's own and runs with mutual TLS; remove it"},
		},
		"a wrong type, and out of range": {
			func(in *cluster.Input) {
				in.Spec.Pools[0].Config = api.Config{"num.io.threads": "many", "num.network.threads": "0"}
			},
			[]string{
				`Error spec.pools[0].config[num.io.threads]: num.io.threads: "many" is not a whole number of 32 bits; accepted: 1 or more`,
				`Error spec.pools[0].config[num.network.threads]: num.network.threads: "0" is too small; accepted: 1 or more`,
			},
		},
		"lists and nothing": {
			func(in *cluster.Input) {
				in.Spec.Config = api.Config{"log.cleanup.policy": `["delete"]`, "num.io.threads": "null"}
			},
			[]string{
				`Error spec.config[log.cleanup.policy]: the value is a list or an object, but Kafka's values are text; write it as text, for example "a,b"`,
				`Error spec.config[num.io.threads]: the key has no value; write one, or leave the key out`,
			},
		},
		"a key that must be the same on all nodes": {
			func(in *cluster.Input) {
				in.Spec.Pools[0].Overrides = []api.NodeOverride{{NodeID: 1, Config: api.Config{"min.insync.replicas": "1"}}}
			},
			[]string{"Error spec.pools[0].overrides[0].config[min.insync.replicas]: min.insync.replicas must be the same on all nodes; set it in spec.config"},
		},
		"extra keys": {
			func(in *cluster.Input) { in.Spec.ExtraConfig = api.Config{"my.plugin": "x", "num.io.threads": "8"} },
			[]string{
				"Warning spec.extraConfig[my.plugin]: Kafka 4.3 does not know my.plugin; it is passed on unchecked, and a change restarts every node",
				"Error spec.extraConfig[num.io.threads]: Kafka 4.3 knows num.io.threads; move it to spec.config, where its value is checked",
			},
		},
		"a controller's own value of what is cluster-wide": {
			func(in *cluster.Input) {
				in.Spec.Pools = []api.Pool{controllerPool(3), brokerPool(3)}
				in.Spec.Config, in.Spec.Pools[0].Config = api.Config{"num.io.threads": "10"}, api.Config{"num.io.threads": "8"}
			},
			[]string{"Error spec.pools[0].config[num.io.threads]: num.io.threads is also in spec.config, whose cluster-wide value would win on a controller; set it in one place only"},
		},
		"more replicas than brokers": {
			func(in *cluster.Input) {
				in.Spec.Config = api.Config{"default.replication.factor": "4", "min.insync.replicas": "5"}
				in.Spec.Pools[0].Config = api.Config{"offsets.topic.replication.factor": "6"}
			},
			[]string{
				"Error spec.config[default.replication.factor]: 4 replicas need 4 brokers, the pools have 3; use at most 3, or more brokers",
				"Error spec.config[min.insync.replicas]: 5 replicas need 5 brokers, the pools have 3; use at most 3, or more brokers",
				"Error spec.pools[0].config[offsets.topic.replication.factor]: 6 replicas need 6 brokers, the pools have 3; use at most 3, or more brokers",
			},
		},
		"min ISR above the replicas": {
			func(in *cluster.Input) {
				in.Spec.Config = api.Config{"default.replication.factor": "2", "min.insync.replicas": "3"}
			},
			[]string{"Error spec.config[min.insync.replicas]: min.insync.replicas 3 is above default.replication.factor 2, so nothing could ever be written with acks=all; use at most 1"},
		},
		"min ISR equal to the replicas": {
			func(in *cluster.Input) {
				in.Spec.Config = api.Config{"min.insync.replicas": "3", "share.coordinator.state.topic.min.isr": "3"}
			},
			[]string{
				"Warning spec.config[min.insync.replicas]: min.insync.replicas equals default.replication.factor: no broker can restart without stopping writes with acks=all, so rolling changes will hold; use 2",
				"Warning spec.config[share.coordinator.state.topic.min.isr]: share.coordinator.state.topic.min.isr equals share.coordinator.state.topic.replication.factor: no broker can restart without stopping writes with acks=all, so rolling changes will hold; use 2",
			},
		},
		"fewer replicas bring a lower min ISR": {
			func(in *cluster.Input) {
				in.Spec.Config = api.Config{"default.replication.factor": "1", "transaction.state.log.replication.factor": "2"}
			},
			nil,
		},
		"no room to restart": {
			func(in *cluster.Input) { in.Spec.Rollout.MaxUnavailable = new(intstr.FromInt32(0)) },
			[]string{"Error spec.rollout.maxUnavailable: 0 brokers leave nothing that may restart; use a number of at least 1, a percentage such as 10%, or Rack"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := good()
			tt.change(&in)
			m, problems := cluster.Resolve(in)
			if diff := cmp.Diff(tt.want, lines(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if cluster.HasErrors(problems) != (len(m.Nodes) == 0) {
				t.Errorf("errors %t, but a model of %d nodes", cluster.HasErrors(problems), len(m.Nodes))
			}
		})
	}
}

// TestChanges is about what an accepted spec does not let happen.
func TestChanges(t *testing.T) {
	old := func() api.KafkaClusterSpec {
		in := good(controllerPool(3), brokerPool(3))
		in.Spec.Pools[1].Volumes = []api.Volume{{Name: "d0", Size: quantity("10Gi"), Path: "/a"}, {Name: "d1"}}
		in.Spec.Listeners = []api.Listener{{Name: "client", Port: 9092}}
		return in.Spec
	}
	tests := map[string]struct {
		change func(*api.KafkaClusterSpec)
		want   []string
	}{
		"nothing":        {func(*api.KafkaClusterSpec) {}, nil},
		"more nodes":     {func(s *api.KafkaClusterSpec) { s.Pools[1].Replicas = 5 }, nil},
		"order of pools": {func(s *api.KafkaClusterSpec) { s.Pools[0], s.Pools[1] = s.Pools[1], s.Pools[0] }, nil},
		"back": {
			func(s *api.KafkaClusterSpec) { s.Version = "4.2.0" },
			[]string{"Error spec.version: going back from 4.3.1 to 4.2.0 is not possible: which metadata.version is finalized is not known now; keep 4.3.1 or a later one"},
		},
		"back within a release line": {
			func(s *api.KafkaClusterSpec) { s.Version = "4.3.0" },
			[]string{"Error spec.version: no Package provides Kafka 4.3.0; create a Package with its source; Packages exist for 3.9.2, 4.2.0, 4.3.1"},
		},
		"metadata version": {
			func(s *api.KafkaClusterSpec) { s.MetadataVersion = "4.3-IV0" },
			[]string{`Error spec.metadataVersion: the metadata version of a running cluster cannot be changed by this version of Castellan; keep ""`},
		},
		"a pool in place of another": {func(s *api.KafkaClusterSpec) { s.Pools[1].Name = "other" }, nil},
		"fewer brokers than replicas by default": {
			func(s *api.KafkaClusterSpec) {
				s.Pools[1].Replicas = 2
				s.Config = api.Config{"default.replication.factor": "2"}
			},
			[]string{"Error spec.config: topics get 3 replicas by default since the cluster began, and the pools now have 2; set transaction.state.log.replication.factor, share.coordinator.state.topic.replication.factor, offsets.topic.replication.factor to at most 2, or keep 3 brokers"},
		},
		"roles": {
			func(s *api.KafkaClusterSpec) { s.Pools[1].Roles = []api.Role{api.RoleController, api.RoleBroker} },
			[]string{
				"Error spec.pools[1].roles: the roles of pool brokers cannot change from broker; add another pool with the other roles",
				"Warning spec.pools: 6 controllers survive no more failures than 5; use an odd number, usually 3",
			},
		},
		"the first volume": {
			func(s *api.KafkaClusterSpec) { s.Pools[1].Volumes = s.Pools[1].Volumes[1:] },
			[]string{"Error spec.pools[1].volumes[0].name: volume d0 cannot become d1: its name is part of the data's path, and the first volume holds the metadata log; keep d0 in front, and put new volumes at the end"},
		},
		"a volume between": {
			func(s *api.KafkaClusterSpec) {
				s.Pools[1].Volumes = slices.Insert(s.Pools[1].Volumes, 1, api.Volume{Name: "d2"})
			},
			[]string{"Error spec.pools[1].volumes[2].name: volume d1 has data and cannot change its place among the others; keep the order of the volumes, and put new ones at the end"},
		},
		"a volume shrinks and one in place of another": {
			func(s *api.KafkaClusterSpec) {
				s.Pools[1].Volumes[0].Size, s.Pools[1].Volumes[1].Name = quantity("9Gi"), "d2"
			},
			[]string{"Error spec.pools[1].volumes[0].size: a volume cannot shrink from 10Gi to 9Gi; use at least 10Gi"},
		},
		"a volume's path": {
			func(s *api.KafkaClusterSpec) { s.Pools[1].Volumes[0].Path = "/b" },
			[]string{`Error spec.pools[1].volumes[0].path: the path of a volume with data cannot change; keep "/a"`},
		},
		"fewer volumes": {func(s *api.KafkaClusterSpec) { s.Pools[1].Volumes = s.Pools[1].Volumes[:1] }, nil},
		"more volumes": {
			func(s *api.KafkaClusterSpec) {
				s.Pools[1].Volumes = append(s.Pools[1].Volumes, api.Volume{Name: "d2", Path: "x"})
			},
			[]string{"Error spec.pools[1].volumes[2].path: x is not absolute; give an absolute path below one of the host's data roots"},
		},
		"a listener's port": {
			func(s *api.KafkaClusterSpec) { s.Listeners[0].Port = 9095 },
			[]string{"Error spec.listeners[0].port: the port of listener client cannot change from 9092: clients know it; add another listener with the new port, move the clients, then remove the old one"},
		},
		"a listener comes and one goes": {
			func(s *api.KafkaClusterSpec) { s.Listeners = []api.Listener{{Name: "other", Port: 9095}} }, nil,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := good()
			in.Spec, in.Accepted = old(), new(old())
			tt.change(&in.Spec)
			_, problems := cluster.Resolve(in)
			if diff := cmp.Diff(tt.want, lines(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMaxUnavailable(t *testing.T) {
	for value, ok := range map[intstr.IntOrString]bool{
		intstr.FromInt32(1): true, intstr.FromInt32(300): true, intstr.FromInt32(-1): false,
		intstr.FromString("Rack"): true, intstr.FromString("10%"): true, intstr.FromString("100%"): true,
		intstr.FromString("0%"): false, intstr.FromString("101%"): false, intstr.FromString("2"): false, intstr.FromString("rack"): false, intstr.FromString(""): false,
	} {
		in := good()
		in.Spec.Rollout.MaxUnavailable = &value
		m, problems := cluster.Resolve(in)
		switch {
		case ok && (len(problems) > 0 || m.MaxUnavailable != value):
			t.Errorf("%s: %v, resolved to %s", value.String(), problems, m.MaxUnavailable.String())
		case !ok && (len(problems) != 1 || problems[0].Path != "spec.rollout.maxUnavailable"):
			t.Errorf("%q is accepted or refused for something else: %v", value.String(), problems)
		}
	}
	if m := resolved(t, good()); m.MaxUnavailable != intstr.FromInt32(1) {
		t.Errorf("without a choice it is %s, want 1", m.MaxUnavailable.String())
	}
}

func TestCompareVersions(t *testing.T) {
	ascending := []string{"", "3.9", "3.9.2", "3.10.0", "4.0.0", "4.3.1", "4.10.0"}
	for i, a := range ascending {
		for j, b := range ascending {
			if got, want := sign(cluster.CompareVersions(a, b)), sign(i-j); got != want {
				t.Errorf("%q against %q: %d, want %d", a, b, got, want)
			}
		}
	}
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	default:
		return 0
	}
}
