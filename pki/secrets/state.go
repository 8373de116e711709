package secrets

import (
	"slices"
	"strings"
	"time"

	"castellan.dev/castellan/core/certificates"
)

// Reasons of a State, beside the phases of core/certificates.
const (
	ReasonSettled = "Settled"
	ReasonFault   = "Fault"
)

// State says how the certificates are, in words that change only when something has.
type State struct {
	// Settled says that nothing is being replaced and nobody has to do anything.
	Settled bool
	// Reason is a word for programs, Message for people.
	Reason, Message string
}

// inWords are the phases.
func inWords(p certificates.Phase) string {
	switch p {
	case certificates.TrustBoth:
		return "CA is being replaced, step 1 of 3: the new one is trusted beside the old one"
	case certificates.Reissue:
		return "CA is being replaced, step 2 of 3: the new one signs, and everybody is given a certificate of it"
	case certificates.TrustNew:
		return "CA is being replaced, step 3 of 3: the old one is no longer trusted"
	default:
		return "CA is not known"
	}
}

func (w *work) state(plan certificates.Plan) State {
	st := State{Reason: ReasonSettled}
	texts := slices.Clone(plan.Problems)
	if len(plan.Problems) > 0 {
		st.Reason = ReasonFault
	}
	for _, h := range w.cas {
		role := h.role.role
		waits := w.waits(plan, role)
		switch phase := plan.Phases[role]; {
		case phase == certificates.Steady && len(waits) == 0:
		case phase == certificates.Steady, phase == certificates.Unknown && len(waits) > 0:
			texts = append(texts, waits...)
			if st.Reason == ReasonSettled {
				st.Reason = "Waiting"
			}
		default:
			texts = append(texts, strings.Join(append([]string{"the " + string(role) + " " + inWords(phase)}, waits...), "; "))
			if st.Reason == ReasonSettled {
				st.Reason = string(phase)
			}
		}
	}
	if st.Message = strings.Join(texts, " | "); st.Message == "" {
		st.Settled, st.Message = true, w.settled()
	}
	return st
}

// waits are for whom a role waits, as far as it was looked at since the last step.
func (w *work) waits(plan certificates.Plan, role certificates.Role) []string {
	var texts []string
	for _, wait := range plan.Waits {
		switch {
		case wait.Role != role:
		case wait.For == "" && plan.Phases[role] != certificates.Unknown && w.s.now().Sub(w.sight.changed) < patience:
		case w.sight.at.Before(w.sight.changed) || len(w.done) > 0:
			if plan.Phases[role] == certificates.Unknown {
				texts = append(texts, wait.Reason)
			}
		default:
			texts = append(texts, wait.Reason)
		}
	}
	return texts
}

// settled says until when the CAs live.
func (w *work) settled() string {
	var texts []string
	for _, h := range w.cas {
		if ca, ok := h.authority.CA(h.authority.Signs); ok {
			text := "the " + string(h.role.role) + " CA ends at " + ca.NotAfter().UTC().Format(time.RFC3339)
			if ca.Own != "" {
				text += " (Secret " + ca.Own + ")"
			}
			texts = append(texts, text)
		}
	}
	return "every certificate is in order; " + strings.Join(texts, ", ")
}
