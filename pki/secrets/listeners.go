package secrets

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/kconf"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/pki"
)

// Fault is why a listener's files cannot be made from the Secret that it names.
type Fault struct {
	// Path of the field that names the Secret.
	Path string
	// Key of the brokers' Secrets that has no content for it.
	Key string
	// Reason names the Secret, its key and what is wrong; Remedy what to do.
	Reason, Remedy string
	// Held are the brokers that go on with the last good content.
	Held map[int32]bool
}

// listenerFiles are what every broker's Secret holds for its listeners.
type listenerFiles struct {
	// good content by key; keys with a fault are missing.
	good   map[string][]byte
	faults []Fault
	// trust are the listeners whose own certificate came with a CA for clients.
	trust map[string]bool
}

// listenerFiles reads what the listeners name. Only what cannot be asked for is an error; what
// is missing or unusable is a fault.
func (s Store) listenerFiles(ctx context.Context, cluster *api.KafkaCluster, listeners []api.Listener) (listenerFiles, error) {
	f := listenerFiles{good: map[string][]byte{}, trust: map[string]bool{}}
	for i, l := range listeners {
		path := fmt.Sprintf("spec.listeners[%d]", i)
		if l.TLS != nil && l.TLS.SecretRef != nil {
			err := s.from(ctx, cluster, &f, layout.CertificateKey(l.Name), path+".tls.secretRef", *l.TLS.SecretRef, func(data map[string][]byte) ([]byte, error) {
				f.trust[l.Name] = len(bytes.TrimSpace(data[pki.KeyCACert])) > 0
				return pki.ListenerCertificate(data, s.now())
			})
			if err != nil {
				return f, err
			}
		}
		if err := s.authentication(ctx, cluster, &f, path+".authentication", l); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (s Store) authentication(ctx context.Context, cluster *api.KafkaCluster, f *listenerFiles, path string, l api.Listener) error {
	switch a := l.Authentication; {
	case a.Type == api.AuthenticationPlain && a.Plain != nil:
		return s.from(ctx, cluster, f, layout.UsersKey(l.Name), path+".plain.usersSecretRef", a.Plain.UsersSecretRef, plainUsers)
	case a.Type == api.AuthenticationOAuth && a.OAuth != nil && a.OAuth.CASecretRef != nil:
		return s.from(ctx, cluster, f, layout.OAuthCAKey(l.Name), path+".oauth.caSecretRef", *a.OAuth.CASecretRef, trustedCA)
	}
	return nil
}

// from makes a file of a Secret that the user provides.
func (s Store) from(ctx context.Context, cluster *api.KafkaCluster, f *listenerFiles, key, path string, ref api.SecretRef, file func(map[string][]byte) ([]byte, error)) error {
	name := types.NamespacedName{Namespace: cluster.Namespace, Name: ref.Name}
	reader := s.Named
	if reader == nil {
		reader = s.Client
	}
	var secret corev1.Secret
	err := reader.Get(ctx, name, &secret)
	if apierrors.IsNotFound(err) {
		f.faults = append(f.faults, Fault{Path: path, Key: key, Reason: fmt.Sprintf("there is no Secret %s", name), Remedy: "create it, or name another one"})
		return nil
	}
	if err != nil {
		return fmt.Errorf("read Secret %s, which %s names: %w", name, path, err)
	}
	content, err := file(secret.Data)
	if err != nil {
		f.faults = append(f.faults, Fault{Path: path, Key: key, Reason: fmt.Sprintf("Secret %s cannot be used: %v", name, err), Remedy: "correct its content; it is taken up without a restart"})
		return nil
	}
	f.good[key] = content
	return nil
}

// of is the content of one broker's Secret: what is good, what it holds of what is not, and
// what its running process still needs. Faults learn that it goes on with what it holds.
func (f *listenerFiles) of(n pki.Node, held map[string][]byte) map[string][]byte {
	data := maps.Clone(f.good)
	keep := func(key string) bool {
		content, ok := held[key]
		if _, given := data[key]; ok && !given {
			data[key] = content
		}
		return ok
	}
	for i := range f.faults {
		if keep(f.faults[i].Key) {
			if f.faults[i].Held == nil {
				f.faults[i].Held = map[int32]bool{}
			}
			f.faults[i].Held[n.ID] = true
		}
	}
	for _, key := range n.Needs {
		keep(key)
	}
	return data
}

// plainUsers is the file with the users of a listener with Plain: .properties of
// user=password.
func plainUsers(data map[string][]byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("it has no key: each is a user, and its value the password")
	}
	users := map[string]string{}
	for _, user := range slices.Sorted(maps.Keys(data)) {
		password := string(data[user])
		switch {
		case layout.OwnPrincipal(user):
			return nil, fmt.Errorf("key %s: no client can be called so, it is Castellan's own super user", user)
		case password == "":
			return nil, fmt.Errorf("key %s: the password is empty", user)
		case !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsControl):
			return nil, fmt.Errorf("key %s: the password is not one line of UTF-8 text (a line break at its end often comes from a file: use printf, not echo)", user)
		}
		users[user] = password
	}
	return kconf.Write(users), nil
}

func trustedCA(data map[string][]byte) ([]byte, error) {
	if len(data[pki.KeyCACert]) == 0 {
		return nil, fmt.Errorf("it has no key %s", pki.KeyCACert)
	}
	certs, err := pki.ParseCertificates(data[pki.KeyCACert])
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", pki.KeyCACert, err)
	}
	return pki.EncodeCertificates(certs), nil
}
