package certificates

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

// life is that of a certificate.
type life struct{ from, to time.Time }

// renewal is when a certificate is renewed: after 2/3 of its life and, so that not all nodes are due at once, up to 1/30
// more, which depends on the name alone.
func (l life) renewal(name string) time.Time {
	length := l.to.Sub(l.from)
	at := l.from.Add(length / 3 * 2)
	if name == "" {
		return at
	}
	sum := sha256.Sum256([]byte(name))
	part := int64(sum[0])<<8 | int64(sum[1])
	return at.Add(length / 30 / (1 << 16) * time.Duration(part))
}

// Renewal is when the certificate of a party is due.
func (p *Party) Renewal() time.Time { return life{p.Leaf.NotBefore, p.Leaf.NotAfter}.renewal(p.Name) }

// parties brings what each was given to what the CA's Secret says.
func (c *computation) parties(a *Authority, target *CA) {
	anchors := a.Anchors()
	for i := range c.in.Parties {
		p := &c.in.Parties[i]
		if given, needs := p.Trust[a.Role]; needs && !sameSet(given.Anchors, anchors) {
			c.step(Step{Action: GiveTrust, Role: a.Role, Party: p.Name, Anchors: anchors, Reason: fmt.Sprintf("%s is to trust %s %s", p.Name, a.title(), a.inBundle())})
		}
	}
	held, orphans := &postponed{}, &postponed{}
	for i := range c.in.Parties {
		if p := &c.in.Parties[i]; p.Presents == a.Role {
			c.leaf(a, target, p, held, orphans)
		}
	}
	if len(orphans.names) > 0 {
		c.wait(a.Role, Issue, "no certificate yet for "+list(orphans.names), []blocker{{who: a.title() + " " + a.ca(a.Signs).short(), why: "cannot sign, because its key is lost or it has ended, and the one that follows it does not sign yet"}})
	}
	if len(held.names) > 0 {
		c.wait(a.Role, Issue, "no certificate yet by "+a.title()+" "+a.ca(held.by).short()+" for "+list(held.names), held.who)
	}
}

// postponed are certificates that are not issued yet because not everybody would trust them.
type postponed struct {
	names []string
	by    string
	who   []blocker
	asked bool
}

// blocks says whether somebody would refuse a certificate of a CA. A node without any that does not answer cannot start
// before it has one: it does not wait for itself, nor for others like it.
func (h *postponed) blocks(c *computation, a *Authority, p *Party, by *CA) bool {
	if !h.asked {
		h.asked, h.by, h.who = true, by.ID, c.distrusting(a.Role, by)
	}
	blocked := slices.ContainsFunc(h.who, func(b blocker) bool {
		return p.Leaf != nil || b.party.Leaf != nil || b.party.Kind != Node || c.unseen(b.party) == ""
	})
	if blocked {
		h.names = append(h.names, p.Name)
	}
	return blocked
}

// leaf issues a party's certificate when it must and may be.
func (c *computation) leaf(a *Authority, target *CA, p *Party, held, orphans *postponed) {
	by := c.issuer(a, target, p)
	why := c.whyIssue(a, p, by)
	if why == "" {
		if p.Leaf != nil && by != nil && by.NotAfter.After(p.Leaf.NotAfter) {
			c.again(p.Renewal())
		}
		return
	}
	if by == nil {
		orphans.names = append(orphans.names, p.Name)
		return
	}
	if !c.relied(a, p, by) && held.blocks(c, a, p, by) {
		return
	}
	c.step(Step{Action: Issue, Role: a.Role, CA: by.ID, Party: p.Name, Reason: "a certificate for " + p.Name + " by " + by.short() + ": it " + why})
}

// issuer is who can sign for a party now; nil is nobody. Where the CA that signs lost its key, a party without a valid
// certificate need not wait for the next one to sign for all.
func (c *computation) issuer(a *Authority, target *CA, p *Party) *CA {
	signs := a.ca(a.Signs)
	if signs != nil && signs.HasKey && !c.ended(signs.NotAfter) {
		return signs
	}
	if (p.Leaf == nil || c.ended(p.Leaf.NotAfter)) && target.HasKey && target.Trusted && !c.ended(target.NotAfter) {
		return target
	}
	return nil
}

// whyIssue says what is wrong with what a party has; empty is nothing.
func (c *computation) whyIssue(a *Authority, p *Party, by *CA) string {
	switch l := p.Leaf; {
	case l == nil:
		return "has none"
	case c.ended(l.NotAfter):
		return "has one that ended at " + stamp(l.NotAfter)
	case !l.Names:
		return "has one that does not name all of its addresses"
	case by != nil && l.Issuer != by.ID:
		return "has one of " + a.nameOf(l.Issuer)
	case !c.in.Now.Before(p.Renewal()) && (by == nil || c.endOf(by).After(l.NotAfter)):
		return "has one that ends at " + stamp(l.NotAfter) + ", and two thirds of its life are over"
	default:
		return ""
	}
}

// endOf is when a certificate ends that a CA issues now.
func (c *computation) endOf(by *CA) time.Time {
	end := c.in.Now.Add(c.in.LeafLifetime)
	if end.After(by.NotAfter) {
		return by.NotAfter
	}
	return end
}

// relied says that certificates of a CA need no new look at who trusts them: the party has one, or its own has ended and
// serves nobody, or it has none and others go by that CA, or nobody has any.
func (c *computation) relied(a *Authority, p *Party, by *CA) bool {
	if p.Leaf != nil {
		return p.Leaf.Issuer == by.ID || c.ended(p.Leaf.NotAfter)
	}
	others := false
	for _, o := range c.in.Parties {
		if o.Leaf == nil && o.Presents == a.Role && len(o.Seen.Presents) > 0 {
			others = true // its Secret is gone, but it runs
		}
		if o.Presents != a.Role || o.Leaf == nil || c.ended(o.Leaf.NotAfter) {
			continue
		}
		if o.Leaf.Issuer == by.ID && by.ID == a.Signs {
			return true
		}
		others = true
	}
	return !others
}

// takenUp says which nodes do not present what they were given.
func (c *computation) takenUp() {
	for i := range c.in.Parties {
		p := &c.in.Parties[i]
		if p.Kind == Client || p.Leaf == nil || c.unseen(p) != "" {
			continue
		}
		for _, e := range p.Seen.Presents {
			if c.ended(e.NotAfter) && e.Digest != p.Leaf.Digest && !c.ended(p.Leaf.NotAfter) {
				c.problem(fmt.Sprintf("%s presents a certificate at %s that ended at %s: see why it does not read its files (its log says so), or restart it", p.Name, e.Endpoint, stamp(e.NotAfter)))
			}
			if e.Digest != p.Leaf.Digest {
				c.wait(p.Presents, "", p.Name+" does not present the certificate that it was given", []blocker{{who: e.Endpoint, why: "presents " + short(e.Digest) + ", it was given " + short(p.Leaf.Digest)}})
			}
		}
	}
}

func sameSet(a, b []string) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}
