package pki

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// ListenerCertificate is the file of a listener's own certificate: its key as PKCS #8, which is all
// that Kafka reads from PEM, and its chain. Errors name the Secret's key and the fault.
func ListenerCertificate(data map[string][]byte, now time.Time) ([]byte, error) {
	for _, key := range []string{KeyTLSCert, KeyTLSKey} {
		if len(data[key]) == 0 {
			return nil, fmt.Errorf("it has no key %s", key)
		}
	}
	chain, err := ParseCertificates(data[KeyTLSCert])
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", KeyTLSCert, err)
	}
	key, err := ParseKey(data[KeyTLSKey])
	if err != nil {
		return nil, fmt.Errorf("key %s: %w; an RSA or ECDSA key is wanted, without a passphrase", KeyTLSKey, err)
	}
	if err := checkPair(key, chain); err != nil {
		return nil, err
	}
	if err := checkChain(chain, now); err != nil {
		return nil, fmt.Errorf("key %s: %w", KeyTLSCert, err)
	}
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", KeyTLSKey, err)
	}
	return append(keyPEM, EncodeCertificates(chain)...), nil
}

func checkPair(key crypto.Signer, chain []*x509.Certificate) error {
	at := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return Belongs(key, c) })
	switch {
	case at < 0:
		return fmt.Errorf("%s does not belong to the certificate of %q in %s", KeyTLSKey, chain[0].Subject, KeyTLSCert)
	case at > 0:
		return fmt.Errorf("key %s: the chain is in the wrong order: the certificate of %q, to which %s belongs, must come first and not as number %d", KeyTLSCert, chain[at].Subject, KeyTLSKey, at+1)
	}
	return nil
}

func checkChain(chain []*x509.Certificate, now time.Time) error {
	for i, c := range chain {
		switch {
		case now.After(c.NotAfter):
			return fmt.Errorf("the certificate of %q ended at %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
		case now.Add(clockSkew).Before(c.NotBefore):
			return fmt.Errorf("the certificate of %q begins only at %s", c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
		case i > 0 && chain[i-1].CheckSignatureFrom(c) != nil:
			return fmt.Errorf("the chain is in the wrong order or has a gap: the certificate of %q was not signed by the next one, of %q, or that is no CA with keyCertSign", chain[i-1].Subject, c.Subject)
		}
	}
	usages := chain[0].ExtKeyUsage
	if len(usages) > 0 && !slices.Contains(usages, x509.ExtKeyUsageServerAuth) && !slices.Contains(usages, x509.ExtKeyUsageAny) {
		return fmt.Errorf("the certificate of %q is not for servers (extended key usage serverAuth)", chain[0].Subject)
	}
	return nil
}
