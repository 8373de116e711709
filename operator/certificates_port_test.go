package operator_test

import (
	"errors"
	"fmt"
	"strings"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// replaced asks for a new CA while no node can be seen: it waits for them by name, in words that stay, and is told as an
// Event.
func (y *yard) replaced() {
	y.t.Helper()
	y.eventually("certificates are in order", y.condition(api.ConditionCertificates, metav1.ConditionTrue, "the cluster CA ends at 20"))
	y.askForCA(1)
	y.eventually("it waits for nodes", y.condition(api.ConditionCertificates, metav1.ConditionFalse, "node 0 CONTROLLER at 127.0.0.1:"))
	y.quiet()
	y.eventually("it is told", func() error {
		var list eventsv1.EventList
		if err := y.c.List(y.t.Context(), &list, client.InNamespace(namespace)); err != nil {
			return err
		}
		for i := range list.Items {
			if e := &list.Items[i]; e.Reason == "AddCA" && e.Regarding.Name == "orders" && strings.Contains(e.Note, "a new key is wanted for the cluster CA") {
				return nil
			}
		}
		return errors.New("no Event")
	})
	y.askForCA(0)
	y.eventually("it goes back", y.condition(api.ConditionCertificates, metav1.ConditionFalse, "is still trusted"))
}

func (y *yard) askForCA(generation int) {
	y.t.Helper()
	patch := fmt.Sprintf(`{"spec":{"certificates":{"clusterCA":{"generation":%d}}}}`, generation)
	if err := y.c.Patch(y.t.Context(), y.get(), client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		y.t.Fatal(err)
	}
}
