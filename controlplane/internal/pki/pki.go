// Package pki makes and renews the keys and certificates of one control plane: a CA, a serving certificate, the
// administrator's client certificate, the service account key and the key that encrypts Secrets at rest. It never replaces
// a key whose loss would make stored data unreadable: a missing one is an error that names the remedy.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"slices"
	"time"

	"castellan.dev/castellan/controlplane/internal/datadir"
)

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 365 * 24 * time.Hour
	// backdate tolerates clients whose clock is a little behind.
	backdate = 5 * time.Minute
)

// Names is what the serving certificate must be valid for.
type Names struct {
	DNS []string
	IPs []net.IP
}

// Ensure makes what is missing and renews every certificate with less than a third of its life left. It reports whether
// a certificate changed. fresh says that no state exists yet, so that long-lived keys may be created.
func Ensure(dir datadir.Dir, names Names, fresh bool, now time.Time) (changed bool, err error) {
	ca, caChanged, err := ensureCA(dir, fresh, now)
	if err != nil {
		return false, err
	}
	leaves := []leaf{servingLeaf(dir, names), adminLeaf(dir)}
	changed = caChanged
	for _, l := range leaves {
		issued, err := l.ensure(ca, now)
		if err != nil {
			return changed, err
		}
		changed = changed || issued
	}
	if err := ensureServiceAccountKey(dir, fresh); err != nil {
		return changed, err
	}
	return changed, ensureEncryption(dir, fresh)
}

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func ensureCA(dir datadir.Dir, fresh bool, now time.Time) (authority, bool, error) {
	key, err := longLivedKey(dir.CAKey(), "CA key", fresh)
	if err != nil {
		return authority{}, false, err
	}
	cert, err := readCert(dir.CACert())
	if err != nil {
		return authority{}, false, err
	}
	if cert != nil && samePublicKey(cert, key) && !due(cert, now) {
		return authority{cert, key}, false, nil
	}
	// A renewed CA keeps key and name: what it signed before stays valid, and clients that know the old one accept the new.
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "castellan-controlplane-ca"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert, err = sign(template, template, key.Public(), key)
	if err != nil {
		return authority{}, false, fmt.Errorf("create CA: %w", err)
	}
	return authority{cert, key}, true, writePEM(dir.CACert(), "CERTIFICATE", cert.Raw)
}

type leaf struct {
	certFile, keyFile string
	template          x509.Certificate
}

func servingLeaf(dir datadir.Dir, names Names) leaf {
	return leaf{dir.ServingCert(), dir.ServingKey(), x509.Certificate{
		Subject:     pkix.Name{CommonName: "castellan-controlplane"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    names.DNS,
		IPAddresses: names.IPs,
	}}
}

func adminLeaf(dir datadir.Dir) leaf {
	return leaf{dir.AdminCert(), dir.AdminKey(), x509.Certificate{
		Subject:     pkix.Name{CommonName: "castellan-admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}}
}

func (l leaf) ensure(ca authority, now time.Time) (bool, error) {
	ok, err := l.usable(ca, now)
	if ok || err != nil {
		return false, err
	}
	key, err := newKey()
	if err != nil {
		return false, err
	}
	template := l.template
	template.NotBefore, template.NotAfter = now.Add(-backdate), now.Add(leafLife)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	cert, err := sign(&template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return false, fmt.Errorf("issue %s: %w", l.certFile, err)
	}
	// The certificate comes last: a crash in between leaves a pair that does not match and is issued again.
	if err := writeKey(l.keyFile, key); err != nil {
		return false, err
	}
	return true, writePEM(l.certFile, "CERTIFICATE", cert.Raw)
}

func (l leaf) usable(ca authority, now time.Time) (bool, error) {
	cert, err := readCert(l.certFile)
	if err != nil || cert == nil {
		return false, err
	}
	key, err := readKey(l.keyFile)
	if err != nil || key == nil {
		return false, err
	}
	good := samePublicKey(cert, key) && !due(cert, now) && cert.CheckSignatureFrom(ca.cert) == nil && covers(cert, &l.template)
	return good, nil
}

func covers(cert, want *x509.Certificate) bool {
	for _, name := range want.DNSNames {
		if !slices.Contains(cert.DNSNames, name) {
			return false
		}
	}
	for _, ip := range want.IPAddresses {
		if !slices.ContainsFunc(cert.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// due says that less than a third of a certificate's life is left, or that it is not valid yet.
func due(cert *x509.Certificate, now time.Time) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return now.Before(cert.NotBefore) || cert.NotAfter.Sub(now) < life/3
}

func ensureServiceAccountKey(dir datadir.Dir, fresh bool) error {
	key, err := longLivedKey(dir.ServiceAccountKey(), "service account key", fresh)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encode service account public key: %w", err)
	}
	return writePEM(dir.ServiceAccountPub(), "PUBLIC KEY", der)
}

func longLivedKey(path, what string, fresh bool) (crypto.Signer, error) {
	key, err := readKey(path)
	if err != nil || key != nil {
		return key, err
	}
	if !fresh {
		return nil, lost(path, what)
	}
	if key, err = newKey(); err != nil {
		return nil, err
	}
	return key, writeKey(path, key)
}

func lost(path, what string) error {
	return fmt.Errorf("the %s %s is missing but stored state needs it: put it back or restore a backup into a new directory", what, path)
}

func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

func sign(template, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw serial number: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

func samePublicKey(cert *x509.Certificate, key crypto.Signer) bool {
	a, errA := x509.MarshalPKIXPublicKey(cert.PublicKey)
	b, errB := x509.MarshalPKIXPublicKey(key.Public())
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// readCert returns nil when the file does not exist.
func readCert(path string) (*x509.Certificate, error) {
	block, err := readPEM(path)
	if err != nil || block == nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(block)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w (restore it from a backup)", path, err)
	}
	return cert, nil
}

// readKey returns nil when the file does not exist.
func readKey(path string) (crypto.Signer, error) {
	block, err := readPEM(path)
	if err != nil || block == nil {
		return nil, err
	}
	key, err := x509.ParseECPrivateKey(block)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w (restore it from a backup)", path, err)
	}
	return key, nil
}

func readPEM(path string) ([]byte, error) {
	raw, err := os.ReadFile(path) //nolint:gosec // a path of the data directory
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block: restore it from a backup", path)
	}
	return block.Bytes, nil
}

func writeKey(path string, key crypto.Signer) error {
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("write %s: unexpected key type %T", path, key)
	}
	der, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		return fmt.Errorf("encode key for %s: %w", path, err)
	}
	return writePEM(path, "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) { //nolint:gosec // a path of the data directory
		return nil
	}
	return datadir.WriteFile(path, data)
}
