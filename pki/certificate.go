package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// How long certificates live. A leaf is renewed in the last third of its life.
const (
	CALifetime   = 10 * 365 * 24 * time.Hour
	LeafLifetime = 365 * 24 * time.Hour
)

// clockSkew is how far another machine's clock may be behind.
const clockSkew = 5 * time.Minute

// CA signs certificates. Its first certificate signs; all of them are trusted.
type CA struct {
	key crypto.Signer
	// chain is its own certificate and what stands above it.
	chain []*x509.Certificate
	trust []*x509.Certificate
}

// Usage is what a leaf certificate may be used for.
type Usage int

// The usages of a leaf certificate.
const (
	UsageClient Usage = 1 << iota
	UsageServer
)

// Request describes a leaf certificate.
type Request struct {
	CommonName   string
	Organization string
	DNSNames     []string
	IPs          []net.IP
	Usage        Usage
}

// Pair is a private key (PKCS #8) and its certificate chain, leaf first, both in PEM.
type Pair struct {
	Key   []byte
	Chain []byte
}

// NewCA makes a self-signed CA (ECDSA P-256) that lives for [CALifetime].
func NewCA(name string, now time.Time) (CA, error) {
	key, err := newKey()
	if err != nil {
		return CA{}, fmt.Errorf("make the key of CA %s: %w", name, err)
	}
	serial, err := newSerial()
	if err != nil {
		return CA{}, fmt.Errorf("make the serial number of CA %s: %w", name, err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name, Organization: []string{Organization}},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(CALifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return CA{}, fmt.Errorf("sign CA %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return CA{}, fmt.Errorf("read back CA %s: %w", name, err)
	}
	return NewSigner([]*x509.Certificate{cert}, key), nil
}

// NewSigner is a CA of its certificate, with each one's signer after it, and the key of the first. The last is trusted.
func NewSigner(chain []*x509.Certificate, key crypto.Signer) CA {
	return CA{key: key, chain: chain, trust: chain[len(chain)-1:]}
}

// ParseCA reads a CA from PEM: certificates, the signing one first, and its private key. Certificates behind it that
// signed each other, up to a root, are its chain.
func ParseCA(certPEM, keyPEM []byte) (CA, error) {
	trust, err := ParseCertificates(certPEM)
	if err != nil {
		return CA{}, fmt.Errorf("read the CA's certificates: %w", err)
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return CA{}, fmt.Errorf("read the CA's key: %w", err)
	}
	if !trust[0].IsCA {
		return CA{}, fmt.Errorf("certificate %q is not a CA's: its basic constraints do not allow it to sign", trust[0].Subject)
	}
	if !Belongs(key, trust[0]) {
		return CA{}, fmt.Errorf("the private key does not belong to the first certificate, %q", trust[0].Subject)
	}
	above := 1
	for above < len(trust) && trust[above-1].CheckSignatureFrom(trust[above-1]) != nil && trust[above-1].CheckSignatureFrom(trust[above]) == nil {
		above++
	}
	return CA{key: key, chain: trust[:above], trust: trust}, nil
}

// TrustPEM is every certificate that a client or node must trust.
func (ca CA) TrustPEM() []byte {
	return EncodeCertificates(ca.trust)
}

// KeyPEM is the CA's private key.
func (ca CA) KeyPEM() ([]byte, error) {
	return EncodeKey(ca.key)
}

// ID is the digest of its own certificate.
func (ca CA) ID() string { return Digest(ca.chain[0]) }

// NotAfter is the earliest end in its chain.
func (ca CA) NotAfter() time.Time {
	return slices.MinFunc(ca.chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
}

// Issue makes a key (ECDSA P-256) and a certificate for it that lives for [LeafLifetime],
// but never longer than the CA.
func (ca CA) Issue(req Request, now time.Time) (Pair, error) {
	return ca.IssueFor(req, LeafLifetime, now)
}

// IssueFor is Issue with another lifetime. What stands between the CA and its anchor goes along, because others trust the
// anchor alone.
func (ca CA) IssueFor(req Request, lifetime time.Duration, now time.Time) (Pair, error) {
	end := ca.NotAfter()
	if !now.Before(end) {
		return Pair{}, fmt.Errorf("issue a certificate to %s: the CA ended at %s; replace it", req.CommonName, end.UTC().Format(time.RFC3339))
	}
	if wanted := now.Add(lifetime); wanted.Before(end) {
		end = wanted
	}
	key, err := newKey()
	if err != nil {
		return Pair{}, fmt.Errorf("make the key of %s: %w", req.CommonName, err)
	}
	serial, err := newSerial()
	if err != nil {
		return Pair{}, fmt.Errorf("make the serial number for %s: %w", req.CommonName, err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: req.CommonName, Organization: organizations(req.Organization)},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           extendedUsages(req.Usage),
		BasicConstraintsValid: true,
		DNSNames:              req.DNSNames,
		IPAddresses:           req.IPs,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.chain[0], key.Public(), ca.key)
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate of %s: %w", req.CommonName, err)
	}
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("write the key of %s: %w", req.CommonName, err)
	}
	return Pair{Key: keyPEM, Chain: append(encodeBlock(pemCertificate, der), EncodeCertificates(ca.chain[:len(ca.chain)-1])...)}, nil
}

// Signed says whether the CA's own key signed a certificate.
func (ca CA) Signed(leaf *x509.Certificate) bool {
	return leaf.CheckSignatureFrom(ca.chain[0]) == nil
}

// leafEnd is when a leaf issued now ends.
func (ca CA) leafEnd(now time.Time) time.Time {
	end := now.Add(LeafLifetime)
	if last := ca.NotAfter(); end.After(last) {
		return last
	}
	return end
}

// ParsePair reads what [Pair.PEM] wrote: one private key and its chain. The key must
// belong to the leaf.
func ParsePair(data []byte) (Pair, error) {
	var p Pair
	for rest := data; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		switch block.Type {
		case pemKey:
			if p.Key != nil {
				return Pair{}, errors.New("more than one private key")
			}
			p.Key = encodeBlock(pemKey, block.Bytes)
		case pemCertificate:
			p.Chain = append(p.Chain, encodeBlock(pemCertificate, block.Bytes)...)
		default:
			return Pair{}, fmt.Errorf("unexpected PEM block %q: a PKCS #8 private key and certificates are wanted", block.Type)
		}
	}
	key, err := ParseKey(p.Key)
	if err != nil {
		return Pair{}, err
	}
	leaf, err := p.Leaf()
	if err != nil {
		return Pair{}, err
	}
	if !Belongs(key, leaf) {
		return Pair{}, fmt.Errorf("the private key does not belong to the certificate of %q", leaf.Subject)
	}
	return p, nil
}

// PEM is the key and then the chain, in one file.
func (p Pair) PEM() []byte {
	return slices.Concat(p.Key, p.Chain)
}

// Leaf is the first certificate of the chain.
func (p Pair) Leaf() (*x509.Certificate, error) {
	chain, err := ParseCertificates(p.Chain)
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}

// NeedsRenewal says whether a pair is in the last third of its life, or unreadable.
func NeedsRenewal(p Pair, now time.Time) bool {
	leaf, err := p.Leaf()
	if err != nil {
		return true
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return now.After(leaf.NotAfter.Add(-life / 3))
}

// Digest names a certificate: "sha256:<hex>" of its DER form.
func Digest(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func newKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// newSerial draws 127 random bits: positive, and no longer than the 20 bytes of RFC 5280.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}

func organizations(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

func extendedUsages(u Usage) []x509.ExtKeyUsage {
	var usages []x509.ExtKeyUsage
	if u&UsageServer != 0 {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	if u&UsageClient != 0 {
		usages = append(usages, x509.ExtKeyUsageClientAuth)
	}
	return usages
}
