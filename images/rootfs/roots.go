package rootfs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/x509roots/fallback/bundle"
	pkcs12 "software.sslmate.com/src/go-pkcs12"
)

// Mozilla's roots come with a Go module, so they change with go.sum and not with the machine that builds. Roots that Mozilla trusts
// only for certificates issued before some date are left out: neither file format below can say so.

// RootsPEM is Mozilla's roots as most programs read them.
func RootsPEM() ([]byte, error) {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, fmt.Errorf("write root certificate: %w", err)
		}
	}
	return out.Bytes(), nil
}

// RootsPKCS12 is Mozilla's roots as Java reads them, a PKCS #12 trust store without a password.
func RootsPKCS12() ([]byte, error) {
	var certs []*x509.Certificate
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return nil, fmt.Errorf("read root certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	store, err := pkcs12.Passwordless.EncodeTrustStore(certs, "")
	if err != nil {
		return nil, fmt.Errorf("write trust store: %w", err)
	}
	return store, nil
}
