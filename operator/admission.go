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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/engine"
)

const (
	webhookPath          = "/validate/kafkacluster"
	operationWebhookPath = "/validate/operation"
	// webhookPort is where the Service of admission listens.
	webhookPort = 443
)

// validator refuses bad specs when they are applied.
type validator struct {
	revisions revisionsPort
	packages  func(context.Context) ([]api.Package, error) // nil where no hosts are served
	log       *slog.Logger
}

// addAdmission has bad specs refused when they are applied.
func addAdmission(ctx context.Context, mgr ctrl.Manager, c Config, rights *RightsCheck, revisions revisionsPort, packages func(context.Context) ([]api.Package, error)) error {
	v := validator{revisions: revisions, packages: packages, log: c.Log}
	if c.WebhookService != "" {
		return addService(ctx, mgr, c, rights, v)
	}
	return mgr.Add(&localAdmission{validator: v, client: mgr.GetClient(), address: c.WebhookAddress})
}

// serve answers the API server on a listener until ctx ends. ready is called when it does.
func (w validator) serve(ctx context.Context, listener net.Listener, config *tls.Config, ready func() error) error {
	mux := http.NewServeMux()
	mux.Handle(webhookPath, &admission.Webhook{Handler: admission.HandlerFunc(w.validate)})
	mux.Handle(operationWebhookPath, &admission.Webhook{Handler: admission.HandlerFunc(w.validateOperation)})
	mux.Handle(topicWebhookPath, &admission.Webhook{Handler: admission.HandlerFunc(w.validateTopic)})
	mux.Handle(userWebhookPath, &admission.Webhook{Handler: admission.HandlerFunc(validateUser)})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
		TLSConfig: config,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ServeTLS(listener, "", "") }()
	if err := ready(); err != nil {
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

func listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for admission on %s: %w", address, err)
	}
	return listener, nil
}

// webhooks are what the API server asks about. A webhook that is gone lets objects pass
// (failurePolicy Ignore): the same validator then answers through Accepted=False, while
// Fail would keep anybody from stopping or deleting a cluster while no operator runs.
func webhooks(at func(path string) admissionregistrationv1.WebhookClientConfig, namespaces []string) []admissionregistrationv1.ValidatingWebhook {
	const create, update = admissionregistrationv1.Create, admissionregistrationv1.Update
	return []admissionregistrationv1.ValidatingWebhook{
		webhook("kafkacluster.castellan.dev", at(webhookPath), namespaces, "kafkaclusters", create, update),
		webhook("kafkatopic.castellan.dev", at(topicWebhookPath), namespaces, "kafkatopics", create, update),
		webhook("kafkauser.castellan.dev", at(userWebhookPath), namespaces, "kafkausers", create, update),
		webhook("operation.castellan.dev", at(operationWebhookPath), namespaces, "operations", create),
	}
}

func webhook(name string, at admissionregistrationv1.WebhookClientConfig, namespaces []string, resource string, on ...admissionregistrationv1.OperationType) admissionregistrationv1.ValidatingWebhook {
	ignore, none, seconds := admissionregistrationv1.Ignore, admissionregistrationv1.SideEffectClassNone, int32(5)
	scope := admissionregistrationv1.NamespacedScope
	hook := admissionregistrationv1.ValidatingWebhook{
		Name: name, ClientConfig: at,
		Rules: []admissionregistrationv1.RuleWithOperations{{
			Operations: on,
			Rule: admissionregistrationv1.Rule{
				APIGroups: []string{api.GroupVersion.Group}, APIVersions: []string{api.GroupVersion.Version},
				Resources: []string{resource}, Scope: &scope,
			},
		}},
		// What is no other spec is a finalizer or an annotation, ours for the most part: thousands of topics would each ask twice.
		MatchConditions: []admissionregistrationv1.MatchCondition{{
			Name: "another-spec", Expression: "oldObject == null || object.metadata.generation != oldObject.metadata.generation",
		}},
		FailurePolicy: &ignore, SideEffects: &none, TimeoutSeconds: &seconds,
		AdmissionReviewVersions: []string{"v1"},
	}
	if len(namespaces) > 0 {
		hook.NamespaceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpIn, Values: namespaces,
		}}}
	}
	return hook
}

// ServiceWebhook is the ValidatingWebhookConfiguration of an operator that is asked through
// a Service. Its caBundle is left to the operator, or to cert-manager.
func ServiceWebhook(namespace, service string, watched []string) *admissionregistrationv1.ValidatingWebhookConfiguration {
	port := int32(webhookPort)
	at := func(path string) admissionregistrationv1.WebhookClientConfig {
		return admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: namespace, Name: service, Path: &path, Port: &port}}
	}
	return &admissionregistrationv1.ValidatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionregistrationv1.SchemeGroupVersion.String(), Kind: "ValidatingWebhookConfiguration"},
		ObjectMeta: metav1.ObjectMeta{Name: WebhookConfiguration(namespace)},
		Webhooks:   webhooks(at, watched),
	}
}

// validate answers for one KafkaCluster.
func (w validator) validate(ctx context.Context, req admission.Request) admission.Response {
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
	return answer(clusterKind, kc.Name, problems)
}

func (w validator) problems(ctx context.Context, kc *api.KafkaCluster) ([]cluster.Problem, error) {
	revisions, err := w.revisions.List(ctx, kc, engine.Fresh)
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
func answer(kind, name string, problems []cluster.Problem) admission.Response {
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
	response.Result.Details = &metav1.StatusDetails{Group: api.GroupVersion.Group, Kind: kind, Name: name, Causes: causes}
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
