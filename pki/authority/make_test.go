package authority_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"slices"
	"testing"
	"time"
)

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// made is a certificate with its key, as a user would make it with other tools.
type made struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// mint signs a certificate by above, nil is itself.
func mint(t *testing.T, name string, above *made, change func(*x509.Certificate)) *made {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, name, key, above, change)
}

func sign(t *testing.T, name string, key crypto.Signer, above *made, change func(*x509.Certificate)) *made {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: began, NotAfter: began.AddDate(5, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if above != nil {
		parent, signer = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &made{cert: cert, key: key}
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func chainPEM(of ...*made) []byte {
	var out []byte
	for _, m := range of {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.cert.Raw})...)
	}
	return out
}

func keyPEM(t *testing.T, of *made) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(of.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func secret(t *testing.T, key *made, chain ...*made) map[string][]byte {
	t.Helper()
	return map[string][]byte{"tls.crt": chainPEM(chain...), "tls.key": keyPEM(t, key)}
}

func without(data map[string][]byte, key string) map[string][]byte {
	delete(data, key)
	return data
}

func with(data map[string][]byte, key string, value []byte) map[string][]byte {
	data[key] = slices.Clone(value)
	return data
}
