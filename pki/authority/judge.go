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

// clockSkew is how far another machine's clock may be behind.
const clockSkew = 5 * time.Minute

// judged collects what is wrong with a Secret.
type judged struct {
	secret string
	faults []certificates.Fault
}

func (j *judged) fault(key, remedy, reason string, args ...any) {
	j.faults = append(j.faults, certificates.Fault{Secret: j.secret, Key: key, Reason: fmt.Sprintf(reason, args...), Remedy: remedy})
}

// Judge reads a CA that a user provides: tls.crt is its certificate and what stands above it, each signed by the next one;
// tls.key its key; ca.crt may hold the root where tls.crt does not. Without faults it can be used.
func Judge(secret string, data map[string][]byte, now time.Time) (CA, []certificates.Fault) {
	j := &judged{secret: secret}
	chain := j.chain(data[pki.KeyTLSCert])
	key := j.key(data[pki.KeyTLSKey])
	if len(j.faults) > 0 {
		return CA{}, j.faults
	}
	j.match(key, chain)
	if len(j.faults) > 0 {
		return CA{}, j.faults
	}
	chain = j.root(chain, data[pki.KeyCACert])
	j.order(chain)
	for i, c := range chain {
		j.signer(c, i)
		j.dates(c, now)
	}
	if len(j.faults) > 0 {
		return CA{}, j.faults
	}
	return CA{Chain: chain, Key: key, Own: secret}, nil
}

// Missing is the fault of a Secret that does not exist.
func Missing(secret string) certificates.Fault {
	return certificates.Fault{Secret: secret, Key: pki.KeyTLSCert, Reason: "there is no such Secret", Remedy: "create it, with the CA's chain in tls.crt and its key in tls.key"}
}

func (j *judged) chain(data []byte) []*x509.Certificate {
	const remedy = "put the CA's certificate there in PEM form, and after it those above it"
	if len(bytes.TrimSpace(data)) == 0 {
		j.fault(pki.KeyTLSCert, remedy, "the Secret has no such key")
		return nil
	}
	chain, err := pki.ParseCertificates(data)
	if err != nil {
		j.fault(pki.KeyTLSCert, remedy, "%s", err)
	}
	return chain
}

func (j *judged) key(data []byte) crypto.Signer {
	const remedy = "put the private key of the first certificate of tls.crt there, in PEM form and without a passphrase"
	if len(bytes.TrimSpace(data)) == 0 {
		j.fault(pki.KeyTLSKey, remedy, "the Secret has no such key")
		return nil
	}
	key, err := pki.ParseKey(data)
	if err != nil {
		j.fault(pki.KeyTLSKey, remedy, "%s", err)
	}
	return key
}

// match holds that the key is that of the first certificate.
func (j *judged) match(key crypto.Signer, chain []*x509.Certificate) {
	at := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return pki.Belongs(key, c) })
	switch {
	case at < 0:
		j.fault(pki.KeyTLSKey, "put the key there that belongs to this certificate, or the certificate of this key", "it does not belong to the certificate of %q in tls.crt", chain[0].Subject)
	case at > 0:
		j.fault(pki.KeyTLSCert, "put the certificate of the key first, and each one's signer after it", "the chain is in the wrong order: the certificate of %q, to which tls.key belongs, is number %d and not the first", chain[at].Subject, at+1)
	}
}

// root adds the root of ca.crt above a chain that ends below it.
func (j *judged) root(chain []*x509.Certificate, data []byte) []*x509.Certificate {
	last := chain[len(chain)-1]
	if len(bytes.TrimSpace(data)) == 0 || last.CheckSignatureFrom(last) == nil {
		return chain
	}
	above, err := pki.ParseCertificates(data)
	if err != nil {
		j.fault(pki.KeyCACert, "put the root's certificate there in PEM form, or leave the key out", "%s", err)
		return chain
	}
	for _, c := range above {
		if !c.Equal(last) && signed(last, c) {
			return append(slices.Clone(chain), c)
		}
	}
	return chain
}

// signed says whether the key of above signed c, whatever above is allowed to.
func signed(c, above *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, above.RawSubject) && above.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// order holds that each certificate was signed by the next one.
func (j *judged) order(chain []*x509.Certificate) {
	const remedy = "put each certificate's signer directly after it, the root last"
	for i := range len(chain) - 1 {
		if signed(chain[i], chain[i+1]) {
			continue
		}
		at := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return c != chain[i] && signed(chain[i], c) })
		if at >= 0 {
			j.fault(pki.KeyTLSCert, remedy, "the chain is in the wrong order: the certificate of %q, number %d, was signed by %q, which is number %d", chain[i].Subject, i+1, chain[at].Subject, at+1)
		} else {
			j.fault(pki.KeyTLSCert, remedy, "the chain has a gap: the certificate of %q, number %d, was signed by %q, but %q comes after it", chain[i].Subject, i+1, chain[i].Issuer, chain[i+1].Subject)
		}
		return
	}
}

// signer holds that a certificate may sign others; below is how many CAs of the chain it has below it.
func (j *judged) signer(c *x509.Certificate, below int) {
	const remedy = "have the CA's certificate made anew, as one of a CA"
	limited := c.MaxPathLen > 0 || c.MaxPathLenZero
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		j.fault(pki.KeyTLSCert, remedy, "the certificate of %q is not that of a CA: its basic constraints do not say CA:TRUE", c.Subject)
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		j.fault(pki.KeyTLSCert, remedy, "the certificate of %q may not sign others: its key usage has no keyCertSign", c.Subject)
	case limited && below > c.MaxPathLen:
		j.fault(pki.KeyTLSCert, remedy, "the certificate of %q allows %d CAs below it (path length), and here are %d", c.Subject, c.MaxPathLen, below)
	}
}

func (j *judged) dates(c *x509.Certificate, now time.Time) {
	const remedy = "put one there that is valid now"
	switch {
	case !now.Before(c.NotAfter):
		j.fault(pki.KeyTLSCert, remedy, "the certificate of %q ended at %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
	case now.Add(clockSkew).Before(c.NotBefore):
		j.fault(pki.KeyTLSCert, remedy, "the certificate of %q begins only at %s", c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
	}
}
