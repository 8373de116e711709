package entities

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/pki"
)

// Keys of a user's Secret.
const (
	keyUser       = api.UserSecretName
	keyPassword   = api.UserSecretPassword
	keyJAAS       = "sasl.jaas.config"
	keyBootstrap  = "bootstrap.servers"
	keyProperties = "client.properties"
	// keyDigest is what the digest of the password in an annotation is made with, so that
	// nobody who cannot read this Secret can try passwords against it.
	keyDigest = "digest.key"
)

const (
	// rotationAnnotation of a user's Secret is the spec.authentication.rotation that it was made for.
	rotationAnnotation = "castellan.dev/rotation"
	// passwordAnnotation says which version of which given password it holds.
	passwordAnnotation = "castellan.dev/password-from" //nolint:gosec // a name
)

func secretName(u *api.KafkaUser) string {
	if n := u.Spec.Authentication.SecretName; n != "" {
		return n
	}
	return u.Name
}

// digest of a password, made with a key that only the Secret has.
func digest(secret *corev1.Secret) string {
	mac := hmac.New(sha256.New, secret.Data[keyDigest])
	mac.Write(secret.Data[keyPassword])
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// credential is the password that a user's Secret has by now; nothing is written here.
func (k *keeper) credential(ctx context.Context, ref core.Ref, u *api.KafkaUser) core.Credential {
	if why := k.faults[ref]; why != "" {
		return core.Credential{Why: why}
	}
	secret := &corev1.Secret{}
	name := types.NamespacedName{Namespace: u.Namespace, Name: secretName(u)}
	err := k.r.Cache.Get(ctx, name, secret)
	if fresh := k.fresh[ref]; fresh != nil && (err != nil || older(secret, fresh)) {
		secret, err = fresh, nil
	} else {
		delete(k.fresh, ref)
	}
	if err != nil || !belongs(secret, u) || !current(secret, u) {
		return core.Credential{Why: fmt.Sprintf("Secret %s does not have the password yet.", name)}
	}
	return core.Credential{Secret: core.SecretRef{Namespace: u.Namespace, Name: secret.Name, Key: keyPassword, Digest: digest(secret)}}
}

// belongs says whether a Secret is a user's to write: Castellan made it for an object of that name.
func belongs(secret *corev1.Secret, u *api.KafkaUser) bool {
	owner := metav1.GetControllerOf(secret)
	return secret.Labels[pki.LabelManagedBy] == pki.ManagedBy && owner != nil && owner.Kind == "KafkaUser" && owner.Name == u.Name
}

// current says whether a Secret holds the password that the spec asks for, as far as it tells.
func current(secret *corev1.Secret, u *api.KafkaUser) bool {
	if len(secret.Data[keyPassword]) == 0 || len(secret.Data[keyDigest]) == 0 {
		return false
	}
	if from := passwordOf(u); from != nil {
		return strings.HasPrefix(secret.Annotations[passwordAnnotation], from.Name+"/"+from.Key+"@")
	}
	return secret.Annotations[passwordAnnotation] == "" && secret.Annotations[rotationAnnotation] == u.Spec.Authentication.Rotation
}

// secretWork is what was done to Secrets in one batch. Its passwords live no longer.
type secretWork struct {
	r *Reconciler
	// changed is true where a user's credential or fault is another one now.
	changed bool

	mu        sync.Mutex
	passwords map[core.SecretRef][]byte
	ca        func() (pki.CA, error)
}

// password gives the bytes of a reference, from the Secret as it is now.
func (s *secretWork) password(ctx context.Context, ref core.SecretRef) ([]byte, error) {
	s.mu.Lock()
	held := s.passwords[ref]
	s.mu.Unlock()
	if held != nil {
		return held, nil
	}
	name := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
	for _, from := range []client.Reader{s.r.Client, s.r.Live} {
		secret := &corev1.Secret{}
		if err := from.Get(ctx, name, secret); err == nil && hmac.Equal([]byte(digest(secret)), []byte(ref.Digest)) {
			return secret.Data[ref.Key], nil
		} else if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("read Secret %s: %w", name, err)
		}
	}
	return nil, fmt.Errorf("Secret %s has another password by now: it is looked at again", name) //nolint:staticcheck // Secret is a kind
}

// wants says whether an object is to have a Secret: it is in force, or only waits for that.
func (k *keeper) wants(v core.Verdict) *api.KafkaUser {
	u, ok := k.objects[v.Ref].(*api.KafkaUser)
	if !ok || u.Spec.Paused || u.DeletionTimestamp != nil || u.Spec.Authentication.Type == api.UserExternal || string(u.UID) != v.UID {
		return nil
	}
	if slices.Contains(unkept(), v.Reason) {
		return nil
	}
	return u
}

// secrets writes the Secrets of users that lack something.
func (k *keeper) secrets(ctx context.Context, verdicts []core.Verdict) *secretWork {
	w := &secretWork{r: k.r, passwords: map[core.SecretRef][]byte{}}
	w.ca = sync.OnceValues(func() (pki.CA, error) { return k.r.Certificates.ClientsCA(ctx, k.cluster) })
	var users []core.Ref
	for _, v := range verdicts {
		if k.wants(v) != nil {
			users = append(users, v.Ref)
		}
	}
	made := make([]madeSecret, len(users))
	at := map[core.Ref]int{}
	for i, ref := range users {
		at[ref] = i
	}
	errs := each(users, func(ref core.Ref) (err error) {
		u, ok := k.objects[ref].(*api.KafkaUser)
		if ok {
			made[at[ref]], err = k.ensure(ctx, w, u)
		}
		return err
	})
	for i, ref := range users {
		k.settleSecret(ctx, w, ref, made[i], errs[i])
	}
	return w
}

// settleSecret takes what became of one user's Secret.
func (k *keeper) settleSecret(ctx context.Context, w *secretWork, ref core.Ref, made madeSecret, err error) {
	was := k.faults[ref]
	delete(k.faults, ref)
	if no, ok := errors.AsType[faultError](err); ok {
		k.faults[ref] = string(no)
	} else if err != nil {
		k.faults[ref] = fmt.Sprintf("The Secret with the credentials could not be written: %s. It is tried again.", err)
		k.later[k.claims[ref]] = k.r.Now().Add(soon)
		k.log.WarnContext(ctx, "Secret not written; it is tried again", slog.String("object", ref.String()), slog.Any("error", err))
	}
	if !made.renew.IsZero() {
		k.renew[ref] = made.renew
	}
	o, ok := k.objects[ref].(*api.KafkaUser)
	if !ok || made.written == nil && was == k.faults[ref] {
		return
	}
	w.changed = true
	if made.written != nil {
		k.fresh[ref] = made.written // the watch may not have told of it yet
	}
	k.claim(ctx, ref, o)
}

// faultError is what somebody has to correct, in words for a status.
type faultError string

func (f faultError) Error() string { return string(f) }

// withFault puts a fault of a Secret into the status of a user that is well otherwise.
func (k *keeper) withFault(v core.Verdict) core.Verdict {
	if why := k.faults[v.Ref]; why != "" && v.State == core.InForce {
		v.State, v.Reason, v.Message = core.Refused, "NoCredentials", why+" What is allowed and limited is in force."
	}
	return v
}

// given is a password from a user's own Secret, and its version.
func (k *keeper) given(ctx context.Context, u *api.KafkaUser, from *passwordRef, have *corev1.Secret) (password []byte, version string, err error) {
	name := types.NamespacedName{Namespace: u.Namespace, Name: from.Name}
	missing := faultError(fmt.Sprintf("Secret %s with the password is not there: create it, with key %s.", name, from.Key))
	if k.r.Foreign != nil { // what it holds is read only where it is another version
		meta := secretMetadata()
		if err := k.r.Foreign.Get(ctx, name, meta); apierrors.IsNotFound(err) {
			return nil, "", missing
		} else if err != nil {
			return nil, "", err
		}
		version = from.Name + "/" + from.Key + "@" + meta.ResourceVersion
		if have != nil && have.Annotations[passwordAnnotation] == version && len(have.Data[keyPassword]) > 0 {
			return have.Data[keyPassword], version, nil
		}
	}
	reader := k.r.Client
	if k.r.Foreign != nil {
		reader = k.r.Live
	}
	secret := &corev1.Secret{}
	if err := reader.Get(ctx, name, secret); apierrors.IsNotFound(err) {
		return nil, "", missing
	} else if err != nil {
		return nil, "", err
	}
	password, ok := secret.Data[from.Key]
	at := fmt.Sprintf("Secret %s, key %s", name, from.Key)
	switch {
	case !ok:
		return nil, "", faultError(fmt.Sprintf("Secret %s has no key %s with the password: add it, or name another key.", name, from.Key))
	case len(password) == 0:
		return nil, "", faultError(at + ": the password is empty.")
	case !utf8.Valid(password) || bytes.ContainsFunc(password, unicode.IsControl):
		return nil, "", faultError(at + ": the password is not one line of UTF-8 text (a line break at its end often comes from a file: use printf, not echo).")
	}
	return password, from.Name + "/" + from.Key + "@" + secret.ResourceVersion, nil
}

// scramContent is what the Secret of a user with a password holds.
func (k *keeper) scramContent(ctx context.Context, u *api.KafkaUser, have *corev1.Secret) (map[string][]byte, map[string]string, error) {
	notes := map[string]string{rotationAnnotation: u.Spec.Authentication.Rotation}
	data := map[string][]byte{keyUser: []byte(core.PrincipalName(u))}
	if have != nil && len(have.Data[keyDigest]) > 0 {
		data[keyDigest] = have.Data[keyDigest]
	} else {
		data[keyDigest] = make([]byte, sha256.Size)
		_, _ = rand.Read(data[keyDigest]) // never fails
	}
	switch from := passwordOf(u); {
	case from != nil:
		password, version, err := k.given(ctx, u, from, have)
		if err != nil {
			return nil, nil, err
		}
		data[keyPassword], notes[passwordAnnotation] = password, version
	case have != nil && current(have, u):
		data[keyPassword] = have.Data[keyPassword]
	default:
		data[keyPassword] = []byte(rand.Text()) // 130 bits, letters and digits
	}
	jaas := fmt.Sprintf(`org.apache.kafka.common.security.scram.ScramLoginModule required username="%s" password="%s";`,
		quoted(core.PrincipalName(u)), quoted(string(data[keyPassword])))
	data[keyJAAS] = []byte(jaas)
	if a, ok := k.setup.access[api.AuthenticationScramSha512]; ok {
		data[keyBootstrap] = []byte(a.bootstrap)
		if len(a.ca) > 0 {
			data[pki.KeyCACert] = a.ca
		}
		data[keyProperties] = a.properties(map[string]string{"sasl.mechanism": core.ScramSha512.String(), keyJAAS: jaas}, true)
	}
	return data, notes, nil
}

// quoted is text between quotes of a JAAS configuration (java.io.StreamTokenizer).
func quoted(s string) string { return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) }

// same says whether a Secret is as it is wanted.
func same(have *corev1.Secret, u *api.KafkaUser, data map[string][]byte, notes map[string]string) bool {
	for k, v := range notes {
		if have.Annotations[k] != v {
			return false
		}
	}
	return have.Annotations[passwordAnnotation] == notes[passwordAnnotation] && metav1.IsControlledBy(have, u) && maps.EqualFunc(have.Data, data, bytes.Equal)
}
