package pki

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
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
	// Named reads the Secrets that a KafkaCluster names; nil is Client. A cache may hold only
	// what is Castellan's own.
	Named client.Reader
	// Now is the clock; nil is the real one.
	Now func() time.Time
}

// Issued is what the nodes and listeners of a cluster have.
type Issued struct {
	// Nodes are the certificates by node id.
	Nodes map[int32]Certificate
	// Faults of Secrets that listeners name, in the order of the listeners.
	Faults []Fault
	// OwnTrust are the listeners whose own certificate came with ca.crt for clients.
	OwnTrust map[string]bool
}

// Ensure makes every Secret of a cluster that is missing, renews what ends soon or names
// the wrong hosts, takes up what the listeners' Secrets hold, and returns the certificate of
// every node by id. It writes nothing else. Any error leaves valid Secrets behind and may be
// retried.
func (s Store) Ensure(ctx context.Context, cluster *api.KafkaCluster, listeners []api.Listener, nodes []Node) (Issued, error) {
	existing, err := s.list(ctx, cluster)
	if err != nil {
		return Issued{}, err
	}
	w := writer{client: s.Client, cluster: cluster, existing: existing}
	ca, err := s.ensureAuthority(ctx, w, clusterAuthority(cluster))
	if err != nil {
		return Issued{}, err
	}
	if err := s.ensureOperator(ctx, w, ca); err != nil {
		return Issued{}, err
	}
	files, err := s.listenerFiles(ctx, w, listeners)
	if err != nil {
		return Issued{}, err
	}
	out := Issued{Nodes: make(map[int32]Certificate, len(nodes)), OwnTrust: files.trust}
	for _, n := range nodes {
		c, err := s.ensureNode(ctx, w, ca, n, &files)
		if err != nil {
			return Issued{}, err
		}
		out.Nodes[n.ID] = c
	}
	out.Faults = files.faults
	return out, nil
}

// Delete removes every Secret of a cluster that this package made, the CAs last. It is for
// deletionPolicy Delete; a CA that somebody else provided is kept.
func (s Store) Delete(ctx context.Context, cluster *api.KafkaCluster) error {
	existing, err := s.list(ctx, cluster)
	if err != nil {
		return err
	}
	last := []string{ClientsCASecretName(cluster.Name), CASecretName(cluster.Name)}
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

// ensureAuthority returns one of the cluster's CAs, and makes it only when its Secret is known
// to be missing. A Secret that cannot be read is an error: another CA would cut off every
// client. The Secret with its public half follows.
func (s Store) ensureAuthority(ctx context.Context, w writer, a authority) (CA, error) {
	key := types.NamespacedName{Namespace: w.cluster.Namespace, Name: a.secret}
	var secret corev1.Secret
	err := s.Client.Get(ctx, key, &secret)
	var ca CA
	switch {
	case apierrors.IsNotFound(err):
		if err := mayCreate(w, a); err != nil {
			return CA{}, err
		}
		ca, err = s.createCA(ctx, w.cluster, a)
	case err != nil:
		err = fmt.Errorf("read the CA in Secret %s: %w", key, err)
	case secret.Labels[LabelManagedBy] == ManagedBy && secret.Labels[LabelCluster] != w.cluster.Name:
		err = fmt.Errorf("read the CA in Secret %s: it is one of cluster %s; give one of the two clusters another name", key, secret.Labels[LabelCluster])
	default:
		if ca, err = ParseCA(secret.Data[KeyCACert], secret.Data[KeyCAKey]); err != nil {
			err = fmt.Errorf("read the CA in Secret %s (it is never overwritten: restore it, or delete it and Secret %s %s): %w", key, a.trust, a.lost, err)
		}
	}
	if err != nil {
		return CA{}, err
	}
	return ca, w.put(ctx, a.trust, corev1.SecretTypeOpaque, map[string][]byte{KeyCACert: ca.TrustPEM()})
}

// mayCreate refuses another CA while an earlier one is in use, whose Secret was deleted: it
// would cut clients off, and the nodes from each other until the last one has read it.
func mayCreate(w writer, a authority) error {
	trust := w.existing[a.trust]
	if trust == nil || !metav1.IsControlledBy(trust, w.cluster) {
		return nil
	}
	return fmt.Errorf("the CA in Secret %s/%s is gone, but clients trust it: restore the Secret from a backup; or delete Secret %s as well, %s", w.cluster.Namespace, a.secret, trust.Name, a.lost)
}

func (s Store) createCA(ctx context.Context, cluster *api.KafkaCluster, a authority) (CA, error) {
	ca, err := NewCA(a.subject, s.now())
	if err != nil {
		return CA{}, err
	}
	keyPEM, err := ca.KeyPEM()
	if err != nil {
		return CA{}, fmt.Errorf("write the CA's key: %w", err)
	}
	secret := newSecret(cluster, a.secret, corev1.SecretTypeOpaque, map[string][]byte{KeyCACert: ca.TrustPEM(), KeyCAKey: keyPEM})
	// Create, never apply: whoever was first has made the CA.
	if err := s.Client.Create(ctx, secret); err != nil {
		return CA{}, fmt.Errorf("create the CA in Secret %s/%s: %w", cluster.Namespace, a.secret, err)
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

func (s Store) ensureNode(ctx context.Context, w writer, ca CA, n Node, files *listenerFiles) (Certificate, error) {
	name := NodeSecretName(w.cluster.Name, n.ID)
	var held Pair
	var holds map[string][]byte
	if secret, ok := w.existing[name]; ok {
		holds = secret.Data
		held, _ = ParsePair(secret.Data[layout.KeyNodePEM]) // unreadable: issue anew
	}
	pair, leaf, err := s.currentPair(ca, NodeRequest(n), held)
	if err != nil {
		return Certificate{}, err
	}
	data := map[string][]byte{}
	if n.Broker {
		data = files.of(n, holds)
	}
	data[layout.KeyNodePEM], data[layout.KeyCAPEM] = pair.PEM(), ca.TrustPEM()
	if err := w.put(ctx, name, corev1.SecretTypeOpaque, data); err != nil {
		return Certificate{}, err
	}
	return Certificate{Digest: Digest(leaf), NotAfter: leaf.NotAfter}, nil
}

// currentPair returns the pair that is held while it is good, else a new one.
func (s Store) currentPair(ca CA, req Request, held Pair) (Pair, *x509.Certificate, error) {
	pair, err := ca.Current(req, held, s.now())
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
