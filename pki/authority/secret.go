package authority

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"castellan.dev/castellan/pki"
)

// KeyState is the key of the Secret that says what its other keys are; without it there are only ca.crt and ca.key.
const KeyState = "authority.json"

// state is what KeyState holds.
type state struct {
	Signs string    `json:"signs"`
	CAs   []stateCA `json:"cas"`
}

// stateCA is a CA, whose chain and key are the Secret's keys <first 16 digits of its digest>.crt and .key; the key of the
// one that signs is ca.key.
type stateCA struct {
	ID         string `json:"id"`
	Own        string `json:"own,omitempty"`
	Generation int64  `json:"generation,omitempty"`
	Trusted    bool   `json:"trusted"`
}

func file(id string) string {
	return strings.TrimPrefix(id, "sha256:")[:16]
}

// Read reads the Secret of a CA; of no data there are no CAs. An error names the key and the fault, and says what to do.
func Read(secret string, data map[string][]byte) (Authority, error) {
	if len(data) == 0 {
		return Authority{}, nil
	}
	var (
		a   Authority
		key string
		err error
	)
	if data[KeyState] == nil {
		a, key, err = readPlain(data)
	} else {
		a, key, err = readState(data)
	}
	if err != nil {
		return Authority{}, fmt.Errorf("Secret %s, key %s: %w; restore it from a backup, or delete the Secret: then this CA is replaced, and stays trusted meanwhile", secret, key, err) //nolint:staticcheck // Secret is a kind
	}
	return a, nil
}

// readPlain reads what was written before any CA was replaced: the first certificate of ca.crt signs, all are trusted.
func readPlain(data map[string][]byte) (a Authority, at string, err error) {
	certs, err := pki.ParseCertificates(data[pki.KeyCACert])
	if err != nil {
		return a, pki.KeyCACert, err
	}
	for _, c := range certs {
		ca := CA{Chain: []*x509.Certificate{c}, Trusted: true}
		if a.index(ca.ID()) < 0 {
			a.CAs = append(a.CAs, ca)
		}
	}
	a.Signs = a.CAs[0].ID()
	return a, pki.KeyCAKey, a.CAs[0].takeKey(data[pki.KeyCAKey])
}

func readState(data map[string][]byte) (a Authority, at string, err error) {
	var s state
	if err := json.Unmarshal(data[KeyState], &s); err != nil {
		return a, KeyState, err
	}
	a.Signs = s.Signs
	for _, e := range s.CAs {
		if len(e.ID) < len("sha256:")+16 {
			return a, KeyState, fmt.Errorf("%q is no digest", e.ID)
		}
		chainKey, keyKey := file(e.ID)+".crt", file(e.ID)+".key"
		if e.ID == s.Signs {
			keyKey = pki.KeyCAKey
		}
		chain, err := pki.ParseCertificates(data[chainKey])
		if err != nil {
			return a, chainKey, err
		}
		ca := CA{Chain: chain, Own: e.Own, Generation: e.Generation, Trusted: e.Trusted}
		if ca.ID() != e.ID {
			return a, chainKey, fmt.Errorf("it holds another certificate than %s", e.ID)
		}
		if len(data[keyKey]) > 0 {
			if err := ca.takeKey(data[keyKey]); err != nil {
				return a, keyKey, err
			}
		}
		a.CAs = append(a.CAs, ca)
	}
	signs, ok := a.CA(a.Signs)
	if !ok {
		return a, KeyState, fmt.Errorf("it has no CA %q, which is to sign", a.Signs)
	}
	if first, err := pki.ParseCertificates(data[pki.KeyCACert]); err != nil || !first[0].Equal(signs.Chain[0]) {
		return a, pki.KeyCACert, fmt.Errorf("its first certificate is not the one that signs by %s", KeyState)
	}
	return a, "", nil
}

func (ca *CA) takeKey(data []byte) error {
	key, err := pki.ParseKey(data)
	if err != nil {
		return err
	}
	if !pki.Belongs(key, ca.Chain[0]) {
		return fmt.Errorf("it does not belong to the certificate of %q", ca.Chain[0].Subject)
	}
	ca.Key = key
	return nil
}

// Data is what the Secret is to hold. One built-in CA, never replaced, is written as it always was.
func (a Authority) Data() (map[string][]byte, error) {
	signs, ok := a.CA(a.Signs)
	if !ok {
		return nil, fmt.Errorf("no CA signs")
	}
	data := map[string][]byte{pki.KeyCACert: a.trusted(signs)}
	s := state{Signs: a.Signs}
	files := map[string][]byte{}
	for _, ca := range a.CAs {
		id := ca.ID()
		s.CAs = append(s.CAs, stateCA{ID: id, Own: ca.Own, Generation: ca.Generation, Trusted: ca.Trusted})
		files[file(id)+".crt"] = pki.EncodeCertificates(ca.Chain)
		if ca.Key == nil {
			continue
		}
		keyPEM, err := pki.EncodeKey(ca.Key)
		if err != nil {
			return nil, fmt.Errorf("write the key of CA %q: %w", ca.Chain[0].Subject, err)
		}
		if id == a.Signs {
			data[pki.KeyCAKey] = keyPEM
		} else {
			files[file(id)+".key"] = keyPEM
		}
	}
	if a.plain(signs) {
		return data, nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", KeyState, err)
	}
	data[KeyState] = text
	maps.Copy(data, files)
	return data, nil
}

func (a Authority) plain(signs CA) bool {
	return len(a.CAs) == 1 && signs.Own == "" && signs.Generation == 0 && signs.Trusted && len(signs.Chain) == 1 && signs.Key != nil
}

// trusted is ca.crt: the signing certificate with its chain, and the anchors of the others.
func (a Authority) trusted(signs CA) []byte {
	certs := slices.Clone(signs.Chain)
	for _, ca := range a.CAs {
		if anchor := ca.Anchor(); ca.Trusted && !slices.ContainsFunc(certs, anchor.Equal) {
			certs = append(certs, anchor)
		}
	}
	return pki.EncodeCertificates(certs)
}

// Same says whether two Secrets hold the same.
func Same(a, b map[string][]byte) bool { return maps.EqualFunc(a, b, bytes.Equal) }
