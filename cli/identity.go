package cli

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/kafka"
)

// identity is as whom a command connects, and by which kind of listener.
type identity struct {
	user        string // empty is nobody
	by          api.AuthenticationType
	login       *kafka.Login
	certificate *tls.Certificate
}

// identity reads what proves that we are the KafkaUser of --user.
func (t *target) identity(ctx context.Context, c client.Client, cluster *api.KafkaCluster, namespace string) (identity, error) {
	if t.user == "" {
		return identity{by: api.AuthenticationNone}, nil
	}
	key := client.ObjectKey{Namespace: namespace, Name: t.user}
	var user api.KafkaUser
	if err := c.Get(ctx, key, &user); err != nil {
		return identity{}, fmt.Errorf("read KafkaUser %s: %w", key, err)
	}
	if of := user.Spec.ClusterRef; of.Name != cluster.Name || of.Namespace != "" && of.Namespace != cluster.Namespace {
		return identity{}, usagef("KafkaUser %s is one of KafkaCluster %s: name that one with --cluster", key, of.Name)
	}
	as := identity{user: t.user, by: api.AuthenticationType(user.Spec.Authentication.Type)}
	if as.by == api.AuthenticationType(api.UserExternal) {
		return identity{}, usagef("KafkaUser %s is External: Castellan does not have what it proves itself with", key)
	}
	if user.Status.SecretName == "" {
		return identity{}, fmt.Errorf("KafkaUser %s has no Secret yet: `castellan describe ku %s` says what it waits for", key, t.user)
	}
	var secret corev1.Secret
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: user.Status.SecretName}, &secret); err != nil {
		return identity{}, fmt.Errorf("read the Secret of KafkaUser %s: %w", key, err)
	}
	if as.by == api.AuthenticationScramSha512 {
		as.login = &kafka.Login{User: string(secret.Data[api.UserSecretName]), Password: string(secret.Data[api.UserSecretPassword])}
		return as, nil
	}
	pair, err := tls.X509KeyPair(secret.Data[api.UserSecretCertificate], secret.Data[api.UserSecretKey])
	if err != nil {
		return identity{}, fmt.Errorf("read %s and %s of Secret %s/%s: %w", api.UserSecretCertificate, api.UserSecretKey, namespace, secret.Name, err)
	}
	as.certificate = &pair
	return as, nil
}

func (i identity) configure(config *kafka.ClientConfig) {
	config.Login = i.login
	if i.certificate != nil {
		if config.TLS == nil {
			config.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		config.TLS.Certificates = []tls.Certificate{*i.certificate}
	}
}

// choose is the listener of --listener, or the first by which that identity can come in.
func (t *target) choose(cluster *api.KafkaCluster, as identity) (api.ListenerStatus, error) {
	var names []string
	for _, l := range cluster.Status.Listeners {
		by := cluster.Spec.Authentication(l.Name)
		switch {
		case l.BootstrapServers == "":
		case t.listener == l.Name && by != as.by:
			return l, t.wrongListener(l.Name, by, as)
		case t.listener == l.Name, t.listener == "" && by == as.by:
			return l, nil
		default:
			names = append(names, fmt.Sprintf("%s (%s)", l.Name, by))
		}
	}
	switch {
	case len(names) == 0:
		return api.ListenerStatus{}, fmt.Errorf("KafkaCluster %s has no address for clients yet: `castellan describe kc %[1]s` says what it waits for", cluster.Name)
	case t.listener != "":
		return api.ListenerStatus{}, &NotFoundError{Message: fmt.Sprintf("KafkaCluster %s has no listener %s with an address; it has: %s", cluster.Name, t.listener, strings.Join(names, ", "))}
	case as.user == "":
		return api.ListenerStatus{}, usagef("every listener of KafkaCluster %s asks clients who they are: %s: name a KafkaUser with --user", cluster.Name, strings.Join(names, ", "))
	}
	return api.ListenerStatus{}, usagef("KafkaUser %s proves itself by %s, and KafkaCluster %s has no listener for that with an address; it has: %s", as.user, as.by, cluster.Name, strings.Join(names, ", "))
}

func (t *target) wrongListener(name string, by api.AuthenticationType, as identity) error {
	if as.user == "" {
		return usagef("listener %s asks clients who they are (%s): name a KafkaUser with --user", name, by)
	}
	return usagef("KafkaUser %s proves itself by %s, and listener %s asks for %s: name another listener or user", as.user, as.by, name, by)
}
