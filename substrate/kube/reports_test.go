package kube_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
	"castellan.dev/castellan/substrate/kube"
)

const address = "orders-1-0.orders-nodes.kafka.svc"

// supervisor plays the report's server of a pod.
type supervisor struct {
	server *httptest.Server
	mu     sync.Mutex
	report layout.Report
	number int
	change chan struct{}
	asked  []string
	broken bool
}

func newSupervisor(t *testing.T) *supervisor {
	t.Helper()
	s := &supervisor{change: make(chan struct{})}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MinVersion: tls.VersionTLS13}
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	return s
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{address}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (s *supervisor) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.URL.RawQuery)
	for r.URL.Query().Get("after") == strconv.Itoa(s.number) {
		change := s.change
		s.mu.Unlock()
		select {
		case <-change:
		case <-r.Context().Done():
			s.mu.Lock()
			return
		}
		s.mu.Lock()
	}
	if s.broken {
		http.Error(w, "broken", http.StatusInternalServerError)
		return
	}
	w.Header().Set("ETag", strconv.Itoa(s.number))
	if err := json.NewEncoder(w).Encode(s.report); err != nil {
		panic(err)
	}
}

func (s *supervisor) say(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.number++
	close(s.change)
	s.change = make(chan struct{})
}

func (s *supervisor) config(context.Context, types.NamespacedName) (*tls.Config, error) {
	pool := x509.NewCertPool()
	pool.AddCert(s.server.TLS.Certificates[0].Leaf)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}

func (s *supervisor) dial(ctx context.Context, network, to string) (net.Conn, error) {
	if to != "10.0.0.1:8443" {
		return nil, errors.New("dialled " + to)
	}
	return (&net.Dialer{}).DialContext(ctx, network, s.server.Listener.Addr().String())
}

func TestReports(t *testing.T) {
	s := newSupervisor(t)
	s.say(func() { s.report.State = api.NodeStarting })
	changed := make(chan types.NamespacedName, 100)
	r := kube.NewReports(s.config, s.dial, func(n types.NamespacedName) { changed <- n })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Start(ctx) }()
	node := types.NamespacedName{Namespace: "kafka", Name: "orders-1"}
	target := kube.Target{Cluster: types.NamespacedName{Namespace: "kafka", Name: "orders"}, Pod: "p-1", IP: "10.0.0.1", Name: address}
	r.Follow(node, target)

	next := func(want api.NodeState, why string) {
		t.Helper()
		if got := <-changed; got != node {
			t.Fatalf("another node changed: %s", got)
		}
		report, reason := r.Get(node, "p-1")
		if want == "" {
			if report != nil || !strings.Contains(reason, why) {
				t.Fatalf("report %+v because %q, want none because of %q", report, reason, why)
			}
			return
		}
		if report == nil || report.State != want {
			t.Fatalf("report %+v (%s), want state %s", report, reason, want)
		}
	}
	next(api.NodeStarting, "")
	s.say(func() { s.report.State = api.NodeRunning })
	next(api.NodeRunning, "")
	if report, why := r.Get(node, "p-2"); report != nil || why != "" {
		t.Errorf("another pod is believed: %+v %s", report, why)
	}
	s.mu.Lock()
	if last := s.asked[len(s.asked)-1]; !strings.Contains(last, "wait=") || s.asked[0] != "" {
		t.Errorf("asked %q, want no waiting at first and a long poll then", s.asked)
	}
	s.mu.Unlock()

	s.say(func() { s.broken = true })
	next("", "500")
	s.say(func() { s.broken, s.report.State = false, api.NodeStopping })
	next(api.NodeStopping, "")

	other := target
	other.Pod = "p-2"
	r.Follow(node, other)
	if <-changed; true {
		if report, _ := r.Get(node, "p-2"); report == nil {
			t.Error("the next pod is not followed")
		}
	}
	r.Forget(node)
	if report, _ := r.Get(node, "p-2"); report != nil {
		t.Error("a pod that is gone is believed")
	}
	r.Follow(node, target)
	<-changed
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestReportsOfAnImpostorAreNotBelieved(t *testing.T) {
	s, other := newSupervisor(t), newSupervisor(t)
	changed := make(chan types.NamespacedName, 100)
	r := kube.NewReports(other.config, s.dial, func(n types.NamespacedName) { changed <- n })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { _ = r.Start(ctx) }()
	node := types.NamespacedName{Namespace: "kafka", Name: "orders-1"}
	r.Follow(node, kube.Target{Pod: "p-1", IP: "10.0.0.1", Name: address})
	<-changed
	report, why := r.Get(node, "p-1")
	if report != nil || !strings.Contains(why, "certificate") {
		t.Errorf("report %+v, %q", report, why)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) > 0 {
		t.Error("the operator spoke to it")
	}
}
