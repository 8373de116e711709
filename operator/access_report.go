package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/health"
)

// rightsReporter, on the leading replica, says at its start which rights are missing. It
// waits for no watch, since one of those may be what is missing and keeps every pass from
// being made.
type rightsReporter struct {
	client     client.Client
	live       client.Reader
	rights     *RightsCheck
	namespaces []string // "" is all
	events     events.EventRecorder
	log        *slog.Logger
}

// Start reports once; it implements manager.Runnable.
func (r *rightsReporter) Start(ctx context.Context) error {
	if less := r.rights.Sight(ctx); len(less) > 0 {
		note := strings.Join(less, "; ") + "; until then a node's zone and a lost machine or volume may not be known"
		r.log.WarnContext(ctx, "rights are missing", slog.String("note", note))
		r.events.Eventf(leaseOf(r.rights.own), nil, corev1.EventTypeWarning, "RightsMissing", "CheckRights", "%s", truncate(note, 1000))
	}
	var errs []error
	for _, namespace := range r.namespaces {
		if missing := r.rights.Missing(ctx, namespace); len(missing) > 0 {
			r.log.ErrorContext(ctx, "rights are missing", slog.String("namespace", namespace), slog.Any("missing", missing))
			errs = append(errs, r.report(ctx, namespace, strings.Join(missing, "; ")))
		}
	}
	if err := errors.Join(errs...); err != nil {
		r.log.ErrorContext(ctx, "missing rights not reported in the clusters' conditions", slog.Any("error", err))
	}
	return nil
}

func (r *rightsReporter) report(ctx context.Context, namespace, missing string) error {
	var list api.KafkaClusterList
	if err := r.live.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return fmt.Errorf("list KafkaClusters: %w", err)
	}
	var errs []error
	for i := range list.Items {
		kc := &list.Items[i]
		before := kc.DeepCopy()
		said := *kc.Status.DeepCopy()
		health.PassFailed(&said, kc.Generation, missing)
		kc.Status.Doing = said.Doing
		for _, c := range said.Conditions {
			meta.SetStatusCondition(&kc.Status.Conditions, c)
		}
		if equality.Semantic.DeepEqual(before.Status, kc.Status) {
			continue
		}
		errs = append(errs, client.IgnoreNotFound(r.client.Status().Patch(ctx, kc, client.MergeFrom(before), fieldOwner)))
	}
	return errors.Join(errs...)
}

// leaseOf is the operator's Lease, where somebody looks for what the operator does.
func leaseOf(namespace string) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		TypeMeta:   metav1.TypeMeta{APIVersion: coordinationv1.SchemeGroupVersion.String(), Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: LeaseName},
	}
}
