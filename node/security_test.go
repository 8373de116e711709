package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/packages/packagestest"
)

// Only certificates of the cluster's own nodes and of the operator may do everything, only
// on the own listeners; a name that looks alike is nobody. Afterwards the JVM is killed:
// that is named, and the next start says what Kafka's log says about its recovery.
func TestOnlyOurCertificatesRule(t *testing.T) {
	t.Parallel()
	b := newBench(t, packagestest.RealKafka(t, "4.3.1").Dir)
	b.static.Process.Listeners = append(b.static.Process.Listeners, api.NodeListener{Name: "SECURE", Protocol: "SSL"})
	b.static.Ports["SECURE"] = freePorts(t, 1)[0]
	b.static.Process.Config["allow.everyone.if.no.acl.found"] = "false"
	b.start()
	b.answer(b.untilAsking().Nonce)
	b.untilReady()

	ours := []string{"castellan"}
	for _, tt := range []struct {
		reason   string
		listener string
		subject  pkix.Name
		allowed  bool
	}{
		{"the operator", layout.InternalListener, pkix.Name{CommonName: "castellan-operator", Organization: ours}, true},
		{"another node", layout.InternalListener, pkix.Name{CommonName: "castellan-node-77", Organization: ours}, true},
		{"the operator at a controller", layout.ControllerListener, pkix.Name{CommonName: "castellan-operator", Organization: ours}, true},
		{"a longer name", layout.InternalListener, pkix.Name{CommonName: "castellan-operator-2", Organization: ours}, false},
		{"a node without number", layout.InternalListener, pkix.Name{CommonName: "castellan-node-", Organization: ours}, false},
		{"the principal itself", layout.InternalListener, pkix.Name{CommonName: "castellan-node", Organization: ours}, false},
		{"another organization", layout.InternalListener, pkix.Name{CommonName: "castellan-operator", Organization: []string{"users"}}, false},
		{"no organization", layout.InternalListener, pkix.Name{CommonName: "castellan-operator"}, false},
		{"a unit more", layout.InternalListener, pkix.Name{CommonName: "castellan-operator", Organization: ours, OrganizationalUnit: []string{"x"}}, false},
		{"the subject inside a name", layout.InternalListener, pkix.Name{CommonName: "castellan-operator,O=castellan"}, false},
		{"the subject as an organization", layout.ControllerListener, pkix.Name{Organization: []string{"castellan,CN=castellan-operator"}}, false},
		{"the operator at a listener for clients", "SECURE", pkix.Name{CommonName: "castellan-operator", Organization: ours}, false},
		{"a node at a plaintext listener", "PLAIN", pkix.Name{CommonName: "castellan-node-1", Organization: ours}, false},
	} {
		err := b.alter(tt.listener, &tt.subject)
		if allowed := err == nil; allowed != tt.allowed {
			t.Errorf("%s: allowed is %t (%v), want %t", tt.reason, allowed, err, tt.allowed)
		}
	}
	for _, listener := range []string{layout.InternalListener, layout.ControllerListener} {
		if err := b.alter(listener, nil); err == nil || strings.Contains(err.Error(), "AUTHORIZATION") {
			t.Errorf("%s without a certificate: error %v, want a refused connection", listener, err)
		}
	}
	b.createTopic("orders")
	b.killed(t)
}

func (b *bench) killed(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(int(b.report().PID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.wantFailure(137, ReasonKilled, "SIGKILL")
	log := readLog(filepath.Join(b.dir, layout.LogDir, layout.ServerLog))
	b.start()
	b.untilReady()
	text := strings.Join(log.lines(), "\n")
	for _, line := range []string{"Loading logs from log dirs", " Recovering ", "Completed load of ", " Loaded "} {
		if !strings.Contains(text, line) {
			t.Errorf("Kafka does not log %q any more, by which its recovery is recognized", line)
		}
	}
	if reason, _ := log.progress(); reason != ReasonStarting {
		t.Errorf("after the recovery: %s", reason)
	}
	if !strings.Contains(log.last, "Completed load of ") {
		t.Errorf("the last step of the recovery is %q", log.last)
	}
}

// alter asks for something that only a super user may do. Without a subject it shows no
// certificate.
func (b *bench) alter(listener string, subject *pkix.Name) error {
	b.t.Helper()
	response, err := ask[*kmsg.IncrementalAlterConfigsResponse](b, b.clientOf(listener, subject), alteration())
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(response.Resources[0].ErrorCode)
}

// createTopic lets there be a log to recover.
func (b *bench) createTopic(name string) {
	b.t.Helper()
	request := kmsg.NewPtrCreateTopicsRequest()
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 3, 1
	request.Topics = append(request.Topics, topic)
	operator := b.clientOf(layout.InternalListener, &pkix.Name{CommonName: layout.OperatorPrincipal, Organization: []string{"castellan"}})
	response, err := ask[*kmsg.CreateTopicsResponse](b, operator, request)
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].ErrorCode)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	eventually(b.t, "log of "+name, func() bool {
		_, err := os.Stat(filepath.Join(layout.DataDir(b.static.Volumes[0]), name+"-2", "leader-epoch-checkpoint"))
		return err == nil
	})
}

func (b *bench) clientOf(listener string, subject *pkix.Name) []kgo.Opt {
	b.t.Helper()
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM([]byte(b.ca.pem))
	config := &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12, ServerName: "127.0.0.1"}
	if subject != nil {
		text, _ := b.ca.leafOf(b.t, *subject, 99)
		pair, err := tls.X509KeyPair([]byte(text), []byte(text))
		if err != nil {
			b.t.Fatal(err)
		}
		// Shown also to a server that asks for no certificate of this CA.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	opts := []kgo.Opt{kgo.SeedBrokers(fmt.Sprintf("127.0.0.1:%d", b.static.Ports[listener])), kgo.RequestRetries(0), kgo.DisableClientMetrics()}
	if listener != "PLAIN" {
		opts = append(opts, kgo.DialTLSConfig(config))
	}
	return opts
}

func ask[R kmsg.Response](b *bench, opts []kgo.Opt, request kmsg.Request) (R, error) { //nolint:ireturn // the caller names the type
	b.t.Helper()
	var none R
	client, err := kgo.NewClient(opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	response, err := client.SeedBrokers()[0].Request(ctx, request)
	if err != nil {
		return none, err
	}
	return response.(R), nil
}

func alteration() *kmsg.IncrementalAlterConfigsRequest {
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.ValidateOnly = true
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType = kmsg.ConfigResourceTypeBroker
	change := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	change.Name, change.Value = "log.cleaner.threads", new("1")
	resource.Configs = append(resource.Configs, change)
	request.Resources = append(request.Resources, resource)
	return request
}
