package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"castellan.dev/castellan/test/e2e/stand"
)

// flow is a producer and a consumer of one KafkaUser, and somebody who connects anew all the time, by what the user's
// Secret holds at that moment. Every failed request, connection and handshake counts.
type flow struct {
	t         *testing.T
	s         *stand.Stand
	user      string
	brokers   []string
	topic     string
	held      atomic.Pointer[tls.Config]
	secret    map[string][]byte // as it was at first
	written   atomic.Int64
	read      atomic.Int64
	connected atomic.Int64
	mu        sync.Mutex
	failed    []string
	stop      context.CancelFunc
	running   sync.WaitGroup
}

const (
	flowPause = 20 * time.Millisecond
	// rereadPause is how soon a client uses what its Secret holds.
	rereadPause = 300 * time.Millisecond
)

// startFlow lets a user write and read through a listener.
func startFlow(t *testing.T, s *stand.Stand, listener, user string) *flow {
	t.Helper()
	f := &flow{t: t, s: s, user: user, topic: "flow-" + user, brokers: strings.Split(s.Bootstrap(listener), ",")}
	s.Must("topics", "create", f.topic, "--partitions", "3", "--cluster", s.Key().Name)
	c := s.Client()
	s.Eventually("user "+user+" has a Secret that works", time.Minute, func(ctx context.Context) error {
		if err := f.reread(ctx, c); err != nil {
			return err
		}
		return f.connect(ctx, f.brokers[0])
	})
	ctx, cancel := context.WithCancel(t.Context())
	f.stop = cancel
	t.Cleanup(f.end)
	f.run(func() { f.produce(ctx) })
	f.run(func() { f.consume(ctx) })
	f.run(func() {
		each(ctx, rereadPause, func() { f.note(ctx, "read its Secret", f.reread(ctx, c)) })
	})
	f.run(func() {
		next := 0
		each(ctx, rereadPause, func() {
			next++
			if err := f.connect(ctx, f.brokers[next%len(f.brokers)]); err == nil {
				f.connected.Add(1)
			} else {
				f.note(ctx, "connect anew", err)
			}
		})
	})
	s.Eventually("records of "+user+" are written and read", time.Minute, f.moreThan(50))
	return f
}

func (f *flow) run(what func()) { f.running.Go(what) }

func each(ctx context.Context, pause time.Duration, what func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			what()
		}
	}
}

func (f *flow) note(ctx context.Context, what string, err error) {
	if err == nil || ctx.Err() != nil || errors.Is(err, kgo.ErrClientClosed) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = append(f.failed, fmt.Sprintf("%s %s: %s: %v", time.Now().UTC().Format(time.TimeOnly), f.user, what, err))
}

// reread takes what the Secret holds now.
func (f *flow) reread(ctx context.Context, c client.Client) error {
	var secret corev1.Secret
	if err := c.Get(ctx, types.NamespacedName{Namespace: "default", Name: f.user}, &secret); err != nil {
		return err
	}
	if f.secret == nil {
		f.secret = secret.Data
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data["ca.crt"]) {
		return errors.New("no ca.crt")
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if chain := secret.Data["user.crt"]; len(chain) > 0 {
		pair, err := tls.X509KeyPair(chain, secret.Data["user.key"])
		if err != nil {
			return err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	f.held.Store(config)
	return nil
}

func (f *flow) options(brokers ...string) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(brokers...), kgo.DisableClientMetrics(), kgo.WithHooks(connectHook{f}), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.DefaultProduceTopic(f.topic),
		kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			return (&tls.Dialer{Config: f.held.Load()}).DialContext(ctx, network, address)
		}),
	}
	if password := f.secret["password"]; len(password) > 0 {
		opts = append(opts, kgo.SASL(scram.Auth{User: string(f.secret["username"]), Pass: string(password)}.AsSha512Mechanism()))
	}
	return opts
}

// connectHook counts connections that could not be made.
type connectHook struct{ f *flow }

func (h connectHook) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	h.f.note(context.Background(), "dial", err)
}

func (f *flow) connect(ctx context.Context, broker string) error {
	c, err := kgo.NewClient(append(f.options(broker), kgo.RequestRetries(0), kgo.WithHooks())...)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.Ping(ctx)
}

func (f *flow) produce(ctx context.Context) {
	c, err := kgo.NewClient(f.options(f.brokers...)...)
	if err != nil {
		f.note(ctx, "begin to write", err)
		return
	}
	defer c.Close()
	each(ctx, flowPause, func() {
		err := c.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr()
		if f.note(ctx, "write", err); err == nil {
			f.written.Add(1)
		}
	})
}

func (f *flow) consume(ctx context.Context) {
	c, err := kgo.NewClient(append(f.options(f.brokers...), kgo.ConsumeTopics(f.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		f.note(ctx, "begin to read", err)
		return
	}
	defer c.Close()
	for ctx.Err() == nil {
		fetches := c.PollFetches(ctx)
		f.note(ctx, "read", fetches.Err())
		f.read.Add(int64(fetches.NumRecords()))
	}
}

func (f *flow) moreThan(records int64) stand.Fact {
	return func(context.Context) error {
		if w, r := f.written.Load(), f.read.Load(); w <= records || r <= records {
			return fmt.Errorf("%d written, %d read; %v", w, r, f.failures())
		}
		return nil
	}
}

// goesOn waits for records after this moment.
func (f *flow) goesOn() {
	f.t.Helper()
	f.s.Eventually("records of "+f.user+" go on", time.Minute, f.moreThan(max(f.written.Load(), f.read.Load())+20))
}

func (f *flow) failures() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.failed...)
}

// unharmed fails the test when anything has failed since it was last asked.
func (f *flow) unharmed(when string) {
	f.t.Helper()
	f.goesOn()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.failed) > 0 {
		f.t.Errorf("%s: %d failures of %s, the first is %s", when, len(f.failed), f.user, f.failed[0])
	}
	f.failed = nil
	f.t.Logf("%s: %s wrote %d, read %d, connected anew %d times", when, f.user, f.written.Load(), f.read.Load(), f.connected.Load())
}

// forget counts anew.
func (f *flow) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = nil
}

// moved says whether its Secret has another certificate or trust than at first.
func (f *flow) moved(ctx context.Context, key string) (bool, error) {
	var secret corev1.Secret
	err := f.s.Client().Get(ctx, types.NamespacedName{Namespace: "default", Name: f.user}, &secret)
	return !bytes.Equal(secret.Data[key], f.secret[key]), err
}

func (f *flow) end() {
	f.stop()
	f.running.Wait()
}
