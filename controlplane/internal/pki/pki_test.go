package pki

import (
	"bytes"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"castellan.dev/castellan/controlplane/internal/datadir"
)

func newDir(t *testing.T) datadir.Dir {
	t.Helper()
	dir, err := datadir.Open(filepath.Join(t.TempDir(), "d"))
	if err != nil {
		// The test's own folder may have a long name; the limit is tested elsewhere.
		dir = datadir.Dir(t.TempDir())
	}
	return dir
}

func someNames() Names {
	return Names{DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}
}

func ensure(t *testing.T, dir datadir.Dir, names Names, fresh bool, now time.Time) bool {
	t.Helper()
	changed, err := Ensure(dir, names, fresh, now)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func certificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	cert, err := readCert(path)
	if err != nil || cert == nil {
		t.Fatalf("read %s: %v", path, err)
	}
	return cert
}

func TestSecondStartChangesNothing(t *testing.T) {
	dir, now := newDir(t), time.Now()
	if !ensure(t, dir, someNames(), true, now) {
		t.Error("the first start made nothing")
	}
	before := read(t, dir.ServingCert())
	if ensure(t, dir, someNames(), false, now.Add(time.Hour)) {
		t.Error("the second start changed certificates")
	}
	if !bytes.Equal(before, read(t, dir.ServingCert())) {
		t.Error("the serving certificate changed")
	}
}

func TestLeavesAreRenewedInTheirLastThird(t *testing.T) {
	dir, now := newDir(t), time.Now()
	ensure(t, dir, someNames(), true, now)
	if ensure(t, dir, someNames(), false, now.Add(leafLife*6/10)) {
		t.Error("renewed with 40 % left")
	}
	later := now.Add(leafLife * 7 / 10)
	if !ensure(t, dir, someNames(), false, later) {
		t.Error("not renewed with 30 % left")
	}
	ca := certificate(t, dir.CACert())
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, path := range []string{dir.ServingCert(), dir.AdminCert()} {
		_, err := certificate(t, path).Verify(x509.VerifyOptions{Roots: roots, CurrentTime: later.Add(leafLife / 2), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestRenewedCAKeepsItsKey(t *testing.T) {
	dir, now := newDir(t), time.Now()
	ensure(t, dir, someNames(), true, now)
	old := certificate(t, dir.CACert())
	later := now.Add(caLife * 7 / 10)
	ensure(t, dir, someNames(), false, later)
	renewed := certificate(t, dir.CACert())
	if !renewed.NotAfter.After(old.NotAfter) {
		t.Fatal("the CA was not renewed")
	}
	// A client that only knows the old CA accepts what the renewed one signed.
	roots := x509.NewCertPool()
	roots.AddCert(old)
	if _, err := certificate(t, dir.ServingCert()).Verify(x509.VerifyOptions{Roots: roots, CurrentTime: later.Add(time.Hour)}); err != nil {
		t.Error(err)
	}
}

func TestServingCertificateFollowsNames(t *testing.T) {
	dir, now := newDir(t), time.Now()
	ensure(t, dir, someNames(), true, now)
	more := someNames()
	more.DNS = append(more.DNS, "control.example.org")
	if !ensure(t, dir, more, false, now) {
		t.Error("a new name did not renew the certificate")
	}
	if err := certificate(t, dir.ServingCert()).VerifyHostname("control.example.org"); err != nil {
		t.Error(err)
	}
	if ensure(t, dir, someNames(), false, now) {
		t.Error("a name too many renewed the certificate")
	}
}

func TestInterruptedFirstStartIsFinished(t *testing.T) {
	dir, now := newDir(t), time.Now()
	ensure(t, dir, someNames(), true, now)
	for _, path := range []string{dir.CACert(), dir.ServingCert(), dir.AdminKey(), dir.Encryption()} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	ensure(t, dir, someNames(), true, now)
	if ok, err := adminLeaf(dir).usable(authority{cert: certificate(t, dir.CACert())}, now); err != nil || !ok {
		t.Errorf("the admin certificate is not usable: %v", err)
	}
}

func TestLostKeysAreNeverReplaced(t *testing.T) {
	for _, test := range []struct {
		reason string
		path   func(datadir.Dir) string
	}{
		{"every certificate hangs on it", datadir.Dir.CAKey},
		{"issued tokens hang on it", datadir.Dir.ServiceAccountKey},
		{"stored Secrets hang on it", datadir.Dir.Encryption},
	} {
		t.Run(test.reason, func(t *testing.T) {
			dir, now := newDir(t), time.Now()
			ensure(t, dir, someNames(), true, now)
			if err := os.Remove(test.path(dir)); err != nil {
				t.Fatal(err)
			}
			_, err := Ensure(dir, someNames(), false, now)
			if err == nil || !strings.Contains(err.Error(), "restore a backup") {
				t.Errorf("got %v", err)
			}
		})
	}
}
