package secrets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/pki/authority"
)

// How often the nodes are looked at: soon after something has changed, ever less often while nobody follows, and
// seldom while nothing is to be seen.
const (
	soonest = 2 * time.Second
	slowest = 10 * time.Second
	seldom  = time.Minute
	// patience is how long a node may take to present what it was given before anybody is told.
	patience = time.Minute
	// waited is how long a node is looked at often that does not present what it was given.
	waited = 5 * time.Minute
)

// Look looks at the live endpoints of every node, and says what each showed, by [NodeName].
type Look func(context.Context, Probe) map[string]certificates.Seen

// Probe is with what to look.
type Probe struct {
	Identities []Identity
	// IssuerOf is the ID of the CA of a chain, leaf first; empty when it is of none that is known.
	IssuerOf func(chain []*x509.Certificate) string
}

// Identity is a client certificate of a CA, to see whether it is accepted.
type Identity struct {
	Role certificates.Role
	// Anchor is the digest of what must be trusted for it.
	Anchor      string
	Certificate tls.Certificate
}

// Sight is what was seen of one cluster, for one pass at a time. It is lost with the process: then it is looked again.
type Sight struct {
	// at is when the last look began, due when the next one may.
	at, due time.Time
	seen    map[string]certificates.Seen
	// changed is when the last step was done.
	changed time.Time
	users   map[types.UID]*userMemo
	cas     string
	leaves  map[string]leafMemo
	// bundle and trusted are the bundle that was read last; most are the same.
	bundle  []byte
	trusted []string
}

// leafMemo spares to read a certificate again, and to find who signed it.
type leafMemo struct {
	content [sha256.Size]byte
	cas     string
	cert    *x509.Certificate
	facts   certificates.Leaf
}

// leaf reads a key and its chain under these CAs; it has no certificate when that is no pair.
func (s *Sight) leaf(of string, content []byte, by authority.Authority) leafMemo {
	want := leafMemo{content: sha256.Sum256(content), cas: namesOf(by)}
	if memo := s.leaves[of]; memo.content == want.content && memo.cas == want.cas {
		return memo
	}
	if pair, err := pki.ParsePair(content); err == nil {
		if chain, err := pki.ParseCertificates(pair.Chain); err == nil {
			c := chain[0]
			want.cert, want.facts = c, certificates.Leaf{Digest: pki.Digest(c), Issuer: by.IssuerOf(chain), NotBefore: c.NotBefore, NotAfter: c.NotAfter}
		}
	}
	if s.leaves == nil {
		s.leaves = map[string]leafMemo{}
	}
	s.leaves[of] = want
	return want
}

// anchors of a bundle.
func (s *Sight) anchors(bundle []byte) []string {
	if s.bundle == nil || !bytes.Equal(s.bundle, bundle) {
		s.bundle, s.trusted = bytes.Clone(bundle), authority.Anchors(bundle)
	}
	return s.trusted
}

func namesOf(a authority.Authority) string {
	var names strings.Builder
	for _, ca := range a.CAs {
		names.WriteString(ca.ID())
	}
	return names.String()
}

// userMemo spares to read certificates again that have not changed.
type userMemo struct {
	version string
	party   certificates.Party
	ok      bool
	known   bool
}

// recall is the memo of a user's Secret under these CAs.
func (s *Sight) recall(u *User, cas []*held) *userMemo {
	parts := make([]string, 0, len(cas))
	for _, h := range cas {
		parts = append(parts, namesOf(h.known()))
	}
	names := strings.Join(parts, "|")
	if s.cas != names || s.users == nil {
		s.cas, s.users = names, map[types.UID]*userMemo{}
	}
	memo := s.users[u.Secret.UID]
	if memo == nil || memo.version != u.Secret.ResourceVersion {
		memo = &userMemo{version: u.Secret.ResourceVersion}
		s.users[u.Secret.UID] = memo
	}
	return memo
}

// next decides when to look again.
func (s *Sight) next(now time.Time, plan certificates.Plan, done []certificates.Step) {
	if len(done) > 0 {
		s.due = now.Add(soonest)
		return
	}
	s.due = s.at.Add(s.pause(now, plan))
}

func (s *Sight) pause(now time.Time, plan certificates.Plan) time.Duration {
	quiet, presented := true, true
	for _, p := range plan.Phases {
		quiet = quiet && (p == certificates.Steady || p == certificates.Unknown)
	}
	for _, w := range plan.Waits {
		presented = presented && w.For != ""
	}
	since := now.Sub(s.changed)
	switch {
	case quiet && len(plan.Waits) == 0, quiet && !presented && since > waited:
		return seldom
	case !quiet && plan.Again.Sub(now) > slowest: // only clients are waited for, and nobody sees those
		return seldom
	default:
		return min(max(since/4, soonest), slowest)
	}
}

// look looks at the nodes with a certificate of each CA whose key is at hand.
func (w *work) look(ctx context.Context) error {
	probe := Probe{IssuerOf: w.held(certificates.Cluster).known().IssuerOf}
	for _, h := range w.cas {
		request := pki.OperatorRequest()
		if h.role.role == certificates.Clients {
			request = pki.Request{CommonName: "castellan-look", Usage: pki.UsageClient}
		}
		for _, ca := range h.authority.CAs {
			now := w.s.now()
			if ca.Key == nil || !now.Before(ca.NotAfter()) {
				continue
			}
			pair, err := ca.Issue(request, time.Hour, now)
			if err != nil {
				return err
			}
			cert, err := tls.X509KeyPair(pair.Chain, pair.Key)
			if err != nil {
				return fmt.Errorf("read back the certificate to look with: %w", err)
			}
			probe.Identities = append(probe.Identities, Identity{Role: h.role.role, Anchor: pki.Digest(ca.Anchor()), Certificate: cert})
		}
	}
	w.sight.at = w.s.now()
	w.sight.seen = w.s.Look(ctx, probe)
	return nil
}

func itoa(id int32) string { return strconv.Itoa(int(id)) }
