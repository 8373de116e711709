package operator_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	corekube "castellan.dev/castellan/core/kube"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka/kafkatest"
	"castellan.dev/castellan/pki"
)

// pods plays what makes pods and what runs in them: the StatefulSet controller, scheduler,
// kubelets and supervisors. One address stands for all pods.
type pods struct {
	c client.Client
	// address is where a pod is dialed, see through.
	address string
	// supervisors is the one server of all reports, which goes by the name that is asked for.
	supervisors *httptest.Server

	mu    sync.Mutex
	nodes map[string]*supervised // by the node's address
	// kafkas are the clusters' Kafka, listeners the real addresses behind those of nodes.
	kafkas    map[string]*kafkatest.Fake
	listeners map[string]string
	made      map[string]string // process by pod
}

// supervised is a node with its supervisor.
type supervised struct {
	cluster   string
	id        int32
	spec      api.KafkaNodeSpec
	cert      *tls.Certificate
	digest    string // of the certificate
	nonce     string
	directory string // empty until it is formatted
	started   metav1.Time

	said    []byte
	etag    string
	changed chan struct{}
}

func newPods(b *testing.B, c client.Client) *pods {
	b.Helper()
	p := &pods{c: c, nodes: map[string]*supervised{}, kafkas: map[string]*kafkatest.Fake{}, listeners: map[string]string{}, made: map[string]string{}}
	p.supervisors = httptest.NewUnstartedServer(http.HandlerFunc(p.report))
	p.supervisors.TLS = p.tls("")
	p.supervisors.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug) // who asks too early asks again
	p.supervisors.StartTLS()
	b.Cleanup(p.supervisors.CloseClientConnections)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	b.Cleanup(func() { _ = listener.Close() })
	p.address = listener.Addr().String()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.connect(conn)
		}
	}()
	for i := range 3 {
		machine := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: machineName(i), Labels: map[string]string{"topology.kubernetes.io/zone": zoneName(i)}}}
		must(b, c.Create(b.Context(), machine))
		machine.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.0.0.%d", i+1)}}
		machine.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now()}}
		must(b, c.Status().Update(b.Context(), machine))
	}
	return p
}

func machineName(i int) string { return fmt.Sprintf("m%d", i) }
func zoneName(i int) string    { return fmt.Sprintf("zone-%d", i) }

// through dials pods at the benchmark's address, which is told whom.
func through(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, pod string) (net.Conn, error) {
		conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if _, err := fmt.Fprintln(conn, pod); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return conn, nil
	}
}

// connect leads one connection to whom it is for.
func (p *pods) connect(conn net.Conn) {
	defer conn.Close() //nolint:errcheck // it is over
	var to strings.Builder
	for one := make([]byte, 1); ; to.Write(one) {
		if _, err := io.ReadFull(conn, one); err != nil {
			return
		}
		if one[0] == '\n' {
			break
		}
	}
	p.mu.Lock()
	at := p.listeners[to.String()]
	p.mu.Unlock()
	if strings.HasSuffix(to.String(), ":"+strconv.Itoa(int(layout.ReportPort))) {
		at = p.supervisors.Listener.Addr().String()
	}
	behind, err := net.Dial("tcp", at)
	if err != nil {
		return
	}
	defer behind.Close() //nolint:errcheck // it is over
	go func() {
		_, _ = io.Copy(behind, conn)
		_ = behind.Close()
	}()
	_, _ = io.Copy(conn, behind)
}

// tls serves each node's own certificate by the name that is asked for; without one, any of
// a cluster.
func (p *pods) tls(cluster string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if s := p.nodes[hello.ServerName]; s != nil {
			return s.cert, nil
		}
		for _, s := range p.nodes {
			if hello.ServerName == "" && s.cluster == cluster {
				return s.cert, nil
			}
		}
		return nil, fmt.Errorf("no node is called %q", hello.ServerName)
	}}
}

// report is a supervisor's answer: at once, or when there is another than the asker has.
func (p *pods) report(w http.ResponseWriter, r *http.Request) {
	seconds, _ := strconv.Atoi(r.URL.Query().Get("wait"))
	over := time.NewTimer(time.Duration(seconds) * time.Second)
	defer over.Stop()
	for waited := seconds == 0; ; {
		p.mu.Lock()
		s := p.nodes[r.TLS.ServerName]
		data, etag, changed := s.said, s.etag, s.changed
		p.mu.Unlock()
		if waited || etag != r.URL.Query().Get("after") {
			w.Header().Set("ETag", etag)
			_, _ = w.Write(data)
			return
		}
		select {
		case <-changed:
		case <-over.C:
			waited = true
		case <-r.Context().Done():
			return
		}
	}
}

// round does once what is to be done by now.
func (p *pods) round(b *testing.B) {
	b.Helper()
	var sets appsv1.StatefulSetList
	must(b, p.c.List(b.Context(), &sets, client.InNamespace(namespace)))
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(8)
	for i := range sets.Items {
		set := &sets.Items[i]
		if p.made[set.Name] == "" {
			p.made[set.Name] = set.Spec.Template.Annotations[corekube.ProcessAnnotation]
			number := len(p.made)
			group.Go(func() error { return p.start(ctx, set, number) })
		}
	}
	must(b, group.Wait())
	var nodes api.KafkaNodeList
	must(b, p.c.List(b.Context(), &nodes, client.InNamespace(namespace)))
	for i := range nodes.Items {
		must(b, p.supervise(b.Context(), &nodes.Items[i]))
	}
	for i := range manyClusters(b) {
		p.serve(b, clusterName(i))
	}
	for _, s := range p.nodes {
		must(b, p.say(s))
	}
}

// start makes the pod of a StatefulSet, on a machine and running, with its claims bound.
func (p *pods) start(ctx context.Context, set *appsv1.StatefulSet, number int) error {
	pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.Name = set.Namespace, set.Name+"-0"
	pod.Labels = maps.Clone(pod.Labels)
	pod.Labels["statefulset.kubernetes.io/pod-name"], pod.Labels["apps.kubernetes.io/pod-index"] = pod.Name, "0"
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))}
	pod.Spec.NodeName, pod.Spec.Hostname, pod.Spec.Subdomain = machineName(number%3), pod.Name, set.Spec.ServiceName
	if err := p.c.Create(ctx, pod); err != nil {
		return err
	}
	// The operator writes to them at the same time, so patches it is.
	now, before := metav1.Now(), client.MergeFrom(pod.DeepCopy())
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.1.%d.%d", number/250, number%250+1), HostIP: fmt.Sprintf("10.0.0.%d", number%3+1), StartTime: &now,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: corekube.KafkaContainer, Ready: true, Image: pod.Spec.Containers[0].Image, ImageID: "sha256:0", Started: new(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	if err := p.c.Status().Patch(ctx, pod, before); err != nil {
		return err
	}
	before = client.MergeFrom(set.DeepCopy())
	set.Status = appsv1.StatefulSetStatus{ObservedGeneration: set.Generation, Replicas: 1, ReadyReplicas: 1, AvailableReplicas: 1, CurrentReplicas: 1, UpdatedReplicas: 1}
	if err := p.c.Status().Patch(ctx, set, before); err != nil {
		return err
	}
	for _, name := range corekube.ClaimsOf(pod.Spec) {
		var claim corev1.PersistentVolumeClaim
		if err := p.c.Get(ctx, client.ObjectKey{Namespace: set.Namespace, Name: name}, &claim); err != nil {
			return err
		}
		before = client.MergeFrom(claim.DeepCopy())
		claim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, AccessModes: claim.Spec.AccessModes, Capacity: claim.Spec.Resources.Requests}
		if err := p.c.Status().Patch(ctx, &claim, before); err != nil {
			return err
		}
	}
	return nil
}

// supervise lets a node's supervisor see its spec and its certificate.
func (p *pods) supervise(ctx context.Context, node *api.KafkaNode) error {
	p.mu.Lock()
	s := p.nodes[node.Spec.Address]
	p.mu.Unlock()
	if s == nil {
		s = &supervised{cluster: node.Spec.ClusterName, id: node.Spec.NodeID, nonce: "nonce-" + node.Name, started: metav1.Now(), changed: make(chan struct{})}
	}
	s.spec = node.Spec
	if s.cert == nil || s.digest != node.Spec.Certificates.Digest {
		var secret corev1.Secret
		err := p.c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: pki.NodeSecretName(s.cluster, s.id)}, &secret)
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		if err != nil {
			return nil // without it no container starts
		}
		if err := s.load(secret.Data[layout.KeyNodePEM]); err != nil {
			return err
		}
	}
	if storage := s.spec.Storage; s.directory == "" && storage != nil && storage.Nonce == s.nonce {
		s.directory = kafkatest.DirectoryID(s.id)
		for _, one := range storage.InitialControllers {
			if strings.HasPrefix(one, fmt.Sprintf("%d@", s.id)) {
				s.directory = one[strings.LastIndex(one, ":")+1:]
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes[node.Spec.Address] = s
	return nil
}

func (s *supervised) load(pem []byte) error {
	pair, err := pki.ParsePair(pem)
	if err != nil {
		return err
	}
	leaf, err := pair.Leaf()
	if err != nil {
		return err
	}
	cert, err := tls.X509KeyPair(pair.Chain, pair.Key)
	s.cert, s.digest = &cert, pki.Digest(leaf)
	return err
}

// serve starts a cluster's Kafka once all its disks are formatted.
func (p *pods) serve(b *testing.B, cluster string) {
	b.Helper()
	var brokers, controllers []*supervised
	for _, s := range p.nodes {
		switch {
		case s.cluster != cluster || s.directory == "":
		case slices.Contains(s.spec.Roles, api.RoleBroker):
			brokers = append(brokers, s)
		default:
			controllers = append(controllers, s)
		}
	}
	if p.kafkas[cluster] != nil || len(brokers)+len(controllers) < nodesEach {
		return
	}
	first := slices.MinFunc(controllers, func(x, y *supervised) int { return int(x.id - y.id) }).id
	fake := kafkatest.NewFake(b, kafkatest.Config{
		Brokers: len(brokers), Controllers: len(controllers), FirstController: first,
		ClusterID: brokers[0].spec.ClusterID, TLS: p.tls(cluster), ControllerTLS: p.tls(cluster),
	})
	quorum := plan.Quorum{Leader: first, LeaderEpoch: 1, HighWater: 100}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range controllers {
		quorum.Voters = append(quorum.Voters, plan.Replica{ID: s.id, DirectoryID: s.directory, LogEnd: 100})
		p.listeners[layout.HostPort(s.spec.Address, s.spec.Ports[layout.ControllerListener])] = fake.Controllers.ListenAddrs()[s.id-first]
	}
	for _, s := range brokers {
		p.listeners[layout.HostPort(s.spec.Address, s.spec.Ports[layout.InternalListener])] = fake.Brokers.ListenAddrs()[s.id]
	}
	fake.SetQuorum(quorum)
	p.kafkas[cluster] = fake
}

// say makes a supervisor's report.
func (p *pods) say(s *supervised) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	volume := api.VolumeStatus{Name: s.spec.Volumes[0].Name, State: api.VolumeEmpty}
	report := layout.Report{ProcessHash: p.made[corekube.NodeName(s.cluster, s.id)], CertificateDigest: s.digest}
	if s.directory == "" {
		report.State, report.Reason, report.Message, report.Nonce = api.NodeAsking, "WaitingForStorage", "volumes data are empty: nothing is formatted until the plan has answered", s.nonce
	} else {
		volume = api.VolumeStatus{Name: volume.Name, State: api.VolumeFormatted, ClusterID: s.spec.ClusterID, NodeID: &s.id, DirectoryID: s.directory}
		report.State, report.Version, report.PID, report.StartedAt = api.NodeStarting, s.spec.Process.Version, 42, &s.started
	}
	if p.kafkas[s.cluster] != nil {
		report.State, report.Ready, report.InSync = api.NodeRunning, true, true
	}
	report.Volumes = []api.VolumeStatus{volume}
	data, err := json.Marshal(report)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(data)
	if etag := hex.EncodeToString(digest[:]); etag != s.etag {
		s.said, s.etag = data, etag
		close(s.changed)
		s.changed = make(chan struct{})
	}
	return nil
}

// heartbeat is what a kubelet says of its machine every few minutes.
func (p *pods) heartbeat(b *testing.B) {
	b.Helper()
	var machines corev1.NodeList
	must(b, p.c.List(b.Context(), &machines))
	for i := range machines.Items {
		machines.Items[i].Status.Conditions[0].LastHeartbeatTime = metav1.Now()
		must(b, p.c.Status().Update(b.Context(), &machines.Items[i]))
	}
}

// holds says whether a cluster's Kafka has a dynamic key.
func (p *pods) holds(cluster, key, value string) error {
	if held := p.kafkas[cluster].Dynamic(-1)[key]; held != value {
		return fmt.Errorf("Kafka of %s has %s=%q, not %q", cluster, key, held, value)
	}
	return nil
}
