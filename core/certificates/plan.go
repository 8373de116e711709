package certificates

import (
	"slices"
	"time"
)

// Action is what a step does. Each is one write.
type Action string

// The actions. Those on CAs change the CA's Secret, the others a party's.
const (
	// AdoptCAs takes CAs that parties know into the Secret, trusted and without their keys; Sign is the one that signs.
	AdoptCAs Action = "AdoptCAs"
	// AddCA makes a built-in CA, or takes the user's, and trusts it. Without any other it signs at once.
	AddCA Action = "AddCA"
	// TrustCA trusts one again that was retired.
	TrustCA Action = "TrustCA"
	// SignWith lets another CA issue.
	SignWith Action = "SignWith"
	// RetireCA no longer trusts one.
	RetireCA Action = "RetireCA"
	// ForgetCA removes one that was retired, with its key.
	ForgetCA Action = "ForgetCA"
	// GiveTrust writes a party's bundle.
	GiveTrust Action = "GiveTrust"
	// Issue makes a party's key and certificate.
	Issue Action = "Issue"
)

// Step is one thing to do. Any prefix of the steps may be done; the next pass goes on from there.
type Step struct {
	Action Action
	Role   Role
	// CA is the ID it is about; for AddCA that of the user's own, empty to make one; for AdoptCAs the one that signs.
	CA string
	// Adopt goes with AdoptCAs.
	Adopt []CA
	// Own names the user's Secret and Generation the wish, for AddCA.
	Own        string
	Generation int64
	// Party and, for GiveTrust, the anchors that it is to trust, the signing one first.
	Party   string
	Anchors []string
	Reason  string
}

// Wait is a step that is not done yet.
type Wait struct {
	Role Role
	// For is the action that waits.
	For Action
	// Who blocks, and why, each in words.
	Who []string
	// Reason is all of it in one sentence.
	Reason string
}

// Phase is how far the replacement of a CA is, for people; nothing is decided by it.
type Phase string

// The phases.
const (
	Steady    Phase = "Steady"
	TrustBoth Phase = "TrustBoth"
	Reissue   Phase = "Reissue"
	TrustNew  Phase = "TrustNew"
	Unknown   Phase = "Unknown"
)

// Plan is what Compute decides.
type Plan struct {
	Steps []Step
	Waits []Wait
	// Problems are what a user must act on. What runs goes on running.
	Problems []string
	Phases   map[Role]Phase
	// Again is when to look without an event; zero is never.
	Again time.Time
}

// poll is how often to look again at parties that are waited for.
const poll = 10 * time.Second

// Compute looks at the facts of one pass.
func Compute(in Input) Plan {
	c := &computation{in: in, plan: Plan{Phases: map[Role]Phase{}}}
	for i := range in.Authorities {
		c.authority(&in.Authorities[i])
	}
	c.takenUp()
	if len(c.plan.Steps) > 0 {
		c.again(in.Now)
	}
	return c.plan
}

// computation is one call of Compute.
type computation struct {
	in   Input
	plan Plan
}

func (c *computation) step(s Step) { c.plan.Steps = append(c.plan.Steps, s) }

func (c *computation) problem(text string) {
	if !slices.Contains(c.plan.Problems, text) {
		c.plan.Problems = append(c.plan.Problems, text)
	}
}

func (c *computation) wait(role Role, action Action, what string, who []blocker) {
	w := Wait{Role: role, For: action, Reason: what + ": " + inWords(who)}
	for _, b := range who {
		w.Who = append(w.Who, b.String())
		if b.until.IsZero() {
			c.again(c.in.Now.Add(poll))
		} else {
			c.again(b.until)
		}
	}
	c.plan.Waits = append(c.plan.Waits, w)
}

// again keeps the earliest moment.
func (c *computation) again(at time.Time) {
	if c.plan.Again.IsZero() || at.Before(c.plan.Again) {
		c.plan.Again = at
	}
}

func (c *computation) ended(at time.Time) bool { return !c.in.Now.Before(at) }
