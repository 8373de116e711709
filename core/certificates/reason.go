package certificates

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// title is how people call a CA.
func (a *Authority) title() string { return string(a.Role) + " CA" }

// short is enough of a digest to tell CAs apart.
func (ca *CA) short() string { return short(ca.ID) }

func short(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	return digest[:min(len(digest), 12)]
}

func (a *Authority) nameOf(id string) string {
	if ca := a.ca(id); ca != nil {
		return ca.short()
	}
	return "an unknown CA"
}

// inBundle names the CAs that are trusted.
func (a *Authority) inBundle() string {
	var names []string
	for _, anchor := range a.Anchors() {
		at := slices.IndexFunc(a.CAs, func(ca CA) bool { return ca.Trusted && ca.Anchor == anchor })
		names = append(names, a.CAs[at].short())
	}
	return strings.Join(names, " and ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (b blocker) String() string {
	if b.who == "" {
		return b.why
	}
	return b.who + " " + b.why
}

// shown is how many of those who block are named.
const shown = 3

func inWords(who []blocker) string {
	texts := make([]string, 0, shown+1)
	for _, b := range who[:min(len(who), shown)] {
		texts = append(texts, b.String())
	}
	if more := len(who) - shown; more > 0 {
		texts = append(texts, "and "+strconv.Itoa(more)+" more")
	}
	return strings.Join(texts, "; ")
}

func list(names []string) string {
	if more := len(names) - shown; more > 0 {
		return strings.Join(names[:shown], ", ") + " and " + strconv.Itoa(more) + " more"
	}
	return strings.Join(names, ", ")
}

func adoptReason(a *Authority, found []CA) string {
	var names []string
	for i := range found {
		names = append(names, found[i].short())
	}
	what := "does not know " + list(names) + ", which"
	if len(a.CAs) == 0 {
		what = "is gone, and with it the key of " + list(names) + ", which"
	}
	return fmt.Sprintf("Secret %s of the %s %s is in use: that stays trusted while another one takes its place", a.Secret, a.title(), what)
}

func addReason(c *computation, a *Authority) string {
	signs := a.ca(a.Signs)
	switch {
	case signs == nil:
		return "there is no " + a.title() + " yet"
	case c.ended(signs.NotAfter):
		return fmt.Sprintf("%s %s ended at %s: everybody is given certificates of a new one", a.title(), signs.short(), stamp(signs.NotAfter))
	case signs.Own != "":
		return fmt.Sprintf("a built-in %s is wanted in place of %s of Secret %s: it is trusted first", a.title(), signs.short(), signs.Own)
	case !signs.HasKey:
		return fmt.Sprintf("the key of %s %s is lost: a new one is trusted first", a.title(), signs.short())
	default:
		return fmt.Sprintf("a new key is wanted for the %s (%d, %s was made for %d): the new one is trusted first, beside the old one", a.title(), a.Wish.Generation, signs.short(), signs.Generation)
	}
}
