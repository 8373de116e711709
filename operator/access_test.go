package operator

import (
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
)

func TestSentences(t *testing.T) {
	got := sentences([]authorizationv1.ResourceAttributes{
		{Namespace: "kafka", Verb: "create", Group: "apps", Resource: "statefulsets"},
		{Verb: "watch", Resource: "nodes"},
		{Namespace: "kafka", Verb: "patch", Group: "apps", Resource: "statefulsets"},
		{Namespace: "kafka", Verb: "patch", Group: "castellan.dev", Resource: "kafkanodes", Subresource: "status"},
		{Verb: "patch", Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations", Name: "castellan-x"},
	})
	want := []string{
		"the operator may not watch nodes:",
		"the operator may not patch validatingwebhookconfigurations.admissionregistration.k8s.io castellan-x:",
		"the operator may not create, patch statefulsets.apps in namespace kafka:",
		"the operator may not patch kafkanodes.castellan.dev/status in namespace kafka:",
	}
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
}
