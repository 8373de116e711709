// Package secrets keeps the certificates of a cluster as Secrets in its namespace: its two CAs, what clients trust, one
// certificate per node and one for the operator, and beside the nodes' what the listeners' own Secrets hold, once that
// was found usable.
//
// It does what core/certificates decides, one write per step, each resting on the version of the Secret that was read.
// It decides nothing itself, dials nobody, and never deletes a CA unless told to.
package secrets
