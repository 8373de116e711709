package cluster

import (
	"fmt"
	"slices"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
)

// clientGrace is how long clients have by default, and longestGrace at most: a CA must not end meanwhile.
const (
	clientGrace  = 24 * time.Hour
	longestGrace = 90 * 24 * time.Hour
)

// ClientGrace of a spec.
func ClientGrace(c api.Certificates) time.Duration {
	if c.ClientGrace == nil {
		return clientGrace
	}
	return c.ClientGrace.Duration
}

// certificates checks what can be said without the Secrets.
func (r *resolver) certificates() {
	c := r.spec.Certificates
	if g := ClientGrace(c); g < 0 || g > longestGrace {
		r.fail("spec.certificates.clientGrace", fmt.Sprintf("%s is not between 0s and %s", g, longestGrace), "say how long clients take to use what their Secret holds, for example 24h")
	}
	r.authority("spec.certificates.clusterCA", c.ClusterCA)
	r.authority("spec.certificates.clientsCA", c.ClientsCA)
	a, b := c.ClusterCA.SecretRef, c.ClientsCA.SecretRef
	if a != nil && b != nil && a.Name == b.Name && a.Name != "" {
		r.fail("spec.certificates.clientsCA.secretRef.name", fmt.Sprintf("Secret %s is the cluster CA too: whoever has a client's certificate would come in where only nodes may", a.Name), "give each of the two a CA of its own")
	}
}

func (r *resolver) authority(path string, ca api.CertificateAuthority) {
	if ca.SecretRef == nil {
		return
	}
	own := []string{r.in.Name + "-ca", r.in.Name + "-ca-cert", r.in.Name + "-clients-ca", r.in.Name + "-clients-ca-cert", r.in.Name + "-operator"}
	switch {
	case ca.SecretRef.Name == "":
		r.fail(path+".secretRef.name", "no Secret is named", "name one with tls.crt and tls.key of a CA, or leave secretRef out for one that Castellan makes")
	case slices.Contains(own, ca.SecretRef.Name):
		r.fail(path+".secretRef.name", fmt.Sprintf("Secret %s is Castellan's own", ca.SecretRef.Name), "give yours another name")
	case ca.Generation != 0:
		r.warn(path+".generation", "it means nothing for a CA of one's own", "put another CA into Secret "+ca.SecretRef.Name+" to replace it")
	}
}

// SecretsOfCAs names the Secrets with a CA of one's own.
func SecretsOfCAs(c api.Certificates) []string {
	var names []string
	for _, ref := range []*api.SecretRef{c.ClusterCA.SecretRef, c.ClientsCA.SecretRef} {
		if ref != nil {
			names = append(names, ref.Name)
		}
	}
	return names
}
