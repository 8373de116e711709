// Package sslengine carries the jar that lets every Kafka connection use the certificates that stand in the node's files
// at that moment (ssl.engine.factory.class). Kafka's Raft client never re-reads them by itself. The package only hands
// the bytes out: it does not decide where they go or when certificates change.
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
)

//go:embed castellan-ssl-engine.jar
var jar []byte

// Jar returns a copy of the jar's bytes.
func Jar() []byte { return bytes.Clone(jar) }
