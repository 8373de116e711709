package operator

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/operator/entities"
	"castellan.dev/castellan/pki/secrets"
)

// userSecrets are the Secrets of a cluster's KafkaUsers, from the cache.
func userSecrets(ctx context.Context, c client.Reader, of *api.KafkaCluster) ([]secrets.User, error) {
	var list api.KafkaUserList
	// They are only read here: no copies.
	if err := c.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the KafkaUsers: %w", err)
	}
	out := []secrets.User{}
	for i := range list.Items {
		u := &list.Items[i]
		if entities.ClusterOf(u.Namespace, u.Spec.ClusterRef) != client.ObjectKeyFromObject(of) || !entities.Keeps(u) {
			continue
		}
		secret := &corev1.Secret{}
		err := c.Get(ctx, client.ObjectKey{Namespace: u.Namespace, Name: entities.SecretName(u)}, secret)
		if apierrors.IsNotFound(err) || err == nil && !metav1.IsControlledBy(secret, u) {
			continue // it is made of what there is then
		}
		if err != nil {
			return nil, fmt.Errorf("read the Secret of KafkaUser %s/%s: %w", u.Namespace, u.Name, err)
		}
		user := secrets.User{Name: "user " + u.Namespace + "/" + u.Name, Secret: secret}
		if u.Spec.Authentication.Type == api.UserMutualTLS {
			user.Certificate = entities.CertificateKey
		}
		out = append(out, user)
	}
	return out, nil
}
