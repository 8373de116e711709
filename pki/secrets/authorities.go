package secrets

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"castellan.dev/castellan/core/certificates"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/pki"
	"castellan.dev/castellan/pki/authority"
)

// held is one of the CAs as its Secret has it.
type held struct {
	role
	secret    *corev1.Secret
	authority authority.Authority
	// unknown says why the Secret cannot be used.
	unknown string
	// own is the user's CA as it was found.
	own   *authority.CA
	given *certificates.Given
	// found are CAs that parties hold and the Secret does not know.
	found []authority.CA
}

// keyOf is the key of a node's Secret with the CAs of a role.
func keyOf(r certificates.Role) string {
	if r == certificates.Clients {
		return layout.KeyClientsCAPEM
	}
	return layout.KeyCAPEM
}

// read reads the Secret of a CA, and the one that a user provides.
func (w *work) read(ctx context.Context, from client.Reader, r role) (*held, error) {
	h := &held{role: r}
	key := types.NamespacedName{Namespace: w.kc.Namespace, Name: r.secret}
	var secret corev1.Secret
	err := from.Get(ctx, key, &secret)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return nil, fmt.Errorf("read the CA in Secret %s: %w", key, err)
	default:
		if err := foreign(&secret, w.kc); err != nil {
			return nil, err
		}
		h.secret = &secret
		if h.authority, err = authority.Read(key.String(), secret.Data); err != nil {
			h.unknown = err.Error()
		}
	}
	return h, w.readOwn(ctx, h)
}

func (w *work) readOwn(ctx context.Context, h *held) error {
	if h.spec.SecretRef == nil {
		return nil
	}
	key := types.NamespacedName{Namespace: w.kc.Namespace, Name: h.spec.SecretRef.Name}
	var secret corev1.Secret
	err := w.s.named().Get(ctx, key, &secret)
	h.given = &certificates.Given{Secret: key.String()}
	switch {
	case apierrors.IsNotFound(err):
		h.given.Faults = []certificates.Fault{authority.Missing(key.String())}
	case err != nil:
		return fmt.Errorf("read the CA in Secret %s: %w", key, err)
	default:
		own, faults := authority.Judge(key.String(), secret.Data, w.s.now())
		if h.given.Faults = faults; len(faults) == 0 {
			h.own, h.given.CA = &own, own.Facts()
		}
	}
	return nil
}

func (s Store) named() client.Reader { //nolint:ireturn // as it was given
	if s.Named != nil {
		return s.Named
	}
	return s.Client
}

func (h *held) facts() certificates.Authority {
	return certificates.Authority{
		Role: h.role.role, Secret: h.role.secret, Unknown: h.unknown, CAs: h.authority.Facts(), Signs: h.authority.Signs,
		Wish: certificates.Wish{Own: h.given, Generation: h.spec.Generation},
	}
}

// known are the CAs of the Secret and those that were found.
func (h *held) known() authority.Authority {
	return authority.Authority{CAs: slices.Concat(h.authority.CAs, h.found), Signs: h.authority.Signs}
}

// find looks for CAs that parties hold. What is left over from a node of earlier times says nothing while there is a CA.
func (w *work) find(h *held) {
	var bundles [][]byte
	add := func(bundle []byte) { // most are the same
		if !slices.ContainsFunc(bundles, func(b []byte) bool { return bytes.Equal(b, bundle) }) {
			bundles = append(bundles, bundle)
		}
	}
	for _, p := range w.places {
		if p.node != nil && !p.node.Had && len(h.authority.CAs) > 0 {
			continue
		}
		if slices.Contains(p.trusts, h.role.role) {
			add(w.data(p)[p.bundle(h.role.role)])
		}
	}
	if public := w.w.existing[h.trust]; public != nil {
		add(public.Data[pki.KeyCACert])
	}
	h.found = h.authority.Found(bundles...)
}
