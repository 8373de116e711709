package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kube"
)

// DownOptions are what a user chooses.
type DownOptions struct {
	Options
	// Cluster to delete; empty is the only one of the namespace.
	Cluster string
	// Operator removes the operator as well; types and namespaces stay.
	Operator bool
}

// Down deletes a KafkaCluster, which stops its nodes in order, and keeps its data.
func Down(ctx context.Context, o DownOptions) error {
	o.Options = o.complete()
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	s, err := o.open()
	if err != nil {
		return err
	}
	defer s.close()
	c, err := s.victim(ctx, o.Cluster)
	if err != nil {
		return err
	}
	if c != nil {
		if err := s.deleteCluster(ctx, c); err != nil {
			return err
		}
		s.tellKept(ctx, c)
	}
	if o.Operator {
		return s.removeOperator(ctx)
	}
	s.Done("the operator stays in namespace %s (--operator removes it)", s.OperatorNamespace)
	return nil
}

// victim is the cluster to delete; nothing where there is none.
func (s *session) victim(ctx context.Context, name string) (*api.KafkaCluster, error) {
	var list api.KafkaClusterList
	err := s.client.List(ctx, &list, client.InNamespace(s.Namespace))
	if err != nil && !absent(err) {
		return nil, fmt.Errorf("list the KafkaClusters of namespace %s: %w", s.Namespace, err)
	}
	var names []string
	for i := range list.Items {
		if list.Items[i].Name == name {
			return &list.Items[i], nil
		}
		names = append(names, list.Items[i].Name)
	}
	switch {
	case len(names) == 0 || name != "":
		s.Done("there is no KafkaCluster %s in namespace %s", cmp.Or(name, "left"), s.Namespace)
		return nil, nil //nolint:nilnil // nothing is an answer here
	case len(names) > 1:
		slices.Sort(names)
		return nil, &RefusedError{Message: fmt.Sprintf("namespace %s has several KafkaClusters: choose one with --cluster: %s", s.Namespace, strings.Join(names, ", "))}
	}
	return &list.Items[0], nil
}

func (s *session) deleteCluster(ctx context.Context, c *api.KafkaCluster) error {
	key := client.ObjectKeyFromObject(c)
	if c.Spec.DeletionPolicy == api.DeletionDelete {
		return &RefusedError{Message: fmt.Sprintf("KafkaCluster %s has deletionPolicy Delete, so its data would go with it: `castellan delete kc %s -n %s` does that", key, c.Name, c.Namespace)}
	}
	err := s.client.Delete(ctx, c, client.Preconditions{UID: new(c.UID)})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete KafkaCluster %s: %w", key, err)
	}
	for {
		now := &api.KafkaCluster{}
		err := s.client.Get(ctx, key, now)
		if absent(err) || err == nil && now.UID != c.UID {
			break
		}
		doing := fmt.Sprintf("the API server does not answer: %v", err)
		if err == nil {
			doing = s.describe(ctx, now)
		}
		s.Doing("stopping KafkaCluster %s in order: %s", key, doing)
		if !pause(ctx) {
			return fmt.Errorf("KafkaCluster %s is being deleted but not gone after %s: %w\n%s", key, s.Timeout, ctx.Err(), s.trouble(context.WithoutCancel(ctx), c))
		}
	}
	s.Done("KafkaCluster %s is deleted", key)
	return nil
}

// tellKept says what of a deleted cluster stays.
func (s *session) tellKept(ctx context.Context, c *api.KafkaCluster) {
	var claims corev1.PersistentVolumeClaimList
	err := s.client.List(ctx, &claims, client.InNamespace(c.Namespace), client.MatchingLabels{kube.LabelCluster: c.Name})
	if err != nil {
		s.Done("its data is kept; the PersistentVolumeClaims cannot be listed: %v", err)
		return
	}
	names := make([]string, len(claims.Items))
	for i := range claims.Items {
		names[i] = claims.Items[i].Name
	}
	slices.Sort(names)
	s.Done("its data is kept in %d PersistentVolumeClaims of namespace %s: %s; a KafkaCluster of the same name takes it up again",
		len(names), c.Namespace, strings.Join(names, ", "))
}

// removeOperator deletes what the operator consists of, the last first. Types stay, with
// which every description of a cluster would go, and the namespace, which may hold more.
func (s *session) removeOperator(ctx context.Context) error {
	var left api.KafkaClusterList
	if err := s.client.List(ctx, &left); err != nil && !absent(err) {
		return fmt.Errorf("look for other KafkaClusters: %w", err)
	}
	if n := len(left.Items); n > 0 {
		return &RefusedError{Message: fmt.Sprintf("the operator stays, because %d KafkaClusters still need it, among them %s/%s", n, left.Items[0].Namespace, left.Items[0].Name)}
	}
	found, err := s.operators(ctx)
	if err != nil {
		return err
	}
	for i := range found {
		if release := found[i].Annotations[helmRelease]; release != "" {
			return &RefusedError{Message: fmt.Sprintf("the operator is of the Helm release %s: `helm uninstall %s -n %s` removes it", release, release, found[i].Namespace)}
		}
	}
	objects, err := s.operatorObjects()
	if err != nil {
		return err
	}
	var failures []error
	for _, o := range slices.Backward(objects) {
		if o.GetKind() == definitionKind || o.GetKind() == "Namespace" {
			continue
		}
		if err := s.remove(ctx, o); err != nil {
			failures = append(failures, err)
		}
	}
	if err := errors.Join(failures...); err != nil {
		return err
	}
	s.Done("the operator is removed; the types of castellan.dev and namespace %s stay", s.OperatorNamespace)
	return nil
}

// remove deletes one object, and nothing that has taken its place since.
func (s *session) remove(ctx context.Context, o *unstructured.Unstructured) error {
	current := shell(o)
	if err := s.client.Get(ctx, client.ObjectKeyFromObject(o), current); err != nil {
		if absent(err) {
			return nil
		}
		return fmt.Errorf("read %s %s: %w", o.GetKind(), fullName(o), err)
	}
	uid := current.GetUID()
	err := s.client.Delete(ctx, current, client.Preconditions{UID: &uid}, client.PropagationPolicy("Background"))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s %s: %w", o.GetKind(), fullName(o), err)
	}
	s.Done("%s %s deleted", strings.ToLower(o.GetKind()), fullName(o))
	return nil
}
