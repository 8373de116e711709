package entities

import (
	"fmt"
	"slices"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
)

// lookAtUser judges every object that names a principal; the first is in force.
func (w *World) lookAtUser(name string, now time.Time, p *Plan) {
	claims := w.users[name]
	if len(claims) == 0 {
		return
	}
	winner := claims[0]
	var others []*claim
	for _, c := range claims[1:] {
		others = append(others, &c.claim)
		p.Verdicts = append(p.Verdicts, w.lostUser(c, winner))
	}
	from := len(p.Verdicts)
	switch {
	case winner.leaving && winner.held:
		w.leaveUser(winner, now, p)
	case !winner.contends():
		p.Verdicts = append(p.Verdicts, w.lostUser(winner, winner))
		return
	default:
		w.ownUser(winner, now, p)
	}
	p.Verdicts[from] = rivals(p.Verdicts[from], others)
}

// lostUser is an object that is not in force.
func (w *World) lostUser(c, winner *userClaim) Verdict {
	switch {
	case c.leaving:
		return released(&c.claim, "What the principal has in Kafka stays: this object was not in force.")
	case !c.allowed:
		return notAllowed(&c.claim, c.Object.Spec.ClusterRef)
	default:
		return conflict(&c.claim, "User:"+PrincipalName(c.Object), &winner.claim)
	}
}

// leaveUser takes everything of a principal out of Kafka, known or not.
func (w *World) leaveUser(c *userClaim, now time.Time, p *Plan) {
	name := PrincipalName(c.Object)
	switch {
	case w.isGone(&c.claim):
		p.Verdicts = append(p.Verdicts, released(&c.claim, "Everything of the principal is removed from Kafka."))
		return
	case w.reserved[name]:
		p.Verdicts = append(p.Verdicts, released(&c.claim, "What the principal has in Kafka stays: it is Castellan's own or a super user's."))
		return
	case w.have == nil:
		p.Verdicts = append(p.Verdicts, w.unasked(&c.claim))
		return
	}
	has := w.principal(name)
	known := *has
	known.Grants = nil // all at once, below
	if !ownsCredentials(c) {
		known.Scram256, known.Scram512 = 0, 0
	}
	if c.hold.iterations > 0 {
		known.Scram512 = max(known.Scram512, c.hold.iterations)
	}
	do := append(removal(name, &known), DropGrants{name})
	w.act(&c.claim, inForce(&c.claim, ""), do, now, p)
}

// ownsCredentials says whether the credentials of a principal are its object's: with External
// they are somebody else's.
func ownsCredentials(c *userClaim) bool {
	return c.Object.Spec.Authentication.Type != api.UserExternal
}

func (w *World) principal(name string) *Principal {
	if p := w.have.Principals[name]; p != nil {
		return p
	}
	return &Principal{}
}

func (w *World) ownUser(c *userClaim, now time.Time, p *Plan) {
	name := PrincipalName(c.Object)
	if problem := CheckUser(c.Object); problem != "" {
		p.Verdicts = append(p.Verdicts, refused(&c.claim, "InvalidSpec", "%s", problem))
		return
	}
	if w.reserved[name] {
		p.Verdicts = append(p.Verdicts, refused(&c.claim, "ReservedPrincipal", "User:%s is a super user or one of Castellan's own: delete this object and choose another name.", name))
		return
	}
	if w.have == nil {
		p.Verdicts = append(p.Verdicts, w.unasked(&c.claim))
		return
	}
	has := w.principal(name)
	limits := quotaActions(name, userQuotas(c.Object.Spec.Quotas), has.Quotas)
	grants := grantActions(name, grantsOf(&c.Object.Spec), has.Grants)
	login, want, missing := w.credentials(c, has)
	if !c.held && !c.Object.Spec.Adopt && takesOver(has, limits, grants, login) {
		p.Verdicts = append(p.Verdicts, refused(&c.claim, "PrincipalExists", "User:%s has ACLs, a password or quotas in Kafka that do not stand here, and this object did not make them: set spec.adopt to replace them by what stands here, or add them to the spec.", name))
		return
	}
	do := ordered(limits, grants, login)
	v := inForce(&c.claim, fmt.Sprintf("User:%s has in Kafka what stands here.", name))
	v.Verified = !w.unread[name]
	if missing != "" {
		v = refused(&c.claim, "NoPassword", "%s What is in force stays so until then.", missing)
	}
	if c.Object.Spec.Paused {
		p.Verdicts = append(p.Verdicts, paused(&c.claim, v, do))
		return
	}
	from := len(p.Verdicts)
	w.act(&c.claim, v, do, now, p)
	p.Verdicts[from] = holding(&c.claim, p.Verdicts[from], want)
}

// ordered closes doors before it opens any: passwords go first and come last.
func ordered(limits, grants, login []Action) []Action {
	do := make([]Action, 0, len(limits)+len(grants)+len(login))
	var last []Action
	for _, one := range login {
		if _, opens := one.(UpsertCredential); opens {
			last = append(last, one)
			continue
		}
		do = append(do, one)
	}
	return slices.Concat(do, limits, grants, last)
}

// takesOver says whether something that exists would be replaced or removed.
func takesOver(has *Principal, limits, grants, login []Action) bool {
	for _, one := range slices.Concat(limits, grants, login) {
		switch do := one.(type) {
		case DeleteGrant, DeleteCredential:
			return true
		case UpsertCredential:
			if has.Scram512 > 0 {
				return true
			}
		case AlterQuota:
			if do.From != (Limits{}) {
				return true
			}
		}
	}
	return false
}

// credentials are what is to be done about passwords, what is held from then on, and why there
// is none where one is wanted.
func (w *World) credentials(c *userClaim, has *Principal) (do []Action, want hold, missing string) {
	name := PrincipalName(c.Object)
	want = hold{uid: c.uid}
	if c.Object.Spec.Authentication.Type != api.UserScramSha512 {
		ours := c.hold.iterations > 0 && has.Scram512 == c.hold.iterations
		if has.Scram512 > 0 && (ours || ownsCredentials(c)) {
			do = append(do, DeleteCredential{name, ScramSha512})
			want.iterations, want.digest = c.hold.iterations, c.hold.digest
		}
		if has.Scram256 > 0 && ownsCredentials(c) {
			do = append(do, DeleteCredential{name, ScramSha256})
		}
		return do, want, ""
	}
	if has.Scram256 > 0 {
		do = append(do, DeleteCredential{name, ScramSha256})
	}
	if c.Credential.Secret.Digest == "" {
		want.iterations, want.digest = c.hold.iterations, c.hold.digest
		why := c.Credential.Why
		if why == "" {
			why = "The password is not there yet."
		}
		return do, want, why
	}
	want.iterations, want.digest = c.hold.iterations, c.Credential.Secret.Digest
	if c.hold.digest != want.digest || want.iterations == 0 {
		want.iterations = nextIterations(c.hold.iterations, has.Scram512)
	}
	if has.Scram512 != want.iterations {
		do = append(do, UpsertCredential{Principal: name, Iterations: want.iterations, Secret: c.Credential.Secret})
	}
	return do, want, ""
}
