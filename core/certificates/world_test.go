package certificates_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan.dev/castellan/core/certificates"
)

const (
	grace        = time.Hour
	leafLifetime = 90 * 24 * time.Hour
	caLifetime   = 900 * 24 * time.Hour
)

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world is a cluster that obeys plans and knows the truth: what every party really presents and trusts.
type world struct {
	t      testing.TB
	now    time.Time
	serial int
	stores map[certificates.Role]*store
	actors []*actor
	truth  map[string]certificates.CA
	edit   func(*certificates.Input) // what an operator sees otherwise
	story  []string                  // what happened, for who must understand a failure
}

// store is the Secret of a CA.
type store struct {
	cas    []certificates.CA
	signs  string
	wish   certificates.Wish
	backup *store
}

// actor is a party: what it was given is durable, what it uses may be older.
type actor struct {
	certificates.Party
	uses      *certificates.Leaf
	trusts    map[certificates.Role][]string
	down      bool
	invisible bool
	// rescued says that its certificate was given in place of one that had ended, or when all had.
	rescued bool
	removed bool
}

func newWorld(t testing.TB, nodes, clients int) *world {
	t.Helper()
	w := &world{t: t, now: began, stores: map[certificates.Role]*store{}, truth: map[string]certificates.CA{}}
	for _, r := range roles() {
		w.stores[r] = &store{}
	}
	w.join("operator", certificates.Operator)
	for range nodes {
		w.join(w.nodeName(), certificates.Node)
	}
	for i := range clients {
		w.join(fmt.Sprint("user ", i), certificates.Client)
	}
	w.settle("a new cluster")
	return w
}

func roles() []certificates.Role {
	return []certificates.Role{certificates.Cluster, certificates.Clients}
}

func (w *world) nodeName() string {
	n := 0
	for _, a := range w.actors {
		if a.Kind == certificates.Node {
			n++
		}
	}
	return fmt.Sprint("node ", n)
}

func (w *world) join(name string, kind certificates.Kind) *actor {
	a := &actor{Party: certificates.Party{Name: name, Kind: kind, New: true, Presents: certificates.Cluster, Trust: map[certificates.Role]certificates.Trust{certificates.Cluster: {}}}, trusts: map[certificates.Role][]string{}}
	switch kind {
	case certificates.Client:
		a.Presents = certificates.Clients
	case certificates.Node:
		a.Trust[certificates.Clients] = certificates.Trust{}
	case certificates.Operator:
	}
	w.actors = append(w.actors, a)
	return a
}

func (w *world) actor(name string) *actor {
	w.t.Helper()
	for _, a := range w.actors {
		if a.Name == name {
			return a
		}
	}
	w.t.Fatalf("no %s", name)
	return nil
}

func (w *world) draw(prefix string) string {
	w.serial++
	return fmt.Sprintf("sha256:%s%06d", prefix, w.serial)
}

// ca makes a CA of a generation; with anchor it is an intermediate below that.
func (w *world) ca(prefix, anchor string, generation int64) certificates.CA {
	id := w.draw(prefix)
	ca := certificates.CA{ID: id, Anchor: id, NotBefore: w.now, NotAfter: w.now.Add(caLifetime), HasKey: true, Generation: generation}
	if anchor != "" {
		ca.Anchor = anchor
	}
	w.truth[id] = ca
	return ca
}

// running says that an actor takes part: it has what it needs to start, and did.
func (a *actor) running() bool {
	if a.down || a.removed || a.uses == nil {
		return false
	}
	for role := range a.Trust {
		if a.trusts[role] == nil {
			return false
		}
	}
	return true
}

// take lets an actor use what it was given; a role stands for its bundle, "" for its leaf.
func (a *actor) take(what certificates.Role) {
	if what == "" {
		if a.Leaf != nil {
			leaf := *a.Leaf
			a.uses = &leaf
		}
		return
	}
	if t, ok := a.Trust[what]; ok && t.Anchors != nil {
		a.trusts[what] = slices.Clone(t.Anchors)
	}
}

func (a *actor) takeAll() {
	for _, r := range append(roles(), "") {
		a.take(r)
	}
}

// input is what an operator would see now; what it saw of an invisible one stays as it was.
func (w *world) input() certificates.Input {
	in := certificates.Input{Now: w.now, Since: w.now, ClientGrace: grace, LeafLifetime: leafLifetime}
	for _, r := range roles() {
		s := w.stores[r]
		in.Authorities = append(in.Authorities, certificates.Authority{
			Role: r, Secret: "orders-" + string(r), CAs: slices.Clone(s.cas), Signs: s.signs, Found: w.found(r), Wish: s.wish,
		})
	}
	for _, a := range w.actors {
		if a.removed {
			continue
		}
		if a.Kind != certificates.Client {
			w.look(a)
		}
		p := a.Party
		p.Trust = maps.Clone(a.Trust)
		in.Parties = append(in.Parties, p)
	}
	return in
}

func (w *world) look(a *actor) {
	if a.invisible {
		return // the last look grows old
	}
	if !a.running() {
		a.Seen = certificates.Seen{At: w.now, By: "the operator", Fault: "does not answer"}
		return
	}
	a.Seen = certificates.Seen{At: w.now, By: "the operator", Trusts: map[certificates.Role]map[string]bool{}}
	issuer := a.uses.Issuer
	if s := w.stores[certificates.Cluster]; !slices.ContainsFunc(s.cas, func(ca certificates.CA) bool { return ca.ID == issuer }) {
		issuer = ""
	}
	a.Seen.Presents = []certificates.Presented{{Endpoint: "INTERNAL", Digest: a.uses.Digest, Issuer: issuer, NotAfter: a.uses.NotAfter}}
	for r := range a.Trust {
		a.Seen.Trusts[r] = map[string]bool{}
		for _, ca := range w.stores[r].cas {
			if ca.HasKey {
				a.Seen.Trusts[r][ca.Anchor] = slices.Contains(a.trusts[r], ca.Anchor)
			}
		}
	}
}

// found are CAs that parties were given and that the Secret does not know.
func (w *world) found(r certificates.Role) []certificates.CA {
	known := map[string]bool{}
	for _, ca := range w.stores[r].cas {
		known[ca.ID], known[ca.Anchor] = true, true
	}
	var found []certificates.CA
	add := func(id string) {
		if ca, ok := w.truth[id]; ok && !known[id] {
			known[id] = true
			ca.HasKey, ca.Trusted = false, false
			found = append(found, ca)
		}
	}
	for _, a := range w.actors {
		if a.removed {
			continue
		}
		if a.Leaf != nil && a.Presents == r {
			add(a.Leaf.Issuer)
		}
		for _, anchor := range a.Trust[r].Anchors {
			add(anchor)
		}
	}
	return found
}

func (w *world) pass() certificates.Plan {
	in := w.input()
	if w.edit != nil {
		w.edit(&in)
	}
	return certificates.Compute(in)
}

// do does a step.
func (w *world) do(s certificates.Step) {
	w.t.Helper()
	w.story = append(w.story, stepLine(w.now, s))
	at := w.stores[s.Role]
	switch s.Action {
	case certificates.AdoptCAs:
		for _, ca := range s.Adopt {
			ca.Trusted = true
			at.cas = append(at.cas, ca)
		}
		at.signs = s.CA
	case certificates.AddCA:
		w.addCA(at, s)
	case certificates.SignWith:
		at.signs = s.CA
	case certificates.TrustCA, certificates.RetireCA:
		at.cas[w.index(at, s.CA)].Trusted = s.Action == certificates.TrustCA
	case certificates.ForgetCA:
		i := w.index(at, s.CA)
		at.cas = slices.Delete(slices.Clone(at.cas), i, i+1)
	case certificates.GiveTrust:
		a := w.actor(s.Party)
		a.Trust[s.Role] = certificates.Trust{Anchors: s.Anchors, At: w.now}
	case certificates.Issue:
		w.issue(at, s)
	default:
		w.t.Fatalf("step %+v", s)
	}
}

func (w *world) addCA(at *store, s certificates.Step) {
	ca := w.truth[s.CA]
	if s.CA == "" {
		ca = w.ca("ca", "", s.Generation)
	}
	ca.Trusted, ca.HasKey, ca.Own, ca.Generation = true, true, s.Own, s.Generation
	if len(at.cas) == 0 {
		at.signs = ca.ID
	}
	at.cas = slices.DeleteFunc(slices.Clone(at.cas), func(o certificates.CA) bool { return o.ID == ca.ID })
	at.cas = append(at.cas, ca)
	w.truth[ca.ID] = ca
}

func (w *world) issue(at *store, s certificates.Step) {
	w.t.Helper()
	a, ca := w.actor(s.Party), at.cas[w.index(at, s.CA)]
	if !ca.HasKey || !w.now.Before(ca.NotAfter) {
		w.t.Fatalf("%s cannot sign: %+v", ca.ID, s)
	}
	end := w.now.Add(leafLifetime)
	if end.After(ca.NotAfter) {
		end = ca.NotAfter
	}
	a.rescued = w.over(a.uses) || w.allOver(s.Role)
	a.Leaf = &certificates.Leaf{Digest: w.draw("leaf"), Issuer: ca.ID, NotBefore: w.now, NotAfter: end, Names: true}
	a.LeafAt, a.New = w.now, false
}

func (w *world) over(l *certificates.Leaf) bool { return l != nil && !w.now.Before(l.NotAfter) }

// allOver says that whatever others went by has ended.
func (w *world) allOver(role certificates.Role) bool {
	over := false
	for _, a := range w.actors {
		switch {
		case a.removed || a.Presents != role || a.uses == nil:
		case !a.rescued && !w.over(a.uses):
			return false
		default:
			over = true
		}
	}
	return over
}

func (w *world) index(at *store, id string) int {
	w.t.Helper()
	i := slices.IndexFunc(at.cas, func(ca certificates.CA) bool { return ca.ID == id })
	if i < 0 {
		w.t.Fatalf("no CA %s", id)
	}
	return i
}

// check holds that no two that run refuse one another.
func (w *world) check(when string) {
	w.t.Helper()
	for _, p := range w.actors {
		if !p.running() || p.rescued || !w.now.Before(p.uses.NotAfter) {
			continue
		}
		anchor := w.truth[p.uses.Issuer].Anchor
		for _, t := range w.actors {
			trusts, needs := t.trusts[p.Presents]
			if needs && t.running() && !slices.Contains(trusts, anchor) && w.alive(trusts) {
				w.tell()
				w.t.Fatalf("%s: %s refuses %s, whose certificate is of %s: it trusts %v", when, t.Name, p.Name, p.uses.Issuer, trusts)
			}
		}
	}
}

// alive says that one of the anchors has not ended: else nobody is trusted anyway.
func (w *world) alive(anchors []string) bool {
	return slices.ContainsFunc(anchors, func(a string) bool { ca, known := w.truth[a]; return !known || w.now.Before(ca.NotAfter) })
}

// advance lets time pass; clients take what they were given within the grace.
func (w *world) advance(d time.Duration) {
	w.now = w.now.Add(d)
	for _, a := range w.actors {
		if a.Kind != certificates.Client {
			continue
		}
		if !w.now.Before(a.LeafAt.Add(grace)) {
			a.take("")
		}
		for r, t := range a.Trust {
			if !w.now.Before(t.At.Add(grace)) {
				a.take(r)
			}
		}
	}
}

// passes is how many passes any repair may take when everybody answers.
const passes = 30

// settle lets everybody answer and the plan go on to its end, and says what was done.
func (w *world) settle(when string) []string {
	w.t.Helper()
	for _, a := range w.actors {
		a.down, a.invisible = false, false
	}
	var done []string
	for range passes {
		plan := w.pass()
		for _, s := range plan.Steps {
			done = append(done, string(s.Action)+" "+string(s.Role)+" "+s.Party)
			w.do(s)
			w.check(when)
		}
		for _, a := range w.actors {
			if a.Kind != certificates.Client || a.uses == nil {
				a.takeAll()
				w.check(when)
			}
		}
		if len(plan.Steps) == 0 && len(plan.Waits) == 0 {
			w.inOrder(when)
			return done
		}
		if len(plan.Steps) == 0 {
			if !plan.Again.After(w.now) || plan.Again.After(w.now.Add(2*grace)) {
				w.t.Fatalf("%s: waits for %v and looks again at %s, it is %s", when, plan.Waits, plan.Again, w.now)
			}
			w.advance(max(plan.Again.Sub(w.now), grace/4))
			w.check(when)
		}
	}
	w.tell()
	w.t.Fatalf("%s: not done after %d passes: %+v", when, passes, w.pass())
	return nil
}

// inOrder holds that at the end one CA is left, and that everybody uses it alone.
func (w *world) inOrder(when string) {
	w.t.Helper()
	for _, a := range w.actors {
		a.rescued = false // all trust it now
	}
	for _, r := range roles() {
		s := w.stores[r]
		if len(s.cas) != 1 || s.cas[0].ID != s.signs || !s.cas[0].HasKey {
			w.t.Fatalf("%s: CAs at the end: %+v, %s signs", when, s.cas, s.signs)
		}
		if s.wish.Own != nil && len(s.wish.Own.Faults) == 0 && s.signs != s.wish.Own.CA.ID {
			w.t.Fatalf("%s: the user's own CA does not sign", when)
		}
		for _, a := range w.actors {
			if t, needs := a.trusts[r]; needs && !a.removed && !slices.Equal(t, []string{s.cas[0].Anchor}) && a.Kind != certificates.Client {
				w.t.Fatalf("%s: %s trusts %v at the end", when, a.Name, t)
			}
			if !a.removed && a.Presents == r && (a.Leaf.Issuer != s.signs || !w.now.Before(a.Leaf.NotAfter)) {
				w.t.Fatalf("%s: %s has %+v at the end", when, a.Name, a.Leaf)
			}
		}
	}
}

func stepLine(now time.Time, s certificates.Step) string {
	return fmt.Sprintf("%s   %s %s %s%s: %s", now.Format(time.DateTime), s.Action, s.Role, s.CA, s.Party, s.Reason)
}

func (w *world) tell() {
	w.t.Helper()
	w.t.Log(strings.Join(w.story[max(0, len(w.story)-60):], "\n"))
}
