package layout

import (
	"fmt"
	"path"
	"slices"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Authenticated is layout 1 with what it cannot render: clients that authenticate, a
// listener's own certificate, super users of the cluster. It is another number because a
// supervisor that knows only layout 1 would open such a listener to everybody.
const Authenticated int32 = 2

// Of is the layout that a process needs.
func Of(p api.ProcessSpec) int32 {
	if len(p.SuperUsers) > 0 || slices.ContainsFunc(p.Listeners, beyondFirst) {
		return Authenticated
	}
	return Current
}

// Known says whether this castellan renders a layout.
func Known(layout int32) bool { return layout == Current || layout == Authenticated }

func beyondFirst(l api.NodeListener) bool {
	return authenticates(l) || l.OwnCertificate || sasl(l)
}

func authenticates(l api.NodeListener) bool {
	return l.Authentication != "" && l.Authentication != api.AuthenticationNone
}

func sasl(l api.NodeListener) bool { return strings.HasPrefix(l.Protocol, "SASL_") }

// Secured says whether a security protocol of Kafka is encrypted.
func Secured(protocol string) bool { return protocol == "SSL" || protocol == "SASL_SSL" }

// KeyClientsCAPEM is the key of a node's Secret with every CA whose certificates clients may
// show on listeners with MutualTLS.
const KeyClientsCAPEM = "clients-ca.pem"

// CertificateKey of a node's Secret is a listener's own private key and certificate chain.
func CertificateKey(listener string) string { return "listener." + listener + ".pem" }

// UsersKey of a node's Secret are the users of a listener with Plain: .properties of
// user=password.
func UsersKey(listener string) string { return "listener." + listener + ".users" }

// OAuthCAKey of a node's Secret is the CA of the OpenID provider of a listener.
func OAuthCAKey(listener string) string { return "listener." + listener + ".oauth-ca.pem" }

// SecretKeys are the keys that a node's Secret must have before a process can start.
func SecretKeys(p api.ProcessSpec, roles []api.Role) []string {
	keys := []string{KeyNodePEM, KeyCAPEM}
	if !slices.Contains(roles, api.RoleBroker) {
		return keys
	}
	for _, l := range p.Listeners {
		if l.OwnCertificate {
			keys = append(keys, CertificateKey(l.Name))
		}
		switch {
		case l.Authentication == api.AuthenticationMutualTLS && !slices.Contains(keys, KeyClientsCAPEM):
			keys = append(keys, KeyClientsCAPEM)
		case l.Authentication == api.AuthenticationPlain:
			keys = append(keys, UsersKey(l.Name))
		case l.OAuth != nil && l.OAuth.OwnCA:
			keys = append(keys, OAuthCAKey(l.Name))
		}
	}
	return keys
}

// ClientRules map certificates of clients to principals: CN=<name> alone is User:<name>.
// Every other subject, and a name with what RFC 2253 escapes, stays whole and so begins with
// an attribute's name.
func ClientRules() string { return `RULE:^CN=([^,+\\]+)$/$1/,DEFAULT` }

// OwnPrincipal says whether a name is one of Castellan's own, that no client may have.
func OwnPrincipal(name string) bool { return name == NodePrincipal || name == OperatorPrincipal }

// SuperUsersOf are all super users of a process.
func SuperUsersOf(p api.ProcessSpec) string {
	return strings.Join(append([]string{SuperUsers()}, p.SuperUsers...), ";")
}

// reauthentication ends sessions whose token has expired, an hour after it was shown at most.
const reauthentication = "3600000"

// addAuthenticationDefaults are what a user's own keys of a listener may replace.
func addAuthenticationDefaults(properties map[string]string, l api.NodeListener, f Facts) {
	if !authenticates(l) {
		return
	}
	properties[listenerKey(l, "principal.builder.class")] = f.PrincipalBuilder
	if l.Authentication == api.AuthenticationMutualTLS {
		properties[listenerKey(l, "ssl.principal.mapping.rules")] = ClientRules()
	}
	if l.Authentication == api.AuthenticationOAuth {
		properties[listenerKey(l, "oauthbearer.connections.max.reauth.ms")] = reauthentication
	}
}

// addAuthentication sets what lets clients in at a listener. No secret stands here: passwords
// and keys are in files of TLSDir, which are read again when they change.
func addAuthentication(properties map[string]string, l api.NodeListener, f Facts) error {
	set := func(key, value string) { properties[listenerKey(l, key)] = value }
	file := func(key string) string { return path.Join(f.TLSDir, key) }
	if l.OwnCertificate {
		set("ssl.keystore.location", file(CertificateKey(l.Name)))
	}
	switch l.Authentication {
	case "", api.AuthenticationNone:
		if sasl(l) {
			return fmt.Errorf("listener %s has protocol %s, but no way to authenticate: the plan must give it one", l.Name, l.Protocol)
		}
	case api.AuthenticationMutualTLS:
		set("ssl.client.auth", "required")
		set("ssl.truststore.location", file(KeyClientsCAPEM))
	case api.AuthenticationScramSha512:
		set("sasl.enabled.mechanisms", "SCRAM-SHA-512")
		set("scram-sha-512.sasl.jaas.config", jaas("scram.ScramLoginModule"))
	case api.AuthenticationPlain:
		set("sasl.enabled.mechanisms", "PLAIN")
		set("plain.sasl.jaas.config", jaas("plain.PlainLoginModule", "castellan_users", file(UsersKey(l.Name))))
		set("plain.sasl.server.callback.handler.class", f.PlainUsers)
	case api.AuthenticationOAuth:
		return addOAuth(l, f, set)
	default:
		return fmt.Errorf("listener %s authenticates clients by %s, which this castellan does not know: run the one that wrote %s, or a newer one", l.Name, l.Authentication, StaticFile)
	}
	return nil
}

func addOAuth(l api.NodeListener, f Facts, set func(key, value string)) error {
	if l.OAuth == nil {
		return fmt.Errorf("listener %s has OAuth, but not whose tokens it takes: the plan must say so", l.Name)
	}
	var options []string
	if l.OAuth.OwnCA {
		options = []string{"ssl.truststore.type", "PEM", "ssl.truststore.location", path.Join(f.TLSDir, OAuthCAKey(l.Name))}
	}
	set("sasl.enabled.mechanisms", "OAUTHBEARER")
	set("oauthbearer.sasl.jaas.config", jaas("oauthbearer.OAuthBearerLoginModule", options...))
	set("oauthbearer.sasl.server.callback.handler.class", f.OAuth)
	set("oauthbearer.sasl.login.callback.handler.class", f.OAuthLogin)
	set("sasl.oauthbearer.jwks.endpoint.url", l.OAuth.JWKSURL)
	set("sasl.oauthbearer.expected.issuer", l.OAuth.Issuer)
	if len(l.OAuth.Audiences) > 0 {
		set("sasl.oauthbearer.expected.audience", strings.Join(l.OAuth.Audiences, ","))
	}
	if l.OAuth.PrincipalClaim != "" {
		set("sasl.oauthbearer.sub.claim.name", l.OAuth.PrincipalClaim)
	}
	if l.OAuth.ScopeClaim != "" {
		set("sasl.oauthbearer.scope.claim.name", l.OAuth.ScopeClaim)
	}
	return nil
}

// jaas is one entry of sasl.jaas.config; options alternate name and value.
func jaas(module string, options ...string) string {
	var text strings.Builder
	text.WriteString("org.apache.kafka.common.security." + module + " required")
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for i := 0; i+1 < len(options); i += 2 {
		text.WriteString(" " + options[i] + `="` + quote.Replace(options[i+1]) + `"`)
	}
	return text.String() + ";"
}

// AllowedURLs is the system property with the addresses that OAuth may ask (from 3.9.1 on;
// since 4.0 it may ask no other).
const AllowedURLs = "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="

// oauthOptions let the virtual machine ask the providers of its listeners.
func oauthOptions(s Static) []string {
	if !HasRole(s, api.RoleBroker) {
		return nil
	}
	var urls []string
	for _, l := range s.Process.Listeners {
		if l.OAuth != nil && !slices.Contains(urls, l.OAuth.JWKSURL) {
			urls = append(urls, l.OAuth.JWKSURL)
		}
	}
	if len(urls) == 0 {
		return nil
	}
	return []string{AllowedURLs + strings.Join(urls, ",")}
}
