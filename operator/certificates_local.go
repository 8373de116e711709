package operator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"castellan.dev/castellan/pki"
)

// webhookName is the ValidatingWebhookConfiguration of an operator beside its API server.
const webhookName = "castellan"

// localAdmission is registered under its own address with a certificate of a CA that lives
// only in this process.
type localAdmission struct {
	validator
	client  client.Client
	address string // host:port to listen on; port 0 picks a free one
}

// Start serves until ctx ends; it implements manager.Runnable.
func (w *localAdmission) Start(ctx context.Context) error {
	listener, err := listen(ctx, w.address)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return fmt.Errorf("address of the admission listener: %w", err)
	}
	ca, certificate, err := passingCertificate(host)
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	return w.serve(ctx, listener, config, func() error { return w.registerInTime(ctx, listener.Addr().String(), ca) })
}

func passingCertificate(host string) (ca []byte, cert tls.Certificate, err error) {
	now := time.Now()
	authority, err := pki.NewCA(webhookCA, now)
	if err != nil {
		return nil, cert, fmt.Errorf("make the CA of the admission webhook: %w", err)
	}
	request := pki.Request{CommonName: webhookCA, Usage: pki.UsageServer}
	if ip := net.ParseIP(host); ip != nil {
		request.IPs = []net.IP{ip}
	} else {
		request.DNSNames = []string{host}
	}
	pair, err := authority.Issue(request, now)
	if err != nil {
		return nil, cert, fmt.Errorf("issue the certificate of the admission webhook: %w", err)
	}
	cert, err = tls.X509KeyPair(pair.PEM(), pair.PEM())
	if err != nil {
		return nil, cert, fmt.Errorf("read back the certificate of the admission webhook: %w", err)
	}
	return authority.TrustPEM(), cert, nil
}

// registerInTime tries again while an API server that has just started is still finding
// its feet.
func (w *localAdmission) registerInTime(ctx context.Context, address string, ca []byte) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, time.Second, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = w.register(ctx, address, ca)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("register admission: %w", errors.Join(err, last))
	}
	return nil
}

// register tells the API server where to ask.
func (w *localAdmission) register(ctx context.Context, address string, ca []byte) error {
	at := func(path string) admissionregistrationv1.WebhookClientConfig {
		return admissionregistrationv1.WebhookClientConfig{URL: new("https://" + address + path), CABundle: ca}
	}
	config := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: webhookName}}
	return apply(ctx, w.client, config, func() error {
		config.Webhooks = webhooks(at, nil)
		return nil
	})
}
