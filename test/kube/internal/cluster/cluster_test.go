package cluster

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func TestNodesAreSpreadOverZonesAndNetworks(t *testing.T) {
	var zones, ips, pods string
	for _, p := range places(4) {
		zones += p.zone()
		ips += p.ip().String() + " "
		pods += p.pods().String() + " "
	}
	if zones != "abca" || ips != "10.88.0.11 10.88.0.12 10.88.0.13 10.88.0.14 " || !strings.HasPrefix(pods, "10.89.1.0/24 10.89.2.0/24 ") {
		t.Errorf("got %s, %s, %s", zones, ips, pods)
	}
}

func TestAConfigurationSaysWhatIsWrong(t *testing.T) {
	for _, c := range []Config{{Name: "", Nodes: 3}, {Name: "Upper", Nodes: 3}, {Name: "a/b", Nodes: 3}, {Name: "k", Nodes: 0}, {Name: "k", Nodes: 10}} {
		if c.Check() == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
	if err := (Config{Name: "k", Nodes: 3}).Check(); err != nil {
		t.Error(err)
	}
}

func TestADirectoryWhoseSocketsWouldNotWorkIsRefused(t *testing.T) {
	if d, err := NewDir("/" + strings.Repeat("x", 100)); err == nil {
		t.Errorf("got %s", d)
	}
	if _, err := NewDir(""); err == nil {
		t.Error("no directory was accepted")
	}
	if d, err := NewDir("/tmp/k/"); err != nil || d != "/tmp/k" {
		t.Errorf("got %s, %v", d, err)
	}
}

func TestEveryClientGetsAKubeconfig(t *testing.T) {
	d := Dir(t.TempDir())
	if err := makePKI(d, places(2)); err != nil {
		t.Fatal(err)
	}
	for _, client := range []string{"admin", "csi", "kube-proxy", "kube-scheduler", "kube-controller-manager", "node1", "node2"} {
		config, err := clientcmd.BuildConfigFromFlags("", d.path("pki", client+".conf"))
		if err != nil {
			t.Fatal(err)
		}
		if config.Host != "https://10.88.0.1:6443" || len(config.CertData) == 0 || len(config.CAData) == 0 {
			t.Errorf("%s: %s", client, config)
		}
	}
}

func TestStatusKnowsMachinesThatAreOff(t *testing.T) {
	s := Status{Nodes: []NodeStatus{{Name: "node1", Pid: 7}, {Name: "node2"}}, Ext: Process{Pid: 8}, ControlPlane: Process{Pid: 9}}
	for m, want := range map[string]int{"node1": 7, "ext": 8, "cp": 9} {
		if pid, err := s.Pid(m); err != nil || pid != want {
			t.Errorf("%s: %d, %v", m, pid, err)
		}
	}
	if _, err := s.Pid("node2"); err == nil || !strings.Contains(err.Error(), "is off") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Pid("node9"); err == nil || !strings.Contains(err.Error(), "no machine") {
		t.Errorf("got %v", err)
	}
}

func TestWhatAKeptNodeSaidBeforeDoesNotCount(t *testing.T) {
	now := time.Now()
	node := corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.NewTime(now.Add(-time.Minute))},
	}}}
	if isReady(node, now) {
		t.Error("an old word counted")
	}
	if !isReady(node, now.Add(-time.Minute)) {
		t.Error("a new word did not count")
	}
}

func TestTheFirstFreeAddressIsGiven(t *testing.T) {
	taken := map[netip.Addr][]netip.Addr{}
	for range 254 {
		ip, err := free(taken)
		if err != nil {
			t.Fatal(err)
		}
		taken[ip] = nil
	}
	delete(taken, netip.MustParseAddr("10.91.0.7"))
	if ip, err := free(taken); err != nil || ip.String() != "10.91.0.7" {
		t.Errorf("got %s, %v", ip, err)
	}
}

func TestTheLoadBalancerKnowsWhichNodesTakePackets(t *testing.T) {
	b := balancer{
		nodes:    corelisters.NewNodeLister(indexed(t, node("node1", true), node("node2", true), node("node3", false))),
		services: nil,
		slices: discoverylisters.NewEndpointSliceLister(indexed(t, &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s-1", Labels: map[string]string{discoveryv1.LabelServiceName: "s"}},
			Endpoints: []discoveryv1.Endpoint{
				{NodeName: new("node2"), Conditions: discoveryv1.EndpointConditions{Ready: new(true)}},
				{NodeName: new("node1"), Conditions: discoveryv1.EndpointConditions{Ready: new(false)}},
				{NodeName: new("node3"), Conditions: discoveryv1.EndpointConditions{Ready: new(true)}},
			},
		})),
	}
	for policy, want := range map[corev1.ServiceExternalTrafficPolicy][]string{
		corev1.ServiceExternalTrafficPolicyCluster: {"node1", "node2"},
		corev1.ServiceExternalTrafficPolicyLocal:   {"node2"},
	} {
		hops, err := b.hops(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, Spec: corev1.ServiceSpec{ExternalTrafficPolicy: policy}})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, h := range hops {
			names = append(names, "node"+h.String()[len("10.88.0.1"):])
		}
		if !slices.Equal(names, want) {
			t.Errorf("%s: %v, not %v", policy, names, want)
		}
	}
}

func node(name string, ready bool) *corev1.Node {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}},
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.88.0.1" + name[len("node"):]}},
	}}
}

func indexed(t *testing.T, objects ...any) cache.Indexer { //nolint:ireturn // client-go has no other name for it
	t.Helper()
	indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for _, o := range objects {
		if err := indexer.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	return indexer
}

func TestTheTailOfALogIsWholeLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	if err := os.WriteFile(path, []byte(strings.Repeat("line\n", 10000)+"last\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tail(path, 2); !strings.HasSuffix(got, "\nline\nlast\n") || strings.Count(got, "\n") != 3 {
		t.Errorf("got %q", got)
	}
	if got := tail(path+".none", 2); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestACopiedExecutableIsReplacedWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for i, content := range []string{"one", "another"} {
		if err := os.WriteFile(from, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		modified := time.Unix(int64(i), 0)
		if err := os.Chtimes(from, modified, modified); err != nil {
			t.Fatal(err)
		}
		if err := copyExecutable(from, to); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(to); err != nil || string(got) != content {
			t.Errorf("got %q, %v", got, err)
		}
	}
}
