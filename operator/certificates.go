package operator

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"castellan.dev/castellan/pki"
)

// webhookCA is the common name of the webhook's CA and of its certificate.
const webhookCA = "castellan admission"

// webhookKeys is what the webhook's Secret holds: pki's keys ca.crt (the signing
// certificate first, then older ones that are still trusted), ca.key, tls.crt and tls.key.
type webhookKeys map[string][]byte

// next is what the Secret must hold now, and when to look again. It makes what is missing
// or unreadable and renews in the last third of a life. A new CA signs only once the API
// server trusts it: registered is the caBundle that stands in the webhook configuration.
func (k webhookKeys) next(names []string, registered []byte, now time.Time) (webhookKeys, time.Time, error) {
	ca, trust, err := k.authority(now)
	if err != nil {
		return nil, time.Time{}, err
	}
	caKey, err := ca.KeyPEM()
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("write the key of the webhook's CA: %w", err)
	}
	held, err := pki.ParsePair(slices.Concat(k[pki.KeyTLSKey], k[pki.KeyTLSCert]))
	if err != nil || mustReissue(held, ca, names, registered, now) {
		if held, err = ca.Issue(pki.Request{CommonName: webhookCA, DNSNames: names, Usage: pki.UsageServer}, now); err != nil {
			return nil, time.Time{}, fmt.Errorf("issue the webhook's certificate: %w", err)
		}
	}
	leaf, err := held.Leaf()
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read back the webhook's certificate: %w", err)
	}
	again := renewal(leaf)
	if signer, err := (pki.Pair{Chain: trust}).Leaf(); err == nil && renewal(signer).Before(again) {
		again = renewal(signer)
	}
	return webhookKeys{pki.KeyCACert: trust, pki.KeyCAKey: caKey, pki.KeyTLSCert: held.Chain, pki.KeyTLSKey: held.Key}, again, nil
}

// authority is the CA that signs, and every certificate to trust with it.
func (k webhookKeys) authority(now time.Time) (pki.CA, []byte, error) {
	ca, err := pki.ParseCA(k[pki.KeyCACert], k[pki.KeyCAKey])
	if err == nil && !pki.NeedsRenewal(pki.Pair{Chain: k[pki.KeyCACert]}, now) {
		return ca, k[pki.KeyCACert], nil
	}
	replaced := err == nil && now.Before(ca.NotAfter())
	made, err := pki.NewCA(webhookCA, now)
	if err != nil {
		return ca, nil, fmt.Errorf("make the webhook's CA: %w", err)
	}
	trust := made.TrustPEM()
	if replaced {
		trust = slices.Concat(trust, signing(ca), []byte("\n"))
	}
	return made, trust, nil
}

func mustReissue(held pki.Pair, ca pki.CA, names []string, registered []byte, now time.Time) bool {
	leaf, err := held.Leaf()
	if err != nil || !now.Before(leaf.NotAfter) || !slices.Equal(leaf.DNSNames, names) {
		return true
	}
	trusted := bytes.Contains(registered, signing(ca))
	return trusted && (!ca.Signed(leaf) || pki.NeedsRenewal(held, now))
}

// signing is the certificate, in PEM, of the CA that signs.
func signing(ca pki.CA) []byte {
	const end = "-----END CERTIFICATE-----"
	first, _, _ := bytes.Cut(ca.TrustPEM(), []byte(end))
	return append(bytes.Clone(first), end...)
}

// renewal is when the last third of a certificate's life begins.
func renewal(c *x509.Certificate) time.Time {
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3).Add(time.Second)
}
