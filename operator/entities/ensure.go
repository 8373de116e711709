package entities

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/pki"
)

// madeSecret is what became of a user's Secret.
type madeSecret struct {
	// written is what was written; nil is nothing.
	written *corev1.Secret
	// renew is when a certificate is to be looked at again.
	renew time.Time
}

// ensure writes a user's Secret where it lacks something. What is kept in the cache may be older
// than what we wrote: a write that meets something else is made once more, from what is there.
func (k *keeper) ensure(ctx context.Context, w *secretWork, u *api.KafkaUser) (madeSecret, error) {
	name := types.NamespacedName{Namespace: u.Namespace, Name: secretName(u)}
	have := &corev1.Secret{}
	err := k.r.Cache.Get(ctx, name, have)
	if apierrors.IsNotFound(err) {
		have, err = nil, nil
	}
	if err != nil {
		return madeSecret{}, err
	}
	made, err := k.ensureFrom(ctx, w, u, have)
	if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
		return made, err
	}
	have = &corev1.Secret{}
	if err := k.r.Live.Get(ctx, name, have); apierrors.IsNotFound(err) {
		have = nil
	} else if err != nil {
		return madeSecret{}, err
	}
	return k.ensureFrom(ctx, w, u, have)
}

func (k *keeper) ensureFrom(ctx context.Context, w *secretWork, u *api.KafkaUser, have *corev1.Secret) (madeSecret, error) {
	var made madeSecret
	if have != nil && !belongs(have, u) {
		return made, faultError(fmt.Sprintf("There is a Secret %s/%s already that is not this object's: delete it if nobody needs it, or set spec.authentication.secretName to another name.", have.Namespace, have.Name))
	}
	data, notes, err := map[string][]byte(nil), map[string]string(nil), error(nil)
	if u.Spec.Authentication.Type == api.UserMutualTLS {
		data, notes, made.renew, err = k.certificateContent(w, u, have)
	} else {
		data, notes, err = k.scramContent(ctx, u, have)
	}
	if err != nil {
		return made, err
	}
	want := have
	if have == nil {
		want = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: u.Namespace, Name: secretName(u)}, Type: corev1.SecretTypeOpaque}
	} else if !same(have, u, data, notes) {
		want = have.DeepCopy()
	}
	if have == nil || want != have {
		fill(want, u, data, notes, k.r.Now())
		if have == nil {
			err = k.r.Writer.Create(ctx, want, fieldOwner)
		} else {
			err = k.r.Writer.Update(ctx, want, fieldOwner)
		}
		if err != nil {
			return made, err
		}
		made.written = want
	}
	if u.Spec.Authentication.Type == api.UserScramSha512 {
		ref := core.SecretRef{Namespace: u.Namespace, Name: want.Name, Key: keyPassword, Digest: digest(want)}
		w.mu.Lock()
		w.passwords[ref] = want.Data[keyPassword]
		w.mu.Unlock()
	}
	return made, nil
}

// fill makes a Secret what it shall be. It goes with the KafkaUser; the cluster's own Secrets are
// found by another label.
func fill(secret *corev1.Secret, u *api.KafkaUser, data map[string][]byte, notes map[string]string, now time.Time) {
	if secret.Labels == nil {
		secret.Labels = map[string]string{}
	}
	secret.Labels[pki.LabelManagedBy] = pki.ManagedBy
	if secret.Annotations == nil {
		secret.Annotations = map[string]string{}
	}
	delete(secret.Annotations, passwordAnnotation)
	maps.Copy(secret.Annotations, notes)
	for key, note := range map[string]string{pki.KeyCACert: pki.TrustGiven, keyUserCert: pki.CertificateGiven} {
		if data[key] != nil && !bytes.Equal(secret.Data[key], data[key]) {
			secret.Annotations[note] = now.UTC().Format(time.RFC3339Nano)
		}
	}
	controller := true
	// It does not block the deletion of the user, so that it needs no right on that one's finalizers.
	secret.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: api.GroupVersion.String(), Kind: "KafkaUser", Name: u.Name, UID: u.UID, Controller: &controller,
	}}
	secret.Data = data
}
