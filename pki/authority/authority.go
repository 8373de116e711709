package authority

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/pki"
)

// CA is a certificate that signs, with what stands above it.
type CA struct {
	// Chain is its own certificate first; the last one is the anchor, which others trust.
	Chain []*x509.Certificate
	// Key is nil when it is lost.
	Key crypto.Signer
	// Own names the user's Secret that it was taken from.
	Own        string
	Generation int64
	Trusted    bool
}

// ID is the digest of its own certificate, see [pki.Digest].
func (ca CA) ID() string { return pki.Digest(ca.Chain[0]) }

// Anchor is what others trust.
func (ca CA) Anchor() *x509.Certificate { return ca.Chain[len(ca.Chain)-1] }

// NotAfter is the earliest end in the chain.
func (ca CA) NotAfter() time.Time {
	end := ca.Chain[0].NotAfter
	for _, c := range ca.Chain[1:] {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// Facts is the CA as decisions see it.
func (ca CA) Facts() certificates.CA {
	return certificates.CA{
		ID: ca.ID(), Anchor: pki.Digest(ca.Anchor()), Subject: ca.Chain[0].Subject.String(), NotBefore: ca.Chain[0].NotBefore,
		NotAfter: ca.NotAfter(), HasKey: ca.Key != nil, Own: ca.Own, Generation: ca.Generation, Trusted: ca.Trusted,
	}
}

// Issue makes a key and a certificate for it, see [pki.CA.IssueFor].
func (ca CA) Issue(req pki.Request, lifetime time.Duration, now time.Time) (pki.Pair, error) {
	if ca.Key == nil {
		return pki.Pair{}, fmt.Errorf("issue a certificate to %s: the key of CA %q is lost", req.CommonName, ca.Chain[0].Subject)
	}
	return pki.NewSigner(ca.Chain, ca.Key).IssueFor(req, lifetime, now)
}

// Authority is what the Secret of a CA holds.
type Authority struct {
	CAs []CA
	// Signs is the ID of the one that issues.
	Signs string
}

// Facts are the CAs as decisions see them.
func (a Authority) Facts() []certificates.CA {
	facts := make([]certificates.CA, len(a.CAs))
	for i, ca := range a.CAs {
		facts[i] = ca.Facts()
	}
	return facts
}

// CA finds one by its ID.
func (a Authority) CA(id string) (CA, bool) {
	if i := a.index(id); i >= 0 {
		return a.CAs[i], true
	}
	return CA{}, false
}

func (a Authority) index(id string) int {
	return slices.IndexFunc(a.CAs, func(ca CA) bool { return ca.ID() == id })
}

// Bundle is the PEM of anchors, in their order.
func (a Authority) Bundle(anchors []string) ([]byte, error) {
	var bundle bytes.Buffer
	for _, id := range anchors {
		at := slices.IndexFunc(a.CAs, func(ca CA) bool { return pki.Digest(ca.Anchor()) == id })
		if at < 0 {
			return nil, fmt.Errorf("no CA with the anchor %s", id)
		}
		bundle.Write(pki.EncodeCertificates([]*x509.Certificate{a.CAs[at].Anchor()}))
	}
	return bundle.Bytes(), nil
}

// IssuerOf is the ID of the CA of a certificate, whose chain is given leaf first; empty when none of those here signed it.
func (a Authority) IssuerOf(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return ""
	}
	for _, ca := range a.CAs {
		if chain[0].CheckSignatureFrom(ca.Chain[0]) == nil {
			return ca.ID()
		}
	}
	// Of a chain that was lost only its anchor is known.
	for _, above := range chain {
		for _, ca := range a.CAs {
			if above.CheckSignatureFrom(ca.Anchor()) == nil && len(ca.Chain) == 1 {
				return ca.ID()
			}
		}
	}
	return ""
}

// Leaf is a pair as decisions see it; nil when it cannot be used.
func (a Authority) Leaf(pair pki.Pair, req pki.Request) *certificates.Leaf {
	chain, err := pki.ParseCertificates(pair.Chain)
	if err != nil {
		return nil
	}
	leaf := chain[0]
	return &certificates.Leaf{Digest: pki.Digest(leaf), Issuer: a.IssuerOf(chain), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Names: req.Serves(leaf)}
}

// Anchors of a bundle by digest, in its order; what is not a certificate counts as none.
func Anchors(bundle []byte) []string {
	certs, err := pki.ParseCertificates(bundle)
	if err != nil {
		return nil
	}
	var anchors []string
	for _, c := range certs {
		if id := pki.Digest(c); !slices.Contains(anchors, id) {
			anchors = append(anchors, id)
		}
	}
	return anchors
}

// Found are CAs of bundles that the Secret does not know.
func (a Authority) Found(bundles ...[]byte) []CA {
	var found []CA
	known := map[string]bool{}
	for _, ca := range a.CAs {
		for _, c := range ca.Chain {
			known[pki.Digest(c)] = true
		}
	}
	for _, bundle := range bundles {
		certs, err := pki.ParseCertificates(bundle)
		if err != nil {
			continue // a party with that bundle is given a good one
		}
		for _, c := range certs {
			if id := pki.Digest(c); !known[id] {
				known[id] = true
				found = append(found, CA{Chain: []*x509.Certificate{c}})
			}
		}
	}
	return found
}
