// Package authority keeps one CA of a cluster, with the one that follows it and the one it follows, in the data of one
// Secret; it judges a CA that a user provides, and says in digests what parties hold. What is to be done is decided by
// core/certificates; it only does those steps to the data. It reads and writes no Secret itself.
//
// A Secret with one built-in CA looks as it always did: ca.crt and ca.key. While a CA is being replaced, and for one's own,
// there is more beside these two, of which ca.crt keeps meaning: the signing one first, and all that are trusted.
package authority
