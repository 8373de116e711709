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
	"castellan.dev/castellan/core/kconf"
	loop "castellan.dev/castellan/operator/entities"
)

const (
	topicWebhookPath = "/validate/kafkatopic"
	userWebhookPath  = "/validate/kafkauser"
)

// validateTopic refuses a spec that is wrong by itself, or beside its cluster's. What Kafka has is not asked, and a cluster
// that is not there, or cannot be read, is told by the topic's status.
func (w validator) validateTopic(ctx context.Context, req admission.Request) admission.Response {
	return validateEntity(req, "KafkaTopic", &api.KafkaTopic{}, func(o *api.KafkaTopic) []string {
		if problem := entities.CheckTopic(o); problem != "" {
			return []string{problem}
		}
		o.Namespace = req.Namespace
		kc := &api.KafkaCluster{}
		if err := w.revisions.client.Get(ctx, loop.ClusterOf(o.Namespace, o.Spec.ClusterRef), kc); err != nil {
			return nil
		}
		table, ok := kconf.Table{}, false
		if len(o.Spec.Config) > 0 {
			table, ok = kconf.For(kc.Spec.Version)
		}
		return entities.CheckTopicOf(o, &kc.Spec, table, ok)
	})
}

func validateUser(_ context.Context, req admission.Request) admission.Response {
	return validateEntity(req, "KafkaUser", &api.KafkaUser{}, func(o *api.KafkaUser) []string {
		if problem := entities.CheckUser(o); problem != "" {
			return []string{problem}
		}
		return nil
	})
}

// validateEntity asks check about another spec, and nothing about the same.
func validateEntity[O client.Object](req admission.Request, kind string, o O, check func(O) []string) admission.Response {
	if err := json.Unmarshal(req.Object.Raw, o); err != nil {
		return admission.Errored(http.StatusBadRequest, fmt.Errorf("read the %s: %w", kind, err))
	}
	if o.GetDeletionTimestamp() != nil || sameSpecJSON(req.OldObject.Raw, req.Object.Raw) {
		return admission.Allowed("")
	}
	said := check(o)
	if len(said) == 0 {
		return admission.Allowed("")
	}
	problems := make([]cluster.Problem, 0, len(said))
	for _, problem := range said {
		path, reason := "spec", problem
		if first, rest, ok := strings.Cut(problem, " "); ok && strings.HasPrefix(first, "spec.") {
			path, reason = strings.TrimSuffix(first, ":"), rest
		}
		problems = append(problems, cluster.Problem{Path: path, Reason: strings.TrimSuffix(reason, ".")})
	}
	return answer(kind, o.GetName(), problems)
}
