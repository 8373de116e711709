// Package packages gets what a host runs — Kafka first, other products later — from where it is published
// into a folder of this machine, and vouches for every byte of it.
//
// A [Spec] names a product, a version and sources to try in order: an archive by URL or path with its
// published checksum, a [Lock] of Maven coordinates that the mvn client fetches, or a cache folder. Whatever
// the source, the result is one archive in a [Store], known by its SHA-256 digest, and from it one unpacked
// tree with a manifest of every file. The same lock always gives the same archive, byte for byte.
//
// The store heals itself: a damaged archive is set aside and fetched again, a damaged tree is unpacked again.
// A damaged source is refused, never repaired.
//
// It never runs what it unpacks, never trusts a byte whose digest it was not given, never writes outside its
// folder (but for what mvn keeps in its own repository), and knows no registry or download site by name.
package packages
