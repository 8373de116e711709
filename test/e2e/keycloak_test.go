package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/test/e2e/stand"
)

// keycloak is a real OpenID provider on loopback for one test, with one realm.
type keycloak struct {
	// issuer is of tokens, and the root of everything that is published.
	issuer string
	// tokens is where clients get tokens, keys where brokers get what these are checked with; over TLS with the CA ca.
	tokens, keys string
	ca           []byte
	log          string
}

const keycloakRealm = "kafka"

// startKeycloak starts one that knows these clients by id and secret, and makes its tokens for that audience. It is not
// ready yet, see [keycloak.ready]; it ends with the test.
func startKeycloak(t *testing.T, audience string, secrets map[string]string) *keycloak {
	t.Helper()
	product, home := stand.Installed(t, "keycloak-26.7.3"), t.TempDir()
	for _, name := range []string{"lib", "providers", "themes", "conf"} { // what it writes goes to its home
		if err := os.Symlink(filepath.Join(product, name), filepath.Join(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	database, err := os.ReadFile(filepath.Join(product, "data", "h2", "keycloakdb.mv.db"))
	if err != nil {
		t.Fatalf("%v: delete %s and run test/install-tools", err, product)
	}
	writePrivate(t, filepath.Join(home, "data", "h2", "keycloakdb.mv.db"), database)
	port := freePort(t)
	k := &keycloak{log: filepath.Join(home, "log")}
	at := "127.0.0.1:" + port
	k.issuer = "https://" + at + "/realms/" + keycloakRealm
	k.tokens = k.issuer + "/protocol/openid-connect/token"
	k.keys = k.issuer + "/protocol/openid-connect/certs"
	writePrivate(t, filepath.Join(home, "data", "import", keycloakRealm+".json"), realm(t, audience, secrets))
	certificate, key := k.certificate(t, home)
	k.start(t, home, "--https-port="+port, "--hostname=https://"+at,
		"--https-certificate-file="+certificate, "--https-certificate-key-file="+key)
	return k
}

func (k *keycloak) certificate(t *testing.T, home string) (certificate, key string) {
	t.Helper()
	ca, err := pki.NewCA("identity", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Request{CommonName: "keycloak", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Usage: pki.UsageServer}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k.ca = ca.TrustPEM()
	certificate, key = filepath.Join(home, "tls.crt"), filepath.Join(home, "tls.key")
	writePrivate(t, certificate, pair.Chain)
	writePrivate(t, key, pair.Key)
	return certificate, key
}

// start runs what bin/kc.sh would, with a heap of our own, and without a shell between it and its pid.
func (k *keycloak) start(t *testing.T, home string, args ...string) {
	t.Helper()
	out, err := os.Create(k.log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // the process has its own
	java := []string{
		"-Xms64m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dkc.home.dir=" + home, "-Djboss.server.config.dir=" + filepath.Join(home, "conf"),
		"-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
		"-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
		"--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
		"--add-opens=java.base/java.security=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED",
		"-cp", filepath.Join(home, "lib", "quarkus-run.jar"), "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
		// Without a cluster it listens on loopback only.
		"start", "--optimized", "--cache=local", "--import-realm", "--http-host=127.0.0.1",
	}
	cmd := exec.CommandContext(context.Background(), "java", append(java, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Keycloak: %v", err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("end Keycloak: %v", err)
		}
		_ = cmd.Wait() // killed, as asked
		if t.Failed() {
			said, _ := os.ReadFile(k.log)
			t.Logf("the end of Keycloak's log:\n%s", said[max(0, len(said)-2000):])
		}
	})
}

// ready is the fact that it publishes its keys.
func (k *keycloak) ready(ctx context.Context) error {
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(k.ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.keys, nil)
	if err != nil {
		return fmt.Errorf("ask Keycloak for its keys: %w", err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("ask Keycloak for its keys: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		err = errors.New("Keycloak says " + response.Status)
	}
	return errors.Join(err, response.Body.Close())
}

// realm is what Keycloak imports at its start.
func realm(t *testing.T, audience string, secrets map[string]string) []byte {
	t.Helper()
	type object = map[string]any
	var clients []object
	for id, secret := range secrets {
		clients = append(clients, object{
			"clientId": id, "secret": secret, "clientAuthenticatorType": "client-secret", "serviceAccountsEnabled": true, "standardFlowEnabled": false,
			"protocolMappers": []object{{
				"name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
				"config": object{"included.custom.audience": audience, "access.token.claim": "true"},
			}},
		})
	}
	text, err := json.Marshal(object{"realm": keycloakRealm, "enabled": true, "clients": clients})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // Keycloak is to have it
	at, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("%v is no port", l.Addr())
	}
	return strconv.Itoa(at.Port)
}

// writePrivate writes a file that only we can read, and the folders above it.
func writePrivate(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// asProvider is a listener's OAuth with this provider, as YAML, and the Secret with its CA.
func (k *keycloak) asProvider(audience string) (oauth, secret string) {
	oauth = fmt.Sprintf("{jwksURL: %q, issuer: %q, audiences: [%s], principalClaim: azp, caSecretRef: {name: keycloak-ca}}", k.keys, k.issuer, audience)
	return oauth, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: keycloak-ca, namespace: default}\nstringData: {ca.crt: %q}\n", k.ca)
}

// ofOAuth is a client that gets its tokens from it.
func (k *keycloak) ofOAuth(t *testing.T, s *stand.Stand, id, secret string) identity {
	t.Helper()
	folder := t.TempDir()
	trust, issuer := filepath.Join(folder, "ca.crt"), filepath.Join(folder, "issuer.crt")
	writePrivate(t, trust, secretOf(t, s, s.Key().Name+"-ca-cert")["ca.crt"])
	writePrivate(t, issuer, k.ca)
	return identity{
		s: s, name: id, listener: "tokens", jvm: []string{"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=" + k.tokens},
		kcat: kcatFile(t, folder, map[string]string{
			"bootstrap.servers": s.Bootstrap("tokens"), "security.protocol": "SASL_SSL", "ssl.ca.location": trust, "sasl.mechanism": "OAUTHBEARER",
			"sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.client.id": id, "sasl.oauthbearer.client.secret": secret, "sasl.oauthbearer.token.endpoint.url": k.tokens, "https.ca.location": issuer,
		}),
		java: javaFile(t, folder, map[string]string{
			"bootstrap.servers": s.Bootstrap("tokens"), "security.protocol": "SASL_SSL", "ssl.truststore.type": "PEM", "ssl.truststore.location": trust, "sasl.mechanism": "OAUTHBEARER",
			"sasl.login.callback.handler.class": "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler", "sasl.oauthbearer.token.endpoint.url": k.tokens,
			"sasl.jaas.config": fmt.Sprintf(`org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId=%q clientSecret=%q ssl.truststore.type="PEM" ssl.truststore.location=%q;`, id, secret, issuer),
		}),
	}
}
