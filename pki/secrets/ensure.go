package secrets

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/core/cluster"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/pki/authority"
)

// Wanted is what the certificates of a cluster are for.
type Wanted struct {
	Listeners    []api.Listener
	Certificates api.Certificates
	Nodes        []pki.Node
}

// most is how many rounds of steps one call makes: each CA may take three before parties are given anything.
const most = 12

// work is one call of Ensure.
type work struct {
	s      Store
	w      writer
	kc     *api.KafkaCluster
	want   Wanted
	began  time.Time
	cas    []*held
	places []*place
	files  listenerFiles
	users  []User
	sight  *Sight
	done   []certificates.Step
}

// Ensure does what is to be done now for the certificates of a cluster, takes up what the listeners' Secrets hold, and
// says what each node has. When nothing is to be done it writes nothing. Any error leaves valid Secrets behind and may
// be retried.
func (s Store) Ensure(ctx context.Context, kc *api.KafkaCluster, want Wanted) (Issued, error) {
	out, err := s.ensure(ctx, s.Client, kc, want)
	if s.Named == nil || !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
		return out, err
	}
	// The cache was behind: what it did not show is read, and decided anew.
	again, err := s.ensure(ctx, s.Named, kc, want)
	again.Done = append(out.Done, again.Done...)
	return again, err
}

func (s Store) ensure(ctx context.Context, from client.Reader, kc *api.KafkaCluster, want Wanted) (Issued, error) {
	w, err := s.open(ctx, from, kc, want)
	if err != nil {
		return Issued{}, err
	}
	err = w.settle(ctx)
	if err == nil {
		err = w.rest(ctx)
	}
	if len(w.done) > 0 {
		w.sight.changed = s.now()
	}
	if err != nil {
		return Issued{Done: w.done}, err
	}
	return w.issued()
}

// open reads everything.
func (s Store) open(ctx context.Context, from client.Reader, kc *api.KafkaCluster, want Wanted) (*work, error) {
	existing, err := list(ctx, from, kc)
	if err != nil {
		return nil, err
	}
	w := &work{s: s, kc: kc, want: want, began: s.now(), sight: s.Sight}
	if w.sight == nil {
		w.sight = &Sight{}
	}
	w.w = writer{client: s.Client, cluster: kc, existing: existing, now: s.now}
	if w.files, err = s.listenerFiles(ctx, kc, want.Listeners); err != nil {
		return nil, err
	}
	for _, r := range roles(kc, want.Certificates) {
		h, err := w.read(ctx, from, r)
		if err != nil {
			return nil, err
		}
		if r.role == certificates.Clients && h.secret == nil && !w.knowsClients() {
			continue
		}
		w.cas = append(w.cas, h)
	}
	w.parties()
	return w, nil
}

// knowsClients says whether anybody comes in by a client's certificate.
func (w *work) knowsClients() bool {
	return w.w.existing[pki.ClientsTrustSecretName(w.kc.Name)] != nil || w.want.Certificates.ClientsCA.SecretRef != nil ||
		slices.ContainsFunc(w.want.Listeners, mutual) ||
		slices.ContainsFunc(w.want.Nodes, func(n pki.Node) bool { return slices.Contains(n.Needs, layout.KeyClientsCAPEM) })
}

func mutual(l api.Listener) bool { return l.Authentication.Type == api.AuthenticationMutualTLS }

// settle does steps until there are none that can be done now. It looks at the nodes once at most, when that is due.
func (w *work) settle(ctx context.Context) error {
	looked := false
	for range most {
		if err := w.readUsers(ctx); err != nil {
			return err
		}
		steps := w.own(certificates.Compute(w.input(w.began)).Steps)
		switch {
		case len(steps) > 0:
			if err := w.do(ctx, steps); err != nil {
				return err
			}
		case looked || len(w.done) > 0 || w.s.Look == nil || w.s.now().Before(w.sight.due):
			return nil
		default:
			looked = true
			if err := w.look(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// own are the steps on Secrets of this package; what users hold others write, by the same CAs.
func (w *work) own(steps []certificates.Step) []certificates.Step {
	return slices.DeleteFunc(steps, func(s certificates.Step) bool { return s.Party != "" && w.place(s.Party) == nil })
}

func (w *work) do(ctx context.Context, steps []certificates.Step) error {
	for _, s := range steps {
		var err error
		switch p := w.place(s.Party); s.Action {
		case certificates.GiveTrust:
			err = w.giveTrust(ctx, p, s)
		case certificates.Issue:
			err = w.issue(ctx, p, s)
		default:
			err = w.change(ctx, s)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.Reason, err)
		}
		delete(w.sight.seen, s.Party) // it was seen before that
		w.done = append(w.done, s)
	}
	for _, p := range w.places {
		if p.draft != nil { // trust without a certificate yet
			if err := w.put(ctx, p, p.draft); err != nil {
				return err
			}
		}
	}
	return nil
}

// change does a step on the Secret of a CA.
func (w *work) change(ctx context.Context, s certificates.Step) error {
	h := w.held(s.Role)
	next, err := h.authority.Apply(s, authority.Material{Name: h.subject, Own: h.own, Found: h.found, Now: w.s.now()})
	if err != nil {
		return err
	}
	data, err := next.Data()
	if err != nil {
		return err
	}
	if h.secret == nil {
		// Create, never apply: whoever was first has made the CA. It outlives the cluster.
		h.secret = newSecret(w.kc, h.role.secret, "Opaque", data)
		err = w.w.create(ctx, h.secret)
	} else {
		h.secret = h.secret.DeepCopy()
		h.secret.Data = data
		err = w.w.update(ctx, h.secret)
	}
	h.authority = next
	return err
}

func (w *work) giveTrust(ctx context.Context, p *place, s certificates.Step) error {
	bundle, err := w.held(s.Role).authority.Bundle(s.Anchors)
	if err != nil {
		return err
	}
	data := w.data(p)
	data[p.bundle(s.Role)] = bundle
	if p.request != nil && w.w.existing[p.secret] == nil {
		p.draft = data // one write, with its certificate
		return nil
	}
	return w.put(ctx, p, data)
}

func (w *work) issue(ctx context.Context, p *place, s certificates.Step) error {
	ca, ok := w.held(s.Role).authority.CA(s.CA)
	if !ok {
		return fmt.Errorf("there is no CA %s", s.CA)
	}
	pair, err := ca.Issue(*p.request, pki.LeafLifetime, w.s.now())
	if err != nil {
		return err
	}
	data := w.data(p)
	p.setPair(data, pair)
	return w.put(ctx, p, data)
}

// rest writes what follows without a decision: the listeners' files, owners, and the clients CA's public half.
func (w *work) rest(ctx context.Context) error {
	for _, p := range w.places {
		if w.w.existing[p.secret] == nil {
			continue
		}
		if err := w.put(ctx, p, w.data(p)); err != nil {
			return err
		}
	}
	h := w.held(certificates.Clients)
	if h == nil || h.unknown != "" || len(h.authority.CAs) == 0 {
		return nil
	}
	facts := h.facts()
	bundle, err := h.authority.Bundle(facts.Anchors())
	if err != nil {
		return err
	}
	return w.w.put(ctx, h.trust, "Opaque", map[string][]byte{pki.KeyCACert: bundle})
}

// issued says what everybody has.
func (w *work) issued() (Issued, error) {
	plan := certificates.Compute(w.input(w.sight.at))
	w.sight.next(w.s.now(), plan, w.done)
	out := Issued{Nodes: map[int32]Certificate{}, OwnTrust: w.files.trust, Faults: w.files.faults, Done: w.done, State: w.state(plan), Again: w.again(plan)}
	var lacking []string
	for _, p := range w.places {
		if p.request == nil {
			continue
		}
		leaf := w.leaf(p, w.data(p))
		switch {
		case leaf == nil && p.node == nil:
			lacking = append(lacking, p.name)
		case leaf != nil && p.node != nil:
			out.Nodes[p.node.ID] = Certificate{Digest: leaf.Digest, NotAfter: leaf.NotAfter}
		}
	}
	if len(lacking) > 0 { // nothing can be asked of any node
		return out, fmt.Errorf("there is no certificate for the %s: %s", strings.Join(lacking, " and the "), out.State.Message)
	}
	return out, nil
}

// again is when to look without an event.
func (w *work) again(plan certificates.Plan) time.Time {
	at := plan.Again
	if w.s.Look != nil && (at.IsZero() || w.sight.due.Before(at)) {
		at = w.sight.due
	}
	return at
}

func (w *work) input(since time.Time) certificates.Input {
	in := certificates.Input{Now: w.s.now(), Since: since, ClientGrace: cluster.ClientGrace(w.want.Certificates), LeafLifetime: pki.LeafLifetime}
	for _, h := range w.cas {
		w.find(h)
		facts := h.facts()
		for _, f := range h.found {
			facts.Found = append(facts.Found, f.Facts())
		}
		in.Authorities = append(in.Authorities, facts)
	}
	for _, p := range w.places {
		in.Parties = append(in.Parties, w.party(p))
	}
	for i := range w.users {
		if p, ok := w.user(&w.users[i]); ok {
			in.Parties = append(in.Parties, p)
		}
	}
	return in
}

func (w *work) held(r certificates.Role) *held {
	if i := slices.IndexFunc(w.cas, func(h *held) bool { return h.role.role == r }); i >= 0 {
		return w.cas[i]
	}
	return nil
}
