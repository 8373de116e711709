package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"

	"castellan.dev/castellan/test/kube/internal/netns"
)

// forwarder passes connections of the host's loopback on to the API server, which lives in another network.
type forwarder struct {
	listener net.Listener
	pid      func() int // of the control plane
}

// newForwarder listens on the port that the cluster had last time if that is free, so that an old kubeconfig stays right.
func newForwarder(ctx context.Context, d Dir, pid func() int) (*forwarder, error) {
	var config net.ListenConfig
	const anyPort = "127.0.0.1:0"
	address := anyPort
	if old, err := os.ReadFile(d.path("address")); err == nil && strings.HasPrefix(string(old), "127.0.0.1:") {
		address = string(old)
	}
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil && address != anyPort {
		listener, err = config.Listen(ctx, "tcp", anyPort)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for clients of the API server: %w", err)
	}
	if err := os.WriteFile(d.path("address"), []byte(listener.Addr().String()), 0o600); err != nil { //nolint:gosec // below the folder that the caller gave
		return nil, fmt.Errorf("remember the address: %w", err)
	}
	return &forwarder{listener: listener, pid: pid}, nil
}

func (f *forwarder) url() string { return "https://" + f.listener.Addr().String() }

func (f *forwarder) run(ctx context.Context, log *slog.Logger) {
	for {
		client, err := f.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.ErrorContext(ctx, "accept a client of the API server", slog.Any("error", err))
			return
		}
		go f.pass(ctx, client)
	}
}

func (f *forwarder) pass(ctx context.Context, client net.Conn) {
	defer client.Close() //nolint:errcheck // it is over
	server, err := netns.Dial(ctx, f.pid(), apiAddress)
	if err != nil {
		return // the client sees a closed connection, as from a server that is not up yet
	}
	defer server.Close() //nolint:errcheck // it is over
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyHalf(server, client)
	}()
	copyHalf(client, server)
	<-done
}

// copyHalf copies one direction and then says to the receiver that no more comes.
func copyHalf(to, from net.Conn) {
	_, _ = io.Copy(to, from) // either end may hang up at any time
	if tcp, ok := to.(*net.TCPConn); ok {
		_ = tcp.CloseWrite() // it may be closed already
	}
}
