package install

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/substrate/kube/forward"
)

// Names of what is installed when nobody says otherwise.
const (
	DefaultNamespace         = "kafka"
	DefaultOperatorNamespace = "castellan-system"
	defaultCluster           = "kafka"
)

// manager is the field manager of what is applied for the user, the same as in the CLI.
const manager = "castellan-cli"

// ManifestOptions choose how the operator is installed.
type ManifestOptions struct {
	Namespace string
	// Image of the operator; empty is the release's own.
	Image string
}

// Manifests are the operator's objects, and may hold the CRDs.
type Manifests func(ManifestOptions) ([]*unstructured.Unstructured, error)

// Progress tells a person what goes on.
type Progress interface {
	// Doing says what goes on from now on.
	Doing(format string, args ...any)
	// Done says that something is finished, or a fact that stays true.
	Done(format string, args ...any)
}

// Options are what a user chooses.
type Options struct {
	// API is the Kubernetes cluster, Context what the user calls it.
	API     *rest.Config
	Context string
	// Namespace of the KafkaCluster.
	Namespace string
	// OperatorNamespace and OperatorImage of the operator; empty takes the defaults.
	OperatorNamespace, OperatorImage string
	// Objects to apply; none makes a cluster of Shape, once.
	Objects []*unstructured.Unstructured
	Shape   Shape
	// NewestKafka is the version for a cluster that is made without one.
	NewestKafka string
	Timeout     time.Duration
	Progress
	Manifests Manifests
}

// Shape of the cluster that is made without a file; what is zero stays as it is, or takes a default.
type Shape struct {
	Nodes        int
	KafkaVersion string
	// Image with Kafka below /opt/kafka.
	Image string
	// Expose is Internal, NodePort or LoadBalancer.
	Expose       api.ExposureType
	StorageClass string
	VolumeSize   string
}

func (s Shape) asked() bool { return s != Shape{} }

// session is one run with its connections.
type session struct {
	Options
	client    client.Client
	discovery discovery.DiscoveryInterface
	forward   *forward.Dialer
}

func (o Options) open() (*session, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, authorizationv1.AddToScheme, storagev1.AddToScheme, apiextensionsv1.AddToScheme, api.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register API types: %w", err)
		}
	}
	config := rest.CopyConfig(o.API)
	config.QPS, config.Burst = 50, 100
	config.WarningHandlerWithContext = warnings{o.Progress}
	s := &session{Options: o}
	var err error
	if s.discovery, err = discovery.NewDiscoveryClientForConfig(config); err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes cluster %s: %w", o.Context, err)
	}
	if _, err := s.discovery.ServerVersion(); err != nil {
		return nil, fmt.Errorf("reach the Kubernetes cluster %s at %s: %w", o.Context, config.Host, err)
	}
	if s.client, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("connect to the Kubernetes cluster %s: %w", o.Context, err)
	}
	if s.forward, err = forward.New(config); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *session) close() { _ = s.forward.Close() }

// dial reaches names of the pod network through the API server, and everything else
// directly: what is advertised outside is tried from outside.
func (s *session) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return s.forward.DialContext(ctx, network, address)
}

// warnings shows what the API server warns of.
type warnings struct{ progress Progress }

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (w warnings) HandleWarningHeaderWithContext(_ context.Context, code int, _, text string) {
	if code == 299 && text != "" {
		w.progress.Done("Warning: %s", text)
	}
}

// MissingError lists everything that keeps the installation from being begun.
type MissingError struct{ Items []string }

func (e *MissingError) Error() string {
	const bullet = "\n  * "
	return "nothing was created, because this is missing:" + bullet + strings.Join(e.Items, bullet)
}

// RefusedError says that a spec, or a wish, was not accepted.
type RefusedError struct{ Message string }

func (e *RefusedError) Error() string { return e.Message }
