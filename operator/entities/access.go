package entities

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
	"castellan.dev/castellan/pki"
)

// access is how clients come in by one kind of authentication: the first listener with it.
type access struct {
	bootstrap string
	tls       bool
	// ca is what clients trust, PEM; empty is what their machines trust anyway.
	ca []byte
}

func (a access) same(b access) bool {
	return a.bootstrap == b.bootstrap && a.tls == b.tls && bytes.Equal(a.ca, b.ca)
}

// accessTo finds how clients come in, as far as it is known.
func (r *Reconciler) accessTo(ctx context.Context, kc *api.KafkaCluster) (map[api.AuthenticationType]access, error) {
	out := map[api.AuthenticationType]access{}
	for _, l := range kc.Spec.Listeners {
		if _, found := out[l.Authentication.Type]; found {
			continue
		}
		for _, s := range kc.Status.Listeners {
			if s.Name != l.Name || s.BootstrapServers == "" {
				continue
			}
			a := access{bootstrap: s.BootstrapServers, tls: l.TLS != nil || l.Authentication.Type == api.AuthenticationMutualTLS}
			if s.CASecretRef != nil {
				ca, err := r.caIn(ctx, types.NamespacedName{Namespace: kc.Namespace, Name: s.CASecretRef.Name})
				if err != nil {
					return nil, err
				}
				a.ca = ca
			}
			out[l.Authentication.Type] = a
		}
	}
	return out, nil
}

func (r *Reconciler) caIn(ctx context.Context, name types.NamespacedName) ([]byte, error) {
	var secret corev1.Secret
	err := r.Client.Get(ctx, name, &secret)
	if apierrors.IsNotFound(err) { // one that is not Castellan's may not be in the cache
		err = r.Live.Get(ctx, name, &secret)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read what clients trust in Secret %s: %w", name, err)
	}
	return secret.Data[pki.KeyCACert], nil
}

// issuer is the certificate of the CA that signs those of users.
func (r *Reconciler) issuer(ctx context.Context, kc *api.KafkaCluster) (string, error) {
	name := types.NamespacedName{Namespace: kc.Namespace, Name: pki.ClientsCASecretName(kc.Name)}
	var secret corev1.Secret
	if err := r.Client.Get(ctx, name, &secret); client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("read the clients CA in Secret %s: %w", name, err)
	}
	first, _ := pem.Decode(secret.Data[pki.KeyCACert])
	if first == nil {
		return "", nil // the KafkaCluster says what is wrong with it
	}
	return string(first.Bytes), nil
}

// properties for clients: what a client.properties holds, whole, so that it can be used wherever it
// is copied to. own is how this one proves who it is.
func (a access) properties(own map[string]string, sasl bool) []byte {
	all := map[string]string{"bootstrap.servers": a.bootstrap}
	switch {
	case sasl && a.tls:
		all["security.protocol"] = "SASL_SSL"
	case sasl:
		all["security.protocol"] = "SASL_PLAINTEXT"
	default:
		all["security.protocol"] = "SSL"
	}
	if a.tls && len(a.ca) > 0 {
		all["ssl.truststore.type"], all["ssl.truststore.certificates"] = "PEM", string(a.ca)
	}
	maps.Copy(all, own)
	return kconf.Write(all)
}
