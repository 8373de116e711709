// Package kconf knows Kafka's configuration language: which keys a Kafka version has, of what type and range, which process role
// reads each, which changes need a restart, which keys Castellan sets itself, and how a .properties file is written so that Java
// reads the same text back. The tables are generated from Kafka's own ConfigDef (hack/keytables), one per minor; what Kafka does
// not say about itself (roles, ownership, prefixes of plug-ins) is a short reviewed list beside the code that uses it.
//
// It never reads a file or asks a broker, and it never decides when a change is made.
package kconf

//go:generate go run ../../hack/keytables -out .
