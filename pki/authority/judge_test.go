package authority_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"castellan.dev/castellan/pki/authority"
)

// TestJudge holds every text of a bad Secret: it names the Secret, the key and the fault. To take a change over, run with
// UPDATE_GOLDEN=1.
func TestJudge(t *testing.T) {
	root := mint(t, "root", nil, nil)
	middle := mint(t, "middle", root, nil)
	signs := mint(t, "issuing", middle, nil)
	other := mint(t, "other", nil, nil)
	rsaCA := sign(t, "rsa", rsaKey(t), nil, nil)
	der, err := x509.MarshalECPrivateKey(signs.key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	sec1 := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	now := began.AddDate(1, 0, 0)
	var out strings.Builder
	for _, c := range []struct {
		name string
		data map[string][]byte
	}{
		{"good: three levels", secret(t, signs, signs, middle, root)},
		{"good: the root stands in ca.crt", with(secret(t, signs, signs, middle), "ca.crt", chainPEM(root))},
		{"good: an anchor below the root", secret(t, signs, signs, middle)},
		{"good: RSA, self-signed", secret(t, rsaCA, rsaCA)},
		{"good: another form of key", with(secret(t, signs, signs, middle, root), "tls.key", sec1)},
		{"nothing", nil},
		{"no key", without(secret(t, signs, signs), "tls.key")},
		{"no certificate", without(secret(t, signs, signs), "tls.crt")},
		{"a certificate where the key should be", with(secret(t, signs, signs), "tls.key", chainPEM(signs))},
		{"text instead of PEM", with(secret(t, signs, signs), "tls.crt", []byte("hello"))},
		{"a key among the certificates", with(secret(t, signs, signs), "tls.crt", keyPEM(t, signs))},
		{"a broken certificate", with(secret(t, signs, signs), "tls.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))},
		{"an encrypted key", with(secret(t, signs, signs), "tls.key", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}))},
		{"a broken key", with(secret(t, signs, signs), "tls.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}))},
		{"the key of another certificate", secret(t, other, signs, middle, root)},
		{"the root first", secret(t, signs, root, middle, signs)},
		{"root before the intermediate", secret(t, signs, signs, root, middle)},
		{"a gap", secret(t, signs, signs, root)},
		{"bad root in ca.crt", with(secret(t, signs, signs, middle), "ca.crt", []byte("x"))},
		{"not a CA", leafSecret(t, root)},
		{"no keyCertSign", changed(t, root, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })},
		{"ended", changed(t, root, func(c *x509.Certificate) { c.NotAfter = now })},
		{"not yet begun", changed(t, root, func(c *x509.Certificate) { c.NotBefore = now.AddDate(0, 0, 1) })},
		{"a path length of 0 with two CAs below", pathLength(t)},
	} {
		out.WriteString("== " + c.name + "\n")
		ca, faults := authority.Judge("mine", c.data, now)
		for _, f := range faults {
			out.WriteString(f.String() + "\n")
		}
		if good := strings.HasPrefix(c.name, "good"); good != (len(faults) == 0) || good != (ca.Key != nil) {
			t.Errorf("%s: %v", c.name, faults)
		}
	}
	out.WriteString("== no Secret\n" + authority.Missing("mine").String() + "\n")
	golden(t, "judge.golden", out.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-golden +now):\n%s", name, diff)
	}
}

func changed(t *testing.T, root *made, change func(*x509.Certificate)) map[string][]byte {
	t.Helper()
	ca := mint(t, "changed", root, change)
	return secret(t, ca, ca, root)
}

func leafSecret(t *testing.T, root *made) map[string][]byte {
	t.Helper()
	return changed(t, root, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature })
}

func pathLength(t *testing.T) map[string][]byte {
	t.Helper()
	root := mint(t, "short root", nil, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true })
	middle := mint(t, "short middle", root, nil)
	low := mint(t, "short low", middle, nil)
	return secret(t, low, low, middle, root)
}
