package cluster_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/cluster"
)

func TestCertificateProblems(t *testing.T) {
	own := func(name string) api.CertificateAuthority {
		return api.CertificateAuthority{SecretRef: &api.SecretRef{Name: name}}
	}
	for reason, tt := range map[string]struct {
		spec api.Certificates
		path string // empty is none
	}{
		"by default":         {api.Certificates{}, ""},
		"new keys":           {api.Certificates{ClusterCA: api.CertificateAuthority{Generation: 3}}, ""},
		"two of one's own":   {api.Certificates{ClusterCA: own("a"), ClientsCA: own("b")}, ""},
		"one for both":       {api.Certificates{ClusterCA: own("a"), ClientsCA: own("a")}, "spec.certificates.clientsCA.secretRef.name"},
		"no name":            {api.Certificates{ClusterCA: own("")}, "spec.certificates.clusterCA.secretRef.name"},
		"Castellan's own":    {api.Certificates{ClientsCA: own("orders-ca")}, "spec.certificates.clientsCA.secretRef.name"},
		"a grace before now": {api.Certificates{ClientGrace: &metav1.Duration{Duration: -time.Second}}, "spec.certificates.clientGrace"},
		"a grace of years":   {api.Certificates{ClientGrace: &metav1.Duration{Duration: 20000 * time.Hour}}, "spec.certificates.clientGrace"},
		"no grace at all":    {api.Certificates{ClientGrace: &metav1.Duration{}}, ""},
	} {
		t.Run(reason, func(t *testing.T) {
			in := good()
			in.Spec.Certificates = tt.spec
			_, problems := cluster.Resolve(in)
			found := ""
			for _, p := range problems {
				if p.Severity == cluster.Error {
					found += p.Path
				}
			}
			if found != tt.path {
				t.Errorf("problems %v, want one at %q", problems, tt.path)
			}
		})
	}
	model, _ := cluster.Resolve(good())
	if cluster.ClientGrace(model.Certificates) != 24*time.Hour {
		t.Error("clients have no day")
	}
}
