package operator

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"castellan.dev/castellan/pki"
)

// WebhookSecret is the Secret, in the operator's namespace, with the certificate of the
// webhook's Service.
const WebhookSecret = "castellan-webhook" //nolint:gosec // a name

// WebhookConfiguration is the name of the ValidatingWebhookConfiguration of an operator that
// runs in a namespace; several operators may share a Kubernetes cluster.
func WebhookConfiguration(namespace string) string { return "castellan-" + namespace }

// serviceAdmission answers through a Service. Every replica does, with the certificate of
// one Secret, which it takes up as it changes.
type serviceAdmission struct {
	validator
	address string
	watch   cache.Cache
	cert    *servedCertificate
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*serviceAdmission) NeedLeaderElection() bool { return false }

// Start serves until ctx ends; it implements manager.Runnable.
func (s *serviceAdmission) Start(ctx context.Context) error {
	listener, err := listen(ctx, s.address)
	if err != nil {
		return err
	}
	config := &tls.Config{GetCertificate: s.cert.get, MinVersion: tls.VersionTLS13}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan error, 1)
	go func() { watched <- s.watch.Start(ctx) }()
	err = s.serve(ctx, listener, config, func() error { return nil })
	cancel()
	return errors.Join(err, <-watched)
}

// servedCertificate is the newest usable certificate of the Secret.
type servedCertificate struct {
	now  atomic.Pointer[tls.Certificate]
	name string // of the Secret
	log  *slog.Logger
}

func (s *servedCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := s.now.Load(); c != nil {
		return c, nil
	}
	return nil, s.missing()
}

func (s *servedCertificate) missing() error {
	return fmt.Errorf("no certificate for admission yet: Secret %s has no usable %s and %s; the leading operator makes them, or who provides the Secret",
		s.name, pki.KeyTLSCert, pki.KeyTLSKey)
}

// ready implements healthz.Checker.
func (s *servedCertificate) ready(*http.Request) error {
	if s.now.Load() == nil {
		return s.missing()
	}
	return nil
}

// load takes up a certificate; an unusable one leaves the last good one in force.
func (s *servedCertificate) load(o any) {
	secret, ok := o.(*corev1.Secret)
	if !ok {
		return
	}
	c, err := tls.X509KeyPair(secret.Data[pki.KeyTLSCert], secret.Data[pki.KeyTLSKey])
	if err != nil {
		s.log.Warn("certificate for admission not taken up", slog.String("secret", s.name), slog.Any("error", err))
		return
	}
	s.now.Store(&c)
}

// addService serves admission through a Service and keeps its certificate.
func addService(ctx context.Context, mgr ctrl.Manager, c Config, rights *RightsCheck, v validator) error {
	watch, err := cache.New(c.API, cache.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), ByObject: map[client.Object]cache.ByObject{
		&corev1.Secret{}: {
			Namespaces: map[string]cache.Config{c.LeaseNamespace: {}}, Field: fields.OneTermEqualSelector(metav1.ObjectNameField, WebhookSecret),
		},
		&admissionregistrationv1.ValidatingWebhookConfiguration{}: {
			Field: fields.OneTermEqualSelector(metav1.ObjectNameField, WebhookConfiguration(c.LeaseNamespace)),
		},
	}})
	if err != nil {
		return fmt.Errorf("watch the webhook's certificate: %w", err)
	}
	served := &servedCertificate{name: c.LeaseNamespace + "/" + WebhookSecret, log: c.Log}
	informer, err := watch.GetInformer(ctx, &corev1.Secret{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch the webhook's certificate: %w", err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: served.load, UpdateFunc: func(_, o any) { served.load(o) }})
	if err != nil {
		return fmt.Errorf("watch the webhook's certificate: %w", err)
	}
	errs := []error{
		mgr.Add(&serviceAdmission{validator: v, address: c.WebhookAddress, watch: watch, cert: served}),
		mgr.AddReadyzCheck("webhook-certificate", served.ready),
	}
	if !c.WebhookProvided {
		errs = append(errs, (&certificateKeeper{
			client: mgr.GetClient(), watch: watch, events: mgr.GetEventRecorder("castellan-operator"), now: c.now,
			namespace: c.LeaseNamespace, service: c.WebhookService, without: rights.Admission(ctx),
		}).setup(mgr))
	}
	return errors.Join(errs...)
}

// certificateKeeper, on the leading replica, keeps the Secret and the caBundle that goes
// with it.
type certificateKeeper struct {
	client             client.Client
	watch              cache.Cache
	events             events.EventRecorder
	now                func() time.Time
	namespace, service string
	// without are the rights that are missing for the caBundle; with any, bad specs are
	// told by Accepted=False only.
	without []string
}

// Reconcile brings Secret and caBundle to what they must be now.
func (k *certificateKeeper) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	config, err := k.configuration(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	keys, again, err := k.keys(ctx, bundle(config))
	if err != nil {
		return reconcile.Result{}, err
	}
	if err := k.register(ctx, config, keys[pki.KeyCACert]); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: max(again.Sub(k.now()), time.Second)}, nil
}

// configuration is what the API server knows of admission; one without webhooks when that
// is nothing.
func (k *certificateKeeper) configuration(ctx context.Context) (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	config := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	const instead = "; until then bad specs are not refused, their condition Accepted says what is wrong"
	if len(k.without) > 0 {
		k.tell(strings.Join(k.without, "; ") + instead)
		return config, nil
	}
	name := WebhookConfiguration(k.namespace)
	err := k.watch.Get(ctx, client.ObjectKey{Name: name}, config)
	if apierrors.IsNotFound(err) {
		k.tell("ValidatingWebhookConfiguration " + name + " is missing: install it again (helm upgrade, or kubectl apply)" + instead)
		return config, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ValidatingWebhookConfiguration %s: %w", name, err)
	}
	return config, nil
}

// keys writes the Secret if it must change. What is held up by a caBundle goes on when the
// watch shows that one.
func (k *certificateKeeper) keys(ctx context.Context, registered []byte) (webhookKeys, time.Time, error) {
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: k.namespace, Name: WebhookSecret}
	err := k.watch.Get(ctx, key, secret)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return nil, time.Time{}, fmt.Errorf("read Secret %s: %w", key, err)
	}
	if !missing && secret.Labels[pki.LabelManagedBy] != pki.ManagedBy {
		err := fmt.Errorf("Secret %s was not made by Castellan (it has no label %s=%s) and is left as it is: say --webhook-provided, or delete it", key, pki.LabelManagedBy, pki.ManagedBy) //nolint:staticcheck // Secret is a kind
		k.tell(err.Error())
		return nil, time.Time{}, err
	}
	keys, again, err := webhookKeys(secret.Data).next(serviceNames(k.namespace, k.service), registered, k.now())
	if err != nil {
		return nil, time.Time{}, err
	}
	if maps.EqualFunc(secret.Data, keys, bytes.Equal) {
		return keys, again, nil
	}
	// The version that was read goes along: two that lead in turn never mix their keys.
	secret.Namespace, secret.Name, secret.Data, secret.Type = key.Namespace, key.Name, keys, corev1.SecretTypeTLS
	secret.Labels = map[string]string{pki.LabelManagedBy: pki.ManagedBy}
	if missing {
		err = k.client.Create(ctx, secret, fieldOwner)
	} else {
		err = k.client.Update(ctx, secret, fieldOwner)
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("write Secret %s: %w", key, err)
	}
	return keys, again, nil
}

func (k *certificateKeeper) register(ctx context.Context, config *admissionregistrationv1.ValidatingWebhookConfiguration, ca []byte) error {
	before := config.DeepCopy()
	changed := false
	for i := range config.Webhooks {
		at := &config.Webhooks[i].ClientConfig
		changed = changed || !bytes.Equal(at.CABundle, ca)
		at.CABundle = ca
	}
	if !changed {
		return nil
	}
	if err := k.client.Patch(ctx, config, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), fieldOwner); err != nil {
		return fmt.Errorf("write the caBundle of ValidatingWebhookConfiguration %s: %w", config.Name, err)
	}
	return nil
}

func (k *certificateKeeper) tell(note string) {
	k.events.Eventf(leaseOf(k.namespace), nil, corev1.EventTypeWarning, "AdmissionNotRegistered", "RegisterAdmission", "%s", truncate(note, 1000))
}

func (k *certificateKeeper) setup(mgr ctrl.Manager) error {
	one := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: k.namespace, Name: WebhookSecret}}}
	})
	// The first pass must come also where neither object exists yet.
	first := source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		queue.Add(reconcile.Request{NamespacedName: client.ObjectKey{Namespace: k.namespace, Name: WebhookSecret}})
		return nil
	})
	b := ctrl.NewControllerManagedBy(mgr).
		Named("webhook-certificate").
		WatchesRawSource(source.Kind(k.watch, client.Object(&corev1.Secret{}), one)).
		WatchesRawSource(first)
	if len(k.without) == 0 {
		b = b.WatchesRawSource(source.Kind(k.watch, client.Object(&admissionregistrationv1.ValidatingWebhookConfiguration{}), one))
	}
	return b.Complete(k)
}

// bundle is what every webhook of a configuration trusts; nil while they differ.
func bundle(config *admissionregistrationv1.ValidatingWebhookConfiguration) []byte {
	var ca []byte
	for i, w := range config.Webhooks {
		if i > 0 && !bytes.Equal(ca, w.ClientConfig.CABundle) {
			return nil
		}
		ca = w.ClientConfig.CABundle
	}
	return ca
}

func serviceNames(namespace, service string) []string {
	return []string{service + "." + namespace + ".svc", service + "." + namespace + ".svc.cluster.local"}
}
