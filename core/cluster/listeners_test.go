package cluster_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
)

func scram(name string, port int32) api.Listener {
	return api.Listener{Name: name, Port: port, TLS: &api.ListenerTLS{}, Authentication: api.Authentication{Type: api.AuthenticationScramSha512}}
}

func mutualTLS(name string, port int32) api.Listener {
	return api.Listener{Name: name, Port: port, TLS: &api.ListenerTLS{}, Authentication: api.Authentication{Type: api.AuthenticationMutualTLS}}
}

func plain(name string, port int32) api.Listener {
	return api.Listener{Name: name, Port: port, TLS: &api.ListenerTLS{}, Authentication: api.Authentication{
		Type: api.AuthenticationPlain, Plain: &api.PlainAuthentication{UsersSecretRef: api.SecretRef{Name: "users"}},
	}}
}

func oauth(name string, port int32) api.Listener {
	return api.Listener{Name: name, Port: port, TLS: &api.ListenerTLS{}, Authentication: api.Authentication{
		Type: api.AuthenticationOAuth, OAuth: &api.OAuthAuthentication{OAuthTokens: api.OAuthTokens{
			JWKSURL: "https://id.example/keys", Issuer: "https://id.example", Audiences: []string{"kafka"},
		}},
	}}
}

const plainWarning = "Warning spec.listeners[0].authentication.type: with Plain every broker sees the passwords of clients, and a Secret holds them all; use ScramSha512 for clients that can"

func TestListenerProblems(t *testing.T) {
	for reason, tt := range map[string]struct {
		listeners []api.Listener
		spoil     func(*api.KafkaClusterSpec)
		want      []string
	}{
		"every way at once": {
			[]api.Listener{mutualTLS("a", 9092), scram("b", 9093), oauth("c", 9094)},
			func(s *api.KafkaClusterSpec) {
				s.Authorization = &api.Authorization{Type: api.AuthorizationACL, SuperUsers: []string{"User:admin", "User:CN=root,O=example"}}
			},
			nil,
		},
		"Plain": {[]api.Listener{plain("a", 9092)}, nil, []string{plainWarning}},
		"nothing is encrypted": {
			[]api.Listener{mutualTLS("a", 9092), scram("b", 9093), oauth("c", 9094)},
			func(s *api.KafkaClusterSpec) {
				for i := range s.Listeners {
					s.Listeners[i].TLS = nil
				}
			},
			[]string{
				"Error spec.listeners[0].tls: MutualTLS is a part of TLS, and the listener has none; set tls: {} for a certificate of the cluster's CA, or tls.secretRef for one's own",
				"Warning spec.listeners[1].tls: without TLS whoever listens can read all records, and try passwords against the SCRAM exchange at leisure; set tls: {} for a certificate of the cluster's CA, or tls.secretRef for one's own",
				"Error spec.listeners[2].tls: without TLS whoever listens can use the tokens that clients show; set tls: {} for a certificate of the cluster's CA, or tls.secretRef for one's own",
			},
		},
		"Plain that is not encrypted, without users": {
			[]api.Listener{plain("a", 9092)},
			func(s *api.KafkaClusterSpec) { s.Listeners[0].TLS, s.Listeners[0].Authentication.Plain = nil, nil },
			[]string{
				"Error spec.listeners[0].authentication.plain.usersSecretRef: nothing says who the users are; name a Secret of this namespace whose keys are users and whose values are passwords",
				plainWarning,
				"Warning spec.listeners[0].tls: without TLS whoever listens can read the passwords of all clients; set tls: {} for a certificate of the cluster's CA, or tls.secretRef for one's own",
			},
		},
		"members of another type": {
			[]api.Listener{scram("a", 9092)},
			func(s *api.KafkaClusterSpec) {
				s.Listeners[0].Authentication = api.Authentication{OAuth: &api.OAuthAuthentication{}, Plain: &api.PlainAuthentication{}}
				s.Listeners[0].TLS.SecretRef = &api.SecretRef{}
			},
			[]string{
				"Error spec.listeners[0].tls.secretRef.name: no Secret is named; name one with tls.crt and tls.key, or leave secretRef out for a certificate of the cluster's CA",
				"Error spec.listeners[0].authentication.oauth: it goes with type OAuth, and the type is None; set type: OAuth, or remove it",
				"Error spec.listeners[0].authentication.plain: it goes with type Plain, and the type is None; set type: Plain, or remove it",
			},
		},
		"a type that does not exist": {
			[]api.Listener{scram("a", 9092)},
			func(s *api.KafkaClusterSpec) {
				s.Listeners[0].Authentication.Type = "Kerberos"
				s.Authorization = &api.Authorization{Type: "RBAC"}
			},
			[]string{
				`Error spec.listeners[0].authentication.type: there is no authentication "Kerberos"; use None, MutualTLS, ScramSha512, OAuth or Plain`,
				`Error spec.authorization.type: there is no authorization "RBAC"; use None or ACL`,
			},
		},
		"OAuth of nobody": {
			[]api.Listener{oauth("a", 9092)},
			func(s *api.KafkaClusterSpec) { s.Listeners[0].Authentication.OAuth = nil },
			[]string{"Error spec.listeners[0].authentication.oauth: nothing says whose tokens are taken; give at least jwksURL and issuer of the OpenID provider"},
		},
		"OAuth without issuer and audience, in clear text": {
			[]api.Listener{oauth("a", 9092)},
			func(s *api.KafkaClusterSpec) {
				o := s.Listeners[0].Authentication.OAuth
				o.JWKSURL, o.Issuer, o.Audiences, o.ScopeClaim = "http://id.example/keys", "", nil, " scp"
				o.CASecretRef = &api.SecretRef{Name: "ca"}
			},
			[]string{
				"Warning spec.listeners[0].authentication.oauth.jwksURL: without TLS whoever is between broker and provider can put in keys of their own, and let anybody in; use the provider's https address",
				"Error spec.listeners[0].authentication.oauth.caSecretRef: jwksURL is not encrypted, so no CA is asked for; use https, or remove caSecretRef",
				"Error spec.listeners[0].authentication.oauth.issuer: without an issuer the tokens of anybody who shares the provider's keys would be taken; give the issuer as it stands in the claim iss of a token (the issuer of the provider's /.well-known/openid-configuration)",
				"Warning spec.listeners[0].authentication.oauth.audiences: tokens that the issuer made for other services are taken too; name the audience that clients ask tokens for (claim aud)",
				`Error spec.listeners[0].authentication.oauth.scopeClaim: " scp" is no name of a claim; remove the blanks`,
			},
		},
		"OAuth with an address that would open others": {
			[]api.Listener{oauth("a", 9092)},
			func(s *api.KafkaClusterSpec) {
				o := s.Listeners[0].Authentication.OAuth
				o.JWKSURL, o.Audiences = "https://id.example/keys,http://evil.example", []string{"a,b"}
			},
			[]string{
				`Error spec.listeners[0].authentication.oauth.jwksURL: "https://id.example/keys,http://evil.example" is no address that Kafka can ask; give the provider's jwks_uri, for example https://id.example.com/realms/main/protocol/openid-connect/certs`,
				`Error spec.listeners[0].authentication.oauth.audiences[0]: Kafka cannot take "a,b" as an audience; give one without comma and outer blanks`,
			},
		},
		"ACLs and clients without a name": {
			[]api.Listener{scram("a", 9092), {Name: "b", Port: 9093}},
			func(s *api.KafkaClusterSpec) { s.Authorization = &api.Authorization{Type: api.AuthorizationACL} },
			[]string{"Warning spec.listeners[1].authentication: spec.authorization is ACL, and every client of listener b is User:ANONYMOUS, who may do nothing that no ACL allows; choose how clients authenticate, for example ScramSha512, or give User:ANONYMOUS the ACLs that are meant for everybody"},
		},
		"super users": {
			nil,
			func(s *api.KafkaClusterSpec) {
				s.Authorization = &api.Authorization{Type: api.AuthorizationACL, SuperUsers: []string{"admin", "User:a;User:b", "User:castellan-operator", "User:ANONYMOUS"}}
			},
			[]string{
				`Error spec.authorization.superUsers[0]: Kafka cannot take "admin" as a super user; write User:<name>, without semicolon and outer blanks`,
				`Error spec.authorization.superUsers[1]: Kafka cannot take "User:a;User:b" as a super user; write User:<name>, without semicolon and outer blanks`,
				"Error spec.authorization.superUsers[2]: castellan-operator is Castellan's own, and no client can be it; remove it: nodes and operator are super users already",
				"Warning spec.authorization.superUsers[3]: whoever reaches a listener without authentication may do everything; remove it, and let clients authenticate",
			},
		},
		"keys that follow from the authentication": {
			[]api.Listener{oauth("a-b", 9092), scram("c", 9093)},
			func(s *api.KafkaClusterSpec) {
				s.Config = api.Config{"listener.name.a_b.oauthbearer.sasl.oauthbearer.expected.issuer": "x", "sasl.oauthbearer.expected.audience": "y"}
				s.Pools[0].Config = api.Config{"listener.name.c.scram-sha-512.sasl.server.callback.handler.class": "z", "listener.name.c.principal.builder.class": "z"}
				s.Pools[0].JVM.Options = []string{"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=https://evil.example"}
			},
			[]string{
				"Error spec.config[listener.name.a_b.oauthbearer.sasl.oauthbearer.expected.issuer]: listener.name.a_b.oauthbearer.sasl.oauthbearer.expected.issuer follows from the authentication of listener a-b; remove it; spec.listeners[].authentication governs it",
				"Error spec.config[sasl.oauthbearer.expected.audience]: sasl.oauthbearer.expected.audience follows from the authentication of listener a-b; remove it; spec.listeners[].authentication governs it",
				"Error spec.pools[0].jvm.options[0]: which addresses OAuth may ask follows from the listeners; remove it; spec.listeners[].authentication.oauth.jwksURL governs it",
				"Warning spec.pools[0].config[listener.name.c.principal.builder.class]: Castellan's own class keeps clients of listener c from being called like its super users castellan-node and castellan-operator; remove it, or see that yours does the same",
				"Error spec.pools[0].config[listener.name.c.scram-sha-512.sasl.server.callback.handler.class]: listener.name.c.scram-sha-512.sasl.server.callback.handler.class follows from the authentication of listener c; remove it; spec.listeners[].authentication governs it",
			},
		},
		"keys of another listener, and what stays the user's": {
			[]api.Listener{mutualTLS("a", 9092), oauth("b", 9093)},
			func(s *api.KafkaClusterSpec) {
				s.Config = api.Config{
					"listener.name.a.ssl.principal.mapping.rules":           "DEFAULT",
					"listener.name.b.oauthbearer.connections.max.reauth.ms": "60000",
					"sasl.oauthbearer.clock.skew.seconds":                   "10",
				}
			},
			nil,
		},
	} {
		t.Run(reason, func(t *testing.T) {
			in := good()
			in.Spec.Listeners = tt.listeners
			if tt.spoil != nil {
				tt.spoil(&in.Spec)
			}
			_, problems := cluster.Resolve(in)
			if diff := cmp.Diff(tt.want, lines(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// TestChangedListenerRollsOnlyBrokers: what a change restarts is what has another process.
func TestChangedListenerRollsOnlyBrokers(t *testing.T) {
	base := func() cluster.Input {
		in := good(controllerPool(3), brokerPool(3))
		in.Spec.Listeners = []api.Listener{scram("a", 9092), oauth("b", 9093), {Name: "c", Port: 9094, TLS: &api.ListenerTLS{SecretRef: &api.SecretRef{Name: "mine"}}}}
		in.Spec.Authorization = &api.Authorization{Type: api.AuthorizationACL, SuperUsers: []string{"User:b", "User:a"}}
		return in
	}
	before := hashes(resolved(t, base()))
	for reason, tt := range map[string]struct {
		change               func(*api.KafkaClusterSpec)
		brokers, controllers bool
	}{
		"another authentication": {func(s *api.KafkaClusterSpec) { s.Listeners[0] = mutualTLS("a", 9092) }, true, false},
		"another issuer":         {func(s *api.KafkaClusterSpec) { s.Listeners[1].Authentication.OAuth.Issuer = "https://x" }, true, false},
		"one listener more":      {func(s *api.KafkaClusterSpec) { s.Listeners = append(s.Listeners, plain("d", 9095)) }, true, false},
		"another Secret":         {func(s *api.KafkaClusterSpec) { s.Listeners[2].TLS.SecretRef.Name = "other" }, false, false},
		"no own certificate":     {func(s *api.KafkaClusterSpec) { s.Listeners[2].TLS.SecretRef = nil }, true, false},
		"another order": {func(s *api.KafkaClusterSpec) {
			s.Listeners[0], s.Listeners[2] = s.Listeners[2], s.Listeners[0]
			s.Authorization.SuperUsers = []string{"User:a", "User:b"}
		}, false, false},
		"another super user": {func(s *api.KafkaClusterSpec) { s.Authorization.SuperUsers[0] = "User:c" }, true, true},
		"no authorization":   {func(s *api.KafkaClusterSpec) { s.Authorization.Type = api.AuthorizationNone }, true, true},
	} {
		t.Run(reason, func(t *testing.T) {
			in := base()
			tt.change(&in.Spec)
			after := hashes(resolved(t, in))
			for id, hash := range after {
				want := tt.controllers
				if id >= 3 {
					want = tt.brokers
				}
				if changed := hash != before[id]; changed != want {
					t.Errorf("node %d: restarts %t, want %t", id, changed, want)
				}
			}
		})
	}
}

// TestOldSpecsKeepTheirProcess: none of the new fields is no reason to restart.
func TestOldSpecsKeepTheirProcess(t *testing.T) {
	in := good()
	in.Spec.Listeners = []api.Listener{{Name: "a", Port: 9092}, {Name: "b", Port: 9093, TLS: &api.ListenerTLS{}, Authentication: api.Authentication{Type: api.AuthenticationNone}}}
	in.Spec.Authorization = &api.Authorization{Type: api.AuthorizationACL, SuperUsers: []string{}}
	p := resolved(t, in).Nodes[0].Process
	want := []api.NodeListener{{Name: "a", Protocol: "PLAINTEXT"}, {Name: "b", Protocol: "SSL"}}
	if diff := cmp.Diff(want, p.Listeners); diff != "" || p.Layout != layout.Current || p.SuperUsers != nil {
		t.Errorf("layout %d, super users %v, listeners (-want +got):\n%s", p.Layout, p.SuperUsers, diff)
	}
}
