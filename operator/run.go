package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/plan"
	"castellan.dev/castellan/kafka"
	hostsub "castellan.dev/castellan/substrate/host"
	kubesub "castellan.dev/castellan/substrate/kube"
)

// LeaseName is the operator's one Lease.
const LeaseName = "castellan-operator"

// Substrates that an operator can serve.
const (
	SubstrateHost       = "host"
	SubstrateKubernetes = "kubernetes"
)

// Config is what an operator is started with.
type Config struct {
	// API is the way to the API server.
	API *rest.Config
	// Substrates are where nodes run, see [SubstrateHost] and [SubstrateKubernetes]. What
	// belongs to another one is neither watched nor needs a right.
	Substrates []string
	// WatchNamespaces are the only namespaces whose clusters are served; none means all.
	WatchNamespaces []string
	// SupervisorImage is the image that a pod's `castellan node` is copied from.
	SupervisorImage string
	// PackagesDir is the package store, for hosts.
	PackagesDir string
	// LeaseNamespace holds the operator's one Lease; in Kubernetes it is the operator's own
	// namespace, where its webhook's Service and Secret are too.
	LeaseNamespace string
	// Identity is this operator's name in its Lease. One that is started again under the
	// same name goes on at once, where another would wait until the Lease has ended: give
	// it only where no two can run at a time. Empty takes a new name with each start.
	Identity string
	// WebhookAddress is host:port for admission; port 0 picks a free one.
	WebhookAddress string
	// WebhookService is the Service, in the LeaseNamespace, through which the API server
	// asks for admission. Empty registers WebhookAddress itself.
	WebhookService string
	// WebhookProvided says that somebody else keeps the Secret of the Service's certificate
	// and the caBundle of the ValidatingWebhookConfiguration, such as cert-manager.
	WebhookProvided bool
	// HealthAddress is host:port for /healthz and /readyz; "0" serves none.
	HealthAddress string
	// MetricsAddress is host:port for /metrics; "0" serves none.
	MetricsAddress string
	// Dial opens the connections to nodes, to their supervisors and to Kafka, as
	// net.Dialer.DialContext does; nil dials them.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock of the webhook's certificates; nil is the real one.
	Now func() time.Time
	Log *slog.Logger
}

func (c Config) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// namespaces are those that are served; one "" is all.
func (c Config) namespaces() []string {
	if len(c.WatchNamespaces) == 0 {
		return []string{""}
	}
	return c.WatchNamespaces
}

func (c Config) serves(substrate string) bool { return slices.Contains(c.Substrates, substrate) }

// Scheme knows every kind that the operator reads or writes.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), api.AddToScheme(s)); err != nil {
		return nil, fmt.Errorf("build the scheme: %w", err)
	}
	return s, nil
}

// Run runs the operator until ctx ends. Its end touches no node.
func Run(ctx context.Context, c Config) error {
	scheme, err := Scheme()
	if err != nil {
		return err
	}
	logger := logr.FromSlogHandler(c.Log.Handler())
	ctrl.SetLogger(logger)
	c.API = paced(c.API)
	lease, renew, retry := c.election()
	lock, err := c.lock(renew)
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(c.API, ctrl.Options{
		Scheme: scheme, Logger: logger, Cache: c.cacheOptions(), NewClient: c.newClient,
		LeaderElection: true, LeaderElectionID: LeaseName, LeaderElectionNamespace: c.LeaseNamespace,
		LeaderElectionResourceLockInterface: lock,
		LeaderElectionReleaseOnCancel:       true, LeaseDuration: &lease, RenewDeadline: &renew, RetryPeriod: &retry,
		Metrics:                metricsserver.Options{BindAddress: c.MetricsAddress},
		HealthProbeBindAddress: c.HealthAddress,
		Controller: config.Controller{
			SkipNameValidation: new(true), // one process may run one operator after another
			EnableWarmup:       new(true), // a standby watches already
		},
	})
	if err != nil {
		return fmt.Errorf("start the operator: %w", err)
	}
	clients := kafka.NewClients(kafka.Options{Log: c.Log, Dial: c.Dial})
	defer clients.Close()
	if err := setup(ctx, mgr, c, clients); err != nil {
		return fmt.Errorf("start the operator: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run the operator: %w", err)
	}
	return nil
}

// paced lets requests through as many clusters need them at a time; the API server has its
// own ways to be fair. What the caller chose stands.
func paced(given *rest.Config) *rest.Config {
	if given.QPS != 0 {
		return given
	}
	own := rest.CopyConfig(given)
	own.QPS, own.Burst = 100, 200
	return own
}

// election is how long a Lease holds, how long its holder tries to renew it, and how often.
// Where two replicas run, another one leads within 20 s of the end of the first (the Lease,
// and 2.2 periods at most). Alone, the Lease needs no haste: nodes run without us.
func (c Config) election() (lease, renew, retry time.Duration) {
	if c.Identity != "" {
		return 20 * time.Second, 15 * time.Second, 5 * time.Second
	}
	return 15 * time.Second, 10 * time.Second, 2 * time.Second
}

// lock is the Lease under the operator's own name; nil lets the manager draw one.
func (c Config) lock(renew time.Duration) (resourcelock.Interface, error) { //nolint:ireturn // client-go gives only the interface
	if c.Identity == "" {
		return nil, nil
	}
	who := resourcelock.ResourceLockConfig{Identity: c.Identity}
	lock, err := resourcelock.NewFromKubeconfig(resourcelock.LeasesResourceLock, c.LeaseNamespace, LeaseName, who, c.API, renew)
	if err != nil {
		return nil, fmt.Errorf("set up the Lease of the operator: %w", err)
	}
	return lock, nil
}

// Preview says what a KafkaCluster would lead to, from the facts of now; nothing is done
// and nothing is written. It is the engine's own Resolve and Compute. Kafka is reached by
// dial; nil dials its addresses.
func Preview(ctx context.Context, config *rest.Config, kc *api.KafkaCluster, dial kafka.DialFunc) (plan.Plan, []cluster.Problem, error) {
	scheme, err := Scheme()
	if err != nil {
		return plan.Plan{}, nil, err
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return plan.Plan{}, nil, fmt.Errorf("reach the API server: %w", err)
	}
	clients := kafka.NewClients(kafka.Options{Dial: dial})
	defer clients.Close()
	on := substrates{hosts: hostsub.New(c, c)}
	// The control plane of hosts serves no Services: no node is a pod there.
	switch _, err := c.RESTMapper().RESTMapping(schema.GroupKind{Kind: "Service"}); {
	case err == nil:
		on.pods = kubesub.New(c, c, nil)
	case !meta.IsNoMatchError(err):
		return plan.Plan{}, nil, fmt.Errorf("ask the API server whether it runs pods: %w", err)
	}
	w := wire(c, c, on, clients, dial)
	return w.engine.Preview(ctx, kc)
}
