package operator

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"testing"
	"time"

	"castellan.dev/castellan/pki"
)

// serves says whether who trusts the bundle accepts what the Secret serves.
func serves(t *testing.T, k webhookKeys, bundle []byte, now time.Time) bool {
	t.Helper()
	pair, err := tls.X509KeyPair(k[pki.KeyTLSCert], k[pki.KeyTLSKey])
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	_, err = leaf.Verify(x509.VerifyOptions{DNSName: serviceNames("ns", "hook")[0], Roots: roots, CurrentTime: now})
	return err == nil
}

func mustNext(t *testing.T, k webhookKeys, registered []byte, now time.Time) (webhookKeys, time.Time) {
	t.Helper()
	next, again, err := k.next(serviceNames("ns", "hook"), registered, now)
	if err != nil {
		t.Fatal(err)
	}
	return next, again
}

func sameKeys(a, b webhookKeys) bool { return maps.EqualFunc(a, b, bytes.Equal) }

// TestWebhookKeysOverThirtyYears lives through every renewal and every change of CA: at no
// moment is something served that the API server does not trust, however slowly it learns.
func TestWebhookKeysOverThirtyYears(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	keys, again := mustNext(t, nil, nil, now)
	registered := keys[pki.KeyCACert]
	leaves, authorities := 1, 1
	for end := now.AddDate(30, 0, 0); now.Before(end); {
		if !again.After(now) {
			t.Fatalf("look again at %s, but it is %s", again, now)
		}
		if same, _ := mustNext(t, keys, registered, again.Add(-time.Hour)); !sameKeys(same, keys) {
			t.Fatalf("at %s something changes an hour before its time", again)
		}
		now = again
		next, _ := mustNext(t, keys, registered, now)
		if !bytes.Equal(next[pki.KeyCACert], keys[pki.KeyCACert]) {
			authorities++
			if !serves(t, next, registered, now) || !serves(t, next, next[pki.KeyCACert], now) {
				t.Fatalf("at %s the new CA's certificate is served before it is trusted, or the old one is no longer", now)
			}
			registered = next[pki.KeyCACert]
		}
		keys, again = mustNext(t, next, registered, now)
		leaves++
		if !serves(t, keys, registered, now) {
			t.Fatalf("at %s what is served is not trusted", now)
		}
		if !bytes.Contains(registered, firstOf(keys)) {
			t.Fatal("the signing CA is not first in the bundle")
		}
	}
	if leaves < 40 || authorities != 5 {
		t.Errorf("%d certificates and %d CAs in 30 years: one in 8 months and one in 80 are meant", leaves, authorities)
	}
}

func firstOf(k webhookKeys) []byte {
	ca, err := pki.ParseCA(k[pki.KeyCACert], k[pki.KeyCAKey])
	if err != nil {
		return []byte("unreadable")
	}
	return signing(ca)
}

func TestWebhookKeysHeal(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	good, _ := mustNext(t, nil, nil, now)
	without := func(key string) webhookKeys {
		k := maps.Clone(good)
		delete(k, key)
		return k
	}
	other, _ := mustNext(t, nil, nil, now)
	foreign := without(pki.KeyTLSKey)
	foreign[pki.KeyTLSKey] = other[pki.KeyTLSKey]
	for name, broken := range map[string]webhookKeys{
		"no CA": without(pki.KeyCACert), "no key of the CA": without(pki.KeyCAKey), "no certificate": without(pki.KeyTLSCert),
		"no key": without(pki.KeyTLSKey), "another's key": foreign, "rubbish": {pki.KeyCACert: []byte("x"), pki.KeyTLSCert: []byte("y")},
	} {
		healed, _ := mustNext(t, broken, good[pki.KeyCACert], now)
		healed, _ = mustNext(t, healed, healed[pki.KeyCACert], now)
		if !serves(t, healed, healed[pki.KeyCACert], now) {
			t.Errorf("%s: what is served then is not trusted", name)
		}
	}
	renamed, _, err := good.next(serviceNames("ns", "other"), good[pki.KeyCACert], now)
	if err != nil || bytes.Equal(renamed[pki.KeyTLSCert], good[pki.KeyTLSCert]) {
		t.Errorf("another Service keeps the certificate, %v", err)
	}
	// Nobody registers the CA: the certificate is renewed all the same before it ends.
	late := now.Add(pki.LeafLifetime + time.Hour)
	if k, _ := mustNext(t, good, nil, late); !serves(t, k, good[pki.KeyCACert], late) {
		t.Error("an ended certificate is not renewed while no webhook is registered")
	}
}
