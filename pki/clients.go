package pki

import (
	"context"
	"fmt"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
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
//
// Both are made once, when they are first needed, and never replaced here. Losing the Secret
// of either is an error as long as the Secret with its public half tells that it was in use.

// ClientsCASecretName is the Secret with the clients CA's certificate and key. Like the
// cluster CA it has no owner reference and outlives the KafkaCluster.
func ClientsCASecretName(cluster string) string { return cluster + "-clients-ca" }

// ClientsTrustSecretName is the Secret with ca.crt of the clients CA alone.
func ClientsTrustSecretName(cluster string) string { return cluster + "-clients-ca-cert" }

// authority says where one of the CAs of a cluster is kept.
type authority struct {
	secret, trust, subject string
	// lost says what a new one means to whom.
	lost string
}

func clusterAuthority(c *api.KafkaCluster) authority {
	return authority{
		secret: CASecretName(c.Name), trust: TrustSecretName(c.Name), subject: "castellan " + c.Namespace + "/" + c.Name,
		lost: "for a new CA that every client must be given",
	}
}

func clientsAuthority(c *api.KafkaCluster) authority {
	return authority{
		secret: ClientsCASecretName(c.Name), trust: ClientsTrustSecretName(c.Name), subject: "castellan clients " + c.Namespace + "/" + c.Name,
		lost: "for a new CA, by which every client needs a new certificate",
	}
}

// ClientsCA returns the CA that signs clients' certificates, and makes it when the cluster
// has none yet.
func (s Store) ClientsCA(ctx context.Context, cluster *api.KafkaCluster) (CA, error) {
	existing, err := s.list(ctx, cluster)
	if err != nil {
		return CA{}, err
	}
	return s.ensureAuthority(ctx, writer{client: s.Client, cluster: cluster, existing: existing}, clientsAuthority(cluster))
}

// longestName is what RFC 5280 allows for a common name (ub-common-name).
const longestName = 64

// ClientRequest asks for the certificate of a client: CN=<name> and nothing else, which Kafka
// makes User:<name> (layout.ClientRules). A name of which it would make something else is an
// error.
func ClientRequest(name string) (Request, error) {
	switch {
	case name == "":
		return Request{}, fmt.Errorf("a client's certificate needs a name")
	case layout.OwnPrincipal(name):
		return Request{}, fmt.Errorf("no client can be called %s: it is Castellan's own super user", name)
	case len([]rune(name)) > longestName:
		return Request{}, fmt.Errorf("%q has %d characters, and a certificate's common name at most %d (RFC 5280): use a shorter name, or ScramSha512", name, len([]rune(name)), longestName)
	case strings.ContainsAny(name, ",+\"\\<>;\x00\n\r") || strings.HasPrefix(name, "#") || strings.TrimSpace(name) != name:
		return Request{}, fmt.Errorf("%q has characters that are written otherwise in a certificate's subject (RFC 2253: , + \" \\ < > ; outer blanks, # in front), so that its principal would not be User:%s: use another name, or ScramSha512", name, name)
	}
	return Request{CommonName: name, Usage: UsageClient}, nil
}

// Current returns the pair that is held while it serves the request and the CA signed it, else
// a new one; renewal begins in the last third of a life.
func (ca CA) Current(req Request, held Pair, now time.Time) (Pair, error) {
	if leaf, err := held.Leaf(); err == nil && req.matches(leaf) && ca.Signed(leaf) {
		// A renewal near the CA's own end would gain nothing and repeat on every pass.
		if !NeedsRenewal(held, now) || !ca.leafEnd(now).After(leaf.NotAfter) {
			return held, nil
		}
	}
	return ca.Issue(req, now)
}
