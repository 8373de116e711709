package pki

import (
	"fmt"
	"strings"
	"time"

	"castellan.dev/castellan/core/layout"
)

// longestName is what RFC 5280 allows for a common name (ub-common-name).
const longestName = 64

// ClientRequest asks for the certificate of a client: CN=<name> and nothing else, which Kafka
// makes User:<name> (layout.ClientRules). A name of which it would make something else is an
// error.
func ClientRequest(name string) (Request, error) {
	switch {
	case name == "":
		return Request{}, fmt.Errorf("a client's certificate needs a name")
	case layout.OwnPrincipal(name):
		return Request{}, fmt.Errorf("no client can be called %s: it is Castellan's own super user", name)
	case len([]rune(name)) > longestName:
		return Request{}, fmt.Errorf("%q has %d characters, and a certificate's common name at most %d (RFC 5280): use a shorter name, or ScramSha512", name, len([]rune(name)), longestName)
	case strings.ContainsAny(name, ",+\"\\<>;\x00\n\r") || strings.HasPrefix(name, "#") || strings.TrimSpace(name) != name:
		return Request{}, fmt.Errorf("%q has characters that are written otherwise in a certificate's subject (RFC 2253: , + \" \\ < > ; outer blanks, # in front), so that its principal would not be User:%s: use another name, or ScramSha512", name, name)
	}
	return Request{CommonName: name, Usage: UsageClient}, nil
}

// Current returns the pair that is held while it serves the request and the CA signed it, else
// a new one; renewal begins in the last third of a life.
func (ca CA) Current(req Request, held Pair, now time.Time) (Pair, error) {
	if leaf, err := held.Leaf(); err == nil && req.Serves(leaf) && ca.Signed(leaf) {
		// A renewal near the CA's own end would gain nothing and repeat on every pass.
		if !NeedsRenewal(held, now) || !ca.leafEnd(now).After(leaf.NotAfter) {
			return held, nil
		}
	}
	return ca.Issue(req, now)
}
