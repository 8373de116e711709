package install

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// How an operator's Deployment is found.
const (
	nameLabel         = "app.kubernetes.io/name"
	componentLabel    = "app.kubernetes.io/component"
	operatorName      = "castellan"
	operatorComponent = "operator"
	helmRelease       = "meta.helm.sh/release-name"
)

// operatorObjects are the types and what the operator consists of.
func (s *session) operatorObjects() ([]*unstructured.Unstructured, error) {
	objects, err := s.Manifests(ManifestOptions{Namespace: s.OperatorNamespace, Image: s.OperatorImage})
	if err != nil {
		return nil, fmt.Errorf("make the operator's manifests: %w", err)
	}
	return order(objects), nil
}

// operators are the Deployments of an operator, as far as this user may see them.
func (s *session) operators(ctx context.Context) ([]appsv1.Deployment, error) {
	var list appsv1.DeploymentList
	labels := client.MatchingLabels{nameLabel: operatorName, componentLabel: operatorComponent}
	err := s.client.List(ctx, &list, labels)
	if apierrors.IsForbidden(err) {
		err = s.client.List(ctx, &list, labels, client.InNamespace(s.OperatorNamespace))
	}
	if err != nil {
		return nil, fmt.Errorf("look for an operator: %w", err)
	}
	return list.Items, nil
}

// checkOperators makes sure that there will be one operator. One that Helm has installed is
// used as it is.
func (p *preflight) checkOperators(ctx context.Context, w *wish) error {
	found, err := p.operators(ctx)
	if apierrors.IsForbidden(err) {
		p.warn("Deployments cannot be listed with these rights: whether another operator runs is not known")
		return nil
	}
	if err != nil {
		return err
	}
	for i := range found {
		d := &found[i]
		if release := d.Annotations[helmRelease]; release != "" && serves(d, w.clusters) {
			w.operator = nil
			p.OperatorNamespace = d.Namespace
			p.warn("the operator in namespace %s is of the Helm release %s: it is used as it is", d.Namespace, release)
			continue
		}
		if d.Namespace != p.OperatorNamespace && serves(d, w.clusters) {
			p.miss("one operator only: %s runs in namespace %s already; name it with --operator-namespace %s", d.Name, d.Namespace, d.Namespace)
		}
	}
	return nil
}

// watchFlag limits an operator to namespaces.
const watchFlag = "--watch-namespace="

// serves says whether an operator looks after one of the clusters.
func serves(d *appsv1.Deployment, clusters []*api.KafkaCluster) bool {
	var only []string
	for _, c := range d.Spec.Template.Spec.Containers {
		for _, arg := range c.Args {
			if names, ok := strings.CutPrefix(arg, watchFlag); ok {
				only = append(only, strings.Split(names, ",")...)
			}
		}
	}
	return len(only) == 0 || slices.ContainsFunc(clusters, func(c *api.KafkaCluster) bool { return slices.Contains(only, c.Namespace) })
}

// awaitOperator waits until the operator's Deployment is available.
func (s *session) awaitOperator(ctx context.Context) error {
	for {
		found, err := s.operators(ctx)
		waiting := fmt.Sprintf("no Deployment with the label %s=%s in namespace %s", nameLabel, operatorName, s.OperatorNamespace)
		for i := range found {
			d := &found[i]
			if d.Namespace != s.OperatorNamespace {
				continue
			}
			if available(d) {
				return nil
			}
			waiting = s.whyOperatorWaits(ctx, d)
		}
		if err != nil && ctx.Err() == nil {
			waiting = err.Error()
		}
		s.Doing("operator: %s", waiting)
		if !pause(ctx) {
			return fmt.Errorf("the operator is not available after %s (%s): %w\n%s", s.Timeout, waiting, ctx.Err(),
				s.warningEvents(ctx, s.OperatorNamespace, func(name string) bool { return strings.HasPrefix(name, "castellan") }))
		}
	}
}

func available(d *appsv1.Deployment) bool {
	wanted := int32(1)
	if d.Spec.Replicas != nil {
		wanted = *d.Spec.Replicas
	}
	return d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedReplicas >= wanted && d.Status.AvailableReplicas > 0
}

func (s *session) whyOperatorWaits(ctx context.Context, d *appsv1.Deployment) string {
	text := fmt.Sprintf("%d of %d pods available", d.Status.AvailableReplicas, d.Status.Replicas)
	var pods corev1.PodList
	if d.Spec.Selector == nil || s.client.List(ctx, &pods, client.InNamespace(d.Namespace), client.MatchingLabels(d.Spec.Selector.MatchLabels)) != nil {
		return text
	}
	for i := range pods.Items {
		if why := podTrouble(&pods.Items[i]); why != "" {
			return text + "; " + why
		}
	}
	return text
}

// podTrouble says what a pod waits for, in its own words; nothing when all is well.
func podTrouble(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return fmt.Sprintf("pod %s: %s", p.Name, c.Message)
		}
	}
	for _, c := range append(append([]corev1.ContainerStatus{}, p.Status.InitContainerStatuses...), p.Status.ContainerStatuses...) {
		if w := c.State.Waiting; w != nil && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating" {
			return strings.TrimSpace(fmt.Sprintf("pod %s: %s %s", p.Name, w.Reason, w.Message))
		}
	}
	return ""
}

// poll is how often something that is waited for is looked at.
const poll = time.Second

// pause waits a little; false when ctx has ended.
func pause(ctx context.Context) bool {
	timer := time.NewTimer(poll)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
