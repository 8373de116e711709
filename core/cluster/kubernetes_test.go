package cluster_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

// pods is an input of pods without any problem: controllers, then three brokers.
func pods(pools ...api.Pool) cluster.Input {
	if len(pools) == 0 {
		pools = []api.Pool{controllerPool(3), brokerPool(3)}
	}
	for i := range pools {
		pools[i].Placement = api.Placement{Kubernetes: &api.KubernetesPlacement{}}
		pools[i].Volumes = []api.Volume{{Name: "data", Size: quantity("10Gi")}}
	}
	in := good(pools...)
	in.Catalog = cluster.Catalog{}
	in.Supervisor = "castellan:1"
	return in
}

func listening(exposure api.Exposure) func(*cluster.Input) {
	return func(in *cluster.Input) {
		in.Spec.Listeners = []api.Listener{{Name: "client", Port: 9092, Exposure: exposure}}
	}
}

func named(name string) func(*cluster.Input) {
	return func(in *cluster.Input) { in.Name = name }
}

// resources are what a pool or node asks for and may have of memory.
func resources(request, limit string) corev1.ResourceRequirements {
	r := memory(limit)
	r.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(request)}
	return r
}

type problemCase struct {
	change func(*cluster.Input)
	want   []string
}

func checkProblems(t *testing.T, base func() cluster.Input, tests map[string]problemCase) {
	t.Helper()
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for range 8 { // the order of problems is the same each time
				in := base()
				tt.change(&in)
				_, problems := cluster.Resolve(in)
				if diff := cmp.Diff(tt.want, lines(problems)); diff != "" {
					t.Fatalf("problems (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestProblemsOfPods(t *testing.T) {
	const shorter = "; use a shorter name of lower-case letters, digits and dashes that begins with a letter"
	checkProblems(t, func() cluster.Input { return pods() }, map[string]problemCase{
		"nothing": {func(*cluster.Input) {}, nil},
		"pods and hosts in one cluster": {
			func(in *cluster.Input) {
				in.Spec.Pools[1].Placement, in.Spec.Pools[1].Volumes = api.Placement{Hosts: &api.HostPlacement{}}, nil
			},
			[]string{"Error spec.pools[1].placement: pool brokers runs on hosts and others in pods, but the nodes of one cluster must reach each other on one network; give every pool placement.kubernetes, or none"},
		},
		"one pool on both": {
			func(in *cluster.Input) { in.Spec.Pools[1].Placement.Hosts = &api.HostPlacement{} },
			[]string{"Error spec.pools[1].placement: the pool is placed on hosts and on Kubernetes; set hosts or kubernetes, not both"},
		},
		"a Package": {
			func(in *cluster.Input) { in.Spec.Package = "mine" },
			[]string{"Error spec.package: pods run images, not Packages; leave it out, and name an image in placement.kubernetes.image if the default does not suit"},
		},
		"a version without a Package needs none": {func(in *cluster.Input) { in.Spec.Version = "4.2.1" }, nil},
		"a version without a key table": {
			func(in *cluster.Input) { in.Spec.Version = "2.8.0" },
			[]string{"Error spec.version: Kafka 2.8.0 is not supported; supported are the releases of 3.9, 4.0, 4.1, 4.2, 4.3"},
		},
		"volumes without size, of no size, with a path": {
			func(in *cluster.Input) {
				in.Spec.Pools[0].Volumes = nil
				in.Spec.Pools[1].Volumes = []api.Volume{{Name: "a", Size: quantity("0")}, {Name: "b", Size: quantity("1Gi"), Path: "/data"}}
			},
			[]string{
				"Error spec.pools[0].volumes[0].size: volume data has no size; give one, for example 100Gi: a PersistentVolumeClaim needs it",
				"Error spec.pools[1].volumes[0].size: 0 is no size of a volume; give one, for example 100Gi",
				"Error spec.pools[1].volumes[1].path: a volume of a pod has no path on a host; leave it out",
			},
		},
		"ports of Castellan": {
			func(in *cluster.Input) {
				for i, port := range []int32{8080, 8443, 9090, 9091, 9092, 9092} {
					in.Spec.Listeners = append(in.Spec.Listeners, api.Listener{Name: string(rune('a' + i)), Port: port})
				}
			},
			[]string{
				"Error spec.listeners[0].port: port 8080 belongs to the node's probes; use another port, for example 9092",
				"Error spec.listeners[1].port: port 8443 belongs to the node's reports; use another port, for example 9092",
				"Error spec.listeners[2].port: port 9090 belongs to the listener CONTROLLER; use another port, for example 9092",
				"Error spec.listeners[3].port: port 9091 belongs to the listener INTERNAL; use another port, for example 9092",
				"Error spec.listeners[5].port: port 9092 is already used by listener e; give each listener a port of its own",
			},
		},
		"heap that leaves nothing": {
			func(in *cluster.Input) {
				in.Spec.Pools[0].JVM.Heap, in.Spec.Pools[0].Resources = quantity("1Gi"), memory("1Gi")
				in.Spec.Pools[1].Resources = memory("100Mi")
			},
			[]string{
				"Error spec.pools[0].jvm.heap: the heap of 1Gi leaves nothing of the memory limit of 1Gi; keep the heap to about half of the limit",
				"Error spec.pools[1].jvm.heap: the heap of 128Mi leaves nothing of the memory limit of 100Mi; keep the heap to about half of the limit",
			},
		},
		"requests above limits": {
			func(in *cluster.Input) {
				in.Spec.Pools[0].Resources = resources("3Gi", "2Gi")
				in.Spec.Pools[1].Overrides = []api.NodeOverride{{NodeID: 101, Resources: new(resources("5Gi", "4Gi"))}}
			},
			[]string{
				"Error spec.pools[0].resources.requests[memory]: 3Gi is more than the limit of 2Gi; request at most the limit",
				"Error spec.pools[1].overrides[0].resources.requests[memory]: 5Gi is more than the limit of 4Gi; request at most the limit",
			},
		},
		"a name with dots":        {named("orders.eu"), []string{`Error metadata.name: "orders.eu" cannot begin the names of Services` + shorter}},
		"a name of digits":        {named("0rders"), []string{`Error metadata.name: "0rders" cannot begin the names of Services` + shorter}},
		"a name that just fits":   {named(strings.Repeat("a", 48)), nil},
		"a name that is too long": {named(strings.Repeat("a", 49)), []string{"Error metadata.name: the name of a node, " + strings.Repeat("a", 49) + "-102, would have more than 52 characters" + shorter}},
		"a name too long for ids that are given": {
			func(in *cluster.Input) {
				in.Name = strings.Repeat("a", 45)
				in.Spec.Pools[1].FirstNodeID = new(int32(1_000_000))
			},
			[]string{"Error metadata.name: the name of a node, " + strings.Repeat("a", 45) + "-1000002, would have more than 52 characters" + shorter},
		},
		"a name too long for ids that were given": {
			func(in *cluster.Input) {
				in.Name = strings.Repeat("a", 47)
				in.NodeIDs = []api.PoolNodeIDs{{Pool: "brokers", IDs: []int32{100, 101, 1099}}, {Pool: "controllers", IDs: []int32{0, 1, 2}}}
			},
			nil,
		},
		"a listener whose Service has too long a name": {
			func(in *cluster.Input) {
				in.Name = strings.Repeat("a", 40)
				in.Spec.Listeners = []api.Listener{
					{Name: "abcdefghijklmnopqrs", Port: 9092, Exposure: api.Exposure{Type: api.ExposureNodePort}},
					{Name: "abcdefghijklmnopqr", Port: 9093}, // it needs none
				}
			},
			[]string{"Error spec.listeners[0].name: the name of its Service, " + strings.Repeat("a", 40) + "-bootstrap-abcdefghijklmnopqrs, would have more than 63 characters; use a shorter name for the listener or the cluster"},
		},
	})
}

func TestProblemsOfExposures(t *testing.T) {
	checkProblems(t, func() cluster.Input { return pods() }, map[string]problemCase{
		"all kinds": {
			func(in *cluster.Input) {
				in.Spec.Listeners = []api.Listener{
					{Name: "a", Port: 1000},
					{Name: "b", Port: 1001, Exposure: api.Exposure{Type: api.ExposureInternal}},
					{Name: "c", Port: 1002, Exposure: api.Exposure{Type: api.ExposureNodePort, Host: "{listener}-{id}.{cluster}.{namespace}", AddressType: corev1.NodeExternalIP}},
					{Name: "d", Port: 1003, Exposure: api.Exposure{Type: api.ExposureLoadBalancer, LoadBalancerClass: "x", BootstrapHost: "fd00::1"}},
				}
			},
			nil,
		},
		"the address of a host": {
			listening(api.Exposure{Type: api.ExposureHostAddress}),
			[]string{"Error spec.listeners[0].exposure.type: pods have no host address; use Internal, NodePort or LoadBalancer"},
		},
		"what has no effect": {
			listening(api.Exposure{Host: "a", BootstrapHost: "b", AddressType: corev1.NodeHostName, Annotations: map[string]string{"a": "b"}, BootstrapAnnotations: map[string]string{"a": "b"}, LoadBalancerClass: "c"}),
			noEffect("addressType", "host", "bootstrapHost", "annotations", "bootstrapAnnotations", "loadBalancerClass"),
		},
		"a class of load balancers without one": {
			listening(api.Exposure{Type: api.ExposureNodePort, LoadBalancerClass: "x"}),
			[]string{"Error spec.listeners[0].exposure.loadBalancerClass: a Service of type NodePort has no load balancer; leave it out, or use LoadBalancer"},
		},
		"one host for all load balancers": {
			listening(api.Exposure{Type: api.ExposureLoadBalancer, Host: "kafka.example.com"}),
			[]string{"Error spec.listeners[0].exposure.host: every broker would advertise kafka.example.com; put {id} into it, for example broker-{id}.example.com"},
		},
		"one host for all ports": {
			listening(api.Exposure{Type: api.ExposureNodePort, Host: "localhost"}),
			[]string{"Warning spec.listeners[0].exposure.host: every broker advertises localhost, but a broker's port answers only on the machine that it runs on; put {id} into it, for example broker-{id}.example.com, unless there is one machine or something in front of them"},
		},
		"one host for one broker": {
			func(in *cluster.Input) {
				in.Spec.Pools[1].Replicas = 1
				listening(api.Exposure{Type: api.ExposureLoadBalancer, Host: "kafka.example.com"})(in)
			},
			nil,
		},
		"placeholders": {
			listening(api.Exposure{
				Type: api.ExposureLoadBalancer, Host: "{id}.{rack}", BootstrapHost: "b-{id}",
				Annotations: map[string]string{"z": "{node}", "a": "{}"}, BootstrapAnnotations: map[string]string{"y": "{id}", "x": "{cluster}"},
			}),
			[]string{
				"Error spec.listeners[0].exposure.host: {rack} stands for nothing here; use {id}, {cluster}, {namespace} or {listener}",
				"Error spec.listeners[0].exposure.bootstrapHost: {id} stands for nothing here; use {cluster}, {namespace} or {listener}",
				"Error spec.listeners[0].exposure.annotations[a]: {} stands for nothing here; use {id}, {cluster}, {namespace} or {listener}",
				"Error spec.listeners[0].exposure.annotations[z]: {node} stands for nothing here; use {id}, {cluster}, {namespace} or {listener}",
				"Error spec.listeners[0].exposure.bootstrapAnnotations[y]: {id} stands for nothing here; use {cluster}, {namespace} or {listener}",
			},
		},
		"no hosts": {
			listening(api.Exposure{Type: api.ExposureNodePort, Host: "b-{id}:9092", BootstrapHost: "https://kafka"}),
			[]string{
				`Error spec.listeners[0].exposure.host: "b-0:9092" is neither a host name nor an IP address; give one without scheme and port, for example kafka.example.com`,
				`Error spec.listeners[0].exposure.bootstrapHost: "https://kafka" is neither a host name nor an IP address; give one without scheme and port, for example kafka.example.com`,
			},
		},
	})
	checkProblems(t, func() cluster.Input { return good() }, map[string]problemCase{
		"Services on hosts": {
			func(in *cluster.Input) {
				in.Spec.Listeners = []api.Listener{
					{Name: "a", Port: 1, Exposure: api.Exposure{Type: api.ExposureNodePort}},
					{Name: "b", Port: 2, Exposure: api.Exposure{Type: api.ExposureLoadBalancer, Host: "x"}},
					{Name: "c", Port: 3, Exposure: api.Exposure{Type: api.ExposureHostAddress}},
				}
			},
			[]string{
				"Error spec.listeners[0].exposure.type: NodePort is a kind of Service of Kubernetes, and these nodes run on hosts; use Internal or HostAddress",
				"Error spec.listeners[1].exposure.type: LoadBalancer is a kind of Service of Kubernetes, and these nodes run on hosts; use Internal or HostAddress",
			},
		},
		"an image on hosts": {
			func(in *cluster.Input) { in.Spec.Pools[0].Overrides = []api.NodeOverride{{NodeID: 1, Image: "x"}} },
			[]string{"Error spec.pools[0].overrides[0].image: hosts run Packages, not images; leave it out"},
		},
	})
}

func noEffect(fields ...string) []string {
	var out []string
	for _, f := range fields {
		out = append(out, "Error spec.listeners[0].exposure."+f+": the listener has no Services of its own, so it would have no effect; leave it out, or use NodePort or LoadBalancer")
	}
	return out
}

// TestChangesOfPods is about what an accepted spec of pods does and does not let happen.
func TestChangesOfPods(t *testing.T) {
	const stays = "Error spec.listeners[0].exposure: where a listener is reached cannot change: brokers that run would go on advertising the old place; add another listener, move the clients, then remove this one"
	base := func() cluster.Input {
		accepted := func() cluster.Input {
			in := pods()
			in.Spec.Pools[1].Volumes = []api.Volume{{Name: "d0", Size: quantity("10Gi"), StorageClassName: "fast"}, {Name: "d1", Size: quantity("10Gi")}}
			listening(api.Exposure{Type: api.ExposureNodePort})(&in)
			return in
		}
		in := accepted()
		in.Accepted = new(accepted().Spec)
		return in
	}
	volumes := func(change func(v []api.Volume) []api.Volume) func(*cluster.Input) {
		return func(in *cluster.Input) { in.Spec.Pools[1].Volumes = change(in.Spec.Pools[1].Volumes) }
	}
	more := api.Volume{Name: "d2", Size: quantity("1Gi")}
	checkProblems(t, base, map[string]problemCase{
		"nothing":                    {func(*cluster.Input) {}, nil},
		"a volume grows":             {volumes(func(v []api.Volume) []api.Volume { v[0].Size = quantity("11Gi"); return v }), nil},
		"a volume behind the others": {volumes(func(v []api.Volume) []api.Volume { return append(v, more) }), nil},
		"a volume in front": {
			volumes(func(v []api.Volume) []api.Volume { return slices.Insert(v, 0, more) }),
			[]string{
				"Error spec.pools[1].volumes[0].name: volume d0 cannot become d2: its name is part of the data's path, and the first volume holds the metadata log; keep d0 in front, and put new volumes at the end",
			},
		},
		"a volume less":  {volumes(func(v []api.Volume) []api.Volume { return v[:1] }), nil},
		"another volume": {volumes(func(v []api.Volume) []api.Volume { return []api.Volume{v[0], more} }), nil},
		"a volume shrinks": {
			volumes(func(v []api.Volume) []api.Volume { v[1].Size = quantity("9Gi"); return v }),
			[]string{"Error spec.pools[1].volumes[1].size: a volume cannot shrink from 10Gi to 9Gi; use at least 10Gi"},
		},
		"another storage class": {
			volumes(func(v []api.Volume) []api.Volume {
				v[0].StorageClassName = ""
				v[1].StorageClassName = "slow"
				return v
			}),
			[]string{
				`Error spec.pools[1].volumes[0].storageClassName: the storage class of a volume with data cannot change from "fast"; keep it, or add another pool with the other class`,
				`Error spec.pools[1].volumes[1].storageClassName: the storage class of a volume with data cannot change from ""; keep it, or add another pool with the other class`,
			},
		},
		"to hosts": {
			func(in *cluster.Input) {
				in.Catalog = good().Catalog
				in.Spec.Listeners[0].Exposure = api.Exposure{}
				for i := range in.Spec.Pools {
					in.Spec.Pools[i].Placement = api.Placement{}
				}
			},
			[]string{"Error spec.pools: a cluster of pods cannot become one that runs on hosts; put placement.kubernetes back, or create another KafkaCluster and move the topics"},
		},
		"from hosts": {
			func(in *cluster.Input) {
				for i := range in.Accepted.Pools {
					in.Accepted.Pools[i].Placement = api.Placement{Hosts: &api.HostPlacement{}}
				}
			},
			[]string{"Error spec.pools: a cluster that runs on hosts cannot become one of pods; create another KafkaCluster and move the topics"},
		},
		"what defaults say":       {listening(api.Exposure{Type: api.ExposureNodePort, AddressType: corev1.NodeInternalIP}), nil},
		"another kind":            {listening(api.Exposure{}), []string{stays}},
		"another address":         {listening(api.Exposure{Type: api.ExposureNodePort, AddressType: corev1.NodeExternalIP}), []string{stays}},
		"another host":            {listening(api.Exposure{Type: api.ExposureNodePort, Host: "b-{id}"}), []string{stays}},
		"what clients begin with": {listening(api.Exposure{Type: api.ExposureNodePort, BootstrapHost: "b", Annotations: map[string]string{"a": "b"}}), nil},
		"a kind of another listener": {
			func(in *cluster.Input) {
				in.Spec.Listeners[0] = api.Listener{Name: "other", Port: 9095, Exposure: api.Exposure{Type: api.ExposureLoadBalancer}}
			}, nil,
		},
	})
}

func TestPods(t *testing.T) {
	in := pods(controllerPool(1), brokerPool(3))
	p := &in.Spec.Pools[1]
	p.Placement.Kubernetes = &api.KubernetesPlacement{
		Spread: api.SpreadNode, Image: "pool", NodeSelector: map[string]string{"disk": "fast"}, PriorityClassName: "high",
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "s"}}, Tolerations: []corev1.Toleration{{Key: "kafka"}},
		Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}},
	}
	p.Resources = memory("4Gi")
	p.Overrides = []api.NodeOverride{
		{NodeID: 101, Image: "own", Resources: new(memory("64Gi"))},
		{NodeID: 102, JVM: &api.JVM{Heap: quantity("3Gi")}},
	}
	m := resolved(t, in)
	for id, want := range map[int32]struct {
		image string
		heap  int64
	}{0: {"apache/kafka:4.3.1", 512 << 20}, 100: {"pool", 2 << 30}, 101: {"own", 6 << 30}, 102: {"pool", 3 << 30}} {
		n := nodeOf(t, m, id)
		if n.Process.Image != want.image || n.Process.HeapBytes != want.heap || n.Process.Package != "" || n.Process.Supervisor != "castellan:1" || !n.Kubernetes || n.PackageWait != "" {
			t.Errorf("node %d: %+v, want %+v", id, n.Process, want)
		}
	}
	if diff := cmp.Diff(&api.PodSettings{Spread: api.SpreadZone}, nodeOf(t, m, 0).Process.Pod); diff != "" {
		t.Errorf("the pod of a controller (-want +got):\n%s", diff)
	}
	k := p.Placement.Kubernetes
	want := &api.PodSettings{
		Spread: k.Spread, NodeSelector: k.NodeSelector, PriorityClassName: "high", ImagePullSecrets: k.ImagePullSecrets, Tolerations: k.Tolerations, Affinity: k.Affinity,
	}
	if diff := cmp.Diff(want, nodeOf(t, m, 101).Process.Pod); diff != "" {
		t.Errorf("the pod of a broker (-want +got):\n%s", diff)
	}
}

// What the schema fills in by default means the same as nothing.
func TestDefaultsOfTheSchemaRestartNoPod(t *testing.T) {
	in := pods()
	listening(api.Exposure{})(&in)
	before := hashes(resolved(t, in))
	for i := range in.Spec.Pools {
		in.Spec.Pools[i].Placement.Kubernetes.Spread = api.SpreadZone
	}
	listening(api.Exposure{Type: api.ExposureInternal})(&in)
	if diff := cmp.Diff(before, hashes(resolved(t, in))); diff != "" {
		t.Errorf("restarts:\n%s", diff)
	}
}

func TestExposuresOfNodes(t *testing.T) {
	in := pods(controllerPool(1), brokerPool(1))
	in.Spec.Listeners = []api.Listener{
		{Name: "z", Port: 1, Exposure: api.Exposure{Type: api.ExposureNodePort}},
		{Name: "inside", Port: 2},
		{Name: "a", Port: 3, Exposure: api.Exposure{
			Type: api.ExposureLoadBalancer, Host: "{listener}-{id}.{cluster}.{namespace}", LoadBalancerClass: "c",
			Annotations: map[string]string{"dns": "{listener}-{id}.{cluster}.{namespace}", "plain": "x"},
		}},
		{Name: "m", Port: 4, Exposure: api.Exposure{Type: api.ExposureNodePort, AddressType: corev1.NodeExternalDNS}},
		{Name: "n", Port: 5, Exposure: api.Exposure{Type: api.ExposureNodePort, AddressType: corev1.NodeExternalDNS, Host: "b{id}"}},
	}
	m := resolved(t, in)
	want := []api.NodeExposure{
		{Listener: "a", Type: api.ExposureLoadBalancer, Host: "a-100.orders.kafka", LoadBalancerClass: "c", Annotations: map[string]string{"dns": "a-100.orders.kafka", "plain": "x"}},
		{Listener: "m", Type: api.ExposureNodePort, AddressType: corev1.NodeExternalDNS},
		{Listener: "n", Type: api.ExposureNodePort, Host: "b100"},
		{Listener: "z", Type: api.ExposureNodePort, AddressType: corev1.NodeInternalIP},
	}
	if diff := cmp.Diff(want, nodeOf(t, m, 100).Exposures); diff != "" {
		t.Errorf("exposures (-want +got):\n%s", diff)
	}
	if got := nodeOf(t, m, 0).Exposures; got != nil {
		t.Errorf("a controller is exposed: %v", got)
	}
	in.Spec.Listeners[2].Exposure.Annotations["plain"] = "{id}"
	before := hashes(m)
	if diff := cmp.Diff(before, hashes(resolved(t, in))); diff != "" {
		t.Errorf("an annotation restarts:\n%s", diff)
	}
}

func TestFillBootstrap(t *testing.T) {
	l := api.Listener{Name: "l", Exposure: api.Exposure{BootstrapHost: "{listener}.{cluster}.{namespace}", BootstrapAnnotations: map[string]string{"a": "{cluster}"}}}
	host, annotations := cluster.FillBootstrap("kafka", "orders", l)
	if diff := cmp.Diff(map[string]string{"a": "orders"}, annotations); diff != "" || host != "l.orders.kafka" || l.Exposure.BootstrapAnnotations["a"] != "{cluster}" {
		t.Errorf("host %q, annotations %s, the listener's own %v", host, diff, l.Exposure.BootstrapAnnotations)
	}
}
