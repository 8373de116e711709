package kafka

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// DialFunc opens a connection to host:port in place of the network's own dialer, such as
// one through an API server. TLS, if any, is spoken over what it returns.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// tunnelTimeout bounds one dial by a DialFunc, TLS included: a tunnel is opened by others first.
const tunnelTimeout = 8 * time.Second

// dialing are the options of a client that dials by dial (nil is the network) and speaks
// TLS by config (nil is plaintext).
func dialing(dial DialFunc, config *tls.Config) []kgo.Opt {
	if dial != nil {
		return []kgo.Opt{kgo.Dialer(dial.secured(config))}
	}
	opts := []kgo.Opt{kgo.DialTimeout(dialTimeout)}
	if config != nil {
		opts = append(opts, kgo.DialTLSConfig(config))
	}
	return opts
}

// secured bounds the dial and speaks TLS over it, with the name that is dialed as the one
// that the certificate must have.
func (d DialFunc) secured(config *tls.Config) DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, tunnelTimeout)
		defer cancel()
		raw, err := d(ctx, network, address)
		if err != nil || config == nil {
			return raw, err
		}
		own := config.Clone()
		if own.ServerName == "" {
			if own.ServerName, _, err = net.SplitHostPort(address); err != nil {
				_ = raw.Close()
				return nil, fmt.Errorf("dial %s: %w", address, err)
			}
		}
		conn := tls.Client(raw, own)
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("speak TLS to %s: %w", address, err)
		}
		return conn, nil
	}
}
