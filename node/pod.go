package node

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"castellan.dev/castellan/core/layout"
)

// Pod is where a node finds its files and answers when it is a pod. Nothing of it may be
// written to.
type Pod struct {
	// StaticDir, LiveDir, TLSDir and InfoDir are mounted, see package layout.
	StaticDir, LiveDir, TLSDir, InfoDir string
	// Machine is the name of the Kubernetes node that the pod runs on.
	Machine string
	// ReportAddress and ProbeAddress are host:port to listen at; an empty host means all.
	ReportAddress, ProbeAddress string
	// Stdout gets Kafka's log.
	Stdout io.Writer
	// RackWait is how long a start waits for its rack when nothing is known of the machine,
	// NameWait how long for a certificate that names the hosts that clients are told, and
	// SyncWait how long a ready node is kept from its Services until it is in sync.
	RackWait, NameWait, SyncWait time.Duration
}

// PodPlaces are those of layout 1, on a machine ($CASTELLAN_NODE_NAME).
func PodPlaces(machine string) *Pod {
	return &Pod{
		StaticDir: layout.PodStaticDir, LiveDir: layout.PodLiveDir, TLSDir: layout.PodTLSDir, InfoDir: layout.PodInfoDir,
		Machine:       machine,
		ReportAddress: layout.HostPort("", layout.ReportPort), ProbeAddress: layout.HostPort("", layout.ProbePort),
		Stdout:   os.Stdout,
		RackWait: 30 * time.Second, NameWait: time.Minute, SyncWait: 5 * time.Minute,
	}
}

func (s *supervisor) staticFile() string {
	if p := s.config.Pod; p != nil {
		return filepath.Join(p.StaticDir, layout.StaticFile)
	}
	return s.path(layout.StaticFile)
}

func (s *supervisor) liveFile() string {
	if p := s.config.Pod; p != nil {
		return filepath.Join(p.LiveDir, layout.LiveFile)
	}
	return s.path(layout.LiveFile)
}

func (s *supervisor) tlsDir() string {
	if p := s.config.Pod; p != nil {
		return p.TLSDir
	}
	return s.path(layout.TLSDir)
}

// servePod answers the operator and the kubelet.
func (s *supervisor) servePod(ctx context.Context) (opened []*endpoint, err error) {
	p := s.config.Pod
	if p == nil {
		return nil, nil
	}
	defer func() {
		if err != nil {
			closeAll(ctx, s.log, opened)
			opened = nil
		}
	}()
	var config net.ListenConfig
	probes, err := config.Listen(ctx, "tcp", p.ProbeAddress)
	if err != nil {
		return opened, fail(ExitHost, ReasonPortInUse, "answer the kubelet's probes: %v: no listener of the node may have that port", err)
	}
	opened = append(opened, s.answer(ctx, probes, s.probeHandler()))
	reports, err := config.Listen(ctx, "tcp", p.ReportAddress)
	if err != nil {
		return opened, fail(ExitHost, ReasonPortInUse, "report to the operator: %v: no listener of the node may have that port", err)
	}
	return append(opened, s.answer(ctx, tls.NewListener(reports, s.reportTLS()), s.reportHandler())), nil
}

// probeHandler says nothing that not everybody may know: of why a node is not ready one word,
// the sentence names topics and stands in the KafkaNode.
func (s *supervisor) probeHandler() http.Handler {
	mux := http.NewServeMux()
	s.handleLive(mux)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := s.report.closed(s.config.now(), s.config.Pod.SyncWait); why != "" {
			reason, _, _ := strings.Cut(why, ":")
			writeText(w, http.StatusServiceUnavailable, reason)
			return
		}
		writeText(w, http.StatusOK, "ok")
	})
	return mux
}

// reportHandler answers the operator alone.
func (s *supervisor) reportHandler() http.Handler {
	mux := http.NewServeMux()
	s.handleReport(mux)
	s.handleMetrics(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if peer(r) != operatorSubject {
			writeText(w, http.StatusForbidden, "only the operator may read this: show its certificate ("+operatorSubject+")")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// operatorSubject is matched as a whole, like layout.PrincipalRules has it for Kafka.
const operatorSubject = "CN=" + layout.OperatorPrincipal + ",O=castellan"

func peer(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return ""
	}
	return r.TLS.PeerCertificates[0].Subject.String()
}

// reportTLS shows the node's certificate of the moment and takes only those of the CAs of
// the moment.
func (s *supervisor) reportTLS() *tls.Config {
	files := &lastGood{s: s}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := files.identity()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own.pair},
				ClientCAs: own.trust, ClientAuth: tls.RequireAndVerifyClientCert,
				SessionTicketsDisabled: true, // who returns is verified anew
			}, nil
		},
	}
}

// lastGood is the node's identity, read again when its files change.
type lastGood struct {
	s     *supervisor
	mu    sync.Mutex
	stamp string
	own   identity
}

func (l *lastGood) identity() (identity, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	stamp := l.s.stamp()
	if stamp == l.stamp {
		return l.own, nil
	}
	own, err := l.s.readIdentity()
	if err != nil {
		if l.own.leaf != nil {
			return l.own, nil // half replaced
		}
		return identity{}, errors.Join(errors.New("the node has no certificate yet"), err)
	}
	l.stamp, l.own = stamp, own
	return own, nil
}
