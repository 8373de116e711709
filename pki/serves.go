package pki

import "crypto/x509"

// Serves says whether a certificate names everything that is asked for, whatever its key, dates and CA; see matches.
func (r Request) Serves(cert *x509.Certificate) bool { return r.matches(cert) }
