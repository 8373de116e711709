package operator_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"castellan.dev/castellan/operator"
	"castellan.dev/castellan/pki"
)

const hookService = "castellan-webhook"

// clock is a clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// replica is one of several operators that answer through a Service.
type replica struct {
	webhook, health string
	stop            func()
}

func (y *yard) startReplica(at *clock) replica {
	y.t.Helper()
	r := replica{webhook: freeAddress(y.t), health: freeAddress(y.t)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	config := operator.Config{
		API: y.account(), Substrates: []string{operator.SubstrateHost}, PackagesDir: y.store, LeaseNamespace: system,
		WebhookAddress: r.webhook, WebhookService: hookService, HealthAddress: r.health, MetricsAddress: "0", Now: at.read,
		Log: slog.New(slog.NewTextHandler(y.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	go func() { ended <- operator.Run(ctx, config) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			y.t.Errorf("the operator ended with %v", err)
		}
	})
	y.t.Cleanup(r.stop)
	return r
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // only its address counts
	return l.Addr().String()
}

// TestTwoReplicas is one story: both answer, one leads and keeps the certificate, and the
// other one goes on where the first ends.
func TestTwoReplicas(t *testing.T) {
	y := newYard(t)
	y.create(operator.ServiceWebhook(system, hookService, nil))
	at := &clock{now: time.Now()}
	first := y.startReplica(at)
	y.eventually("the first leads", func() error { return y.ledBy("") })
	second := y.startReplica(at)
	for _, r := range []replica{first, second} {
		y.eventually("a replica is ready", func() error { return ready(r) })
	}
	leaf := y.bothServe(at, first, second, nil)

	at.add(9 * 30 * 24 * time.Hour) // the last third of the certificate's year
	y.touch()
	leaf = y.bothServe(at, first, second, leaf)
	at.add(pki.CALifetime) // everything has ended, as after a long sleep
	y.touch()
	leaf = y.bothServe(at, first, second, leaf)

	if err := y.c.Delete(y.t.Context(), y.hookSecret()); err != nil {
		t.Fatal(err)
	}
	leaf = y.bothServe(at, first, second, leaf)
	config := y.hookConfiguration()
	config.Webhooks[0].ClientConfig.CABundle = nil
	if err := y.c.Update(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	y.eventually("the caBundle is put back", func() error { return y.trusted(at, first.webhook) })

	before := y.leader()
	started := time.Now()
	first.stop()
	y.eventually("the second leads", func() error { return y.ledBy(before) })
	if took := time.Since(started); took > 12*time.Second { // not the 15 s of the Lease
		t.Errorf("an orderly hand-over took %s", took)
	}
	y.foreignSecret(at, second, leaf)
}

// bothServe waits until both replicas serve a certificate, other than the one before, that
// the API server trusts; it returns that.
func (y *yard) bothServe(at *clock, first, second replica, before []byte) []byte {
	y.t.Helper()
	var leaf []byte
	for _, r := range []replica{first, second} {
		y.eventually("the newest certificate is served and trusted", func() error {
			got, err := y.served(at, r.webhook)
			if err != nil {
				return err
			}
			if bytes.Equal(got, before) || leaf != nil && !bytes.Equal(got, leaf) {
				return errors.New("not the newest certificate")
			}
			leaf = got
			return nil
		})
	}
	return leaf
}

func (y *yard) trusted(at *clock, address string) error {
	_, err := y.served(at, address)
	return err
}

// served is the certificate of an address, as the API server checks it.
func (y *yard) served(at *clock, address string) ([]byte, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(y.hookConfiguration().Webhooks[0].ClientConfig.CABundle) {
		return nil, errors.New("no caBundle")
	}
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: hookService + "." + system + ".svc", Time: at.read, MinVersion: tls.VersionTLS13}}
	conn, err := dialer.DialContext(y.t.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw, nil
}

func (y *yard) hookSecret() *corev1.Secret {
	y.t.Helper()
	s := &corev1.Secret{}
	if err := y.c.Get(y.t.Context(), client.ObjectKey{Namespace: system, Name: operator.WebhookSecret}, s); err != nil {
		y.t.Fatal(err)
	}
	return s
}

func (y *yard) hookConfiguration() *admissionregistrationv1.ValidatingWebhookConfiguration {
	y.t.Helper()
	c := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := y.c.Get(y.t.Context(), client.ObjectKey{Name: operator.WebhookConfiguration(system)}, c); err != nil {
		y.t.Fatal(err)
	}
	return c
}

// touch lets the leader look, since a set clock ends no timer.
func (y *yard) touch() {
	y.t.Helper()
	s := y.hookSecret()
	before := s.DeepCopy()
	metav1.SetMetaDataAnnotation(&s.ObjectMeta, "touched", time.Now().String())
	if err := y.c.Patch(y.t.Context(), s, client.MergeFrom(before)); err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) leader() string {
	lease := &coordinationv1.Lease{}
	if err := y.c.Get(y.t.Context(), client.ObjectKey{Namespace: system, Name: operator.LeaseName}, lease); err != nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func (y *yard) ledBy(not string) error {
	if now := y.leader(); now == "" || now == not {
		return fmt.Errorf("the holder is %q", now)
	}
	return nil
}

func ready(r replica) error {
	response, err := http.Get("http://" + r.health + "/readyz")
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // its status is all that counts
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// foreignSecret: what somebody else provides is served, and not touched.
func (y *yard) foreignSecret(at *clock, r replica, leaf []byte) {
	y.t.Helper()
	s := y.hookSecret()
	delete(s.Labels, pki.LabelManagedBy)
	delete(s.Data, pki.KeyCAKey)
	if err := y.c.Update(y.t.Context(), s); err != nil {
		y.t.Fatal(err)
	}
	y.eventually("an event says whose it is not", func() error {
		var list eventsv1.EventList
		if err := y.c.List(y.t.Context(), &list, client.InNamespace(system)); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Reason == "AdmissionNotRegistered" && e.Regarding.Name == operator.LeaseName {
				return nil
			}
		}
		return fmt.Errorf("not among %d events", len(list.Items))
	})
	if now := y.hookSecret(); now.ResourceVersion != s.ResourceVersion {
		y.t.Error("the Secret of somebody else was written")
	}
	if got, err := y.served(at, r.webhook); err != nil || !bytes.Equal(got, leaf) {
		y.t.Errorf("it is not served: %v", err)
	}
}
