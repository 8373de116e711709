package entities

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"software.sslmate.com/src/go-pkcs12"

	api "castellan.dev/castellan/api/v1alpha1"
	core "castellan.dev/castellan/core/entities"
	"castellan.dev/castellan/pki"
)

// Keys of the Secret of a user with a certificate.
const (
	keyUserCert        = api.UserSecretCertificate
	keyUserKey         = api.UserSecretKey
	keyUserP12         = "user.p12"
	keyUserP12Password = "user.password"
)

// certificateContent is what the Secret of a user with a certificate holds, and when it is to be
// looked at again. The key stays until its certificate ends soon, the CA is another one, or a
// rotation is asked for.
func (k *keeper) certificateContent(w *secretWork, u *api.KafkaUser, have *corev1.Secret) (map[string][]byte, map[string]string, time.Time, error) {
	var none time.Time
	request, err := pki.ClientRequest(core.PrincipalName(u))
	if err != nil {
		return nil, nil, none, faultError(fmt.Sprintf("No certificate can be issued: %s.", err))
	}
	ca, err := w.ca()
	if err != nil {
		return nil, nil, none, fmt.Errorf("the CA for clients: %w", err)
	}
	var held pki.Pair
	if have != nil && have.Annotations[rotationAnnotation] == u.Spec.Authentication.Rotation {
		held = pki.Pair{Key: have.Data[keyUserKey], Chain: have.Data[keyUserCert]}
	}
	now := k.r.Now()
	pair, err := ca.Current(request, held, now)
	if err != nil {
		return nil, nil, none, err
	}
	leaf, err := pair.Leaf()
	if err != nil {
		return nil, nil, none, err
	}
	data := map[string][]byte{keyUserCert: pair.Chain, keyUserKey: pair.Key}
	if string(pair.Key) == string(held.Key) && len(have.Data[keyUserP12]) > 0 {
		data[keyUserP12], data[keyUserP12Password] = have.Data[keyUserP12], have.Data[keyUserP12Password]
	} else if data[keyUserP12], data[keyUserP12Password], err = pkcs12Of(pair); err != nil {
		return nil, nil, none, err
	}
	if a, ok := k.setup.access[api.AuthenticationMutualTLS]; ok {
		data[keyBootstrap] = []byte(a.bootstrap)
		if len(a.ca) > 0 {
			data[pki.KeyCACert] = a.ca
		}
		data[keyProperties] = a.properties(map[string]string{
			"ssl.keystore.type": "PEM", "ssl.keystore.key": string(pair.Key), "ssl.keystore.certificate.chain": string(pair.Chain),
		}, false)
	}
	renew := leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
	if !renew.After(now) { // it ends with its CA: there is nothing to gain before that one is replaced
		renew = now.Add(time.Hour)
	}
	return data, map[string]string{rotationAnnotation: u.Spec.Authentication.Rotation}, renew.Add(time.Second), nil
}

// pkcs12Of is a pair for clients that read no PEM, and its password.
func pkcs12Of(pair pki.Pair) (file, password []byte, err error) {
	cert, err := tls.X509KeyPair(pair.Chain, pair.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("read back the certificate: %w", err)
	}
	above, err := pki.ParseCertificates(pair.Chain)
	if err != nil {
		return nil, nil, fmt.Errorf("read back the certificate: %w", err)
	}
	text := rand.Text()
	if file, err = pkcs12.Modern.Encode(cert.PrivateKey, cert.Leaf, above[1:], text); err != nil {
		return nil, nil, fmt.Errorf("write the certificate as PKCS #12: %w", err)
	}
	return file, []byte(text), nil
}
