package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	discoveryfake "k8s.io/client-go/discovery/fake"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
)

// told keeps what a person would have read.
type told struct{ lines []string }

func (t *told) Doing(string, ...any) {}
func (t *told) Done(format string, args ...any) {
	t.lines = append(t.lines, fmt.Sprintf(format, args...))
}

// world is a Kubernetes cluster of objects alone.
type world struct {
	version string
	objects []client.Object
	// refused says which rights this user has not.
	refused func(a *authorizationv1.ResourceAttributes) bool
	// written are the objects that were really written.
	written []string
}

func (w *world) session(t *testing.T, o Options) *session {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), apiextensionsv1.AddToScheme(scheme), api.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	note := func(kind, name string, dry bool) {
		if !dry {
			w.written = append(w.written, kind+" "+name)
		}
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(w.objects...).WithStatusSubresource(&api.KafkaCluster{}, &api.KafkaNode{}).
		WithInterceptorFuncs(interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
				if review, ok := o.(*authorizationv1.SelfSubjectAccessReview); ok {
					review.Status.Allowed = w.refused == nil || !w.refused(review.Spec.ResourceAttributes)
					return nil
				}
				options := (&client.CreateOptions{}).ApplyOptions(opts)
				note(fmt.Sprintf("%T", o), o.GetName(), len(options.DryRun) > 0)
				return c.Create(ctx, o, opts...)
			},
			Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
				options := (&client.ApplyOptions{}).ApplyOptions(opts)
				note("apply", "", len(options.DryRun) > 0)
				if len(options.DryRun) > 0 {
					return nil // the fake knows no dry run of an apply
				}
				return c.Apply(ctx, o, opts...)
			},
		}).Build()
	o.Progress = &told{}
	o.Manifests = func(m ManifestOptions) ([]*unstructured.Unstructured, error) {
		return []*unstructured.Unstructured{
			object("v1", "ServiceAccount", m.Namespace, "castellan-operator"),
			object("apiextensions.k8s.io/v1", definitionKind, "", "kafkaclusters.castellan.dev"),
		}, nil
	}
	return &session{Options: o.complete(), client: c, discovery: &discoveryfake.FakeDiscovery{
		Fake: &clienttesting.Fake{}, FakedServerVersion: &version.Info{Major: "1", Minor: w.version, GitVersion: "v1." + w.version + ".0"},
	}}
}

func object(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

func machine(name, zone string, address corev1.NodeAddressType) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: zone}},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Addresses:  []corev1.NodeAddress{{Type: address, Address: "10.0.0.1"}},
		},
	}
}

func class(name string, expands, standard bool) *storagev1.StorageClass {
	c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, AllowVolumeExpansion: &expands}
	if standard {
		c.Annotations = map[string]string{defaultClassAnnotation: "true"}
	}
	return c
}

func TestEverythingMissingIsListedAtOnceAndNothingIsWritten(t *testing.T) {
	operator := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Namespace: "elsewhere", Name: "castellan-operator", Labels: map[string]string{nameLabel: operatorName, componentLabel: operatorComponent},
	}}
	w := &world{
		version: "30",
		objects: []client.Object{
			class("slow", true, false), operator, machine("n1", "a", corev1.NodeHostName),
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kafka"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}},
			&apiextensionsv1.CustomResourceDefinition{
				ObjectMeta: metav1.ObjectMeta{Name: "kafkaclusters.castellan.dev"},
				Spec:       apiextensionsv1.CustomResourceDefinitionSpec{Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1beta7", Served: true}}},
			},
		},
		refused: func(a *authorizationv1.ResourceAttributes) bool { return a.Resource == "secrets" || a.Verb == "patch" },
	}
	s := w.session(t, Options{Shape: Shape{Expose: api.ExposureNodePort}, NewestKafka: "4.3.1"})
	_, err := s.prepare(t.Context())
	var missing *MissingError
	if !errors.As(err, &missing) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		"Kubernetes 1.33 or newer: this is v1.30.0",
		"an address of type InternalIP on the Kubernetes nodes n1, which listener external",
		"the right to get secrets in namespace kafka",
		"the right to patch serviceaccounts in namespace castellan-system",
		"the right to patch kafkaclusters.castellan.dev in namespace kafka",
		"a default StorageClass (there are: slow)",
		"kafkaclusters.castellan.dev of version v1alpha1 alone: it is there with v1beta7",
		"one operator only: castellan-operator runs in namespace elsewhere",
		"namespace kafka, which is being deleted",
	} {
		if !slices.ContainsFunc(missing.Items, func(item string) bool { return strings.HasPrefix(item, want) }) {
			t.Errorf("missing from the list: %s\n%s", want, err)
		}
	}
	if len(missing.Items) != 10 {
		t.Errorf("%d items:\n%v", len(missing.Items), err)
	}
	if len(w.written) > 0 {
		t.Errorf("written: %v", w.written)
	}
}

func TestAClusterThatHasEverythingPasses(t *testing.T) {
	limited := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Namespace: "team", Name: "castellan-operator", Labels: map[string]string{nameLabel: operatorName, componentLabel: operatorComponent},
	}}
	limited.Spec.Template.Spec.Containers = []corev1.Container{{Args: []string{"operator", "--watch-namespace=team"}}}
	w := &world{version: "36+", objects: []client.Object{
		class("fixed", false, true), limited,
		machine("n1", "a", corev1.NodeInternalIP), machine("n2", "a", corev1.NodeInternalIP), machine("n3", "b", corev1.NodeInternalIP),
	}}
	s := w.session(t, Options{NewestKafka: "4.3.1"})
	wish, err := s.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(s.Progress.(*told).lines, "\n")
	for _, want := range []string{"StorageClass fixed allows no expansion", "are in 2 zones (a, b), so pool nodes"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q was not said:\n%s", want, said)
		}
	}
	if len(w.written) > 0 {
		t.Errorf("written: %v", w.written)
	}
	if c := wish.clusters[0]; c.Spec.Pools[0].Placement.Kubernetes.Spread != api.SpreadZone || c.Spec.Version != "4.3.1" || c.Spec.Pools[0].Replicas != 3 {
		t.Errorf("%+v", c.Spec)
	}
}

func TestOneMachineIsSharedAndThatIsSaid(t *testing.T) {
	tainted := machine("cp", "a", corev1.NodeInternalIP)
	tainted.Spec.Taints = []corev1.Taint{{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule}}
	w := &world{version: "36", objects: []client.Object{class("standard", true, true), machine("n1", "a", corev1.NodeInternalIP), tainted}}
	s := w.session(t, Options{NewestKafka: "4.3.1"})
	wish, err := s.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := wish.clusters[0].Spec.Pools[0].Placement.Kubernetes.Spread; got != api.SpreadNone {
		t.Errorf("spread %s", got)
	}
	if said := strings.Join(s.Progress.(*told).lines, "\n"); !strings.Contains(said, "3 nodes of KafkaCluster kafka share 1 Kubernetes nodes") {
		t.Errorf("said:\n%s", said)
	}
}

func TestTheSameFlagsWriteTheSameObject(t *testing.T) {
	m := &machines{nodes: []corev1.Node{*machine("a", "a", corev1.NodeInternalIP), *machine("b", "b", corev1.NodeInternalIP), *machine("c", "c", corev1.NodeInternalIP)}}
	first := Shape{Expose: api.ExposureLoadBalancer, VolumeSize: "2Gi", StorageClass: "fast", Image: "mine/kafka:1"}.cluster("kafka", "4.3.1", nil, m)
	existing := &api.KafkaCluster{}
	if err := convert(first, existing); err != nil {
		t.Fatal(err)
	}
	again := Shape{Expose: api.ExposureLoadBalancer}.cluster("kafka", "9.9.9", existing, &machines{})
	if diff := cmp.Diff(first.Object, again.Object); diff != "" {
		t.Errorf("the second run differs:\n%s", diff)
	}
	more := Shape{Nodes: 5}.cluster("kafka", "9.9.9", existing, m)
	pools, _, _ := unstructured.NestedSlice(more.Object, "spec", "pools")
	if got := pools[0].(map[string]any)["replicas"]; got != int64(5) {
		t.Errorf("replicas %v", got)
	}
}

func TestWhatExistsStaysWithoutFlags(t *testing.T) {
	existing := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "kafka"}}
	existing.Spec.Pools = []api.Pool{{Name: "mine", Replicas: 1, Placement: api.Placement{Kubernetes: &api.KubernetesPlacement{}}}}
	w := &world{version: "36", objects: []client.Object{existing, machine("n1", "a", corev1.NodeInternalIP)}}
	s := w.session(t, Options{NewestKafka: "4.3.1"})
	wish, err := s.prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !wish.existing || len(wish.objects) != 0 || wish.clusters[0].Spec.Pools[0].Name != "mine" {
		t.Errorf("%+v", wish)
	}
}

func TestAFileOfHostsIsRefused(t *testing.T) {
	c := object(api.GroupVersion.String(), "KafkaCluster", "", "hosts")
	c.Object["spec"] = map[string]any{"version": "4.3.1", "pools": []any{map[string]any{"name": "a", "replicas": int64(1)}}}
	w := &world{version: "36", objects: []client.Object{machine("n1", "a", corev1.NodeInternalIP)}}
	_, err := w.session(t, Options{Objects: []*unstructured.Unstructured{c}}).prepare(t.Context())
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "pool a of KafkaCluster hosts has no placement.kubernetes") {
		t.Errorf("got %v", err)
	}
}

// waiting is a cluster whose second node cannot be scheduled.
func waiting() []client.Object {
	c := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "kafka", Generation: 1}}
	c.Status.Conditions = []metav1.Condition{
		{Type: api.ConditionReady, Status: metav1.ConditionFalse, Reason: "NodesNotReady", Message: "node 1 is not ready", ObservedGeneration: 1},
		{Type: api.ConditionAvailable, Status: metav1.ConditionTrue, Reason: "Served", Message: "well", ObservedGeneration: 1},
	}
	node := &api.KafkaNode{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "kafka-1"}}
	node.Spec.ClusterName, node.Spec.NodeID = "kafka", 1
	node.Status = api.KafkaNodeStatus{State: api.NodePending, Reason: "Unschedulable", Message: "0/3 nodes are available"}
	event := func(name, of, kind, message string) *corev1.Event {
		return &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: name}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: of},
			Type: kind, Reason: "FailedScheduling", Message: message, LastTimestamp: metav1.Now(),
		}
	}
	return []client.Object{
		c, node, event("e1", "kafka-1-0", corev1.EventTypeWarning, "Insufficient memory"),
		event("e2", "kafka-1-0", corev1.EventTypeNormal, "all is well"), event("e3", "web", corev1.EventTypeWarning, "of somebody else"),
	}
}

func TestTheDeadlineTellsConditionsNodesAndEvents(t *testing.T) {
	w := &world{version: "36", objects: waiting()}
	s := w.session(t, Options{Timeout: time.Minute, Context: "here"})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := s.await(ctx, client.ObjectKey{Namespace: "kafka", Name: "kafka"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		"is not Ready after 1m0s", "castellan status kafka -n kafka --context here", "Ready=False NodesNotReady: node 1 is not ready",
		"node 1 Pending (Unschedulable): 0/3 nodes are available", "pod kafka-1-0: FailedScheduling: Insufficient memory",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	for _, not := range []string{"Available=", "all is well", "somebody else"} {
		if strings.Contains(err.Error(), not) {
			t.Errorf("%q is in:\n%v", not, err)
		}
	}
}

func TestARefusedSpecIsNotWaitedFor(t *testing.T) {
	objects := waiting()
	objects[0].(*api.KafkaCluster).Status.Conditions = []metav1.Condition{{
		Type: api.ConditionAccepted, Status: metav1.ConditionFalse, Message: "spec.version: nobody has 9.9.9", ObservedGeneration: 1,
	}}
	w := &world{version: "36", objects: objects}
	_, err := w.session(t, Options{}).await(t.Context(), client.ObjectKey{Namespace: "kafka", Name: "kafka"})
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "nobody has 9.9.9") {
		t.Errorf("got %v", err)
	}
}

func TestPropertiesAreOfTheListenerThatIsExposed(t *testing.T) {
	c := &api.KafkaCluster{}
	c.Spec.Listeners = []api.Listener{{Name: "plain"}, {Name: "external", Exposure: api.Exposure{Type: api.ExposureNodePort}}}
	c.Status.Listeners = []api.ListenerStatus{{Name: "plain", BootstrapServers: "a:1"}, {Name: "external", BootstrapServers: "b:2"}}
	r := &Running{Cluster: c, CAs: map[string][]byte{"external": []byte("-----BEGIN CERTIFICATE-----\nx\n")}}
	listener, content := r.Properties()
	config, err := kconf.Parse(content)
	if err != nil || listener != "external" {
		t.Fatalf("%s, %v", listener, err)
	}
	want := map[string]string{
		"bootstrap.servers": "b:2", "security.protocol": "SSL", "ssl.truststore.type": "PEM",
		"ssl.truststore.certificates": "-----BEGIN CERTIFICATE-----\nx\n",
	}
	if diff := cmp.Diff(want, config); diff != "" {
		t.Error(diff)
	}
	c.Spec.Listeners, c.Status.Listeners = c.Spec.Listeners[:1], c.Status.Listeners[:1]
	if _, content := r.Properties(); !strings.Contains(string(content), "PLAINTEXT") {
		t.Errorf("%s", content)
	}
}

func TestDownKeepsDataAndSaysWhere(t *testing.T) {
	c := &api.KafkaCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "kafka", UID: "1"}}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: "kafka", Name: "data-kafka-0", Labels: map[string]string{"castellan.dev/cluster": "kafka"},
	}}
	claim.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	w := &world{version: "36", objects: []client.Object{c, claim}}
	s := w.session(t, Options{Timeout: time.Minute})
	found, err := s.victim(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	found.Spec.DeletionPolicy = api.DeletionDelete
	var refused *RefusedError
	if err := s.deleteCluster(t.Context(), found); !errors.As(err, &refused) || !strings.Contains(err.Error(), "deletionPolicy Delete") {
		t.Errorf("data was about to go: %v", err)
	}
	if err := s.removeOperator(t.Context()); !errors.As(err, &refused) || !strings.Contains(err.Error(), "1 KafkaClusters still need it") {
		t.Errorf("the operator was about to go: %v", err)
	}
	found.Spec.DeletionPolicy = api.DeletionRetain
	if err := s.deleteCluster(t.Context(), found); err != nil {
		t.Fatal(err)
	}
	s.tellKept(t.Context(), found)
	if said := strings.Join(s.Progress.(*told).lines, "\n"); !strings.Contains(said, "kept in 1 PersistentVolumeClaims of namespace kafka: data-kafka-0") {
		t.Errorf("said:\n%s", said)
	}
	if again, err := s.victim(t.Context(), ""); again != nil || err != nil {
		t.Errorf("found %v, %v after the deletion", again, err)
	}
}
