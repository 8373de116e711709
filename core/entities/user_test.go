package entities_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/entities"
)

func quantity(text string) *resource.Quantity { q := resource.MustParse(text); return &q }

func TestUsers(t *testing.T) {
	read := grant(api.ACLAllow, api.ACLTopic, "orders", api.ACLRead)
	cases := []struct {
		reason string
		policy entities.Policy
		have   *entities.Snapshot
		users  []entities.DesiredUser
		want   []string
	}{
		{
			reason: "what denies comes first, and the password last",
			have:   snapshot(),
			users: allowedUser(user(meta("u"), api.UserScramSha512, acl("", api.ACLTopic, "orders", api.ACLRead), acl(api.ACLDeny, api.ACLTopic, "orders-x", api.ACLRead),
				func(s *api.KafkaUserSpec) {
					s.Quotas = &api.UserQuotas{Quota: api.Quota{ProducerByteRate: quantity("1Mi")}, Clients: []api.ClientQuota{{ClientID: "c", Quota: api.Quota{RequestPercentage: quantity("12500m")}}}}
				}), password("d1")),
			want: []string{
				"u: quota of user u from {0 0 0 0 0} to {1.048576e+06 0 0 0 0}",
				"u: quota of user u with client id c from {0 0 0 0 0} to {0 0 12.5 0 0}",
				"u: entities.CreateGrant {Principal:u Grant:Deny Read on Topic orders-x from *}",
				"u: entities.CreateGrant {Principal:u Grant:Allow Read on Topic orders from *}",
				"u: entities.UpsertCredential {Principal:u Iterations:4097 Secret:{Namespace:team Name:pw Key:password Digest:d1}}",
				`u is Working Applying, write "uid-u scram=4097:d1"`,
			},
		},
		{
			reason: "what is so already is verified",
			have:   snapshot(hasUser("u", entities.Principal{Grants: []entities.Grant{read}, Scram512: 4097})),
			users:  allowedUser(user(meta("u", held(" scram=4097:d1")), api.UserScramSha512, acl("", api.ACLTopic, "orders", api.ACLRead)), password("d1")),
			want:   []string{"u is InForce InForce, verified"},
		},
		{
			reason: "a grant that left the spec, or that somebody added, goes",
			have:   snapshot(hasUser("u", entities.Principal{Grants: []entities.Grant{read, grant(api.ACLAllow, api.ACLTopic, "other", api.ACLAll)}})),
			users:  allowedUser(user(meta("u", held("")), api.UserMutualTLS, acl("", api.ACLTopic, "orders", api.ACLRead))),
			want:   []string{"u: entities.DeleteGrant {Principal:u Grant:Allow All on Topic other from *}", "u is Working Applying"},
		},
		{
			reason: "another password gets other iterations, so that Kafka tells which one it has",
			have:   snapshot(hasUser("u", entities.Principal{Scram512: 4097})),
			users:  allowedUser(user(meta("u", held(" scram=4097:d1")), api.UserScramSha512), password("d2")),
			want: []string{
				"u: entities.UpsertCredential {Principal:u Iterations:4098 Secret:{Namespace:team Name:pw Key:password Digest:d2}}",
				`u is Working Applying, write "uid-u scram=4098:d2"`,
			},
		},
		{
			reason: "a password that was held and not given, or was changed by hand, is given",
			have:   snapshot(hasUser("u", entities.Principal{Scram512: 4096})),
			users:  allowedUser(user(meta("u", held(" scram=4098:d2")), api.UserScramSha512), password("d2")),
			want: []string{
				"u: entities.UpsertCredential {Principal:u Iterations:4098 Secret:{Namespace:team Name:pw Key:password Digest:d2}}",
				"u is Working Applying",
			},
		},
		{
			reason: "without its Secret the password in force stays, and so does what is held",
			have:   snapshot(hasUser("u", entities.Principal{Scram512: 4098})),
			users:  allowedUser(user(meta("u", held(" scram=4098:d2")), api.UserScramSha512), entities.Credential{Why: "Secret team/pw has no key password."}),
			want:   []string{"u is Refused NoPassword"},
		},
		{
			reason: "from a password to a certificate: the password goes first",
			have:   snapshot(hasUser("u", entities.Principal{Scram512: 4098, Scram256: 4096})),
			users:  allowedUser(user(meta("u", held(" scram=4098:d2")), api.UserMutualTLS, acl("", api.ACLTopic, "orders", api.ACLRead))),
			want: []string{
				"u: entities.DeleteCredential {Principal:u Mechanism:SCRAM-SHA-512}",
				"u: entities.DeleteCredential {Principal:u Mechanism:SCRAM-SHA-256}",
				"u: entities.CreateGrant {Principal:u Grant:Allow Read on Topic orders from *}",
				"u is Working Applying",
			},
		},
		{
			reason: "External leaves a password that somebody else gave",
			have:   snapshot(hasUser("u", entities.Principal{Scram512: 4096})),
			users:  allowedUser(user(meta("u"), api.UserExternal)),
			want:   []string{`u is InForce InForce, write "uid-u", verified`},
		},
		{
			reason: "External takes back a password of its own",
			have:   snapshot(hasUser("u", entities.Principal{Scram512: 4099})),
			users:  allowedUser(user(meta("u", held(" scram=4099:d2")), api.UserExternal)),
			want:   []string{"u: entities.DeleteCredential {Principal:u Mechanism:SCRAM-SHA-512}", "u is Working Applying"},
		},
		{
			reason: "a principal that has more than stands here is not taken over by accident",
			have:   snapshot(hasUser("CN=a,O=b", entities.Principal{Grants: []entities.Grant{read}})),
			users:  allowedUser(user(meta("u"), api.UserExternal, principal("CN=a,O=b"))),
			want:   []string{"u is Refused PrincipalExists"},
		},
		{
			reason: "nor is its password overwritten",
			have:   snapshot(hasUser("u", entities.Principal{Scram512: 4096})),
			users:  allowedUser(user(meta("u"), api.UserScramSha512), password("d1")),
			want:   []string{"u is Refused PrincipalExists"},
		},
		{
			reason: "what it has beside nothing else can only become more: that needs no adopt",
			have:   snapshot(hasUser("u", entities.Principal{Grants: []entities.Grant{read}})),
			users:  allowedUser(user(meta("u"), api.UserExternal, acl("", api.ACLTopic, "orders", api.ACLRead, api.ACLWrite))),
			want:   []string{"u: entities.CreateGrant {Principal:u Grant:Allow Write on Topic orders from *}", `u is Working Applying, write "uid-u"`},
		},
		{
			reason: "adopted it is replaced by what stands here",
			have:   snapshot(hasUser("u", entities.Principal{Grants: []entities.Grant{read}, Quotas: map[entities.Part]entities.Limits{"": {RequestPercentage: 5}}})),
			users:  allowedUser(user(meta("u"), api.UserExternal, adoptUser)),
			want: []string{
				"u: quota of user u from {0 0 5 0 0} to {0 0 0 0 0}",
				"u: entities.DeleteGrant {Principal:u Grant:Allow Read on Topic orders from *}",
				`u is Working Applying, write "uid-u"`,
			},
		},
		{
			reason: "nobody becomes a super user by a name",
			policy: entities.Policy{Reserved: []string{"castellan-operator"}},
			have:   snapshot(),
			users:  allowedUser(user(meta("u"), api.UserScramSha512, principal("castellan-operator"), adoptUser), password("d")),
			want:   []string{"u is Refused ReservedPrincipal"},
		},
		{
			reason: "with the object everything goes, also what the snapshot lacks",
			have:   snapshot(hasUser("u", entities.Principal{Grants: []entities.Grant{read}, Quotas: map[entities.Part]entities.Limits{"": {RequestPercentage: 5}}})),
			users:  allowedUser(user(meta("u", held(" scram=4099:d"), leaving), api.UserScramSha512), password("d")),
			want: []string{
				"u: entities.DeleteCredential {Principal:u Mechanism:SCRAM-SHA-512}",
				"u: quota of user u from {0 0 5 0 0} to {0 0 0 0 0}",
				"u: entities.DropGrants {Principal:u}",
				"u is Working Applying",
			},
		},
		{
			reason: "also where its namespace is no longer allowed",
			have:   snapshot(),
			users:  []entities.DesiredUser{{Object: user(meta("u", held(""), leaving), api.UserMutualTLS)}},
			want:   []string{"u: entities.DropGrants {Principal:u}", "u is Working Applying"},
		},
		{
			reason: "what was never in force removes nothing",
			have:   snapshot(hasUser("u", entities.Principal{Grants: []entities.Grant{read}})),
			users:  allowedUser(user(meta("u", leaving), api.UserMutualTLS)),
			want:   []string{"u is Working Released, release"},
		},
		{
			reason: "of two the oldest wins, and both say so",
			have:   snapshot(),
			users:  append(allowedUser(user(meta("x", younger), api.UserExternal, principal("p"))), allowedUser(user(meta("y", held("")), api.UserExternal, principal("p")))...),
			want:   []string{"x is Refused Conflict", "y is InForce InForce, verified"},
		},
		{
			reason: "a long name gets no certificate that could not carry it",
			have:   snapshot(),
			users:  allowedUser(user(meta("u"), api.UserMutualTLS, principal("a=b"))),
			want:   []string{"u is Refused InvalidSpec"},
		},
		{
			reason: "a name that needs escapes has a password all the same",
			have:   snapshot(),
			users:  allowedUser(user(meta("u"), api.UserScramSha512, principal(`a=,+ "\`)), password("d")),
			want: []string{
				`u: entities.UpsertCredential {Principal:a=,+ "\ Iterations:4097 Secret:{Namespace:team Name:pw Key:password Digest:d}}`,
				`u is Working Applying, write "uid-u scram=4097:d"`,
			},
		},
	}
	for _, c := range cases {
		t.Run(c.reason, func(t *testing.T) {
			got := words(world(t, c.policy, c.have, nil, c.users).All(noon))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPresetsExpand(t *testing.T) {
	spec := api.KafkaUserSpec{Presets: &api.ACLPresets{
		Producer:              []api.ProducerPreset{{Topic: api.ACLPattern{Name: "a"}}},
		Consumer:              []api.ConsumerPreset{{Topic: api.ACLPattern{Name: "orders-", PatternType: api.ACLPrefixed}, Group: api.ACLPattern{Name: "*"}}},
		Streams:               []api.StreamsPreset{{ApplicationID: "app", Inputs: []api.ACLPattern{{Name: "in"}}, Outputs: []api.ACLPattern{{Name: "out"}}}},
		TransactionalProducer: []api.TransactionalProducerPreset{{Topic: api.ACLPattern{Name: "t"}, TransactionalID: api.ACLPattern{Name: "tx"}}},
	}, ACLs: []api.ACL{{Resource: api.ACLResource{Type: api.ACLCluster}, Operations: []api.ACLOperation{api.ACLCreate}, Effect: api.ACLDeny, Host: "10.0.0.1"}}}
	var got []string
	for _, a := range entities.Expand(&spec) {
		for _, op := range a.Operations {
			got = append(got, entities.Grant{Type: a.Resource.Type, Name: a.Resource.Name, Pattern: a.Resource.PatternType, Operation: op, Effect: a.Effect, Host: a.Host}.String())
		}
	}
	want := []string{
		"Deny Create on Cluster kafka-cluster from 10.0.0.1",
		"Allow Write on Topic a from *", "Allow Describe on Topic a from *",
		"Allow Read on Topic orders-* from *", "Allow Describe on Topic orders-* from *",
		"Allow Read on Group * from *", "Allow Describe on Group * from *",
		"Allow Read on Topic in from *", "Allow Describe on Topic in from *",
		"Allow Write on Topic out from *", "Allow Describe on Topic out from *",
		"Allow All on Topic app* from *", "Allow All on Group app* from *",
		"Allow Write on TransactionalId app* from *", "Allow Describe on TransactionalId app* from *",
		"Allow Write on Topic t from *", "Allow Describe on Topic t from *",
		"Allow Write on TransactionalId tx from *", "Allow Describe on TransactionalId tx from *",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// An answer is no reading: what was changed is verified when it was read back.
func TestUserIsVerifiedWhenItWasReadBack(t *testing.T) {
	w := world(t, entities.Policy{}, snapshot(), nil, allowedUser(user(meta("u", held("")), api.UserExternal, acl("", api.ACLTopic, "orders", api.ACLRead))))
	p := w.User("u", noon)
	w.Settle(p.Changes, done(p.Changes), noon)
	if diff := cmp.Diff([]string{"u is InForce InForce"}, words(w.User("u", noon))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"u"}, w.Unread()); diff != "" {
		t.Error(diff)
	}
	w.SetPrincipals([]string{"u"}, map[string]*entities.Principal{"u": {Grants: []entities.Grant{grant(api.ACLAllow, api.ACLTopic, "orders", api.ACLRead)}}})
	if diff := cmp.Diff([]string{"u is InForce InForce, verified"}, words(w.User("u", noon))); diff != "" {
		t.Error(diff)
	}
	w.SetPrincipals([]string{"u"}, nil)
	if p := w.User("u", noon); len(p.Changes) != 1 {
		t.Errorf("a grant that is not there after all: %+v", p)
	}
}

// A new password is tried at once, whatever became of the old one.
func TestNewPasswordIsTriedAtOnce(t *testing.T) {
	o := user(meta("u", held(" scram=4097:bad")), api.UserScramSha512)
	w := world(t, entities.Policy{}, snapshot(), nil, allowedUser(o, password("bad")))
	p := w.User("u", noon)
	w.Settle(p.Changes, []entities.Result{{Outcome: entities.Denied, Code: "UNACCEPTABLE_CREDENTIAL"}}, noon)
	if p := w.User("u", noon); len(p.Changes) != 0 || p.Verdicts[0].Reason != "RefusedByKafka" {
		t.Errorf("%+v", p)
	}
	w.PutUser(allowedUser(o, password("good"))[0])
	if p := w.User("u", noon); len(p.Changes) != 1 {
		t.Errorf("%+v", p)
	}
}

func TestClusterQuotas(t *testing.T) {
	rate := int32(5)
	policy := entities.Policy{Quotas: []api.ClusterQuota{
		{ClientID: "c", Limits: &api.Quota{RequestPercentage: quantity("10")}},
		{Address: "10.0.0.1", ConnectionCreationRate: &rate},
		{EveryUser: &api.EveryOne{}, Limits: &api.Quota{ConsumerByteRate: quantity("1k")}},
	}}
	have := func() *entities.Snapshot {
		return snapshot(func(s *entities.Snapshot) {
			s.Quotas[entities.QuotaEntity{ClientID: entities.Named("c")}] = entities.Limits{RequestPercentage: 10}
			s.Quotas[entities.QuotaEntity{Address: entities.Every}] = entities.Limits{ConnectionCreationRate: 1}
		})
	}
	if p := world(t, entities.Policy{}, have(), nil, nil).All(noon); len(p.Changes) != 0 || p.Unmanaged.Quotas != 2 {
		t.Errorf("without quotas in the spec they are left alone: %+v", p)
	}
	w := world(t, policy, have(), nil, nil)
	p := w.All(noon)
	var got []string
	for _, c := range p.Changes {
		got = append(got, c.Do.(entities.AlterQuota).Entity.String())
	}
	if diff := cmp.Diff([]string{"every address", "address 10.0.0.1", "every user"}, got); diff != "" {
		t.Error(diff)
	}
	w.Settle(p.Changes, done(p.Changes), noon)
	if p := w.All(noon); len(p.Changes) != 0 || p.Unmanaged.Quotas != 0 {
		t.Errorf("%+v", p)
	}
}
