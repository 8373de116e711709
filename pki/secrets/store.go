package secrets

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/pki"
)

// Store keeps the certificates of clusters as Secrets.
type Store struct {
	Client client.Client
	// Named reads past the cache: the Secrets that a KafkaCluster names, which a cache may not
	// hold, and everything again after a conflict. Nil is Client.
	Named client.Reader
	// Look looks at the nodes; nil sees none.
	Look Look
	// Users are the clients' Secrets that others write, while a CA is being replaced; nil is none.
	Users func(context.Context) ([]User, error)
	// Sight is what was seen of this cluster; nil is nothing.
	Sight *Sight
	// Now is the clock; nil is the real one.
	Now func() time.Time
}

// Certificate is what a node's Secret holds.
type Certificate struct {
	// Digest of the leaf, see [pki.Digest].
	Digest   string
	NotAfter time.Time
}

// Issued is what the nodes and listeners of a cluster have.
type Issued struct {
	// Nodes are the certificates by node id; one that has none yet is not in it.
	Nodes map[int32]Certificate
	// Faults of Secrets that listeners name, in the order of the listeners.
	Faults []Fault
	// OwnTrust are the listeners whose own certificate came with ca.crt for clients.
	OwnTrust map[string]bool
	// Done are the steps that were done, in order.
	Done []certificates.Step
	// State says how the certificates are.
	State State
	// Again is when to look without an event; zero is with the resync.
	Again time.Time
}

// role says where one of the CAs of a cluster is kept.
type role struct {
	role                   certificates.Role
	secret, trust, subject string
	// key of a node's Secret with what it trusts.
	key  string
	spec api.CertificateAuthority
}

// Delete removes every Secret of a cluster that this package made, the CAs last. It is for
// deletionPolicy Delete; a CA that somebody else provided is kept.
func (s Store) Delete(ctx context.Context, cluster *api.KafkaCluster) error {
	existing, err := list(ctx, s.Client, cluster)
	if err != nil {
		return err
	}
	last := []string{pki.ClientsCASecretName(cluster.Name), pki.CASecretName(cluster.Name)}
	for name, secret := range existing {
		if slices.Contains(last, name) {
			continue
		}
		if err := s.deleteSecret(ctx, secret); err != nil {
			return err
		}
	}
	for _, name := range last {
		if secret, ok := existing[name]; ok {
			if err := s.deleteSecret(ctx, secret); err != nil {
				return err
			}
		}
	}
	return nil
}

// OperatorConfig is how the operator speaks TLS to a cluster's nodes. The Secrets must be
// there already, see [Store.Ensure].
func (s Store) OperatorConfig(ctx context.Context, cluster types.NamespacedName) (*tls.Config, error) {
	var secret corev1.Secret
	key := types.NamespacedName{Namespace: cluster.Namespace, Name: pki.OperatorSecretName(cluster.Name)}
	if err := s.Client.Get(ctx, key, &secret); err != nil {
		return nil, fmt.Errorf("read the operator's certificate in Secret %s: %w", key, err)
	}
	cert, err := tls.X509KeyPair(secret.Data[pki.KeyTLSCert], secret.Data[pki.KeyTLSKey])
	if err != nil {
		return nil, fmt.Errorf("read the operator's certificate in Secret %s: %w", key, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data[pki.KeyCACert]) {
		return nil, fmt.Errorf("read the CA in Secret %s: key %s holds no certificate", key, pki.KeyCACert)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// ClientsCA returns the CA that signs clients' certificates now, and makes it when the cluster
// has none yet. One that was lost is repaired by [Store.Ensure]; until then this is an error.
func (s Store) ClientsCA(ctx context.Context, cluster *api.KafkaCluster) (pki.CA, error) {
	key := types.NamespacedName{Namespace: cluster.Namespace, Name: pki.ClientsCASecretName(cluster.Name)}
	var secret corev1.Secret
	err := s.Client.Get(ctx, key, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return s.createClientsCA(ctx, cluster)
	case err != nil:
		return pki.CA{}, fmt.Errorf("read the CA in Secret %s: %w", key, err)
	}
	if err := foreign(&secret, cluster); err != nil {
		return pki.CA{}, err
	}
	ca, err := pki.ParseCA(secret.Data[pki.KeyCACert], secret.Data[pki.KeyCAKey])
	if err != nil {
		return pki.CA{}, fmt.Errorf("the CA in Secret %s cannot sign now, the condition Certificates of the KafkaCluster says more: %w", key, err)
	}
	return ca, nil
}

// foreign refuses the Secret of another cluster, whose name may meet this one's.
func foreign(secret *corev1.Secret, cluster *api.KafkaCluster) error {
	of := secret.Labels[pki.LabelCluster]
	if secret.Labels[pki.LabelManagedBy] != pki.ManagedBy || of == cluster.Name {
		return nil
	}
	return fmt.Errorf("the CA in Secret %s/%s is one of cluster %s; give one of the two clusters another name", secret.Namespace, secret.Name, of)
}

func (s Store) createClientsCA(ctx context.Context, cluster *api.KafkaCluster) (pki.CA, error) {
	if cluster.Spec.Certificates.ClientsCA.SecretRef != nil {
		return pki.CA{}, fmt.Errorf("the clients CA of Secret %s was not taken up yet; the condition Certificates of the KafkaCluster says why", cluster.Spec.Certificates.ClientsCA.SecretRef.Name)
	}
	trust := types.NamespacedName{Namespace: cluster.Namespace, Name: pki.ClientsTrustSecretName(cluster.Name)}
	switch err := s.Client.Get(ctx, trust, &corev1.Secret{}); {
	case err == nil:
		return pki.CA{}, fmt.Errorf("the clients CA is gone, but Secret %s tells that it is in use: another one takes its place soon", trust)
	case !apierrors.IsNotFound(err):
		return pki.CA{}, fmt.Errorf("read Secret %s: %w", trust, err)
	}
	name := pki.ClientsCASecretName(cluster.Name)
	ca, err := pki.NewCA(clientsSubject(cluster), s.now())
	if err != nil {
		return pki.CA{}, err
	}
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		return pki.CA{}, fmt.Errorf("write the CA's key: %w", err)
	}
	// Create, never apply: whoever was first has made the CA.
	secret := newSecret(cluster, name, corev1.SecretTypeOpaque, map[string][]byte{pki.KeyCACert: ca.TrustPEM(), pki.KeyCAKey: keyPEM})
	if err := s.Client.Create(ctx, secret); err != nil {
		return pki.CA{}, fmt.Errorf("create the CA in Secret %s/%s: %w", cluster.Namespace, name, err)
	}
	public := writer{client: s.Client, cluster: cluster, existing: map[string]*corev1.Secret{}, now: s.now}
	return ca, public.put(ctx, trust.Name, corev1.SecretTypeOpaque, map[string][]byte{pki.KeyCACert: ca.TrustPEM()})
}

func clusterSubject(c *api.KafkaCluster) string { return "castellan " + c.Namespace + "/" + c.Name }

func clientsSubject(c *api.KafkaCluster) string {
	return "castellan clients " + c.Namespace + "/" + c.Name
}

func roles(c *api.KafkaCluster, spec api.Certificates) []role {
	return []role{
		{certificates.Cluster, pki.CASecretName(c.Name), pki.TrustSecretName(c.Name), clusterSubject(c), keyOf(certificates.Cluster), spec.ClusterCA},
		{certificates.Clients, pki.ClientsCASecretName(c.Name), pki.ClientsTrustSecretName(c.Name), clientsSubject(c), keyOf(certificates.Clients), spec.ClientsCA},
	}
}

func (s Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func list(ctx context.Context, from client.Reader, cluster *api.KafkaCluster) (map[string]*corev1.Secret, error) {
	var secrets corev1.SecretList
	err := from.List(ctx, &secrets, client.InNamespace(cluster.Namespace),
		client.MatchingLabels{pki.LabelCluster: cluster.Name, pki.LabelManagedBy: pki.ManagedBy})
	if err != nil {
		return nil, fmt.Errorf("list the Secrets of cluster %s/%s: %w", cluster.Namespace, cluster.Name, err)
	}
	byName := make(map[string]*corev1.Secret, len(secrets.Items))
	for i := range secrets.Items {
		byName[secrets.Items[i].Name] = &secrets.Items[i]
	}
	return byName, nil
}

func (s Store) deleteSecret(ctx context.Context, secret *corev1.Secret) error {
	if err := s.Client.Delete(ctx, secret, client.Preconditions{UID: &secret.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete Secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	return nil
}

func newSecret(cluster *api.KafkaCluster, name string, kind corev1.SecretType, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cluster.Namespace,
			Name:      name,
			Labels:    map[string]string{pki.LabelCluster: cluster.Name, pki.LabelManagedBy: pki.ManagedBy},
		},
		Type: kind,
		Data: data,
	}
}
