// Package sslengine carries the jar that lets every Kafka connection use the certificates, and the users, that stand in
// the node's files at that moment. Kafka's Raft client never re-reads its certificates by itself, and SASL/PLAIN never its
// users. The package only hands the bytes out: it does not decide where they go or when they change.
//
// The Java source is in java/; build.sh, run by `make generate`, makes the jar from it.
package sslengine

import (
	"bytes"
	_ "embed"
)

const (
	// Name is the jar's file name. It must be on the class path of every process that reads the node's properties:
	// Kafka itself and also its StorageTool, which refuses a class it cannot load (measured on 4.3.1).
	Name = "castellan-ssl-engine.jar"

	// Class is the value of ssl.engine.factory.class. It needs ssl.keystore.type and ssl.truststore.type PEM, and
	// writers that replace the files by rename.
	Class = "dev.castellan.kafka.ReloadingSslEngineFactory"

	// PrincipalBuilder is the value of a client listener's principal.builder.class: there nobody is one of Castellan's own
	// super users.
	PrincipalBuilder = "dev.castellan.kafka.ClientPrincipalBuilder"

	// PlainUsers is a server callback handler of SASL/PLAIN. Its JAAS option castellan_users is a .properties file of
	// user=password.
	PlainUsers = "dev.castellan.kafka.PlainUsersCallbackHandler"

	// OAuth is a server callback handler of SASL/OAUTHBEARER: Kafka's own, which waits for a provider that does not answer.
	OAuth = "dev.castellan.kafka.PatientOAuthCallbackHandler"

	// OAuthLogin is a login callback handler of SASL/OAUTHBEARER for brokers, which have no token.
	OAuthLogin = "dev.castellan.kafka.NoTokenCallbackHandler"
)

//go:embed castellan-ssl-engine.jar
var jar []byte

// Jar returns a copy of the jar's bytes.
func Jar() []byte { return bytes.Clone(jar) }
