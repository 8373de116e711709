package certificates

import (
	"slices"
	"strings"
	"time"
)

// blocker is who keeps a step from being done.
type blocker struct {
	who, why string
	// until is when that ends by itself; zero is not known.
	until time.Time
	party *Party
}

// distrusting is who was not seen in this pass to trust a CA.
func (c *computation) distrusting(role Role, ca *CA) []blocker {
	var who []blocker
	for i := range c.in.Parties {
		p := &c.in.Parties[i]
		given, needs := p.Trust[role]
		if !needs || p.New {
			continue
		}
		why, until := "", time.Time{}
		switch {
		case !slices.Contains(given.Anchors, ca.Anchor):
			why = "has not been given it"
		case p.Kind == Client:
			if end := given.At.Add(c.in.ClientGrace); c.in.Now.Before(end) {
				why, until = "was given it at "+stamp(given.At)+" and has until "+stamp(end)+" to use it", end
			}
		case c.unseen(p) != "":
			why = c.unseen(p)
		default:
			why = refuses(p.Seen.Trusts[role], ca.Anchor)
		}
		if why != "" {
			who = append(who, blocker{p.Name, why, until, p})
		}
	}
	return who
}

func refuses(trusts map[string]bool, anchor string) string {
	switch accepted, tried := trusts[anchor]; {
	case !tried:
		return "was not seen to accept it at every endpoint"
	case !accepted:
		return "was given it but refuses it still"
	default:
		return ""
	}
}

// presenting is who was not seen in this pass to present something else than certificates of a CA.
func (c *computation) presenting(role Role, ca *CA) []blocker {
	var who []blocker
	for i := range c.in.Parties {
		p := &c.in.Parties[i]
		if p.Presents != role || p.New {
			continue
		}
		why, until := "", time.Time{}
		switch {
		case p.Leaf != nil && p.Leaf.Issuer == ca.ID:
			why = "has a certificate of it"
		case p.Kind == Client:
			if end := p.LeafAt.Add(c.in.ClientGrace); p.Leaf != nil && c.in.Now.Before(end) {
				why, until = "was given another certificate at "+stamp(p.LeafAt)+" and has until "+stamp(end)+" to use it", end
			}
		case c.unseen(p) != "":
			why = c.unseen(p)
		default:
			why = shows(p.Seen.Presents, ca.ID)
		}
		if why != "" {
			who = append(who, blocker{p.Name, why, until, p})
		}
	}
	return who
}

func shows(presents []Presented, id string) string {
	if len(presents) == 0 {
		return "was not seen to present anything"
	}
	var old, foreign []string
	for _, e := range presents {
		switch e.Issuer {
		case id:
			old = append(old, e.Endpoint)
		case "":
			foreign = append(foreign, e.Endpoint)
		}
	}
	switch {
	case len(old) > 0:
		return "presents a certificate of it at " + strings.Join(old, ", ") + " still"
	case len(foreign) > 0:
		return "presents a certificate of an unknown CA at " + strings.Join(foreign, ", ")
	default:
		return ""
	}
}

// trusting is who was not seen in this pass to refuse a CA that was retired.
func (c *computation) trusting(a *Authority, ca *CA) []blocker {
	if c.ended(ca.NotAfter) || a.shared(ca) {
		return nil
	}
	var who []blocker
	for i := range c.in.Parties {
		p := &c.in.Parties[i]
		given, needs := p.Trust[a.Role]
		if !needs {
			continue
		}
		why := ""
		switch {
		case slices.Contains(given.Anchors, ca.Anchor):
			why = "is still given it"
		case p.New || p.Kind == Client || !ca.HasKey:
		case c.unseen(p) != "":
			why = c.unseen(p)
		default:
			if accepted, tried := p.Seen.Trusts[a.Role][ca.Anchor]; !tried || accepted {
				why = "was not seen to refuse it at every endpoint"
			}
		}
		if why != "" {
			who = append(who, blocker{who: p.Name, why: why})
		}
	}
	return who
}

// unseen says why a party was not seen in this pass; empty when it was.
func (c *computation) unseen(p *Party) string {
	switch s := p.Seen; {
	case s.At.IsZero():
		return "was not looked at"
	case s.At.Before(c.in.Since):
		return "was last seen at " + stamp(s.At) + " by " + s.By + ", which is before this pass"
	case s.Fault != "":
		return s.Fault
	default:
		return ""
	}
}
