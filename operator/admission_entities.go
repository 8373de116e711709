package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/entities"
)

const (
	topicWebhookPath = "/validate/kafkatopic"
	userWebhookPath  = "/validate/kafkauser"
)

func validateTopic(_ context.Context, req admission.Request) admission.Response {
	return validateEntity(req, "KafkaTopic", &api.KafkaTopic{}, entities.CheckTopic)
}

func validateUser(_ context.Context, req admission.Request) admission.Response {
	return validateEntity(req, "KafkaUser", &api.KafkaUser{}, entities.CheckUser)
}

// validateEntity refuses a spec that is wrong by itself; what Kafka has is not asked.
func validateEntity[O client.Object](req admission.Request, kind string, o O, check func(O) string) admission.Response {
	if err := json.Unmarshal(req.Object.Raw, o); err != nil {
		return admission.Errored(http.StatusBadRequest, fmt.Errorf("read the %s: %w", kind, err))
	}
	if o.GetDeletionTimestamp() != nil || sameSpecJSON(req.OldObject.Raw, req.Object.Raw) {
		return admission.Allowed("")
	}
	problem := check(o)
	if problem == "" {
		return admission.Allowed("")
	}
	path, reason := "spec", problem
	if first, rest, ok := strings.Cut(problem, " "); ok && strings.HasPrefix(first, "spec.") {
		path, reason = strings.TrimSuffix(first, ":"), rest
	}
	return answer(kind, o.GetName(), []cluster.Problem{{Path: path, Reason: strings.TrimSuffix(reason, ".")}})
}
