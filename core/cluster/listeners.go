package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

// listeners checks names, ports and how clients prove who they are. Any name is a client's:
// those of Castellan's own listeners differ in Kafka (layout.KafkaListenerName).
func (r *resolver) listeners() {
	byPort := map[int32]string{}
	byName := map[string]bool{}
	for i, l := range r.spec.Listeners {
		path := fmt.Sprintf("spec.listeners[%d]", i)
		if byName[l.Name] {
			r.fail(path+".name", fmt.Sprintf("there are two listeners named %s", l.Name), "give each its own name")
		}
		byName[l.Name] = true
		if r.kubernetes {
			r.podPort(path+".port", l.Port)
		} else if owner, preferred := preferredPort(l.Port); preferred {
			r.warn(path+".port", fmt.Sprintf("port %d is preferred by the listener %s of Castellan itself: where both meet on a host, this one gets a port of the host's range", l.Port, owner), "use another port, for example 9092")
		}
		if other, taken := byPort[l.Port]; taken {
			r.fail(path+".port", fmt.Sprintf("port %d is already used by listener %s", l.Port, other), "give each listener a port of its own")
		} else {
			byPort[l.Port] = l.Name
		}
		r.authentication(path, l)
		r.listenerKeys(l)
	}
	r.authorization()
}

// preferredPort names the listener of Castellan itself that prefers a port.
func preferredPort(port int32) (string, bool) {
	switch port {
	case layout.ControllerPort:
		return layout.ControllerListener, true
	case layout.InternalPort:
		return layout.InternalListener, true
	default:
		return "", false
	}
}

// authentication checks the union, and what each of its members needs.
func (r *resolver) authentication(path string, l api.Listener) {
	at := path + ".authentication"
	r.members(path, l)
	const encrypt = "set tls: {} for a certificate of the cluster's CA, or tls.secretRef for one's own"
	switch a := l.Authentication; a.Type {
	case "", api.AuthenticationNone:
		r.anonymous(at, l)
	case api.AuthenticationMutualTLS:
		if l.TLS == nil {
			r.fail(path+".tls", "MutualTLS is a part of TLS, and the listener has none", encrypt)
		}
	case api.AuthenticationScramSha512:
		if l.TLS == nil {
			r.warn(path+".tls", "without TLS whoever listens can read all records, and try passwords against the SCRAM exchange at leisure", encrypt)
		}
	case api.AuthenticationPlain:
		r.plain(path, l, encrypt)
	case api.AuthenticationOAuth:
		if l.TLS == nil {
			r.fail(path+".tls", "without TLS whoever listens can use the tokens that clients show", encrypt)
		}
		r.oauth(at, a.OAuth)
	default:
		r.fail(at+".type", fmt.Sprintf("there is no authentication %q", a.Type), "use None, MutualTLS, ScramSha512, OAuth or Plain")
	}
}

// members checks that only those of its type are set.
func (r *resolver) members(path string, l api.Listener) {
	a, at := l.Authentication, path+".authentication"
	if l.TLS != nil && l.TLS.SecretRef != nil && l.TLS.SecretRef.Name == "" {
		r.fail(path+".tls.secretRef.name", "no Secret is named", "name one with tls.crt and tls.key, or leave secretRef out for a certificate of the cluster's CA")
	}
	if a.OAuth != nil && a.Type != api.AuthenticationOAuth {
		r.fail(at+".oauth", "it goes with type OAuth, and the type is "+typeOf(a), "set type: OAuth, or remove it")
	}
	if a.Plain != nil && a.Type != api.AuthenticationPlain {
		r.fail(at+".plain", "it goes with type Plain, and the type is "+typeOf(a), "set type: Plain, or remove it")
	}
}

func typeOf(a api.Authentication) string {
	if a.Type == "" {
		return string(api.AuthenticationNone)
	}
	return string(a.Type)
}

func (r *resolver) acl() bool {
	return r.spec.Authorization != nil && r.spec.Authorization.Type == api.AuthorizationACL
}

// anonymous warns of a listener whose clients nobody knows beside rules about who may do what.
func (r *resolver) anonymous(path string, l api.Listener) {
	if r.acl() {
		r.warn(path, fmt.Sprintf("spec.authorization is ACL, and every client of listener %s is User:ANONYMOUS, who may do nothing that no ACL allows", l.Name),
			"choose how clients authenticate, for example ScramSha512, or give User:ANONYMOUS the ACLs that are meant for everybody")
	}
}

func (r *resolver) plain(path string, l api.Listener, encrypt string) {
	at := path + ".authentication"
	if l.Authentication.Plain == nil || l.Authentication.Plain.UsersSecretRef.Name == "" {
		r.fail(at+".plain.usersSecretRef", "nothing says who the users are", "name a Secret of this namespace whose keys are users and whose values are passwords")
	}
	r.warn(at+".type", "with Plain every broker sees the passwords of clients, and a Secret holds them all", "use ScramSha512 for clients that can")
	if l.TLS == nil {
		r.warn(path+".tls", "without TLS whoever listens can read the passwords of all clients", encrypt)
	}
}

// oauth checks what Kafka would only find at its start, and what it would never say.
func (r *resolver) oauth(path string, o *api.OAuthAuthentication) {
	if o == nil {
		r.fail(path+".oauth", "nothing says whose tokens are taken", "give at least jwksURL and issuer of the OpenID provider")
		return
	}
	path += ".oauth"
	r.jwks(path, o)
	if o.Issuer == "" {
		r.fail(path+".issuer", "without an issuer the tokens of anybody who shares the provider's keys would be taken", "give the issuer as it stands in the claim iss of a token (the issuer of the provider's /.well-known/openid-configuration)")
	}
	if len(o.Audiences) == 0 {
		r.warn(path+".audiences", "tokens that the issuer made for other services are taken too", "name the audience that clients ask tokens for (claim aud)")
	}
	for i, a := range o.Audiences {
		if strings.TrimSpace(a) != a || a == "" || strings.ContainsAny(a, ",\n") {
			r.fail(fmt.Sprintf("%s.audiences[%d]", path, i), fmt.Sprintf("Kafka cannot take %q as an audience", a), "give one without comma and outer blanks")
		}
	}
	for _, claim := range [][2]string{{"principalClaim", o.PrincipalClaim}, {"scopeClaim", o.ScopeClaim}} {
		if strings.TrimSpace(claim[1]) != claim[1] {
			r.fail(path+"."+claim[0], fmt.Sprintf("%q is no name of a claim", claim[1]), "remove the blanks")
		}
	}
	if o.CASecretRef != nil && o.CASecretRef.Name == "" {
		r.fail(path+".caSecretRef.name", "no Secret is named", "name one with ca.crt, or leave caSecretRef out")
	}
}

func (r *resolver) jwks(path string, o *api.OAuthAuthentication) {
	scheme, rest, ok := strings.Cut(o.JWKSURL, "://")
	host, _, _ := strings.Cut(rest, "/")
	switch {
	case !ok || host == "" || (scheme != "https" && scheme != "http") || strings.ContainsAny(o.JWKSURL, ", \t\r\n\"\\"):
		r.fail(path+".jwksURL", fmt.Sprintf("%q is no address that Kafka can ask", o.JWKSURL), "give the provider's jwks_uri, for example https://id.example.com/realms/main/protocol/openid-connect/certs")
	case scheme == "http":
		r.warn(path+".jwksURL", "without TLS whoever is between broker and provider can put in keys of their own, and let anybody in", "use the provider's https address")
		if o.CASecretRef != nil {
			r.fail(path+".caSecretRef", "jwksURL is not encrypted, so no CA is asked for", "use https, or remove caSecretRef")
		}
	}
}

// authorization checks who may do everything.
func (r *resolver) authorization() {
	if r.spec.Authorization == nil {
		return
	}
	switch r.spec.Authorization.Type {
	case "", api.AuthorizationNone, api.AuthorizationACL:
	default:
		r.fail("spec.authorization.type", fmt.Sprintf("there is no authorization %q", r.spec.Authorization.Type), "use None or ACL")
	}
	for i, user := range r.spec.Authorization.SuperUsers {
		path := fmt.Sprintf("spec.authorization.superUsers[%d]", i)
		name, ok := strings.CutPrefix(user, "User:")
		switch {
		case !ok || name == "" || strings.TrimSpace(user) != user || strings.ContainsAny(user, ";\n\r"):
			r.fail(path, fmt.Sprintf("Kafka cannot take %q as a super user", user), "write User:<name>, without semicolon and outer blanks")
		case layout.OwnPrincipal(name):
			r.fail(path, name+" is Castellan's own, and no client can be it", "remove it: nodes and operator are super users already")
		case name == "ANONYMOUS":
			r.warn(path, "whoever reaches a listener without authentication may do everything", "remove it, and let clients authenticate")
		}
	}
}

// superUsers in a stable order: to write them in another one is no reason to restart.
func (r *resolver) superUsers() []string {
	if r.spec.Authorization == nil || len(r.spec.Authorization.SuperUsers) == 0 {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(r.spec.Authorization.SuperUsers)))
}

// nodeListener is what of a listener stands in a node's process: not the names of Secrets,
// whose content is taken up while the node runs.
func nodeListener(l api.Listener) api.NodeListener {
	n := api.NodeListener{Name: l.Name, Protocol: "PLAINTEXT"}
	if l.TLS != nil {
		n.Protocol, n.OwnCertificate = "SSL", l.TLS.SecretRef != nil
	}
	switch a := l.Authentication; a.Type {
	case "", api.AuthenticationNone:
		return n // as it stood in a process before there was anything else
	case api.AuthenticationMutualTLS:
		n.Authentication = a.Type
	default:
		n.Authentication = a.Type
		n.Protocol = map[string]string{"PLAINTEXT": "SASL_PLAINTEXT", "SSL": "SASL_SSL"}[n.Protocol]
		if a.OAuth != nil {
			n.OAuth = &api.NodeOAuth{OAuthTokens: *a.OAuth.OAuthTokens.DeepCopy(), OwnCA: a.OAuth.CASecretRef != nil}
			slices.Sort(n.OAuth.Audiences)
		}
	}
	return n
}

// SecretsOf names the Secrets that listeners name.
func SecretsOf(listeners []api.Listener) []string {
	var names []string
	for _, l := range listeners {
		if l.TLS != nil && l.TLS.SecretRef != nil {
			names = append(names, l.TLS.SecretRef.Name)
		}
		if p := l.Authentication.Plain; p != nil {
			names = append(names, p.UsersSecretRef.Name)
		}
		if o := l.Authentication.OAuth; o != nil && o.CASecretRef != nil {
			names = append(names, o.CASecretRef.Name)
		}
	}
	return names
}

// listenerKeys refuses keys of a listener that follow from its authentication: one of the
// user's would be without effect, or let others in.
func (r *resolver) listenerKeys(l api.Listener) {
	n := nodeListener(l)
	bases := ownedBases(n)
	if len(bases) == 0 {
		return
	}
	prefix := "listener.name." + strings.ToLower(layout.KafkaListenerName(l.Name)) + "."
	r.eachConfig(func(path string, config api.Config) {
		for _, key := range slices.Sorted(maps.Keys(config)) {
			at := path + "[" + key + "]"
			rest, ofListener := strings.CutPrefix(key, prefix)
			switch {
			case ofListener && slices.ContainsFunc(bases, func(b string) bool { return rest == b || strings.HasSuffix(rest, "."+b) }),
				!ofListener && strings.HasPrefix(key, "sasl.oauthbearer.") && slices.Contains(bases, key):
				r.fail(at, fmt.Sprintf("%s follows from the authentication of listener %s", key, l.Name), "remove it; spec.listeners[].authentication governs it")
			case rest == "principal.builder.class":
				r.warn(at, fmt.Sprintf("Castellan's own class keeps clients of listener %s from being called like its super users %s and %s", l.Name, layout.NodePrincipal, layout.OperatorPrincipal), "remove it, or see that yours does the same")
			}
		}
	})
	r.allowedURLs(n)
}

// ownedBases are the keys, without the listener's prefix, that its authentication sets.
func ownedBases(n api.NodeListener) []string {
	switch n.Authentication {
	case api.AuthenticationMutualTLS:
		return []string{"ssl.client.auth"}
	case api.AuthenticationScramSha512:
		return []string{"sasl.jaas.config", "sasl.server.callback.handler.class"}
	case api.AuthenticationPlain:
		return []string{"sasl.jaas.config", "sasl.server.callback.handler.class"}
	case api.AuthenticationOAuth:
		return []string{
			"sasl.jaas.config", "sasl.server.callback.handler.class", "sasl.login.callback.handler.class", "sasl.oauthbearer.jwks.endpoint.url", "sasl.oauthbearer.expected.issuer",
			"sasl.oauthbearer.expected.audience", "sasl.oauthbearer.sub.claim.name", "sasl.oauthbearer.scope.claim.name",
		}
	default:
		return nil
	}
}

// allowedURLs refuses an option of the virtual machine that would replace Castellan's.
func (r *resolver) allowedURLs(n api.NodeListener) {
	if n.OAuth == nil {
		return
	}
	check := func(path string, options []string) {
		for i, o := range options {
			if strings.HasPrefix(o, layout.AllowedURLs) {
				r.fail(fmt.Sprintf("%s.jvm.options[%d]", path, i), "which addresses OAuth may ask follows from the listeners", "remove it; spec.listeners[].authentication.oauth.jwksURL governs it")
			}
		}
	}
	for i := range r.spec.Pools {
		p := &r.spec.Pools[i]
		check(fmt.Sprintf("spec.pools[%d]", i), p.JVM.Options)
		for j := range p.Overrides {
			if p.Overrides[j].JVM != nil {
				check(fmt.Sprintf("spec.pools[%d].overrides[%d]", i, j), p.Overrides[j].JVM.Options)
			}
		}
	}
}

// eachConfig visits every configuration of the spec.
func (r *resolver) eachConfig(visit func(path string, config api.Config)) {
	visit("spec.config", r.spec.Config)
	visit("spec.extraConfig", r.spec.ExtraConfig)
	for i := range r.spec.Pools {
		p := &r.spec.Pools[i]
		visit(fmt.Sprintf("spec.pools[%d].config", i), p.Config)
		for j := range p.Overrides {
			visit(fmt.Sprintf("spec.pools[%d].overrides[%d].config", i, j), p.Overrides[j].Config)
		}
	}
}
