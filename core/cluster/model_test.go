package cluster_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
)

func nodeOf(t *testing.T, m cluster.Model, id int32) cluster.Node {
	t.Helper()
	i := slices.IndexFunc(m.Nodes, func(n cluster.Node) bool { return n.ID == id })
	if i < 0 {
		t.Fatalf("no node %d", id)
	}
	return m.Nodes[i]
}

func idsByPool(m cluster.Model) map[string][]int32 {
	out := map[string][]int32{}
	for _, n := range m.Nodes {
		out[n.Pool] = append(out[n.Pool], n.ID)
	}
	return out
}

func TestNodeIDs(t *testing.T) {
	first := func(p api.Pool, id int32) api.Pool {
		p.FirstNodeID = &id
		return p
	}
	given := func(pool string, ids ...int32) api.PoolNodeIDs { return api.PoolNodeIDs{Pool: pool, IDs: ids} }
	tests := map[string]struct {
		pools []api.Pool
		given []api.PoolNodeIDs
		want  map[string][]int32
	}{
		"one pool": {[]api.Pool{combinedPool(3)}, nil, map[string][]int32{"nodes": {0, 1, 2}}},
		"two pools": {
			[]api.Pool{controllerPool(3), brokerPool(2)},
			nil,
			map[string][]int32{"controllers": {0, 1, 2}, "brokers": {100, 101}},
		},
		"a pool of more than a hundred": {
			[]api.Pool{controllerPool(1), brokerPool(101), {Name: "more", Roles: []api.Role{api.RoleBroker}, Replicas: 1}},
			nil,
			map[string][]int32{"controllers": {0}, "brokers": count(100, 101), "more": {300}},
		},
		"a first id leaves the lower hundred to others": {
			[]api.Pool{controllerPool(3), first(brokerPool(3), 100)},
			nil,
			map[string][]int32{"controllers": {0, 1, 2}, "brokers": {100, 101, 102}},
		},
		"a large pool does not run into a first id": {
			[]api.Pool{controllerPool(3), brokerPool(101), first(api.Pool{Name: "f", Roles: []api.Role{api.RoleBroker}, Replicas: 1}, 150)},
			nil,
			map[string][]int32{"controllers": {0, 1, 2}, "brokers": count(200, 101), "f": {150}},
		},
		"more nodes keep the ids": {
			[]api.Pool{brokerPool(4), controllerPool(3)},
			[]api.PoolNodeIDs{given("controllers", 0, 1, 2), given("brokers", 100, 101, 102)},
			map[string][]int32{"controllers": {0, 1, 2}, "brokers": {100, 101, 102, 103}},
		},
		"ids of a pool that is gone are never given again": {
			[]api.Pool{controllerPool(1), brokerPool(2)},
			[]api.PoolNodeIDs{given("controllers", 0), given("gone", 100, 101)},
			map[string][]int32{"controllers": {0}, "brokers": {200, 201}},
		},
		"growing past another pool's ids": {
			[]api.Pool{first(controllerPool(1), 2), first(brokerPool(1), 0), {Name: "more", Roles: []api.Role{api.RoleBroker}, Replicas: 3}},
			[]api.PoolNodeIDs{given("controllers", 2), given("brokers", 0), given("more", 1)},
			map[string][]int32{"controllers": {2}, "brokers": {0}, "more": {1, 3, 4}},
		},
		"a first id goes on after its own": {
			[]api.Pool{first(combinedPool(3), 5)},
			[]api.PoolNodeIDs{given("nodes", 5, 7)},
			map[string][]int32{"nodes": {5, 6, 7}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in := good(tt.pools...)
			in.NodeIDs = tt.given
			before, _ := json.Marshal(tt.given)
			m := resolved(t, in)
			if diff := cmp.Diff(tt.want, idsByPool(m)); diff != "" {
				t.Errorf("ids (-want +got):\n%s", diff)
			}
			if after, _ := json.Marshal(tt.given); string(after) != string(before) {
				t.Error("the input was changed")
			}
			in.NodeIDs = m.NodeIDs
			if diff := cmp.Diff(tt.want, idsByPool(resolved(t, in))); diff != "" {
				t.Errorf("ids change with the next pass:\n%s", diff)
			}
		})
	}
}

func count(from int32, n int) []int32 {
	var ids []int32
	for i := range n {
		ids = append(ids, from+int32(i))
	}
	return ids
}

func TestDefaultsOfReplication(t *testing.T) {
	for brokers, want := range map[int32][2]string{1: {"1", "1"}, 2: {"2", "1"}, 3: {"3", "2"}, 5: {"3", "2"}} {
		m := resolved(t, good(controllerPool(3), brokerPool(brokers)))
		static := nodeOf(t, m, 100).Process.Config
		got := map[string]string{
			"default.replication.factor":                         static["default.replication.factor"],
			"offsets.topic.replication.factor":                   static["offsets.topic.replication.factor"],
			"transaction.state.log.replication.factor":           static["transaction.state.log.replication.factor"],
			"transaction.state.log.min.isr":                      static["transaction.state.log.min.isr"],
			"share.coordinator.state.topic.replication.factor":   static["share.coordinator.state.topic.replication.factor"],
			"share.coordinator.state.topic.min.isr":              static["share.coordinator.state.topic.min.isr"],
			"min.insync.replicas (cluster-wide, lives in Kafka)": m.Dynamic["min.insync.replicas"],
		}
		for key, value := range got {
			expected := want[0]
			if strings.Contains(key, "min.") {
				expected = want[1]
			}
			if value != expected {
				t.Errorf("%d brokers: %s is %q, want %s", brokers, key, value, expected)
			}
		}
	}
	in := good()
	in.Spec.Version = "3.9.2"
	if _, ok := nodeOf(t, resolved(t, in), 0).Process.Config["share.coordinator.state.topic.replication.factor"]; ok {
		t.Error("3.9 gets a key that it does not know")
	}
}

// TestWhereAKeyLives: what restarts a node stands in its file, everything else in Kafka.
func TestWhereAKeyLives(t *testing.T) {
	in := good(controllerPool(3), brokerPool(3))
	in.Spec.Config = api.Config{
		"log.retention.ms":                        "1000", // live for all, read by both
		"message.max.bytes":                       "2000", // live
		"replica.fetch.max.bytes":                 "3000", // a broker's, only at a restart
		"leader.imbalance.check.interval.seconds": "60",   // a controller's
		"num.network.threads":                     "6",    // a thread pool within double: live
		"background.threads":                      " 50 ", // beyond double: file
		"listener.name.client.max.connections":    "10",   // live
	}
	in.Spec.ExtraConfig = api.Config{"my.plugin": "x"}
	in.Spec.Pools[1].Config = api.Config{"log.cleaner.threads": "2", "message.max.bytes": "2500"}
	in.Spec.Pools[1].Overrides = []api.NodeOverride{{NodeID: 101, Config: api.Config{"log.cleaner.threads": "1", "replica.fetch.max.bytes": "4000"}}}
	in.Spec.Listeners = []api.Listener{{Name: "client", Port: 9092}}
	m := resolved(t, in)

	want := map[string]string{"log.retention.ms": "1000", "message.max.bytes": "2000", "num.network.threads": "6", "min.insync.replicas": "2", "listener.name.client.max.connections": "10"}
	if diff := cmp.Diff(want, m.Dynamic); diff != "" {
		t.Errorf("cluster-wide in Kafka (-want +got):\n%s", diff)
	}
	for id, want := range map[int32]map[string]string{
		0:   nil,
		100: {"log.cleaner.threads": "2", "message.max.bytes": "2500"},
		101: {"log.cleaner.threads": "1", "message.max.bytes": "2500"},
	} {
		if diff := cmp.Diff(want, nodeOf(t, m, id).Dynamic); diff != "" {
			t.Errorf("node %d in Kafka (-want +got):\n%s", id, diff)
		}
	}
	common := map[string]string{"allow.everyone.if.no.acl.found": "true", "my.plugin": "x", "default.replication.factor": "3"}
	broker := map[string]string{
		"replica.fetch.max.bytes": "3000", "background.threads": "50", "offsets.topic.replication.factor": "3",
		"transaction.state.log.replication.factor": "3", "transaction.state.log.min.isr": "2",
		"share.coordinator.state.topic.replication.factor": "3", "share.coordinator.state.topic.min.isr": "2",
	}
	for id, add := range map[int32][]map[string]string{
		0:   {common, {"leader.imbalance.check.interval.seconds": "60"}},
		100: {common, broker},
		101: {common, broker, {"replica.fetch.max.bytes": "4000"}},
	} {
		want := map[string]string{}
		for _, more := range add {
			maps.Copy(want, more)
		}
		if diff := cmp.Diff(want, nodeOf(t, m, id).Process.Config); diff != "" {
			t.Errorf("file of node %d (-want +got):\n%s", id, diff)
		}
	}
}

// A cluster-wide size in Kafka outranks a broker's file, and a broker that finds the two
// too far apart at its start drops every cluster-wide key (measured, see kconf.Key.Live).
func TestThreadPoolsStandTogether(t *testing.T) {
	in := good()
	in.Spec.Config = api.Config{"num.io.threads": "12"}
	in.Spec.Pools[0].Overrides = []api.NodeOverride{{NodeID: 1, Config: api.Config{"num.io.threads": "32"}}}
	m := resolved(t, in)
	if _, live := m.Dynamic["num.io.threads"]; live {
		t.Error("num.io.threads lives in Kafka beside the file that needs it")
	}
	for id, want := range map[int32]string{0: "12", 1: "32", 2: "12"} {
		if n := nodeOf(t, m, id); n.Process.Config["num.io.threads"] != want || n.Dynamic["num.io.threads"] != "" {
			t.Errorf("node %d: file %q, Kafka %q, want %s in the file", id, n.Process.Config["num.io.threads"], n.Dynamic["num.io.threads"], want)
		}
	}
}

// A controller takes what is its own only from its file.
func TestControllerOwnValues(t *testing.T) {
	in := good(controllerPool(3), brokerPool(3))
	in.Spec.Pools[0].Config = api.Config{"num.io.threads": "10", "log.cleaner.threads": "2"}
	n := nodeOf(t, resolved(t, in), 0)
	if n.Dynamic != nil || n.Process.Config["num.io.threads"] != "10" {
		t.Errorf("file %v, in Kafka %v", n.Process.Config, n.Dynamic)
	}
	if _, ok := n.Process.Config["log.cleaner.threads"]; ok {
		t.Error("a broker's key reached a controller")
	}
}

// TestNoNeedlessRestart lists changes of a spec that must leave every process as it is.
func TestNoNeedlessRestart(t *testing.T) {
	base := func() cluster.Input {
		in := good(controllerPool(3), brokerPool(3))
		in.Spec.Config = api.Config{"num.replica.fetchers": "2"}
		in.Spec.Listeners = []api.Listener{{Name: "a", Port: 9092}, {Name: "b", Port: 9093, TLS: &api.ListenerTLS{}}}
		in.Spec.Pools[1].JVM.Heap = quantity("2Gi")
		in.Spec.Pools[1].Resources = memory("4Gi")
		return in
	}
	before := hashes(resolved(t, base()))
	for name, change := range map[string]func(*cluster.Input){
		"order of listeners": func(in *cluster.Input) { slices.Reverse(in.Spec.Listeners) },
		"order of pools and roles": func(in *cluster.Input) {
			in.NodeIDs = []api.PoolNodeIDs{{Pool: "controllers", IDs: []int32{0, 1, 2}}, {Pool: "brokers", IDs: []int32{100, 101, 102}}}
			slices.Reverse(in.Spec.Pools)
		},
		"another way to write a quantity": func(in *cluster.Input) {
			in.Spec.Pools[1].JVM.Heap = quantity("2048Mi")
			in.Spec.Pools[1].Resources = memory("4096Mi")
		},
		"live keys": func(in *cluster.Input) {
			in.Spec.Config["log.retention.ms"], in.Spec.Config["num.replica.fetchers"] = "7", "1"
		},
		"blanks around a value": func(in *cluster.Input) { in.Spec.Config["num.replica.fetchers"] = " 2 " },
		"rollout, state, pause, deletion": func(in *cluster.Input) {
			in.Spec.State, in.Spec.Paused, in.Spec.DeletionPolicy = api.StateStopped, true, api.DeletionDelete
		},
		"placement and volume sizes": func(in *cluster.Input) {
			in.Spec.Pools[1].Placement.Hosts = &api.HostPlacement{MaxPerHost: 9}
			in.Spec.Pools[1].Volumes = []api.Volume{{Name: "data", Size: quantity("9Gi")}}
		},
		"more nodes where the replicas stay": func(in *cluster.Input) { in.Spec.Pools[1].Replicas = 4 },
	} {
		in := base()
		change(&in)
		after := hashes(resolved(t, in))
		for id, hash := range before {
			if after[id] != hash {
				t.Errorf("%s restarts node %d", name, id)
			}
		}
	}
	in := base()
	in.Spec.Config["replica.fetch.max.bytes"] = "9"
	after := hashes(resolved(t, in))
	if after[0] != before[0] || after[100] == before[100] {
		t.Errorf("a broker's key restarts a controller: %t, a broker: %t", after[0] != before[0], after[100] != before[100])
	}
}

func hashes(m cluster.Model) map[int32]string {
	out := map[int32]string{}
	for _, n := range m.Nodes {
		out[n.ID] = layout.ProcessHash(n.Process)
	}
	return out
}

func TestNodes(t *testing.T) {
	in := good(controllerPool(1), brokerPool(1))
	in.Spec.Pools[1].JVM = api.JVM{Heap: quantity("1.5Gi"), Options: []string{"-Xint"}}
	in.Spec.Pools[1].Overrides = []api.NodeOverride{{NodeID: 100, JVM: &api.JVM{Options: []string{"-XX:+UseZGC"}}, Resources: new(memory("3Gi"))}}
	in.Spec.Listeners = []api.Listener{{Name: "tls", Port: 9093, TLS: &api.ListenerTLS{}}, {Name: "internal", Port: 9092}}
	in.Spec.Authorization = &api.Authorization{Type: api.AuthorizationACL}
	m := resolved(t, in)
	c, b := nodeOf(t, m, 0), nodeOf(t, m, 100)
	if c.Process.HeapBytes != 512<<20 || b.Process.HeapBytes != 3<<29 {
		t.Errorf("heaps %d and %d", c.Process.HeapBytes, b.Process.HeapBytes)
	}
	if diff := cmp.Diff([]string{"-XX:+UseZGC"}, b.Process.JVMOptions); diff != "" {
		t.Errorf("JVM options: %s", diff)
	}
	if limit := b.Process.Resources.Limits.Memory().String(); limit != "3Gi" {
		t.Errorf("memory limit %s", limit)
	}
	if diff := cmp.Diff(map[string]int32{"CONTROLLER": 9090}, c.Ports); diff != "" || len(c.Process.Listeners) > 0 {
		t.Errorf("controller's listeners %v, ports %s", c.Process.Listeners, diff)
	}
	if diff := cmp.Diff(map[string]int32{"INTERNAL": 9091, "internal": 9092, "tls": 9093}, b.Ports); diff != "" {
		t.Errorf("broker's ports: %s", diff)
	}
	if diff := cmp.Diff([]api.NodeListener{{Name: "internal", Protocol: "PLAINTEXT"}, {Name: "tls", Protocol: "SSL"}}, b.Process.Listeners); diff != "" {
		t.Errorf("broker's listeners: %s", diff)
	}
	if b.Process.Config["allow.everyone.if.no.acl.found"] != "false" {
		t.Error("authorization by ACL lets everyone in")
	}
	if diff := cmp.Diff([]string{"data"}, b.Process.Volumes); diff != "" || b.Process.Package != "sha256:4.3.1" || b.Process.Layout != layout.Current {
		t.Errorf("process %+v", b.Process)
	}
}

func TestPackageThatIsNotReadyIsWaitedFor(t *testing.T) {
	in := good()
	in.Catalog.Packages[0].Status = api.PackageStatus{State: api.PackageFailed, Message: "no source answers"}
	n := nodeOf(t, resolved(t, in), 0)
	if n.Process.Package != "" || n.PackageWait != "waiting for Package kafka-4.3.1 (Kafka 4.3.1): no source answers" {
		t.Errorf("package %q, waits: %q", n.Process.Package, n.PackageWait)
	}
}

// The example of the API's description, as far as its fields exist.
func TestExample(t *testing.T) {
	const example = `
version: 4.3.1
clusterID: ""
package: ""
metadataVersion: ""
config:
  min.insync.replicas: 2
  default.replication.factor: 3
extraConfig: {}
pools:
- name: controllers
  roles: [controller]
  replicas: 3
  volumes: [{name: meta, size: 10Gi}]
- name: brokers
  roles: [broker]
  replicas: 3
  firstNodeID: 100
  jvm: {heap: 2Gi, options: []}
  resources: {}
  volumes:
  - {name: data-0, size: 100Gi, storageClassName: fast}
  config: {num.io.threads: 8}
  overrides:
  - {nodeID: 102, config: {num.io.threads: 16}}
  placement:
    hosts: {selector: {matchLabels: {role: kafka}}, maxPerHost: 1}
listeners:
- name: internal
  port: 9092
  tls: {}
  authentication: {type: MutualTLS}
  exposure: {type: Internal}
authorization: {type: ACL, superUsers: []}
rollout: {maxUnavailable: 1}
deletionPolicy: Retain
paused: false
`
	in := good()
	in.Spec = api.KafkaClusterSpec{}
	if err := yaml.UnmarshalStrict([]byte(example), &in.Spec); err != nil {
		t.Fatal(err)
	}
	m, problems := cluster.Resolve(in)
	if len(problems) > 0 {
		t.Fatalf("problems: %v", lines(problems))
	}
	if diff := cmp.Diff(map[string][]int32{"controllers": {0, 1, 2}, "brokers": {100, 101, 102}}, idsByPool(m)); diff != "" {
		t.Error(diff)
	}
	if got := nodeOf(t, m, 102).Dynamic["num.io.threads"]; got != "16" {
		t.Errorf("num.io.threads of node 102 is %q", got)
	}
}

// FuzzResolve: whatever a file holds, Resolve answers.
func FuzzResolve(f *testing.F) {
	f.Add([]byte("version: 4.3.1\npools: [{name: a, roles: [broker, controller], replicas: 3}]"), []byte("{}"))
	f.Add([]byte("version: 4.3.1\nconfig: {num.io.threads: 99, a: [1]}\npools: [{name: a, roles: [broker], replicas: 3, firstNodeID: -1, overrides: [{nodeID: 1, jvm: {heap: 1Ei}}]}]"), []byte("version: 4.2.0\npools: [{name: a, roles: [controller], replicas: 5}]"))
	f.Add([]byte("pools: [{replicas: 2147483647}, {replicas: -2147483648}]\nrollout: {maxUnavailable: 5%}\nlisteners: [{}, {}]"), []byte("null"))
	f.Fuzz(func(t *testing.T, spec, accepted []byte) {
		in := good()
		in.Spec, in.Accepted = api.KafkaClusterSpec{}, &api.KafkaClusterSpec{}
		if yaml.Unmarshal(spec, &in.Spec) != nil || yaml.Unmarshal(accepted, in.Accepted) != nil {
			return
		}
		m, problems := cluster.Resolve(in)
		for _, p := range problems {
			if p.Path == "" || p.Reason == "" || (p.Severity != cluster.Error && p.Severity != cluster.Warning) {
				t.Errorf("a problem without a path or a reason: %+v", p)
			}
		}
		seen := map[int32]bool{}
		for _, n := range m.Nodes {
			if seen[n.ID] {
				t.Errorf("two nodes %d", n.ID)
			}
			seen[n.ID] = true
		}
	})
}
