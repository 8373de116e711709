package operator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/yaml"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
	corehost "castellan.dev/castellan/core/host"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/operator"
	"castellan.dev/castellan/packages/packagestest"
	hostsub "castellan.dev/castellan/substrate/host"
)

const (
	system    = "castellan-system"
	namespace = "kafka"
	hostSpace = "castellan-host-h1"
	patience  = time.Minute // on a busy machine
)

// yard is a real API server with one Host, an operator that has exactly the rights of an
// installation, and an agent that is played.
type yard struct {
	t      *testing.T
	config *rest.Config
	c      client.Client
	store  string

	stopOperator func()

	mu        sync.Mutex
	forbidden []string
	passes    int // looks at what is claimed on a host: one in every pass
	warnings  []string
	removed   map[string]api.DeletionPolicy // what the agent was last told of a process's data
}

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{t: t, config: controlplanetest.Start(t), store: t.TempDir(), removed: map[string]api.DeletionPolicy{}}
	y.c = controlplanetest.Client(t, y.config)
	y.install("../local/manifests/operator.yaml")
	for _, o := range hostsub.Enrolment("h1", rbacv1.Subject{Kind: "User", Name: "agent-h1", APIGroup: rbacv1.GroupName}) {
		y.create(o)
	}
	y.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	y.create(&api.Host{ObjectMeta: metav1.ObjectMeta{Name: "h1"}, Spec: api.HostSpec{
		Address: "127.0.0.1", Rack: "r1", AllowedNamespaces: []string{namespace}, DataRoots: []string{"/data"},
		ListenerPorts: api.PortsFromRange, PortRange: &api.PortRange{From: 3, To: 60}, // where nobody listens
	}})
	seconds, now := int32(3600), metav1.NowMicro()
	y.create(&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: hostSpace, Name: corehost.LeaseName},
		Spec:       coordinationv1.LeaseSpec{LeaseDurationSeconds: &seconds, RenewTime: &now},
	})
	t.Cleanup(y.checkRights)
	return y
}

// install applies a manifest as `castellan up` does.
func (y *yard) install(file string) {
	y.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		y.t.Fatal(err)
	}
	for document := range bytes.SplitSeq(data, []byte("\n---\n")) {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &o.Object); err != nil {
			y.t.Fatal(err)
		}
		y.create(o)
	}
}

func (y *yard) create(o client.Object) {
	y.t.Helper()
	if err := y.c.Create(y.t.Context(), o); err != nil {
		y.t.Fatalf("create %T %s: %v", o, o.GetName(), err)
	}
}

// account is the operator's own identity, by a token of its ServiceAccount.
func (y *yard) account() *rest.Config {
	y.t.Helper()
	request := &authenticationv1.TokenRequest{}
	owner := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "castellan-operator"}}
	if err := y.c.SubResource("token").Create(y.t.Context(), owner, request); err != nil {
		y.t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(y.config)
	config.BearerToken, config.QPS, config.Burst = request.Status.Token, 200, 400
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return listener{y, next} })
	return config
}

// listener notes what the operator asks of the API server.
type listener struct {
	y    *yard
	next http.RoundTripper
}

func (l listener) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := l.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	l.y.mu.Lock()
	defer l.y.mu.Unlock()
	if response.StatusCode == http.StatusForbidden {
		l.y.forbidden = append(l.y.forbidden, request.Method+" "+request.URL.Path)
	}
	if request.Method == http.MethodGet && strings.HasSuffix(request.URL.Path, "/configmaps") {
		l.y.passes++
	}
	return response, nil
}

func (y *yard) checkRights() {
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.forbidden) > 0 {
		y.t.Errorf("local/manifests/operator.yaml lacks rights for:\n%s", strings.Join(y.forbidden, "\n"))
	}
}

func (y *yard) startOperator() {
	y.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	config := operator.Config{
		API: y.account(), Substrates: []string{operator.SubstrateHost}, PackagesDir: y.store, LeaseNamespace: system, WebhookAddress: "127.0.0.1:0", MetricsAddress: "0",
		Log: slog.New(slog.NewTextHandler(y.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	go func() { ended <- operator.Run(ctx, config) }()
	y.stopOperator = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			y.t.Errorf("the operator ended with %v", err)
		}
	})
	y.t.Cleanup(func() { y.stopOperator() })
}

// eventually waits for a fact.
func (y *yard) eventually(what string, fact func() error) {
	y.t.Helper()
	ctx, cancel := context.WithTimeout(y.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := fact()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			y.t.Fatalf("%s: not within %s: %v", what, patience, err)
		case <-tick.C:
		}
	}
}

func (y *yard) awaitAdmission(not string) string {
	y.t.Helper()
	url := ""
	y.eventually("admission is registered", func() error {
		var hook admissionregistrationv1.ValidatingWebhookConfiguration
		if err := y.c.Get(y.t.Context(), client.ObjectKey{Name: "castellan"}, &hook); err != nil {
			return err
		}
		if url = *hook.Webhooks[0].ClientConfig.URL; url == not {
			return errors.New("still the address of an operator that is gone")
		}
		return nil
	})
	// The API server takes a moment to call a new webhook.
	y.eventually("admission answers", func() error {
		kc := y.cluster("probe")
		kc.Spec.Version = "9.9.9"
		if err := y.c.Create(y.t.Context(), kc, client.DryRunAll); err == nil {
			return errors.New("a bad spec passes")
		}
		return nil
	})
	return url
}

func (y *yard) cluster(name string) *api.KafkaCluster {
	return &api.KafkaCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: api.KafkaClusterSpec{
			Version: "4.3.1",
			Pools: []api.Pool{{
				Name: "nodes", Roles: []api.Role{api.RoleBroker, api.RoleController}, Replicas: 3,
				Placement: api.Placement{Hosts: &api.HostPlacement{MaxPerHost: 3}},
			}},
		},
	}
}

func (y *yard) get() *api.KafkaCluster {
	y.t.Helper()
	kc := &api.KafkaCluster{}
	if err := y.c.Get(y.t.Context(), client.ObjectKey{Namespace: namespace, Name: "orders"}, kc); err != nil {
		y.t.Fatal(err)
	}
	return kc
}

func (y *yard) condition(kind string, status metav1.ConditionStatus, text string) func() error {
	return func() error {
		kc := y.get()
		c := meta.FindStatusCondition(kc.Status.Conditions, kind)
		if c == nil || c.Status != status || !strings.Contains(c.Message, text) || c.ObservedGeneration != kc.Generation {
			return fmt.Errorf("generation %d, condition %s: %+v", kc.Generation, kind, c)
		}
		return nil
	}
}

// TestOperator is one story, since a control plane takes seconds to start.
func TestOperator(t *testing.T) {
	y := newYard(t)
	_, archive := packagestest.Kafka(t, t.TempDir(), "4.3.1")
	y.create(&api.Package{ObjectMeta: metav1.ObjectMeta{Name: "kafka-4.3.1"}, Spec: api.PackageSpec{
		Product: api.ProductKafka, Version: "4.3.1", Sources: []api.PackageSource{{URL: archive.Path, SHA512: archive.SHA512}},
	}})
	y.startOperator()
	url := y.awaitAdmission("")
	y.admission()

	y.create(y.cluster("orders"))
	y.fetched(archive.SHA256)
	stopAgent := y.playAgent()
	defer stopAgent()
	y.born()
	y.previewed()
	y.quiet()
	y.operations()
	y.replaced()
	y.withoutOperator(url)
	y.deletion()
	y.flippedByte()
	y.deletionWithData()
}

// previewed tells what a change leads to where the API server knows no pods.
func (y *yard) previewed() {
	y.t.Helper()
	kc := y.cluster("orders")
	if err := y.c.Get(y.t.Context(), client.ObjectKeyFromObject(kc), kc); err != nil {
		y.t.Fatal(err)
	}
	kc.Spec.Pools[0].Replicas += 2
	p, problems, err := operator.Preview(y.t.Context(), y.config, kc, nil)
	if err != nil || len(problems) > 0 {
		y.t.Fatalf("the plan of one node more cannot be told: %v %v", err, problems)
	}
	if len(p.Steps)+len(p.Blocked) == 0 {
		y.t.Error("one node more is no change at all")
	}
}

// admission refuses with path and remedy, and warns.
func (y *yard) admission() {
	y.t.Helper()
	ctx := y.t.Context()
	bad := y.cluster("bad")
	bad.Spec.Version = "4.3.9"
	bad.Spec.Listeners = []api.Listener{{Name: "a", Port: 9092}, {Name: "b", Port: 9092}}
	bad.Spec.Config = api.Config{"num.io.thread": "8"}
	err := y.c.Create(ctx, bad)
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsInvalid(err) {
		y.t.Fatalf("a bad spec gives %v", err)
	}
	causes := map[string]string{}
	if details := status.Status().Details; details != nil {
		for _, c := range details.Causes {
			causes[c.Field] = c.Message
		}
	}
	for field, text := range map[string]string{
		"spec.version":               "no Package provides Kafka 4.3.9; create a Package with its source; Packages exist for 4.3.1",
		"spec.listeners[1].port":     "port 9092 is already used by listener a; give each listener a port of its own",
		"spec.config[num.io.thread]": "did you mean num.io.threads?",
	} {
		if !strings.Contains(causes[field], text) || !strings.Contains(err.Error(), field+": ") {
			y.t.Errorf("%s: %q in %v", field, causes[field], err)
		}
	}
	unwise := y.cluster("unwise")
	unwise.Spec.Pools[0].Replicas = 2
	config := rest.CopyConfig(y.config)
	config.WarningHandler = y
	if err := controlplanetest.Client(y.t, config).Create(ctx, unwise, client.DryRunAll); err != nil {
		y.t.Fatal(err)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if said := strings.Join(y.warnings, "\n"); !strings.Contains(said, "spec.pools: 2 controllers survive no more failures than 1; use an odd number, usually 3") {
		y.t.Errorf("warnings: %q", said)
	}
}

// HandleWarningHeader implements rest.WarningHandler.
func (y *yard) HandleWarningHeader(_ int, _, text string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.warnings = append(y.warnings, text)
}

// fetched: the package that a cluster needs is fetched, and its digest becomes the node's.
func (y *yard) fetched(sha256 string) {
	y.t.Helper()
	y.eventually("the package is fetched", func() error {
		var pkg api.Package
		if err := y.c.Get(y.t.Context(), client.ObjectKey{Name: "kafka-4.3.1"}, &pkg); err != nil {
			return err
		}
		if pkg.Status.State != api.PackageReady || pkg.Status.Digest != "sha256:"+sha256 || pkg.Status.ObservedGeneration != pkg.Generation {
			return fmt.Errorf("%+v", pkg.Status)
		}
		return nil
	})
	y.eventually("the host is told to run the nodes", func() error {
		var processes api.HostProcessList
		var secrets corev1.SecretList
		if err := errors.Join(y.c.List(y.t.Context(), &processes, client.InNamespace(hostSpace)), y.c.List(y.t.Context(), &secrets, client.InNamespace(hostSpace))); err != nil {
			return err
		}
		if len(processes.Items) != 3 || len(secrets.Items) != 3 {
			return fmt.Errorf("%d processes, %d secrets", len(processes.Items), len(secrets.Items))
		}
		for _, p := range processes.Items {
			if p.Spec.Program.Archive != "sha256:"+sha256 || !strings.HasPrefix(p.Name, "kafka.orders-") {
				return fmt.Errorf("%s runs %s", p.Name, p.Spec.Program.Archive)
			}
		}
		return nil
	})
}

// playAgent runs what an agent and its supervisors do, with the rights of an agent.
func (y *yard) playAgent() (stop func()) {
	y.t.Helper()
	config := rest.CopyConfig(y.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "agent-h1"}
	c := controlplanetest.Client(y.t, config)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			var list api.HostProcessList
			err := c.List(ctx, &list, client.InNamespace(hostSpace))
			for i := range list.Items {
				if err == nil {
					err = y.act(ctx, c, &list.Items[i])
				}
			}
			if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				y.t.Errorf("the agent: %v", err)
				return
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// act is one look of the agent at one process.
func (y *yard) act(ctx context.Context, c client.Client, p *api.HostProcess) error {
	before := p.DeepCopy()
	if p.DeletionTimestamp != nil {
		y.mu.Lock()
		y.removed[p.Name] = p.Spec.RemoveDirectories
		y.mu.Unlock()
		controllerutil.RemoveFinalizer(p, corehost.Finalizer)
		return c.Patch(ctx, p, client.MergeFrom(before))
	}
	p.Status.ObservedGeneration = p.Generation
	report, err := supervise(p)
	if err != nil {
		return err
	}
	p.Status.State, p.Status.Ready, p.Status.Report = api.ProcessRunning, true, report
	if p.Spec.State == api.StateStopped {
		p.Status.State, p.Status.Ready, p.Status.Report = api.ProcessStopped, false, ""
	}
	if before.Status == p.Status {
		return nil
	}
	return c.Status().Patch(ctx, p, client.MergeFrom(before))
}

// supervise is the report of a supervisor that asks about empty disks, formats as it is
// told, and then runs a Kafka that nobody reaches.
func supervise(p *api.HostProcess) (string, error) {
	var static layout.Static
	var live layout.Live
	if err := errors.Join(json.Unmarshal([]byte(p.Spec.Program.Files[0].Content), &static), json.Unmarshal([]byte(p.Spec.Files[0].Content), &live)); err != nil {
		return "", err
	}
	report := layout.Report{
		ProcessHash: layout.ProcessHash(static.Process), State: api.NodeAsking, Version: static.Process.Version, Rack: live.Rack,
		Nonce: "nonce-" + p.Name, Volumes: []api.VolumeStatus{{Name: "data", State: api.VolumeEmpty}},
	}
	if live.Storage != nil && live.Storage.Nonce == report.Nonce {
		report.Nonce, report.State, report.PID, report.StartedAt = "", api.NodeStarting, 42, new(metav1.Unix(1, 0))
		report.Volumes = []api.VolumeStatus{{Name: "data", State: api.VolumeFormatted, ClusterID: live.ClusterID, NodeID: &static.NodeID, DirectoryID: "dir"}}
	}
	data, err := json.Marshal(report)
	return string(data), err
}

// born: the disks' questions are answered together, and the id is kept.
func (y *yard) born() {
	y.t.Helper()
	ctx := y.t.Context()
	y.eventually("the cluster's id is recorded", func() error {
		var revisions api.ClusterRevisionList
		if err := y.c.List(ctx, &revisions, client.InNamespace(namespace)); err != nil {
			return err
		}
		if len(revisions.Items) != 1 || revisions.Items[0].Spec.ClusterID == "" {
			return fmt.Errorf("%d revisions: %+v", len(revisions.Items), revisions.Items)
		}
		return nil
	})
	y.eventually("Kafka is found to be unreachable", y.condition(api.ConditionAvailable, metav1.ConditionUnknown, ""))
	y.eventually("nodes are waited for", y.condition(api.ConditionReconciling, metav1.ConditionTrue, "waiting for node"))
	var nodes api.KafkaNodeList
	if err := y.c.List(ctx, &nodes, client.InNamespace(namespace)); err != nil {
		y.t.Fatal(err)
	}
	ports := map[int32]bool{}
	for _, n := range nodes.Items {
		// A bootstrap that was done is not answered once more.
		if n.Spec.Storage == nil || n.Spec.Storage.Answer != api.StorageAdopt || len(n.Spec.Storage.InitialControllers) != 3 || n.Spec.ClusterID == "" {
			y.t.Errorf("node %s: %+v", n.Name, n.Spec.Storage)
		}
		if n.Status.State != api.NodeStarting || n.Status.Version != "4.3.1" || n.Status.Roles != "combined" || n.Spec.Rack != "r1" {
			y.t.Errorf("node %s: rack %s, %+v", n.Name, n.Spec.Rack, n.Status)
		}
		for _, port := range n.Spec.Ports {
			ports[port] = true
		}
	}
	if len(nodes.Items) != 3 || len(ports) != 6 {
		y.t.Errorf("%d nodes with %d ports", len(nodes.Items), len(ports))
	}
	if kc := y.get(); kc.Status.Nodes.Desired != 3 || kc.Status.ClusterID == "" || kc.Status.Version != "4.3.1" {
		y.t.Errorf("status %+v", kc.Status)
	}
}

// flippedByte: a package that is not what its publisher named is said, by the Package and
// by the cluster that waits for it; and that cluster can go again.
func (y *yard) flippedByte() {
	y.t.Helper()
	ctx := y.t.Context()
	_, archive := packagestest.Kafka(y.t, y.t.TempDir(), "4.2.1")
	packagestest.FlipByte(y.t, archive.Path)
	y.create(&api.Package{ObjectMeta: metav1.ObjectMeta{Name: "kafka-4.2.1"}, Spec: api.PackageSpec{
		Product: api.ProductKafka, Version: "4.2.1", Sources: []api.PackageSource{{URL: archive.Path, SHA512: archive.SHA512}},
	}})
	kc := y.cluster("orders")
	kc.Spec.Version = "4.2.1"
	y.create(kc)
	y.eventually("the package has failed", func() error {
		var pkg api.Package
		if err := y.c.Get(ctx, client.ObjectKey{Name: "kafka-4.2.1"}, &pkg); err != nil {
			return err
		}
		if pkg.Status.State != api.PackageFailed || !strings.Contains(pkg.Status.Message, "sha512") {
			return fmt.Errorf("%+v", pkg.Status)
		}
		return nil
	})
	y.eventually("the cluster waits for it", y.condition(api.ConditionReconciling, metav1.ConditionTrue, "waiting for Package kafka-4.2.1 (Kafka 4.2.1): "))
	y.remove()
}

// deletionWithData takes the data of a cluster and its CA along.
func (y *yard) deletionWithData() {
	y.t.Helper()
	kc := y.cluster("orders")
	kc.Spec.DeletionPolicy = api.DeletionDelete
	y.create(kc)
	y.eventually("nodes are waited for", y.condition(api.ConditionReconciling, metav1.ConditionTrue, "waiting for node"))
	y.remove()
	y.mu.Lock()
	defer y.mu.Unlock()
	for i := range 3 {
		if name := fmt.Sprintf("kafka.orders-%d", i); y.removed[name] != api.DeletionDelete {
			y.t.Errorf("the agent was told to %s the data of %s", y.removed[name], name)
		}
	}
	var secrets corev1.SecretList
	if err := y.c.List(y.t.Context(), &secrets, client.InNamespace(namespace)); err != nil || len(secrets.Items) > 0 {
		y.t.Errorf("left behind: %d secrets, %v", len(secrets.Items), err)
	}
}

// quiet: passes over a cluster where nothing changes write nothing.
func (y *yard) quiet() {
	y.t.Helper()
	versions := func() string {
		var b strings.Builder
		for _, list := range []client.ObjectList{&api.KafkaClusterList{}, &api.KafkaNodeList{}, &api.HostProcessList{}, &api.PackageList{}, &api.ClusterRevisionList{}, &api.OperationList{}, &api.HostList{}} {
			if err := y.c.List(y.t.Context(), list); err != nil {
				y.t.Fatal(err)
			}
			if err := meta.EachListItem(list, func(o runtime.Object) error {
				a, err := meta.Accessor(o)
				if err == nil {
					fmt.Fprintf(&b, "%T %s at %s\n", o, a.GetName(), a.GetResourceVersion())
				}
				return err
			}); err != nil {
				y.t.Fatal(err)
			}
		}
		return b.String()
	}
	seen := func() int {
		y.mu.Lock()
		defer y.mu.Unlock()
		return y.passes
	}
	before, from := versions(), seen()
	y.eventually("the operator looks again", func() error {
		if seen() < from+4 {
			return fmt.Errorf("%d passes", seen()-from)
		}
		return nil
	})
	if after := versions(); after != before {
		y.t.Errorf("written although nothing changed; before:\n%s\nafter:\n%s", before, after)
	}
}

// withoutOperator: what nobody checks passes, and is told when the operator is back.
func (y *yard) withoutOperator(url string) {
	y.t.Helper()
	ctx := y.t.Context()
	y.stopOperator()
	kc := y.get()
	kc.Spec.Config = api.Config{"num.io.thread": "8"}
	kc.Spec.Pools[0].Replicas = 4
	if err := y.c.Update(ctx, kc); err != nil {
		y.t.Fatalf("without an operator nothing can be applied: %v", err)
	}
	y.unasked()
	y.startOperator()
	y.awaitAdmission(url)
	y.toldAlone()
	y.eventually("the bad spec is told", y.condition(api.ConditionAccepted, metav1.ConditionFalse, "spec.config[num.io.thread]"))
	y.eventually("it is stalled", y.condition(api.ConditionStalled, metav1.ConditionTrue, ""))
	var nodes api.KafkaNodeList
	if err := y.c.List(ctx, &nodes, client.InNamespace(namespace)); err != nil || len(nodes.Items) != 3 {
		y.t.Errorf("%d nodes under a bad spec, %v", len(nodes.Items), err)
	}
	kc = y.get()
	before := kc.DeepCopy()
	kc.Labels = map[string]string{"team": "a"}
	if err := y.c.Patch(ctx, kc, client.MergeFrom(before)); err != nil {
		y.t.Errorf("a label of an object with a bad spec cannot change: %v", err)
	}
	before = kc.DeepCopy()
	kc.Spec.Pools[0].Replicas = 5
	if err := y.c.Patch(ctx, kc, client.MergeFrom(before)); !apierrors.IsInvalid(err) {
		y.t.Errorf("another bad spec gives %v", err)
	}
}

// deletion ends everything but the data and what gives access to it.
func (y *yard) deletion() {
	y.t.Helper()
	ctx := y.t.Context()
	y.remove()
	for _, list := range []client.ObjectList{&api.KafkaNodeList{}, &api.HostProcessList{}, &api.ClusterRevisionList{}, &api.OperationList{}} {
		if err := y.c.List(ctx, list); err != nil || meta.LenList(list) > 0 {
			y.t.Errorf("left behind: %d of %T, %v", meta.LenList(list), list, err)
		}
	}
	for _, list := range []client.ObjectList{&corev1.SecretList{}, &corev1.ConfigMapList{}} {
		if err := y.c.List(ctx, list, client.InNamespace(hostSpace)); err != nil || meta.LenList(list) > 0 {
			y.t.Errorf("left behind on the host: %d of %T, %v", meta.LenList(list), list, err)
		}
	}
	var secrets corev1.SecretList
	if err := y.c.List(ctx, &secrets, client.InNamespace(namespace)); err != nil || len(secrets.Items) == 0 {
		y.t.Errorf("the cluster's CA is gone although its data is kept: %v", err)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	for name, data := range y.removed {
		if data != api.DeletionRetain {
			y.t.Errorf("the agent was told to %s the data of %s", data, name)
		}
	}
}

// remove deletes the cluster and waits until it is gone.
func (y *yard) remove() {
	y.t.Helper()
	ctx := y.t.Context()
	if err := y.c.Delete(ctx, y.get()); err != nil {
		y.t.Fatal(err)
	}
	y.eventually("the cluster is gone", func() error {
		err := y.c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "orders"}, &api.KafkaCluster{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("still there: %w", err)
	})
}
