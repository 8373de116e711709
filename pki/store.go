package pki

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// Labels of every Secret that this package writes.
const (
	LabelCluster   = "castellan.dev/cluster"
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "castellan"
)

// Keys of the Secrets.
const (
	KeyCACert  = "ca.crt"
	KeyCAKey   = "ca.key"
	KeyTLSCert = corev1.TLSCertKey
	KeyTLSKey  = corev1.TLSPrivateKeyKey
)

// CASecretName is the Secret with the CA's certificate and key. It has no owner reference:
// like the data, it outlives the KafkaCluster, because nodes that adopt the data again must
// be trusted by clients as before. Only [Store.Delete] removes it.
func CASecretName(cluster string) string { return cluster + "-ca" }

// TrustSecretName is the Secret with ca.crt alone, for clients.
func TrustSecretName(cluster string) string { return cluster + "-ca-cert" }

// OperatorSecretName is the Secret with the operator's client certificate.
func OperatorSecretName(cluster string) string { return cluster + "-operator" }

// NodeSecretName is the Secret of one node, with the keys that [layout] names.
func NodeSecretName(cluster string, id int32) string {
	return cluster + "-" + strconv.Itoa(int(id)) + "-tls"
}

// Certificate is what a node's Secret holds.
type Certificate struct {
	// Digest of the leaf, see [Digest].
	Digest   string
	NotAfter time.Time
}

// Store keeps the certificates of clusters as Secrets.
type Store struct {
	Client client.Client
	// Now is the clock; nil is the real one.
	Now func() time.Time
}

// Ensure makes every Secret of a cluster that is missing, renews what ends soon or names
// the wrong hosts, and returns the certificate of every node by id. It writes nothing else.
// Any error leaves valid Secrets behind and may be retried.
func (s Store) Ensure(ctx context.Context, cluster *api.KafkaCluster, nodes []Node) (map[int32]Certificate, error) {
	ca, err := s.ensureCA(ctx, cluster)
	if err != nil {
		return nil, err
	}
	existing, err := s.list(ctx, cluster)
	if err != nil {
		return nil, err
	}
	w := writer{client: s.Client, cluster: cluster, existing: existing}
	if err := w.put(ctx, TrustSecretName(cluster.Name), corev1.SecretTypeOpaque, map[string][]byte{KeyCACert: ca.TrustPEM()}); err != nil {
		return nil, err
	}
	if err := s.ensureOperator(ctx, w, ca); err != nil {
		return nil, err
	}
	certificates := make(map[int32]Certificate, len(nodes))
	for _, n := range nodes {
		c, err := s.ensureNode(ctx, w, ca, n)
		if err != nil {
			return nil, err
		}
		certificates[n.ID] = c
	}
	return certificates, nil
}

// Delete removes every Secret of a cluster that this package made, the CA last. It is for
// deletionPolicy Delete; a CA that somebody else provided is kept.
func (s Store) Delete(ctx context.Context, cluster *api.KafkaCluster) error {
	existing, err := s.list(ctx, cluster)
	if err != nil {
		return err
	}
	ca, hasCA := existing[CASecretName(cluster.Name)]
	delete(existing, CASecretName(cluster.Name))
	for _, secret := range existing {
		if err := s.deleteSecret(ctx, secret); err != nil {
			return err
		}
	}
	if hasCA {
		return s.deleteSecret(ctx, ca)
	}
	return nil
}

// OperatorConfig is how the operator speaks TLS to a cluster's nodes. The Secrets must be
// there already, see [Store.Ensure].
func (s Store) OperatorConfig(ctx context.Context, cluster types.NamespacedName) (*tls.Config, error) {
	var secret corev1.Secret
	key := types.NamespacedName{Namespace: cluster.Namespace, Name: OperatorSecretName(cluster.Name)}
	if err := s.Client.Get(ctx, key, &secret); err != nil {
		return nil, fmt.Errorf("read the operator's certificate in Secret %s: %w", key, err)
	}
	cert, err := tls.X509KeyPair(secret.Data[KeyTLSCert], secret.Data[KeyTLSKey])
	if err != nil {
		return nil, fmt.Errorf("read the operator's certificate in Secret %s: %w", key, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data[KeyCACert]) {
		return nil, fmt.Errorf("read the CA in Secret %s: key %s holds no certificate", key, KeyCACert)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

func (s Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// ensureCA returns the cluster's CA and makes it only when its Secret is known to be
// missing. A Secret that cannot be read is an error: another CA would cut off every client.
func (s Store) ensureCA(ctx context.Context, cluster *api.KafkaCluster) (CA, error) {
	key := types.NamespacedName{Namespace: cluster.Namespace, Name: CASecretName(cluster.Name)}
	var secret corev1.Secret
	err := s.Client.Get(ctx, key, &secret)
	if apierrors.IsNotFound(err) {
		if err := s.mayCreateCA(ctx, cluster, key); err != nil {
			return CA{}, err
		}
		return s.createCA(ctx, cluster, key)
	}
	if err != nil {
		return CA{}, fmt.Errorf("read the CA in Secret %s: %w", key, err)
	}
	ca, err := ParseCA(secret.Data[KeyCACert], secret.Data[KeyCAKey])
	if err != nil {
		return CA{}, fmt.Errorf("read the CA in Secret %s (it is never overwritten: restore it, or delete it and give every client the new %s): %w", key, KeyCACert, err)
	}
	return ca, nil
}

// mayCreateCA refuses another CA while clients trust an earlier one, whose Secret was deleted:
// it would cut them off, and the nodes from each other until the last one has read it.
func (s Store) mayCreateCA(ctx context.Context, cluster *api.KafkaCluster, key types.NamespacedName) error {
	existing, err := s.list(ctx, cluster)
	if err != nil {
		return err
	}
	trust := existing[TrustSecretName(cluster.Name)]
	if trust == nil || !metav1.IsControlledBy(trust, cluster) {
		return nil
	}
	return fmt.Errorf("the CA in Secret %s is gone, but clients trust it: restore the Secret from a backup; or delete Secret %s as well, for a new CA that every client must be given", key, trust.Name)
}

func (s Store) createCA(ctx context.Context, cluster *api.KafkaCluster, key types.NamespacedName) (CA, error) {
	ca, err := NewCA("castellan "+cluster.Namespace+"/"+cluster.Name, s.now())
	if err != nil {
		return CA{}, err
	}
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		return CA{}, fmt.Errorf("write the CA's key: %w", err)
	}
	secret := newSecret(cluster, key.Name, corev1.SecretTypeOpaque, map[string][]byte{KeyCACert: ca.TrustPEM(), KeyCAKey: keyPEM})
	// Create, never apply: whoever was first has made the CA.
	if err := s.Client.Create(ctx, secret); err != nil {
		return CA{}, fmt.Errorf("create the CA in Secret %s: %w", key, err)
	}
	return ca, nil
}

func (s Store) list(ctx context.Context, cluster *api.KafkaCluster) (map[string]*corev1.Secret, error) {
	var secrets corev1.SecretList
	err := s.Client.List(ctx, &secrets, client.InNamespace(cluster.Namespace),
		client.MatchingLabels{LabelCluster: cluster.Name, LabelManagedBy: ManagedBy})
	if err != nil {
		return nil, fmt.Errorf("list the Secrets of cluster %s/%s: %w", cluster.Namespace, cluster.Name, err)
	}
	byName := make(map[string]*corev1.Secret, len(secrets.Items))
	for i := range secrets.Items {
		byName[secrets.Items[i].Name] = &secrets.Items[i]
	}
	return byName, nil
}

func (s Store) ensureOperator(ctx context.Context, w writer, ca CA) error {
	name := OperatorSecretName(w.cluster.Name)
	var held Pair
	if secret, ok := w.existing[name]; ok {
		held, _ = ParsePair(append(bytes.Clone(secret.Data[KeyTLSKey]), secret.Data[KeyTLSCert]...)) // unreadable: issue anew
	}
	pair, _, err := s.currentPair(ca, OperatorRequest(), held)
	if err != nil {
		return err
	}
	return w.put(ctx, name, corev1.SecretTypeTLS, map[string][]byte{
		KeyTLSCert: pair.Chain, KeyTLSKey: pair.Key, KeyCACert: ca.TrustPEM(),
	})
}

func (s Store) ensureNode(ctx context.Context, w writer, ca CA, n Node) (Certificate, error) {
	name := NodeSecretName(w.cluster.Name, n.ID)
	var held Pair
	if secret, ok := w.existing[name]; ok {
		held, _ = ParsePair(secret.Data[layout.KeyNodePEM]) // unreadable: issue anew
	}
	pair, leaf, err := s.currentPair(ca, NodeRequest(n), held)
	if err != nil {
		return Certificate{}, err
	}
	err = w.put(ctx, name, corev1.SecretTypeOpaque, map[string][]byte{
		layout.KeyNodePEM: pair.PEM(), layout.KeyCAPEM: ca.TrustPEM(),
	})
	if err != nil {
		return Certificate{}, err
	}
	return Certificate{Digest: Digest(leaf), NotAfter: leaf.NotAfter}, nil
}

// currentPair returns the pair that is held while it is good, else a new one.
func (s Store) currentPair(ca CA, req Request, held Pair) (Pair, *x509.Certificate, error) {
	now := s.now()
	if leaf, err := held.Leaf(); err == nil && req.matches(leaf) && ca.Signed(leaf) {
		// A renewal near the CA's own end would gain nothing and repeat on every pass.
		if !NeedsRenewal(held, now) || !ca.leafEnd(now).After(leaf.NotAfter) {
			return held, leaf, nil
		}
	}
	pair, err := ca.Issue(req, now)
	if err != nil {
		return Pair{}, nil, err
	}
	leaf, err := pair.Leaf()
	if err != nil {
		return Pair{}, nil, fmt.Errorf("read back the certificate of %s: %w", req.CommonName, err)
	}
	return pair, leaf, nil
}

func (s Store) deleteSecret(ctx context.Context, secret *corev1.Secret) error {
	if err := s.Client.Delete(ctx, secret, client.Preconditions{UID: &secret.UID}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete Secret %s/%s: %w", secret.Namespace, secret.Name, err)
	}
	return nil
}

// writer writes the Secrets of one cluster when they differ from what exists.
type writer struct {
	client   client.Client
	cluster  *api.KafkaCluster
	existing map[string]*corev1.Secret
}

func (w writer) put(ctx context.Context, name string, kind corev1.SecretType, data map[string][]byte) error {
	old, ok := w.existing[name]
	if !ok {
		secret := newSecret(w.cluster, name, kind, data)
		secret.OwnerReferences = w.owner()
		err := w.client.Create(ctx, secret)
		if apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create Secret %s/%s: one of that name exists without the labels of cluster %s; delete or rename it: %w",
				w.cluster.Namespace, name, w.cluster.Name, err)
		}
		if err != nil {
			return fmt.Errorf("create Secret %s/%s: %w", w.cluster.Namespace, name, err)
		}
		return nil
	}
	if maps.EqualFunc(old.Data, data, bytes.Equal) && metav1.IsControlledBy(old, w.cluster) {
		return nil
	}
	changed := old.DeepCopy()
	changed.Data = data
	// A KafkaCluster that was deleted and applied again has another UID; with the old one
	// the garbage collector would take the Secret away.
	changed.OwnerReferences = w.owner()
	if err := w.client.Update(ctx, changed); err != nil {
		return fmt.Errorf("update Secret %s/%s: %w", w.cluster.Namespace, name, err)
	}
	return nil
}

func (w writer) owner() []metav1.OwnerReference {
	return []metav1.OwnerReference{*metav1.NewControllerRef(w.cluster, api.GroupVersion.WithKind("KafkaCluster"))}
}

func newSecret(cluster *api.KafkaCluster, name string, kind corev1.SecretType, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cluster.Namespace,
			Name:      name,
			Labels:    map[string]string{LabelCluster: cluster.Name, LabelManagedBy: ManagedBy},
		},
		Type: kind,
		Data: data,
	}
}
