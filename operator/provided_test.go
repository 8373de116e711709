package operator

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func TestAProvidedSecretIsReadOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		cached, stored := fake.NewFakeClient(), fake.NewClientBuilder().Build()
		live := interceptor.NewClient(stored, interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				requests++
				return c.Get(ctx, key, o, opts...)
			},
		})
		c := newProvidedClient(cached, live)
		read := func(want string, wantRequests int) {
			t.Helper()
			before, secret := requests, &corev1.Secret{}
			err := c.Get(t.Context(), client.ObjectKey{Namespace: "kafka", Name: "orders-ca"}, secret)
			if apierrors.IsNotFound(err) != (want == "") || err != nil && want != "" {
				t.Fatalf("read: %v, want %q", err, want)
			}
			if got := string(secret.Data["ca.crt"]); got != want || requests-before != wantRequests {
				t.Errorf("read %q in %d requests, want %q in %d", got, requests-before, want, wantRequests)
			}
			if want != "" {
				secret.Data["ca.crt"] = []byte("what its reader makes of it")
			}
		}
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kafka", Name: "orders-ca"}, Data: map[string][]byte{"ca.crt": []byte("1")}}
		write := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}

		read("", 1)
		read("", 1) // that there is none is looked at each time
		write(stored.Create(t.Context(), secret))
		read("1", 1)
		read("1", 0)
		read("1", 0)
		secret.Data["ca.crt"] = []byte("2")
		write(stored.Update(t.Context(), secret))
		time.Sleep(providedFor + time.Second)
		read("2", 1)
		read("2", 0)
		_ = c.Update(t.Context(), secret.DeepCopy()) // whatever became of it
		read("2", 1)
		write(stored.Delete(t.Context(), secret))
		time.Sleep(providedFor + time.Second)
		read("", 1)
		if len(c.secrets) > 0 {
			t.Errorf("%d Secrets are kept that nobody has", len(c.secrets))
		}
	})
}
