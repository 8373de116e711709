package operator

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/engine"
	"castellan.dev/castellan/pki"
)

const (
	// webhookName is the name of the ValidatingWebhookConfiguration.
	webhookName = "castellan"
	webhookPath = "/validate/kafkacluster"
)

// webhookServer refuses bad specs when they are applied. It is registered under its own
// address with a certificate of a CA that lives only in this process.
type webhookServer struct {
	client    client.Client
	revisions revisionsPort
	packages  func(context.Context) ([]api.Package, error) // nil where no hosts are served
	address   string // host:port to listen on; port 0 picks a free one
	log       *slog.Logger
}

// addAdmission has bad specs refused when they are applied.
func addAdmission(mgr ctrl.Manager, c Config, revisions revisionsPort, packages func(context.Context) ([]api.Package, error)) error {
	return mgr.Add(&webhookServer{client: mgr.GetClient(), revisions: revisions, packages: packages, address: c.WebhookAddress, log: c.Log})
}

// Start serves until ctx ends; it implements manager.Runnable.
func (w *webhookServer) Start(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", w.address)
	if err != nil {
		return fmt.Errorf("listen for admission on %s: %w", w.address, err)
	}
	host, _, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return fmt.Errorf("address of the admission listener: %w", err)
	}
	ca, certificate, err := webhookCertificate(host)
	if err != nil {
		return err
	}
	handler := &admission.Webhook{Handler: admission.HandlerFunc(w.validate)}
	mux := http.NewServeMux()
	mux.Handle(webhookPath, handler)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ServeTLS(listener, "", "") }()
	if err := w.registerInTime(ctx, listener.Addr().String(), ca); err != nil {
		return errors.Join(err, server.Close())
	}
	w.log.InfoContext(ctx, "admission serves", slog.String("address", listener.Addr().String()))
	select {
	case err := <-failed:
		return fmt.Errorf("serve admission: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return server.Shutdown(stop)
}

func webhookCertificate(host string) (ca []byte, cert tls.Certificate, err error) {
	now := time.Now()
	authority, err := pki.NewCA("castellan admission", now)
	if err != nil {
		return nil, cert, fmt.Errorf("make the CA of the admission webhook: %w", err)
	}
	request := pki.Request{CommonName: "castellan admission", Usage: pki.UsageServer}
	if ip := net.ParseIP(host); ip != nil {
		request.IPs = []net.IP{ip}
	} else {
		request.DNSNames = []string{host}
	}
	pair, err := authority.Issue(request, now)
	if err != nil {
		return nil, cert, fmt.Errorf("issue the certificate of the admission webhook: %w", err)
	}
	cert, err = tls.X509KeyPair(pair.PEM(), pair.PEM())
	if err != nil {
		return nil, cert, fmt.Errorf("read back the certificate of the admission webhook: %w", err)
	}
	return authority.TrustPEM(), cert, nil
}

// registerInTime tries again while an API server that has just started is still finding
// its feet.
func (w *webhookServer) registerInTime(ctx context.Context, address string, ca []byte) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, time.Second, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = w.register(ctx, address, ca)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("register admission: %w", errors.Join(err, last))
	}
	return nil
}

// register tells the API server where to ask. A webhook that is gone lets objects pass
// (failurePolicy Ignore): the same validator then answers through Accepted=False.
func (w *webhookServer) register(ctx context.Context, address string, ca []byte) error {
	url := "https://" + address + webhookPath
	ignore, none, seconds := admissionregistrationv1.Ignore, admissionregistrationv1.SideEffectClassNone, int32(5)
	scope := admissionregistrationv1.NamespacedScope
	config := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: webhookName}}
	return apply(ctx, w.client, config, func() error {
		config.Webhooks = []admissionregistrationv1.ValidatingWebhook{{
			Name:         "kafkacluster.castellan.dev",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: ca},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule: admissionregistrationv1.Rule{
					APIGroups: []string{api.GroupVersion.Group}, APIVersions: []string{api.GroupVersion.Version},
					Resources: []string{"kafkaclusters"}, Scope: &scope,
				},
			}},
			FailurePolicy: &ignore, SideEffects: &none, TimeoutSeconds: &seconds,
			AdmissionReviewVersions: []string{"v1"},
		}}
		return nil
	})
}

// validate answers for one KafkaCluster.
func (w *webhookServer) validate(ctx context.Context, req admission.Request) admission.Response {
	if req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
		return admission.Allowed("")
	}
	kc := &api.KafkaCluster{}
	if err := json.Unmarshal(req.Object.Raw, kc); err != nil {
		return admission.Errored(http.StatusBadRequest, fmt.Errorf("read the KafkaCluster: %w", err))
	}
	if kc.DeletionTimestamp != nil || sameSpecJSON(req.OldObject.Raw, req.Object.Raw) {
		return admission.Allowed("") // a bad spec must not keep finalizers and labels from changing
	}
	if kc.Namespace == "" {
		kc.Namespace = req.Namespace
	}
	problems, err := w.problems(ctx, kc)
	if err != nil {
		w.log.WarnContext(ctx, "admission could not judge", slog.String("cluster", kc.Namespace+"/"+kc.Name), slog.Any("error", err))
		return admission.Allowed("").WithWarnings("Castellan could not check this spec now: " + err.Error() + "; see its condition Accepted")
	}
	return answer(kc.Name, problems)
}

func (w *webhookServer) problems(ctx context.Context, kc *api.KafkaCluster) ([]cluster.Problem, error) {
	revisions, err := w.revisions.List(ctx, kc)
	if err != nil {
		return nil, err
	}
	var catalog cluster.Catalog
	if w.packages != nil {
		if catalog.Packages, err = w.packages(ctx); err != nil {
			return nil, err
		}
	}
	_, problems := cluster.Resolve(engine.Input(kc, revisions, catalog))
	return problems, nil
}

// answer is the response: every error with its path, every warning as a line that kubectl prints.
func answer(name string, problems []cluster.Problem) admission.Response {
	var warnings []string
	var causes []metav1.StatusCause
	var lines []string
	for _, p := range problems {
		if p.Severity == cluster.Warning {
			warnings = append(warnings, p.String())
			continue
		}
		lines = append(lines, p.String())
		message := p.Reason
		if p.Remedy != "" {
			message += "; " + p.Remedy
		}
		causes = append(causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: p.Path, Message: message})
	}
	if len(causes) == 0 {
		return admission.Allowed("").WithWarnings(warnings...)
	}
	response := admission.Denied(strings.Join(lines, "\n"))
	response.Result.Code = http.StatusUnprocessableEntity
	response.Result.Reason = metav1.StatusReasonInvalid
	response.Result.Details = &metav1.StatusDetails{Group: api.GroupVersion.Group, Kind: "KafkaCluster", Name: name, Causes: causes}
	return response.WithWarnings(warnings...)
}

// sameSpecJSON says whether an update leaves the spec as it is, but for what must be
// possible whatever else is wrong: to pause, to stop and to go on.
func sameSpecJSON(before, after []byte) bool {
	if len(before) == 0 {
		return false
	}
	var a, b struct {
		Spec map[string]any `json:"spec"`
	}
	if json.Unmarshal(before, &a) != nil || json.Unmarshal(after, &b) != nil {
		return false
	}
	for _, spec := range []map[string]any{a.Spec, b.Spec} {
		delete(spec, "paused")
		delete(spec, "state")
	}
	x, errA := json.Marshal(a.Spec)
	y, errB := json.Marshal(b.Spec)
	return errA == nil && errB == nil && string(x) == string(y)
}
