package pki

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// Labels of every Secret that belongs to a cluster's certificates.
const (
	LabelCluster   = "castellan.dev/cluster"
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "castellan"
)

// Annotations of Secrets that clients use, RFC 3339: when its ca.crt became what it is, and when its certificate did.
// Nobody can see what clients use, so they count as using it a while after that.
const (
	TrustGiven       = "castellan.dev/trust-given"
	CertificateGiven = "castellan.dev/certificate-given"
)

// Keys of the Secrets.
const (
	KeyCACert  = "ca.crt"
	KeyCAKey   = "ca.key"
	KeyTLSCert = corev1.TLSCertKey
	KeyTLSKey  = corev1.TLSPrivateKeyKey
)

// A cluster has two CAs, so that nobody who can have a client's certificate made comes
// anywhere near the nodes' own listeners, and so that each can be replaced without the other:
//
//   - The cluster CA signs what serves (nodes) and the operator. Nodes trust it on CONTROLLER
//     and INTERNAL; clients trust it to know that they speak to the cluster. Replacing it
//     concerns every client's trust.
//   - The clients CA signs what clients show on listeners with MutualTLS. Brokers trust it
//     there and nowhere else; clients need not know it. Replacing it concerns every client's
//     own certificate, and no client's trust.

// CASecretName is the Secret with the CA's certificate and key. It has no owner reference:
// like the data, it outlives the KafkaCluster, because nodes that adopt the data again must
// be trusted by clients as before. Only deletionPolicy Delete removes it.
func CASecretName(cluster string) string { return cluster + "-ca" }

// TrustSecretName is the Secret with ca.crt alone, for clients.
func TrustSecretName(cluster string) string { return cluster + "-ca-cert" }

// ClientsCASecretName is the Secret with the clients CA's certificate and key. Like the
// cluster CA it has no owner reference and outlives the KafkaCluster.
func ClientsCASecretName(cluster string) string { return cluster + "-clients-ca" }

// ClientsTrustSecretName is the Secret with ca.crt of the clients CA alone.
func ClientsTrustSecretName(cluster string) string { return cluster + "-clients-ca-cert" }

// OperatorSecretName is the Secret with the operator's client certificate.
func OperatorSecretName(cluster string) string { return cluster + "-operator" }

// NodeSecretName is the Secret of one node, with the keys that core/layout names.
func NodeSecretName(cluster string, id int32) string {
	return cluster + "-" + strconv.Itoa(int(id)) + "-tls"
}
