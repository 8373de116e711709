package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
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
	log        *slog.Logger
}

// Start reports once; it implements manager.Runnable.
func (r *rightsReporter) Start(ctx context.Context) error {
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
		health.PassFailed(&kc.Status, kc.Generation, missing)
		if equality.Semantic.DeepEqual(before.Status, kc.Status) {
			continue
		}
		errs = append(errs, client.IgnoreNotFound(r.client.Status().Patch(ctx, kc, client.MergeFrom(before), fieldOwner)))
	}
	return errors.Join(errs...)
}
