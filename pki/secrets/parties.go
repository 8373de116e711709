package secrets

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/pki/authority"
)

// place is a Secret of this package that a party uses.
type place struct {
	name   string
	kind   certificates.Kind
	secret string
	form   corev1.SecretType
	// request is what its certificate must be; nil is none.
	request *pki.Request
	node    *pki.Node
	trusts  []certificates.Role
	// draft is what a Secret will hold that is not written yet.
	draft map[string][]byte
}

// User is a client with a Secret that others write.
type User struct {
	// Name is what a person calls it.
	Name   string
	Secret *corev1.Secret
	// Certificate is the key of its chain; empty when it presents none.
	Certificate string
}

// NodeName is what a node is called among the parties.
func NodeName(id int32) string { return "node " + itoa(id) }

// parties lists the Secrets that are kept here.
func (w *work) parties() {
	name := w.kc.Name
	operator := pki.OperatorRequest()
	both := []certificates.Role{certificates.Cluster, certificates.Clients}
	w.places = []*place{
		{name: "whoever uses Secret " + pki.TrustSecretName(name), kind: certificates.Client, secret: pki.TrustSecretName(name), form: corev1.SecretTypeOpaque, trusts: both[:1]},
		{name: "operator", kind: certificates.Operator, secret: pki.OperatorSecretName(name), form: corev1.SecretTypeTLS, request: &operator, trusts: both[:1]},
	}
	clients := slices.ContainsFunc(w.want.Listeners, mutual)
	for i := range w.want.Nodes {
		n := &w.want.Nodes[i]
		request := pki.NodeRequest(*n)
		p := &place{name: NodeName(n.ID), kind: certificates.Node, secret: pki.NodeSecretName(name, n.ID), form: corev1.SecretTypeOpaque, request: &request, node: n, trusts: both[:1]}
		if n.Broker && (clients || slices.Contains(n.Needs, layout.KeyClientsCAPEM)) {
			p.trusts = both
		}
		w.places = append(w.places, p)
	}
}

func (w *work) place(party string) *place {
	if i := slices.IndexFunc(w.places, func(p *place) bool { return p.name == party }); i >= 0 && party != "" {
		return w.places[i]
	}
	return nil
}

// data is a copy of what a party's Secret holds, or will.
func (w *work) data(p *place) map[string][]byte {
	data := map[string][]byte{}
	if p.draft != nil {
		maps.Copy(data, p.draft)
	} else if secret := w.w.existing[p.secret]; secret != nil {
		maps.Copy(data, secret.Data)
	}
	return data
}

// put writes a party's Secret; a broker's with the files of its listeners.
func (w *work) put(ctx context.Context, p *place, data map[string][]byte) error {
	if p.node != nil {
		whole := map[string][]byte{}
		if p.node.Broker {
			whole = w.files.of(*p.node, data)
		}
		for _, key := range append([]string{layout.KeyNodePEM}, p.bundles()...) {
			if content, has := data[key]; has {
				whole[key] = content
			}
		}
		data = whole
	}
	p.draft = nil
	return w.w.put(ctx, p.secret, p.form, data)
}

func (p *place) bundles() []string {
	var keys []string
	for _, r := range p.trusts {
		keys = append(keys, p.bundle(r))
	}
	return keys
}

// bundle is the key with what it trusts.
func (p *place) bundle(r certificates.Role) string {
	if p.node != nil {
		return keyOf(r)
	}
	return pki.KeyCACert
}

// leaf is its certificate; what cannot be read is none.
func (w *work) leaf(p *place, data map[string][]byte) *certificates.Leaf {
	content := data[layout.KeyNodePEM]
	if p.node == nil {
		content = slices.Concat(data[pki.KeyTLSKey], data[pki.KeyTLSCert])
	}
	memo := w.sight.leaf(p.name, content, w.held(certificates.Cluster).known())
	if memo.cert == nil {
		return nil
	}
	leaf := memo.facts
	leaf.Names = p.request.Serves(memo.cert)
	return &leaf
}

func (p *place) setPair(data map[string][]byte, pair pki.Pair) {
	if p.node != nil {
		data[layout.KeyNodePEM] = pair.PEM()
		return
	}
	data[pki.KeyTLSCert], data[pki.KeyTLSKey] = pair.Chain, pair.Key
}

// party is what decisions know of it.
func (w *work) party(p *place) certificates.Party {
	secret, data := w.w.existing[p.secret], w.data(p)
	out := certificates.Party{Name: p.name, Kind: p.kind, Trust: map[certificates.Role]certificates.Trust{}, Seen: w.sight.seen[p.name]}
	out.New = p.request != nil && secret == nil && (p.node == nil || !p.node.Had)
	for _, r := range p.trusts {
		out.Trust[r] = certificates.Trust{Anchors: w.sight.anchors(data[p.bundle(r)]), At: givenAt(secret, pki.TrustGiven)}
	}
	if p.request != nil {
		out.Presents = certificates.Cluster
		out.Leaf = w.leaf(p, data)
	}
	if p.kind == certificates.Operator {
		out.Seen = w.seesItself(out)
	}
	return out
}

// seesItself: the operator's next connection uses what its Secret holds.
func (w *work) seesItself(p certificates.Party) certificates.Seen {
	trusts := map[string]bool{}
	for _, ca := range w.held(certificates.Cluster).authority.CAs {
		anchor := pki.Digest(ca.Anchor())
		trusts[anchor] = slices.Contains(p.Trust[certificates.Cluster].Anchors, anchor)
	}
	seen := certificates.Seen{At: w.s.now(), By: p.Name, Trusts: map[certificates.Role]map[string]bool{certificates.Cluster: trusts}}
	if l := p.Leaf; l != nil {
		seen.Presents = []certificates.Presented{{Endpoint: p.Name, Digest: l.Digest, Issuer: l.Issuer, NotAfter: l.NotAfter}}
	}
	return seen
}

// givenAt is when a Secret came to hold what it does; before that was noted nothing of it had changed.
func givenAt(secret *corev1.Secret, annotation string) time.Time {
	if secret == nil {
		return time.Time{}
	}
	if at, err := time.Parse(time.RFC3339Nano, secret.Annotations[annotation]); err == nil {
		return at
	}
	return secret.CreationTimestamp.Time
}

// readUsers reads the Secrets of users while a CA is being replaced: else nothing depends on them.
func (w *work) readUsers(ctx context.Context) error {
	replaced := slices.ContainsFunc(w.cas, func(h *held) bool { return len(h.authority.CAs) > 1 })
	if !replaced {
		w.users, w.sight.users = nil, nil
		return nil
	}
	if w.users != nil || w.s.Users == nil {
		return nil
	}
	users, err := w.s.Users(ctx)
	w.users = users
	return err
}

// user is what decisions know of a user; ok is false where nothing of its Secret is of these CAs.
func (w *work) user(u *User) (p certificates.Party, ok bool) {
	memo := w.sight.recall(u, w.cas)
	if memo.known {
		return memo.party, memo.ok
	}
	p = certificates.Party{Name: u.Name, Kind: certificates.Client, Trust: map[certificates.Role]certificates.Trust{}}
	anchors := authority.Anchors(u.Secret.Data[pki.KeyCACert])
	if slices.ContainsFunc(w.held(certificates.Cluster).authority.CAs, func(ca authority.CA) bool { return slices.Contains(anchors, pki.Digest(ca.Anchor())) }) {
		p.Trust[certificates.Cluster] = certificates.Trust{Anchors: anchors, At: givenAt(u.Secret, pki.TrustGiven)}
		ok = true
	}
	if h := w.held(certificates.Clients); h != nil && u.Certificate != "" {
		p.Presents, p.LeafAt, ok = certificates.Clients, givenAt(u.Secret, pki.CertificateGiven), true
		if chain, err := pki.ParseCertificates(u.Secret.Data[u.Certificate]); err == nil {
			leaf := chain[0]
			p.Leaf = &certificates.Leaf{Digest: pki.Digest(leaf), Issuer: h.known().IssuerOf(chain), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Names: true}
		}
	}
	memo.known, memo.party, memo.ok = true, p, ok
	return p, ok
}
