package entities_test

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A topic that a broker too few refused does not wait for the next minute: Kafka is read when the nodes that are ready
// are others.
func TestBrokersThatComeAreSeen(t *testing.T) {
	y := newYard(t)
	y.every = time.Hour
	y.start()
	kc := y.orders()
	y.eventually("Kafka was read", func() error {
		if y.readings() == 0 {
			return fmt.Errorf("no reading")
		}
		return nil
	})
	wide := topic(home, "wide")
	wide.Spec.Replicas = new(int32(4))
	y.create(wide)
	y.is(wide, metav1.ConditionFalse, "TooFewBrokers", "the cluster has 3 brokers that are alive")

	if _, _, err := y.fake.Brokers.AddNode(-1, 0); err != nil {
		t.Fatal(err)
	}
	y.get(kc)
	if err := y.c.Status().Patch(t.Context(), kc, client.RawPatch("application/merge-patch+json", []byte(`{"status":{"nodes":{"ready":4}}}`))); err != nil {
		t.Fatal(err)
	}
	y.is(wide, metav1.ConditionTrue, "InForce", "")
}
