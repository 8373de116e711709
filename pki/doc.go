// Package pki makes, reads and judges keys and certificates: CAs, what they issue to nodes, to the operator and to clients,
// and what users provide for listeners. It names the Secrets that hold them.
//
// It reads and writes no Secret (package secrets does), and decides nothing (core/certificates does).
package pki
