package main

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// warnings collects what the server warns of.
type warnings struct {
	mu   sync.Mutex
	seen []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, text)
}

func (w *warnings) has(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.seen, text)
}

// reviewer allows everything with a warning, except objects named "refused".
func reviewer(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true, Warnings: []string{"legal but unwise"}}
	if review.Request.Name == "refused" {
		review.Response.Allowed = false
		review.Response.Result = &metav1.Status{Message: "refused by the webhook", Reason: metav1.StatusReasonInvalid, Code: 422}
	}
	review.Request = nil
	if err := json.NewEncoder(w).Encode(review); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func webhooksAreCalled(t *testing.T, i *instance) {
	t.Helper()
	hook := httptest.NewTLSServer(http.HandlerFunc(reviewer))
	defer hook.Close()
	ctx := t.Context()
	config, heard := i.config(), new(warnings)
	config.WarningHandler = heard
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	hooks, maps := client.AdmissionregistrationV1().ValidatingWebhookConfigurations(), client.CoreV1().ConfigMaps("default")
	registered, err := hooks.Create(ctx, registration(hook), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	eventually(t, "the warning reaches the client", func() error {
		if _, err := maps.Create(ctx, configMap("allowed"), dryRun); err != nil {
			return err
		}
		if !heard.has("legal but unwise") {
			return notYet("no warning")
		}
		return nil
	})
	_, err = maps.Create(ctx, configMap("refused"), dryRun)
	if !apierrors.IsInvalid(err) {
		t.Errorf("a refused object gave %v", err)
	} else {
		mustContain(t, err.Error(), "refused by the webhook")
	}

	hook.Close()
	eventually(t, "failurePolicy Fail refuses while the webhook is away", func() error {
		_, err := maps.Create(ctx, configMap("allowed"), dryRun)
		if err == nil {
			return notYet("allowed")
		}
		mustContain(t, err.Error(), "failed calling webhook", "warn.test.castellan.dev")
		return nil
	})
	ignore := admissionregistrationv1.Ignore
	registered.Webhooks[0].FailurePolicy = &ignore
	if _, err := hooks.Update(ctx, registered, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "failurePolicy Ignore allows", func() error {
		_, err := maps.Create(ctx, configMap("allowed"), dryRun)
		return err
	})
	if err := hooks.Delete(ctx, registered.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func registration(hook *httptest.Server) *admissionregistrationv1.ValidatingWebhookConfiguration {
	none, fail := admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Fail
	seconds := int32(5)
	return &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "warn.test.castellan.dev"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "warn.test.castellan.dev",
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL:      &hook.URL,
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw}),
			},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
			FailurePolicy:           &fail,
			SideEffects:             &none,
			TimeoutSeconds:          &seconds,
			AdmissionReviewVersions: []string{"v1"},
		}},
	}
}
