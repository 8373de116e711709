// Package pki issues the certificates of a cluster: its two CAs (see [ClientsCASecretName]),
// one certificate per node and one for the operator, and keeps them as Secrets in the
// cluster's namespace. It puts beside them what the listeners' own Secrets hold, once that was
// found usable. It writes only what is missing, ends soon or names the wrong hosts.
//
// It never replaces a CA that exists, never deletes one unless told to, and never decides
// which node may pick up a new certificate when: callers learn digests and compare them
// with what the nodes serve.
package pki
