// Package endpoint looks at TLS listeners as they are at this moment: which certificate each presents, and of which CAs it
// accepts client certificates, by connecting with one of each. It is how core/certificates learns what is so.
//
// Silence is no answer: what was neither accepted nor refused in so many words is left out, or named as a fault. It
// changes nothing and sends nothing but, where TLS 1.3 is all that a listener speaks, one ApiVersions request.
package endpoint
