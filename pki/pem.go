package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY" // PKCS #8
)

// ParseCertificates reads one certificate or more in PEM form, and nothing else beside them.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := data; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != pemCertificate {
			return nil, fmt.Errorf("it holds a %q among the certificates", b.Type)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("its certificate number %d cannot be read: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("it holds no certificate in PEM form")
	}
	return certs, nil
}

// ParseKey reads an RSA or ECDSA private key in any of the PEM forms that tools write.
func ParseKey(data []byte) (crypto.Signer, error) {
	for rest := data; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return nil, errors.New("it holds no private key in PEM form")
		}
		switch {
		case strings.Contains(b.Type, "ENCRYPTED") || b.Headers["DEK-Info"] != "":
			return nil, errors.New("the private key is encrypted")
		case strings.HasSuffix(b.Type, pemKey): // not EC PARAMETERS, say
			return parseKeyDER(b.Bytes)
		}
	}
}

func parseKeyDER(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("the private key cannot be read: %w", err)
	}
	switch key := parsed.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	default:
		return nil, fmt.Errorf("the private key is %T: RSA or ECDSA is wanted, which Kafka reads from PEM and every client can verify", parsed)
	}
}

// Belongs says whether a private key is that of a certificate.
func Belongs(key crypto.Signer, c *x509.Certificate) bool {
	public, ok := key.Public().(interface {
		Equal(other crypto.PublicKey) bool
	})
	return ok && public.Equal(c.PublicKey)
}

// EncodeKey is a private key as PKCS #8 in PEM form, the only one that Kafka reads.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encodeBlock(pemKey, der), nil
}

// EncodeCertificates is PEM, in their order.
func EncodeCertificates(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, encodeBlock(pemCertificate, c.Raw)...)
	}
	return out
}

func encodeBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
