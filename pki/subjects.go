package pki

import (
	"crypto/x509"
	"net"
	"slices"
	"strconv"

	"castellan.dev/castellan/core/layout"
)

// Organization of every certificate that Castellan issues.
const Organization = "castellan"

// Node is what the certificate of a Kafka node must name.
type Node struct {
	ID int32
	// Address that the node advertises: an IP address or a DNS name.
	Address string
	// HostName of its machine, when that is known and a DNS name.
	HostName string
	// Names are further addresses under which clients reach it.
	Names []string
	// Broker says that it has the clients' listeners.
	Broker bool
	// Had says that it was given a certificate once, wherever that is now.
	Had bool
	// Needs are the keys of its Secret that its process reads (layout.SecretKeys).
	Needs []string
}

// NodeRequest asks for the certificate of a node: CN=castellan-node-<id>,O=castellan.
func NodeRequest(n Node) Request {
	req := Request{
		CommonName:   layout.NodePrincipal + "-" + strconv.Itoa(int(n.ID)),
		Organization: Organization,
		Usage:        UsageClient | UsageServer,
	}
	for _, name := range []string{n.Address, "localhost", "127.0.0.1", n.HostName} {
		req.addName(name)
	}
	for _, name := range n.Names {
		req.addName(name)
	}
	return req
}

// OperatorRequest asks for the operator's certificate: CN=castellan-operator,O=castellan.
func OperatorRequest() Request {
	return Request{CommonName: layout.OperatorPrincipal, Organization: Organization, Usage: UsageClient}
}

func (r *Request) addName(name string) {
	if name == "" {
		return
	}
	if ip := net.ParseIP(name); ip != nil {
		if !slices.ContainsFunc(r.IPs, ip.Equal) {
			r.IPs = append(r.IPs, ip)
		}
		return
	}
	if !slices.Contains(r.DNSNames, name) {
		r.DNSNames = append(r.DNSNames, name)
	}
}

// Serves says whether a certificate serves the request, whatever its key and dates. It may
// name more: a machine's address is unknown while the pod there restarts, and a certificate
// without it would be refused by clients that begin there, for all nodes and twice per restart.
// The next certificate names only what is asked for.
func (r Request) Serves(cert *x509.Certificate) bool {
	return cert.Subject.CommonName == r.CommonName &&
		slices.Equal(cert.Subject.Organization, organizations(r.Organization)) &&
		slices.Equal(cert.ExtKeyUsage, extendedUsages(r.Usage)) &&
		hasAll(cert.DNSNames, r.DNSNames) &&
		hasAll(ipTexts(cert.IPAddresses), ipTexts(r.IPs))
}

func ipTexts(ips []net.IP) []string {
	texts := make([]string, len(ips))
	for i, ip := range ips {
		texts[i] = ip.String()
	}
	return texts
}

func hasAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(have, w) })
}
