package certificates_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"castellan.dev/castellan/core/certificates"
)

// at is a replacement of a CA right before an action, with everything verified, and the ID of the old CA and the new one.
func at(t *testing.T, role certificates.Role, action certificates.Action) (in certificates.Input, before, after string) {
	t.Helper()
	w := newWorld(t, 2, 1)
	before = w.stores[role].signs
	w.stores[role].wish.Generation = 1
	for range passes {
		if has(w.pass(), action) {
			if len(w.stores[role].cas) > 1 {
				after = w.stores[role].cas[1].ID
			}
			return w.input(), before, after
		}
		w.step()
	}
	t.Fatalf("it never comes to %s", action)
	return in, "", ""
}

func has(p certificates.Plan, action certificates.Action) bool {
	return slices.ContainsFunc(p.Steps, func(s certificates.Step) bool { return s.Action == action })
}

// doubt is a fact about one party, which must keep a step from being done.
type doubt struct {
	name  string
	party string
	cast  func(p *certificates.Party, role certificates.Role, before, after string)
}

func unseen() []doubt {
	return []doubt{
		{"was not looked at", "node 1", func(p *certificates.Party, _ certificates.Role, _, _ string) { p.Seen = certificates.Seen{} }},
		{"was looked at before this pass", "node 1", func(p *certificates.Party, _ certificates.Role, _, _ string) {
			p.Seen.At = p.Seen.At.Add(-time.Nanosecond)
		}},
		{"did not answer at one endpoint", "node 1", func(p *certificates.Party, _ certificates.Role, _, _ string) { p.Seen.Fault = "INTERNAL: refused" }},
	}
}

func given(p *certificates.Party, role certificates.Role, at time.Time, anchors ...string) {
	p.Trust[role] = certificates.Trust{Anchors: anchors, At: at}
}

// Each doubt about a single party alone is enough to keep each step from being done, and the party is named.
func TestEachDoubtBlocks(t *testing.T) {
	trusts := append(unseen(),
		doubt{"refuses the new CA", "node 1", func(p *certificates.Party, r certificates.Role, _, after string) { p.Seen.Trusts[r][after] = false }},
		doubt{"is not known to trust it", "node 1", func(p *certificates.Party, r certificates.Role, _, after string) { delete(p.Seen.Trusts[r], after) }},
		doubt{"was not given it", "node 1", func(p *certificates.Party, r certificates.Role, before, _ string) { given(p, r, began, before) }},
	)
	client := []doubt{
		{"a client within its grace", "user 0", func(p *certificates.Party, r certificates.Role, before, after string) {
			given(p, r, p.Trust[r].At.Add(24*time.Hour), before, after)
		}},
		{"a client that was not given it", "user 0", func(p *certificates.Party, r certificates.Role, before, _ string) { given(p, r, began, before) }},
	}
	presents := append(unseen(),
		doubt{"has an old certificate in its Secret", "node 1", func(p *certificates.Party, _ certificates.Role, before, _ string) { p.Leaf.Issuer = before }},
		doubt{"presents an old certificate", "node 1", func(p *certificates.Party, _ certificates.Role, before, _ string) { p.Seen.Presents[0].Issuer = before }},
		doubt{"presents something unknown", "node 1", func(p *certificates.Party, _ certificates.Role, _, _ string) { p.Seen.Presents[0].Issuer = "" }},
		doubt{"presents nothing", "node 1", func(p *certificates.Party, _ certificates.Role, _, _ string) { p.Seen.Presents = nil }},
	)
	forget := append(unseen(),
		doubt{"accepts the old CA still", "node 1", func(p *certificates.Party, r certificates.Role, before, _ string) { p.Seen.Trusts[r][before] = true }},
		doubt{"is not known to refuse it", "node 1", func(p *certificates.Party, r certificates.Role, before, _ string) { delete(p.Seen.Trusts[r], before) }},
		doubt{"is given it", "node 1", func(p *certificates.Party, r certificates.Role, before, after string) {
			given(p, r, began, before, after)
		}},
	)
	clientLeaf := []doubt{
		{"a client with an old certificate", "user 0", func(p *certificates.Party, _ certificates.Role, before, _ string) { p.Leaf.Issuer = before }},
		{"a client within its grace", "user 0", func(p *certificates.Party, _ certificates.Role, _, _ string) { p.LeafAt = p.LeafAt.Add(24 * time.Hour) }},
	}
	for _, c := range []struct {
		action certificates.Action
		role   certificates.Role
		doubts []doubt
	}{
		{certificates.SignWith, certificates.Cluster, append(trusts, client...)},
		{certificates.SignWith, certificates.Clients, trusts},
		{certificates.Issue, certificates.Cluster, append(trusts, client...)},
		{certificates.RetireCA, certificates.Cluster, presents},
		{certificates.RetireCA, certificates.Clients, clientLeaf},
		{certificates.ForgetCA, certificates.Cluster, forget},
		{certificates.ForgetCA, certificates.Clients, forget},
	} {
		for _, d := range c.doubts {
			in, before, after := at(t, c.role, c.action)
			for i := range in.Parties {
				if in.Parties[i].Name == d.party {
					d.cast(&in.Parties[i], c.role, before, after)
				}
			}
			plan := certificates.Compute(in)
			if has(plan, c.action) && (c.action != certificates.Issue || issuesBy(plan, after)) {
				t.Errorf("%s of the %s CA is done although %s %s", c.action, c.role, d.party, d.name)
			}
			if !slices.ContainsFunc(plan.Waits, func(w certificates.Wait) bool {
				return w.For == c.action && slices.ContainsFunc(w.Who, func(who string) bool { return strings.HasPrefix(who, d.party+" ") })
			}) {
				t.Errorf("%s, %s: nobody says that it waits for %s: %+v", c.action, d.name, d.party, plan.Waits)
			}
		}
	}
}

func issuesBy(p certificates.Plan, ca string) bool {
	return slices.ContainsFunc(p.Steps, func(s certificates.Step) bool { return s.Action == certificates.Issue && s.CA == ca })
}
