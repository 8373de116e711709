package secrets

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/pki"
)

// writer writes the Secrets of one cluster when they differ from what exists, and knows what it wrote.
type writer struct {
	client   client.Client
	cluster  *api.KafkaCluster
	existing map[string]*corev1.Secret
	now      func() time.Time
}

func (w writer) put(ctx context.Context, name string, kind corev1.SecretType, data map[string][]byte) error {
	old, ok := w.existing[name]
	if !ok {
		secret := newSecret(w.cluster, name, kind, data)
		secret.OwnerReferences = w.owner()
		return w.create(ctx, w.given(secret, nil))
	}
	if maps.EqualFunc(old.Data, data, bytes.Equal) && metav1.IsControlledBy(old, w.cluster) {
		return nil
	}
	changed := old.DeepCopy()
	changed.Data = data
	// A KafkaCluster that was deleted and applied again has another UID; with the old one
	// the garbage collector would take the Secret away.
	changed.OwnerReferences = w.owner()
	return w.update(ctx, w.given(changed, old.Data))
}

func (w writer) create(ctx context.Context, secret *corev1.Secret) error {
	if err := w.client.Create(ctx, secret); apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create Secret %s/%s: one of that name exists without the labels of cluster %s; delete or rename it: %w",
			secret.Namespace, secret.Name, w.cluster.Name, err)
	} else if err != nil {
		return fmt.Errorf("create Secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	w.existing[secret.Name] = secret
	return nil
}

// update fails when the Secret is another one than was read.
func (w writer) update(ctx context.Context, secret *corev1.Secret) error {
	if err := w.client.Update(ctx, secret); err != nil {
		return fmt.Errorf("update Secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	w.existing[secret.Name] = secret
	return nil
}

// given notes when what clients trust became another one.
func (w writer) given(secret *corev1.Secret, old map[string][]byte) *corev1.Secret {
	if secret.Name == pki.TrustSecretName(w.cluster.Name) && !bytes.Equal(secret.Data[pki.KeyCACert], old[pki.KeyCACert]) {
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, pki.TrustGiven, w.now().UTC().Format(time.RFC3339Nano))
	}
	return secret
}

func (w writer) owner() []metav1.OwnerReference {
	return []metav1.OwnerReference{*metav1.NewControllerRef(w.cluster, api.GroupVersion.WithKind("KafkaCluster"))}
}
