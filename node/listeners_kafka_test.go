package node

import (
	"context"
	"crypto"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/packages/packagestest"
)

// outcome of a client that writes to a topic.
type outcome string

const (
	wrote    outcome = "wrote"
	denied   outcome = "denied"   // Kafka knows who it is, and says no
	stranger outcome = "stranger" // it does not get in
)

// Every way to authenticate at once on a real Kafka, with ACLs: each client may do exactly what
// an ACL says, nobody gets in by another way, and no client is a super user by its name. What
// changes in files is in force without a restart.
func TestListenersKnowTheirClients(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"4.3.1", "3.9.2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			l := newListeners(t, version)
			l.start()
			l.answer(l.until("question", 5*time.Minute, func(r layout.Report) bool { return r.Nonce != "" }).Nonce)
			ready := l.until("readiness", 5*time.Minute, func(r layout.Report) bool { return r.Ready })
			l.wantServed(digest(l.leaf))
			l.prepare()
			l.exactly()
			l.provider()
			l.tool()
			l.live()
			if now := l.report(); now.PID != ready.PID {
				t.Errorf("Kafka was restarted: pid %d, then %d", ready.PID, now.PID)
			}
			l.nothingSecret(ready.PID)
			l.stop()
			l.code(90 * time.Second)
		})
	}
}

// listeners is a bench with a listener of each kind.
type listeners struct {
	*bench
	clients, corporate *authority
	leaf               []byte // of the node
	id                 *issuer
}

const secretOfLegacy, secretOfScram = "legacy-Pa55\\word=ü", "scram-Pa55word"

func newListeners(t *testing.T, version string) *listeners {
	t.Helper()
	l := &listeners{bench: newBench(t, packagestest.RealKafka(t, version).Dir), clients: newAuthority(t), corporate: newAuthority(t)}
	l.id = newIssuer(t, l.corporate)
	p := &l.static.Process
	p.Version, p.Layout = version, layout.Authenticated
	p.Config["allow.everyone.if.no.acl.found"] = "false"
	p.SuperUsers = []string{"User:admin"}
	p.Listeners = []api.NodeListener{
		{Name: "certs", Protocol: "SSL", Authentication: api.AuthenticationMutualTLS},
		{Name: "idp", Protocol: "SASL_SSL", Authentication: api.AuthenticationOAuth, OAuth: &api.NodeOAuth{OwnCA: true, OAuthTokens: api.OAuthTokens{
			JWKSURL: l.id.server.URL + "/keys", Issuer: "https://id.example", Audiences: []string{"kafka"}, PrincipalClaim: "client_id",
		}}},
		{Name: "legacy", Protocol: "SASL_SSL", Authentication: api.AuthenticationPlain},
		{Name: "open", Protocol: "PLAINTEXT"},
		{Name: "own", Protocol: "SASL_SSL", Authentication: api.AuthenticationScramSha512, OwnCertificate: true},
	}
	ports := freePorts(t, len(p.Listeners))
	for i, listener := range p.Listeners {
		l.static.Ports[listener.Name] = ports[i]
	}
	text, der := l.ca.leaf(t, layout.NodePrincipal+"-1", 7)
	l.leaf = der
	l.file(layout.KeyNodePEM, text)
	l.file(layout.KeyClientsCAPEM, l.clients.pem)
	l.file(layout.OAuthCAKey("idp"), l.corporate.pem)
	l.file(layout.UsersKey("legacy"), string(kconf.Write(map[string]string{"legacy": secretOfLegacy, "castellan-operator": "x"})))
	own, _ := l.corporate.leafOf(t, pkix.Name{CommonName: "kafka.example"}, 8)
	l.file(layout.CertificateKey("own"), own)
	return l
}

func (l *listeners) file(key, content string) {
	l.t.Helper()
	replace(l.t, filepath.Join(l.dir, layout.TLSDir, key), content)
}

// prepare makes two topics, the SCRAM users, and an ACL for each client on one of the topics.
func (l *listeners) prepare() {
	l.t.Helper()
	l.createTopic("orders")
	l.createTopic("secret")
	l.scramUser("scram", secretOfScram)
	l.scramUser("admin", secretOfScram)
	l.scramUser("castellan-operator", secretOfScram)
	request := kmsg.NewPtrCreateACLsRequest()
	for _, principal := range []string{"User:alice", `User:CN=bob,O=example`, "User:scram", "User:legacy", "User:later", "User:service"} {
		for _, operation := range []kmsg.ACLOperation{kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe} {
			acl := kmsg.NewCreateACLsRequestCreation()
			acl.ResourceType, acl.ResourceName, acl.ResourcePatternType = kmsg.ACLResourceTypeTopic, "orders", kmsg.ACLResourcePatternTypeLiteral
			acl.Principal, acl.Host, acl.Operation, acl.PermissionType = principal, "*", operation, kmsg.ACLPermissionTypeAllow
			request.Creations = append(request.Creations, acl)
		}
	}
	response, err := ask[*kmsg.CreateACLsResponse](l.bench, l.operator(), request)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, r := range response.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *listeners) operator() []kgo.Opt {
	return l.clientOf(layout.InternalListener, &pkix.Name{CommonName: layout.OperatorPrincipal, Organization: []string{"castellan"}})
}

func (l *listeners) scramUser(name, password string) {
	l.t.Helper()
	const iterations = 4096
	salt := []byte("salt of " + name)
	salted, err := pbkdf2.Key(sha512.New, password, salt, iterations, sha512.Size)
	if err != nil {
		l.t.Fatal(err)
	}
	request := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	upsert := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
	upsert.Name, upsert.Mechanism, upsert.Iterations, upsert.Salt, upsert.SaltedPassword = name, 2, iterations, salt, salted
	request.Upsertions = append(request.Upsertions, upsert)
	response, err := ask[*kmsg.AlterUserSCRAMCredentialsResponse](l.bench, l.operator(), request)
	if err == nil {
		err = kerr.ErrorForCode(response.Results[0].ErrorCode)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// at are the options of a client of a listener; nil is no certificate, no mechanism.
func (l *listeners) at(listener string, from *authority, subject *pkix.Name, mechanism sasl.Mechanism) []kgo.Opt {
	l.t.Helper()
	opts := []kgo.Opt{
		kgo.SeedBrokers(fmt.Sprintf("127.0.0.1:%d", l.static.Ports[listener])), kgo.DisableClientMetrics(), kgo.DisableIdempotentWrite(),
		kgo.RequestRetries(1), kgo.RecordRetries(1), kgo.RecordDeliveryTimeout(time.Minute),
	}
	if listener != "open" {
		trust := x509.NewCertPool()
		trust.AppendCertsFromPEM([]byte(l.ca.pem))
		if listener == "own" {
			trust = x509.NewCertPool()
			trust.AppendCertsFromPEM([]byte(l.corporate.pem))
		}
		config := &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12, ServerName: "127.0.0.1"}
		if subject != nil {
			text, _ := from.leafOf(l.t, *subject, 99)
			pair, err := tls.X509KeyPair([]byte(text), []byte(text))
			if err != nil {
				l.t.Fatal(err)
			}
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		opts = append(opts, kgo.DialTLSConfig(config))
	}
	if mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	return opts
}

// writes tells what becomes of one record.
func (l *listeners) writes(opts []kgo.Opt, topic string) (outcome, error) {
	l.t.Helper()
	client, err := kgo.NewClient(opts...)
	if err != nil {
		l.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(l.t.Context(), 2*time.Minute)
	defer cancel()
	// Who does not get in has no answer to this.
	if _, err := client.SeedBrokers()[0].Request(ctx, kmsg.NewPtrMetadataRequest()); err != nil {
		return stranger, err
	}
	// A loaded machine lets the broker miss its heartbeats now and then: then no partition has a leader for a moment.
	for {
		err = client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr()
		if !errors.Is(err, kerr.LeaderNotAvailable) && !errors.Is(err, kerr.NotLeaderForPartition) || ctx.Err() != nil {
			break
		}
	}
	switch {
	case err == nil:
		return wrote, nil
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return denied, err
	default:
		return "failed", err
	}
}

// soon waits for a fact that takes some connections to see.
func (l *listeners) soon(what string, fact func() bool) {
	l.t.Helper()
	l.until(what, 3*time.Minute, func(layout.Report) bool { return fact() })
}

func user(name, password string) sasl.Mechanism { //nolint:ireturn // franz-go has no other type of it
	return scram.Auth{User: name, Pass: password}.AsSha512Mechanism()
}

func legacy(name, password string) sasl.Mechanism { //nolint:ireturn // franz-go has no other type of it
	return plain.Auth{User: name, Pass: password}.AsMechanism()
}

func (l *listeners) exactly() {
	l.t.Helper()
	named := func(cn string, organizations ...string) *pkix.Name {
		return &pkix.Name{CommonName: cn, Organization: organizations}
	}
	for _, tt := range []struct {
		reason         string
		opts           []kgo.Opt
		orders, secret outcome
	}{
		{"nobody", l.at("open", nil, nil, nil), denied, denied},
		{"a certificate", l.at("certs", l.clients, named("alice"), nil), wrote, denied},
		{"a certificate with more than a name", l.at("certs", l.clients, named("bob", "example"), nil), wrote, denied},
		{"a certificate that nobody knows", l.at("certs", l.clients, named("carol"), nil), denied, denied},
		{"a certificate like the operator's", l.at("certs", l.clients, named("castellan-operator"), nil), denied, denied},
		{"a certificate of the cluster's CA", l.at("certs", l.ca, named("alice"), nil), stranger, ""},
		{"the operator's own certificate", l.at("certs", l.ca, named("castellan-operator", "castellan"), nil), stranger, ""},
		{"no certificate", l.at("certs", nil, nil, nil), stranger, ""},
		{"a client's certificate at INTERNAL", l.at(layout.InternalListener, l.clients, named("castellan-operator", "castellan"), nil), stranger, ""},
		{"a password of SCRAM", l.at("own", nil, nil, user("scram", secretOfScram)), wrote, denied},
		{"a super user", l.at("own", nil, nil, user("admin", secretOfScram)), wrote, wrote},
		{"a SCRAM user like the operator", l.at("own", nil, nil, user("castellan-operator", secretOfScram)), denied, denied},
		{"a wrong password of SCRAM", l.at("own", nil, nil, user("scram", "x")), stranger, ""},
		{"another mechanism", l.at("own", nil, nil, legacy("legacy", secretOfLegacy)), stranger, ""},
		{"no mechanism", l.at("own", nil, nil, nil), stranger, ""},
		{"a password of Plain", l.at("legacy", nil, nil, legacy("legacy", secretOfLegacy)), wrote, denied},
		{"a Plain user like the operator", l.at("legacy", nil, nil, legacy("castellan-operator", "x")), denied, denied},
		{"a wrong password of Plain", l.at("legacy", nil, nil, legacy("legacy", "x")), stranger, ""},
		{"a user that Plain does not know", l.at("legacy", nil, nil, legacy("scram", secretOfScram)), stranger, ""},
	} {
		l.want(tt.reason, tt.opts, tt.orders, tt.secret)
	}
}

// want tries both topics; who does not get in is tried once.
func (l *listeners) want(reason string, opts []kgo.Opt, orders, secret outcome) {
	l.t.Helper()
	for _, topic := range []struct {
		name string
		want outcome
	}{{"orders", orders}, {"secret", secret}} {
		if topic.want == "" {
			continue
		}
		if got, err := l.writes(opts, topic.name); got != topic.want {
			l.t.Errorf("%s, topic %s: %s (%v), want %s", reason, topic.name, got, err, topic.want)
		}
	}
}

// provider: a broker that started while the provider did not answer lets nobody in, and takes
// tokens as soon as it does.
func (l *listeners) provider() {
	l.t.Helper()
	good := map[string]any{"iss": "https://id.example", "aud": "kafka", "client_id": "service", "sub": "someone", "scope": "x"}
	with := func(claim string, value any) sasl.Mechanism {
		claims := maps.Clone(good)
		claims[claim] = value
		return oauth.Auth{Token: l.id.token(l.t, claims)}.AsMechanism()
	}
	service := l.at("idp", nil, nil, with("sub", "someone"))
	l.want("a token while the provider is silent", service, stranger, "")
	l.id.answers.Store(true)
	l.soon("client with a token let in", func() bool {
		got, _ := l.writes(service, "orders")
		return got == wrote
	})
	l.want("a token", service, wrote, denied)
	l.want("a token of somebody else", l.at("idp", nil, nil, with("client_id", "other")), denied, denied)
	l.want("a token like the operator's", l.at("idp", nil, nil, with("client_id", "castellan-operator")), denied, denied)
	l.want("a token for another service", l.at("idp", nil, nil, with("aud", "mail")), stranger, "")
	l.want("a token of another issuer", l.at("idp", nil, nil, with("iss", "https://evil.example")), stranger, "")
	l.want("a token that has ended", l.at("idp", nil, nil, with("exp", time.Now().Add(-time.Hour).Unix())), stranger, "")
	forger := newIssuer(l.t, l.corporate)
	forged := oauth.Auth{Token: forger.token(l.t, good)}.AsMechanism()
	l.want("a token that somebody else signed", l.at("idp", nil, nil, forged), stranger, "")
}

// tool is Kafka's own: it sees the topics that its user may describe, and no other.
func (l *listeners) tool() {
	l.t.Helper()
	dir := l.t.TempDir()
	trust := filepath.Join(dir, "ca.pem")
	replace(l.t, trust, l.corporate.pem)
	config := filepath.Join(dir, "client.properties")
	replace(l.t, config, string(kconf.Write(map[string]string{
		"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "ssl.truststore.type": "PEM", "ssl.truststore.location": trust,
		"sasl.jaas.config": fmt.Sprintf("org.apache.kafka.common.security.scram.ScramLoginModule required username=scram password=%q;", secretOfScram),
	})))
	ctx, cancel := context.WithTimeout(l.t.Context(), 5*time.Minute)
	defer cancel()
	topics := exec.CommandContext(ctx, "java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(l.config.Archive, "libs", "*"),
		"org.apache.kafka.tools.TopicCommand", "--bootstrap-server", fmt.Sprintf("127.0.0.1:%d", l.static.Ports["own"]), "--command-config", config, "--list")
	out, err := topics.Output()
	if got := strings.Fields(string(out)); err != nil || !slices.Equal(got, []string{"orders"}) {
		l.t.Errorf("Kafka's tool lists %v, error %v", got, err)
	}
}

// live changes what stands in files.
func (l *listeners) live() {
	l.t.Helper()
	later := l.at("legacy", nil, nil, legacy("later", "later-Pa55word"))
	l.want("a user of Plain before there is one", later, stranger, "")
	l.file(layout.UsersKey("legacy"), string(kconf.Write(map[string]string{"later": "later-Pa55word"})))
	l.soon("new user of Plain let in", func() bool { got, _ := l.writes(later, "orders"); return got == wrote })
	l.want("a user of Plain that was removed", l.at("legacy", nil, nil, legacy("legacy", secretOfLegacy)), stranger, "")

	other := newAuthority(l.t)
	l.file(layout.KeyClientsCAPEM, other.pem)
	l.soon("certificate of another clients CA", func() bool {
		got, _ := l.writes(l.at("certs", other, &pkix.Name{CommonName: "alice"}, nil), "orders")
		return got == wrote
	})
	l.want("a certificate of the clients CA before", l.at("certs", l.clients, &pkix.Name{CommonName: "alice"}, nil), stranger, "")

	l.corporate = newAuthority(l.t)
	own, _ := l.corporate.leafOf(l.t, pkix.Name{CommonName: "kafka.example"}, 9)
	l.file(layout.CertificateKey("own"), own)
	l.soon("another certificate of a listener's own", func() bool {
		got, _ := l.writes(l.at("own", nil, nil, user("scram", secretOfScram)), "orders")
		return got == wrote
	})
	l.wantServed(digest(l.leaf))
}

// nothingSecret looks for passwords where they do not belong.
func (l *listeners) nothingSecret(pid int32) {
	l.t.Helper()
	var texts []string
	for _, file := range []string{filepath.Join(l.dir, layout.PropertiesFile), filepath.Join(l.dir, layout.StaticFile), filepath.Join(l.dir, layout.LogDir, layout.ServerLog), fmt.Sprintf("/proc/%d/cmdline", pid)} {
		text, err := os.ReadFile(file)
		if err != nil {
			l.t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	for _, secret := range []string{"legacy-Pa55", secretOfScram, "later-Pa55", "PRIVATE KEY"} {
		for i, text := range texts {
			if strings.Contains(text, secret) {
				l.t.Errorf("text %d holds %q", i, secret)
			}
		}
	}
}

// issuer is an OpenID provider as far as a broker asks it: its keys, over TLS.
type issuer struct {
	key     *rsa.PrivateKey
	server  *httptest.Server
	answers atomic.Bool
}

func newIssuer(t *testing.T, ca *authority) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	i.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !i.answers.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		encode := base64.RawURLEncoding.EncodeToString
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256", "n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes()),
		}}})
	}))
	text, _ := ca.leafOf(t, pkix.Name{CommonName: "id.example"}, 10)
	pair, err := tls.X509KeyPair([]byte(text), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	i.server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	i.server.StartTLS()
	t.Cleanup(i.server.Close)
	return i
}

// token is a JWT (RFC 7519) that lives for an hour, if the claims do not say otherwise.
func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	part := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	text := part(map[string]string{"alg": "RS256", "kid": "one", "typ": "JWT"}) + "." + part(all)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}
