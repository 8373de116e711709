package certificates

import (
	"cmp"
	"fmt"
	"slices"
)

// authority decides for one CA: at most one change of its Secret in a pass, and what parties need of it only when there is
// none, because each change is a fact for the next pass.
func (c *computation) authority(a *Authority) {
	if a.Unknown != "" {
		c.plan.Phases[a.Role] = Unknown
		c.wait(a.Role, "", a.title()+" is left as it is", []blocker{{why: a.Unknown}})
		return
	}
	if s, lost := c.adopt(a); lost {
		c.plan.Phases[a.Role] = Unknown
		c.step(s)
		return
	}
	target, add := c.target(a)
	c.plan.Phases[a.Role] = c.phase(a, target)
	if add != nil {
		c.plan.Phases[a.Role] = TrustBoth
		c.step(*add)
		return
	}
	if target == nil {
		c.wait(a.Role, AddCA, a.title()+" does not exist yet", []blocker{{why: "the Secret that is to hold it has a fault"}})
		return
	}
	if c.switchTo(a, target) || c.retire(a, target) || c.forget(a) {
		return
	}
	c.parties(a, target)
}

// adopt takes up CAs that parties rely on and the Secret does not know. Without them, a Secret that was deleted or came
// from a backup would cut everybody off.
func (c *computation) adopt(a *Authority) (Step, bool) {
	var found []CA
	for _, ca := range a.Found {
		if a.ca(ca.ID) == nil && !c.ended(ca.NotAfter) {
			found = append(found, ca)
		}
	}
	if len(found) == 0 {
		return Step{}, false
	}
	slices.SortFunc(found, newestFirst)
	all := slices.Concat(a.CAs, found)
	signs := c.inUse(a.Role, all)
	if signs == "" {
		signs = cmp.Or(a.Signs, found[0].ID)
	}
	return Step{Action: AdoptCAs, Role: a.Role, CA: signs, Adopt: found, Reason: adoptReason(a, found)}, true
}

// inUse is the CA of certificates that are in force: everybody trusts it. One with its key comes first, then the most used.
func (c *computation) inUse(role Role, among []CA) string {
	uses := map[string]int{}
	for _, p := range c.in.Parties {
		if p.Presents == role && p.Leaf != nil && !c.ended(p.Leaf.NotAfter) {
			uses[p.Leaf.Issuer]++
		}
	}
	best := ""
	rank := func(ca CA) int {
		n := 2 * uses[ca.ID]
		if n > 0 && ca.HasKey {
			n += 2 * len(c.in.Parties)
		}
		return n
	}
	most := 0
	for _, ca := range among {
		if n := rank(ca); n > most {
			best, most = ca.ID, n
		}
	}
	return best
}

// target is the CA that is to sign at the end; or the step that makes it.
func (c *computation) target(a *Authority) (*CA, *Step) {
	if own := a.Wish.Own; own != nil {
		return c.ownTarget(a, own)
	}
	if want := c.builtIn(a); want != nil {
		renew := life{want.NotBefore, want.NotAfter}.renewal("")
		if c.in.Now.Before(renew) {
			c.again(renew)
			return want, nil
		}
		return nil, &Step{Action: AddCA, Role: a.Role, Generation: max(a.Wish.Generation, want.Generation), Reason: fmt.Sprintf("%s %s is in the last third of its life, which ends at %s: a new one is made", a.title(), want.short(), stamp(want.NotAfter))}
	}
	return nil, &Step{Action: AddCA, Role: a.Role, Generation: a.Wish.Generation, Reason: addReason(c, a)}
}

func (c *computation) ownTarget(a *Authority, own *Given) (*CA, *Step) {
	signs := a.ca(a.Signs)
	if len(own.Faults) > 0 {
		for _, f := range own.Faults {
			text := f.String()
			if signs != nil {
				text += "; until then " + a.title() + " " + signs.short() + " goes on"
			}
			c.problem(text)
		}
		return signs, nil
	}
	if held := a.ca(own.CA.ID); held != nil && held.HasKey {
		if renew := (life{held.NotBefore, held.NotAfter}).renewal(""); c.in.Now.Before(renew) {
			c.again(renew)
		} else {
			c.problem(fmt.Sprintf("Secret %s: the CA %s ends at %s: put a new one with its key there, it is taken up without a restart", own.Secret, held.short(), stamp(held.NotAfter)))
		}
		return held, nil
	}
	return nil, &Step{Action: AddCA, Role: a.Role, CA: own.CA.ID, Own: own.Secret, Generation: a.Wish.Generation, Reason: fmt.Sprintf("%s %s of Secret %s is trusted from here on, beside what is", a.title(), own.CA.short(), own.Secret)}
}

// builtIn is the one of the built-in CAs that the wish means, nil when it must be made: that of the highest generation up
// to the wish's, the newest of these. A wish that was lowered means an older one only as long as it is there.
func (c *computation) builtIn(a *Authority) *CA {
	var best *CA
	highest := int64(-1)
	for i := range a.CAs {
		ca := &a.CAs[i]
		if ca.Own != "" || !ca.HasKey || c.ended(ca.NotAfter) {
			continue
		}
		highest = max(highest, ca.Generation)
		if best == nil || better(ca, best, a.Wish.Generation) {
			best = ca
		}
	}
	if highest < a.Wish.Generation {
		return nil
	}
	return best
}

func better(a, b *CA, wish int64) bool {
	switch aFits, bFits := a.Generation <= wish, b.Generation <= wish; {
	case aFits != bFits:
		return aFits
	case a.Generation != b.Generation:
		return (a.Generation > b.Generation) == aFits
	default:
		return newestFirst(*a, *b) < 0
	}
}

// switchTo trusts the target and, once everybody does, lets it sign.
func (c *computation) switchTo(a *Authority, target *CA) bool {
	if !target.Trusted {
		c.step(Step{Action: TrustCA, Role: a.Role, CA: target.ID, Reason: a.title() + " " + target.short() + " was retired and is wanted again: it is trusted again first"})
		return true
	}
	if a.Signs == target.ID {
		return false
	}
	signs := a.ca(a.Signs)
	reason := "everybody was seen to trust it"
	switch {
	case signs == nil:
		reason = "none signs"
	case c.ended(signs.NotAfter):
		reason = fmt.Sprintf("%s ended at %s, nobody can trust what it signed", signs.short(), stamp(signs.NotAfter))
	default:
		if who := c.distrusting(a.Role, target); len(who) > 0 {
			c.wait(a.Role, SignWith, a.title()+" "+target.short()+" does not sign yet, in place of "+signs.short(), who)
			return false
		}
	}
	c.step(Step{Action: SignWith, Role: a.Role, CA: target.ID, Reason: a.title() + " " + target.short() + " signs from here on: " + reason})
	return true
}

// retire stops the trust in what is neither wanted nor presented by anybody.
func (c *computation) retire(a *Authority, target *CA) bool {
	for i := range a.CAs {
		ca := &a.CAs[i]
		if !ca.Trusted || ca.ID == target.ID || ca.ID == a.Signs {
			continue
		}
		reason := "nobody presents a certificate of it any more"
		if c.ended(ca.NotAfter) {
			reason = "it ended at " + stamp(ca.NotAfter)
		} else if who := c.presenting(a.Role, ca); len(who) > 0 {
			c.wait(a.Role, RetireCA, a.title()+" "+ca.short()+" is still trusted", who)
			continue
		}
		c.step(Step{Action: RetireCA, Role: a.Role, CA: ca.ID, Reason: a.title() + " " + ca.short() + " is no longer trusted: " + reason})
		return true
	}
	return false
}

// forget removes what was retired once every endpoint was seen to refuse it.
func (c *computation) forget(a *Authority) bool {
	for i := range a.CAs {
		ca := &a.CAs[i]
		if ca.Trusted || ca.ID == a.Signs {
			continue
		}
		if who := c.trusting(a, ca); len(who) > 0 {
			c.wait(a.Role, ForgetCA, a.title()+" "+ca.short()+" is not known to be refused everywhere yet", who)
			continue
		}
		c.step(Step{Action: ForgetCA, Role: a.Role, CA: ca.ID, Reason: a.title() + " " + ca.short() + " is forgotten with its key: " + c.refused(a, ca)})
		return true
	}
	return false
}

func (c *computation) refused(a *Authority, ca *CA) string {
	switch {
	case c.ended(ca.NotAfter):
		return "it ended at " + stamp(ca.NotAfter)
	case a.shared(ca):
		return "what is trusted is the CA above it"
	case !ca.HasKey:
		return "nobody is given it any more; that it is refused could not be tried, because its key is lost"
	default:
		return "every endpoint was seen to refuse it"
	}
}

// phase is how far a replacement is.
func (c *computation) phase(a *Authority, target *CA) Phase {
	switch {
	case target == nil:
		return Unknown
	case a.Signs != target.ID:
		return TrustBoth
	case slices.ContainsFunc(a.CAs, func(ca CA) bool { return ca.Trusted && ca.ID != target.ID }):
		return Reissue
	case len(a.CAs) > 1:
		return TrustNew
	default:
		return Steady
	}
}

func (a *Authority) ca(id string) *CA {
	for i := range a.CAs {
		if a.CAs[i].ID == id {
			return &a.CAs[i]
		}
	}
	return nil
}

// shared says that another CA, which is trusted, has the same anchor.
func (a *Authority) shared(ca *CA) bool {
	return slices.ContainsFunc(a.CAs, func(o CA) bool { return o.ID != ca.ID && o.Trusted && o.Anchor == ca.Anchor })
}

// Anchors is the bundle that parties are to trust: that of the signing CA first, then the newest.
func (a *Authority) Anchors() []string {
	sorted := slices.SortedFunc(slices.Values(a.CAs), func(x, y CA) int {
		if (x.ID == a.Signs) != (y.ID == a.Signs) {
			if x.ID == a.Signs {
				return -1
			}
			return 1
		}
		return newestFirst(x, y)
	})
	var anchors []string
	for _, ca := range sorted {
		if ca.Trusted && !slices.Contains(anchors, ca.Anchor) {
			anchors = append(anchors, ca.Anchor)
		}
	}
	return anchors
}

func newestFirst(a, b CA) int {
	return cmp.Or(b.NotBefore.Compare(a.NotBefore), cmp.Compare(a.ID, b.ID))
}
