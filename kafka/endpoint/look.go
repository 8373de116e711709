package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/kafka"
)

// Endpoint is one TLS listener of a node.
type Endpoint struct {
	// Party is the name of the node, Listener that of the listener.
	Party, Listener string
	// Address is host:port.
	Address string
	// Clients is the CA whose certificates clients must show there; empty is none.
	Clients certificates.Role
	// Foreign says that the listener presents a certificate of the user's, which is not of these CAs.
	Foreign bool
}

// Identity is a client certificate of a CA, to see whether it is accepted.
type Identity struct {
	Role certificates.Role
	// Anchor is the digest of what must be trusted for it.
	Anchor      string
	Certificate tls.Certificate
}

// Looker looks at the endpoints of a cluster.
type Looker struct {
	Identities []Identity
	// IssuerOf is the ID of the CA of a chain, leaf first; empty when it is of none that is known.
	IssuerOf func(chain []*x509.Certificate) string
	// Digest names a certificate.
	Digest func(*x509.Certificate) string
	// Dial opens connections; nil is the network.
	Dial kafka.DialFunc
	// By is who looks, for reasons.
	By string
	// Timeout of one connection, and how many there are at a time.
	Timeout     time.Duration
	Connections int
	Now         func() time.Time
}

// look is what one endpoint showed.
type look struct {
	endpoint Endpoint
	presents []certificates.Presented
	// accepts has the anchors that were accepted or refused.
	accepts map[string]bool
	fault   string
}

// Look looks at every endpoint and says what each party showed. A party with several endpoints trusts an anchor when all
// those that ask for a certificate of that CA accept it, and does not when all refuse it.
func (l Looker) Look(ctx context.Context, endpoints []Endpoint) map[string]certificates.Seen {
	at := l.Now() // the beginning: what is seen is not older than this
	looks := make([]look, len(endpoints))
	var group errgroup.Group
	group.SetLimit(max(l.Connections, 1))
	for i, e := range endpoints {
		group.Go(func() error {
			looks[i] = l.at(ctx, e)
			return nil
		})
	}
	_ = group.Wait() // every fault stands in its look
	seen := map[string]certificates.Seen{}
	for _, e := range endpoints {
		if _, done := seen[e.Party]; !done {
			seen[e.Party] = l.merge(at, e.Party, looks)
		}
	}
	return seen
}

// merge is what a party showed at all of its endpoints.
func (l Looker) merge(at time.Time, party string, looks []look) certificates.Seen {
	s := certificates.Seen{At: at, By: l.By, Trusts: map[certificates.Role]map[string]bool{}}
	var faults []string
	split := map[certificates.Role]map[string]bool{}
	for _, k := range looks {
		if k.endpoint.Party != party {
			continue
		}
		s.Presents = append(s.Presents, k.presents...)
		if k.fault != "" {
			faults = append(faults, k.fault)
		}
		role := k.endpoint.Clients
		if role == "" {
			continue
		}
		if s.Trusts[role] == nil {
			s.Trusts[role], split[role] = map[string]bool{}, map[string]bool{}
		}
		for _, id := range l.Identities {
			accepted, tried := k.accepts[id.Anchor]
			before, known := s.Trusts[role][id.Anchor]
			switch {
			case id.Role != role:
			case !tried, known && before != accepted:
				split[role][id.Anchor] = true
			default:
				s.Trusts[role][id.Anchor] = accepted
			}
		}
	}
	for role, anchors := range split {
		for anchor := range anchors {
			delete(s.Trusts[role], anchor)
		}
	}
	s.Fault = strings.Join(faults, "; ")
	return s
}

// at connects to one endpoint with each identity that it may accept, or with none.
func (l Looker) at(ctx context.Context, e Endpoint) look {
	k := look{endpoint: e, accepts: map[string]bool{}}
	var tries []*Identity
	for i := range l.Identities {
		if l.Identities[i].Role == e.Clients {
			tries = append(tries, &l.Identities[i])
		}
	}
	if len(tries) == 0 {
		tries = []*Identity{nil}
	}
	for _, id := range tries {
		answer := l.try(ctx, e, id)
		if len(answer.chain) > 0 && !e.Foreign {
			k.show(l, answer.chain)
		}
		switch {
		case answer.err != nil:
			k.fault = e.Listener + " at " + e.Address + ": " + reason(answer.err)
			return k
		case id != nil:
			k.accepts[id.Anchor] = answer.accepted
		}
	}
	return k
}

// show notes a certificate, once.
func (k *look) show(l Looker, chain []*x509.Certificate) {
	p := certificates.Presented{Endpoint: k.endpoint.Listener, Digest: l.Digest(chain[0]), Issuer: l.IssuerOf(chain), NotAfter: chain[0].NotAfter}
	if !slices.Contains(k.presents, p) {
		k.presents = append(k.presents, p)
	}
}
