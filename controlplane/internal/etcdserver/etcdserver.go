// Package etcdserver runs one embedded etcd that is reachable through a Unix socket only. It opens no network port and
// never talks to peers.
package etcdserver

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"castellan.dev/castellan/controlplane/internal/datadir"
)

const (
	// MemberName and PeerURL name the only member; a restored data directory must carry the same names.
	MemberName = "castellan"
	// PeerURL is nominal: etcd wants host and port, nobody listens there and nobody dials it.
	PeerURL = "http://" + peerHost

	peerHost     = "localhost:2380"
	clientHost   = "localhost:2379" // nominal too
	quotaBytes   = 4 << 30
	startTimeout = 60 * time.Second
	slowRequest  = 500 * time.Millisecond
	hangUpGrace  = time.Second
)

// Server is a running etcd.
type Server struct{ etcd *embed.Etcd }

// Endpoint is what a client dials to reach the etcd of a data directory.
func Endpoint(dir datadir.Dir) string { return "unix://" + dir.EtcdSocket() }

// Start runs etcd on the directory and returns when it serves.
func Start(ctx context.Context, dir datadir.Dir, log *zap.Logger) (*Server, error) {
	etcd, err := embed.StartEtcd(config(dir, log))
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", dir.Etcd(), err)
	}
	s := &Server{etcd: etcd}
	if err := s.await(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func config(dir datadir.Dir, log *zap.Logger) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = MemberName
	cfg.Dir = dir.Etcd()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	cfg.ListenClientUrls = []url.URL{{Scheme: "unix", Path: dir.EtcdSocket()}}
	// No peer listener at all: with a unix peer URL etcd opens an abstract socket that anyone on the host may use.
	cfg.ListenPeerUrls = nil
	cfg.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: clientHost}}
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: peerHost}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.EnableGRPCGateway = false
	cfg.QuotaBackendBytes = quotaBytes
	// The library leaves this at zero, which calls every request slow.
	cfg.WarningUnaryRequestDuration = slowRequest
	return cfg
}

func (s *Server) await(ctx context.Context) error {
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-s.etcd.Server.ReadyNotify():
		return nil
	case err := <-s.etcd.Err():
		return fmt.Errorf("etcd failed while starting: %w", err)
	case <-timeout.C:
		return fmt.Errorf("etcd was not ready after %s: see its log lines above", startTimeout)
	case <-ctx.Done():
		return errors.Join(errors.New("stopped before etcd was ready"), ctx.Err())
	}
}

// Failed reports an error after which etcd no longer serves.
func (s *Server) Failed() <-chan error { return s.etcd.Err() }

// Close stops etcd; all acknowledged writes are on disk already. Call it when the process is about to end: connections of
// clients that are slow to hang up are left to that end.
func (s *Server) Close() {
	// The store first, because etcd's own order waits 7 s for the idle connections that the API server leaves behind once
	// it has run for a minute (measured).
	s.etcd.Server.Stop()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.etcd.Close()
	}()
	select {
	case <-closed:
	case <-time.After(hangUpGrace):
	}
}

// ClientConfig is how a client of this machine reaches the etcd of a data directory.
func ClientConfig(dir datadir.Dir, log *zap.Logger) clientv3.Config {
	return clientv3.Config{Endpoints: []string{Endpoint(dir)}, DialTimeout: 5 * time.Second, Logger: log}
}
