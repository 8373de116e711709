package controlplanetest_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/controlplanetest"
)

func TestWhatIsWrittenSurvivesAPowerCut(t *testing.T) {
	cp := controlplanetest.New(t)
	host := &api.Host{
		ObjectMeta: metav1.ObjectMeta{Name: "h1"},
		Spec:       api.HostSpec{Address: "h1.example", DataRoots: []string{"/data"}},
	}
	if err := controlplanetest.Client(t, cp.Config).Create(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	cp.Kill(t)
	cp.Resume(t)
	var found api.Host
	if err := controlplanetest.Client(t, cp.Config).Get(t.Context(), client.ObjectKeyFromObject(host), &found); err != nil {
		t.Fatal(err)
	}
	if found.UID != host.UID {
		t.Errorf("host came back as %s, was %s", found.UID, host.UID)
	}
}
