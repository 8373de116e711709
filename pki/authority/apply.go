package authority

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/pki"
)

// Material is what steps need beside what the Secret holds.
type Material struct {
	// Name of built-in CAs.
	Name string
	// Own is the user's CA that was judged good in this pass.
	Own *CA
	// Found are the CAs that parties hold, see [Authority.Found].
	Found []CA
	Now   time.Time
}

// Apply does one step to the CAs; what it returns is to be written, with the version of the Secret that was read. It
// fails, and changes nothing, when the step was decided on other facts.
func (a Authority) Apply(s certificates.Step, with Material) (Authority, error) {
	next := Authority{CAs: slices.Clone(a.CAs), Signs: a.Signs}
	at := next.index(s.CA)
	switch s.Action {
	case certificates.AddCA:
		return next.add(s, with)
	case certificates.AdoptCAs:
		return next.adopt(s, with)
	case certificates.SignWith, certificates.TrustCA, certificates.RetireCA, certificates.ForgetCA:
		if at < 0 {
			return a, fmt.Errorf("%s: there is no CA %s", s.Action, s.CA)
		}
	case certificates.GiveTrust, certificates.Issue:
		return a, fmt.Errorf("%s changes a party, not the CA", s.Action)
	}
	switch s.Action {
	case certificates.SignWith:
		next.Signs = s.CA
	case certificates.TrustCA, certificates.RetireCA:
		next.CAs[at].Trusted = s.Action == certificates.TrustCA
	case certificates.ForgetCA:
		next.CAs = slices.Delete(next.CAs, at, at+1)
	default:
		return a, fmt.Errorf("%s is no step of a CA", s.Action)
	}
	return next, nil
}

func (a Authority) add(s certificates.Step, with Material) (Authority, error) {
	ca := CA{}
	switch {
	case s.CA == "":
		made, err := newCA(a.nameOfNext(with), with.Now)
		if err != nil {
			return a, err
		}
		ca = made
	case with.Own != nil && with.Own.ID() == s.CA:
		ca = *with.Own
		ca.Own = s.Own
	default:
		return a, fmt.Errorf("Secret %s no longer holds CA %s", s.Own, s.CA) //nolint:staticcheck // Secret is a kind
	}
	ca.Generation, ca.Trusted = s.Generation, true
	if len(a.CAs) == 0 {
		a.Signs = ca.ID()
	}
	a.CAs = append(slices.DeleteFunc(a.CAs, func(o CA) bool { return o.ID() == ca.ID() }), ca)
	return a, nil
}

// nameOfNext differs from those before it: clients with several certificates choose by the CA's name.
func (a Authority) nameOfNext(with Material) string {
	if len(a.CAs) == 0 {
		return with.Name
	}
	return with.Name + " " + with.Now.UTC().Format("20060102T150405Z")
}

func newCA(name string, now time.Time) (CA, error) {
	made, err := pki.NewCA(name, now)
	if err != nil {
		return CA{}, err
	}
	keyPEM, err := made.KeyPEM()
	if err != nil {
		return CA{}, fmt.Errorf("write the key of CA %s: %w", name, err)
	}
	chain, err := pki.ParseCertificates(made.TrustPEM())
	if err != nil {
		return CA{}, fmt.Errorf("read back CA %s: %w", name, err)
	}
	ca := CA{Chain: chain}
	return ca, ca.takeKey(keyPEM)
}

func (a Authority) adopt(s certificates.Step, with Material) (Authority, error) {
	for _, wanted := range s.Adopt {
		at := slices.IndexFunc(with.Found, func(f CA) bool { return f.ID() == wanted.ID })
		if at < 0 {
			return a, fmt.Errorf("adopt CA %s: nobody holds it any more", wanted.ID)
		}
		if a.index(wanted.ID) < 0 {
			a.CAs = append(a.CAs, CA{Chain: []*x509.Certificate{with.Found[at].Chain[0]}, Trusted: true})
		}
	}
	if a.index(s.CA) < 0 {
		return a, fmt.Errorf("adopt: CA %s, which is to sign, is not among them", s.CA)
	}
	a.Signs = s.CA
	return a, nil
}
