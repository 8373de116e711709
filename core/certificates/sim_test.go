package certificates_test

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan.dev/castellan/core/certificates"
)

// A replacement in full, and that it is bounded: the CA's Secret changes four times, everybody's trust twice, everybody's
// certificate once.
func TestReplacementOfEachCA(t *testing.T) {
	for _, role := range roles() {
		w := newWorld(t, 3, 2)
		w.stores[role].wish.Generation = 1
		done := w.settle("replace the " + string(role) + " CA")
		count := map[string]int{}
		for _, d := range done {
			count[strings.Fields(d)[0]]++
		}
		trusters, presenters := 6, 4
		if role == certificates.Clients {
			trusters, presenters = 3, 2
		}
		want := map[string]int{"AddCA": 1, "SignWith": 1, "RetireCA": 1, "ForgetCA": 1, "GiveTrust": 2 * trusters, "Issue": presenters}
		if fmt.Sprint(count) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", role, count, want)
		}
	}
}

// Nothing happens in a cluster that is in order, until certificates are due; then not to all nodes at once.
func TestQuietUntilDue(t *testing.T) {
	w := newWorld(t, 5, 0)
	plan := w.pass()
	if len(plan.Steps)+len(plan.Waits)+len(plan.Problems) > 0 {
		t.Fatalf("in order, and yet %+v", plan)
	}
	first, last := plan.Again, plan.Again
	for range 6 {
		plan = w.pass()
		if len(plan.Steps) > 0 {
			t.Fatalf("an hour early: %+v", plan.Steps)
		}
		last = plan.Again
		w.advance(plan.Again.Sub(w.now))
		if plan = w.pass(); len(plan.Steps) != 1 || plan.Steps[0].Action != certificates.Issue {
			t.Fatalf("at %s one certificate is due, not %+v", w.now, plan.Steps)
		}
		w.do(plan.Steps[0])
		for _, a := range w.actors {
			a.takeAll()
		}
		w.check("renewal")
	}
	if got := first.Sub(began); got < leafLifetime/3*2 || last.Sub(began) > leafLifetime/3*2+leafLifetime/30 || last.Equal(first) {
		t.Errorf("renewals between %s and %s after the begin", got, last.Sub(began))
	}
}

// A node that cannot be seen, for each way in which that may be, keeps its trust and blocks with its name.
func TestWhoIsNotSeenBlocks(t *testing.T) {
	for name, hide := range map[string]func(*actor){
		"does not answer":        func(a *actor) { a.down = true },
		"was seen only earlier":  func(a *actor) { a.invisible = true },
		"has not read its files": func(*actor) {},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3, 0)
			w.stores[certificates.Cluster].wish.Generation = 1
			hide(w.actor("node 1"))
			for range passes {
				for _, s := range w.pass().Steps {
					w.do(s)
				}
				for _, a := range w.actors {
					if a.Name != "node 1" {
						a.takeAll()
					}
				}
				w.advance(time.Minute)
				w.check(name)
			}
			waits := w.pass().Waits
			if !slices.ContainsFunc(waits, func(wait certificates.Wait) bool {
				return wait.For == certificates.SignWith && len(wait.Who) == 1 && strings.HasPrefix(wait.Who[0], "node 1 ")
			}) {
				t.Errorf("node 1 must block, and be named: %+v", waits)
			}
			w.settle(name)
		})
	}
}

// Wherever the spec is put back, the old CA signs at the end if it was still there.
func TestTurnRound(t *testing.T) {
	for after := range 12 {
		w := newWorld(t, 2, 1)
		old := w.stores[certificates.Cluster].signs
		w.stores[certificates.Cluster].wish.Generation = 1
		for range after {
			w.step()
		}
		kept := slices.ContainsFunc(w.stores[certificates.Cluster].cas, func(ca certificates.CA) bool { return ca.ID == old })
		w.stores[certificates.Cluster].wish.Generation = 0
		w.settle(fmt.Sprint("put back after ", after))
		if got := w.stores[certificates.Cluster].signs == old; got != kept {
			t.Errorf("after %d passes: the old CA was there: %v, it signs: %v", after, kept, got)
		}
	}
}

// step is one pass with everybody taking up everything, and time for clients.
func (w *world) step() {
	for _, s := range w.pass().Steps {
		w.do(s)
		w.check("step")
	}
	for _, a := range w.actors {
		if a.Kind != certificates.Client {
			a.takeAll()
			w.check("step")
		}
	}
	w.advance(grace)
	w.check("step")
}

// At every point of a replacement each single fault is repaired within a bounded number of passes.
func TestSingleFaults(t *testing.T) {
	for name, fault := range map[string]func(*world, *store){
		"nothing":            func(*world, *store) {},
		"CA deleted":         func(_ *world, s *store) { s.cas, s.signs = nil, "" },
		"CA from the backup": func(_ *world, s *store) { s.cas, s.signs = slices.Clone(s.backup.cas), s.backup.signs },
		"everything ended":   func(w *world, _ *store) { w.advance(caLifetime + time.Hour) },
		"leaves ended":       func(w *world, _ *store) { w.advance(leafLifetime + time.Hour) },
		"node's Secret gone": func(w *world, _ *store) { w.actor("node 1").forgetSecret() },
		"new node":           func(w *world, _ *store) { w.join(w.nodeName(), certificates.Node) },
		"another wish":       func(_ *world, s *store) { s.wish.Generation += 2 },
		"own CA":             func(w *world, s *store) { s.wish.Own = w.own("") },
		"unusable own CA": func(w *world, s *store) {
			s.wish.Own = &certificates.Given{Secret: "mine", Faults: []certificates.Fault{{Secret: "mine", Key: "tls.key", Reason: "is missing", Remedy: "put it there"}}}
		},
	} {
		for _, role := range roles() {
			for after := range 12 {
				t.Run(fmt.Sprint(name, " ", role, " after ", after), func(t *testing.T) {
					w := newWorld(t, 3, 2)
					s := w.stores[role]
					s.backup = &store{cas: slices.Clone(s.cas), signs: s.signs}
					s.wish.Generation = 1
					for range after {
						w.step()
					}
					fault(w, s)
					if s.wish.Own != nil && len(s.wish.Own.Faults) > 0 {
						w.keepsRunning()
						return
					}
					w.settle(name)
				})
			}
		}
	}
}

// keepsRunning holds that nothing is lost, and the fault is told, however often one looks.
func (w *world) keepsRunning() {
	w.t.Helper()
	for range passes {
		w.step()
	}
	if problems := w.pass().Problems; len(problems) != 1 || !strings.HasPrefix(problems[0], "Secret mine, key tls.key: is missing") {
		w.t.Errorf("problems: %q", problems)
	}
}

func (a *actor) forgetSecret() {
	a.Leaf, a.LeafAt = nil, time.Time{}
	for r := range a.Trust {
		a.Trust[r] = certificates.Trust{}
	}
}

func (w *world) own(anchor string) *certificates.Given {
	ca := w.ca("own", anchor, 0)
	ca.Own = "mine"
	return &certificates.Given{Secret: "mine", CA: ca}
}

// An intermediate is replaced below its root without touching anybody's trust.
func TestIntermediateUnderTheSameRoot(t *testing.T) {
	w := newWorld(t, 2, 1)
	root := "sha256:root"
	w.truth[root] = certificates.CA{ID: root, Anchor: root, NotAfter: began.Add(9 * caLifetime)}
	s := w.stores[certificates.Cluster]
	s.wish.Own = w.own(root)
	w.settle("own CA")
	w.advance(time.Hour)
	s.wish.Own = w.own(root)
	for _, d := range w.settle("next intermediate") {
		if strings.HasPrefix(d, "GiveTrust") {
			t.Errorf("trust was touched: %s", d)
		}
	}
}

// A century of nothing but time: every certificate and CA is renewed in its time.
func TestLongLife(t *testing.T) {
	w := newWorld(t, 3, 1)
	first := w.stores[certificates.Cluster].signs
	for range 400 {
		w.step()
		if again := w.pass().Again; again.After(w.now) {
			w.advance(again.Sub(w.now))
		}
		for _, a := range w.actors {
			if a.uses != nil && !w.now.Before(a.uses.NotAfter) {
				t.Fatalf("%s: the certificate of %s ended at %s", w.now, a.Name, a.uses.NotAfter)
			}
		}
		w.check("long life")
	}
	if w.now.Before(began.Add(2*caLifetime)) || w.stores[certificates.Cluster].signs == first {
		t.Errorf("it is %s, and %s signs", w.now, w.stores[certificates.Cluster].signs)
	}
}

// TestRandomLives runs scripts of the fuzz test that no seed file holds.
func TestRandomLives(t *testing.T) {
	random := rand.New(rand.NewSource(7))
	for range 600 {
		script := make([]byte, 20+random.Intn(160))
		for i := range script {
			script[i] = byte(random.Intn(256))
		}
		live(t, script)
	}
}

func FuzzLives(f *testing.F) {
	f.Add([]byte{6, 0, 0, 0, 3, 0, 0, 2, 1, 9, 0, 0})
	f.Add([]byte{6, 1, 0, 0, 2, 3, 0, 0, 10, 1, 0, 0, 12, 3, 0, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 400 {
			return
		}
		live(t, script)
	})
}

// live reads a script of events, two bytes each, and at its end everything must be put in order.
func live(t *testing.T, script []byte) {
	t.Helper()
	w := newWorld(t, 3, 2)
	for i := 0; i+1 < len(script); i += 2 {
		name := w.event(script[i], int(script[i+1]))
		w.story = append(w.story, fmt.Sprint(w.now.Format(time.DateTime), " ", name, " ", w.actors[int(script[i+1])%len(w.actors)].Name, " ", roles()[int(script[i+1])%2]))
		w.check(fmt.Sprintf("event %d (%s) of %v", i/2, name, script))
	}
	for _, s := range w.stores {
		if s.wish.Own != nil && len(s.wish.Own.Faults) > 0 {
			s.wish.Own = nil
		}
	}
	w.settle(fmt.Sprintf("the end of %v", script))
}

func (w *world) event(what byte, arg int) string {
	a := w.actors[arg%len(w.actors)]
	role := roles()[arg%2]
	s := w.stores[role]
	switch what % 18 {
	case 0, 1:
		for _, step := range w.pass().Steps {
			w.do(step)
		}
		return "pass"
	case 2:
		steps := w.pass().Steps
		for _, step := range steps[:min(len(steps), arg%5)] {
			w.do(step)
		}
		return "operator killed"
	case 3, 4:
		a.take(append(roles(), "")[arg/16%3])
		return "take up"
	case 5, 6:
		if a.Kind == certificates.Node {
			a.takeAll()
		}
		return "take up all"
	case 7:
		a.down = a.Kind == certificates.Node && !a.down
		return "down or up"
	case 8:
		// One that runs, cannot be seen and lost its Secret looks like one that cannot start for want of it.
		a.invisible = a.Kind == certificates.Node && !a.invisible && a.Leaf != nil
		return "invisible or visible"
	default:
		return w.rarely(what%18, arg, a, s)
	}
}

func (w *world) rarely(what byte, arg int, a *actor, s *store) string {
	switch what {
	case 9:
		s.wish.Generation++
	case 10:
		s.wish.Generation = max(0, s.wish.Generation-1)
	case 11:
		s.wish.Own = nil
		if arg%3 > 0 {
			s.wish.Own = w.own("")
		}
	case 12:
		s.wish.Own = &certificates.Given{Secret: "mine", Faults: []certificates.Fault{{Secret: "mine", Key: "tls.key"}}}
	case 13:
		w.advance([]time.Duration{time.Minute, grace, 24 * time.Hour, 20 * 24 * time.Hour}[arg%4])
		return "time"
	case 14:
		s.backup = &store{cas: slices.Clone(s.cas), signs: s.signs}
	case 15:
		if arg%8 == 0 {
			s.cas, s.signs = nil, ""
			return "CA deleted"
		}
	case 16:
		if s.backup != nil && arg%8 == 0 {
			s.cas, s.signs = slices.Clone(s.backup.cas), s.backup.signs
			return "CA from the backup"
		}
	case 17:
		switch nodes := len(w.actors); {
		case arg%4 == 0 && nodes < 8:
			w.join(w.nodeName(), certificates.Node)
		case arg%4 == 1 && a.Kind == certificates.Node && a.Name != "node 0":
			a.removed = true
		case arg%4 == 2 && !a.invisible:
			a.forgetSecret()
		}
	}
	return fmt.Sprint("event ", what)
}
